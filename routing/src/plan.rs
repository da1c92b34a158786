// SPDX-License-Identifier: Apache-2.0
//! Which way to the pods of every node: pure.
//!
//! ```text
//!   pod CIDRs of nodes ─► claims that do not overlap ─► candidates (neighbour, route of others, tunnel)
//!        policy of the pool, earlier choices, now ─────────────► choice ─► host routes, ipcache entries, changes
//! ```
//! CIDRs of two nodes never overlap in the result: own ones come first, then those of the node whose name sorts
//! first. [`Memory`] is all that a plan knows of the one before.

mod candidates;
mod choice;
mod history;
mod remotes;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use rhumb_model::{Family, IfName, NodeName, PoolName, Prefix};

pub use choice::{Candidate, Candidates, Choice, HoldDown, choose};
pub use history::{Event, History};
pub use remotes::Remote;
pub use way::{Gateway, Mode, Policy, Way, Why, tunnel_overhead};

use crate::fabric::Fabric;
use crate::host_routes::HostRoute;

/// What the plan is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanInput {
    /// The pod CIDRs of this node.
    pub own_pod_cidrs: Vec<Prefix>,
    /// The links through which other nodes are reached.
    pub uplinks: Vec<Reach>,
    /// The other nodes.
    pub nodes: Vec<RemoteNode>,
    /// The policies of pools; without one, [`Mode::Auto`] holds.
    pub policies: BTreeMap<PoolName, Policy>,
    /// What others offer.
    pub fabric: Fabric,
    /// Addresses of nodes that answered once and have fallen silent ([`crate::probe`]).
    pub silent: BTreeSet<IpAddr>,
    /// The tunnel's device; `None` switches tunnels off.
    pub tunnel: Option<IfName>,
    /// For how long a direct way has to be back.
    pub hold_down: HoldDown,
    /// Where the source of pods' packets stays, besides pods and nodes.
    pub keep_source: Vec<Prefix>,
}

/// A link, and which addresses are neighbours on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Name of the link.
    pub ifname: IfName,
    /// The subnets of this node's addresses on it.
    pub on_link: Vec<Prefix>,
    /// This node's addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    /// Its name.
    pub name: NodeName,
    /// Its addresses, the preferred ones first.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs, and the pools that they are of.
    pub pod_cidrs: Vec<(PoolName, Prefix)>,
}

/// What earlier plans chose, by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory(pub BTreeMap<Prefix, Choice>);

/// What the plan says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The routes of the host to pod CIDRs.
    pub routes: BTreeMap<Prefix, HostRoute>,
    /// What the datapath has to know of addresses elsewhere.
    pub remotes: BTreeMap<Prefix, Remote>,
    /// The neighbours on which a choice depends: whether they answer has to be found out.
    pub gateways: BTreeSet<Gateway>,
    /// What is chosen otherwise than before.
    pub changes: Vec<Change>,
    /// What has no route, and why; sorted.
    pub problems: Vec<Problem>,
    /// When the plan would say something else without another input.
    pub next: Option<Instant>,
}

/// Packets to a prefix go another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The pods' prefix.
    pub prefix: Prefix,
    /// The node that has it.
    pub node: NodeName,
    /// The way until now.
    pub from: Option<Way>,
    /// The way from now on.
    pub to: Option<Way>,
    /// Why.
    pub why: Why,
}

/// Why a pod CIDR has no route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// There is none of the ways that the policy allows.
    NoWay {
        /// Which node.
        node: NodeName,
        /// Its pod CIDR.
        prefix: Prefix,
        /// What the policy allows.
        mode: Mode,
    },
    /// The pod CIDR overlaps with one that another node holds, or this one.
    Overlap {
        /// The node that gets no route.
        node: NodeName,
        /// Its pod CIDR.
        prefix: Prefix,
        /// Who holds the other; `None` is this node.
        holder: Option<NodeName>,
        /// The other pod CIDR.
        held: Prefix,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NoWay { node, prefix, mode: Mode::Tunnel } => {
                write!(f, "no route to {prefix}: its pool wants the tunnel, and none leads to node {node}")
            }
            Problem::NoWay { node, prefix, mode } => {
                let family = prefix.family();
                write!(
                    f,
                    "no route to {prefix}: no {family} address of node {node} is on a link of this node, "
                )?;
                f.write_str(match mode {
                    Mode::Direct => "no other program has put a route, and its pool wants no tunnel",
                    Mode::Auto | Mode::Tunnel => {
                        "no other program has put a route, and no tunnel leads there"
                    }
                })
            }
            Problem::Overlap { node, prefix, holder: Some(holder), held } => {
                write!(f, "no route to {prefix} of node {node}: it overlaps with {held} of node {holder}")
            }
            Problem::Overlap { node, prefix, holder: None, held } => {
                write!(f, "no route to {prefix} of node {node}: it overlaps with {held} of this node")
            }
        }
    }
}

