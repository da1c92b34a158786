// SPDX-License-Identifier: Apache-2.0
//! The ways that exist to a prefix of a node, with what is known of each.

use std::net::IpAddr;

use rhumb_model::{Family, Prefix};

use super::choice::{Candidate, Candidates};
use super::way::{Gateway, Way};
use super::{PlanInput, Reach, RemoteNode};
use crate::fabric::Liveness;

/// The candidates for `prefix`, which `node` has, and to which packets went by `past` until now.
pub(super) fn of(node: &RemoteNode, prefix: Prefix, input: &PlanInput, past: Option<&Way>) -> Candidates {
    Candidates { direct: direct(node, prefix, input, past), tunnel: tunnel(node, input, past) }
}

/// The first that is not known to be lost. When all are, nothing moves without need: that of before, else the first.
fn best(ways: impl Iterator<Item = Candidate> + Clone, past: Option<&Way>) -> Option<Candidate> {
    let before = || ways.clone().find(|candidate| Some(&candidate.way) == past);
    ways.clone().find(|candidate| !is_lost(candidate)).or_else(before).or_else(|| ways.clone().next())
}

/// A route of others to the very prefix says more than that the node is a neighbour; one to a larger block says
/// less, and is taken when no neighbour answers.
fn direct(node: &RemoteNode, prefix: Prefix, input: &PlanInput, past: Option<&Way>) -> Option<Candidate> {
    let fabric = fabric(node, prefix, input);
    let exact = fabric.clone().filter(|(dst, _)| *dst == prefix).map(|(_, candidate)| candidate);
    let neighbour = neighbour(node, prefix, input, past);
    best(exact.into_iter().chain(neighbour).chain(fabric.map(|(_, way)| way)), past)
}

fn is_lost(candidate: &Candidate) -> bool {
    candidate.liveness.is_lost()
}

/// What is known of a way when the node's address at its end is silent or not.
fn with_probe(liveness: Liveness, silent: bool) -> Liveness {
    if silent { liveness.min(Liveness::Silent) } else { liveness }
}

/// One of the addresses of the node that are neighbours.
fn neighbour(node: &RemoteNode, prefix: Prefix, input: &PlanInput, past: Option<&Way>) -> Option<Candidate> {
    let family = prefix.family();
    let addresses = node.addresses.iter().filter(|address| Family::of(**address) == family);
    let on_link = addresses.filter_map(|addr| on_link(*addr, input)).map(|gateway| {
        let liveness = with_probe(input.fabric.liveness(&gateway), input.silent.contains(&gateway.addr));
        Candidate { way: Way::Neighbour(gateway), liveness }
    });
    best(on_link, past)
}

fn on_link(addr: IpAddr, input: &PlanInput) -> Option<Gateway> {
    let neighbour = |reach: &&Reach| reach.on_link.iter().any(|subnet| subnet.contains(addr));
    let reach = input.uplinks.iter().find(neighbour)?;
    Some(Gateway { addr, ifname: reach.ifname.clone() })
}

/// The route of others, and its destination. With several next hops the kernel does what it can to avoid a dead one;
/// only when all are dead the way is. Or when the node is silent at all its addresses of that family, to which the fabric
/// carries packets too.
fn fabric(node: &RemoteNode, prefix: Prefix, input: &PlanInput) -> Option<(Prefix, Candidate)> {
    let (dst, hops) = input.fabric.route_to(prefix)?;
    let liveness = |hop: &Option<Gateway>| {
        hop.as_ref().map_or(Liveness::Alive, |gateway| input.fabric.liveness(gateway))
    };
    let mut addresses = node.addresses.iter().filter(|addr| Family::of(**addr) == prefix.family()).peekable();
    let silent = addresses.peek().is_some() && addresses.all(|addr| input.silent.contains(addr));
    let liveness = with_probe(hops.iter().map(liveness).max()?, silent);
    let gateway = if let [gateway] = hops { gateway.clone() } else { None };
    Some((dst, Candidate { way: Way::Fabric { route: dst, gateway }, liveness }))
}

/// One of the addresses of the node to which this node has an address of the same family.
fn tunnel(node: &RemoteNode, input: &PlanInput, past: Option<&Way>) -> Option<Candidate> {
    input.tunnel.as_ref()?;
    let own = |family| {
        input.uplinks.iter().flat_map(|reach| &reach.addresses).any(|addr| Family::of(*addr) == family)
    };
    let endpoints = node.addresses.iter().filter(|addr| own(Family::of(**addr))).map(|addr| {
        let liveness =
            on_link(*addr, input).map_or(Liveness::Alive, |gateway| input.fabric.liveness(&gateway));
        let liveness = with_probe(liveness, input.silent.contains(addr));
        Candidate { way: Way::Tunnel { endpoint: *addr }, liveness }
    });
    best(endpoints, past)
}
