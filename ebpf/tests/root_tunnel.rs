// SPDX-License-Identifier: Apache-2.0
//! Packets on their way into the tunnel, and those that are too large for their way: packet in, verdict, packet out,
//! counters.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use ground::frame::{Frame, UDP, checksum, icmp6, ip, summed};
use ground::{Ground, Namespace};
use rhumb_ebpf::{
    Code, Endpoint, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex, PodLink, Ran, Reason, Remote,
    RemotePrefix, TUNNEL_MAC, Targets, Transport, Trial, TunnelLink, Wish, boot_clock,
};
use rhumb_model::{MacAddr, Target as _};

const POD: (&str, &str) = ("10.1.0.2", "fd00:1::2");
const NODE: (&str, &str) = ("192.0.2.1", "2001:db8::1");
/// Pods of a node behind the tunnel, and that node.
const FAR: (&str, &str) = ("10.2.0.9", "fd00:2::9");
const FAR_NODE: (&str, &str) = ("198.51.100.2", "2001:db8:9::2");
/// A node whose pods are reached directly.
const NEAR_NODE: (&str, &str) = ("192.0.2.9", "2001:db8::9");
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0xa, 1];
const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0xa, 2];
const SENDER: [u8; 6] = *b"\x06rhumb";
const PORT: u16 = 8472;
const MTU: u16 = 1400;
const QUOTE: usize = 512;

/// A node with a pod, an uplink and a tunnel.
struct Node {
    namespace: Namespace,
    ground: Ground,
    targets: Targets,
    pod: u32,
    tunnel: u32,
}

impl Node {
    fn new() -> Self {
        let namespace = Namespace::new();
        for (name, mac) in [("hosta", HOST_MAC), ("wire", [2, 0, 0, 0, 0xe, 1])] {
            let mac = MacAddr::new(mac).expect("unicast");
            namespace.ip(&format!("link add {name} address {mac} type veth peer name {name}-p"));
            namespace.ip(&format!("link set {name} up"));
            namespace.ip(&format!("link set {name}-p up"));
        }
        let mac = MacAddr::new(TUNNEL_MAC).expect("unicast");
        namespace.ip(&format!("link add tunnel address {mac} type vxlan dstport {PORT} external"));
        namespace.ip("link set tunnel up");
        namespace.sysctl("net/ipv4/ip_forward", "1");
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
        namespace.ip(&format!("address add {}/24 dev wire", NODE.0));
        namespace.ip(&format!("address add {}/64 dev wire nodad", NODE.1));
        for (gateway, far) in [("192.0.2.254", "198.51.100.0/24"), ("2001:db8::fe", "2001:db8:9::/64")] {
            namespace.ip(&format!("neighbour add {gateway} lladdr 02:00:00:00:0e:02 dev wire nud permanent"));
            namespace.ip(&format!("route add {far} via {gateway}"));
        }
        let ground = Ground::new();
        let targets = ground.targets();
        let [pod, tunnel] = ["hosta", "tunnel"].map(|name| namespace.ifindex(name));
        let mut node = Self { namespace, ground, targets, pod, tunnel };
        node.entries();
        node
    }

    fn entries(&mut self) {
        let (mac, host_mac) =
            (MacAddr::new(POD_MAC).expect("unicast"), MacAddr::new(HOST_MAC).expect("unicast"));
        let link = PodLink {
            v4: Some(POD.0.parse().expect("an address")),
            v6: Some(POD.1.parse().expect("an address")),
            mac,
            host_mac,
            chained: false,
            host_ports: true,
            interface: None,
        };
        block_on(self.targets.pod_links.put(&IfIndex(self.pod), &link)).expect("put");
        for addr in [POD.0, POD.1] {
            let endpoint = Endpoint { ifindex: self.pod, mac, host_mac, shaped: false };
            block_on(self.targets.endpoints.put(&EndpointAddr(address(addr)), &endpoint)).expect("put");
        }
        self.tunnel_link(Some(self.tunnel));
        for (prefix, node) in [("10.2.0.0/24", FAR_NODE.0), ("fd00:2::/64", FAR_NODE.1)] {
            let remote =
                Remote { tunnel: Some(address(node)), mtu: MTU, keep_source: true, ..Remote::default() };
            self.remote(prefix, remote);
            self.remote(&host(node), Remote { node: true, ..remote });
        }
        for (prefix, node) in [("10.3.0.0/24", NEAR_NODE.0), ("fd00:3::/64", NEAR_NODE.1)] {
            let kept = Remote { keep_source: true, ..Remote::default() };
            self.remote(prefix, kept);
            self.remote(&host(node), Remote { node: true, ..kept });
        }
    }

