// SPDX-License-Identifier: Apache-2.0
//! What went over the links between the router of a VPC and its nodes: packet by packet, and flow by flow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_model::MacAddr;
use serde_json::Value;

use super::{Port, Vpc};
use crate::lab::{Capture, Seen};

/// When no packet came for so long, none is on its way.
const QUIET: Duration = Duration::from_millis(100);

/// Sees every packet on the links of a VPC from when it was opened, also those that the router drops.
#[derive(Debug)]
pub struct Wire {
    capture: Capture,
    kept: Mutex<Vec<Seen>>,
}

/// A link between the router and an interface.
#[derive(Debug, Clone)]
struct Link {
    port: Port,
    /// Ethernet address of the router's end.
    router: MacAddr,
}

/// A packet on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    leg: Leg,
    /// Whether EC2 would let it pass there.
    allowed: bool,
    seen: Seen,
}

/// A link and a way over it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leg {
    /// Name of the router's end.
    pub port: String,
    /// Whether the node sends.
    pub from_node: bool,
}

impl Leg {
    fn back(&self) -> Self {
        Self { port: self.port.clone(), from_node: !self.from_node }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { from, to, protocol, ports, length, .. } = self.seen;
        let way = if self.leg.from_node { "from the node" } else { "to the node" };
        let word = if self.allowed { "" } else { ", which EC2 would drop" };
        let port = &self.leg.port;
        write!(f, "{port} {way}: {from} to {to}, protocol {protocol}, ports {ports:?}, {length} bytes{word}")
    }
}

impl Wire {
    /// Begins to look.
    ///
    /// # Errors
    /// For want of root.
    pub fn open(vpc: &Vpc<'_>) -> Result<Self> {
        Ok(Self { capture: Capture::open(vpc.router)?, kept: Mutex::default() })
    }

    /// Makes room for more than the kernel keeps.
    pub fn keep(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(self.capture.take());
    }

    /// What was on the links of these interfaces since the last time.
    ///
    /// # Errors
    /// When an interface is not attached.
    pub fn take(&self, vpc: &Vpc<'_>, ports: &[Port]) -> Result<Traffic> {
        let told: Vec<Value> = serde_json::from_str(&vpc.router.ip_show("-j link")?)?;
        let link = |port: &Port| {
            let named = |link: &&Value| link["ifname"] == *port.name;
            let shown = told.iter().find(named).with_context(|| format!("no link {}", port.name))?;
            let router = shown["address"].as_str().context("a link has an address")?.parse()?;
            Ok(Link { port: port.clone(), router })
        };
        let links: Vec<Link> = ports.iter().map(link).collect::<Result<_>>()?;
        let mut seen = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        seen.extend(self.capture.take_all(QUIET));
        let packets = seen.into_iter().filter_map(|seen| packet(&links, seen)).collect();
        Ok(Traffic::new(ports.to_owned(), packets))
    }
}

/// The packet with its link: what a node sends to everybody has one address of the two, everything else both.
fn packet(links: &[Link], seen: Seen) -> Option<Packet> {
    let to_all = seen.receiver[0] & 1 == 1;
    let goes = |sender: MacAddr, receiver: MacAddr| {
        seen.sender == sender.octets() && (to_all || seen.receiver == receiver.octets())
    };
    links.iter().find_map(|Link { port, router }| {
        let from_node = goes(port.mac, *router);
        let allowed = !from_node || port.has(seen.from) || is_of_the_link(seen.from);
        let leg = Leg { port: port.name.clone(), from_node };
        (from_node || goes(*router, port.mac)).then_some(Packet { leg, allowed, seen })
    })
}

/// Whether an address means something on its link alone.
fn is_of_the_link(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unspecified() || addr.is_unicast_link_local(),
    }
}

/// Who asked whom.
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
    /// Requests.
    pub asked: BTreeMap<Leg, usize>,
    /// Answers.
    pub answered: BTreeMap<Leg, usize>,
}

