// SPDX-License-Identifier: Apache-2.0
//! What the network around a node offers: routes that others put, by the host's own rules, and neighbours.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::{Family, Prefix};

use crate::kernel::KernelError;
use crate::netlink::Netlink;
use crate::plan::Gateway;

/// Routes of others, the rules by which the host chooses a table, and neighbours, as they were seen together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fabric {
    /// By table and destination, the one with the lowest metric.
    routes: BTreeMap<(u32, Prefix), (u32, Leads)>,
    /// The lengths of prefixes among the destinations.
    lengths: BTreeSet<u8>,
    /// In the order in which they are asked.
    rules: BTreeMap<Family, Vec<Rule>>,
    neighbours: BTreeMap<Gateway, Neighbour>,
}

/// A route of another program or of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Its table.
    pub table: u32,
    /// Destination.
    pub dst: Prefix,
    /// Metric; the lowest wins.
    pub metric: u32,
    /// Where it leads.
    pub leads: Leads,
}

/// Where a route of others leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// Out of links; without a gateway, the neighbour is the destination itself or the link has only one.
    Out(Vec<Option<Gateway>>),
    /// Nowhere that helps: black holes, the host itself, a subnet in which nobody answers for pods, dead links.
    Nowhere,
}

/// A rule that holds for packets to pods whatever else they are; others are not known to the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Rules with lower numbers are asked first.
    pub priority: u32,
    /// Destinations for which it holds.
    pub dst: Prefix,
    /// The table to look into; `None` ends the search.
    pub table: Option<u32>,
    /// Routes whose prefix is this long or shorter do not count.
    pub suppressed: Option<u8>,
}

/// What the kernel knows about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// It answered a moment ago, or needs not to be asked.
    Confirmed,
    /// It answered once.
    Known,
    /// It is being asked for the first time.
    Asked,
    /// It does not answer.
    Failed,
}

/// Whether a way takes packets, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Its neighbour does not.
    Dead,
    /// Its neighbour does, and the node behind it has fallen silent.
    Silent,
    /// Nobody has tried.
    Unknown,
    /// It does.
    Alive,
}

impl Liveness {
    /// Whether it is known not to take packets.
    pub fn is_lost(self) -> bool {
        match self {
            Liveness::Dead | Liveness::Silent => true,
            Liveness::Unknown | Liveness::Alive => false,
        }
    }
}

impl Fabric {
    /// Puts together what was seen. Without rules, what the kernel starts with holds: the main table.
    pub fn new(
        routes: Vec<ForeignRoute>,
        rules: Vec<(Family, Rule)>,
        neighbours: BTreeMap<Gateway, Neighbour>,
    ) -> Self {
        let mut fabric = Self { neighbours, ..Self::default() };
        for route in routes {
            fabric.lengths.insert(route.dst.len());
            let best =
                fabric.routes.entry((route.table, route.dst)).or_insert((route.metric, route.leads.clone()));
            if route.metric < best.0 {
                *best = (route.metric, route.leads);
            }
        }
        for (family, rule) in rules {
            fabric.rules.entry(family).or_default().push(rule);
        }
        for rules in fabric.rules.values_mut() {
            rules.sort_by_key(|rule| rule.priority);
        }
        fabric
    }

    /// The longest route of others that covers `prefix`, as the host's rules find it, and where it leads. A default
    /// route is no answer: it says nothing about the prefix.
    pub fn route_to(&self, prefix: Prefix) -> Option<(Prefix, &[Option<Gateway>])> {
        let rules = self.rules.get(&prefix.family()).map(Vec::as_slice).unwrap_or_default();
        for rule in rules.iter().filter(|rule| rule.dst.covers(prefix)) {
            let table = rule.table?;
            let covering = self.lengths.iter().rev().filter(|length| **length <= prefix.len());
            let counts = covering.filter(|length| rule.suppressed.is_none_or(|least| **length > least));
            let found = counts.copied().find_map(|length| {
                let dst = Prefix::containing(prefix.addr(), length);
                self.routes.get(&(table, dst)).map(|(_, leads)| (dst, leads))
            });
            match found {
                None => {}
                Some((dst, Leads::Out(hops))) if dst.len() > 0 => return Some((dst, hops)),
                Some(_) => return None,
            }
        }
        None
    }

    /// Whether a rule passes over some routes of its table.
    pub fn suppresses(&self, family: Family) -> bool {
        self.rules.get(&family).is_some_and(|rules| rules.iter().any(|rule| rule.suppressed.is_some()))
    }

    /// Whether a neighbour takes packets.
    pub fn liveness(&self, gateway: &Gateway) -> Liveness {
        match self.neighbours.get(gateway) {
            Some(Neighbour::Confirmed | Neighbour::Known) => Liveness::Alive,
            Some(Neighbour::Asked) | None => Liveness::Unknown,
            Some(Neighbour::Failed) => Liveness::Dead,
        }
    }

    /// What the kernel knows about a neighbour; `None` is nothing.
    pub fn neighbour(&self, gateway: &Gateway) -> Option<Neighbour> {
        self.neighbours.get(gateway).copied()
    }
}

/// Looks at what the fabric offers for what [`Netlink::watch`] was told.
///
/// # Errors
/// The kernel does not tell.
pub async fn look(netlink: &Netlink) -> Result<Fabric, KernelError> {
    netlink.fabric().await
}

/// Lets the kernel find out whether these neighbours answer; who answered a moment ago is not asked. What comes of it
/// is told by a notice, within three seconds.
///
/// The kernel keeps the entries as any others: nothing of ours stays when nobody asks any more.
///
/// # Errors
/// The kernel does not tell.
pub async fn probe(netlink: &Netlink, gateways: BTreeSet<Gateway>) -> Result<(), KernelError> {
    netlink.probe(gateways).await
}

#[cfg(test)]
mod tests;