    fn tunnel_link(&mut self, ifindex: Option<u32>) {
        let before = block_on(self.targets.tunnel_links.observe()).expect("observed");
        for key in before.keys() {
            block_on(self.targets.tunnel_links.remove(key)).expect("removed");
        }
        if let Some(ifindex) = ifindex {
            let link = TunnelLink { port: PORT, v4: None, v6: None };
            block_on(self.targets.tunnel_links.put(&IfIndex(ifindex), &link)).expect("put");
        }
    }

    /// As `new`, and the node knows its own addresses outside; both families of pods are behind `far`.
    fn wrapping(far: &str) -> Self {
        let mut node = Self::new();
        let (v4, v6) = (NODE.0.parse().expect("an address"), NODE.1.parse().expect("an address"));
        let link = TunnelLink { port: PORT, v4: Some(v4), v6: Some(v6) };
        block_on(node.targets.tunnel_links.put(&IfIndex(node.tunnel), &link)).expect("put");
        for prefix in ["10.2.0.0/24", "fd00:2::/64"] {
            let remote =
                Remote { tunnel: Some(address(far)), mtu: MTU, keep_source: true, ..Remote::default() };
            node.remote(prefix, remote);
        }
        node
    }

    fn remote(&mut self, prefix: &str, remote: Remote) {
        let key = RemotePrefix(prefix.parse().expect("a prefix"));
        block_on(self.targets.ipcache.put(&key, &remote)).expect("put");
    }

    /// Runs the packet, and checks that exactly one counter moved, by one packet and its bytes.
    fn run(&self, hook: Hook, trial: Trial<'_>) -> (Reason, Ran) {
        let before = self.ground.counters();
        let ran =
            self.namespace.inside(|| self.ground.datapath().run(hook, &trial).expect("the kernel runs it"));
        let moved: Vec<_> =
            self.ground.counters().into_iter().filter(|counter| !before.contains(counter)).collect();
        let [counter] = moved[..] else { panic!("not one counter moved: {moved:?}") };
        let old =
            before.iter().find(|old| (old.reason, old.direction) == (counter.reason, counter.direction));
        let (packets, bytes) = old.map_or((0, 0), |old| (old.packets, old.bytes));
        assert_eq!((counter.packets - packets, counter.bytes - bytes), (1, trial.packet.len() as u64));
        (counter.reason, ran)
    }

    fn send(&self, packet: &[u8]) -> (Reason, Ran) {
        self.run(Hook::FromPod, Trial { ingress_ifindex: self.pod, ..Trial::new(packet, self.pod) })
    }

    /// A packet of the pod that stays what it is.
    fn refused(&self, packet: &[u8]) -> (Reason, Code) {
        let (reason, ran) = self.send(packet);
        assert_eq!(ran.packet, packet, "{reason:?}");
        (reason, ran.code)
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The prefix that is one address.
fn host(text: &str) -> String {
    rhumb_model::Prefix::host(address(text)).to_string()
}

/// Both families of a pair of places.
fn both(
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
) -> [(&'static str, &'static str); 2] {
    [(from.0, to.0), (from.1, to.1)]
}

fn large(frame: Frame, payload: usize) -> Frame {
    Frame { payload: vec![7; payload], ..frame }.macs(HOST_MAC, POD_MAC)
}

/// The same packet without the bit that forbids cutting it up.
fn without_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20] = 0;
    summed(packet)
}

