// SPDX-License-Identifier: Apache-2.0
//! Routes that a routing protocol learned: a table of their own, and the rules that lead to it.
//!
//! ```text
//!   priority 7267: lookup main suppress_prefixlength 0    the host's own routes, all but its default one
//!   priority 7268: lookup 7268                            what was learned
//!   ...            lookup main                            the host's default route
//! ```
//! A learned default route wins over the host's own, a learned route to a subnet of the host does not. Everything of
//! ours carries route protocol 115; routes of others in the table are neither changed nor removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use crate::kernel::KernelError;
use crate::namespaces::Namespaces;
use crate::netlink::learned::{Bulk, Listening};
use crate::netlink::{Host, Netlink};

/// Route and rule protocol of what was learned.
pub const PROTOCOL: u8 = 115;
/// The table that is used unless another is asked for.
pub const TABLE: u32 = 7268;
/// Priority of the rule by which the host's own routes come first; that of the rule to the table is the next.
pub const PRIORITY: u32 = 7267;
/// Metric of learned routes within the table: nobody else's of the same prefix is in their place.
pub const METRIC: u32 = 115;

/// A neighbour to which packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Via {
    /// Index of the link.
    pub ifindex: u32,
    /// Its address, possibly of the other family (`RTA_VIA`); `None` where the link has only one neighbour.
    pub gateway: Option<IpAddr>,
}

/// What the kernel does with packets to a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnedRoute {
    /// Each flow goes to one of these; in order, without doubles, never empty.
    Via(Vec<Via>),
    /// They are dropped.
    Discard,
}

/// A change of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The prefix.
    pub prefix: Prefix,
    /// What to do.
    pub action: WriteAction,
}

/// What to do with a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAction {
    /// Put it where none of ours is; one of others with the same prefix and metric is present.
    Add(Arc<LearnedRoute>),
    /// Put it in place of ours, or where none is.
    Replace(Arc<LearnedRoute>),
    /// Remove ours.
    Remove,
}

/// The table of learned routes.
#[derive(Debug)]
pub struct Learned {
    host: Host,
    table: u32,
    bulk: Option<Bulk>,
}

impl Learned {
    /// Uses this table, in the namespace of the calling thread.
    ///
    /// # Errors
    /// That namespace cannot be opened, or has no netlink.
    pub fn new(table: u32) -> Result<Self, KernelError> {
        let host = Netlink::new(Namespaces::new())?.into_host();
        Ok(Self { host, table, bulk: None })
    }

    /// Puts the two rules of each family where they are missing.
    ///
    /// # Errors
    /// The kernel refuses one; a kernel without the family is not asked for it.
    pub async fn put_rules(&self) -> Result<(), KernelError> {
        self.host.put_learned_rules(self.table).await
    }

    /// Our routes in the table. `None` stands for one that this program would not put.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn routes(&self) -> Result<BTreeMap<Prefix, Option<LearnedRoute>>, KernelError> {
        self.host.learned_routes(self.table).await
    }

    /// Makes changes, many with one system call, and returns those that were refused. Absent on remove is success.
    ///
    /// # Errors
    /// The conversation broke off; which changes were made is then seen by [`Learned::routes`].
    pub async fn write(&mut self, writes: Vec<Write>) -> Result<Vec<(Prefix, KernelError)>, KernelError> {
        let bulk = self.bulk.take();
        let (bulk, refused) = self.host.write_learned(self.table, bulk, writes).await?;
        self.bulk = Some(bulk);
        Ok(refused)
    }

    /// How the host reaches these addresses without what was learned.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn surroundings(&self, addresses: BTreeSet<IpAddr>) -> Result<Surroundings, KernelError> {
        self.host.surroundings(addresses).await
    }

    /// Begins to listen for changes of links, of addresses, and of routes that were not learned.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub async fn events(&self) -> Result<LearnedEvents, KernelError> {
        Ok(LearnedEvents(self.host.listen_for_learned().await?))
    }
}

/// Says when it is worth looking at the surroundings again.
#[derive(Debug)]
pub struct LearnedEvents(Listening);

impl LearnedEvents {
    /// Waits for the next change. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The socket is unusable; a new one has to be opened.
    pub async fn next(&mut self) -> Result<(), KernelError> {
        self.0.next().await
    }
}

/// A route of others that may lead to a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    /// Destination.
    pub dst: Prefix,
    /// Metric; the lowest wins.
    pub metric: u32,
    /// Where it leads; empty is nowhere.
    pub via: Vec<Via>,
}

/// The host's own links and routes, as far as next hops are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// By destination, the one with the lowest metric.
    ways: BTreeMap<Prefix, WayOut>,
    carriers: BTreeSet<u32>,
    own: BTreeSet<IpAddr>,
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The neighbours: itself, or the routers on the way to it.
    pub via: Vec<Via>,
    /// How far it is: 0 on a link of ours, else the metric of the host's route to it and one.
    pub distance: u32,
}

impl Surroundings {
    /// Puts together what was seen: routes, the links that carry packets, and the host's own addresses.
    pub fn new(ways: Vec<WayOut>, carriers: BTreeSet<u32>, own: BTreeSet<IpAddr>) -> Self {
        let mut best: BTreeMap<Prefix, WayOut> = BTreeMap::new();
        for way in ways {
            let known = best.entry(way.dst).or_insert_with(|| way.clone());
            if way.metric < known.metric {
                *known = way;
            }
        }
        Self { ways: best, carriers, own }
    }

    /// Whether packets leave by this link.
    pub fn carries(&self, ifindex: u32) -> bool {
        self.carriers.contains(&ifindex)
    }

    /// How packets get to a next hop: `scope` is the link that a link-local address is on. `None`: they do not.
    pub fn reach(&self, address: IpAddr, scope: Option<u32>) -> Option<Reached> {
        if self.own.contains(&address) {
            return None;
        }
        if let Some(ifindex) = scope {
            let via = vec![Via { ifindex, gateway: Some(address) }];
            return self.carries(ifindex).then_some(Reached { via, distance: 0 });
        }
        let lengths = (0..=Family::of(address).bits()).rev();
        let way =
            lengths.map(|length| Prefix::containing(address, length)).find_map(|dst| self.ways.get(&dst))?;
        let usable = way.via.iter().filter(|via| self.carries(via.ifindex));
        let on_link = way.via.iter().all(|via| via.gateway.is_none());
        let via: Vec<Via> =
            usable.map(|via| Via { gateway: via.gateway.or(Some(address)), ..*via }).collect();
        let distance = if on_link { 0 } else { way.metric.saturating_add(1) };
        (!via.is_empty()).then_some(Reached { via, distance })
    }
}

#[cfg(test)]
mod tests;
