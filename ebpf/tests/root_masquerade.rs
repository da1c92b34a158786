// SPDX-License-Identifier: Apache-2.0
//! Packets that leave the node with its address, and their answers: packet in, packet out, counters.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::ControlFlow;

use futures::executor::block_on;
use ground::frame::{Frame, SCTP, checksum, icmp6, ip, octets};
use ground::router::{FAR, HOST_A, HOST_B, MAC_A, MAC_B, NODE, POD_A, POD_B, ROUTER, Router, WIRE, address};
use rhumb_ebpf::{Code, Course, EndpointAddr, Hook, Reason, Swept, Trial};
use rhumb_model::Target as _;

/// Pod, node and far side of each family.
const FAMILIES: [(&str, &str, &str, &str); 2] =
    [(POD_A.0, POD_B.0, NODE.0, FAR.0), (POD_A.1, POD_B.1, NODE.1, FAR.1)];

/// The source port of a frame of TCP or UDP.
fn source_port(packet: &[u8]) -> u16 {
    let at = if packet[12] == 8 { 34 } else { 54 };
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// An echo request or answer.
fn echo(to: [u8; 6], from: [u8; 6], ends: (&str, &str), hops: u8, answer: bool, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    if ends.0.contains(':') {
        let message = [if answer { 129 } else { 128 }, 0, 0, 0, high, low, 0, 1, 7, 7, 7];
        return icmp6(to, from, ends.0, ends.1, hops, &message);
    }
    let mut message = vec![if answer { 0 } else { 8 }, 0, 0, 0, high, low, 0, 1, 7, 7, 7];
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(to, from, address(ends.0), address(ends.1), hops, 1, &message)
}

#[test]
fn a_packet_leaves_with_the_nodes_address_and_its_answer_returns() {
    let node = Router::new();
    for (pod, _, host, far) in FAMILIES {
        for new in [Frame::tcp, Frame::udp] {
            for _ in 0..2 {
                let sent = node.leaves(&new(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
                assert_eq!(sent, new(host, far, (40_000, 80)).macs(ROUTER, WIRE).hops(63).bytes());
                let answer = new(far, host, (80, 40_000)).macs(WIRE, ROUTER);
                let got = node.returns(&answer.bytes());
                assert_eq!(got, new(far, pod, (80, 40_000)).macs(MAC_A, HOST_A).hops(63).bytes());
            }
        }
    }
}

#[test]
fn an_echo_leaves_and_returns_with_its_identifier() {
    let node = Router::new();
    for (pod, _, host, far) in FAMILIES {
        let sent = node.leaves(&echo(HOST_A, MAC_A, (pod, far), 64, false, 7_777));
        assert_eq!(sent, echo(ROUTER, WIRE, (host, far), 63, false, 7_777));
        let got = node.returns(&echo(WIRE, ROUTER, (far, host), 64, true, 7_777));
        assert_eq!(got, echo(MAC_A, HOST_A, (far, pod), 63, true, 7_777));
    }
}

#[test]
fn two_pods_with_one_port_get_two_and_each_its_own_answer() {
    let node = Router::new();
    for (pod_a, pod_b, host, far) in FAMILIES {
        for new in [Frame::tcp, Frame::udp] {
            let of_a = node.leaves(&new(pod_a, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            assert_eq!(source_port(&of_a), 40_000);
            let of_b =
                node.leaves_from(node.pod_b, &new(pod_b, far, (40_000, 80)).macs(HOST_B, MAC_B).bytes());
            let port = source_port(&of_b);
            assert_ne!(port, 40_000);
            assert_eq!(of_b, new(host, far, (port, 80)).macs(ROUTER, WIRE).hops(63).bytes());
            let got = node.returns(&new(far, host, (80, port)).macs(WIRE, ROUTER).bytes());
            assert_eq!(got, new(far, pod_b, (80, 40_000)).macs(MAC_B, HOST_B).hops(63).bytes());
            let got = node.returns(&new(far, host, (80, 40_000)).macs(WIRE, ROUTER).bytes());
            assert_eq!(got, new(far, pod_a, (80, 40_000)).macs(MAC_A, HOST_A).hops(63).bytes());
        }
        let of_a = node.leaves(&echo(HOST_A, MAC_A, (pod_a, far), 64, false, 5));
        let of_b = node.leaves_from(node.pod_b, &echo(HOST_B, MAC_B, (pod_b, far), 64, false, 5));
        let id = |packet: &[u8]| {
            let at = if packet[12] == 8 { 38 } else { 58 };
            u16::from_be_bytes([packet[at], packet[at + 1]])
        };
        assert_ne!(id(&of_a), id(&of_b));
        let got = node.returns(&echo(WIRE, ROUTER, (far, host), 64, true, id(&of_b)));
        assert_eq!(got, echo(MAC_B, HOST_B, (far, pod_b), 63, true, 5));
    }
}

#[test]
fn udp_without_a_checksum_stays_without_one() {
    let node = Router::new();
    let mut sent = Frame::udp(POD_A.0, FAR.0, (40_000, 80)).macs(HOST_A, MAC_A);
    sent.checksum = false;
    let mut expected = Frame::udp(NODE.0, FAR.0, (40_000, 80)).macs(ROUTER, WIRE).hops(63);
    expected.checksum = false;
    assert_eq!(node.leaves(&sent.bytes()), expected.bytes());
}

#[test]
fn a_low_port_is_not_kept() {
    let node = Router::new();
    let sent = node.leaves(&Frame::udp(POD_A.0, FAR.0, (123, 123)).macs(HOST_A, MAC_A).bytes());
    assert!(source_port(&sent) >= 1_024);
}

#[test]
fn sctp_keeps_its_port_or_is_dropped() {
    let node = Router::new();
    for (pod_a, pod_b, host, far) in FAMILIES {
        let sctp = |src: &str, dst: &str| Frame { protocol: SCTP, ..Frame::tcp(src, dst, (40_000, 80)) };
        let sent = node.leaves(&sctp(pod_a, far).macs(HOST_A, MAC_A).bytes());
        assert_eq!(sent, sctp(host, far).macs(ROUTER, WIRE).hops(63).bytes());
        let second = sctp(pod_b, far).macs(ROUTER, WIRE).bytes();
        let (reason, code, _) = node.run(Hook::ToWire, node.wire, &second);
        assert_eq!((reason, code), (Reason::SctpPort, Code::Drop));
    }
}

#[test]
fn a_protocol_without_ports_does_not_leave() {
    let node = Router::new();
    for (pod, _, _, far) in FAMILIES {
        let gre = ip(ROUTER, WIRE, address(pod), address(far), 64, 47, &[0; 20]);
        let (reason, code, out) = node.run(Hook::ToWire, node.wire, &gre);
        assert_eq!((reason, code, out), (Reason::NotMasqueradable, Code::Drop, gre));
    }
}

#[test]
fn towards_prefixes_that_know_pods_the_source_stays() {
    let mut node = Router::new();
    node.keep("198.51.100.0/25");
    node.keep("2001:db8:9::/64");
    for (pod, _, _, far) in FAMILIES {
        let sent = Frame::tcp(pod, far, (40_000, 80)).macs(ROUTER, WIRE).bytes();
        assert_eq!(node.run(Hook::ToWire, node.wire, &sent), (Reason::SourceKept, Code::Next, sent.clone()));
    }
}

#[test]
fn an_answer_of_a_pod_to_who_called_it_keeps_its_source() {
    let node = Router::new();
    for (pod, _, _, far) in FAMILIES {
        let question = Frame::tcp(far, pod, (5_000, 80)).macs(WIRE, ROUTER).bytes();
        assert_eq!(node.run(Hook::FromWire, node.wire, &question).0, Reason::ForwardedLocal);
        let answer = Frame::tcp(pod, far, (80, 5_000)).macs(HOST_A, MAC_A).bytes();
        let (_, _, out) = node.run(Hook::FromPod, node.pod_a, &answer);
        assert_eq!(node.run(Hook::ToWire, node.wire, &out), (Reason::SourceKept, Code::Next, out.clone()));
    }
}

#[test]
fn what_the_node_sends_itself_is_left_alone() {
    let node = Router::new();
    for (_, _, host, far) in FAMILIES {
        let sent = Frame::tcp(host, far, (40_000, 80)).macs(ROUTER, WIRE).bytes();
        assert_eq!(node.run(Hook::ToWire, node.wire, &sent), (Reason::HostSent, Code::Next, sent.clone()));
    }
    let mut arp = vec![0; 42];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(node.run(Hook::ToWire, node.wire, &arp), (Reason::HostSent, Code::Next, arp.clone()));
}

#[test]
fn without_an_address_of_the_family_packets_leave_as_they_are() {
    let mut node = Router::new();
    node.uplink(Some(NODE.0), None);
    let sent = Frame::udp(POD_A.1, FAR.1, (40_000, 80)).macs(ROUTER, WIRE).bytes();
    assert_eq!(node.run(Hook::ToWire, node.wire, &sent), (Reason::NoAddress, Code::Next, sent.clone()));
    node.leaves(&Frame::udp(POD_A.0, FAR.0, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
}

#[test]
fn another_address_of_the_uplink_is_taken_by_flows_at_once() {
    let mut node = Router::new();
    let packet = Frame::udp(POD_A.0, FAR.0, (40_000, 80)).macs(HOST_A, MAC_A).bytes();
    node.leaves(&packet);
    node.uplink(Some("192.0.2.7"), None);
    let expected = Frame::udp("192.0.2.7", FAR.0, (40_000, 80)).macs(ROUTER, WIRE).hops(63);
    assert_eq!(node.leaves(&packet), expected.bytes());
}

#[test]
fn a_port_that_the_node_uses_is_not_taken() {
    let node = Router::new();
    let (tcp, udp) = node.namespace.inside(|| {
        let any: std::net::SocketAddr = "[::]:40000".parse().expect("an address");
        (std::net::TcpListener::bind(any).expect("bound"), std::net::UdpSocket::bind(any).expect("bound"))
    });
    for (pod, _, host, far) in FAMILIES {
        for new in [Frame::tcp, Frame::udp] {
            let sent = node.leaves(&new(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            let port = source_port(&sent);
            assert_ne!(port, 40_000);
            let got = node.returns(&new(far, host, (80, port)).macs(WIRE, ROUTER).bytes());
            assert_eq!(got, new(far, pod, (80, 40_000)).macs(MAC_A, HOST_A).hops(63).bytes());
            // What the far side sends to the node's own socket still reaches it.
            let own = new(far, host, (80, 40_000)).macs(WIRE, ROUTER).bytes();
            assert_eq!(node.run(Hook::FromWire, node.wire, &own).0, Reason::ToStack);
        }
    }
    drop((tcp, udp));
}

/// An ICMP error from `from` about `quoted`, an IP packet.
fn error(macs: ([u8; 6], [u8; 6]), ends: (&str, &str), hops: u8, quoted: &[u8]) -> Vec<u8> {
    if ends.0.contains(':') {
        let message = [&[3, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
        return icmp6(macs.0, macs.1, ends.0, ends.1, hops, &message);
    }
    let mut message = [&[11, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(macs.0, macs.1, address(ends.0), address(ends.1), hops, 1, &message)
}

const HOP: (&str, &str) = ("203.0.113.1", "2001:db8:f::1");

#[test]
fn an_error_about_a_masqueraded_packet_reaches_its_pod_with_the_pods_own_words() {
    let node = Router::new();
    for ((pod_a, pod_b, host, far), hop) in FAMILIES.into_iter().zip([HOP.0, HOP.1]) {
        let frames: [fn(&str, &str) -> Vec<u8>; 3] = [
            |src, dst| Frame::tcp(src, dst, (40_000, 80)).bytes(),
            |src, dst| Frame::udp(src, dst, (40_000, 80)).bytes(),
            |src, dst| echo([0; 6], [0; 6], (src, dst), 64, false, 40_000),
        ];
        for new in frames {
            // The second pod's port is another one outside.
            node.leaves(&with_macs(&new(pod_a, far), HOST_A, MAC_A));
            let sent = node.leaves_from(node.pod_b, &with_macs(&new(pod_b, far), HOST_B, MAC_B));
            for length in [usize::MAX, 28] {
                let cut = |packet: &[u8]| {
                    let header = if packet[12] == 8 { 20 } else { 40 };
                    packet[14..packet.len().min((header - 6_usize).saturating_add(length))].to_vec()
                };
                let mut inside = new(pod_b, far);
                let at = if inside[12] == 8 { 22 } else { 21 };
                inside[at] = 63;
                if inside[12] == 8 {
                    inside[24..26].copy_from_slice(&[0, 0]);
                    let sum = checksum(&inside[14..34]).to_be_bytes();
                    inside[24..26].copy_from_slice(&sum);
                }
                let came = error((WIRE, ROUTER), (hop, host), 60, &cut(&sent));
                let expected = error((MAC_B, HOST_B), (hop, pod_b), 59, &cut(&inside));
                assert_eq!(node.returns(&came), expected, "{pod_b} {length}");
            }
        }
        let unknown = Frame::udp(host, far, (1, 1)).bytes();
        let came = error((WIRE, ROUTER), (hop, host), 60, &unknown[14..]);
        assert_eq!(node.run(Hook::FromWire, node.wire, &came).0, Reason::ToStack);
    }
}

fn with_macs(packet: &[u8], to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    [&to, &from, &packet[12..]].concat()
}

#[test]
fn an_error_of_a_pod_about_an_answer_leaves_with_the_nodes_address() {
    let node = Router::new();
    for (pod, _, host, far) in FAMILIES {
        node.leaves(&Frame::udp(pod, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
        let answer = Frame::udp(far, pod, (80, 40_000)).bytes();
        let says = error((HOST_A, MAC_A), (pod, far), 64, &answer[14..]);
        let outside = Frame::udp(far, host, (80, 40_000)).bytes();
        let expected = error((ROUTER, WIRE), (host, far), 63, &outside[14..]);
        assert_eq!(node.leaves(&says), expected);
    }
}

/// The fragments of a datagram: the frame cut after `at` bytes of its IP payload.
fn fragments(packet: &[u8], at: usize, id: u8) -> [Vec<u8>; 2] {
    let v4 = packet[12] == 8;
    let (ends, header) = if v4 { ((26, 30), 34) } else { ((22, 38), 54) };
    let addr = |at: usize| -> IpAddr {
        if v4 {
            <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four").into()
        } else {
            <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen").into()
        }
    };
    let (to, from) = (packet[..6].try_into().expect("six"), packet[6..12].try_into().expect("six"));
    let (hops, protocol) = if v4 { (packet[22], packet[23]) } else { (packet[21], packet[20]) };
    let part = |payload: &[u8], offset: usize, more: bool| {
        let offset = u16::try_from(offset).expect("short");
        if !v4 {
            let [high, low] = (offset | u16::from(more)).to_be_bytes();
            let payload = [&[protocol, 0, high, low, 0, 0, 0, id], payload].concat();
            return ip(to, from, addr(ends.0), addr(ends.1), hops, 44, &payload);
        }
        let mut frame = ip(to, from, addr(ends.0), addr(ends.1), hops, protocol, payload);
        let [high, low] = ((offset / 8) | (u16::from(more) << 13)).to_be_bytes();
        frame[18..22].copy_from_slice(&[0, id, high, low]);
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&frame[14..34]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
        frame
    };
    let payload = &packet[header..];
    [part(&payload[..at], 0, true), part(&payload[at..], at, false)]
}

#[test]
fn later_fragments_go_the_way_of_the_first() {
    let node = Router::new();
    for (pod_a, pod_b, host, far) in FAMILIES {
        let new = |src, dst, ports| {
            let mut frame = Frame::udp(src, dst, ports);
            frame.payload = vec![9; 100];
            frame
        };
        // So that the port changes.
        node.leaves(&new(pod_a, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
        let datagram = new(pod_b, far, (40_000, 80)).macs(HOST_B, MAC_B).bytes();
        let [first, later] = fragments(&datagram, 48, 3);
        // A later fragment that comes before cannot be known.
        let (reason, code, _) = node.run(Hook::ToWire, node.wire, &later);
        assert_eq!((reason, code), (Reason::FragmentUnknown, Code::Drop));
        let out = [first, later].map(|part| node.leaves_from(node.pod_b, &part));
        let port =
            source_port(&if out[0][12] == 8 { out[0].clone() } else { without_fragment_header(&out[0]) });
        let whole = new(host, far, (port, 80)).macs(ROUTER, WIRE).hops(63).bytes();
        assert_eq!(out, fragments(&whole, 48, 3));

        let answer = new(far, host, (80, port)).macs(WIRE, ROUTER).bytes();
        let got = fragments(&answer, 48, 4).map(|part| node.returns(&part));
        let whole = new(far, pod_b, (80, 40_000)).macs(MAC_B, HOST_B).hops(63).bytes();
        assert_eq!(got, fragments(&whole, 48, 4));
    }
}

fn without_fragment_header(packet: &[u8]) -> Vec<u8> {
    [&packet[..54], &packet[62..]].concat()
}

#[test]
fn either_half_of_a_flow_brings_the_other_back() {
    let node = Router::new();
    let forget = |map: &str| node.ground.forget(map);
    for (pod_a, pod_b, host, far) in FAMILIES {
        for new in [Frame::tcp, Frame::udp] {
            node.leaves(&new(pod_a, far, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
            let question = new(pod_b, far, (40_000, 80)).macs(HOST_B, MAC_B).bytes();
            let sent = node.leaves_from(node.pod_b, &question);
            let answer = new(far, host, (80, source_port(&sent))).macs(WIRE, ROUTER).bytes();
            let got = node.returns(&answer);
            // The flow is forgotten: the port is found again, by a packet of either side.
            forget("ct");
            assert_eq!(node.leaves_from(node.pod_b, &question), sent);
            forget("ct");
            assert_eq!(node.returns(&answer), got);
            assert_eq!(node.leaves_from(node.pod_b, &question), sent);
            // The mapping is forgotten: the next packet of the pod puts it again.
            forget("nat");
            assert_eq!(node.run(Hook::FromWire, node.wire, &answer).0, Reason::ToStack);
            assert_eq!(node.leaves_from(node.pod_b, &question), sent);
            assert_eq!(node.returns(&answer), got);
        }
    }
}

#[test]
fn an_answer_for_a_pod_that_is_gone_is_left_to_the_stack() {
    let mut node = Router::new();
    node.leaves(&Frame::tcp(POD_A.0, FAR.0, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
    block_on(node.targets.endpoints.remove(&EndpointAddr(address(POD_A.0)))).expect("removed");
    let answer = Frame::tcp(FAR.0, NODE.0, (80, 40_000)).macs(WIRE, ROUTER).bytes();
    assert_eq!(node.run(Hook::FromWire, node.wire, &answer).0, Reason::BackendAbsent);
}

#[test]
fn as_many_flows_as_there_are_ports_find_one_each_and_the_rest_is_dropped() {
    let mut node = Router::new();
    node.ground.config.flows = 131_072;
    node.ground.reopen();
    node.ground.datapath().finish_migration().expect("finished");
    let mut seen = BTreeSet::new();
    let mut refused = 0;
    node.namespace.inside(|| {
        for flow in 0..66_000u32 {
            let pod = [POD_A.0, POD_B.0][usize::from(flow >= 33_000)];
            let port = u16::try_from(20_000 + flow % 33_000).expect("a port");
            let packet = Frame::udp(pod, FAR.0, (port, 53)).bytes();
            let ran =
                node.ground.datapath().run(Hook::ToWire, &Trial::new(&packet, node.wire)).expect("it runs");
            if ran.code == Code::Drop {
                refused += 1;
                assert!(flow >= 60_000, "flow {flow} finds no port");
            } else {
                assert_eq!(&ran.packet[26..30], octets(address(NODE.0)));
                assert!(seen.insert(source_port(&ran.packet)), "a port is given twice");
            }
        }
    });
    assert_eq!(node.ground.count(Hook::ToWire, Reason::NatExhausted), refused);
    assert!(refused >= 66_000 - 64_512, "{refused}");
    assert!(seen.len() > 64_000, "{}", seen.len());
}

#[test]
fn what_is_remembered_is_told_and_swept_when_its_time_is_over() {
    let node = Router::new();
    node.leaves(&Frame::tcp(POD_A.0, FAR.0, (40_000, 80)).macs(HOST_A, MAC_A).bytes());
    node.returns(&Frame::tcp(FAR.0, NODE.0, (80, 40_000)).macs(WIRE, ROUTER).bytes());
    let datapath = node.ground.datapath();
    let table = datapath.flow_table();
    let (flows, _) = table.flows(9, |_| true).expect("read");
    let [flow] = &flows[..] else { panic!("one flow and not {flows:?}") };
    let socket = |addr: &str, port| std::net::SocketAddr::new(address(addr), port);
    assert_eq!((flow.opener, flow.replier), (socket(POD_A.0, 40_000), socket(FAR.0, 80)));
    assert_eq!((flow.state, flow.packets), ("established", [1, 1]));
    assert_eq!(flow.course, [Course::Masqueraded(socket(NODE.0, 40_000))]);
    let (mappings, _) = table.mappings(9, |_| true).expect("read");
    let [mapping] = mappings[..] else { panic!("one mapping and not {mappings:?}") };
    let expected = (socket(FAR.0, 80), socket(NODE.0, 40_000), socket(POD_A.0, 40_000));
    assert_eq!((mapping.remote, mapping.node, mapping.pod), expected);
    assert!(!mapping.remains.is_zero() && !flow.remains.is_zero());

    let sum = |swept: Vec<Swept>| -> (u64, u64) {
        (swept.iter().map(|map| map.seen).sum(), swept.iter().map(|map| map.removed).sum())
    };
    let round = || sum(datapath.sweep().round(1, || ControlFlow::Continue(())).expect("swept"));
    assert_eq!(round(), (2, 0));
    let stopped = datapath.sweep().round(1, || ControlFlow::Break(())).expect("swept");
    assert_eq!(stopped, []);
    for (map, expires, from) in [("ct", 0, 4), ("nat", 20, 24)] {
        let pin = node.ground.config.bpffs.join("v2/maps").join(map);
        let pin = pin.to_str().expect("text");
        let dump = ground::command("bpftool", &["-j", "map", "dump", "pinned", pin]);
        let bytes = |name: &str| -> Vec<String> {
            let at = dump.find(name).expect("there") + name.len();
            let end = at + dump[at..].find(']').expect("an end");
            dump[at..end].split(',').map(|byte| byte.trim_matches('"').to_owned()).collect()
        };
        let (key, mut value) = (bytes("\"key\":["), bytes("\"value\":["));
        for byte in &mut value[expires..from] {
            "0x00".clone_into(byte);
        }
        let mut words = vec!["map", "update", "pinned", pin, "key"];
        words.extend(key.iter().map(String::as_str));
        words.push("value");
        words.extend(value.iter().map(String::as_str));
        ground::command("bpftool", &words);
    }
    assert_eq!(round(), (2, 2));
    assert_eq!(round(), (0, 0));
}