/// What tells the pod that `packet` is larger than `mtu`.
fn told(packet: &[u8], mtu: u16) -> Vec<u8> {
    let quote = &packet[14..14 + QUOTE];
    if packet[12..14] == [8, 0] {
        let mut message = [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let mut frame = ip(POD_MAC, HOST_MAC, address("169.254.1.1"), address(POD.0), 64, 1, &message);
        frame[15] = 0xc0;
        frame[18..20].copy_from_slice(&[0, 0]);
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&frame[14..34]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
        frame
    } else {
        let message = [&[2, 0, 0, 0][..], &u32::from(mtu).to_be_bytes(), quote].concat();
        icmp6(POD_MAC, HOST_MAC, "fe80::1", POD.1, 64, &message)
    }
}

#[test]
fn a_packet_for_pods_behind_the_tunnel_enters_it_with_one_hop_less() {
    let node = Node::new();
    for (src, dst) in both(POD, FAR) {
        for frame in [Frame::udp(src, dst, (1000, 53)), Frame::tcp(src, dst, (1000, 80))] {
            let frame = frame.macs(HOST_MAC, POD_MAC);
            let (reason, ran) = node.send(&frame.bytes());
            assert_eq!((reason, ran.code), (Reason::ForwardedTunnel, Code::Redirect));
            assert_eq!(ran.packet, frame.macs(TUNNEL_MAC, SENDER).hops(63).bytes());
        }
    }
}

/// Length of what is written around a packet.
const OUTSIDE: usize = 50;

/// Takes a wrapped packet apart: number, service and sending port of the outer packet, and the frame inside.
fn unwrapped(packet: &[u8]) -> (u16, u8, u16, &[u8]) {
    let pair = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    assert_eq!((&packet[..6], &packet[6..12], pair(12)), (&TUNNEL_MAC[..], &SENDER[..], 0x0800));
    let (outer, rest) = packet[14..].split_at(20);
    assert_eq!((outer[0], usize::from(pair(16))), (0x45, packet.len() - 14));
    // It may be cut up, has 64 hops, is UDP, and its checksum is right.
    assert_eq!((&outer[6..10], checksum(outer)), (&[0, 0, 64, 17][..], 0));
    assert_eq!(outer[12..], [[192, 0, 2, 1], [198, 51, 100, 2]].concat());
    assert_eq!((pair(36), usize::from(pair(38)), pair(40)), (PORT, packet.len() - 34, 0));
    assert_eq!(rest[8..16], [8, 0, 0, 0, 0, 0, 0, 0]);
    (pair(18), outer[1], pair(34), &rest[16..])
}

#[test]
fn a_packet_whose_outer_way_is_known_is_wrapped_on_the_spot() {
    let node = Node::wrapping(FAR_NODE.0);
    let (mut numbers, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (src, dst) in both(POD, FAR) {
        for port in 1_000..1_020 {
            for frame in [Frame::udp(src, dst, (port, 53)), Frame::tcp(src, dst, (port, 80))] {
                let frame = frame.macs(HOST_MAC, POD_MAC);
                let mut seen = BTreeSet::new();
                // Found out, and kept for a moment.
                for _ in 0..3 {
                    let (reason, ran) = node.send(&frame.bytes());
                    assert_eq!((reason, ran.code), (Reason::ForwardedTunnel, Code::Redirect));
                    let (number, service, port, inside) = unwrapped(&ran.packet);
                    assert_eq!(
                        (service, inside),
                        (0, &frame.clone().macs(TUNNEL_MAC, SENDER).hops(63).bytes()[..])
                    );
                    assert!((32_768..60_999).contains(&port), "{port}");
                    numbers.insert(number);
                    seen.insert(port);
                }
                assert_eq!(seen.len(), 1, "a flow has one port: {seen:?}");
                ports.extend(seen);
            }
        }
    }
    assert!(ports.len() > 60, "{} ports of 80 flows", ports.len());
    assert!(numbers.len() > 200, "{} numbers of 240 packets", numbers.len());
}

#[test]
fn a_flow_follows_its_prefix_to_another_node_at_once_and_ends_with_its_room_and_with_the_tunnel() {
    let mut node = Node::wrapping(FAR_NODE.0);
    let outside = TunnelLink {
        port: PORT,
        v4: Some(NODE.0.parse().expect("an address")),
        v6: Some(NODE.1.parse().expect("an address")),
    };
    for ((src, dst), prefix) in both(POD, FAR).into_iter().zip(["10.2.0.0/24", "fd00:2::/64"]) {
        let packet = large(Frame::tcp(src, dst, (1, 80)), 1_300).bytes();
        for _ in 0..20 {
            block_on(node.targets.tunnel_links.put(&IfIndex(node.tunnel), &outside)).expect("put");
            for far in [[198, 51, 100, 2], [198, 51, 100, 3]] {
                let remote = Remote {
                    tunnel: Some(IpAddr::from(far)),
                    mtu: MTU,
                    keep_source: true,
                    ..Remote::default()
                };
                node.remote(prefix, remote);
                for _ in 0..2 {
                    let (reason, ran) = node.send(&packet);
                    assert_eq!((reason, &ran.packet[30..34]), (Reason::ForwardedTunnel, &far[..]));
                }
                node.remote(prefix, Remote { mtu: 1_300, ..remote });
                assert_eq!(node.send(&packet).0, Reason::AnsweredTooBig);
                node.remote(prefix, remote);
                assert_eq!(node.send(&packet).0, Reason::ForwardedTunnel);
            }
            node.tunnel_link(None);
            assert_eq!(node.refused(&packet), (Reason::TunnelAbsent, Code::Drop));
        }
    }
}

#[test]
fn congestion_marks_are_told_outside_and_nothing_else_of_the_class_is() {
    let node = Node::wrapping(FAR_NODE.0);
    for (class, outside) in [(0xb8, 0), (1, 1), (2, 2), (0xbb, 2)] {
        for (src, dst) in both(POD, FAR) {
            let mut packet = Frame::udp(src, dst, (7, 53)).macs(HOST_MAC, POD_MAC).bytes();
            if src.contains(':') {
                packet[14] |= class >> 4;
                packet[15] |= class << 4;
            } else {
                packet[15] = class;
                packet = summed(packet);
            }
            for _ in 0..2 {
                let (_, ran) = node.send(&packet);
                let (_, service, _, inside) = unwrapped(&ran.packet);
                assert_eq!((service, &inside[14..16]), (outside, &packet[14..16]));
            }
        }
    }
}

/// Whether the device of the tunnel gets the packet, as it always did, or whether it is wrapped at once.
fn takes_the_device(node: &Node, dst: &str) -> bool {
    let src = if dst.contains(':') { POD.1 } else { POD.0 };
    let frame = Frame::udp(src, dst, (1000, 53)).macs(HOST_MAC, POD_MAC);
    let (reason, ran) = node.send(&frame.bytes());
    assert_eq!((reason, ran.code), (Reason::ForwardedTunnel, Code::Redirect));
    let inside = frame.macs(TUNNEL_MAC, SENDER).hops(63).bytes();
    assert_eq!(ran.packet[ran.packet.len() - inside.len()..], inside);
    match ran.packet.len() - inside.len() {
        0 => true,
        OUTSIDE => false,
        other => panic!("{other} bytes more"),
    }
}

#[test]
fn what_has_no_known_way_outside_is_left_to_the_tunnels_device() {
    for words in [
        "neighbour del 192.0.2.254 dev wire",
        "route replace unreachable 198.51.100.0/24",
        "route replace 198.51.100.0/24 via inet6 2001:db8::fe dev wire",
        "route replace 198.51.100.0/24 via 192.0.2.254 mtu lock 80",
        "rule add iif lo to 198.51.100.2 prohibit",
    ] {
        let node = Node::wrapping(FAR_NODE.0);
        assert!(!takes_the_device(&node, FAR.0), "{words}");
        node.namespace.ip(words);
        for dst in [FAR.0, FAR.1] {
            let begun = Instant::now();
            // The moment in which the flow's last packet went otherwise has to end.
            while !takes_the_device(&node, dst) {
                assert!(begun.elapsed() < Duration::from_secs(2), "{words}");
            }
        }
    }
    let node = Node::wrapping(FAR_NODE.1);
    assert!(takes_the_device(&node, FAR.0) && takes_the_device(&node, FAR.1), "over IPv6");
    let node = Node::wrapping(FAR_NODE.0);
    node.namespace.sysctl("net/ipv4/ip_forward", "0");
    assert!(takes_the_device(&node, FAR.1), "the node forwards nothing");
}

#[test]
fn a_narrow_way_outside_takes_what_fits_at_once_and_the_device_the_rest() {
    let node = Node::wrapping(FAR_NODE.0);
    node.namespace.ip("link set wire mtu 1340");
    for (src, dst) in both(POD, FAR) {
        let headers = if src.contains(':') { 40 + 20 } else { 20 + 20 };
        for (length, outside) in [(1290, OUTSIDE), (1291, 0), (usize::from(MTU), 0)] {
            let packet = large(Frame::tcp(src, dst, (length as u16, 80)), length - headers).bytes();
            for _ in 0..2 {
                let (reason, ran) = node.send(&packet);
                assert_eq!((reason, ran.packet.len()), (Reason::ForwardedTunnel, packet.len() + outside));
            }
        }
    }
}

#[test]
fn a_wrapped_packet_is_told_of_as_the_pod_sent_it() {
    let node = Node::wrapping(FAR_NODE.0);
    let mut events = node.ground.datapath().events().expect("opened");
    for (src, dst) in both(POD, FAR) {
        let wish = Wish { addrs: vec![address(dst)], reason: Some(Reason::ForwardedTunnel) };
        let until = boot_clock() + Duration::from_secs(60);
        events.watch(Some(&wish), until).expect("written");
        let frame = Frame::tcp(src, dst, (1000, 80)).macs(HOST_MAC, POD_MAC).bytes();
        assert_eq!(node.send(&frame).1.packet.len(), frame.len() + OUTSIDE);
        let event = events.next().expect("told");
        assert_eq!(event.addrs, Some((address(src), address(dst))));
        assert_eq!(event.transport, Some(Transport::Tcp { ports: (1000, 80), flags: 0x10 }));
        assert_eq!(event.length as usize, frame.len());
    }
}

#[test]
fn either_family_goes_over_either_underlay() {
    let mut node = Node::new();
    node.remote("10.2.0.0/24", Remote { tunnel: Some(address(FAR_NODE.1)), mtu: MTU, ..Remote::default() });
    node.remote("fd00:2::/64", Remote { tunnel: Some(address(FAR_NODE.0)), mtu: MTU, ..Remote::default() });
    for (src, dst) in both(POD, FAR) {
        let frame = Frame::udp(src, dst, (1000, 53)).macs(HOST_MAC, POD_MAC);
        let (reason, ran) = node.send(&frame.bytes());
        assert_eq!((reason, ran.code), (Reason::ForwardedTunnel, Code::Redirect));
    }
}

#[test]
fn the_longest_prefix_says_the_way() {
    let mut node = Node::new();
    node.remote("10.2.0.9/32", Remote { keep_source: true, ..Remote::default() });
    node.namespace.ip("route add 10.2.0.0/24 via 192.0.2.254");
    let direct = Frame::udp(POD.0, FAR.0, (1, 2)).macs(HOST_MAC, POD_MAC).bytes();
    assert_eq!(node.send(&direct).0, Reason::ForwardedRemote);
    let tunnelled = Frame::udp(POD.0, "10.2.0.10", (1, 2)).macs(HOST_MAC, POD_MAC).bytes();
    assert_eq!(node.send(&tunnelled).0, Reason::ForwardedTunnel);
}

#[test]
fn what_only_rules_of_the_host_lead_to_is_left_to_its_stack() {
    let mut node = Node::new();
    node.namespace.ip("route add fd00:2::/64 via 2001:db8::fe");
    let frame = Frame::udp(POD.1, FAR.1, (1, 2)).macs(HOST_MAC, POD_MAC).bytes();
    for (stack, expected) in
        [(false, (Reason::ForwardedRemote, Code::Redirect)), (true, (Reason::HostRules, Code::Next))]
    {
        node.remote("fd00:2::/64", Remote { stack, ..Remote::default() });
        let (reason, ran) = node.send(&frame);
        assert_eq!((reason, ran.code), expected);
    }
}

#[test]
fn a_packet_without_a_hop_left_is_left_to_the_kernel_and_not_encapsulated() {
    let node = Node::new();
    for (src, dst) in both(POD, FAR) {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_MAC, POD_MAC).hops(1);
        assert_eq!(node.refused(&frame.bytes()), (Reason::TimeExceeded, Code::Next));
    }
}

#[test]
fn without_a_tunnel_nothing_is_encapsulated() {
    let mut node = Node::new();
    node.tunnel_link(None);
    for (src, dst) in both(POD, FAR) {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_MAC, POD_MAC);
        assert_eq!(node.refused(&frame.bytes()), (Reason::TunnelAbsent, Code::Drop));
    }
}

