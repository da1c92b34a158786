// SPDX-License-Identifier: Apache-2.0
//! Packets through the programs in the kernel, one after the other: packet in, verdict, packet out, counters.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::executor::block_on;
use ground::frame::{Frame, icmp6};
use ground::{Ground, Namespace};
use rhumb_ebpf::{
    Code, Endpoint, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex, PodLink, Ran, Reason, Targets,
    Trial,
};
use rhumb_model::{MacAddr, Target as _};

const POD_A4: &str = "10.1.0.2";
const POD_B4: &str = "10.1.0.3";
const POD_A6: &str = "fd00:1::2";
const POD_B6: &str = "fd00:1::3";
const NODE4: &str = "192.0.2.1";
const NODE6: &str = "2001:db8::1";
const FAR4: &str = "198.51.100.9";
const FAR6: &str = "2001:db8:9::9";

/// A node with two pods and an uplink; the pods are map entries, the interfaces are real.
struct Node {
    namespace: Namespace,
    ground: Ground,
    targets: Targets,
    pod_a: u32,
    pod_b: u32,
    wire: u32,
}

const HOST_A: [u8; 6] = [2, 0, 0, 0, 0xa, 1];
const HOST_B: [u8; 6] = [2, 0, 0, 0, 0xb, 1];
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0xa, 2];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0xb, 2];
const WIRE: [u8; 6] = [2, 0, 0, 0, 0xe, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0xe, 2];

fn text(mac: [u8; 6]) -> String {
    MacAddr::new(mac).expect("unicast").to_string()
}

impl Node {
    fn new() -> Self {
        let namespace = Namespace::new();
        for (name, mac) in [("hosta", HOST_A), ("hostb", HOST_B), ("wire", WIRE)] {
            namespace.ip(&format!("link add {name} address {} type veth peer name {name}-p", text(mac)));
            namespace.ip(&format!("link set {name} up"));
            namespace.ip(&format!("link set {name}-p up"));
            namespace.sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
        }
        namespace.sysctl("net/ipv4/ip_forward", "1");
        namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
        namespace.ip(&format!("address add {NODE4}/24 dev wire"));
        namespace.ip(&format!("address add {NODE6}/64 dev wire nodad"));
        for (gateway, far) in [("192.0.2.254", "198.51.100.0/24"), ("2001:db8::fe", "2001:db8:9::/64")] {
            namespace.ip(&format!("neighbour add {gateway} lladdr {} dev wire nud permanent", text(ROUTER)));
            namespace.ip(&format!("route add {far} via {gateway}"));
        }
        namespace.ip("route add 203.0.113.0/24 via 192.0.2.77");
        namespace.ip("route add unreachable 10.1.0.0/24");
        namespace.ip("route add unreachable fd00:1::/64");
        let ground = Ground::new();
        let targets = ground.targets();
        let [pod_a, pod_b, wire] = ["hosta", "hostb", "wire"].map(|name| namespace.ifindex(name));
        let mut node = Self { namespace, ground, targets, pod_a, pod_b, wire };
        node.pod(pod_a, (POD_A4, POD_A6), (MAC_A, HOST_A), |_| {});
        node.pod(pod_b, (POD_B4, POD_B6), (MAC_B, HOST_B), |_| {});
        node
    }

