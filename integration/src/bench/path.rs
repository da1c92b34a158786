// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rhumb_model::Family;
use serde_json::json;

use super::cost::{Clock, Nothing, Runs, pin};
use super::report::{Aim, Measure, Report};
use super::traffic::{Cpus, Traffic};
use super::trial::Trials;
use super::twin::Twin;
use crate::lab::{Lab, Namespace, Pod, Spec, ping};

const RUNS: usize = 5;
/// Of the programs that a node may run for a packet, those on the side of the receiver.
const FAR: [&str; 2] = ["from_wire", "from_tunnel"];
const PATIENCE: Duration = Duration::from_secs(5);
const NOTE: &str = "Beside peers, run by run in turn; medians. 1 CPU: client and server share one, which shows the path's own \
                    cost; 2 CPUs: each has its own.\n\
                    programs: mean of the kernel's clock under load, less that of a program that does nothing in the same run, at the \
                    same hook of the plain pods, which is told too (50 to 60 ns when the aims were set). Nanoseconds of two \
                    machines, or of one in two hours, are not to be compared.\n\
                    test run: one program on a packet in memory, less a program that does nothing. Established: \
                    250 runs at a time; new flows and translated packets: one, with caches as a system call leaves them.";

/// Which way packets take, beside whom.
struct Way<'a> {
    name: &'static str,
    /// The pod at the far end; the near end is pod 0.
    to: usize,
    peer: &'static str,
    twin: &'a Twin,
    /// What rates of exchanges are to be, beside the peer's.
    exchanges: Aim,
    /// What rates of connections are to be.
    connections: Aim,
}

/// What of the bench is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Rates of traffic beside peers.
    Rates,
    /// What programs take under load, on direct ways.
    Programs,
    /// What programs take for packets in memory.
    Trials,
}

/// Packets between pods beside the same over plain veth pairs and kernel routing, and through VXLAN beside the kernel's;
/// all of it, or one part.
///
/// # Errors
/// When the lab does not start, or a connection breaks.
pub fn path(only: Option<Part>) -> Result<Report> {
    let mut report = Report::new("path", NOTE);
    let at_least = Aim::RatioAtLeast;
    let wanted = |part| only.is_none_or(|only| only == part);
    in_lab("bpath", "direct", |lab, ours| {
        let twin = Twin::plain(lab)?;
        let way = |name, to, exchanges, connections| Way {
            name,
            to,
            peer: "plain",
            twin: &twin,
            exchanges,
            connections,
        };
        let same = way("same node", 1, at_least(1.0), at_least(1.0));
        let across = way("across nodes", 2, at_least(0.95), at_least(0.9));
        for way in [&same, &across] {
            widen_ports(way, ours)?;
            if wanted(Part::Rates) {
                compare_all(&mut report, way, ours)?;
            }
        }
        if wanted(Part::Programs) {
            let nothing = Nothing::attach(&twin.nodes[0], "p0", lab.node(0).bpffs())?;
            let price = Price { nothing: &nothing, twin: &twin, lab, ours };
            let most = |established, new| Some(Most { established, new });
            price.add(&mut report, ("same node", 1), &["from_pod"], most(270.0, 500.0))?;
            // What one packet meets on its way: two programs where it starts, one where it arrives.
            let way = ["from_pod", "to_wire", "from_wire"];
            price.add(&mut report, ("across nodes", 2), &way, most(500.0, 1500.0))?;
        }
        if wanted(Part::Trials) {
            Trials { node: lab.node(0), pods: ours }.direct(&mut report)?;
        }
        Ok(())
    })?;
    if only == Some(Part::Programs) {
        return Ok(report);
    }
    in_lab("btun", "tunnel", |lab, ours| {
        for (peer, rules, aim) in [("kernel VXLAN", false, 1.0), ("Flannel", true, 1.25)] {
            let twin = Twin::overlay(lab, rules)?;
            let (name, exchanges, connections) = ("VXLAN", at_least(aim), at_least(aim));
            let way = Way { name, to: 2, peer, twin: &twin, exchanges, connections };
            widen_ports(&way, ours)?;
            if wanted(Part::Rates) {
                compare_all(&mut report, &way, ours)?;
            }
            if !rules && only.is_none() {
                let nothing = Nothing::attach(&twin.nodes[0], "p0", lab.node(0).bpffs())?;
                let price = Price { nothing: &nothing, twin: &twin, lab, ours };
                let way = ["from_pod", "to_wire", "from_wire", "from_tunnel"];
                price.add(&mut report, ("VXLAN", 2), &way, None)?;
            }
        }
        let peer = lab.node(1).namespace().ip_show("-4 -o address show scope global dev eth0")?;
        let peer: Ipv4Addr = peer
            .split_whitespace()
            .find_map(|word| word.split('/').next()?.parse().ok())
            .context("the other node has an IPv4 address")?;
        if wanted(Part::Trials) {
            Trials { node: lab.node(0), pods: ours }.tunnel(&mut report, peer.octets())?;
        }
        if wanted(Part::Rates) {
            let tunnelled = lab.node(1).packets()?.iter().any(|(direction, ..)| direction == "from_tunnel");
            ensure!(tunnelled, "the nodes used another way than the tunnel");
        }
        Ok(())
    })?;
    Ok(report)
}

