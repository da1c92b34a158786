// SPDX-License-Identifier: Apache-2.0
//! What the agent knows from outside, with the revision at which it knew it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_api::{PodPool, Routing, RoutingMode};
use rhumb_ipam::Range;
use rhumb_model::{NodeName, PoolName, Prefix, Revision};
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::{Mode, Policy, RemoteNode};

use crate::masquerade::{self, Masquerade};

/// What of a PodPool object matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolRow {
    /// Addresses that are never leased.
    reserved: Vec<Prefix>,
    /// How its pods on other nodes are reached.
    policy: Policy,
    /// Whether the source of its pods' packets is translated at all.
    masquerades: bool,
}

impl PoolRow {
    pub(crate) fn of(pool: &PodPool) -> Self {
        let mode = |mode| match mode {
            RoutingMode::Auto => Mode::Auto,
            RoutingMode::Direct => Mode::Direct,
            RoutingMode::Tunnel => Mode::Tunnel,
        };
        let Routing { mode: usual, exceptions } = &pool.spec.routing;
        let exceptions = exceptions.iter().map(|exception| (exception.cidr, mode(exception.mode)));
        Self {
            reserved: pool.spec.reserved.clone(),
            policy: Policy { mode: mode(*usual), exceptions: exceptions.collect() },
            masquerades: pool.masquerades(),
        }
    }
}

/// Inputs of the plan. `None` means: not yet seen in full.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    revision: Revision,
    /// Pod CIDRs of every node, from the NodeConfig objects.
    pub(crate) pod_cidrs: Option<BTreeMap<NodeName, Vec<(PoolName, Prefix)>>>,
    /// Addresses of every node, from the NodeState objects.
    pub(crate) node_addresses: Option<BTreeMap<NodeName, Vec<IpAddr>>>,
    /// From the PodPool objects.
    pub(crate) pools: Option<BTreeMap<PoolName, PoolRow>>,
    /// Interfaces that lead out of this node.
    pub(crate) uplinks: Vec<Uplink>,
    /// Addresses of this node, on whatever interface.
    pub(crate) own_addresses: Vec<IpAddr>,
    /// Where the source of pods' packets stays, as the file says.
    pub(crate) masquerade: Masquerade,
}

impl Tables {
    /// Nothing is known yet but what a file says.
    pub(crate) fn new(masquerade: Masquerade) -> Self {
        Self { masquerade, ..Self::default() }
    }

    /// Notes that an input has changed.
    pub(crate) fn touch(&mut self) {
        self.revision = self.revision.next();
    }

    /// The revision of the inputs.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether every input from the store was seen in full.
    pub(crate) fn synced(&self) -> bool {
        self.pod_cidrs.is_some() && self.node_addresses.is_some() && self.pools.is_some()
    }

    /// Pod CIDRs of one node, over all pools.
    pub(crate) fn pod_cidrs_of(&self, node: &NodeName) -> Vec<Prefix> {
        self.assigned(node).iter().map(|(_, prefix)| *prefix).collect()
    }

    fn assigned(&self, node: &NodeName) -> &[(PoolName, Prefix)] {
        self.pod_cidrs.as_ref().and_then(|nodes| nodes.get(node)).map_or(&[], Vec::as_slice)
    }

    /// What `node` may lease from `pool`.
    pub(crate) fn ranges(&self, node: &NodeName, pool: &PoolName) -> Vec<Range> {
        let row = self.pools.as_ref().and_then(|pools| pools.get(pool));
        let reserved = row.map_or(&[][..], |row| &row.reserved);
        self.assigned(node)
            .iter()
            .filter(|(name, _)| name == pool)
            .map(|(_, prefix)| Range {
                prefix: *prefix,
                reserved: reserved.iter().copied().filter(|other| other.overlaps(*prefix)).collect(),
            })
            .collect()
    }

    /// Every other node with its addresses and pod CIDRs.
    pub(crate) fn remote_nodes(&self, own: &NodeName) -> Vec<RemoteNode> {
        let Some(addresses) = &self.node_addresses else { return Vec::new() };
        addresses
            .iter()
            .filter(|(name, _)| *name != own)
            .map(|(name, addresses)| RemoteNode {
                name: name.clone(),
                addresses: addresses.clone(),
                pod_cidrs: self.assigned(name).to_vec(),
            })
            .collect()
    }

    /// The pod CIDRs of all other nodes.
    pub(crate) fn remote_prefixes(&self, own: &NodeName) -> BTreeSet<Prefix> {
        let others = self.pod_cidrs.iter().flatten().filter(|(name, _)| *name != own);
        others.flat_map(|(_, cidrs)| cidrs).map(|(_, prefix)| *prefix).collect()
    }

