// SPDX-License-Identifier: Apache-2.0
//! From objects and a look at EC2 to what the plan stands on. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_api::{BlockWord, ENIPool, ENIPoolSpec, EniMode, Kind, NodeConfig, NodeState};
use rhumb_ipam::eni::{
    EniBlock, EniPolicy, Groups, Inputs, NodeFacts, Record, Report, Subnets, Unit, Warm, Word,
};
use rhumb_model::{Family, InstanceId, NodeName, PoolName, Timestamp};

use super::look::{Look, Scope};
use super::objects::{NodeRow, Objects};

/// The pool of every node that one chooses: the first by name.
pub(crate) fn chosen(objects: &Objects) -> BTreeMap<NodeName, (&NodeRow, &ENIPool)> {
    let nodes = objects.nodes.iter().flatten();
    nodes
        .filter_map(|(key, row)| {
            let mut pools = objects.pools.iter().flat_map(BTreeMap::values);
            let pool = pools.find(|pool| pool.spec.node_selector.matches(&row.labels))?;
            Some((NodeName::new(key.name.as_str()).ok()?, (row, pool)))
        })
        .collect()
}

/// The instance that a node is: by its Node object, else by its agent.
fn instance(row: &NodeRow, state: Option<&NodeState>) -> Option<InstanceId> {
    let told = || state.and_then(|state| state.status.instance.as_ref()).map(|identity| identity.id.clone());
    row.instance.clone().or_else(told)
}

/// What every node that one chooses is, where that is known.
pub(crate) fn instances(objects: &Objects) -> BTreeMap<NodeName, Option<InstanceId>> {
    let chosen = chosen(objects).into_iter();
    chosen
        .map(|(name, (row, _))| {
            let instance = instance(row, objects.state(&name));
            (name, instance)
        })
        .collect()
}

/// For what EC2 is to be looked at.
pub(crate) fn scope(objects: &Objects, cluster: &str) -> Scope {
    let chosen = chosen(objects);
    let instances = chosen.iter().filter_map(|(name, (row, _))| instance(row, objects.state(name)));
    let prefixes = |pool: &ENIPool| pool.spec.mode == EniMode::Prefixes;
    Scope {
        cluster: cluster.to_owned(),
        instances: instances.collect(),
        prefixes: chosen.values().any(|(_, pool)| prefixes(pool)),
        reserved: Timestamp(0),
    }
}

/// What the plan stands on. Nodes whose instance EC2 did not show are not in it: they are left as they are.
pub(crate) fn inputs(objects: &Objects, look: &Look, cluster: &str, orphan_age: Duration) -> Inputs {
    let pods = objects.pods_by_node();
    let pools = objects.pools.iter().flat_map(BTreeMap::values);
    let chosen = chosen(objects);
    let nodes = chosen.into_iter().filter_map(|(name, (row, pool))| {
        let state = objects.state(&name);
        let instance = look.instances.get(&instance(row, state)?)?.clone();
        let pool = PoolName::new(pool.key().name).ok()?;
        let facts = NodeFacts {
            limits: look.limits.get(&instance.kind).cloned().flatten(),
            kubelet_pods: row.pods,
            leaving: row.leaving,
            scheduled: pods.get(name.as_str()).copied().unwrap_or(0),
            record: record(objects.config(&name), &instance.id, state),
            report: state.map(|state| report(state, &pool)),
            pool,
            instance,
        };
        Some((name, facts))
    });
    Inputs {
        cluster: cluster.to_owned(),
        orphan_age,
        nodes: nodes.collect(),
        pools: pools
            .filter_map(|pool| Some((PoolName::new(pool.key().name).ok()?, policy(&pool.spec))))
            .collect(),
    }
}

