// SPDX-License-Identifier: Apache-2.0
//! What the kernel side tells of packets: of drops always, of others to those who watch, never more than the rate.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::executor::block_on;
use ground::frame::{Frame, icmp6};
use ground::{Ground, Namespace};
use rhumb_ebpf::{
    Direction, Endpoint, EndpointAddr, Events, Hook, IfIndex, PacketEvent, PodLink, Reason, Transport, Trial,
    Verdict, Wish, boot_clock,
};
use rhumb_model::{MacAddr, Target as _};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

const POD: (&str, &str) = ("10.1.0.2", "fd00:1::2");
const OTHER: (&str, &str) = ("10.1.0.3", "fd00:1::3");
const SPOOFED: (&str, &str) = ("10.9.9.9", "fd99::9");

/// One pod and another to send to.
struct Node {
    namespace: Namespace,
    ground: Ground,
    pod: u32,
    events: Events,
}

impl Node {
    fn new() -> Self {
        let (namespace, ground) = (Namespace::new(), Ground::new());
        let (mac, host_mac) = (MacAddr::from_seed(1), MacAddr::from_seed(2));
        namespace.ip(&format!("link add one address {host_mac} type veth peer name two"));
        let pod = namespace.ifindex("one");
        let mut targets = ground.targets();
        let v4: Ipv4Addr = POD.0.parse().expect("an address");
        let v6: Ipv6Addr = POD.1.parse().expect("an address");
        let link = PodLink {
            v4: Some(v4),
            v6: Some(v6),
            mac,
            host_mac,
            chained: false,
            host_ports: false,
            interface: None,
        };
        block_on(targets.pod_links.put(&IfIndex(pod), &link)).expect("put");
        for addr in [OTHER.0, OTHER.1] {
            let endpoint = Endpoint { ifindex: pod, mac, host_mac, shaped: false };
            block_on(targets.endpoints.put(&EndpointAddr(address(addr)), &endpoint)).expect("put");
        }
        let events = ground.datapath().events().expect("opened");
        Self { namespace, ground, pod, events }
    }

    fn send(&self, frame: &[u8], repeat: u32) {
        let trial = Trial { repeat, ..Trial::new(frame, self.pod) };
        self.namespace
            .inside(|| self.ground.datapath().run(Hook::FromPod, &trial).expect("the kernel runs it"));
    }

    fn told(&mut self) -> Vec<PacketEvent> {
        std::iter::from_fn(|| self.events.next()).collect()
    }

    fn watch(&mut self, wish: &Wish) {
        self.events.watch(Some(wish), boot_clock() + Duration::from_secs(60)).expect("written");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_drop_makes_one_event_that_says_all() {
    let mut node = Node::new();
    for (src, dst) in [(SPOOFED.0, OTHER.0), (SPOOFED.1, OTHER.1)] {
        let before = boot_clock();
        let tcp = Frame::tcp(src, dst, (1000, 80)).bytes();
        let udp = Frame::udp(src, dst, (2000, 53)).bytes();
        node.send(&tcp, 1);
        node.send(&udp, 1);
        let told = node.told();
        assert_eq!(told.len(), 2, "{told:?}");
        let (first, second) = (&told[0], &told[1]);
        assert!(before <= first.at && first.at <= second.at && second.at <= boot_clock());
        assert_eq!(
            *first,
            PacketEvent {
                at: first.at,
                verdict: Verdict::Drop,
                reason: Reason::SourceAddress,
                direction: Direction::FromPod,
                ifindex: node.pod,
                length: u32::try_from(tcp.len()).expect("short"),
                ethertype: if src == SPOOFED.0 { 0x0800 } else { 0x86dd },
                addrs: Some((address(src), address(dst))),
                protocol: Some(6),
                transport: Some(Transport::Tcp { ports: (1000, 80), flags: 0x10 }),
            }
        );
        assert_eq!(second.transport, Some(Transport::Ports(2000, 53)));
    }
}

#[test]
fn messages_and_foreign_protocols_are_told_as_they_are() {
    let mut node = Node::new();
    let echo = icmp6([2; 6], [2; 6], SPOOFED.1, OTHER.1, 64, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let mut foreign = vec![2; 12];
    foreign.extend([0x88, 0xcc]);
    foreign.resize(60, 0);
    let mut arp = vec![2; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 9, 9, 9, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1]);
    for frame in [&echo, &foreign, &arp] {
        node.send(frame, 1);
    }
    let told = node.told();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!((told[0].protocol, told[0].transport), (Some(58), Some(Transport::Icmp(128, 0))));
    assert_eq!((told[1].reason, told[1].ethertype, told[1].addrs), (Reason::NotIp, 0x88cc, None));
    assert_eq!((told[2].protocol, told[2].addrs), (None, Some((address("10.9.9.9"), address("10.1.0.1")))));
}

#[test]
fn forwarded_packets_are_told_only_to_those_who_watch() {
    let mut node = Node::new();
    for (src, dst) in [(POD.0, OTHER.0), (POD.1, OTHER.1)] {
        let frame = Frame::udp(src, dst, (7, 9)).bytes();
        node.send(&frame, 1);
        assert_eq!(node.told(), []);

        node.watch(&Wish::default());
        node.send(&frame, 1);
        let told = node.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].verdict, told[0].reason), (Verdict::Redirect, Reason::ForwardedLocal));
        assert_eq!(told[0].addrs, Some((address(src), address(dst))));

