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

/// Which instance a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody says.
    Unknown,
    /// This one, and no other node is it.
    Sole(InstanceId),
    /// The other node is said to be it as well: whose its addresses are, nobody knows.
    Disputed(InstanceId, NodeName),
}

/// The claim of every node.
pub(crate) type Claims = BTreeMap<NodeName, Claim>;

impl Claim {
    /// The instance that is the node's alone.
    pub(crate) fn sole(&self) -> Option<&InstanceId> {
        match self {
            Self::Sole(instance) => Some(instance),
            Self::Unknown | Self::Disputed(..) => None,
        }
    }
}

/// Which instance every node is, whether an ENIPool chooses it or not: two nodes that were one instance would give its
/// addresses to two pods each.
///
/// What the Node object says (`spec.providerID`) comes from the kubelet or the cloud's controller and wins over the words
/// of agents: an agent is asked only about a node of which that says nothing, and is not believed about an instance that
/// is another node by it.
/// Blocks that a node was given as an instance are its own until its Node object says that it is another one, or is gone:
/// its pods may have addresses of them.
pub(crate) fn claims(objects: &Objects) -> Claims {
    let nodes = objects.nodes.iter().flatten();
    let nodes: Vec<(NodeName, &NodeRow)> =
        nodes.filter_map(|(key, row)| Some((NodeName::new(key.name.as_str()).ok()?, row))).collect();
    let told = |name: &NodeName| {
        objects.state(name).and_then(|state| state.status.instance.as_ref()).map(|identity| &identity.id)
    };
    let given = |name: &NodeName| {
        let spec = &objects.config(name)?.spec;
        let has_blocks = spec.pod_cidrs.iter().any(|block| block.interface.is_some());
        spec.eni.as_ref().filter(|_| has_blocks).map(|eni| &eni.instance)
    };
    let mut written: BTreeMap<&InstanceId, Vec<&NodeName>> = BTreeMap::new();
    let mut said: BTreeMap<&InstanceId, Vec<&NodeName>> = BTreeMap::new();
    let mut held: BTreeMap<&InstanceId, Vec<&NodeName>> = BTreeMap::new();
    for (name, row) in &nodes {
        match (&row.instance, told(name)) {
            (Some(instance), _) => written.entry(instance).or_default().push(name),
            (None, Some(instance)) => said.entry(instance).or_default().push(name),
            (None, None) => {}
        }
        if let (None, Some(instance)) = (&row.instance, given(name)) {
            held.entry(instance).or_default().push(name);
        }
    }
    let claim = |name: &NodeName, row: &NodeRow| {
        let Some(instance) = row.instance.as_ref().or_else(|| told(name)) else { return Claim::Unknown };
        let who = written.get(instance).or_else(|| said.get(instance));
        match who.into_iter().chain(held.get(instance)).flatten().find(|other| **other != name) {
            Some(other) => Claim::Disputed(instance.clone(), (*other).clone()),
            None => Claim::Sole(instance.clone()),
        }
    };
    nodes.iter().map(|(name, row)| (name.clone(), claim(name, row))).collect()
}

/// For what EC2 is to be looked at.
pub(crate) fn scope(objects: &Objects, claims: &Claims, cluster: &str) -> Scope {
    let chosen = chosen(objects);
    let instances = chosen.keys().filter_map(|name| claims.get(name)?.sole().cloned());
    let prefixes = |pool: &ENIPool| pool.spec.mode == EniMode::Prefixes;
    Scope {
        cluster: cluster.to_owned(),
        instances: instances.collect(),
        prefixes: chosen.values().any(|(_, pool)| prefixes(pool)),
        reserved: Timestamp(0),
    }
}

