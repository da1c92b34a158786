// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use rhumb_model::Family;

use super::report::{Aim, Measure, Report};
use super::traffic::Traffic;
use super::twin::Twin;
use crate::lab::{Lab, Namespace, Pod, Spec, ping};

const RUNS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(5);
const NOTE: &str = "Beside plain veth pairs routed by the kernel, run by run in turn; client and server share one CPU; medians.";

/// Which way packets take.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    /// The pod at the far end; the near end is pod 0.
    to: usize,
    /// What request rates are to be, beside the peer's.
    aim: Aim,
}

const WAYS: [Way; 2] = [
    Way { name: "same node", to: 1, aim: Aim::RatioAtLeast(1.0) },
    Way { name: "across nodes", to: 2, aim: Aim::RatioAtLeast(0.95) },
];

/// TCP between pods beside the same over plain veth pairs and kernel routing.
///
/// # Errors
/// When the lab does not start, or a connection breaks.
pub fn path() -> Result<Report> {
    let mut lab = Lab::build(Spec::named("bpath"))?;
    lab.start()?;
    let ours: Vec<Pod> = [(0, "a"), (0, "b"), (1, "c")]
        .into_iter()
        .map(|(node, name)| lab.node(node).add_pod("default", name))
        .collect::<Result<_>>()?;
    let twin = Twin::build(&lab)?;
    for namespace in ours.iter().map(|pod| &pod.namespace).chain(&twin.pods) {
        // Short connections use up the ports of a second otherwise.
        namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
        namespace.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    }
    let mut report = Report::new("path", NOTE);
    for way in WAYS {
        for traffic in Traffic::ALL {
            for family in Family::BOTH {
                report.add(compare(way, traffic, family, &ours, &twin)?);
            }
        }
    }
    for (pod, node) in ours.into_iter().zip([0, 0, 1]) {
        lab.node(node).del_pod(pod)?;
    }
    drop(twin);
    lab.close()?;
    Ok(report)
}

fn compare(way: Way, traffic: Traffic, family: Family, ours: &[Pod], twin: &Twin) -> Result<Measure> {
    let (far, address) = (
        &ours[way.to],
        match family {
            Family::V4 => ours[way.to].v4(),
            Family::V6 => ours[way.to].v6(),
        },
    );
    let [v4, v6] = Twin::addresses(way.to);
    let peer: IpAddr = if family == Family::V4 { v4 } else { v6 }.parse()?;
    let (mut rates, mut peer_rates) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let rate = once(traffic, &ours[0].namespace, &far.namespace, address)?;
        let peer_rate = once(traffic, &twin.pods[0], &twin.pods[way.to], peer)?;
        // The first run only warms up neighbours and caches.
        if run > 0 {
            rates.push(rate);
            peer_rates.push(peer_rate);
        }
    }
    let aim = if traffic == Traffic::Throughput { Aim::None } else { way.aim };
    let name = format!("{}, {}, {family}", traffic.name(), way.name);
    Ok(Measure::beside(name, traffic.unit(), &rates, ("plain", &peer_rates), aim))
}

fn once(traffic: Traffic, from: &Namespace, to: &Namespace, address: IpAddr) -> Result<f64> {
    ping(from, address, PATIENCE)?;
    traffic.measure(from, to, address)
}