fn policy(spec: &ENIPoolSpec) -> EniPolicy {
    EniPolicy {
        unit: match spec.mode {
            EniMode::Addresses => Some(Unit::Address),
            EniMode::Prefixes => Some(Unit::Prefix),
            EniMode::None => None,
        },
        ipv6: spec.ipv6,
        subnets: match (spec.subnets.ids.is_empty(), spec.subnets.tags.is_empty()) {
            (true, true) => Subnets::OfInstance,
            (false, _) => Subnets::Ids(spec.subnets.ids.clone()),
            (true, false) => Subnets::Tags(spec.subnets.tags.clone()),
        },
        groups: match (spec.security_groups.ids.is_empty(), spec.security_groups.tags.is_empty()) {
            (true, true) => Groups::OfPrimary,
            (false, _) => Groups::Ids(spec.security_groups.ids.clone()),
            (true, false) => Groups::Tags(spec.security_groups.tags.clone()),
        },
        groups_of_primary: spec.security_groups.primary,
        pre_allocate: spec.pre_allocate,
        min_allocate: spec.min_allocate,
        max_allocate: (spec.max_allocate > 0).then_some(spec.max_allocate),
        max_above_watermark: spec.max_above_watermark,
        settle: Duration::from_secs(u64::from(spec.settle_seconds)),
        warm: spec
            .warm
            .adaptive
            .then(|| Warm { horizon: Duration::from_secs(u64::from(spec.warm.horizon_seconds)) }),
        first_interface_index: spec.first_interface_index,
        exclude_tags: spec.exclude_interface_tags.clone(),
        tags: spec.interface_tags.clone(),
        delete_on_termination: spec.delete_on_termination,
        switch_off_source_dest_check: !spec.source_dest_check,
        interfaces_per_hour: spec.interface_budget_per_hour,
        release_delay: Duration::from_secs(u64::from(spec.release_delay_seconds)),
        reserve_prefixes: spec.reserve_prefixes,
        addresses_in_prefix_subnets: spec.allow_addresses_in_prefix_subnets,
    }
}

/// The part of a NodeConfig that the plan writes.
///
/// Of another instance under the node's name nothing holds but the number: the agent's words about an earlier life of
/// the object, which may have been deleted meanwhile, are never to be taken for words about this one.
fn record(config: Option<&NodeConfig>, instance: &InstanceId, state: Option<&NodeState>) -> Record {
    let eni = config.and_then(|config| config.spec.eni.as_ref());
    let heard = state.map_or(0, |state| state.status.observed_generation);
    let generation = eni.map_or(0, |eni| eni.generation).max(heard);
    let (Some(config), Some(eni)) = (config, eni.filter(|eni| eni.instance == *instance)) else {
        return Record { generation, ..Record::default() };
    };
    let blocks = config.spec.pod_cidrs.iter().filter_map(|block| {
        Some(EniBlock {
            cidr: block.cidr,
            interface: block.interface.clone()?,
            releasing: block.releasing,
            unassigning: block.unassigning,
        })
    });
    let interfaces = eni.interfaces.iter().map(|interface| interface.id.clone());
    Record { generation, blocks: blocks.collect(), interfaces: interfaces.collect() }
}

/// What the node's agent says about the blocks of this pool.
fn report(state: &NodeState, pool: &PoolName) -> Report {
    let status = &state.status;
    let of_pool = || status.pools.iter().filter(|usage| usage.pool == *pool);
    let v4 = || of_pool().filter(|usage| usage.family == Family::V4);
    let saturated = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let words = |words: &[BlockWord]| {
        words.iter().map(|word| Word { cidr: word.cidr, generation: word.generation }).collect()
    };
    Report {
        observed: status.observed_generation,
        used: saturated(v4().map(|usage| usage.used).sum()),
        cooling: saturated(v4().map(|usage| usage.cooling).sum()),
        pending: status.pending,
        idle: of_pool().flat_map(|usage| usage.idle.iter().copied()).collect::<BTreeSet<_>>(),
        released: words(&status.released),
        declined: words(&status.declined),
    }
}