/// Chooses the routes to the pods of all nodes. An own pod CIDR becomes unreachable as a whole, so that packets to
/// its addresses without a pod end here instead of going in circles.
pub fn plan(input: &PlanInput, memory: &Memory, now: Instant) -> (Plan, Memory) {
    let mut plan = Plan::default();
    let mut chosen = Memory::default();
    for (node, pool, prefix) in claims(input, &mut plan) {
        let mode = input.policies.get(pool).map_or(Mode::Auto, |policy| policy.mode_of(prefix));
        let past = memory.0.get(&prefix).filter(|past| past.node == node.name);
        let candidates = candidates::of(node, prefix, input, past.and_then(|past| past.way.as_ref()));
        if mode == Mode::Auto && candidates.tunnel.is_some() {
            plan.gateways.extend(candidates.direct.iter().flat_map(|direct| gateways(&direct.way)));
        }
        let choice = choose(&node.name, mode, candidates, past, input.hold_down, now);
        plan.next = plan.next.into_iter().chain(choice.returns_at(input.hold_down)).min();
        match &choice.way {
            Some(way) => plan.routes.extend(host_route(way, prefix, input).map(|route| (prefix, route))),
            None => plan.problems.push(Problem::NoWay { node: node.name.clone(), prefix, mode }),
        }
        chosen.0.insert(prefix, choice);
    }
    plan.problems.sort();
    plan.changes = changes(memory, &chosen);
    plan.remotes = remotes::remotes(input, &chosen);
    (plan, chosen)
}

/// The pod CIDRs of other nodes that overlap with nothing; own ones become routes.
fn claims<'a>(input: &'a PlanInput, plan: &mut Plan) -> Vec<(&'a RemoteNode, &'a PoolName, Prefix)> {
    let mut held = Held::default();
    let mut own = input.own_pod_cidrs.clone();
    own.sort_by_key(|prefix| prefix.len());
    for prefix in own {
        plan.routes.insert(prefix, HostRoute::Unreachable);
        if held.overlapping(prefix).is_none() {
            held.insert(prefix, None);
        }
    }
    let of_node =
        |node: &'a RemoteNode| node.pod_cidrs.iter().map(move |(pool, prefix)| (node, pool, *prefix));
    let mut claims: Vec<_> = input.nodes.iter().flat_map(of_node).collect();
    claims.sort_by(|(one, _, prefix), (other, _, than)| (&one.name, prefix).cmp(&(&other.name, than)));
    claims.retain(|(node, _, prefix)| match held.overlapping(*prefix) {
        Some((same, Some(holder))) if same == *prefix && *holder == node.name => false,
        Some((other, holder)) => {
            plan.problems.push(Problem::Overlap {
                node: node.name.clone(),
                prefix: *prefix,
                holder: holder.cloned(),
                held: other,
            });
            false
        }
        None => {
            held.insert(*prefix, Some(&node.name));
            true
        }
    });
    claims
}

/// The route of ours for a way; none where others have put one.
fn host_route(way: &Way, prefix: Prefix, input: &PlanInput) -> Option<HostRoute> {
    match way {
        Way::Neighbour(Gateway { addr, ifname }) => {
            Some(HostRoute::Via { gateway: *addr, ifname: Some(ifname.clone()) })
        }
        Way::Fabric { .. } => None,
        Way::Tunnel { endpoint } => {
            let mut own = input.uplinks.iter().flat_map(|reach| &reach.addresses);
            Some(HostRoute::Tunnel {
                ifname: input.tunnel.clone()?,
                mtu: remotes::tunnel_mtu(*endpoint, &input.uplinks).into(),
                source: own.find(|addr| Family::of(**addr) == prefix.family()).copied(),
            })
        }
    }
}

fn gateways(way: &Way) -> Option<Gateway> {
    match way {
        Way::Neighbour(gateway) => Some(gateway.clone()),
        Way::Fabric { gateway, .. } => gateway.clone(),
        Way::Tunnel { .. } => None,
    }
}

fn changes(before: &Memory, after: &Memory) -> Vec<Change> {
    let mut changes = Vec::new();
    for (prefix, choice) in &after.0 {
        let from = before.0.get(prefix).and_then(|past| past.way.clone());
        if from != choice.way {
            let (node, to) = (choice.node.clone(), choice.way.clone());
            changes.push(Change { prefix: *prefix, node, from, to, why: choice.why });
        }
    }
    for (prefix, past) in before.0.iter().filter(|(prefix, _)| !after.0.contains_key(prefix)) {
        let (node, from) = (past.node.clone(), past.way.clone());
        if from.is_some() {
            changes.push(Change { prefix: *prefix, node, from, to: None, why: Why::Unclaimed });
        }
    }
    changes
}

/// Prefixes that do not overlap, and who holds them.
#[derive(Default)]
struct Held<'a>(BTreeMap<Prefix, Option<&'a NodeName>>);

impl<'a> Held<'a> {
    fn insert(&mut self, prefix: Prefix, holder: Option<&'a NodeName>) {
        self.0.insert(prefix, holder);
    }

    /// The first that overlaps with `prefix`.
    fn overlapping(&self, prefix: Prefix) -> Option<(Prefix, Option<&'a NodeName>)> {
        // As they do not overlap among themselves, one that begins before `prefix` and reaches into it is the last
        // to begin.
        let before = self.0.range(..=prefix).next_back().filter(|(held, _)| held.contains(prefix.addr()));
        let within = || self.0.range(prefix..).next().filter(|(held, _)| prefix.contains(held.addr()));
        before.or_else(within).map(|(held, holder)| (*held, *holder))
    }
}

#[cfg(test)]
mod tests;
