// SPDX-License-Identifier: Apache-2.0
//! What a flow remembers of its way for a moment never outlives the moment, nor a change that somebody told of, nor serves
//! a packet that it is not for.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::time::{Duration, Instant};

use futures::executor::block_on;
use ground::frame::{Frame, with_options};
use ground::router::{FAR, HOST_A, HOST_B, MAC_A, MAC_B, POD_A, POD_B, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{Code, Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Reason, Remote, RemotePrefix};
use rhumb_model::{MacAddr, Prefix, Target as _};

/// The far side of each family, and the pod that calls it.
const FAMILIES: [(&str, &str); 2] = [(POD_A.0, FAR.0), (POD_A.1, FAR.1)];
/// Another neighbour on the wire.
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// Flags of TCP.
const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
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

/// Gives the far side's prefix another neighbour, or the one of the beginning.
fn lead(node: &Router, far: &str, neighbour: [u8; 6]) {
    let (gateways, prefix) = if far.contains(':') {
        (["2001:db8::fe", "2001:db8::77"], "2001:db8:9::/64")
    } else {
        (["192.0.2.254", "192.0.2.77"], "198.51.100.0/24")
    };
    let gateway = gateways[usize::from(neighbour == OTHER)];
    node.namespace.ip_all(&format!(
        "neighbour replace {gateway} lladdr {} dev wire nud permanent\nroute replace {prefix} via {gateway}\n",
        MacAddr::new(neighbour).expect("unicast")
    ));
}

#[test]
fn a_new_route_is_taken_at_once_when_somebody_says_so() {
    let node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::tcp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A);
        let by = |neighbour| frame.clone().macs(neighbour, WIRE).hops(63).bytes();
        // Without a word the old neighbour is taken for what is left of the moment: else there is nothing to end.
        until("nothing is kept", || {
            lead(&node, far, ROUTER);
            until("the old route is not taken", || sent(&node, &frame).1 == by(ROUTER));
            lead(&node, far, OTHER);
            sent(&node, &frame).1 == by(ROUTER)
        });
        for _ in 0..20 {
            for neighbour in [ROUTER, OTHER] {
                lead(&node, far, neighbour);
                node.ground.datapath().epoch().advance().expect("told");
                assert_eq!(sent(&node, &frame), (Reason::ForwardedRemote, by(neighbour)));
            }
        }
    }
}

#[test]
fn an_address_that_becomes_a_pods_is_delivered_to_at_once_and_so_is_one_that_moves() {
    let mut node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::udp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A);
        let key = EndpointAddr(far.parse().expect("an address"));
        for _ in 0..20 {
            assert_eq!(sent(&node, &frame).0, Reason::ForwardedRemote);
            let mut endpoint = node.endpoint_b();
            block_on(node.targets.endpoints.put(&key, &endpoint)).expect("put");
            let (reason, out) = sent(&node, &frame);
            assert_eq!((reason, &out[..6]), (Reason::ForwardedLocal, &MAC_B[..]));
            assert_eq!(sent(&node, &frame).1, out);
            endpoint.mac = MacAddr::new(OTHER).expect("unicast");
            endpoint.shaped = true;
            block_on(node.targets.endpoints.put(&key, &endpoint)).expect("put");
            for _ in 0..2 {
                let (reason, out) = sent(&node, &frame);
                assert_eq!((reason, &out[..6]), (Reason::ForwardedShaped, &OTHER[..]));
            }
            block_on(node.targets.endpoints.remove(&key)).expect("removed");
        }
    }
}

#[test]
fn a_flow_is_good_for_the_interface_that_its_pod_is_behind() {
    let node = Router::new();
    for (pod, to) in [(POD_A.0, POD_B.0), (POD_A.1, POD_B.1)] {
        let frame = Frame::tcp(pod, to, (40_000, 80)).macs(HOST_A, MAC_A);
        for _ in 0..20 {
            for _ in 0..2 {
                assert_eq!(sent(&node, &frame).0, Reason::ForwardedLocal);
            }
            // The other pod says the same.
            let (reason, ..) = node.run(Hook::FromPod, node.pod_b, &frame.bytes());
            assert_eq!(reason, Reason::SourceAddress);
        }
    }
}

#[test]
fn an_address_that_another_pod_gets_is_that_ones_alone_from_then_on() {
    let mut node = Router::new();
    let owning = node.link_a();
    let bare = PodLink { v4: None, v6: None, ..owning };
    let (mut owner, mut other) = (node.pod_a, node.pod_b);
    for _ in 0..20 {
        block_on(node.targets.pod_links.put(&IfIndex(other), &bare)).expect("put");
        block_on(node.targets.pod_links.put(&IfIndex(owner), &owning)).expect("put");
        for (pod, far) in FAMILIES {
            let bytes = Frame::tcp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes();
            for _ in 0..2 {
                assert_eq!(node.run(Hook::FromPod, other, &bytes).0, Reason::SourceAddress);
                assert_eq!(node.run(Hook::FromPod, owner, &bytes).0, Reason::ForwardedRemote);
            }
        }
        std::mem::swap(&mut owner, &mut other);
    }
}

