// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{V4, V6};

/// The first bytes of a transport header.
const HEADER: [u8; 14] = [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16];

const PLAIN: Ports = Ports { src: [1, 2], dst: [3, 4], ..Ports::NONE };

fn v4(protocol: u8, payload: &[u8]) -> (Vec<u8>, Ip<V4>) {
    let mut frame = std::vec![0; 34];
    frame.extend(payload);
    let length = u32::try_from(20 + payload.len()).expect("short");
    let ip = Ip {
        src: 1,
        dst: 2,
        hops: 64,
        protocol,
        length,
        class: 0,
        options: false,
        later_fragment: false,
        more_fragments: false,
        id: 0,
    };
    (frame, ip)
}

fn v6(protocol: u8, payload: &[u8]) -> (Vec<u8>, Ip<V6>) {
    let mut frame = std::vec![0; 54];
    frame.extend(payload);
    let length = u32::try_from(40 + payload.len()).expect("short");
    let (src, dst) = ([1; 4], [2; 4]);
    let ip = Ip {
        src,
        dst,
        hops: 64,
        protocol,
        length,
        class: 0,
        options: false,
        later_fragment: false,
        more_fragments: false,
        id: 0,
    };
    (frame, ip)
}

fn found(protocol: u8, offset: usize, src: [u8; 2], dst: [u8; 2]) -> Result<Option<Ports>, Reason> {
    Ok(Some(Ports { protocol, offset, src, dst, ..Ports::NONE }))
}

#[test]
fn ports_are_found_in_every_protocol_that_has_them() {
    for protocol in [TCP, UDP, SCTP] {
        let (frame, ip) = v4(protocol, &HEADER);
        assert_eq!(ports(frame.as_slice(), &ip), found(protocol, 34, [1, 2], [3, 4]));
        let (frame, ip) = v6(protocol, &HEADER);
        assert_eq!(ports(frame.as_slice(), &ip), found(protocol, 54, [1, 2], [3, 4]));
    }
    let (frame, ip) = v4(47, &[1, 2, 3, 4]);
    assert_eq!(ports(frame.as_slice(), &ip), Ok(None));
}

#[test]
fn an_echo_has_its_identifier_as_both_ports() {
    for kind in [8, 0] {
        let (frame, ip) = v4(ICMP, &[kind, 0, 0, 0, 7, 8]);
        let signal = if kind == 8 { Signal::DATA } else { Signal::OPEN_ACK };
        let expected = Ports { protocol: ICMP, offset: 34, src: [7, 8], dst: [7, 8], signal, ..Ports::NONE };
        assert_eq!(ports(frame.as_slice(), &ip), Ok(Some(expected)));
    }
    let (frame, ip) = v4(ICMP, &[3, 4, 0, 0, 7, 8]);
    assert_eq!(ports(frame.as_slice(), &ip), Ok(None));
    let (frame, ip) = v6(ICMPV6, &[128, 0, 0, 0, 7, 8]);
    assert_eq!(ports(frame.as_slice(), &ip), found(ICMPV6, 54, [7, 8], [7, 8]));
}

#[test]
fn fragments_and_options_have_no_ports_to_trust() {
    let (frame, mut ip) = v4(UDP, &[1, 2, 3, 4]);
    ip.later_fragment = true;
    assert_eq!(datagram(&frame, &ip).1, Part::Later);
    let (frame, mut ip) = v4(UDP, &[1, 2, 3, 4]);
    ip.options = true;
    assert_eq!(ports(frame.as_slice(), &ip), Err(Reason::IpOptions));
}

