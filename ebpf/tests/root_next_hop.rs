// SPDX-License-Identifier: Apache-2.0
//! What a flow remembers of its way for a moment never outlives the moment, nor serves a packet that it is not for.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::time::{Duration, Instant};

use futures::executor::block_on;
use ground::frame::Frame;
use ground::router::{FAR, HOST_A, MAC_A, POD_A, ROUTER, Router, WIRE};
use rhumb_ebpf::{Code, EndpointAddr, Hook, Reason};
use rhumb_model::Target as _;

/// The far side of each family, and the pod that calls it.
const FAMILIES: [(&str, &str); 2] = [(POD_A.0, FAR.0), (POD_A.1, FAR.1)];
/// Another neighbour on the wire.
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// Far above a moment of 8.4 ms and the clock's own grain.
const PATIENCE: Duration = Duration::from_secs(2);

fn sent(node: &Router, frame: &Frame) -> (Reason, Vec<u8>) {
    let (reason, _, out) = node.run(Hook::FromPod, node.pod_a, &frame.bytes());
    (reason, out)
}

/// Repeats until `work` says yes, as moments pass of themselves.
fn until(what: &str, mut work: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !work() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
    }
}

#[test]
fn a_new_route_is_taken_a_moment_later() {
    let node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::tcp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A);
        let (old, new) =
            (frame.clone().macs(ROUTER, WIRE).hops(63), frame.clone().macs(OTHER, WIRE).hops(63));
        for _ in 0..3 {
            assert_eq!(sent(&node, &frame), (Reason::ForwardedRemote, old.bytes()));
        }
        let (gateway, prefix) = if far.contains(':') {
            ("2001:db8::77", "2001:db8:9::/64")
        } else {
            ("192.0.2.77", "198.51.100.0/24")
        };
        node.namespace
            .ip(&format!("neighbour add {gateway} lladdr 02:00:00:00:00:77 dev wire nud permanent"));
        node.namespace.ip(&format!("route replace {prefix} via {gateway}"));
        until("the new route is not taken", || sent(&node, &frame) == (Reason::ForwardedRemote, new.bytes()));
        node.namespace.ip(&format!("route replace unreachable {prefix}"));
        until("the route that is gone is taken", || sent(&node, &frame).0 == Reason::NoRoute);
    }
}

#[test]
fn an_address_that_becomes_a_pods_is_delivered_to_a_moment_later() {
    let mut node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::udp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A);
        assert_eq!(sent(&node, &frame).0, Reason::ForwardedRemote);
        let key = EndpointAddr(far.parse().expect("an address"));
        let endpoint = node.endpoint_b();
        block_on(node.targets.endpoints.put(&key, &endpoint)).expect("put");
        until("the pod is passed by", || sent(&node, &frame).0 == Reason::ForwardedLocal);
        block_on(node.targets.endpoints.remove(&key)).expect("removed");
    }
}

#[test]
fn packets_that_are_unlike_the_first_of_a_moment_get_what_is_theirs() {
    let node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::udp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A);
        let mut large = frame.clone();
        large.payload = vec![7; 1_600];
        let mut classed = frame.bytes();
        // The field that says how urgent it is; IPv4's is in the header's checksum.
        if far.contains(':') {
            classed[15] |= 0x80;
        } else {
            classed[15] = 0xb8;
            classed[25] = classed[25].wrapping_sub(0xb8);
        }
        // As often as it takes to meet every order of packets and moments.
        for _ in 0..50 {
            assert_eq!(sent(&node, &frame).0, Reason::ForwardedRemote);
            assert_eq!(sent(&node, &frame.clone().hops(1)).0, Reason::TimeExceeded);
            assert_eq!(sent(&node, &large).0, Reason::AnsweredTooBig);
            let (reason, code, out) = node.run(Hook::FromPod, node.pod_a, &classed);
            assert_eq!((reason, code), (Reason::ForwardedRemote, Code::Redirect));
            assert_eq!(out[15], classed[15]);
        }
    }
}
