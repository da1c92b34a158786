// SPDX-License-Identifier: Apache-2.0
//! Who asks whom, and as whom each is known.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use rhumb_integration::ec2::{Callers, Ear, How, Traffic};
use rhumb_integration::lab::Namespace;

use crate::ground::{Ground, POD_PORT, PORT, Seat};

/// Everything that answers.
const ALL: &[How] = &[How::Tcp, How::Udp, How::Echo];
/// What has ports.
const PORTS: &[How] = &[How::Tcp, How::Udp];

/// A question.
pub(crate) struct Row<'a> {
    what: &'static str,
    from: &'a Namespace,
    /// The caller's address, where it has several.
    own: Option<IpAddr>,
    to: SocketAddr,
    at: &'a Ear,
    /// As whom the caller is known there; `None`: as somebody else than it is.
    known: Option<IpAddr>,
    /// The flow on the links between nodes and VPC: who asks whom; `None` where it is on none.
    flow: Option<(IpAddr, SocketAddr)>,
    how: &'static [How],
}

impl Row<'_> {
    /// Asks in every way.
    pub(crate) fn ask(&self) -> Result<()> {
        let Self { what, from, own, to, at, known, how, .. } = self;
        for how in *how {
            let words = || format!("{what}: {} as {own:?} to {to} by {how:?}", from.name());
            let seen = at.is_asked(*how, from, *own, *to).with_context(words)?;
            let well = match (seen, known) {
                (None, _) => true,
                (Some(seen), Some(known)) => seen == *known,
                (Some(seen), None) => Some(seen) != *own,
            };
            ensure!(well, "{}: known as {seen:?}, not as {known:?}", words());
        }
        Ok(())
    }

    /// Checks that it was seen, there and back.
    pub(crate) fn is_in(&self, traffic: &Traffic) -> Result<()> {
        let Some((caller, called)) = self.flow else { return Ok(()) };
        for how in self.how {
            let port = if *how == How::Echo { 0 } else { called.port() };
            let (what, called) = (self.what, called.ip());
            traffic.has(caller, (called, port), how.protocol(called)).context(what)?;
        }
        Ok(())
    }
}

/// Every question.
pub(crate) fn rows(ground: &Ground) -> Vec<Row<'_>> {
    let all = [between_pods, to_outside, to_pods, to_nodes, to_host_ports, to_node_ports, to_elastic];
    all.iter().flat_map(|rows| rows(ground)).collect()
}

fn of_one_family(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

/// A question from outside, which is known as it is.
fn from_outside<'a>(
    ground: &'a Ground,
    what: &'static str,
    to: SocketAddr,
    at: &'a Ear,
    how: &'static [How],
) -> impl Iterator<Item = Row<'a>> {
    let callers = ground.outside.iter().map(|(addr, _)| *addr);
    callers.filter(move |caller| of_one_family(*caller, to.ip())).map(move |caller| Row {
        what,
        from: ground.client(),
        own: Some(caller),
        to,
        at,
        known: Some(caller),
        flow: Some((caller, to)),
        how,
    })
}

fn between_pods(ground: &Ground) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for from in &ground.seats {
        for to in ground.seats.iter().filter(|to| to.pod.container != from.pod.container) {
            rows.extend(from.addresses().into_iter().zip(to.addresses()).map(|(own, addr)| {
                let (what, to_pod) = ("between pods", SocketAddr::new(addr, POD_PORT));
                Row {
                    what,
                    from: &from.pod.namespace,
                    own: None,
                    to: to_pod,
                    at: &to.ear,
                    known: Some(own),
                    flow: (from.node != to.node).then_some((own, to_pod)),
                    how: ALL,
                }
            }));
        }
    }
    rows
}

