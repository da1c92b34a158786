// SPDX-License-Identifier: Apache-2.0
//! The ways that exist to a prefix of a node, with what is known of each.

use std::net::IpAddr;

use rhumb_model::{Family, Prefix};

use super::choice::{Candidate, Candidates};
use super::way::{Gateway, Way};
use super::{PlanInput, Reach, RemoteNode};
use crate::fabric::Liveness;

/// The candidates for `prefix`, which `node` has.
pub(super) fn of(node: &RemoteNode, prefix: Prefix, input: &PlanInput) -> Candidates {
    Candidates { direct: direct(node, prefix, input), tunnel: tunnel(node, input) }
}

/// A route of others to the very prefix says more than that the node is a neighbour; one to a larger block says
/// less, and is taken when no neighbour answers.
fn direct(node: &RemoteNode, prefix: Prefix, input: &PlanInput) -> Option<Candidate> {
    let fabric = fabric(prefix, input);
    let exact = fabric.clone().filter(|(dst, _)| *dst == prefix).map(|(_, candidate)| candidate);
    let ways = exact.into_iter().chain(neighbour(node, prefix, input)).chain(fabric.map(|(_, way)| way));
    // Of equals, the first.
    ways.reduce(|best, other| if is_dead(&best) && !is_dead(&other) { other } else { best })
}

fn is_dead(candidate: &Candidate) -> bool {
    candidate.liveness == Liveness::Dead
}

/// The first address of the node that is a neighbour and not known to be dead, else the first that is a neighbour.
fn neighbour(node: &RemoteNode, prefix: Prefix, input: &PlanInput) -> Option<Candidate> {
    let family = prefix.family();
    let addresses = node.addresses.iter().filter(|address| Family::of(**address) == family);
    let on_link = addresses.filter_map(|addr| on_link(*addr, input)).map(|gateway| {
        let liveness = input.fabric.liveness(&gateway);
        Candidate { way: Way::Neighbour(gateway), liveness }
    });
    on_link.reduce(|best, other| if is_dead(&best) && !is_dead(&other) { other } else { best })
}

fn on_link(addr: IpAddr, input: &PlanInput) -> Option<Gateway> {
    let neighbour = |reach: &&Reach| reach.on_link.iter().any(|subnet| subnet.contains(addr));
    let reach = input.uplinks.iter().find(neighbour)?;
    Some(Gateway { addr, ifname: reach.ifname.clone() })
}

/// The route of others, and its destination. With several next hops the kernel does what it can to avoid a dead one;
/// only when all are dead the way is.
fn fabric(prefix: Prefix, input: &PlanInput) -> Option<(Prefix, Candidate)> {
    let (dst, hops) = input.fabric.route_to(prefix)?;
    let liveness = |hop: &Option<Gateway>| {
        hop.as_ref().map_or(Liveness::Alive, |gateway| input.fabric.liveness(gateway))
    };
    let liveness = hops.iter().map(liveness).max()?;
    let gateway = if let [gateway] = hops { gateway.clone() } else { None };
    Some((dst, Candidate { way: Way::Fabric { route: dst, gateway }, liveness }))
}

/// The first address of the node to which this node has an address of the same family, unless it is a neighbour that
/// does not answer and another one is there.
fn tunnel(node: &RemoteNode, input: &PlanInput) -> Option<Candidate> {
    input.tunnel.as_ref()?;
    let own = |family| {
        input.uplinks.iter().flat_map(|reach| &reach.addresses).any(|addr| Family::of(*addr) == family)
    };
    let endpoints = node.addresses.iter().filter(|addr| own(Family::of(**addr))).map(|addr| {
        let liveness =
            on_link(*addr, input).map_or(Liveness::Alive, |gateway| input.fabric.liveness(&gateway));
        Candidate { way: Way::Tunnel { endpoint: *addr }, liveness }
    });
    endpoints.reduce(|best, other| if is_dead(&best) && !is_dead(&other) { other } else { best })
}
