// SPDX-License-Identifier: Apache-2.0
//! What went over the links between the router of a VPC and its nodes, packet by packet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use rhumb_model::{MacAddr, Prefix};
use serde_json::Value;

use super::{Interface, Vpc};
use crate::lab::{Capture, Seen};

/// Sees every packet on the links of a VPC from when it was opened, also those that the router drops.
#[derive(Debug)]
pub struct Wire(Capture);

/// A link between the router and an interface.
#[derive(Debug, Clone)]
struct Link {
    /// Name of the router's end.
    port: String,
    router: [u8; 6],
    node: [u8; 6],
    /// What the interface may have as its source.
    sources: Vec<Prefix>,
}

/// A packet on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Name of the router's end of the link.
    pub port: String,
    /// Whether the node sent it.
    pub from_node: bool,
    /// Whether EC2 would let it pass there.
    pub allowed: bool,
    /// The packet.
    pub seen: Seen,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { from, to, protocol, ports, length, .. } = self.seen;
        let way = if self.from_node { "from the node" } else { "to the node" };
        let word = if self.allowed { "" } else { ", which EC2 would drop" };
        write!(
            f,
            "{} {way}: {from} to {to}, protocol {protocol}, ports {ports:?}, {length} bytes{word}",
            self.port
        )
    }
}

impl Wire {
    /// Begins to look.
    ///
    /// # Errors
    /// For want of root.
    pub fn open(vpc: &Vpc<'_>) -> Result<Self> {
        Ok(Self(Capture::open(vpc.router)?))
    }

    /// The IP packets on the links of these interfaces since the last time, in their order.
    ///
    /// # Errors
    /// When an interface is not attached.
    pub fn take(&self, vpc: &Vpc<'_>, interfaces: &[Interface]) -> Result<Vec<Packet>> {
        let told: Vec<Value> = serde_json::from_str(&vpc.router.ip_show("-j link")?)?;
        let links: Vec<Link> =
            interfaces.iter().map(|interface| link(&told, interface)).collect::<Result<_>>()?;
        Ok(self.0.take().into_iter().filter_map(|seen| packet(&links, seen)).collect())
    }
}

/// The link of an interface, where `told` is what `ip` told of all of the router's.
fn link(told: &[Value], interface: &Interface) -> Result<Link> {
    let port = interface.port();
    let shown =
        told.iter().find(|link| link["ifname"] == *port).with_context(|| format!("no link {port}"))?;
    let router: MacAddr = shown["address"].as_str().context("a link has an address")?.parse()?;
    let node: MacAddr = interface.mac().parse()?;
    let own = [format!("{}/32", interface.primary), format!("{}/128", interface.primary_v6)];
    let sources =
        own.iter().chain(&interface.blocks).map(|prefix| Ok(prefix.parse()?)).collect::<Result<_>>()?;
    Ok(Link { router: router.octets(), node: node.octets(), sources, port })
}

/// The packet with its link: what a node sends to everybody has one address of the two, everything else both.
fn packet(links: &[Link], seen: Seen) -> Option<Packet> {
    let (to_all, all) = (seen.receiver[0] & 1 == 1, links.iter());
    let sent = |link: &&Link| seen.sender == link.node && (to_all || seen.receiver == link.router);
    let got = |link: &&Link| seen.sender == link.router && (to_all || seen.receiver == link.node);
    if let Some(link) = all.clone().find(sent) {
        let allowed = may_send(link, seen.from);
        return Some(Packet { port: link.port.clone(), from_node: true, allowed, seen });
    }
    let link = all.clone().find(got)?;
    Some(Packet { port: link.port.clone(), from_node: false, allowed: true, seen })
}

fn may_send(link: &Link, source: IpAddr) -> bool {
    let of_the_link = match source {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unspecified() || addr.is_unicast_link_local(),
    };
    of_the_link || link.sources.iter().any(|prefix| prefix.contains(source))
}

/// What EC2 would have dropped, each with the other packets between the same addresses.
pub fn dropped(packets: &[Packet]) -> Vec<String> {
    let ends = |packet: &Packet| BTreeSet::from([packet.seen.from, packet.seen.to]);
    let wrong: Vec<_> = packets.iter().filter(|packet| !packet.allowed).map(ends).collect();
    packets.iter().filter(|packet| wrong.contains(&ends(packet))).map(ToString::to_string).collect()
}

/// A flow that somebody outside of the nodes began: who asked whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Address and port of the caller.
    pub caller: (IpAddr, u16),
    /// Address and port that were asked.
    pub called: (IpAddr, u16),
    /// IP protocol number.
    pub protocol: u8,
}