    fn pod(
        &mut self,
        ifindex: u32,
        addrs: (&str, &str),
        macs: ([u8; 6], [u8; 6]),
        with: impl Fn(&mut PodLink),
    ) {
        let (mac, host_mac) =
            (MacAddr::new(macs.0).expect("unicast"), MacAddr::new(macs.1).expect("unicast"));
        let v4: Ipv4Addr = addrs.0.parse().expect("an address");
        let v6: Ipv6Addr = addrs.1.parse().expect("an address");
        let mut link = PodLink {
            v4: Some(v4),
            v6: Some(v6),
            mac,
            host_mac,
            chained: false,
            host_ports: false,
            interface: None,
        };
        with(&mut link);
        block_on(self.targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
        for addr in [IpAddr::from(v4), IpAddr::from(v6)] {
            let endpoint = Endpoint { ifindex, mac, host_mac, shaped: false };
            block_on(self.targets.endpoints.put(&EndpointAddr(addr), &endpoint)).expect("put");
        }
    }

    fn host_port(&mut self, node: &str, pod: &str) {
        let key = HostPort { addr: node.parse().expect("an address"), port: 80, protocol: 6 };
        let value = HostPortBackend { addr: pod.parse().expect("an address"), port: 8080 };
        block_on(self.targets.host_ports.put(&key, &value)).expect("put");
        let udp = HostPort { protocol: 17, ..key };
        block_on(self.targets.host_ports.put(&udp, &value)).expect("put");
    }

    fn run(&self, hook: Hook, trial: Trial<'_>) -> Ran {
        self.namespace.inside(|| self.ground.datapath().run(hook, &trial).expect("the kernel runs it"))
    }

    /// Runs the packet, and checks that exactly one counter moved, by one packet and its bytes.
    fn step(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> (Reason, Ran) {
        let trial = Trial { ingress_ifindex: ifindex, ..Trial::new(packet, ifindex) };
        self.counted(hook, trial)
    }

    fn counted(&self, hook: Hook, trial: Trial<'_>) -> (Reason, Ran) {
        let before = self.ground.counters();
        let ran = self.run(hook, trial);
        let mut moved = Vec::new();
        for counter in self.ground.counters() {
            let old =
                before.iter().find(|old| (old.reason, old.direction) == (counter.reason, counter.direction));
            let (packets, bytes) = old.map_or((0, 0), |old| (old.packets, old.bytes));
            if counter.packets != packets {
                moved.push((counter.reason, counter.packets - packets, counter.bytes - bytes));
            }
        }
        let [(reason, 1, bytes)] = moved[..] else { panic!("not one counter moved by one: {moved:?}") };
        assert_eq!(bytes, trial.packet.len() as u64);
        (reason, ran)
    }

    /// A packet that is left to the stack is the one that came.
    fn left(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> Reason {
        let (reason, ran) = self.step(hook, ifindex, packet);
        assert_eq!(ran.code, Code::Next, "{reason:?}");
        assert_eq!(ran.packet, packet, "{reason:?}");
        reason
    }

    fn dropped(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> Reason {
        let (reason, ran) = self.step(hook, ifindex, packet);
        assert_eq!(ran.code, Code::Drop, "{reason:?}");
        assert_eq!(ran.packet, packet, "{reason:?}");
        reason
    }

    fn sent(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> (Reason, Vec<u8>) {
        let (reason, ran) = self.step(hook, ifindex, packet);
        assert_eq!(ran.code, Code::Redirect, "{reason:?}");
        (reason, ran.packet)
    }
}

/// Both families of a pair of addresses.
fn both<'a>(v4: (&'a str, &'a str), v6: (&'a str, &'a str)) -> [(&'a str, &'a str); 2] {
    [v4, v6]
}

#[test]
fn a_packet_between_two_pods_takes_one_hop() {
    let node = Node::new();
    for (src, dst) in both((POD_A4, POD_B4), (POD_A6, POD_B6)) {
        for frame in [Frame::udp(src, dst, (1000, 53)), Frame::tcp(src, dst, (1000, 80))] {
            let frame = frame.macs(HOST_A, MAC_A);
            let (reason, out) = node.sent(Hook::FromPod, node.pod_a, &frame.bytes());
            assert_eq!(reason, Reason::ForwardedLocal);
            assert_eq!(out, frame.macs(MAC_B, HOST_B).hops(63).bytes());
        }
    }
}

#[test]
fn a_shaped_pod_gets_its_packets_through_the_queue() {
    let mut node = Node::new();
    let endpoint = Endpoint {
        ifindex: node.pod_b,
        mac: MacAddr::new(MAC_B).expect("unicast"),
        host_mac: MacAddr::new(HOST_B).expect("unicast"),
        shaped: true,
    };
    let key = EndpointAddr(POD_B4.parse().expect("an address"));
    block_on(node.targets.endpoints.put(&key, &endpoint)).expect("put");
    let frame = Frame::udp(POD_A4, POD_B4, (1, 2)).macs(HOST_A, MAC_A);
    let (reason, out) = node.sent(Hook::FromPod, node.pod_a, &frame.bytes());
    assert_eq!(reason, Reason::ForwardedShaped);
    assert_eq!(out, frame.macs(MAC_B, HOST_B).hops(63).bytes());
}

#[test]
fn a_packet_to_another_node_follows_the_hosts_routes() {
    let node = Node::new();
    for (src, dst) in both((POD_A4, FAR4), (POD_A6, FAR6)) {
        let frame = Frame::tcp(src, dst, (1000, 80)).macs(HOST_A, MAC_A);
        let (reason, out) = node.sent(Hook::FromPod, node.pod_a, &frame.bytes());
        assert_eq!(reason, Reason::ForwardedRemote);
        assert_eq!(out, frame.macs(ROUTER, WIRE).hops(63).bytes());
    }
    let frame = Frame::tcp(POD_A4, "203.0.113.5", (1000, 80)).macs(HOST_A, MAC_A);
    let (reason, _) = node.sent(Hook::FromPod, node.pod_a, &frame.bytes());
    assert_eq!(reason, Reason::ForwardedUnresolved);
}

#[test]
fn a_packet_from_the_wire_reaches_its_pod() {
    let node = Node::new();
    for (src, dst) in both((FAR4, POD_B4), (FAR6, POD_B6)) {
        let frame = Frame::tcp(src, dst, (1000, 80)).macs(WIRE, ROUTER);
        let (reason, out) = node.sent(Hook::FromWire, node.wire, &frame.bytes());
        assert_eq!(reason, Reason::ForwardedLocal);
        assert_eq!(out, frame.macs(MAC_B, HOST_B).hops(63).bytes());
    }
}

#[test]
fn a_pod_cannot_use_anothers_address() {
    let node = Node::new();
    let pairs =
        [(POD_B4, POD_A4), ("0.0.0.0", POD_B4), (POD_B6, POD_A6), ("fe80::5", POD_B6), ("::", POD_B6)];
    for (src, dst) in pairs {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_A, MAC_A);
        assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::SourceAddress, "{src}");
    }
}

#[test]
fn an_interface_without_an_entry_passes_nothing() {
    let node = Node::new();
    let frame = Frame::udp(POD_A4, POD_B4, (1, 2)).macs(WIRE, MAC_A);
    assert_eq!(node.dropped(Hook::FromPod, node.wire, &frame.bytes()), Reason::UnknownLink);
}

#[test]
fn groups_and_strange_protocols_stay_in_the_pod() {
    let node = Node::new();
    let pairs =
        [(POD_A4, "224.0.0.251"), (POD_A4, "255.255.255.255"), (POD_A6, "ff02::fb"), ("fe80::5", "ff02::16")];
    for (src, dst) in pairs {
        let frame = Frame::udp(src, dst, (5353, 5353)).macs(HOST_A, MAC_A);
        assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::Multicast, "{dst}");
    }
    let mut lldp = Frame::udp(POD_A4, POD_B4, (1, 2)).macs(HOST_A, MAC_A).bytes();
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &lldp), Reason::NotIp);
}

