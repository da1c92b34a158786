// SPDX-License-Identifier: Apache-2.0
//! Streams through the tunnel, whoever cuts up their segments and sums their packets: the pod's stack, the node's, or
//! nobody, as the link takes segments whole.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ground::frame::checksum;
use ground::two_nodes::{Capture, ONE, PORT, TWO, TwoNodes, Underlay, ip};
use rhumb_ebpf::{Hook, Reason};

const PATIENCE: Duration = Duration::from_secs(10);
/// Both families of the pods' addresses.
const PODS: [(&str, &str); 2] = [(ONE.pod.0, TWO.pod.0), (ONE.pod.1, TWO.pod.1)];
/// Where the frame inside begins, with an outer packet of IPv4.
const INSIDE: usize = 14 + 20 + 8 + 8;

/// Sends much from the first node's pod to the second's.
fn stream(nodes: &TwoNodes, to: &str) {
    let to = SocketAddr::new(ip(to), 80);
    let listener = nodes.two.pod.inside(|| TcpListener::bind(to).expect("bound"));
    let data: Vec<u8> = (0u32..).flat_map(u32::to_le_bytes).take(2_000_000).collect();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("accepted");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            let mut seen = vec![0; data.len()];
            stream.read_exact(&mut seen).expect("received");
            seen
        });
        let connected = nodes.one.pod.inside(|| TcpStream::connect_timeout(&to, PATIENCE));
        let mut stream = connected.unwrap_or_else(|error| panic!("connect {to}: {error}"));
        stream.write_all(&data).expect("sent");
        assert!(serving.join().expect("served") == data);
    });
}

/// What the first node sent into the tunnel over IPv4, by what the router saw of it.
fn wrapped(capture: &Capture) -> Vec<Vec<u8>> {
    let from = ground::frame::octets(ip(ONE.node.0));
    let mut frames = capture.frames();
    // The router's own copies have one hop less.
    frames.retain(|frame| {
        frame[12..14] == [8, 0] && frame[22..24] == [64, 17] && frame[26..30] == from && frame.len() > INSIDE
    });
    frames
}

/// Whether the checksum of the TCP packet in a frame is right.
fn is_summed(frame: &[u8]) -> bool {
    let (addresses, tcp) = match frame[12..14] {
        [8, 0] => (&frame[26..34], &frame[34..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))]),
        _ => (&frame[22..54], &frame[54..]),
    };
    let length = u32::try_from(tcp.len()).expect("short").to_be_bytes();
    checksum(&[addresses, &length, &[0, 0, 0, 6], tcp].concat()) == 0
}

/// The settings of a link, by `ethtool -K`.
fn offloads(namespace: &ground::Namespace, link: &str, words: &str) {
    let words: Vec<&str> = ["-K", link].into_iter().chain(words.split_whitespace()).collect();
    namespace.run("ethtool", &words);
}

#[test]
fn a_link_that_takes_segments_whole_is_given_them_whole() {
    let nodes = TwoNodes::new(Underlay::V4);
    for (_, far) in PODS {
        let capture = Capture::open(&nodes.router);
        stream(&nodes, far);
        let seen = wrapped(&capture);
        let longest = seen.iter().map(Vec::len).max().expect("something was sent");
        assert!(longest > 10_000, "{longest}");
        assert!(seen.iter().all(|frame| checksum(&frame[14..34]) == 0));
    }
    assert!(nodes.one.count(Hook::ToTunnel, Reason::TunnelKeyed) < 10);
}

#[test]
fn a_link_that_does_nothing_is_given_packets_that_fit_and_are_summed() {
    for (of_pod, settings) in [(false, "tx off tso off gso off"), (true, "tx off tso off gso off")] {
        let nodes = TwoNodes::new(Underlay::V4);
        if of_pod {
            offloads(&nodes.one.pod, "eth0", settings);
        } else {
            offloads(&nodes.one.node, "wire", settings);
        }
        for (_, far) in PODS {
            let capture = Capture::open(&nodes.router);
            stream(&nodes, far);
            let seen = wrapped(&capture);
            assert!(seen.len() > 1_000, "{}", seen.len());
            for frame in &seen {
                assert!(frame.len() <= 1514, "{}", frame.len());
                assert_eq!(checksum(&frame[14..34]), 0);
                assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
                assert_eq!(frame[36..38], PORT.to_be_bytes());
                assert_eq!(usize::from(u16::from_be_bytes([frame[38], frame[39]])), frame.len() - 34);
                assert_eq!((&frame[40..42], &frame[42..50]), (&[0, 0][..], &[8, 0, 0, 0, 0, 0, 0, 0][..]));
                assert!(is_summed(&frame[INSIDE..]), "of_pod: {of_pod}");
            }
            // Whatever cuts packets up on their way keeps the pieces of two apart by their numbers.
            let numbers: BTreeSet<&[u8]> = seen.iter().map(|frame| &frame[18..20]).collect();
            assert!(numbers.len() * 10 > seen.len() * 9, "{} of {}", numbers.len(), seen.len());
        }
        assert!(nodes.one.count(Hook::ToTunnel, Reason::TunnelKeyed) < 10);
    }
}

#[test]
fn streams_pass_whatever_the_links_do() {
    for underlay in Underlay::BOTH {
        for settings in ["tx-udp_tnl-segmentation off", "tx off", "tso off", "gso off tso off", "rx off"] {
            let nodes = TwoNodes::new(underlay);
            for side in [&nodes.one, &nodes.two] {
                offloads(&side.node, "wire", settings);
            }
            for (_, far) in PODS {
                stream(&nodes, far);
            }
        }
    }
}
