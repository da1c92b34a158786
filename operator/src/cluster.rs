// SPDX-License-Identifier: Apache-2.0
//! What the operator knows of the cluster, and what it makes of it. Pure.

use std::collections::BTreeMap;

use rhumb_api::{Kind, Node, NodeConfig, NodeConfigSpec, NodeState, ObjectKey, PodCidr, PodPool, Update};
use rhumb_ipam::{Block, CarvePolicy, Carving, ClusterPool, NodeInput, NodeUse, carve};
use rhumb_model::{Family, NodeName, PoolName, Timestamp};

/// Objects of the cluster; `None`: not yet seen in full.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: Option<BTreeMap<ObjectKey, ()>>,
    states: Option<BTreeMap<ObjectKey, NodeState>>,
    configs: Option<BTreeMap<ObjectKey, NodeConfig>>,
    pools: Option<BTreeMap<ObjectKey, PodPool>>,
    /// When each node that has CIDRs was first seen to be gone.
    gone: BTreeMap<NodeName, Timestamp>,
}

/// A change of the cluster's objects.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one is alive at a time")]
pub(crate) enum Seen {
    Nodes(Update<Node>),
    States(Update<NodeState>),
    Configs(Update<NodeConfig>),
    Pools(Update<PodPool>),
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The blocks of each node whose NodeConfig is to change.
    pub(crate) configs: BTreeMap<NodeName, Vec<PodCidr>>,
    /// Nodes of which nothing is left: their objects are to be deleted.
    pub(crate) forget: Vec<NodeName>,
    pub(crate) carving: Carving,
}

impl Cluster {
    pub(crate) fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Nodes(update) => fold(&mut self.nodes, update, |_| ()),
            Seen::States(update) => fold(&mut self.states, update, |state| state),
            Seen::Configs(update) => fold(&mut self.configs, update, |config| config),
            Seen::Pools(update) => fold(&mut self.pools, update, |pool| pool),
        }
    }

    /// Whether every kind was seen in full: nothing is decided before.
    pub(crate) fn synced(&self) -> bool {
        self.nodes.is_some() && self.states.is_some() && self.configs.is_some() && self.pools.is_some()
    }

    /// Decides; notes when nodes went.
    pub(crate) fn decide(&mut self, policy: &CarvePolicy, now: Timestamp) -> Work {
        let inputs = self.inputs(now);
        let carving = carve(&self.cluster_pools(), &inputs, policy, now);
        let mut configs: BTreeMap<NodeName, Vec<PodCidr>> = BTreeMap::new();
        let current =
            |node: &NodeName| self.config(node).map_or_else(Vec::new, |it| it.spec.pod_cidrs.clone());
        for (node, pool, cidr) in &carving.assign {
            let blocks = configs.entry(node.clone()).or_insert_with(|| current(node));
            blocks.push(PodCidr::new(pool.clone(), *cidr));
        }
        for (node, pool, cidr) in &carving.release {
            let blocks = configs.entry(node.clone()).or_insert_with(|| current(node));
            blocks.retain(|block| (&block.pool, &block.cidr) != (pool, cidr));
        }
        let gone = |node: &NodeName| inputs.get(node).is_some_and(|input| input.gone_since.is_some());
        let forget: Vec<NodeName> = configs
            .iter()
            .filter(|(node, blocks)| blocks.is_empty() && gone(node))
            .map(|(node, _)| node.clone())
            .collect();
        configs.retain(|node, _| !forget.contains(node));
        Work { configs, forget, carving }
    }

    /// The NodeConfig of a node as it was last seen, with these blocks.
    pub(crate) fn config_with(&self, node: &NodeName, blocks: Vec<PodCidr>) -> NodeConfig {
        let known = self.config(node).cloned();
        let mut config = known.unwrap_or_else(|| NodeConfig::new(node, NodeConfigSpec::default()));
        config.spec.pod_cidrs = blocks;
        config
    }

    fn config(&self, node: &NodeName) -> Option<&NodeConfig> {
        self.configs.as_ref()?.get(&ObjectKey::from(node))
    }

    fn inputs(&mut self, now: Timestamp) -> BTreeMap<NodeName, NodeInput> {
        let configs = self.configs.iter().flatten();
        let mut inputs: BTreeMap<NodeName, NodeInput> = configs
            .filter_map(|(key, config)| Some((NodeName::new(key.name.as_str()).ok()?, assigned(config))))
            .collect();
        for key in self.nodes.iter().flat_map(BTreeMap::keys) {
            if let Ok(node) = NodeName::new(key.name.as_str()) {
                inputs.entry(node).or_default();
            }
        }
        let there = |node: &NodeName| {
            self.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(&ObjectKey::from(node)))
        };
        self.gone.retain(|node, _| inputs.contains_key(node) && !there(node));
        for (node, input) in &mut inputs {
            input.demand = self.demand(node);
            if !there(node) {
                input.gone_since = Some(*self.gone.entry(node.clone()).or_insert(now));
            }
        }
        inputs
    }

    fn demand(&self, node: &NodeName) -> Vec<NodeUse> {
        let Some(state) = self.states.as_ref().and_then(|states| states.get(&ObjectKey::from(node))) else {
            return Vec::new();
        };
        let saturated = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let usage = state.status.pools.iter().map(|pool| NodeUse {
            pool: pool.pool.clone(),
            family: pool.family,
            ranges: u32::try_from(pool.pod_cidrs.len()).unwrap_or(u32::MAX),
            in_use: saturated(pool.used),
            free: saturated(pool.free),
        });
        usage.collect()
    }

    fn cluster_pools(&self) -> Vec<ClusterPool> {
        let pools = self.pools.iter().flat_map(BTreeMap::values);
        pools
            .filter_map(|pool| {
                let name = PoolName::new(pool.key().name).ok()?;
                let families = Family::BOTH.into_iter().filter_map(|family| pool.family(family));
                let blocks = families.flat_map(|part| {
                    part.cidrs.iter().map(|cidr| Block { cidr: *cidr, node_len: part.node_prefix_length })
                });
                Some(ClusterPool { name, blocks: blocks.collect() })
            })
            .collect()
    }
}