#[test]
fn the_kernel_answers_what_it_answers_better() {
    let node = Node::new();
    for (src, dst) in both((POD_A4, POD_B4), (POD_A6, POD_B6)) {
        for hops in [0, 1] {
            let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_A, MAC_A).hops(hops);
            assert_eq!(node.left(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::TimeExceeded);
        }
    }
    for (src, dst) in both((POD_A4, NODE4), (POD_A6, NODE6)) {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_A, MAC_A);
        assert_eq!(node.left(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::ToStack);
    }
    for (src, dst) in both((POD_A4, "10.1.0.99"), (POD_A6, "fd00:1::99")) {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_A, MAC_A);
        let reason = node.left(Hook::FromPod, node.pod_a, &frame.bytes());
        assert!(matches!(reason, Reason::NoRoute | Reason::ToStack), "{reason:?}");
    }
    let frame = Frame::udp(POD_A6, "fe80::1", (1, 2)).macs(HOST_A, MAC_A);
    assert_eq!(node.left(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::LinkLocal);
}

#[test]
fn a_packet_larger_than_the_route_is_answered_and_a_segment_counts_by_its_parts() {
    let node = Node::new();
    node.namespace.ip("link set wire mtu 1400");
    for (src, dst) in both((POD_A4, FAR4), (POD_A6, FAR6)) {
        let mut frame = Frame::tcp(src, dst, (1000, 80)).macs(HOST_A, MAC_A);
        frame.payload = vec![7; 1400];
        let (reason, _) = node.sent(Hook::FromPod, node.pod_a, &frame.bytes());
        assert_eq!(reason, Reason::AnsweredTooBig);
        let packet = frame.bytes();
        let trial = Trial { gso_size: 1200, ingress_ifindex: node.pod_a, ..Trial::new(&packet, node.pod_a) };
        let (reason, ran) = node.counted(Hook::FromPod, trial);
        assert_eq!((reason, ran.code), (Reason::ForwardedRemote, Code::Redirect));
        let trial = Trial { gso_size: 1390, ..trial };
        let (reason, ran) = node.counted(Hook::FromPod, trial);
        assert_eq!((reason, ran.code), (Reason::AnsweredTooBig, Code::Redirect));
    }
}