#[test]
fn a_packet_that_does_not_fit_the_tunnel_is_answered() {
    let node = Node::new();
    for (src, dst) in both(POD, FAR) {
        let headers = if src.contains(':') { 40 + 20 } else { 20 + 20 };
        let fitting = large(Frame::tcp(src, dst, (1, 80)), usize::from(MTU) - headers);
        assert_eq!(node.send(&fitting.bytes()).0, Reason::ForwardedTunnel);
        let packet = large(Frame::tcp(src, dst, (1, 80)), usize::from(MTU) - headers + 1).bytes();
        let (reason, ran) = node.send(&packet);
        assert_eq!((reason, ran.code), (Reason::AnsweredTooBig, Code::Redirect));
        assert_eq!(ran.packet, told(&packet, MTU));
    }
}

#[test]
fn a_packet_that_does_not_fit_the_route_is_answered() {
    let node = Node::new();
    node.namespace.ip("link set wire mtu 1340");
    for (src, dst) in both(POD, ("198.51.100.77", "2001:db8:9::77")) {
        let packet = large(Frame::udp(src, dst, (1, 80)), 1400).bytes();
        let (reason, ran) = node.send(&packet);
        assert_eq!((reason, ran.code), (Reason::AnsweredTooBig, Code::Redirect));
        assert_eq!(ran.packet, told(&packet, 1340));
    }
}