/// To the world and to a host of the VPC: there a pod is known as itself, by IPv6 everywhere, and else as the first
/// address of its node, which may have another outside of the VPC.
fn to_outside(ground: &Ground) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for seat in &ground.seats {
        for (addr, ear) in &ground.outside {
            let own = seat.addresses().into_iter().find(|own| of_one_family(*own, *addr));
            let own = own.expect("one of each family");
            let first = ground.cloud.lab.node(seat.node).addresses[0];
            let leaves = if own.is_ipv4() && !Ground::is_of_the_vpc(*addr) { first } else { own };
            let known = ground.elastic.get(&leaves).filter(|_| !Ground::is_of_the_vpc(*addr));
            let to = SocketAddr::new(*addr, PORT);
            rows.push(Row {
                what: "to outside",
                from: &seat.pod.namespace,
                own: None,
                to,
                at: ear,
                known: Some(*known.unwrap_or(&leaves)),
                flow: Some((leaves, to)),
                how: ALL,
            });
        }
    }
    rows
}

/// As a load balancer with targets by address, with its own address or with those of its callers.
fn to_pods(ground: &Ground) -> Vec<Row<'_>> {
    let pods = ground.seats.iter().flat_map(|seat| seat.addresses().map(|addr| (seat, addr)));
    pods.flat_map(|(seat, addr)| {
        from_outside(ground, "to a pod", SocketAddr::new(addr, POD_PORT), &seat.ear, ALL)
    })
    .collect()
}

/// What listens on the node itself, at the address of each interface.
fn to_nodes(ground: &Ground) -> Vec<Row<'_>> {
    ground.nodes.iter().flat_map(|(at, ear)| from_outside(ground, "to a node", *at, ear, ALL)).collect()
}

/// At the address of each interface of the node: the host port of each of its pods.
fn to_host_ports(ground: &Ground) -> Vec<Row<'_>> {
    let of_node = |seat: &Seat| addresses(ground, seat.node);
    let all = ground.seats.iter().flat_map(|seat| of_node(seat).into_iter().map(move |addr| (seat, addr)));
    all.flat_map(|(seat, addr)| {
        let to = SocketAddr::new(addr, seat.host_port);
        from_outside(ground, "to a host port", to, &seat.ear, PORTS)
    })
    .collect()
}

/// At the address of each interface of each node: the ports that the node's packet filter leads to pods, also of others.
fn to_node_ports(ground: &Ground) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for seat in &ground.seats {
        for node in 0..ground.cloud.lab.nodes().len() {
            for addr in addresses(ground, node) {
                let at = |callers| SocketAddr::new(addr, seat.node_port(callers));
                let (shown, hidden) = (at(Callers::Shown), at(Callers::Hidden));
                if seat.node == node {
                    rows.extend(from_outside(ground, "to a node port", shown, &seat.ear, PORTS));
                }
                let what = if seat.node == node {
                    "to a hiding node port"
                } else {
                    "to a node port for another's pod"
                };
                let asks = from_outside(ground, what, hidden, &seat.ear, PORTS);
                rows.extend(asks.map(|row| Row { known: None, ..row }));
            }
        }
    }
    rows
}

/// From the world at an elastic address: of a pod, the pod; of an interface, the node, host ports and node ports.
fn to_elastic(ground: &Ground) -> Vec<Row<'_>> {
    let at_private: Vec<_> =
        [to_pods, to_nodes, to_host_ports, to_node_ports].iter().flat_map(|rows| rows(ground)).collect();
    let from_world =
        at_private.into_iter().filter(|row| row.own.is_some_and(|own| !Ground::is_of_the_vpc(own)));
    from_world
        .filter_map(|row| {
            let public = ground.elastic.get(&row.to.ip())?;
            Some(Row { what: "to an elastic address", to: SocketAddr::new(*public, row.to.port()), ..row })
        })
        .collect()
}

/// All addresses of a node.
fn addresses(ground: &Ground, node: usize) -> Vec<IpAddr> {
    ground.ports.iter().filter(|port| port.node == node).flat_map(|port| port.own.clone()).collect()
}