#[test]
fn arp_is_answered_for_every_address_but_the_pods_own() {
    let node = Node::new();
    let request = |sender: [u8; 4], target: [u8; 4], op: u8| {
        let mut frame = [&[0xff; 6][..], &MAC_A, &[8, 6, 0, 1, 8, 0, 6, 4, 0, op], &MAC_A, &sender].concat();
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    };
    let own = [10, 1, 0, 2];
    let (reason, answer) = node.sent(Hook::FromPod, node.pod_a, &request(own, [169, 254, 1, 1], 1));
    assert_eq!(reason, Reason::AnsweredArp);
    let mut expected =
        [&MAC_A[..], &HOST_A, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &HOST_A, &[169, 254, 1, 1]].concat();
    expected.extend(MAC_A);
    expected.extend(own);
    assert_eq!(answer, expected);

    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &request(own, own, 1)), Reason::DuplicateProbe);
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &request([0; 4], own, 1)), Reason::DuplicateProbe);
    let foreign = request([10, 1, 0, 3], [169, 254, 1, 1], 1);
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &foreign), Reason::SourceAddress);
    assert_eq!(
        node.left(Hook::FromPod, node.pod_a, &request(own, [192, 0, 2, 1], 2)),
        Reason::NeighbourAnswer
    );
    let short = &request(own, [169, 254, 1, 1], 1)[..30];
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, short), Reason::Malformed);
}

#[test]
fn neighbour_solicitations_are_answered_for_every_address_but_the_pods_own() {
    let node = Node::new();
    let solicit = |src: &str, target: &str, option: bool| {
        let target: Ipv6Addr = target.parse().expect("an address");
        let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
        if option {
            message.extend([1, 1]);
            message.extend(MAC_A);
        }
        icmp6([0x33, 0x33, 0xff, 0, 0, 1], MAC_A, src, "ff02::1:ff00:1", 255, &message)
    };
    for src in ["fe80::aa", POD_A6] {
        for option in [true, false] {
            let (reason, answer) = node.sent(Hook::FromPod, node.pod_a, &solicit(src, "fe80::1", option));
            assert_eq!(reason, Reason::AnsweredNd);
            let target: Ipv6Addr = "fe80::1".parse().expect("an address");
            let mut message = [&[136, 0, 0, 0, 0xe0, 0, 0, 0][..], &target.octets(), &[2, 1]].concat();
            message.extend(HOST_A);
            assert_eq!(answer, icmp6(MAC_A, HOST_A, "fe80::1", src, 255, &message));
        }
    }
    for src in ["::", POD_A6] {
        let probe = solicit(src, POD_A6, false);
        assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &probe), Reason::DuplicateProbe);
    }
    let foreign = solicit(POD_B6, "fe80::1", true);
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &foreign), Reason::SourceAddress);
    let router = icmp6([0x33; 6], MAC_A, "fe80::aa", "ff02::2", 255, &[133, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &router), Reason::RouterSolicitation);
    let own: Ipv6Addr = POD_A6.parse().expect("an address");
    let advertise = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &own.octets()].concat();
    let answer = icmp6(HOST_A, MAC_A, POD_A6, "fe80::1", 255, &advertise);
    assert_eq!(node.left(Hook::FromPod, node.pod_a, &answer), Reason::NeighbourAnswer);
}

