// SPDX-License-Identifier: Apache-2.0
//! What the agent knows from outside, with the revision at which it knew it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_api::{PodPool, Routing, RoutingMode};
use rhumb_ipam::Range;
use rhumb_model::{EniId, IfName, MacAddr, NodeName, PoolName, Prefix, Revision};
use rhumb_routing::InterfaceSpec;
use rhumb_routing::host::Uplink;
use rhumb_routing::kernel::Link;
use rhumb_routing::plan::{Mode, Policy, RemoteNode};

use crate::eni::EniRow;
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

/// What of a NodeConfig object matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Pod CIDRs, but for blocks of interfaces: the cloud itself knows where those are.
    pub(crate) pod_cidrs: Vec<(PoolName, Prefix)>,
    /// Interfaces that the cloud gave the node, and the blocks that are good on them.
    pub(crate) eni: Option<EniRow>,
}

/// Inputs of the plan. `None` means: not yet seen in full.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    revision: Revision,
    /// What was decided for every node, from the NodeConfig objects.
    pub(crate) nodes: Option<BTreeMap<NodeName, NodeRow>>,
    /// Interfaces of the cloud whose link is there, with its rules and routes: nothing is leased for others.
    pub(crate) ready_enis: BTreeSet<EniId>,
    /// Links of the node by the Ethernet address that they came with; those whose names are settled.
    pub(crate) hardware: BTreeMap<MacAddr, Link>,
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
        self.nodes.is_some() && self.node_addresses.is_some() && self.pools.is_some()
    }

    /// Pod CIDRs of one node, over all pools.
    pub(crate) fn pod_cidrs_of(&self, node: &NodeName) -> Vec<Prefix> {
        let own = self.assigned(node).iter().map(|(_, prefix)| *prefix);
        own.chain(self.eni(node).into_iter().flat_map(EniRow::blocks).map(|(_, prefix)| prefix)).collect()
    }

    /// The interfaces that the cloud gave a node.
    pub(crate) fn eni(&self, node: &NodeName) -> Option<&EniRow> {
        self.nodes.as_ref()?.get(node)?.eni.as_ref()
    }

    fn assigned(&self, node: &NodeName) -> &[(PoolName, Prefix)] {
        self.nodes.as_ref().and_then(|nodes| nodes.get(node)).map_or(&[], |row| &row.pod_cidrs)
    }

    /// What `node` may lease from `pool`.
    pub(crate) fn ranges(&self, node: &NodeName, pool: &PoolName) -> Vec<Range> {
        let row = self.pools.as_ref().and_then(|pools| pools.get(pool));
        let reserved = row.map_or(&[][..], |row| &row.reserved);
        let own = self.assigned(node).iter().filter(|(name, _)| name == pool).map(|(_, prefix)| Range {
            prefix: *prefix,
            reserved: reserved.iter().copied().filter(|other| other.overlaps(*prefix)).collect(),
        });
        let lendable =
            self.eni(node).into_iter().flat_map(|row| row.lendable(pool, &self.ready_enis)).flat_map(whole);
        own.chain(lendable.map(|prefix| Range { prefix, reserved: Vec::new() })).collect()
    }

    /// The blocks of `pool` that `node` has.
    pub(crate) fn blocks(&self, node: &NodeName, pool: &PoolName) -> Vec<Prefix> {
        let own = self.assigned(node).iter().filter(|(name, _)| name == pool).map(|(_, prefix)| *prefix);
        let of_pool = self.eni(node).into_iter().flat_map(EniRow::blocks).filter(|(name, _)| *name == pool);
        own.chain(of_pool.map(|(_, prefix)| prefix)).collect()
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
        let others = self.nodes.iter().flatten().filter(|(name, _)| *name != own);
        others.flat_map(|(_, row)| &row.pod_cidrs).map(|(_, prefix)| *prefix).collect()
    }

    /// The addresses of all other nodes.
    pub(crate) fn remote_addresses(&self, own: &NodeName) -> BTreeSet<IpAddr> {
        let others = self.node_addresses.iter().flatten().filter(|(name, _)| *name != own);
        others.flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// The addresses of all other nodes with who has them, but for those within a node's pod CIDRs: packets to them may
    /// take the tunnel, so that an answer says nothing about the direct way.
    pub(crate) fn probe_targets(&self, own: &NodeName) -> BTreeMap<IpAddr, NodeName> {
        let rows = self.nodes.iter().flat_map(BTreeMap::values);
        let cidrs: Vec<Prefix> = rows.flat_map(|row| &row.pod_cidrs).map(|(_, prefix)| *prefix).collect();
        let others = self.node_addresses.iter().flatten().filter(|(name, _)| *name != own);
        let all =
            others.flat_map(|(name, addresses)| addresses.iter().map(move |addr| (*addr, name.clone())));
        all.filter(|(addr, _)| !cidrs.iter().any(|prefix| prefix.contains(*addr))).collect()
    }

    /// How the pods of each pool are reached.
    pub(crate) fn policies(&self) -> BTreeMap<PoolName, Policy> {
        self.pools.iter().flatten().map(|(name, row)| (name.clone(), row.policy.clone())).collect()
    }

    /// Where the source of packets of pods of `pool` on `node` stays, besides other pods and nodes.
    pub(crate) fn keep_source(&self, node: &NodeName, pool: &PoolName) -> Vec<Prefix> {
        let row = self.pools.as_ref().and_then(|pools| pools.get(pool));
        let never = row.is_some_and(|row| !row.masquerades);
        let everywhere = masquerade::everywhere().into_iter().filter(|_| never);
        let cloud = self.eni(node).map(EniRow::keep_source).unwrap_or_default();
        let all = self.masquerade.keep_source.iter().copied().chain(everywhere).chain(cloud);
        let mut seen = BTreeSet::new();
        all.filter(|prefix| seen.insert(*prefix)).collect()
    }

    /// The smallest MTU of the uplinks, in bytes; of those that are about to get another one as `planned`, that one.
    pub(crate) fn uplink_mtu(&self, planned: &BTreeMap<IfName, InterfaceSpec>) -> Option<u32> {
        let mtu =
            |uplink: &Uplink| planned.get(&uplink.ifname).and_then(|spec| spec.mtu).unwrap_or(uplink.mtu);
        self.uplinks.iter().map(mtu).min()
    }
}