#[test]
fn a_packet_from_behind_a_host_port_is_quoted_as_the_pod_sent_it() {
    let mut node = Node::new();
    node.namespace.ip("link set wire mtu 1340");
    let wire = node.namespace.ifindex("wire");
    for (of, (pod, far)) in [NODE.0, NODE.1].into_iter().zip(both(POD, ("198.51.100.77", "2001:db8:9::77"))) {
        for (protocol, new) in [(6, Frame::tcp as fn(&str, &str, (u16, u16)) -> Frame), (17, Frame::udp)] {
            let key = HostPort { addr: address(of), port: 80, protocol };
            let value = HostPortBackend { addr: address(pod), port: 8080 };
            block_on(node.targets.host_ports.put(&key, &value)).expect("put");
            let question = new(far, of, (4321, 80)).macs([2, 0, 0, 0, 0xe, 1], [2, 0, 0, 0, 0xe, 2]).bytes();
            let trial = Trial { ingress_ifindex: wire, ..Trial::new(&question, wire) };
            assert_eq!(node.run(Hook::FromWire, trial).0, Reason::HostPortIn);
            let answer = large(new(pod, far, (8080, 4321)), 100).bytes();
            assert_eq!(node.send(&answer).0, Reason::ForwardedRemote);
            let answer = large(new(pod, far, (8080, 4321)), 1400).bytes();
            let (reason, ran) = node.send(&answer);
            assert_eq!((reason, ran.code), (Reason::AnsweredTooBig, Code::Redirect));
            assert_eq!(ran.packet, told(&answer, 1340));
        }
    }
}

