// SPDX-License-Identifier: Apache-2.0
//! Interfaces that a cloud gave the node, each good for certain addresses alone: what leaves with another source, the
//! cloud drops. Pure.
//!
//! ```text
//!   priority 7260: lookup 7299                    packets to pods of the node, from wherever
//!   priority 7261: fwmark of an interface         what came in there and passes the host's stack, and its answers
//!   priority 7262: from its own address           what the node says with it, and what answers at it
//!   priority 7263: from a block of pod addresses  what pods send (all but the default route where the node masquerades)
//!   ...            the host's other rules, main
//! ```
//! The second to the fourth look in the table of the interface, 7300 and its place: the router of its subnet, everything
//! behind that. They come before the rules of learned routes, as a pod's address is good on one interface only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use rhumb_model::{Family, IfName, MacAddr, Prefix};

use crate::interfaces::{HostAddress, InterfaceSpec};
use crate::kernel::{KernelError, Link, PolicyRule};
use crate::netlink::Netlink;
use crate::table_routes::{TableKey, TableRoute};

/// The first table of interfaces, unless another is asked for; the one before it is that of pods.
pub const TABLE: u32 = 7300;
/// How many tables each network card of the node has.
const TABLES_PER_CARD: u32 = 32;
/// How many cards an instance has at most (DescribeInstanceTypes, MaximumNetworkCards).
const CARDS: u32 = 32;
/// Priority of the rule to the table of pods; the other three follow it.
pub const PRIORITY: u32 = 7260;
/// Priority of the rules by firewall mark.
const BY_MARK: u32 = PRIORITY + 1;
/// Priority of the rules from an interface's own address.
const FROM_OWN: u32 = PRIORITY + 2;
/// Priority of the rules from a block of pod addresses.
const FROM_BLOCK: u32 = PRIORITY + 3;
/// The bits of a firewall mark in which an interface is named; the other bits are others'.
pub const MARK_MASK: u32 = 0xffff_0000;
/// What these bits begin with; the second byte is the place of the interface, from 1.
const MARK: u32 = 0x7200_0000;

/// With whose address packets of pods leave the cloud's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outside {
    /// With that of the node's first interface, by which they leave then.
    #[default]
    Node,
    /// With that of their own interface.
    Interface,
    /// With their own: somebody behind the interface translates.
    External,
}

/// An interface as the cloud describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Ethernet address that it came with.
    pub mac: MacAddr,
    /// Network card of the node that it is on.
    pub card: u8,
    /// Place on the card; 0 is the node's first.
    pub index: u8,
    /// MTU in bytes; `None` leaves that of the node's first to the system, and gives the same to the others.
    pub mtu: Option<u32>,
    /// Its own addresses: at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The routers of its subnet: at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Blocks of pod addresses that are good on it.
    pub blocks: Vec<Prefix>,
}

impl Nic {
    /// Whether it is the one that the node began with, which the system looks after.
    fn is_first(&self) -> bool {
        self.card == 0 && self.index == 0
    }

    /// The MTU that its link gets, where the first has `usual`.
    fn link_mtu(&self, usual: Option<u32>) -> Option<u32> {
        self.mtu.or(usual.filter(|_| !self.is_first()))
    }

    fn place(&self) -> u32 {
        u32::from(self.card) * TABLES_PER_CARD + u32::from(self.index)
    }

    /// Number of its table, where `base` is that of the first.
    pub fn table(&self, base: u32) -> u32 {
        base + self.place()
    }

    /// The firewall mark of what came in by it; `None` where there are more interfaces than marks.
    pub fn mark(&self) -> Option<u32> {
        let place = self.place() + 1;
        (place < 256).then_some(MARK | place << 16)
    }
}

/// What the plan depends on.
#[derive(Debug, Clone)]
pub struct Input {
    /// The interfaces.
    pub nics: Vec<Nic>,
    /// Links of the node by the Ethernet address that they came with; those whose names are settled.
    pub links: BTreeMap<MacAddr, Link>,
    /// Where pods are known by their own addresses: the networks of the cloud, and others.
    pub keep_source: Vec<Prefix>,
    /// With whose address packets go elsewhere.
    pub outside: Outside,
    /// Number of the first table.
    pub base: u32,
}

/// What is to be in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links to be switched on.
    pub interfaces: BTreeMap<IfName, InterfaceSpec>,
    /// Addresses of links.
    pub addresses: BTreeMap<HostAddress, ()>,
    /// Routes of their tables.
    pub routes: BTreeMap<TableKey, TableRoute>,
    /// Rules that lead there.
    pub rules: BTreeMap<PolicyRule, ()>,
    /// Interfaces whose link is not there.
    pub missing: BTreeSet<MacAddr>,
}

