// SPDX-License-Identifier: Apache-2.0
//! What the verifier walks through, and what a packet costs.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use ground::frame::Frame;
use ground::{Ground, Namespace};
use rhumb_ebpf::{Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Reason, Trial, Wish, boot_clock};
use rhumb_model::{MacAddr, Target as _};

/// Programs may grow or shrink by this share between compilers and kernels before somebody looks.
const TOLERANCE: f64 = 0.15;

/// `UPDATE=1` writes the file anew.
#[test]
fn programs_do_not_grow_unseen() {
    let ground = Ground::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verified.txt");
    let seen = ground.datapath().verified_instructions().expect("programs are loaded");
    if std::env::var_os("UPDATE").is_some() {
        let mut text = String::new();
        for (hook, count) in &seen {
            writeln!(text, "{hook} {count}").expect("a string takes it");
        }
        std::fs::write(&path, text).expect("written");
    }
    let text = std::fs::read_to_string(&path).expect("the committed counts");
    let committed: BTreeMap<&str, u32> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(hook, count)| (hook, count.parse().expect("a number")))
        .collect();
    for (hook, count) in seen {
        let before = committed[hook.as_str()];
        let change = (f64::from(count) - f64::from(before)) / f64::from(before);
        assert!(
            change.abs() <= TOLERANCE,
            "{hook}: {before} instructions committed, {count} now; UPDATE=1 accepts"
        );
    }
}

/// Far above what a packet costs, so that only a blunder is found here; `cargo xtask bench path` measures.
const BLUNDER: Duration = Duration::from_micros(2);

#[test]
fn a_packet_costs_no_more_than_a_few_lookups() {
    let (ground, namespace) = (Ground::new(), Namespace::new());
    let (mac, host_mac) = (MacAddr::from_seed(1), MacAddr::from_seed(2));
    namespace.ip(&format!("link add one address {host_mac} type veth peer name two"));
    let ifindex = namespace.ifindex("one");
    let mut targets = ground.targets();
    let link = PodLink {
        v4: Some([10, 0, 0, 1].into()),
        v6: Some("fd00::1".parse().expect("an address")),
        mac,
        host_mac,
        chained: false,
        host_ports: false,
    };
    block_on(targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
    for addr in ["10.0.0.2", "fd00::2"] {
        let endpoint = Endpoint { ifindex, mac, host_mac, shaped: false };
        block_on(targets.endpoints.put(&EndpointAddr(addr.parse().expect("an address")), &endpoint))
            .expect("put");
    }
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let packet = Frame::tcp(src, dst, (1, 80)).hops(255).macs(host_mac.octets(), mac.octets()).bytes();
        for hook in Hook::ALL {
            let trial = Trial::new(&packet, ifindex);
            let cost =
                namespace.inside(|| ground.datapath().cost(hook, &trial, 400).expect("the kernel runs it"));
            println!("{hook} {src}: {cost:?}");
            assert!(cost < BLUNDER, "{hook} {src}: {cost:?}");
        }
        let mut events = ground.datapath().events().expect("opened");
        let spoofed = Frame::tcp(dst, dst, (1, 80)).hops(255).bytes();
        let watching = boot_clock() + Duration::from_secs(60);
        for (what, frame, wish) in [
            ("dropped", &spoofed, None),
            ("told", &packet, Some(Wish::default())),
            ("watched, not wanted", &packet, Some(Wish { addrs: Vec::new(), reason: Some(Reason::ToStack) })),
        ] {
            events.watch(wish.as_ref(), watching).expect("written");
            let trial = Trial::new(frame, ifindex);
            let cost = namespace
                .inside(|| ground.datapath().cost(Hook::FromPod, &trial, 400).expect("the kernel runs it"));
            println!("{} {src}, {what}: {cost:?}", Hook::FromPod);
            assert!(cost < BLUNDER, "{src}, {what}: {cost:?}");
            while events.next().is_some() {}
        }
        events.watch(None, watching).expect("written");
    }
}
