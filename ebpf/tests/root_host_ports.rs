// SPDX-License-Identifier: Apache-2.0
//! Host ports that lead back to who asks, and ICMP errors about what came to one or through the host's stack.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use futures::executor::block_on;
use ground::frame::{Frame, checksum, icmp6, ip};
use ground::router::{FAR, HOST_A, HOST_B, MAC_A, MAC_B, NODE, POD_A, POD_B, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{Code, Hook, HostPort, HostPortBackend, Reason, Trial};
use rhumb_model::Target as _;

/// What pods know as their gateway.
const GATEWAY: (&str, &str) = ("169.254.1.1", "fe80::1");

/// The addresses of one family.
#[derive(Clone, Copy)]
struct Family {
    pod_a: &'static str,
    pod_b: &'static str,
    host: &'static str,
    far: &'static str,
    gateway: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { pod_a: POD_A.0, pod_b: POD_B.0, host: NODE.0, far: FAR.0, gateway: GATEWAY.0 },
    Family { pod_a: POD_A.1, pod_b: POD_B.1, host: NODE.1, far: FAR.1, gateway: GATEWAY.1 },
];

type Make = fn(&str, &str, (u16, u16)) -> Frame;
const MAKES: [Make; 2] = [Frame::tcp, Frame::udp];

/// A node whose port 80 leads to port 8080 of `pod`.
fn with_port(pod: (&str, &str)) -> Router {
    let mut node = Router::new();
    for (host, pod) in [(NODE.0, pod.0), (NODE.1, pod.1)] {
        for protocol in [6, 17] {
            let key = HostPort { addr: address(host), port: 80, protocol };
            let value = HostPortBackend { addr: address(pod), port: 8080 };
            block_on(node.targets.host_ports.put(&key, &value)).expect("put");
        }
    }
    node
}

/// "Port unreachable" from `ends.0` about `quoted`, an IP packet.
fn error(macs: ([u8; 6], [u8; 6]), ends: (&str, &str), hops: u8, quoted: &[u8]) -> Vec<u8> {
    if ends.0.contains(':') {
        let message = [&[1, 4, 0, 0, 0, 0, 0, 0], quoted].concat();
        return icmp6(macs.0, macs.1, ends.0, ends.1, hops, &message);
    }
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(macs.0, macs.1, address(ends.0), address(ends.1), hops, 1, &message)
}

/// The IP packet of a frame.
fn quoted(frame: &Frame) -> Vec<u8> {
    frame.bytes()[14..].to_vec()
}

#[test]
fn a_pod_that_asks_its_own_host_port_hears_from_its_gateway_and_gets_its_answer() {
    let node = with_port(POD_A);
    for Family { pod_a, host, gateway, .. } in FAMILIES {
        for new in MAKES {
            for _ in 0..2 {
                let question = new(pod_a, host, (40_000, 80)).macs(HOST_A, MAC_A).bytes();
                let (reason, code, inside) = node.run(Hook::FromPod, node.pod_a, &question);
                assert_eq!((reason, code), (Reason::HostPortIn, Code::Redirect));
                let expected = new(gateway, pod_a, (40_000, 8080)).macs(MAC_A, HOST_A).hops(63);
                assert_eq!(inside, expected.bytes());

                let answer = new(pod_a, gateway, (8080, 40_000)).macs(HOST_A, MAC_A).bytes();
                let (reason, code, back) = node.run(Hook::FromPod, node.pod_a, &answer);
                assert_eq!((reason, code), (Reason::ForwardedLocal, Code::Redirect));
                let expected = new(host, pod_a, (80, 40_000)).macs(MAC_A, HOST_A).hops(63);
                assert_eq!(back, expected.bytes());
            }
            // The pod in its place as server refuses: the pod as client hears of it from the address that it called.
            let refused = quoted(&new(gateway, pod_a, (40_000, 8080)));
            let says = error((HOST_A, MAC_A), (pod_a, gateway), 64, &refused);
            let (reason, _, heard) = node.run(Hook::FromPod, node.pod_a, &says);
            assert_eq!(reason, Reason::ForwardedLocal);
            let asked = quoted(&new(pod_a, host, (40_000, 80)));
            assert_eq!(heard, error((MAC_A, HOST_A), (host, pod_a), 63, &asked));
        }
    }
}

#[test]
fn what_a_pod_sends_to_its_gateway_unasked_is_left_as_it_is() {
    let node = with_port(POD_A);
    let packet = Frame::udp(POD_A.1, GATEWAY.1, (8080, 40_000)).macs(HOST_A, MAC_A).bytes();
    assert_eq!(node.run(Hook::FromPod, node.pod_a, &packet), (Reason::LinkLocal, Code::Next, packet.clone()));
    let packet = Frame::udp(POD_A.0, GATEWAY.0, (8080, 40_000)).macs(HOST_A, MAC_A).bytes();
    let (_, code, out) = node.run(Hook::FromPod, node.pod_a, &packet);
    assert_eq!((code, out), (Code::Next, packet));
}

#[test]
fn errors_between_a_pod_and_the_host_port_of_another_name_what_each_knows() {
    let node = with_port(POD_B);
    for Family { pod_a, pod_b, host, .. } in FAMILIES {
        for new in MAKES {
            let asked = new(pod_a, host, (40_000, 80));
            let came = new(pod_a, pod_b, (40_000, 8080));
            let (reason, _, inside) =
                node.run(Hook::FromPod, node.pod_a, &asked.clone().macs(HOST_A, MAC_A).bytes());
            assert_eq!(reason, Reason::HostPortIn);
            assert_eq!(inside, came.clone().macs(MAC_B, HOST_B).hops(63).bytes());
            let says = error((HOST_B, MAC_B), (pod_b, pod_a), 64, &quoted(&came));
            let (reason, _, heard) = node.run(Hook::FromPod, node.pod_b, &says);
            assert_eq!(reason, Reason::ForwardedLocal);
            assert_eq!(heard, error((MAC_A, HOST_A), (host, pod_a), 63, &quoted(&asked)));

            let answer = quoted(&new(host, pod_a, (80, 40_000)));
            let says = error((HOST_A, MAC_A), (pod_a, host), 64, &answer);
            let (reason, code, heard) = node.run(Hook::FromPod, node.pod_a, &says);
            assert_eq!((reason, code), (Reason::HostPortIn, Code::Redirect));
            let answered = quoted(&new(pod_b, pod_a, (8080, 40_000)));
            assert_eq!(heard, error((MAC_B, HOST_B), (pod_a, pod_b), 63, &answered));
        }
    }
}

#[test]
fn errors_between_the_world_and_a_host_port_name_what_each_knows() {
    let node = with_port(POD_B);
    for Family { pod_b, host, far, .. } in FAMILIES {
        for new in MAKES {
            let asked = new(far, host, (5_000, 80));
            let (reason, _, _) =
                node.run(Hook::FromWire, node.wire, &asked.clone().macs(WIRE, ROUTER).bytes());
            assert_eq!(reason, Reason::HostPortIn);
            let came = quoted(&new(far, pod_b, (5_000, 8080)));
            let says = error((HOST_B, MAC_B), (pod_b, far), 64, &came);
            let (reason, _, out) = node.run(Hook::FromPod, node.pod_b, &says);
            assert_eq!(reason, Reason::ForwardedRemote);
            let expected = error((ROUTER, WIRE), (host, far), 63, &quoted(&asked));
            assert_eq!(out, expected);
            assert_eq!(node.run(Hook::ToWire, node.wire, &out), (Reason::HostSent, Code::Next, expected));

            let answer = quoted(&new(host, far, (80, 5_000)));
            for (from, length) in [(far, usize::MAX), ("192.0.2.77", 28)] {
                if from.contains(':') != far.contains(':') {
                    continue;
                }
                let cut = |quote: &[u8]| quote[..quote.len().min(length)].to_vec();
                let says = error((WIRE, ROUTER), (from, host), 60, &cut(&answer));
                let (reason, code, heard) = node.run(Hook::FromWire, node.wire, &says);
                assert_eq!((reason, code), (Reason::HostPortIn, Code::Redirect));
                let answered = quoted(&new(pod_b, far, (8080, 5_000)));
                assert_eq!(heard, error((MAC_B, HOST_B), (from, pod_b), 59, &cut(&answered)));
            }
            // About a flow that nobody began.
            let unknown = quoted(&new(host, far, (80, 5_001)));
            let says = error((WIRE, ROUTER), (far, host), 60, &unknown);
            assert_eq!(
                node.run(Hook::FromWire, node.wire, &says),
                (Reason::ToStack, Code::Next, says.clone())
            );
        }
    }
}

#[test]
fn an_error_about_what_came_through_the_stack_returns_through_the_stack() {
    let node = Router::new();
    for Family { pod_a, pod_b, far, .. } in FAMILIES {
        for new in MAKES {
            let came = new(far, pod_a, (5_000, 80)).macs(MAC_A, HOST_A).bytes();
            let trial = Trial { ingress_ifindex: node.wire, ..Trial::new(&came, node.pod_a) };
            let before = node.ground.count(Hook::ToPod, Reason::DeliveredTracked);
            node.ran(Hook::ToPod, trial);
            assert_eq!(node.ground.count(Hook::ToPod, Reason::DeliveredTracked), before + 1);
            let says = error((HOST_A, MAC_A), (pod_a, far), 64, &came[14..]);
            let expected = (Reason::StackReturn, Code::Next, says.clone());
            assert_eq!(node.run(Hook::FromPod, node.pod_a, &says), expected);
            // About what came straight, it goes straight.
            let straight = quoted(&new(pod_b, pod_a, (5_000, 80)));
            let says = error((HOST_A, MAC_A), (pod_a, pod_b), 64, &straight);
            assert_eq!(node.run(Hook::FromPod, node.pod_a, &says).0, Reason::ForwardedLocal);
        }
    }
}

#[test]
fn fragments_to_a_host_port_follow_the_first() {
    let node = with_port(POD_A);
    let mut datagram = Frame::udp(POD_A.0, NODE.0, (40_000, 80)).macs(HOST_A, MAC_A);
    datagram.payload = vec![7; 72];
    let whole = datagram.bytes();
    let part = |payload: &[u8], flags: [u8; 2]| {
        let mut frame = ip(HOST_A, MAC_A, address(POD_A.0), address(NODE.0), 64, 17, payload);
        frame[20..22].copy_from_slice(&flags);
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&frame[14..34]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
        frame
    };
    for fragment in [part(&whole[34..74], [0x20, 0]), part(&whole[74..], [0, 5])] {
        let (reason, _, out) = node.run(Hook::FromPod, node.pod_a, &fragment);
        assert_eq!(reason, Reason::HostPortIn);
        assert_eq!((&out[26..30], &out[30..34]), (&[169, 254, 1, 1][..], &[10, 1, 0, 2][..]));
        assert_eq!(checksum(&out[14..34]), 0);
    }
}