#[test]
fn what_may_be_cut_up_is_left_to_the_kernel() {
    let node = Node::new();
    for dst in [FAR.0, "198.51.100.77"] {
        let packet = without_df(large(Frame::udp(POD.0, dst, (1, 80)), 2000).bytes());
        assert_eq!(node.refused(&packet), (Reason::TooBig, Code::Next));
    }
}

#[test]
fn a_segment_counts_by_what_it_is_cut_into() {
    let node = Node::new();
    for (src, dst) in both(POD, FAR) {
        let packet = large(Frame::tcp(src, dst, (1, 80)), 2800).bytes();
        let trial = Trial { ingress_ifindex: node.pod, ..Trial::new(&packet, node.pod) };
        let fitting = Trial { gso_size: u32::from(MTU) - 60, ..trial };
        assert_eq!(node.run(Hook::FromPod, fitting).0, Reason::ForwardedTunnel);
        let (reason, ran) = node.run(Hook::FromPod, Trial { gso_size: u32::from(MTU), ..trial });
        assert_eq!(reason, Reason::AnsweredTooBig);
        assert_eq!(ran.packet, told(&packet, MTU));
    }
}

#[test]
fn an_error_that_is_too_large_is_not_answered() {
    let node = Node::new();
    let v4 = ip(HOST_MAC, POD_MAC, address(POD.0), address(FAR.0), 64, 1, &[3; 1500]);
    let v6 = icmp6(HOST_MAC, POD_MAC, POD.1, FAR.1, 64, &[1; 1500]);
    for packet in [v4, v6] {
        assert_eq!(node.refused(&packet), (Reason::TooBig, Code::Next));
    }
}