#[test]
fn extension_headers_are_followed() {
    let hop_by_hop = [DESTINATION, 0, 0, 0, 0, 0, 0, 0];
    let destination = [AUTHENTICATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let authentication = [FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let first_fragment = [TCP, 0, 0, 1, 0, 0, 0, 9];
    let all = [&hop_by_hop[..], &destination, &authentication, &first_fragment, &HEADER].concat();
    let (frame, ip) = v6(HOP_BY_HOP, &all);
    let expected = Ports { part: Part::First, id: u32::from_ne_bytes([0, 0, 0, 9]), ..PLAIN };
    let offset = 54 + 8 + 16 + 12 + 8;
    assert_eq!(ports(frame.as_slice(), &ip), Ok(Some(Ports { protocol: TCP, offset, ..expected })));
}

#[test]
fn a_later_fragment_is_told_by_its_extension_header() {
    let (frame, ip) = v6(FRAGMENT, &[TCP, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4]);
    assert_eq!(datagram(&frame, &ip).1, Part::Later);
}

#[test]
fn a_chain_without_an_end_is_refused() {
    let chain: Vec<u8> = (0..20).flat_map(|_| [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0]).collect();
    let (frame, ip) = v6(HOP_BY_HOP, &chain);
    assert_eq!(ports(frame.as_slice(), &ip), Err(Reason::Malformed));
}

#[test]
fn checksums_are_known_where_they_cover_addresses() {
    let at = |protocol| Ports { protocol, ..Ports::NONE }.checksum();
    assert_eq!((at(TCP), at(UDP), at(SCTP), at(ICMP)), (Some(16), Some(6), None, Some(2)));
    assert_eq!((at(ICMPV6), at(47)), (Some(2), None));
    for (protocol, covers) in [(TCP, true), (UDP, true), (ICMP, false), (ICMPV6, true)] {
        assert_eq!(Ports { protocol, ..Ports::NONE }.covers_addresses(), covers);
    }
}

/// The datagram that a packet is a fragment of, and which part it is.
fn datagram<F: Family>(frame: &[u8], ip: &Ip<F>) -> (FragmentKey, Part) {
    let ports = ports(frame, ip).expect("well-formed").expect("a fragment");
    (ports.datagram(ip), ports.part)
}

#[test]
fn all_fragments_of_a_datagram_have_one_key() {
    let of4 = |id, more, later| {
        let (frame, mut ip) = v4(UDP, &HEADER);
        (ip.id, ip.more_fragments, ip.later_fragment) = (id, more, later);
        datagram(&frame, &ip)
    };
    assert_eq!(of4(7, false, false).1, Part::Whole);
    let (key, part) = of4(7, true, false);
    assert_eq!(part, Part::First);
    for more in [true, false] {
        assert_eq!(of4(7, more, true), (key, Part::Later));
    }
    assert_ne!(of4(8, true, true).0, key);

    let of6 = |offset: u8, id| {
        let header = [&[FRAGMENT, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, offset, 0, 0, 0, id][..], &HEADER].concat();
        let (frame, ip) = v6(HOP_BY_HOP, &header);
        datagram(&frame, &ip)
    };
    let (key, part) = of6(1, 9);
    assert_eq!((part, key.src, key.dst), (Part::First, [1; 4], [2; 4]));
    assert_eq!(of6(8, 9), (key, Part::Later));
    assert_eq!(of6(0, 9).1, Part::Whole);
    assert_ne!(of6(8, 10).0, key);
}

proptest! {
    #[test]
    fn the_short_way_to_the_ports_leads_where_the_long_one_does(protocol: u8, payload: Vec<u8>, fragment: bool) {
        let (frame, mut ip) = v4(protocol, &payload);
        ip.more_fragments = fragment;
        if let Some(short) = plain_ports(frame.as_slice(), &ip) {
            prop_assert_eq!(ports(frame.as_slice(), &ip), Ok(Some(short)));
        }
        let (frame, ip) = v6(protocol, &payload);
        if let Some(short) = plain_ports(frame.as_slice(), &ip) {
            prop_assert_eq!(ports(frame.as_slice(), &ip), Ok(Some(short)));
        }
    }

    #[test]
    fn any_bytes_have_ports_within_them_or_none(protocol: u8, payload: Vec<u8>) {
        let (frame, ip) = v4(protocol, &payload);
        if let Ok(Some(ports)) = ports(frame.as_slice(), &ip) {
            prop_assert!(ports.is_later_fragment() || ports.offset + 4 <= frame.len());
        }
        let (frame, ip) = v6(protocol, &payload);
        if let Ok(Some(ports)) = ports(frame.as_slice(), &ip) {
            prop_assert!(ports.is_later_fragment() || ports.offset + 4 <= frame.len());
        }
    }
}