/// On which links the packets of a flow were, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Course {
    /// Requests, by the router's end of the link.
    pub asked: BTreeMap<String, usize>,
    /// Answers.
    pub answered: BTreeMap<String, usize>,
}

/// The courses of all flows that one of `callers` began.
pub fn courses(packets: &[Packet], callers: &[IpAddr]) -> BTreeMap<Flow, Course> {
    let mut found = BTreeMap::<Flow, Course>::new();
    for packet in packets {
        let Seen { from, to, protocol, ports: Some((source, destination)), .. } = packet.seen else {
            continue;
        };
        let (caller, called) = if packet.from_node {
            ((to, destination), (from, source))
        } else {
            ((from, source), (to, destination))
        };
        let flow = Flow { caller, called, protocol };
        if !callers.contains(&caller.0) || (packet.from_node && !found.contains_key(&flow)) {
            continue;
        }
        let course = found.entry(flow).or_default();
        let side = if packet.from_node { &mut course.answered } else { &mut course.asked };
        *side.entry(packet.port.clone()).or_default() += 1;
    }
    found
}

/// Checks that of the flows to `called` each had its requests and its answers on the link `port` alone, and that there
/// was one.
///
/// # Errors
/// Which flow went elsewhere.
pub fn returned_by(courses: &BTreeMap<Flow, Course>, called: (IpAddr, u16), port: &str) -> Result<()> {
    let mut flows = courses.iter().filter(|(flow, _)| flow.called == called).peekable();
    ensure!(flows.peek().is_some(), "nobody was seen asking {called:?}");
    for (flow, course) in flows {
        let only = |side: &BTreeMap<String, usize>| side.keys().eq([port]);
        ensure!(
            only(&course.asked) && only(&course.answered),
            "{flow:?} is to be on {port} alone: {course:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const NODE: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const WORLD: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9)), 1024);

    fn links() -> Vec<Link> {
        let link = |number: u8| {
            let mac = |mut mac: [u8; 6]| {
                mac[4] = number;
                mac
            };
            let sources = vec![format!("10.0.{number}.0/24").parse().expect("valid")];
            Link { port: format!("e{number}"), router: mac(ROUTER), node: mac(NODE), sources }
        };
        (0..2).map(link).collect()
    }

    fn pod(number: u8) -> (IpAddr, u16) {
        ([10, 0, number, 5].into(), 80)
    }

    fn sent(link: usize, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
        let Link { router, node, .. } = links()[link];
        let (sender, receiver) = if from == WORLD { (router, node) } else { (node, router) };
        let ports = Some((from.1, to.1));
        let seen = Seen { sender, receiver, from: from.0, to: to.0, protocol: 6, ports, length: 40 };
        packet(&links(), seen).expect("on a link")
    }

    #[test]
    fn a_source_is_good_on_its_own_link_alone() {
        let (well, ill) = (sent(1, pod(1), WORLD), sent(0, pod(1), WORLD));
        assert_eq!((well.port.as_str(), well.allowed), ("e1", true));
        assert_eq!((ill.port.as_str(), ill.allowed), ("e0", false));
        assert_eq!(dropped(&[sent(1, WORLD, pod(1)), well.clone()]), Vec::<String>::new());
        assert_eq!(dropped(&[sent(1, WORLD, pod(1)), sent(0, pod(0), WORLD), ill]).len(), 2);
    }

    #[test]
    fn an_answer_by_another_link_is_noticed_whatever_else_went_well() {
        let asked = sent(1, WORLD, pod(1));
        let courses_of = |packets: &[Packet]| courses(packets, &[WORLD.0]);
        let well = courses_of(&[asked.clone(), sent(1, pod(1), WORLD)]);
        assert!(returned_by(&well, pod(1), "e1").is_ok());
        assert!(returned_by(&well, pod(1), "e0").is_err());
        assert!(returned_by(&well, pod(0), "e0").is_err(), "nobody asked");
        let ill = courses_of(&[asked.clone(), sent(1, pod(1), WORLD), sent(0, pod(1), WORLD)]);
        assert!(returned_by(&ill, pod(1), "e1").is_err());
        assert!(returned_by(&courses_of(&[asked]), pod(1), "e1").is_err(), "nobody answered");
    }

    #[test]
    fn what_a_node_begins_itself_is_no_answer() {
        assert_eq!(courses(&[sent(1, pod(1), WORLD)], &[WORLD.0]), BTreeMap::new());
    }
}
