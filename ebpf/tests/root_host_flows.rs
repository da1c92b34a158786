// SPDX-License-Identifier: Apache-2.0
//! The node's own flows beside those of pods that leave with its address: no answer reaches the wrong one.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use futures::executor::block_on;
use ground::Namespace;
use ground::frame::{Frame, SCTP, checksum, icmp6, ip};
use ground::router::{FAR, HOST_A, MAC_A, NODE, POD_A, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{AttachPoint, Attached, Code, Hook, Reason, Trial, has_tcx};
use rhumb_model::{IfName, Target as _};

/// Pod, node and far side of each family.
const FAMILIES: [(&str, &str, &str); 2] = [(POD_A.0, NODE.0, FAR.0), (POD_A.1, NODE.1, FAR.1)];

type Make = fn(&str, &str, (u16, u16)) -> Frame;
const STREAMS: [Make; 2] = [Frame::tcp, Frame::udp];

fn source_port(packet: &[u8]) -> u16 {
    let at = if packet[12] == 8 { 34 } else { 54 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// An echo request or answer with the identifier `id`.
fn echo(to: [u8; 6], from: [u8; 6], ends: (&str, &str), answer: bool, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    if ends.0.contains(':') {
        let message = [if answer { 129 } else { 128 }, 0, 0, 0, high, low, 0, 1, 7, 7, 7];
        return icmp6(to, from, ends.0, ends.1, 64, &message);
    }
    let mut message = vec![if answer { 0 } else { 8 }, 0, 0, 0, high, low, 0, 1, 7, 7, 7];
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(to, from, address(ends.0), address(ends.1), 64, 1, &message)
}

fn echo_id(packet: &[u8]) -> u16 {
    let at = if packet[12] == 8 { 38 } else { 58 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// What a packet of the node looks like on the wire, and why.
fn sent(node: &Router, packet: &[u8]) -> (Reason, Vec<u8>) {
    let (reason, code, out) = node.run(Hook::ToWire, node.wire, packet);
    assert_eq!(code, Code::Next);
    (reason, out)
}

/// What a packet from the wire looks like when it is left to the node's stack, and why.
fn taken(node: &Router, packet: &[u8]) -> (Reason, Vec<u8>) {
    let (reason, code, out) = node.run(Hook::FromWire, node.wire, packet);
    assert_eq!(code, Code::Next);
    (reason, out)
}

#[test]
fn a_flow_of_the_node_whose_port_a_pod_has_leaves_with_another_and_each_gets_its_own_answers() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        for new in STREAMS {
            let of_pod = node.leaves(&new(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            assert_eq!(source_port(&of_pod), 40_000);
            let question = new(host, far, (40_000, 80)).macs(ROUTER, WIRE).bytes();
            let (reason, out) = sent(&node, &question);
            let port = source_port(&out);
            assert_eq!(reason, Reason::HostTranslated);
            assert_ne!(port, 40_000);
            assert_eq!(out, new(host, far, (port, 80)).macs(ROUTER, WIRE).bytes());
            for _ in 0..2 {
                let answer = new(far, host, (80, port)).macs(WIRE, ROUTER).bytes();
                let expected = new(far, host, (80, 40_000)).macs(WIRE, ROUTER).bytes();
                assert_eq!(taken(&node, &answer), (Reason::HostReturn, expected));
                assert_eq!(sent(&node, &question), (Reason::HostTranslated, out.clone()));
            }
            let got = node.returns(&new(far, host, (80, 40_000)).macs(WIRE, ROUTER).bytes());
            assert_eq!(got, new(far, pod, (80, 40_000)).macs(MAC_A, HOST_A).hops(63).bytes());
        }
        let of_pod = node.leaves(&echo(HOST_A, MAC_A, (pod, far), false, 7_000));
        assert_eq!(echo_id(&of_pod), 7_000);
        let (reason, out) = sent(&node, &echo(ROUTER, WIRE, (host, far), false, 7_000));
        let id = echo_id(&out);
        assert_eq!((reason, id == 7_000), (Reason::HostTranslated, false));
        assert_eq!(out, echo(ROUTER, WIRE, (host, far), false, id));
        let expected = echo(WIRE, ROUTER, (far, host), true, 7_000);
        let answer = echo(WIRE, ROUTER, (far, host), true, id);
        assert_eq!(taken(&node, &answer), (Reason::HostReturn, expected));
    }
}

#[test]
fn a_flow_of_the_node_keeps_the_port_that_it_got_when_the_pods_is_gone() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        for new in STREAMS {
            node.leaves(&new(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            let question = new(host, far, (40_000, 80)).macs(ROUTER, WIRE).bytes();
            let (_, out) = sent(&node, &question);
            node.ground.forget("nat");
            assert_eq!(sent(&node, &question), (Reason::HostTranslated, out.clone()));
            let answer = new(far, host, (80, source_port(&out))).macs(WIRE, ROUTER).bytes();
            assert_eq!(taken(&node, &answer).0, Reason::HostReturn);
            // Its entry goes instead: the answer makes it anew.
            node.ground.forget("ct");
            assert_eq!(taken(&node, &answer).0, Reason::HostReturn);
            assert_eq!(sent(&node, &question), (Reason::HostTranslated, out));
            node.ground.forget("ct");
            node.ground.forget("nat");
        }
    }
}

#[test]
fn a_pod_takes_another_port_than_a_flow_of_the_node_that_has_no_socket() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        let question = Frame::udp(host, far, (40_000, 53)).macs(ROUTER, WIRE).bytes();
        assert_eq!(sent(&node, &question), (Reason::HostSent, question.clone()));
        let of_pod = node.leaves(&Frame::udp(pod, far, (40_000, 53)).macs(HOST_A, MAC_A).bytes());
        assert_ne!(source_port(&of_pod), 40_000);
        let answer = Frame::udp(far, host, (53, 40_000)).macs(WIRE, ROUTER).bytes();
        assert_eq!(taken(&node, &answer), (Reason::HostReturn, answer.clone()));
        assert_eq!(sent(&node, &question), (Reason::HostSent, question));

        let question = echo(ROUTER, WIRE, (host, far), false, 9_000);
        assert_eq!(sent(&node, &question), (Reason::HostSent, question));
        let of_pod = node.leaves(&echo(HOST_A, MAC_A, (pod, far), false, 9_000));
        assert_ne!(echo_id(&of_pod), 9_000);
        let answer = echo(WIRE, ROUTER, (far, host), true, 9_000);
        assert_eq!(taken(&node, &answer), (Reason::HostReturn, answer.clone()));
    }
}

#[test]
fn sctp_of_the_node_and_of_a_pod_do_not_share_a_port() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        let sctp =
            |src: &str, dst: &str, port| Frame { protocol: SCTP, ..Frame::tcp(src, dst, (port, 2_905)) };
        // The chunk of one that opens an association.
        let opens = |frame: Frame| {
            let mut bytes = frame.bytes();
            let at = if bytes[12] == 8 { 46 } else { 66 };
            bytes[at] = 1;
            bytes
        };
        node.leaves(&sctp(pod, far, 2_905).macs(HOST_A, MAC_A).bytes());
        let of_host = opens(sctp(host, far, 2_905).macs(ROUTER, WIRE));
        let (reason, code, _) = node.run(Hook::ToWire, node.wire, &of_host);
        assert_eq!((reason, code), (Reason::SctpPort, Code::Drop));

        let of_host = opens(sctp(host, far, 900).macs(ROUTER, WIRE));
        assert_eq!(sent(&node, &of_host), (Reason::HostSent, of_host.clone()));
        let of_pod = sctp(pod, far, 900).macs(ROUTER, WIRE).bytes();
        let (reason, code, _) = node.run(Hook::ToWire, node.wire, &of_pod);
        assert_eq!((reason, code), (Reason::SctpPort, Code::Drop));
    }
}

#[test]
fn a_low_port_of_sctp_is_kept_as_its_checksum_covers_it() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        let sctp = |src: &str| Frame { protocol: SCTP, ..Frame::tcp(src, far, (700, 80)) };
        let out = node.leaves(&sctp(pod).macs(HOST_A, MAC_A).bytes());
        assert_eq!(out, sctp(host).macs(ROUTER, WIRE).hops(63).bytes());
    }
}