#[test]
fn a_host_port_leads_to_its_pod_and_the_answer_back() {
    let mut node = Node::new();
    node.pod(node.pod_b, (POD_B4, POD_B6), (MAC_B, HOST_B), |link| link.host_ports = true);
    for (far, host, pod) in [(FAR4, NODE4, POD_B4), (FAR6, NODE6, POD_B6)] {
        node.host_port(host, pod);
        for new in [Frame::tcp, Frame::udp] {
            let question = new(far, host, (4321, 80)).macs(WIRE, ROUTER);
            let (reason, inside) = node.sent(Hook::FromWire, node.wire, &question.bytes());
            assert_eq!(reason, Reason::HostPortIn);
            assert_eq!(inside, new(far, pod, (4321, 8080)).macs(MAC_B, HOST_B).hops(63).bytes());

            let answer = new(pod, far, (8080, 4321)).macs(HOST_B, MAC_B);
            let (reason, outside) = node.sent(Hook::FromPod, node.pod_b, &answer.bytes());
            assert_eq!(reason, Reason::ForwardedRemote);
            assert_eq!(outside, new(host, far, (80, 4321)).macs(ROUTER, WIRE).hops(63).bytes());
        }
        let other = Frame::tcp(far, host, (4321, 81)).macs(WIRE, ROUTER);
        assert_eq!(node.left(Hook::FromWire, node.wire, &other.bytes()), Reason::ToStack);
    }
}

#[test]
fn a_pod_reaches_another_through_its_host_port() {
    let mut node = Node::new();
    node.pod(node.pod_b, (POD_B4, POD_B6), (MAC_B, HOST_B), |link| link.host_ports = true);
    for (near, host, pod) in [(POD_A4, NODE4, POD_B4), (POD_A6, NODE6, POD_B6)] {
        node.host_port(host, pod);
        let question = Frame::tcp(near, host, (4321, 80)).macs(HOST_A, MAC_A);
        let (reason, inside) = node.sent(Hook::FromPod, node.pod_a, &question.bytes());
        assert_eq!(reason, Reason::HostPortIn);
        assert_eq!(inside, Frame::tcp(near, pod, (4321, 8080)).macs(MAC_B, HOST_B).hops(63).bytes());
        let answer = Frame::tcp(pod, near, (8080, 4321)).macs(HOST_B, MAC_B);
        let (reason, back) = node.sent(Hook::FromPod, node.pod_b, &answer.bytes());
        assert_eq!(reason, Reason::ForwardedLocal);
        assert_eq!(back, Frame::tcp(host, near, (80, 4321)).macs(MAC_A, HOST_A).hops(63).bytes());
    }
}

#[test]
fn udp_without_a_checksum_stays_without_one() {
    let mut node = Node::new();
    node.host_port(NODE4, POD_B4);
    let mut question = Frame::udp(FAR4, NODE4, (4321, 80)).macs(WIRE, ROUTER);
    question.checksum = false;
    let (_, inside) = node.sent(Hook::FromWire, node.wire, &question.bytes());
    let mut expected = Frame::udp(FAR4, POD_B4, (4321, 8080)).macs(MAC_B, HOST_B).hops(63);
    expected.checksum = false;
    assert_eq!(inside, expected.bytes());
}

#[test]
fn later_fragments_of_a_host_port_are_left_to_the_stack() {
    let mut node = Node::new();
    node.host_port(NODE4, POD_B4);
    let mut fragment = Frame::udp(FAR4, NODE4, (4321, 80)).macs(WIRE, ROUTER).bytes();
    fragment[20..22].copy_from_slice(&[0, 100]);
    assert_eq!(node.left(Hook::FromWire, node.wire, &fragment), Reason::Fragment);
}

#[test]
fn a_host_port_whose_pod_is_gone_is_left_to_the_stack() {
    let mut node = Node::new();
    node.host_port(NODE4, "10.1.0.77");
    let question = Frame::tcp(FAR4, NODE4, (4321, 80)).macs(WIRE, ROUTER);
    assert_eq!(node.left(Hook::FromWire, node.wire, &question.bytes()), Reason::BackendAbsent);
}

