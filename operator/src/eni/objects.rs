// SPDX-License-Identifier: Apache-2.0
//! The objects that interfaces depend on, as far as they do. Pure.

use std::collections::BTreeMap;

use rhumb_api::{ENIPool, Node, NodeConfig, NodeState, ObjectKey, Pod, Update};
use rhumb_model::{InstanceId, NodeName};

use super::offer::Offer;
use crate::cluster::fold;

/// A change of the cluster's objects.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one is alive at a time")]
pub(crate) enum Seen {
    Nodes(Update<Node>),
    States(Update<NodeState>),
    Configs(Update<NodeConfig>),
    Pools(Update<ENIPool>),
    Pods(Update<Pod>),
}

/// What matters of a Node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) labels: BTreeMap<String, String>,
    /// From `spec.providerID`: `aws:///ZONE/INSTANCE`.
    pub(crate) instance: Option<InstanceId>,
    /// How many pods its kubelet takes.
    pub(crate) pods: Option<u32>,
    /// Cordoned, or being deleted.
    pub(crate) leaving: bool,
    /// What the scheduler is told.
    pub(crate) offer: Offer,
}

/// Objects of the cluster; `None`: not yet seen in full.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) nodes: Option<BTreeMap<ObjectKey, NodeRow>>,
    pub(crate) states: Option<BTreeMap<ObjectKey, NodeState>>,
    pub(crate) configs: Option<BTreeMap<ObjectKey, NodeConfig>>,
    pub(crate) pools: Option<BTreeMap<ObjectKey, ENIPool>>,
    /// The node of every pod that wants an address of its own.
    pods: Option<BTreeMap<ObjectKey, Option<String>>>,
}

impl Objects {
    pub(crate) fn take(&mut self, seen: Seen) {
        match seen {
            Seen::Nodes(update) => fold(&mut self.nodes, update, |node| row(&node)),
            Seen::States(update) => fold(&mut self.states, update, |state| state),
            Seen::Configs(update) => fold(&mut self.configs, update, |config| config),
            Seen::Pools(update) => fold(&mut self.pools, update, |pool| pool),
            Seen::Pods(update) => fold(&mut self.pods, update, |pod| wants_address_on(&pod)),
        }
    }

    /// Whether every kind was seen in full: nothing is decided before.
    pub(crate) fn synced(&self) -> bool {
        self.nodes.is_some()
            && self.states.is_some()
            && self.configs.is_some()
            && self.pools.is_some()
            && self.pods.is_some()
    }

    pub(crate) fn config(&self, node: &NodeName) -> Option<&NodeConfig> {
        self.configs.as_ref()?.get(&ObjectKey::from(node))
    }

    pub(crate) fn state(&self, node: &NodeName) -> Option<&NodeState> {
        self.states.as_ref()?.get(&ObjectKey::from(node))
    }

    pub(crate) fn has_node(&self, node: &NodeName) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.contains_key(&ObjectKey::from(node)))
    }

    /// How many pods of each node want an address of their own.
    pub(crate) fn pods_by_node(&self) -> BTreeMap<&str, u32> {
        let mut count = BTreeMap::new();
        for node in self.pods.iter().flat_map(BTreeMap::values).flatten() {
            *count.entry(node.as_str()).or_default() += 1;
        }
        count
    }
}

fn row(node: &Node) -> NodeRow {
    let spec = node.spec.as_ref();
    let provider = spec.and_then(|spec| spec.provider_id.as_deref());
    let instance = provider.and_then(|id| id.strip_prefix("aws://")).and_then(|id| id.rsplit('/').next());
    // What one list does not have may be in the other: we write into both.
    let status = node.status.as_ref();
    let resources = status.into_iter().flat_map(|status| [&status.allocatable, &status.capacity]);
    let pods = resources.flatten().find_map(|resources| resources.get("pods"));
    NodeRow {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        instance: instance.and_then(|id| InstanceId::new(id).ok()),
        pods: pods.and_then(|pods| pods.0.parse().ok()),
        leaving: spec.and_then(|spec| spec.unschedulable) == Some(true)
            || node.metadata.deletion_timestamp.is_some(),
        offer: Offer::of(node),
    }
}

/// The node of a pod that has not ended and is not in the host's network.
fn wants_address_on(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    if ended || spec.host_network == Some(true) {
        return None;
    }
    spec.node_name.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).expect("readable")
    }

    #[test]
    fn a_node_tells_its_instance_and_its_kubelets_limit() {
        let node: Node = read(
            r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"x": "y"}},
                "spec": {"providerID": "aws:///eu-central-1a/i-0a1b", "unschedulable": true},
                "status": {"allocatable": {"pods": "29"}}}"#,
        );
        let row = row(&node);
        assert_eq!(row.instance, InstanceId::new("i-0a1b").ok());
        assert_eq!((row.pods, row.leaving), (Some(29), true));
        assert_eq!(row.labels.get("x").map(String::as_str), Some("y"));
        let ours = r#"{"metadata": {"name": "a"}, "status": {
            "capacity": {"pods": "29", "rhumb.io/pod-addresses": "27"}, "allocatable": {"rhumb.io/pod-addresses": "9"}}}"#;
        assert_eq!(super::row(&read(ours)).pods, Some(29), "also when only the other list has it");
    }

    #[test]
    fn a_pod_counts_while_it_runs_in_a_network_of_its_own() {
        let pod = |spec: &str, phase: &str| -> Pod {
            read(&format!(
                r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "p"}},
                     "spec": {{"containers": [] {spec}}}, "status": {{"phase": "{phase}"}}}}"#
            ))
        };
        let bound = r#", "nodeName": "a""#;
        assert_eq!(wants_address_on(&pod(bound, "Pending")).as_deref(), Some("a"));
        assert_eq!(wants_address_on(&pod("", "Pending")), None);
        assert_eq!(wants_address_on(&pod(bound, "Succeeded")), None);
        assert_eq!(wants_address_on(&pod(r#", "nodeName": "a", "hostNetwork": true"#, "Running")), None);
    }
}