/// Runs `work` with two pods on the first node of a cluster and one on the second; `routing` is the mode of the pool.
fn in_lab(name: &'static str, routing: &str, work: impl FnOnce(&Lab, &[Pod]) -> Result<()>) -> Result<()> {
    let mut lab = Lab::build(Spec::named(name))?;
    let mut pool = lab.store().get("PodPool", "", "default")?.context("the lab has a pool")?;
    pool["spec"]["routing"] = json!({"mode": routing});
    lab.store().apply(&pool)?;
    lab.start()?;
    let ours: Vec<Pod> = [(0, "a"), (0, "b"), (1, "c")]
        .into_iter()
        .map(|(node, name)| lab.node(node).add_pod("default", name))
        .collect::<Result<_>>()?;
    work(&lab, &ours)?;
    for (pod, node) in ours.into_iter().zip([0, 0, 1]) {
        lab.node(node).del_pod(pod)?;
    }
    lab.close()
}

/// Lets short connections not use up the ports of a second.
fn widen_ports(way: &Way<'_>, ours: &[Pod]) -> Result<()> {
    for namespace in ours.iter().map(|pod| &pod.namespace).chain(&way.twin.pods) {
        namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    }
    Ok(())
}

/// Adds all kinds of traffic.
fn compare_all(report: &mut Report, way: &Way<'_>, ours: &[Pod]) -> Result<()> {
    for traffic in Traffic::ALL {
        for family in Family::BOTH {
            report.add(compare(way, traffic, family, Cpus::One, ours)?);
        }
    }
    for traffic in [Traffic::RequestResponse, Traffic::ConnectRequestClose] {
        report.add(compare(way, traffic, Family::V4, Cpus::Two, ours)?);
    }
    Ok(())
}

fn compare(way: &Way<'_>, traffic: Traffic, family: Family, cpus: Cpus, ours: &[Pod]) -> Result<Measure> {
    let far = &ours[way.to];
    let [v4, v6] = Twin::addresses(way.to);
    let (address, peer): (IpAddr, IpAddr) = match family {
        Family::V4 => (far.v4(), v4.parse()?),
        Family::V6 => (far.v6(), v6.parse()?),
    };
    let (mut rates, mut peer_rates) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let rate = once(traffic, cpus, &ours[0].namespace, &far.namespace, address)?;
        let peer_rate = once(traffic, cpus, &way.twin.pods[0], &way.twin.pods[way.to], peer)?;
        // The first run only warms up neighbours and caches.
        if run > 0 {
            rates.push(rate);
            peer_rates.push(peer_rate);
        }
    }
    let (cpus, aim) = match (cpus, traffic) {
        (Cpus::Two, _) => (", 2 CPUs", Aim::None),
        (Cpus::One, Traffic::Throughput) => ("", Aim::None),
        (Cpus::One, Traffic::RequestResponse | Traffic::Datagrams) => ("", way.exchanges),
        (Cpus::One, Traffic::ConnectRequestClose) => ("", way.connections),
    };
    let name = format!("{}, {}, {family}{cpus}", traffic.name(), way.name);
    Ok(Measure::beside(name, traffic.unit(), &rates, (way.peer, &peer_rates), aim))
}