#[test]
fn answers_to_what_the_stack_forwarded_return_through_the_stack() {
    let node = Node::new();
    for (far, pod) in both((FAR4, POD_B4), (FAR6, POD_B6)) {
        let answer = Frame::tcp(pod, far, (8080, 4321)).macs(HOST_B, MAC_B);
        let (before, _) = node.sent(Hook::FromPod, node.pod_b, &answer.bytes());
        assert_eq!(before, Reason::ForwardedRemote);

        let question = Frame::tcp(far, pod, (4321, 8080)).macs(MAC_B, HOST_B).bytes();
        let trial = Trial { ingress_ifindex: node.wire, ..Trial::new(&question, node.pod_b) };
        let (reason, ran) = node.counted(Hook::ToPod, trial);
        assert_eq!((reason, ran.code, ran.packet), (Reason::DeliveredTracked, Code::Next, question));

        assert_eq!(node.left(Hook::FromPod, node.pod_b, &answer.bytes()), Reason::StackReturn);
        let other = Frame::tcp(pod, far, (8080, 4322)).macs(HOST_B, MAC_B);
        let (reason, _) = node.sent(Hook::FromPod, node.pod_b, &other.bytes());
        assert_eq!(reason, Reason::ForwardedRemote);
    }
}

#[test]
fn the_agent_writing_a_link_anew_forgets_no_tracked_flow() {
    let mut node = Node::new();
    let question = Frame::tcp(FAR4, POD_B4, (4321, 8080)).macs(MAC_B, HOST_B).bytes();
    node.run(Hook::ToPod, Trial { ingress_ifindex: node.wire, ..Trial::new(&question, node.pod_b) });
    node.pod(node.pod_b, (POD_B4, POD_B6), (MAC_B, HOST_B), |_| {});
    let answer = Frame::tcp(POD_B4, FAR4, (8080, 4321)).macs(HOST_B, MAC_B);
    assert_eq!(node.left(Hook::FromPod, node.pod_b, &answer.bytes()), Reason::StackReturn);
}

#[test]
fn what_the_node_itself_sends_is_not_tracked() {
    let node = Node::new();
    let probe = Frame::tcp(NODE4, POD_B4, (4321, 8080)).macs(MAC_B, HOST_B).bytes();
    let (reason, _) = node.counted(Hook::ToPod, Trial::new(&probe, node.pod_b));
    assert_eq!(reason, Reason::Delivered);
}

#[test]
fn a_chained_pod_is_checked_and_left_to_the_stack() {
    let mut node = Node::new();
    node.pod(node.pod_a, (POD_A4, POD_A6), (MAC_A, HOST_A), |link| link.chained = true);
    for (src, dst) in both((POD_A4, POD_B4), (POD_A6, POD_B6)) {
        let frame = Frame::udp(src, dst, (1, 2)).macs(HOST_A, MAC_A);
        assert_eq!(node.left(Hook::FromPod, node.pod_a, &frame.bytes()), Reason::Chained);
        let spoofed = Frame::udp(dst, src, (1, 2)).macs(HOST_A, MAC_A);
        assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &spoofed.bytes()), Reason::SourceAddress);
    }
}

#[test]
fn the_wire_is_left_to_the_stack_but_for_pods() {
    let node = Node::new();
    for (src, dst) in both((FAR4, NODE4), (FAR6, NODE6)) {
        let frame = Frame::tcp(src, dst, (1000, 22)).macs(WIRE, ROUTER);
        assert_eq!(node.left(Hook::FromWire, node.wire, &frame.bytes()), Reason::ToStack);
        let other = Frame::tcp(src, POD_B4, (1000, 22)).macs([2, 9, 9, 9, 9, 9], ROUTER);
        if src == FAR4 {
            assert_eq!(node.left(Hook::FromWire, node.wire, &other.bytes()), Reason::OtherHost);
        }
    }
    let mut arp = vec![0; 42];
    arp[..6].copy_from_slice(&WIRE);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(node.left(Hook::FromWire, node.wire, &arp), Reason::NotIpWire);
}

#[test]
fn headers_that_contradict_themselves_end_there() {
    let node = Node::new();
    let good = Frame::udp(POD_A4, POD_B4, (1, 2)).macs(HOST_A, MAC_A).bytes();
    let change = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    for bad in [change(14, 0x65), change(14, 0x44), change(16, 0xff), change(17, 19)] {
        assert_eq!(node.dropped(Hook::FromPod, node.pod_a, &bad), Reason::Malformed);
    }
    let mut options = good.clone();
    options[14] = 0x46;
    assert_eq!(node.left(Hook::FromPod, node.pod_a, &options), Reason::IpOptions);
}
