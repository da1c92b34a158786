// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec;

use proptest::prelude::*;

use super::*;
use crate::{V4, V6};

fn ports(protocol: u8, src: u16, dst: u16) -> Ports {
    Ports { protocol, src: src.to_be_bytes(), dst: dst.to_be_bytes(), ..Ports::NONE }
}

fn number(port: [u8; 2]) -> u16 {
    u16::from_be_bytes(port)
}

/// The series of the flow from `pod` to `remote`.
fn probe(pod: Address, remote: Address, ports: &Ports) -> Probe {
    let key = NatKey {
        remote,
        node: [0; 4],
        remote_port: ports.dst,
        node_port: [0; 2],
        protocol: ports.protocol,
        padding: [0; 3],
    };
    Probe::new(&key, &Nat::new(pod, ports.src, 0))
}

#[test]
fn the_source_port_comes_first_unless_it_is_a_low_one() {
    assert_eq!(number(probe([1; 4], [2; 4], &ports(6, 40_000, 443)).port(0)), 40_000);
    assert!(number(probe([1; 4], [2; 4], &ports(17, 123, 123)).port(0)) >= LOWEST);
}

#[test]
fn sixty_thousand_flows_to_one_destination_find_their_ports() {
    let mut taken = vec![false; 65_536];
    let mut tried = 0;
    for flow in 0..60_000u32 {
        // Pods that all count up from the same port.
        let (pod, port) = (flow / 10_000, 32_768 + flow % 10_000);
        let ports = ports(6, u16::try_from(port).expect("a port"), 443);
        let probe = probe(V4::key(pod), V4::key(99), &ports);
        let attempt = (0..probes(6)).find(|attempt| !taken[usize::from(number(probe.port(*attempt)))]);
        let attempt = attempt.unwrap_or_else(|| panic!("flow {flow} finds no port"));
        taken[usize::from(number(probe.port(attempt)))] = true;
        tried += attempt + 1;
    }
    assert!(tried < 60_000 * 4, "{tried}");
}

#[test]
fn sctp_keeps_its_port_or_goes_without() {
    assert_eq!((probes(SCTP), probes(6)), (1, PROBES));
}

proptest! {
    #[test]
    fn the_answer_finds_the_flow_of_the_pod(
        pod: u32, node: u32, remote: u32, src in 1024u16.., dst: u16, port: [u8; 2], protocol: u8,
    ) {
        let echo = matches!(protocol, 1 | 58);
        let sent = ports(protocol, src, if echo { src } else { dst });
        let key = NatKey::of_sent::<V4>(remote, node, &sent, port);
        let nat = Nat { pod: V4::key(pod), pod_port: sent.src, ..Nat::default() };
        let answer = Ports { src: if echo { port } else { sent.dst }, dst: port, ..sent };
        prop_assert_eq!(NatKey::of_received::<V4>(remote, node, &answer), key);
        prop_assert_eq!(key.flow(&nat), CtKey::new::<V4>(pod, remote, &sent).0);
        prop_assert!(nat.is_of(&V4::key(pod), sent.src));
        prop_assert!(!nat.is_of(&V4::key(!pod), sent.src));
    }

    #[test]
    fn a_port_is_never_a_low_one(pod: [u32; 4], remote: [u32; 4], src: u16, dst: u16, attempt in 0..PROBES) {
        let probe = probe(V6::key(pod), remote, &ports(6, src, dst));
        prop_assert!(number(probe.port(attempt)) >= LOWEST);
    }
}