/// What the plan stands on. Nodes whose instance is not theirs alone, or was not shown by EC2, are not in it: they are
/// left as they are.
pub(crate) fn inputs(
    objects: &Objects,
    claims: &Claims,
    look: &Look,
    cluster: &str,
    orphan_age: Duration,
) -> Inputs {
    let pods = objects.pods_by_node();
    let pools = objects.pools.iter().flat_map(BTreeMap::values);
    let chosen = chosen(objects);
    let nodes = chosen.into_iter().filter_map(|(name, (row, pool))| {
        let instance = look.instances.get(claims.get(&name)?.sole()?)?.clone();
        let state = objects.state(&name);
        let believed = state.filter(|state| is_of(state, &instance.id));
        let pool = PoolName::new(pool.key().name).ok()?;
        let facts = NodeFacts {
            limits: look.limits.get(&instance.kind).cloned().flatten(),
            kubelet_pods: row.pods,
            leaving: row.leaving,
            scheduled: pods.get(name.as_str()).copied().unwrap_or(0),
            record: record(objects.config(&name), &instance.id, state),
            report: believed.map(|state| report(state, &pool)),
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

/// Whether the words of a node's agent may be about this instance: of another one they say nothing about its pods.
fn is_of(state: &NodeState, instance: &InstanceId) -> bool {
    state.status.instance.as_ref().is_none_or(|told| told.id == *instance)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_api::{InstanceIdentity, Node, NodeStateStatus, Update};
    use rhumb_model::{Instance, InstanceState, SubnetId, Zone};

    use super::super::objects::Seen;

    fn name(name: &str) -> NodeName {
        NodeName::new(name).expect("valid")
    }

    fn id(number: u8) -> InstanceId {
        InstanceId::new(format!("i-{number}")).expect("valid")
    }

    /// Nodes, each with the instance of its Node object and that of its agent, and a pool for all of them.
    fn objects(nodes: &[(&str, Option<u8>, Option<u8>)]) -> Objects {
        let mut objects = Objects::default();
        objects.take(Seen::Pools(Update::Snapshot(vec![ENIPool::new("vpc", ENIPoolSpec::default())])));
        let node = |(name, written, _): &(&str, Option<u8>, _)| -> Node {
            let spec = written.map_or_else(String::new, |number| {
                format!(r#", "spec": {{"providerID": "aws:///z/{}"}}"#, id(number))
            });
            serde_json::from_str(&format!(r#"{{"metadata": {{"name": "{name}"}}{spec}}}"#)).expect("readable")
        };
        objects.take(Seen::Nodes(Update::Snapshot(nodes.iter().map(node).collect())));
        let state = |(node, _, told): &(&str, Option<u8>, Option<u8>)| {
            let mut state = NodeState::new(&name(node));
            let identity = |number: u8| InstanceIdentity {
                id: id(number),
                kind: "m5.large".to_owned(),
                zone: Zone::new("z").expect("valid"),
                subnet: SubnetId::new("subnet-1").expect("valid"),
                vpc: None,
            };
            state.status = NodeStateStatus {
                instance: told.map(identity),
                observed_generation: 7,
                ..NodeStateStatus::default()
            };
            state
        };
        objects.take(Seen::States(Update::Snapshot(nodes.iter().map(state).collect())));
        objects
    }

    /// A look that shows instances 1 to 3.
    fn look() -> Look {
        let instance = |number: u8| Instance {
            id: id(number),
            kind: "m5.large".to_owned(),
            zone: Zone::new("z").expect("valid"),
            vpc: None,
            subnet: None,
            state: InstanceState::Running,
            tags: BTreeMap::new(),
        };
        let mut look = Look::default();
        look.instances = (1..=3).map(|number| (id(number), instance(number))).collect();
        look
    }

    /// Who is planned for, as which instance.
    fn planned(objects: &Objects) -> Vec<(String, InstanceId)> {
        let inputs = inputs(objects, &claims(objects), &look(), "test", Duration::from_secs(60));
        inputs.nodes.into_iter().map(|(name, facts)| (name.to_string(), facts.instance.id)).collect()
    }

    #[test]
    fn an_instance_is_one_nodes_and_the_node_object_is_believed_before_any_agent() {
        let as_is = |node: &str, number| (node.to_owned(), id(number));
        for (why, nodes, expected) in [
            (
                "by object or by agent",
                vec![("a", Some(1), None), ("b", None, Some(2))],
                vec![as_is("a", 1), as_is("b", 2)],
            ),
            ("the object wins over its own agent", vec![("a", Some(1), Some(2))], vec![as_is("a", 1)]),
            (
                "and then the agent's is free for who is it",
                vec![("a", Some(1), Some(2)), ("b", None, Some(2))],
                vec![as_is("a", 1), as_is("b", 2)],
            ),
            (
                "the object wins over another's agent",
                vec![("a", None, Some(1)), ("b", Some(1), None)],
                vec![as_is("b", 1)],
            ),
            (
                "two objects",
                vec![("a", Some(1), None), ("b", Some(1), None), ("c", Some(3), None)],
                vec![as_is("c", 3)],
            ),
            (
                "two agents",
                vec![("a", None, Some(1)), ("b", None, Some(1)), ("c", Some(3), None)],
                vec![as_is("c", 3)],
            ),
        ] {
            assert_eq!(planned(&objects(&nodes)), expected, "{why}");
        }
    }

    #[test]
    fn a_dispute_names_the_other_node_also_one_that_no_pool_chooses() {
        let mut objects = objects(&[("a", Some(1), None), ("b", Some(1), None)]);
        let spec: ENIPoolSpec =
            serde_json::from_str(r#"{"nodeSelector": {"matchLabels": {"x": "y"}}}"#).expect("readable");
        let chosen_one: Node = serde_json::from_str(
            r#"{"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"providerID": "aws:///z/i-1"}}"#,
        )
        .expect("readable");
        objects.take(Seen::Pools(Update::Snapshot(vec![ENIPool::new("vpc", spec)])));
        objects.take(Seen::Nodes(Update::Put(chosen_one)));
        assert_eq!(chosen(&objects).len(), 1);
        assert_eq!(claims(&objects)[&name("a")], Claim::Disputed(id(1), name("b")));
        assert_eq!(planned(&objects), []);
        let other: Node = serde_json::from_str(r#"{"metadata": {"name": "b"}}"#).expect("readable");
        objects.take(Seen::Nodes(Update::Delete(other)));
        assert_eq!(claims(&objects)[&name("a")], Claim::Sole(id(1)));
    }

    #[test]
    fn a_node_that_has_blocks_of_an_instance_keeps_them_to_itself_while_it_is_there() {
        let mut objects = objects(&[("a", None, Some(1)), ("b", Some(1), None)]);
        let config: NodeConfig = serde_json::from_value(serde_json::json!({
            "apiVersion": "rhumb.io/v1alpha1",
            "kind": "NodeConfig",
            "metadata": {"name": "a"},
            "spec": {
                "podCIDRs": [{"pool": "vpc", "cidr": "10.0.0.9/32", "interface": "eni-1"}],
                "eni": {"instance": id(1), "zone": "z"},
            },
        }))
        .expect("readable");
        objects.take(Seen::Configs(Update::Snapshot(vec![config])));
        assert_eq!(planned(&objects), []);
        assert_eq!(claims(&objects)[&name("b")], Claim::Disputed(id(1), name("a")));

        // The Node object says that it is another one, or it is gone.
        let node = |text| -> Node { serde_json::from_str(text).expect("readable") };
        let moved = r#"{"metadata": {"name": "a"}, "spec": {"providerID": "aws:///z/i-2"}}"#;
        objects.take(Seen::Nodes(Update::Put(node(moved))));
        assert_eq!(planned(&objects), [("a".to_owned(), id(2)), ("b".to_owned(), id(1))]);
        objects.take(Seen::Nodes(Update::Put(node(r#"{"metadata": {"name": "a"}}"#))));
        assert_eq!(planned(&objects), []);
        objects.take(Seen::Nodes(Update::Delete(node(r#"{"metadata": {"name": "a"}}"#))));
        assert_eq!(planned(&objects), [("b".to_owned(), id(1))]);
    }

    #[test]
    fn an_agent_that_is_elsewhere_says_nothing_about_the_nodes_pods() {
        let inputs = |told| {
            let objects = objects(&[("a", Some(1), told)]);
            inputs(&objects, &claims(&objects), &look(), "test", Duration::ZERO).nodes[&name("a")].clone()
        };
        assert!(inputs(Some(1)).report.is_some() && inputs(None).report.is_some());
        let elsewhere = inputs(Some(2));
        assert_eq!(elsewhere.report, None);
        assert_eq!(elsewhere.record.generation, 7, "numbers are never given twice");
    }
}