/// What was on links of a VPC within a time.
#[derive(Debug)]
pub struct Traffic {
    ports: Vec<Port>,
    packets: Vec<Packet>,
    courses: BTreeMap<Flow, Course>,
}

impl Traffic {
    fn new(ports: Vec<Port>, packets: Vec<Packet>) -> Self {
        let courses = courses(&packets);
        Self { ports, packets, courses }
    }

    /// What EC2 would have dropped, each with the other packets between the same addresses.
    pub fn dropped(&self) -> Vec<String> {
        let ends = |packet: &Packet| BTreeSet::from([packet.seen.from, packet.seen.to]);
        let wrong: Vec<_> = self.packets.iter().filter(|packet| !packet.allowed).map(ends).collect();
        let of_them = self.packets.iter().filter(|packet| wrong.contains(&ends(packet)));
        of_them.map(ToString::to_string).collect()
    }

    /// Checks that nothing was where EC2 would drop it, and that each flow was on the links of the interfaces that have
    /// its addresses, there and back where it was answered, and on no other; within a node on none.
    ///
    /// # Errors
    /// Which packets, or which flow.
    pub fn is_symmetric(&self) -> Result<()> {
        let dropped = self.dropped();
        ensure!(dropped.is_empty(), "EC2 would drop of this:\n{}", dropped.join("\n"));
        for (flow, course) in &self.courses {
            let asked = self.legs(flow);
            let answered: BTreeSet<Leg> = asked.iter().map(Leg::back).collect();
            let good = if course.answered.is_empty() {
                course.asked.keys().all(|leg| asked.contains(leg))
            } else {
                course.asked.keys().eq(&asked) && course.answered.keys().eq(&answered)
            };
            ensure!(good, "{flow:?} is to be on {asked:?} and back alone: {course:?}");
        }
        Ok(())
    }

    /// Checks that from an address an address and port was asked and answered.
    ///
    /// # Errors
    /// When that was not seen.
    pub fn has(&self, caller: IpAddr, called: (IpAddr, u16), protocol: u8) -> Result<()> {
        let here = |flow: &Flow| (flow.caller.0, flow.called, flow.protocol) == (caller, called, protocol);
        let found = self.courses.iter().any(|(flow, course)| here(flow) && !course.answered.is_empty());
        ensure!(found, "{caller} was not seen asking {called:?} by protocol {protocol} and being answered");
        Ok(())
    }

    /// Where the requests of a flow are to be.
    fn legs(&self, flow: &Flow) -> BTreeSet<Leg> {
        let of = |addr: IpAddr| self.ports.iter().find(|port| port.has(addr));
        let (from, to) = (of(flow.caller.0), of(flow.called.0));
        if from.zip(to).is_some_and(|(from, to)| from.node == to.node) {
            return BTreeSet::new();
        }
        let leg = |port: &Port, from_node: bool| Leg { port: port.name.clone(), from_node };
        let out = from.map(|port| leg(port, true));
        out.into_iter().chain(to.map(|port| leg(port, false))).collect()
    }
}