    /// The addresses of all other nodes.
    pub(crate) fn remote_addresses(&self, own: &NodeName) -> BTreeSet<IpAddr> {
        let others = self.node_addresses.iter().flatten().filter(|(name, _)| *name != own);
        others.flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// The addresses of all other nodes with who has them, but for those within a node's pod CIDRs: packets to them may
    /// take the tunnel, so that an answer says nothing about the direct way.
    pub(crate) fn probe_targets(&self, own: &NodeName) -> BTreeMap<IpAddr, NodeName> {
        let cidrs: Vec<Prefix> =
            self.pod_cidrs.iter().flat_map(BTreeMap::values).flatten().map(|(_, prefix)| *prefix).collect();
        let others = self.node_addresses.iter().flatten().filter(|(name, _)| *name != own);
        let all =
            others.flat_map(|(name, addresses)| addresses.iter().map(move |addr| (*addr, name.clone())));
        all.filter(|(addr, _)| !cidrs.iter().any(|prefix| prefix.contains(*addr))).collect()
    }

    /// How the pods of each pool are reached.
    pub(crate) fn policies(&self) -> BTreeMap<PoolName, Policy> {
        self.pools.iter().flatten().map(|(name, row)| (name.clone(), row.policy.clone())).collect()
    }

    /// Where the source of packets of pods of `pool` stays, besides other pods and nodes.
    pub(crate) fn keep_source(&self, pool: &PoolName) -> Vec<Prefix> {
        let row = self.pools.as_ref().and_then(|pools| pools.get(pool));
        let never = row.is_some_and(|row| !row.masquerades);
        let everywhere = masquerade::everywhere().into_iter().filter(|_| never);
        self.masquerade.keep_source.iter().copied().chain(everywhere).collect()
    }

    /// The smallest MTU of the uplinks, in bytes.
    pub(crate) fn uplink_mtu(&self) -> Option<u32> {
        self.uplinks.iter().map(|uplink| uplink.mtu).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_masquerading_keeps_the_source_everywhere() {
        let pool: PoolName = "default".parse().expect("valid");
        let row = |masquerades| PoolRow { reserved: vec![], policy: Policy::default(), masquerades };
        let mut tables = Tables { pools: Some([(pool.clone(), row(true))].into()), ..Tables::default() };
        let usual = tables.keep_source(&pool);
        assert_eq!(usual, Masquerade::default().keep_source);
        tables.pools = Some([(pool.clone(), row(false))].into());
        let more: Vec<String> =
            tables.keep_source(&pool)[usual.len()..].iter().map(ToString::to_string).collect();
        assert_eq!(more, ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn nodes_are_probed_at_their_addresses_but_not_within_pod_cidrs() {
        let name = |text: &str| -> NodeName { text.parse().expect("valid") };
        let addrs =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("valid")).collect::<Vec<IpAddr>>();
        let mut tables = Tables::new(Masquerade::default());
        assert_eq!(tables.probe_targets(&name("a")), BTreeMap::new());
        let cidr = ("default".parse().expect("valid"), "10.1.0.0/24".parse().expect("valid"));
        tables.pod_cidrs = Some([(name("b"), vec![cidr])].into());
        let nodes =
            [(name("a"), addrs(&["192.0.2.1"])), (name("b"), addrs(&["192.0.2.2", "10.1.0.1", "fd00::2"]))];
        tables.node_addresses = Some(nodes.into());
        let expected = addrs(&["192.0.2.2", "fd00::2"]).into_iter().map(|addr| (addr, name("b"))).collect();
        assert_eq!(tables.probe_targets(&name("a")), expected);
    }

    #[test]
    fn the_policy_of_a_pool_is_that_of_its_object() {
        let text = r#"{"ipv4": {"cidrs": ["10.1.0.0/16"], "nodePrefixLength": 24}, "masquerade": false,
            "routing": {"mode": "direct", "exceptions": [{"cidr": "10.1.128.0/17", "mode": "tunnel"}]}}"#;
        let pool = PodPool::new("default", serde_json::from_str(text).expect("valid"));
        let row = PoolRow::of(&pool);
        let exceptions = vec![("10.1.128.0/17".parse().expect("valid"), Mode::Tunnel)];
        assert_eq!(row.policy, Policy { mode: Mode::Direct, exceptions });
        assert!(!row.masquerades);
    }
}