/// Ranges that lend every address of a block: a subnet would keep its first and last one back, and these blocks are none.
fn whole(block: Prefix) -> Vec<Prefix> {
    let IpAddr::V4(first) = block.addr() else { return vec![block] };
    let pairs = (1_u32 << (32 - block.len())) / 2;
    if pairs <= 1 || block.len() < LONGEST_SPLIT {
        return vec![block];
    }
    let pair =
        |at: u32| Prefix::containing(std::net::Ipv4Addr::from_bits(first.to_bits() + at * 2).into(), 31);
    (0..pairs).map(pair).collect()
}

/// Blocks of this length and longer are lent whole; larger ones lose two addresses.
const LONGEST_SPLIT: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_masquerading_keeps_the_source_everywhere() {
        let pool: PoolName = "default".parse().expect("valid");
        let node: NodeName = "a".parse().expect("valid");
        let row = |masquerades| PoolRow { reserved: vec![], policy: Policy::default(), masquerades };
        let mut tables = Tables { pools: Some([(pool.clone(), row(true))].into()), ..Tables::default() };
        let usual = tables.keep_source(&node, &pool);
        assert_eq!(usual, Masquerade::default().keep_source);
        tables.pools = Some([(pool.clone(), row(false))].into());
        let more: Vec<String> =
            tables.keep_source(&node, &pool)[usual.len()..].iter().map(ToString::to_string).collect();
        assert_eq!(more, ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn an_uplink_that_is_about_to_get_another_mtu_counts_with_that() {
        let name = |text: &str| -> IfName { text.parse().expect("valid") };
        let uplink = |text: &str, mtu| Uplink { ifname: name(text), ifindex: 1, mtu, addresses: vec![] };
        let mut tables = Tables::default();
        let planned = [(name("eth1"), InterfaceSpec { mtu: Some(9001) })].into();
        assert_eq!(tables.uplink_mtu(&planned), None);
        tables.uplinks = vec![uplink("eth0", 9001), uplink("eth1", 1500)];
        assert_eq!(tables.uplink_mtu(&BTreeMap::new()), Some(1500));
        assert_eq!(tables.uplink_mtu(&planned), Some(9001));
        assert_eq!(tables.uplink_mtu(&[(name("eth1"), InterfaceSpec { mtu: None })].into()), Some(1500));
    }

    #[test]
    fn every_address_of_an_interfaces_block_is_lent() {
        let whole = |text: &str| {
            whole(text.parse().expect("valid")).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(whole("10.0.0.7/32"), ["10.0.0.7/32"]);
        assert_eq!(whole("10.0.0.16/30"), ["10.0.0.16/31", "10.0.0.18/31"]);
        assert_eq!(whole("10.0.0.16/28").len(), 8);
        assert_eq!(whole("fd00::/80"), ["fd00::/80"]);
    }

    #[test]
    fn nodes_are_probed_at_their_addresses_but_not_within_pod_cidrs() {
        let name = |text: &str| -> NodeName { text.parse().expect("valid") };
        let addrs =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("valid")).collect::<Vec<IpAddr>>();
        let mut tables = Tables::new(Masquerade::default());
        assert_eq!(tables.probe_targets(&name("a")), BTreeMap::new());
        let cidr = ("default".parse().expect("valid"), "10.1.0.0/24".parse().expect("valid"));
        tables.nodes = Some([(name("b"), NodeRow { pod_cidrs: vec![cidr], eni: None })].into());
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