/// Number of the table of pods, where `base` is that of the first interface.
pub fn pods_table(base: u32) -> u32 {
    base - 1
}

/// The tables that are for interfaces and their pods alone, where `base` is that of the first interface.
pub fn tables(base: u32) -> RangeInclusive<u32> {
    base.saturating_sub(1)..=base.saturating_add(TABLES_PER_CARD * CARDS - 1)
}

/// What the interfaces want. Without any, nothing.
pub fn plan(input: &Input) -> Plan {
    let mut plan = Plan::default();
    if input.nics.is_empty() {
        return plan;
    }
    for family in Family::BOTH {
        plan.rules.insert(rule(family, PRIORITY, pods_table(input.base)), ());
    }
    let mtu = first_mtu(input);
    for nic in &input.nics {
        match input.links.get(&nic.mac) {
            Some(link) => {
                plan.interfaces.insert(link.name.clone(), InterfaceSpec { mtu: nic.link_mtu(mtu) });
                add(&mut plan, input, nic, &link.name);
            }
            None => _ = plan.missing.insert(nic.mac),
        }
    }
    plan
}

/// The MTU of the node's first interface: what it is to have, else what the system gave it. Nobody asks DHCP for that of a
/// later one, which begins with what its driver takes for usual.
fn first_mtu(input: &Input) -> Option<u32> {
    let first = input.nics.iter().find(|nic| nic.is_first())?;
    first.mtu.or_else(|| input.links.get(&first.mac).map(|link| link.mtu))
}

fn rule(family: Family, priority: u32, table: u32) -> PolicyRule {
    PolicyRule { family, priority, from: None, mark: None, table, suppress: None }
}

fn add(plan: &mut Plan, input: &Input, nic: &Nic, ifname: &IfName) {
    let table = nic.table(input.base);
    for family in Family::BOTH {
        let Some(gateway) = nic.gateways.iter().copied().find(|addr| Family::of(*addr) == family) else {
            continue;
        };
        add_routes(plan, input, TableKey { table, dst: Prefix::host(gateway) }, ifname);
        if let Some(mark) = nic.mark() {
            let by_mark = PolicyRule { mark: Some((mark, MARK_MASK)), ..rule(family, BY_MARK, table) };
            plan.rules.insert(by_mark, ());
        }
        let own = nic.addresses.iter().filter(|addr| Family::of(**addr) == family && !nic.is_first());
        for addr in own {
            let from = Some(Prefix::host(*addr));
            plan.rules.insert(PolicyRule { from, ..rule(family, FROM_OWN, table) }, ());
            let address = HostAddress { ifname: ifname.clone(), address: IpNetwork::from(*addr) };
            plan.addresses.insert(address, ());
        }
        let suppress = stays_at_home(input.outside, family).then_some(0);
        for block in nic.blocks.iter().filter(|block| block.family() == family) {
            let from = PolicyRule { from: Some(*block), suppress, ..rule(family, FROM_BLOCK, table) };
            plan.rules.insert(from, ());
        }
    }
}

/// Whether pods' packets leave the cloud's network by the node's first interface. IPv6 addresses are good everywhere, and
/// nobody translates them.
fn stays_at_home(outside: Outside, family: Family) -> bool {
    match outside {
        Outside::Node => family == Family::V4,
        Outside::Interface | Outside::External => false,
    }
}

/// The router, everything behind it, and apart from that the destinations for which the default route does not count.
fn add_routes(plan: &mut Plan, input: &Input, gateway: TableKey, ifname: &IfName) {
    let TableKey { table, dst } = gateway;
    let family = dst.family();
    let on_link = TableRoute::Link { ifname: ifname.clone(), gateway: None };
    let behind = TableRoute::Link { ifname: ifname.clone(), gateway: Some(dst.addr()) };
    plan.routes.insert(TableKey { table, dst: family.default_route() }, behind.clone());
    if stays_at_home(input.outside, family) {
        let kept = input.keep_source.iter().filter(|prefix| prefix.family() == family && prefix.len() > 0);
        for prefix in kept {
            plan.routes.insert(TableKey { table, dst: *prefix }, behind.clone());
        }
    }
    // IPv6 has a link-local router, which needs no route.
    if family == Family::V4 {
        plan.routes.insert(gateway, on_link);
    }
}

/// Links of the node by the Ethernet address that their hardware came with, else by the one that they have. Where two
/// have the same, the one with the lower index counts: what is stacked on an interface came after it.
///
/// # Errors
/// The kernel does not tell.
pub async fn links(netlink: &Netlink) -> Result<BTreeMap<MacAddr, Link>, KernelError> {
    let mut all = netlink.links_by_hardware().await?;
    all.sort_by_key(|(_, link)| link.ifindex);
    let mut found = BTreeMap::new();
    for (mac, link) in all {
        found.entry(mac).or_insert(link);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