        let others = [
            Wish { addrs: vec![address("10.1.0.77")], reason: None },
            Wish { addrs: Vec::new(), reason: Some(Reason::ToStack) },
        ];
        for wish in others {
            node.watch(&wish);
            node.send(&frame, 1);
            assert_eq!(node.told(), [], "{wish:?}");
        }
        let own =
            Wish { addrs: vec![address("10.1.0.77"), address(dst)], reason: Some(Reason::ForwardedLocal) };
        node.watch(&own);
        node.send(&frame, 1);
        assert_eq!(node.told().len(), 1);

        // A watcher that died is not told for ever.
        node.events.watch(Some(&Wish::default()), boot_clock()).expect("written");
        node.send(&frame, 1);
        node.events.watch(None, Duration::ZERO).expect("written");
        node.send(&frame, 1);
        assert_eq!(node.told(), []);
    }
}

#[test]
fn a_flood_of_drops_is_told_in_part_and_counted_in_full() {
    const FLOOD: u32 = 10_000;
    let mut node = Node::new();
    let (spoofed, other) =
        (Frame::udp(SPOOFED.0, OTHER.0, (1, 2)).bytes(), Frame::udp(POD.0, "224.0.0.1", (1, 2)).bytes());
    node.send(&spoofed, FLOOD);
    node.send(&other, 1);
    let told = node.told();
    let of = |reason| u64::try_from(told.iter().filter(|event| event.reason == reason).count()).expect("few");
    let flood = of(Reason::SourceAddress);
    assert!((100..1_000).contains(&flood), "{flood}");
    assert_eq!(of(Reason::Multicast), 1, "another reason has a share of its own");
    let untold = node.events.untold().expect("read");
    assert_eq!(untold.len(), 1, "{untold:?}");
    assert_eq!((untold[0].reason, untold[0].full), (Reason::SourceAddress, 0));
    assert_eq!(flood + untold[0].limited, u64::from(FLOOD));
}

#[test]
fn a_ring_that_nobody_reads_loses_the_newest_and_counts_them() {
    let mut node = Node::new();
    node.watch(&Wish::default());
    let frames = [POD, OTHER].map(|(v4, _)| Frame::udp(POD.0, v4, (1, 2)).hops(255).bytes());
    let mut sent = 0;
    while node.events.untold().expect("read").iter().all(|untold| untold.full == 0) {
        for frame in &frames {
            node.send(frame, 250);
            sent += 250;
        }
        assert!(sent < 1_000_000, "the ring never fills");
    }
    let told = u64::try_from(node.told().len()).expect("few");
    let untold: u64 = node.events.untold().expect("read").iter().map(|u| u.full + u.limited).sum();
    assert_eq!(told + untold, sent);
    node.send(&frames[1], 1);
    assert_eq!(node.told().len(), 1, "what is read makes room");
}

#[test]
fn the_reader_is_woken_by_many_events_and_not_by_few() {
    let mut node = Node::new();
    let epoll = epoll::create(CreateFlags::CLOEXEC).expect("made");
    let edge = EventFlags::IN | EventFlags::ET;
    epoll::add(&epoll, &node.events, EventData::new_u64(0), edge).expect("added");
    let woken = |patience: Timespec| {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        epoll::wait(&epoll, events.as_mut_slice(), Some(&patience)).expect("waited") > 0
    };
    let (now, soon) = (Timespec { tv_sec: 0, tv_nsec: 0 }, Timespec { tv_sec: 10, tv_nsec: 0 });
    node.watch(&Wish::default());
    let frame = Frame::udp(POD.0, OTHER.0, (1, 2)).hops(255).bytes();
    node.send(&frame, 100);
    assert!(!woken(now), "the reader looks by itself for so few");
    // Each takes 64 bytes and a header of 8; a quarter of the ring is 64 KiB.
    for _ in 0..4 {
        node.send(&frame, 250);
    }
    assert!(woken(soon), "a quarter of the ring waits");
    assert_eq!(node.told().len(), 1_100);
    node.send(&frame, 1);
    assert!(!woken(now), "what was read is forgotten");
}

#[test]
fn events_of_the_time_without_a_reader_wait_for_the_next_one() {
    let mut node = Node::new();
    node.send(&Frame::udp(SPOOFED.0, OTHER.0, (1, 2)).bytes(), 1);
    node.ground.reopen();
    node.events = node.ground.datapath().events().expect("opened");
    assert_eq!(node.told().len(), 1);
}
