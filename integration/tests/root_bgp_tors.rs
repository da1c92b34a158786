// SPDX-License-Identifier: Apache-2.0
//! A pair of ToRs and three nodes: packets are spread both ways, one ToR dies and traffic goes on within BFD's
//! detection time, and a node is drained without losing a packet.

mod peers;

use std::net::IpAddr;
use std::time::Duration;

use peers::{Fabric, NODES, Net, until};
use rhumb_integration::lab::{PingReport, Pinger};
use serde_json::json;

const INTERVAL: Duration = Duration::from_millis(5);

/// Three packets of BFD at 50 ms, and what routes may take.
const DETECTION: Duration = Duration::from_millis(150);
const ROUTES: Duration = Duration::from_millis(50);

fn ping_all(net: &Net, addresses: &[String]) -> Vec<Pinger> {
    let start = |address: &String| {
        let address: IpAddr = address.parse().expect("valid");
        Pinger::start(net.namespace("client"), address, INTERVAL).expect("answered")
    };
    addresses.iter().map(start).collect()
}

fn reports(pingers: Vec<Pinger>) -> Vec<PingReport> {
    pingers.into_iter().map(|pinger| pinger.stop().expect("ended")).collect()
}

#[test]
fn traffic_goes_on_within_the_detection_time_when_a_tor_dies() {
    let net = Net::fabric();
    let fabric = Fabric::start(&net, |_| Vec::new());
    let pods: Vec<String> =
        NODES.iter().flat_map(|node| [format!("10.100.{node}.2"), format!("fd00:100:{node}::2")]).collect();
    let pingers = ping_all(&net, &pods);

    // It is dead to everybody, and no link goes down.
    net.mute("t1");
    for node in NODES {
        until("all packets take the other ToR", || {
            fabric.ways("spine", "main", &format!("10.100.{node}.0/24")) == 1
                && fabric.ways("spine", "main", &format!("fd00:100:{node}::/64")) == 1
                && fabric.ways(&format!("n{node}"), "7268", "10.200.1.0/24") == 1
                && fabric.ways(&format!("n{node}"), "7268", "fd00:200:1::/64") == 1
        });
    }
    let reports = reports(pingers);
    let mut lost = 0;
    for (pod, report) in pods.iter().zip(&reports) {
        lost += report.lost.len();
        let (Some(first), Some(last)) = (report.lost.first(), report.lost.last()) else { continue };
        let gap = *last - *first + INTERVAL;
        assert!(gap <= DETECTION + ROUTES, "{pod} was away for {gap:?}: {:?}", report.lost);
    }
    assert!(lost > 0, "no packet went by the ToR that died");

    net.unmute("t1");
    until("packets take both again", || {
        NODES.iter().all(|node| fabric.ways("spine", "main", &format!("10.100.{node}.0/24")) == 2)
    });
}

#[test]
fn a_drained_node_loses_no_packet_of_a_service_that_others_serve_too() {
    let net = Net::fabric();
    let services: Vec<String> =
        (1..=4).flat_map(|n| [format!("10.50.0.{n}"), format!("fd00:50::{n}")]).collect();
    let length = |address: &String| if address.contains(':') { 128 } else { 32 };
    for node in NODES {
        for address in &services {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            let prefix = format!("{address}/{}", length(address));
            net.namespace(&format!("p{node}"))
                .ip(&format!("addr add {prefix} dev lo{nodad}"))
                .expect("added");
            let pod = if address.contains(':') {
                format!("fd00:100:{node}::2")
            } else {
                format!("10.100.{node}.2")
            };
            net.namespace(&format!("n{node}")).ip(&format!("route add {prefix} via {pod}")).expect("routed");
        }
    }
    let told = |_| services.iter().map(|address| format!("{address}/{}", length(address))).collect();
    let fabric = Fabric::start(&net, told);
    for tor in ["t1", "t2"] {
        until("a service has three ways", || {
            services.iter().all(|address| fabric.ways(tor, "main", address) == 3)
        });
    }
    let pingers = ping_all(&net, &services);
    let answer = fabric.nodes[0].ask(&json!({ "drain": { "reason": "maintenance" } }));
    assert_eq!(answer, "done");
    for tor in ["t1", "t2"] {
        until("nothing leads to the node", || {
            services.iter().all(|address| fabric.ways(tor, "main", address) == 2)
                && fabric.ways(tor, "main", "10.100.1.0/24") == 0
        });
    }
    for report in reports(pingers) {
        report.all_answered().expect("nothing is lost");
    }
}