#[test]
fn who_asks_the_node_for_an_echo_is_answered_by_the_node() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        node.leaves(&echo(HOST_A, MAC_A, (pod, far), false, 7_000));
        let question = echo(WIRE, ROUTER, (far, host), false, 7_000);
        assert_eq!(taken(&node, &question), (Reason::ToStack, question.clone()));
        let answer = echo(ROUTER, WIRE, (host, far), true, 7_000);
        assert_eq!(sent(&node, &answer), (Reason::HostSent, answer.clone()));
    }
}

#[test]
fn an_answer_of_the_node_and_what_it_sends_where_pods_are_known_stay_as_they_are() {
    let mut node = Router::new();
    for (pod, host, far) in FAMILIES {
        // A server of the node; the handshake was seen before a pod took the port.
        let mut answer = Frame::tcp(host, far, (30_080, 5_000)).macs(ROUTER, WIRE).bytes();
        let at = if answer[12] == 8 { 47 } else { 67 };
        answer[at] = 0x12;
        assert_eq!(sent(&node, &answer), (Reason::HostSent, answer.clone()));
        node.leaves(&Frame::udp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
    }
    node.keep("198.51.100.0/24");
    node.keep("2001:db8:9::/64");
    for (_, host, far) in FAMILIES {
        let question = Frame::udp(host, far, (40_000, 80)).macs(ROUTER, WIRE).bytes();
        assert_eq!(sent(&node, &question), (Reason::HostSent, question.clone()));
    }
}

/// An ICMP error from `ends.0` about `quoted`, an IP packet.
fn error(macs: ([u8; 6], [u8; 6]), ends: (&str, &str), quoted: &[u8]) -> Vec<u8> {
    if ends.0.contains(':') {
        let message = [&[1, 4, 0, 0, 0, 0, 0, 0], quoted].concat();
        return icmp6(macs.0, macs.1, ends.0, ends.1, 64, &message);
    }
    let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(macs.0, macs.1, address(ends.0), address(ends.1), 64, 1, &message)
}

#[test]
fn errors_about_a_translated_flow_of_the_node_name_the_port_that_their_reader_knows() {
    let node = Router::new();
    for (pod, host, far) in FAMILIES {
        for new in STREAMS {
            node.leaves(&new(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            let (_, out) = sent(&node, &new(host, far, (40_000, 80)).macs(ROUTER, WIRE).bytes());
            let port = source_port(&out);
            let about = |port| new(host, far, (port, 80)).bytes()[14..].to_vec();
            let came = error((WIRE, ROUTER), (far, host), &about(port));
            let expected = error((WIRE, ROUTER), (far, host), &about(40_000));
            assert_eq!(taken(&node, &came), (Reason::HostReturn, expected));

            let about = |port| new(far, host, (80, port)).bytes()[14..].to_vec();
            let says = error((ROUTER, WIRE), (host, far), &about(40_000));
            let expected = error((ROUTER, WIRE), (host, far), &about(port));
            assert_eq!(sent(&node, &says), (Reason::HostTranslated, expected));
        }
        // A flow that kept its port needs no translation.
        let question = Frame::udp(host, far, (41_000, 80)).macs(ROUTER, WIRE).bytes();
        assert_eq!(sent(&node, &question).0, Reason::HostSent);
        let came = error((WIRE, ROUTER), (far, host), &question[14..]);
        assert_eq!(taken(&node, &came), (Reason::ToStack, came.clone()));
    }
}

#[test]
fn a_socket_of_the_node_and_a_pod_share_a_port_towards_one_server_and_each_hears_its_own_answers() {
    let mut node = Router::new();
    let far = Namespace::new();
    // The far side is real here: what comes back comes by the wire.
    node.namespace.ip(&format!("link set wire-p name eth0 netns {}", far.0));
    far.ip_all("link set eth0 up\naddress add 198.51.100.9/24 dev eth0\naddress add 2001:db8:9::9/64 dev eth0 nodad\n");
    far.ip_all("route add default dev eth0\n");
    far.ip_all(&format!("neighbour add {} lladdr 02:00:00:00:0e:01 dev eth0 nud permanent\n", NODE.0));
    far.ip_all(&format!(
        "route add 2001:db8::/64 dev eth0\nneighbour add {} lladdr 02:00:00:00:0e:01 dev eth0 nud permanent\n",
        NODE.1
    ));
    far.ip("link set eth0 address 02:00:00:00:0e:02");
    for hook in [Hook::FromWire, Hook::ToWire] {
        attach(&mut node, hook);
    }
    for (pod, host, to) in FAMILIES {
        let server = far.inside(|| UdpSocket::bind(SocketAddr::new(address(to), 5_353)).expect("bound"));
        let client =
            node.namespace.inside(|| UdpSocket::bind(SocketAddr::new(address(host), 0)).expect("bound"));
        let port = client.local_addr().expect("bound").port();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        }
        client.connect(SocketAddr::new(address(to), 5_353)).expect("connected");
        let translated = || node.ground.count(Hook::ToWire, Reason::HostTranslated);
        let before = translated();
        // Without a pod's flow the socket's packets leave as they are, and nothing is remembered of them.
        client.send(b"alone").expect("sent");
        let mut buffer = [0; 64];
        let (_, from) = server.recv_from(&mut buffer).expect("received");
        assert_eq!(from.port(), port);
        assert_eq!(translated(), before);

        // The kernel's own messages pass the hooks meanwhile, so no counter is looked at here.
        let of_pod = || {
            let packet = Frame::udp(pod, to, (port, 5_353)).macs(ROUTER, WIRE).bytes();
            source_port(&node.ran(Hook::ToWire, Trial::new(&packet, node.wire)).packet)
        };
        // A pod that asks for the same port while the socket is there gets another one.
        assert_ne!(of_pod(), port);
        drop(client);
        // One that has it, because the socket was not there yet, keeps it.
        node.ground.forget("nat");
        assert_eq!(of_pod(), port);
        let client =
            node.namespace.inside(|| UdpSocket::bind(SocketAddr::new(address(host), port)).expect("bound"));
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        client.connect(SocketAddr::new(address(to), 5_353)).expect("connected");
        for round in 0..3u8 {
            client.send(&[round, 1]).expect("sent");
            let (length, from) = server.recv_from(&mut buffer).expect("received");
            assert_eq!(buffer[..length], [round, 1]);
            assert_ne!(from.port(), port);
            server.send_to(&[round, 2], from).expect("sent");
            let length = client.recv(&mut buffer).expect("the socket hears its own answer");
            assert_eq!(buffer[..length], [round, 2]);
            // The pod's answers are still its own.
            let answer = Frame::udp(to, host, (5_353, port)).macs(WIRE, ROUTER).bytes();
            assert_eq!(node.ran(Hook::FromWire, Trial::new(&answer, node.wire)).code, Code::Redirect);
        }
        assert_eq!(translated(), before + 3);
        node.ground.forget("ct");
        node.ground.forget("nat");
    }
}

fn attach(node: &mut Router, hook: Hook) {
    if !has_tcx() {
        let side = if matches!(hook, Hook::ToWire) { "egress" } else { "ingress" };
        let program = node.ground.pin(hook);
        // The qdisc may be there from the hook before.
        let _there = node.namespace.succeeds("tc qdisc add dev wire clsact");
        let filter = format!("filter add dev wire {side} bpf direct-action object-pinned {program}");
        node.namespace.run("tc", &filter.split(' ').collect::<Vec<_>>());
        return;
    }
    let key = AttachPoint { ifname: IfName::new("wire").expect("a name"), hook };
    let value = Attached { ifindex: node.wire };
    let attachments = &mut node.targets.attachments;
    node.namespace.inside(|| block_on(attachments.put(&key, &value)).expect("attached"));
}
