// SPDX-License-Identifier: Apache-2.0
//! Any bytes at all: a program ends with a known verdict, counts once, and leaves alone what it does not send.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use futures::executor::block_on;
use ground::frame::{Frame, icmp6, ip};
use ground::{Ground, Namespace};
use rhumb_ebpf::{
    Code, Endpoint, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex, PodLink, Reason, Remote,
    RemotePrefix, Trial, TunnelLink, Uplink,
};
use rhumb_model::{MacAddr, Target as _};

const ROUNDS: usize = 3_000;

/// Marsaglia's xorshift: the same packets every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % end
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

/// An ICMP error from `src` to `dst` about a packet with `about` as an end.
fn error(src: &str, dst: &str, about: &str) -> Vec<u8> {
    let quoted = Frame::udp("198.51.100.1", about, (80, 4_000)).bytes();
    let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat();
    let [src, dst] = [src, dst].map(|addr| addr.parse().expect("an address"));
    ip([2; 6], [4; 6], src, dst, 64, 1, &message)
}

fn seeds() -> Vec<Vec<u8>> {
    let arp = [
        &[0xff; 6][..],
        &[2; 6],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &[2; 6],
        &[10, 0, 0, 1],
        &[0; 6],
        &[9; 4],
        &[0; 26],
    ]
    .concat();
    let mut solicit = vec![135, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    solicit.extend([1, 1, 2, 2, 2, 2, 2, 2]);
    let large = |src, dst, port| Frame { payload: vec![1; 1400], ..Frame::udp(src, dst, (1, port)) }.bytes();
    vec![
        large("10.0.0.1", "10.9.0.1", 80),
        large("fd00::1", "fd00:9::1", 80),
        Frame::udp("10.0.0.1", "198.51.100.9", (1, 8472)).bytes(),
        Frame::tcp("10.0.0.1", "10.0.0.2", (1, 80)).bytes(),
        Frame::udp("10.0.0.1", "192.0.2.1", (1, 80)).bytes(),
        Frame::tcp("fd00::1", "fd00::2", (1, 80)).bytes(),
        Frame::udp("fd00::1", "2001:db8::1", (1, 80)).bytes(),
        icmp6([2; 6], [4; 6], "fd00::1", "ff02::1:ff00:1", 255, &solicit),
        Frame::udp("10.0.0.2", "198.51.100.1", (1, 80)).bytes(),
        Frame::tcp("fd00::2", "2001:db8:9::1", (4_000, 80)).bytes(),
        Frame::udp("198.51.100.1", "192.0.2.1", (80, 4_000)).bytes(),
        error("198.51.100.1", "192.0.2.1", "10.0.0.2"),
        error("10.0.0.2", "198.51.100.1", "10.0.0.2"),
        arp,
    ]
}

fn mutate(packet: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(6) {
        let at = random.below(packet.len());
        packet[at] = random.byte();
    }
    if random.below(4) == 0 {
        let length = 54 + random.below(packet.len().max(55) - 54);
        packet.truncate(length);
    }
    if random.below(8) == 0 {
        let kind = random.below(3);
        packet[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [8, 6]][kind]);
    }
    if random.below(10) == 0 {
        for byte in &mut packet[14..] {
            *byte = random.byte();
        }
    }
}

#[test]
fn any_bytes_end_with_a_known_verdict() {
    let (ground, namespace) = (Ground::new(), Namespace::new());
    namespace.ip("link add one type veth peer name two");
    let ifindex = namespace.ifindex("one");
    let mut targets = ground.targets();
    let link = PodLink {
        v4: Some([10, 0, 0, 1].into()),
        v6: Some("fd00::1".parse().expect("an address")),
        mac: MacAddr::from_seed(1),
        host_mac: MacAddr::from_seed(2),
        chained: false,
        host_ports: true,
        interface: None,
    };
    block_on(targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
    for addr in ["10.0.0.2", "fd00::2"] {
        let endpoint = Endpoint { ifindex, mac: link.mac, host_mac: link.host_mac, shaped: false };
        block_on(targets.endpoints.put(&EndpointAddr(addr.parse().expect("an address")), &endpoint))
            .expect("put");
    }
    for (node, pod) in [("192.0.2.1", "10.0.0.2"), ("2001:db8::1", "fd00::2")] {
        for protocol in [6, 17] {
            let port = HostPort { addr: node.parse().expect("an address"), port: 80, protocol };
            let backend = HostPortBackend { addr: pod.parse().expect("an address"), port: 8080 };
            block_on(targets.host_ports.put(&port, &backend)).expect("put");
        }
    }
    let tunnel = TunnelLink { port: 8472, v4: None, v6: None };
    block_on(targets.tunnel_links.put(&IfIndex(ifindex), &tunnel)).expect("put");
    for (prefix, node) in [("10.9.0.0/16", false), ("fd00:9::/64", false), ("198.51.100.9/32", true)] {
        let key = RemotePrefix(prefix.parse().expect("a prefix"));
        let tunnel = Some("198.51.100.9".parse().expect("an address"));
        let remote = Remote { tunnel, mtu: 1300, keep_source: true, node, ..Remote::default() };
        block_on(targets.ipcache.put(&key, &remote)).expect("put");
    }
    let uplink = Uplink {
        v4: Some([192, 0, 2, 1].into()),
        v6: Some("2001:db8::1".parse().expect("an address")),
        mark: None,
    };
    block_on(targets.uplinks.put(&IfIndex(ifindex), &uplink)).expect("put");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let seeds = seeds();
    let mut runs = 0;
    namespace.inside(|| {
        for _ in 0..ROUNDS {
            let mut packet = seeds[random.below(seeds.len())].clone();
            mutate(&mut packet, &mut random);
            for hook in Hook::ALL {
                let trial = Trial { ingress_ifindex: ifindex, ..Trial::new(&packet, ifindex) };
                let ran = ground.datapath().run(hook, &trial).expect("the kernel runs it");
                runs += 1;
                match ran.code {
                    Code::Redirect => {}
                    // On their way into the tunnel, packets get the addresses that they have there.
                    Code::Next if hook == Hook::ToTunnel => assert_eq!(ran.packet[12..], packet[12..]),
                    // Masqueraded.
                    Code::Next if hook == Hook::ToWire => assert_eq!(ran.packet.len(), packet.len()),
                    Code::Next | Code::Drop => assert_eq!(ran.packet, packet, "{hook}"),
                    Code::Other(code) => panic!("{hook}: verdict {code} for {packet:02x?}"),
                }
            }
        }
    });
    for reason in [Reason::AnsweredTooBig, Reason::ForwardedTunnel, Reason::SpoofedTunnel] {
        assert!(ground.count(Hook::FromPod, reason) > 0, "{reason:?}");
    }
    let counted: u64 = ground.counters().iter().map(|counter| counter.packets).sum();
    assert_eq!(counted, runs);
}