/// The blocks that were carved from pools of the cluster: those of interfaces are the VPC's.
fn assigned(config: &NodeConfig) -> NodeInput {
    let carved = config.spec.pod_cidrs.iter().filter(|block| block.interface.is_none());
    let blocks = carved.map(|block| (block.pool.clone(), block.cidr));
    NodeInput { assigned: blocks.collect(), ..NodeInput::default() }
}

pub(crate) fn fold<K: Kind, V>(
    table: &mut Option<BTreeMap<ObjectKey, V>>,
    update: Update<K>,
    row: impl Fn(K) -> V,
) {
    match update {
        Update::Snapshot(objects) => {
            *table = Some(objects.into_iter().map(|object| (object.key(), row(object))).collect());
        }
        Update::Put(object) => {
            if let Some(table) = table {
                table.insert(object.key(), row(object));
            }
        }
        Update::Delete(object) => {
            if let Some(table) = table {
                table.remove(&object.key());
            }
        }
        Update::Stalled(error) => {
            tracing::warn!(kind = K::KIND, error = &error as &dyn std::error::Error, "store not readable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_api::{FamilyPool, NodeStateStatus, PodPoolSpec, PoolUsage};
    use std::time::Duration;

    const POLICY: CarvePolicy = CarvePolicy { grace: Duration::from_secs(60), min_free: 2 };

    fn node(name: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node
    }

    fn cluster(nodes: &[&str]) -> Cluster {
        let part = FamilyPool { cidrs: vec!["10.1.0.0/16".parse().expect("valid")], node_prefix_length: 24 };
        let pool = PodPool::new("default", PodPoolSpec { ipv4: Some(part), ..PodPoolSpec::default() });
        let mut cluster = Cluster::default();
        cluster.take(Seen::Pools(Update::Snapshot(vec![pool])));
        cluster.take(Seen::States(Update::Snapshot(Vec::new())));
        cluster.take(Seen::Configs(Update::Snapshot(Vec::new())));
        assert!(!cluster.synced());
        cluster.take(Seen::Nodes(Update::Snapshot(nodes.iter().map(|name| node(name)).collect())));
        assert!(cluster.synced());
        cluster
    }

    fn apply(cluster: &mut Cluster, work: Work) {
        for (node, blocks) in work.configs {
            let config = cluster.config_with(&node, blocks);
            cluster.take(Seen::Configs(Update::Put(config)));
        }
        for node in work.forget {
            let config = cluster.config_with(&node, Vec::new());
            cluster.take(Seen::Configs(Update::Delete(config)));
        }
    }

    #[test]
    fn every_node_gets_a_block_once() {
        let mut cluster = cluster(&["a", "b"]);
        let work = cluster.decide(&POLICY, Timestamp(0));
        assert_eq!(work.configs.len(), 2);
        apply(&mut cluster, work);
        assert!(cluster.decide(&POLICY, Timestamp(1)).configs.is_empty());
    }

    #[test]
    fn a_node_that_is_gone_keeps_its_block_for_the_grace_period() {
        let mut cluster = cluster(&["a"]);
        let work = cluster.decide(&POLICY, Timestamp(0));
        apply(&mut cluster, work);
        cluster.take(Seen::Nodes(Update::Delete(node("a"))));
        let work = cluster.decide(&POLICY, Timestamp(1_000));
        assert!(work.forget.is_empty() && work.configs.is_empty());
        assert_eq!(work.carving.wake_at, Some(Timestamp(61_000)));
        let work = cluster.decide(&POLICY, Timestamp(61_000));
        assert_eq!(work.forget, [NodeName::new("a").expect("valid")]);
        apply(&mut cluster, work);
        cluster.take(Seen::Nodes(Update::Put(node("b"))));
        assert_eq!(cluster.decide(&POLICY, Timestamp(61_001)).configs.len(), 1);
    }

    #[test]
    fn a_node_that_comes_back_within_the_grace_period_keeps_its_block() {
        let mut cluster = cluster(&["a"]);
        let work = cluster.decide(&POLICY, Timestamp(0));
        apply(&mut cluster, work);
        cluster.take(Seen::Nodes(Update::Delete(node("a"))));
        cluster.decide(&POLICY, Timestamp(1_000));
        cluster.take(Seen::Nodes(Update::Put(node("a"))));
        let work = cluster.decide(&POLICY, Timestamp(90_000));
        assert!(work.forget.is_empty() && work.configs.is_empty() && work.carving.wake_at.is_none());
    }

    #[test]
    fn a_node_that_runs_short_gets_another_block_once_it_reports_the_first() {
        let mut cluster = cluster(&["a"]);
        let work = cluster.decide(&POLICY, Timestamp(0));
        let first = work.configs[&NodeName::new("a").expect("valid")][0].cidr;
        apply(&mut cluster, work);
        let usage = PoolUsage {
            pool: PoolName::new("default").expect("valid"),
            family: Family::V4,
            pod_cidrs: vec![first],
            idle: Vec::new(),
            capacity: 254,
            used: 253,
            cooling: 0,
            free: 1,
        };
        let status = NodeStateStatus { pools: vec![usage], ..NodeStateStatus::default() };
        let mut state = NodeState::new(&NodeName::new("a").expect("valid"));
        state.status = status;
        cluster.take(Seen::States(Update::Put(state)));
        let work = cluster.decide(&POLICY, Timestamp(1));
        assert_eq!(work.configs[&NodeName::new("a").expect("valid")].len(), 2);
        apply(&mut cluster, work);
        // The report counts one block still: nothing more until the agent has seen both.
        assert!(cluster.decide(&POLICY, Timestamp(2)).configs.is_empty());
    }
}
