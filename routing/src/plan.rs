// SPDX-License-Identifier: Apache-2.0
//! Which way to the pods of every node: pure.
//!
//! For each pod CIDR the ways are tried in the order of [`Way`]; the first that exists becomes the route. CIDRs of
//! two nodes never overlap in the result: own ones come first, then those of the node whose name sorts first.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use rhumb_model::{Family, IfName, NodeName, Prefix};

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
}

/// A link, and which addresses are neighbours on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Name of the link.
    pub ifname: IfName,
    /// The subnets of this node's addresses on it.
    pub on_link: Vec<Prefix>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    /// Its name.
    pub name: NodeName,
    /// Its addresses, the preferred ones first.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<Prefix>,
}

/// A way to another node, best first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The node's address is a neighbour on a link.
    Direct {
        /// The node's address.
        gateway: IpAddr,
        /// The link.
        ifname: IfName,
    },
}

/// What the plan says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The routes of the host to pod CIDRs.
    pub routes: BTreeMap<Prefix, HostRoute>,
    /// What has no route, and why; sorted.
    pub problems: Vec<Problem>,
}

/// Why a pod CIDR has no route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// None of the node's addresses of that family is a neighbour.
    NoDirectWay {
        /// Which node.
        node: NodeName,
        /// Its pod CIDR.
        prefix: Prefix,
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
            Problem::NoDirectWay { node, prefix } => {
                write!(
                    f,
                    "no route to {prefix}: no {} address of node {node} is on a link of this node",
                    prefix.family()
                )
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
pub fn plan(input: &PlanInput) -> Plan {
    let mut plan = Plan::default();
    let mut held = Held::default();
    let mut own = input.own_pod_cidrs.clone();
    own.sort_by_key(|prefix| prefix.len());
    for prefix in own {
        plan.routes.insert(prefix, HostRoute::Unreachable);
        if held.overlapping(prefix).is_none() {
            held.insert(prefix, None);
        }
    }
    let mut claims: Vec<(&RemoteNode, Prefix)> = input
        .nodes
        .iter()
        .flat_map(|node| node.pod_cidrs.iter().map(move |prefix| (node, *prefix)))
        .collect();
    claims.sort_by(|(one, prefix), (other, than)| (&one.name, prefix).cmp(&(&other.name, than)));
    for (node, prefix) in claims {
        match held.overlapping(prefix) {
            Some((same, Some(holder))) if same == prefix && *holder == node.name => continue,
            Some((other, holder)) => {
                plan.problems.push(Problem::Overlap {
                    node: node.name.clone(),
                    prefix,
                    holder: holder.cloned(),
                    held: other,
                });
                continue;
            }
            None => held.insert(prefix, Some(&node.name)),
        }
        match ways(node, prefix.family(), &input.uplinks).next() {
            Some(Way::Direct { gateway, ifname }) => {
                plan.routes.insert(prefix, HostRoute::Via { gateway, ifname: Some(ifname) });
            }
            None => plan.problems.push(Problem::NoDirectWay { node: node.name.clone(), prefix }),
        }
    }
    plan.problems.sort();
    plan
}

/// The ways to a node for packets of one family, best first.
fn ways(node: &RemoteNode, family: Family, uplinks: &[Reach]) -> impl Iterator<Item = Way> {
    let addresses = node.addresses.iter().filter(move |address| Family::of(**address) == family);
    addresses.filter_map(|gateway| {
        let neighbour = |reach: &&Reach| reach.on_link.iter().any(|subnet| subnet.contains(*gateway));
        let reach = uplinks.iter().find(neighbour)?;
        Some(Way::Direct { gateway: *gateway, ifname: reach.ifname.clone() })
    })
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
