// SPDX-License-Identifier: Apache-2.0
//! What the plan is made of, as values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use rhumb_api::{
    BGPAdvertisementSpec, BGPClusterConfigSpec, BGPNodeOverride, BGPPeerConfigSpec, ObjectKey, ServiceAddress,
};
use rhumb_bgp_feed::Secret;
use rhumb_model::{Family, IfName, NodeName, PodKey, PoolName, Prefix};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Namespace of a Secret that names none.
pub(crate) const SECRET_NAMESPACE: &str = "kube-system";

/// All that the plan knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Inputs {
    /// Every node, by the labels of its Node object.
    pub(crate) nodes: BTreeMap<NodeName, Labels>,
    /// Addresses of every node; the first of each family is its primary one.
    pub(crate) node_addresses: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Blocks of pod addresses of this node.
    pub(crate) pod_cidrs: Vec<(PoolName, Prefix)>,
    /// Those of them that a cloud interface has.
    pub(crate) eni_blocks: BTreeSet<Prefix>,
    /// Pools.
    pub(crate) pools: BTreeMap<PoolName, PoolFacts>,
    /// By name.
    pub(crate) cluster_configs: BTreeMap<String, BGPClusterConfigSpec>,
    /// By name.
    pub(crate) peer_configs: BTreeMap<String, BGPPeerConfigSpec>,
    /// By name.
    pub(crate) advertisements: BTreeMap<String, (Labels, BGPAdvertisementSpec)>,
    /// What is otherwise on this node.
    pub(crate) node_override: Option<BGPNodeOverride>,
    /// Keys of sessions that were found.
    pub(crate) keys: Keys,
    /// Next hops of this node's default routes.
    pub(crate) gateways: BTreeSet<(IpAddr, IfName)>,
    /// Addresses of this node's interfaces that are valid beyond their link.
    pub(crate) interfaces: BTreeMap<IfName, BTreeSet<IpAddr>>,
    /// Pods of this node.
    pub(crate) pods: BTreeMap<PodKey, PodFacts>,
    /// Services.
    pub(crate) services: BTreeMap<ObjectKey, ServiceFacts>,
}

impl Inputs {
    /// A node's primary address of a family.
    pub(crate) fn primary(&self, node: &NodeName, family: Family) -> Option<IpAddr> {
        let addresses = self.node_addresses.get(node)?;
        addresses.iter().copied().find(|address| Family::of(*address) == family)
    }
}

/// Keys of sessions, by where they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Keys {
    /// Entries of Secret objects that are text.
    pub(crate) secrets: BTreeMap<ObjectKey, BTreeMap<String, Secret>>,
    /// Files of this node; what was wrong with one that is not there.
    pub(crate) files: BTreeMap<PathBuf, Result<Secret, String>>,
}

/// What of a PodPool matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PoolFacts {
    pub(crate) labels: Labels,
    pub(crate) cidrs: Vec<Prefix>,
}

/// What of a pod of this node matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodFacts {
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<IpAddr>,
}

/// What of a service matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServiceFacts {
    pub(crate) labels: Labels,
    pub(crate) addresses: Vec<(ServiceAddress, IpAddr)>,
    /// Whether packets from outside go only to endpoints of the node that they reach (externalTrafficPolicy).
    pub(crate) external_local: bool,
    /// The same for packets from inside (internalTrafficPolicy).
    pub(crate) internal_local: bool,
    /// Whether some endpoint takes packets.
    pub(crate) ready_anywhere: bool,
    /// Whether an endpoint of this node does.
    pub(crate) ready_here: bool,
}

impl ServiceFacts {
    /// Whether packets to an address of this kind go only to endpoints of the node that they reach.
    pub(crate) fn is_local(&self, kind: ServiceAddress) -> bool {
        match kind {
            ServiceAddress::ClusterIP => self.internal_local,
            ServiceAddress::ExternalIP | ServiceAddress::LoadBalancerIP => self.external_local,
        }
    }
}