#[test]
fn a_pod_cannot_encapsulate_for_itself() {
    let node = Node::new();
    for (own, far, near) in [(NODE.0, FAR_NODE.0, NEAR_NODE.0), (NODE.1, FAR_NODE.1, NEAR_NODE.1)] {
        let src = if own.contains(':') { POD.1 } else { POD.0 };
        for dst in [own, far, near] {
            let spoofed = Frame::udp(src, dst, (4000, PORT)).macs(HOST_MAC, POD_MAC).bytes();
            assert_eq!(node.refused(&spoofed), (Reason::SpoofedTunnel, Code::Drop), "{dst}");
            for other in [Frame::udp(src, dst, (PORT, 53)), Frame::tcp(src, dst, (4000, PORT))] {
                let reason = node.send(&other.macs(HOST_MAC, POD_MAC).bytes()).0;
                assert_ne!(reason.verdict(), rhumb_ebpf::Verdict::Drop, "{dst}");
            }
        }
    }
    let elsewhere = Frame::udp(POD.0, "198.51.100.77", (4000, PORT)).macs(HOST_MAC, POD_MAC).bytes();
    assert_eq!(node.send(&elsewhere).0, Reason::ForwardedRemote, "the tunnel of others");
}

#[test]
fn options_and_extensions_hide_no_encapsulation() {
    let node = Node::new();
    let udp = [&4000u16.to_be_bytes()[..], &PORT.to_be_bytes(), &[0, 20, 0, 0], &[0; 12]].concat();
    let mut options = ip(HOST_MAC, POD_MAC, address(POD.0), address(FAR_NODE.0), 64, UDP, &udp);
    options.splice(34..34, [1, 1, 1, 1]);
    options[14] = 0x46;
    options[17] += 4;
    assert_eq!(node.refused(&options), (Reason::SpoofedTunnel, Code::Drop));
    options[41] += 1;
    assert_eq!(node.refused(&options), (Reason::IpOptions, Code::Next));
    let behind = [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp].concat();
    let extended = ip(HOST_MAC, POD_MAC, address(POD.1), address(FAR_NODE.1), 64, 60, &behind);
    assert_eq!(node.refused(&extended), (Reason::SpoofedTunnel, Code::Drop));
    let endless = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(8), udp].concat();
    let endless = ip(HOST_MAC, POD_MAC, address(POD.1), address(FAR_NODE.1), 64, 60, &endless);
    assert_eq!(node.refused(&endless), (Reason::Malformed, Code::Drop));
}

#[test]
fn what_the_stack_routes_into_the_tunnel_is_told_where_to() {
    let node = Node::new();
    for (src, dst) in both(NODE, FAR) {
        let frame = Frame::tcp(src, dst, (1, 80)).macs(TUNNEL_MAC, TUNNEL_MAC);
        let (reason, ran) = node.run(Hook::ToTunnel, Trial::new(&frame.bytes(), node.tunnel));
        assert_eq!((reason, ran.code), (Reason::Encapsulated, Code::Next));
        assert_eq!(ran.packet, frame.macs(TUNNEL_MAC, SENDER).bytes());
    }
    for (src, dst) in
        both(NODE, ("10.3.0.9", "fd00:3::9")).into_iter().chain(both(NODE, ("10.9.0.9", "ff02::1")))
    {
        let packet = Frame::udp(src, dst, (1, 80)).macs(TUNNEL_MAC, TUNNEL_MAC).bytes();
        let (reason, ran) = node.run(Hook::ToTunnel, Trial::new(&packet, node.tunnel));
        assert_eq!((reason, ran.code, ran.packet), (Reason::TunnelUnknown, Code::Drop, packet), "{dst}");
    }
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(node.run(Hook::ToTunnel, Trial::new(&arp, node.tunnel)).0, Reason::TunnelNotIp);
}

#[test]
fn what_has_no_tunnel_key_did_not_come_through_a_tunnel() {
    let node = Node::new();
    for (src, dst) in both(FAR, POD) {
        let packet = Frame::tcp(src, dst, (1, 80)).macs(TUNNEL_MAC, SENDER).bytes();
        let trial = Trial { ingress_ifindex: node.tunnel, ..Trial::new(&packet, node.tunnel) };
        let (reason, ran) = node.run(Hook::FromTunnel, trial);
        assert_eq!((reason, ran.code), (Reason::TunnelKey, Code::Drop));
    }
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(node.run(Hook::FromTunnel, Trial::new(&arp, node.tunnel)).0, Reason::TunnelNotIp);
}
