// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const POD: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OWN4: [u8; 4] = [10, 0, 0, 1];
const GATEWAY4: [u8; 4] = [169, 254, 1, 1];
const OWN6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa];
const GATEWAY6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn words(o: [u8; 16]) -> Address {
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]))
}

fn link() -> Link {
    Link {
        v4: u32::from_ne_bytes(OWN4),
        v6: words(OWN6),
        flags: Link::HAS_V4 | Link::HAS_V6,
        ..Link::default()
    }
}

fn arp_frame(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame =
        [&[0xff; 6][..], &POD, &ethernet::ARP, &ARP_ETHERNET_IPV4, &[0, operation], &POD, &sender].concat();
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

fn judge_arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Result<(), Reason> {
    arp(arp_frame(operation, sender, target).as_slice(), &link()).map(|_| ())
}

#[test]
fn an_arp_request_is_answered_with_the_mac_given() {
    let request = arp(arp_frame(1, OWN4, GATEWAY4).as_slice(), &link()).expect("to be answered");
    let answer = request.answer(HOST);
    let expected =
        [&POD[..], &HOST, &ethernet::ARP, &ARP_ETHERNET_IPV4, &[0, 2], &HOST, &GATEWAY4, &POD, &OWN4]
            .concat();
    assert_eq!(answer.as_slice(), expected);
}

#[test]
fn arp_that_is_not_answered_says_why() {
    assert_eq!(judge_arp(1, OWN4, OWN4), Err(Reason::DuplicateProbe));
    assert_eq!(judge_arp(1, [0; 4], GATEWAY4), Err(Reason::DuplicateProbe));
    assert_eq!(judge_arp(1, [10, 0, 0, 2], GATEWAY4), Err(Reason::SourceAddress));
    assert_eq!(judge_arp(2, OWN4, GATEWAY4), Err(Reason::NeighbourAnswer));
    assert_eq!(judge_arp(2, [10, 0, 0, 2], GATEWAY4), Err(Reason::SourceAddress));
    assert_eq!(judge_arp(3, OWN4, GATEWAY4), Err(Reason::Malformed));
    let mut token_ring = arp_frame(1, OWN4, GATEWAY4);
    token_ring[15] = 6;
    assert_eq!(arp(token_ring.as_slice(), &link()), Err(Reason::Malformed));
}

#[test]
fn a_pod_without_ipv4_is_not_answered() {
    let frame = arp_frame(1, OWN4, GATEWAY4);
    assert_eq!(arp(frame.as_slice(), &Link::default()), Err(Reason::SourceAddress));
}

fn nd_frame(kind: u8, src: [u8; 16], target: [u8; 16]) -> (Vec<u8>, Ip<V6>) {
    let mut frame = [&[0x33; 6][..], &POD, &ethernet::IPV6, &[0x60, 0, 0, 0, 0, 24, ICMPV6, 255]].concat();
    frame.extend(src);
    frame.extend(GATEWAY6);
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target);
    let ip = V6::parse(frame.as_slice(), u32::try_from(frame.len()).expect("short")).expect("well-formed");
    (frame, ip)
}

fn judge_nd(kind: u8, src: [u8; 16], target: [u8; 16]) -> Result<(), Reason> {
    let (frame, ip) = nd_frame(kind, src, target);
    assert!(is_discovery(frame.as_slice(), &ip));
    neighbour_discovery(frame.as_slice(), &ip, &link()).map(|_| ())
}

#[test]
fn a_solicitation_is_answered_with_a_right_checksum() {
    for src in [LOCAL, OWN6] {
        let (frame, ip) = nd_frame(SOLICITATION, src, GATEWAY6);
        let solicitation = neighbour_discovery(frame.as_slice(), &ip, &link()).expect("to be answered");
        let answer = solicitation.answer(HOST);
        assert_eq!((&answer[..6], &answer[6..12]), (&POD[..], &HOST[..]));
        assert_eq!((&answer[22..38], &answer[38..54]), (&GATEWAY6[..], &src[..]));
        assert_eq!((answer[21], answer[54], answer[58] & 0x40), (255, ADVERTISEMENT, 0x40));
        assert_eq!(
            (&answer[62..78], &answer[78..80], &answer[80..]),
            (&GATEWAY6[..], &[2, 1][..], &HOST[..])
        );
        let pseudo = sum(&answer[22..54]) + 32 + u32::from(ICMPV6);
        assert_eq!(fold(pseudo + sum(&answer[54..])), 0);
        let length = u32::try_from(answer.len()).expect("short");
        assert_eq!(V6::parse(answer.as_slice(), length).expect("well-formed").length, 72);
    }
}

#[test]
fn discovery_that_is_not_answered_says_why() {
    assert_eq!(judge_nd(SOLICITATION, [0; 16], OWN6), Err(Reason::DuplicateProbe));
    assert_eq!(judge_nd(SOLICITATION, [0; 16], LOCAL), Err(Reason::DuplicateProbe));
    assert_eq!(judge_nd(SOLICITATION, OWN6, OWN6), Err(Reason::DuplicateProbe));
    assert_eq!(judge_nd(SOLICITATION, OTHER6, GATEWAY6), Err(Reason::SourceAddress));
    assert_eq!(judge_nd(SOLICITATION, OWN6, [0xff; 16]), Err(Reason::Malformed));
    assert_eq!(judge_nd(ADVERTISEMENT, OWN6, OWN6), Err(Reason::NeighbourAnswer));
    assert_eq!(judge_nd(ADVERTISEMENT, LOCAL, LOCAL), Err(Reason::NeighbourAnswer));
    assert_eq!(judge_nd(ADVERTISEMENT, OWN6, OTHER6), Err(Reason::SourceAddress));
    assert_eq!(judge_nd(ROUTER_SOLICITATION, LOCAL, GATEWAY6), Err(Reason::RouterSolicitation));
    assert_eq!(judge_nd(134, LOCAL, GATEWAY6), Err(Reason::NeighbourMessage));
    assert_eq!(judge_nd(REDIRECT, LOCAL, GATEWAY6), Err(Reason::NeighbourMessage));
}

#[test]
fn discovery_from_beyond_a_router_is_not_believed() {
    let (frame, mut ip) = nd_frame(SOLICITATION, LOCAL, GATEWAY6);
    ip.hops = 254;
    assert_eq!(neighbour_discovery(frame.as_slice(), &ip, &link()), Err(Reason::Malformed));
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_refused(frame: Vec<u8>) {
        let _answer = arp(frame.as_slice(), &link()).map(|request| request.answer(HOST));
        let length = u32::try_from(frame.len()).expect("short");
        if let Ok(ip) = V6::parse(frame.as_slice(), length)
            && is_discovery(frame.as_slice(), &ip)
        {
            let _answer = neighbour_discovery(frame.as_slice(), &ip, &link()).map(|known| known.answer(HOST));
        }
    }
}