#[test]
fn what_a_pod_may_no_longer_do_ends_with_the_next_packet() {
    let mut node = Router::new();
    let (key, link) = (IfIndex(node.pod_a), node.link_a());
    let chained = PodLink { chained: true, ..link };
    let denied = Remote { denied: true, ..Remote::default() };
    for (pod, near, far) in [(POD_A.0, POD_B.0, FAR.0), (POD_A.1, POD_B.1, FAR.1)] {
        let [near, to_far] = [near, far].map(|to| Frame::tcp(pod, to, (40_000, 80)).macs(HOST_A, MAC_A));
        let service = RemotePrefix(Prefix::host(address(far)));
        let both = |node: &Router| [sent(node, &near).0, sent(node, &to_far).0];
        for _ in 0..20 {
            block_on(node.targets.pod_links.put(&key, &link)).expect("put");
            for _ in 0..2 {
                assert_eq!(both(&node), [Reason::ForwardedLocal, Reason::ForwardedRemote]);
            }
            block_on(node.targets.ipcache.put(&service, &denied)).expect("put");
            for _ in 0..2 {
                assert_eq!(both(&node), [Reason::ForwardedLocal, Reason::MetadataService]);
            }
            block_on(node.targets.ipcache.remove(&service)).expect("removed");
            assert_eq!(both(&node), [Reason::ForwardedLocal, Reason::ForwardedRemote]);
            block_on(node.targets.pod_links.put(&key, &chained)).expect("put");
            assert_eq!(both(&node), [Reason::Chained; 2]);
            block_on(node.targets.pod_links.remove(&key)).expect("removed");
            assert_eq!(both(&node), [Reason::UnknownLink; 2]);
        }
    }
}

#[test]
fn beside_a_flow_between_pods_packets_at_their_end_or_with_options_go_no_short_way() {
    let node = Router::new();
    for (hook, ifindex, from, macs) in [
        (Hook::FromPod, node.pod_a, POD_A, (HOST_A, MAC_A)),
        (Hook::FromWire, node.wire, FAR, (WIRE, ROUTER)),
    ] {
        for (src, dst) in [(from.0, POD_B.0), (from.1, POD_B.1)] {
            let frame = Frame::udp(src, dst, (40_000, 53)).macs(macs.0, macs.1);
            let plain = frame.bytes();
            let mut unlike = vec![(frame.clone().hops(1).bytes(), Reason::TimeExceeded)];
            if !src.contains(':') {
                unlike.push((with_options(&plain), Reason::IpOptions));
            }
            for _ in 0..20 {
                for (bytes, ends) in &unlike {
                    for _ in 0..2 {
                        assert_eq!(node.run(hook, ifindex, &plain).0, Reason::ForwardedLocal);
                    }
                    assert_eq!(node.run(hook, ifindex, bytes), (*ends, Code::Next, bytes.clone()));
                }
            }
        }
    }
}

#[test]
fn packets_from_the_wire_follow_a_pod_that_goes() {
    let mut node = Router::new();
    for (pod, far) in FAMILIES {
        let frame = Frame::tcp(far, pod, (80, 40_000)).macs(WIRE, ROUTER);
        let key = EndpointAddr(pod.parse().expect("an address"));
        let received = |node: &Router| node.run(Hook::FromWire, node.wire, &frame.bytes()).0;
        let endpoint = Endpoint { ifindex: node.pod_a, ..node.endpoint_b() };
        for _ in 0..20 {
            block_on(node.targets.endpoints.put(&key, &endpoint)).expect("put");
            for _ in 0..3 {
                assert_eq!(received(&node), Reason::ForwardedLocal);
            }
            block_on(node.targets.endpoints.remove(&key)).expect("removed");
            assert_eq!(received(&node), Reason::ToStack);
        }
    }
}

#[test]
fn a_flow_ends_and_begins_and_is_counted_as_on_the_long_way() {
    let node = Router::new();
    let flows = |node: &Router| {
        let (flows, more) = node.ground.datapath().flow_table().flows(10, |_| true).expect("read");
        assert_eq!(more, 0);
        flows.into_iter().map(|flow| (flow.state, flow.packets)).collect::<Vec<_>>()
    };
    let say = |from_a: bool, flags: u8| {
        let (frame, pod) = if from_a {
            (Frame::tcp(POD_A.0, POD_B.0, (40_000, 80)).macs(HOST_A, MAC_A), node.pod_a)
        } else {
            (Frame::tcp(POD_B.0, POD_A.0, (80, 40_000)).macs(HOST_B, MAC_B), node.pod_b)
        };
        let mut bytes = frame.bytes();
        bytes[47] = flags;
        assert_eq!(node.run(Hook::FromPod, pod, &bytes).0, Reason::ForwardedLocal);
    };
    // More than a moment has room for, so that each packet goes both ways.
    for _ in 0..30 {
        for (from_a, flags, state, packets) in [
            (true, SYN, "opening", [1, 0]),
            (false, SYN | ACK, "answered", [1, 1]),
            (true, ACK, "established", [2, 1]),
            (true, ACK, "established", [3, 1]),
            (false, ACK, "established", [3, 2]),
            (true, FIN | ACK, "half-closed", [4, 2]),
            (false, ACK, "half-closed", [4, 3]),
            (false, FIN | ACK, "closed", [4, 4]),
            (true, ACK, "closed", [5, 4]),
        ] {
            say(from_a, flags);
            assert_eq!(flows(&node), [(state, packets)]);
        }
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
