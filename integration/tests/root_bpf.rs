// SPDX-License-Identifier: Apache-2.0
//! `rhumb bpf`: what the datapath knows, from a user's seat.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use rhumb_integration::lab::{Lab, Pod, Spec};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `count` packets and gets each back.
fn echo(from: &Pod, to: &Pod, addr: IpAddr, count: usize) {
    let server = to.namespace.run(|| Ok(UdpSocket::bind((addr, 5353))?)).expect("bound");
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let own = if addr.is_ipv4() { from.v4() } else { from.v6() };
    let client = from.namespace.run(|| Ok(UdpSocket::bind((own, 4242))?)).expect("bound");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut packet = [0; 5];
    for _ in 0..count {
        client.send_to(b"hello", (addr, 5353)).expect("sent");
        let (_, asker) = server.recv_from(&mut packet).expect("arrived");
        server.send_to(&packet, asker).expect("sent");
        client.recv_from(&mut packet).expect("came back");
    }
}

#[test]
fn a_flow_is_shown_with_its_sides_and_counts() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("flows") }).expect("the lab is built");
    lab.start().expect("started");
    let node = lab.node(0);
    let [a, b] = ["a", "b"].map(|name| node.add_pod("default", name).expect("added"));
    for (own, addr) in [(a.v4(), b.v4()), (a.v6(), b.v6())] {
        echo(&a, &b, addr, 3);
        let shown = node.show(&format!("bpf ct --address {own}")).expect("shown");
        let flows = shown["flows"].as_array().expect("a list");
        let flow = flows.iter().find(|flow| flow["replier"] == json!({"address": addr, "port": 5353}));
        let flow = flow.unwrap_or_else(|| panic!("no such flow in {shown}"));
        assert_eq!(flow["opener"], json!({"address": own, "port": 4242}));
        assert_eq!((&flow["protocol"], &flow["state"]), (&json!("udp"), &json!("stream")), "{flow}");
        assert_eq!(flow["packets"], json!([3, 3]), "{flow}");
        assert!(flow["expires_in_seconds"].as_u64() > Some(60), "{flow}");
        let none = node.show("bpf ct --most 0").expect("shown");
        assert_eq!(none["flows"], json!([]));
        assert!(none["more"].as_u64() > Some(0), "{none}");
    }
    lab.close().expect("closed");
}

#[test]
fn another_nodes_pods_are_in_the_ipcache() {
    let mut lab = Lab::build(Spec::named("cache")).expect("the lab is built");
    lab.start().expect("started");
    let deadline = Instant::now() + PATIENCE;
    for prefix in lab.node(1).pod_cidrs(lab.store()).expect("read") {
        loop {
            let shown = lab.node(0).show("bpf ipcache").expect("shown");
            let entries = shown.as_array().expect("a list");
            if let Some(entry) = entries.iter().find(|entry| entry["prefix"] == json!(prefix)) {
                let flags: Vec<&Value> = entry["flags"].as_array().expect("a list").iter().collect();
                assert_eq!(flags, [&json!("keep-source")], "{entry}");
                break;
            }
            assert!(Instant::now() < deadline, "{prefix} is not in {shown}");
        }
    }
    lab.close().expect("closed");
}