fn once(traffic: Traffic, cpus: Cpus, from: &Namespace, to: &Namespace, address: IpAddr) -> Result<f64> {
    ping(from, address, PATIENCE)?;
    traffic.measure(from, to, address, cpus)
}

/// What the programs take, less what looking at a program takes.
struct Price<'a> {
    nothing: &'a Nothing,
    twin: &'a Twin,
    lab: &'a Lab,
    ours: &'a [Pod],
}

/// What all programs on a way are to take at most for a packet, in nanoseconds.
#[derive(Clone, Copy)]
struct Most {
    established: f64,
    new: f64,
}

impl Price<'_> {
    /// Adds the time of all `programs` for one packet to the pod `to`, and of each if there are more: of a connection that
    /// stands, and of short ones.
    fn add(
        &self,
        report: &mut Report,
        (name, to): (&str, usize),
        programs: &[&str],
        most: Option<Most>,
    ) -> Result<()> {
        for (traffic, what) in
            [(Traffic::RequestResponse, "established"), (Traffic::ConnectRequestClose, "short connections")]
        {
            for family in Family::BOTH {
                let (mut samples, mut nothings) = (Vec::new(), Vec::new());
                for _ in 0..RUNS {
                    let (nothing, each) = self.once(traffic, family, to, programs)?;
                    nothings.push(nothing);
                    samples.push(each);
                }
                let sums: Vec<f64> = samples.iter().map(|each| each.iter().sum()).collect();
                let whole = format!("programs, {name}, {what}, {family}");
                let aim = most.map_or(Aim::None, |most| {
                    Aim::AtMost(if traffic == Traffic::RequestResponse { most.established } else { most.new })
                });
                report.add(Measure::alone(&whole, "ns", &sums, aim));
                let idle = format!("a program that does nothing, beside {name}, {what}, {family}");
                report.add(Measure::alone(&idle, "ns", &nothings, Aim::None));
                for (index, program) in programs.iter().enumerate().filter(|_| programs.len() > 1) {
                    let each: Vec<f64> = samples.iter().map(|sample| sample[index]).collect();
                    let name = format!("of them {program}, {name}, {what}, {family}");
                    report.add(Measure::alone(&name, "ns", &each, Aim::None));
                }
            }
        }
        Ok(())
    }

    /// What the program that does nothing takes, and what each of `programs` takes more, at the mean.
    fn once(
        &self,
        traffic: Traffic,
        family: Family,
        to: usize,
        programs: &[&str],
    ) -> Result<(f64, Vec<f64>)> {
        let _clock = Clock::start()?;
        let far = &self.ours[to];
        let [v4, v6] = Twin::addresses(to);
        let (address, peer): (IpAddr, IpAddr) = match family {
            Family::V4 => (far.v4(), v4.parse()?),
            Family::V6 => (far.v6(), v6.parse()?),
        };
        let before = Runs::of(self.nothing.pin())?;
        once(traffic, Cpus::One, &self.twin.pods[0], &self.twin.pods[to], peer)?;
        let nothing = Runs::of(self.nothing.pin())?.mean_since(before).context("packets passed nothing")?;
        let pins = programs
            .iter()
            .map(|program| pin(self.lab.node(usize::from(FAR.contains(program))).bpffs(), program))
            .collect::<Result<Vec<_>>>()?;
        let before = pins.iter().map(|pin| Runs::of(pin)).collect::<Result<Vec<_>>>()?;
        once(traffic, Cpus::One, &self.ours[0].namespace, &far.namespace, address)?;
        let each = pins.iter().zip(before).map(|(pin, before)| {
            let mean = Runs::of(pin)?.mean_since(before);
            Ok(mean.with_context(|| format!("no packet met {}", pin.display()))? - nothing)
        });
        Ok((nothing, each.collect::<Result<_>>()?))
    }
}