/// All flows with their courses; who was seen first is the caller.
fn courses(packets: &[Packet]) -> BTreeMap<Flow, Course> {
    let mut found = BTreeMap::<Flow, Course>::new();
    for Packet { leg, seen, .. } in packets {
        let Seen { from, to, protocol, ports: Some((source, destination)), .. } = *seen else { continue };
        if is_of_the_link(from) || is_of_the_link(to) || to.is_multicast() {
            continue;
        }
        let asks = Flow { caller: (from, source), called: (to, destination), protocol };
        let answers = Flow { caller: asks.called, called: asks.caller, protocol };
        let side = match found.get_mut(&answers) {
            Some(course) => &mut course.answered,
            None => &mut found.entry(asks).or_default().asked,
        };
        *side.entry(leg.clone()).or_default() += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9)), 1024);

    /// Two interfaces of one node, and one of another.
    fn links() -> Vec<Link> {
        let link = |number: u8| {
            let mac = |last: u8| format!("02:00:00:00:0{number}:0{last}").parse().expect("valid");
            let port = Port {
                name: format!("e{number}"),
                node: usize::from(number / 2),
                mac: mac(2),
                own: vec![[10, 0, number, 1].into()],
                blocks: vec![format!("10.0.{number}.16/28").parse().expect("valid")],
            };
            Link { port, router: mac(1) }
        };
        (0..3).map(link).collect()
    }

    fn pod(number: u8) -> (IpAddr, u16) {
        ([10, 0, number, 17].into(), 80)
    }

    /// A packet on a link, from the node or to it.
    fn on(link: usize, from_node: bool, from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
        let Link { router, port } = links()[link].clone();
        let (sender, receiver) = if from_node { (port.mac, router) } else { (router, port.mac) };
        let (sender, receiver) = (sender.octets(), receiver.octets());
        let ports = Some((from.1, to.1));
        let seen = Seen { sender, receiver, from: from.0, to: to.0, protocol: 6, ports, length: 40 };
        packet(&links(), seen).expect("on a link")
    }

    fn traffic(packets: &[Packet]) -> Traffic {
        Traffic::new(links().into_iter().map(|link| link.port).collect(), packets.to_owned())
    }

    fn asked() -> Packet {
        on(1, false, WORLD, pod(1))
    }

    #[test]
    fn a_source_is_good_on_its_own_link_alone() {
        let (well, ill) = (on(1, true, pod(1), WORLD), on(0, true, pod(1), WORLD));
        assert_eq!((well.leg.port.as_str(), well.allowed), ("e1", true));
        assert_eq!((ill.leg.port.as_str(), ill.allowed), ("e0", false));
        assert_eq!(traffic(&[asked(), well.clone()]).dropped(), Vec::<String>::new());
        assert_eq!(traffic(&[asked(), on(0, true, pod(0), WORLD), ill]).dropped().len(), 2);
    }

    #[test]
    fn an_answer_by_another_link_is_noticed_whatever_else_went_well() {
        let well = traffic(&[asked(), on(1, true, pod(1), WORLD)]);
        well.is_symmetric().expect("it is");
        assert!(well.has(WORLD.0, pod(1), 6).is_ok());
        assert!(well.has(WORLD.0, pod(0), 6).is_err(), "nobody asked");
        assert!(well.has(WORLD.0, pod(1), 17).is_err(), "not so");
        assert!(traffic(&[asked()]).has(WORLD.0, pod(1), 6).is_err(), "nobody answered");
        let other = Packet { allowed: true, ..on(0, true, pod(1), WORLD) };
        for ill in [
            &[asked(), on(1, true, pod(1), WORLD), other][..],
            &[on(0, false, WORLD, pod(1))][..],
            &[on(0, false, WORLD, pod(1)), on(0, true, pod(1), WORLD)][..],
        ] {
            assert!(traffic(ill).is_symmetric().is_err(), "{ill:?}");
        }
    }

    #[test]
    fn a_flow_between_nodes_is_on_a_link_of_either_and_one_within_a_node_on_none() {
        let (from, to) = (pod(1), pod(2));
        let there = [on(1, true, from, to), on(2, false, from, to)];
        let back = [on(2, true, to, from), on(1, false, to, from)];
        let both = [there.clone(), back.clone()].concat();
        traffic(&both).is_symmetric().expect("it is");
        for missing in 0..both.len() {
            let mut some = both.clone();
            some.remove(missing);
            assert!(traffic(&some).is_symmetric().is_err(), "without {}", both[missing]);
        }
        let within = [on(0, true, pod(0), pod(1)), on(1, false, pod(0), pod(1))];
        assert!(traffic(&within).is_symmetric().is_err());
    }
}
