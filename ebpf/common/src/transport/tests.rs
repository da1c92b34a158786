// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{V4, V6};

fn v4(protocol: u8, payload: &[u8]) -> (Vec<u8>, Ip<V4>) {
    let mut frame = std::vec![0; 34];
    frame.extend(payload);
    let length = u32::try_from(20 + payload.len()).expect("short");
    let ip =
        Ip { src: 1, dst: 2, hops: 64, protocol, length, class: 0, options: false, later_fragment: false };
    (frame, ip)
}

fn v6(protocol: u8, payload: &[u8]) -> (Vec<u8>, Ip<V6>) {
    let mut frame = std::vec![0; 54];
    frame.extend(payload);
    let length = u32::try_from(40 + payload.len()).expect("short");
    let (src, dst) = ([1; 4], [2; 4]);
    let ip = Ip { src, dst, hops: 64, protocol, length, class: 0, options: false, later_fragment: false };
    (frame, ip)
}

fn found(protocol: u8, offset: usize, src: [u8; 2], dst: [u8; 2]) -> Result<Option<Ports>, Reason> {
    Ok(Some(Ports { protocol, offset, src, dst }))
}

#[test]
fn ports_are_found_in_every_protocol_that_has_them() {
    for protocol in [TCP, UDP, SCTP] {
        let (frame, ip) = v4(protocol, &[1, 2, 3, 4]);
        assert_eq!(ports(frame.as_slice(), &ip), found(protocol, 34, [1, 2], [3, 4]));
        let (frame, ip) = v6(protocol, &[1, 2, 3, 4]);
        assert_eq!(ports(frame.as_slice(), &ip), found(protocol, 54, [1, 2], [3, 4]));
    }
    let (frame, ip) = v4(47, &[1, 2, 3, 4]);
    assert_eq!(ports(frame.as_slice(), &ip), Ok(None));
}

#[test]
fn an_echo_has_its_identifier_as_both_ports() {
    for kind in [8, 0] {
        let (frame, ip) = v4(ICMP, &[kind, 0, 0, 0, 7, 8]);
        assert_eq!(ports(frame.as_slice(), &ip), found(ICMP, 34, [7, 8], [7, 8]));
    }
    let (frame, ip) = v4(ICMP, &[3, 4, 0, 0, 7, 8]);
    assert_eq!(ports(frame.as_slice(), &ip), Ok(None));
    let (frame, ip) = v6(ICMPV6, &[129, 0, 0, 0, 7, 8]);
    assert_eq!(ports(frame.as_slice(), &ip), found(ICMPV6, 54, [7, 8], [7, 8]));
}

#[test]
fn fragments_and_options_have_no_ports_to_trust() {
    let (frame, mut ip) = v4(UDP, &[1, 2, 3, 4]);
    ip.later_fragment = true;
    assert_eq!(ports(frame.as_slice(), &ip), Err(Reason::Fragment));
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
    let all = [&hop_by_hop[..], &destination, &authentication, &first_fragment, &[1, 2, 3, 4]].concat();
    let (frame, ip) = v6(HOP_BY_HOP, &all);
    assert_eq!(ports(frame.as_slice(), &ip), found(TCP, 54 + 8 + 16 + 12 + 8, [1, 2], [3, 4]));
}

#[test]
fn a_later_fragment_is_told_by_its_extension_header() {
    let (frame, ip) = v6(FRAGMENT, &[TCP, 0, 0, 8, 0, 0, 0, 9, 1, 2, 3, 4]);
    assert_eq!(ports(frame.as_slice(), &ip), Err(Reason::Fragment));
}

#[test]
fn a_chain_without_an_end_is_refused() {
    let chain: Vec<u8> = (0..20).flat_map(|_| [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0]).collect();
    let (frame, ip) = v6(HOP_BY_HOP, &chain);
    assert_eq!(ports(frame.as_slice(), &ip), Err(Reason::Malformed));
}

#[test]
fn checksums_are_known_where_they_cover_addresses() {
    let at = |protocol| Ports { protocol, offset: 0, src: [0; 2], dst: [0; 2] }.checksum();
    assert_eq!((at(TCP), at(UDP), at(SCTP), at(ICMP)), (Some(16), Some(6), None, None));
}

proptest! {
    #[test]
    fn any_bytes_have_ports_within_them_or_none(protocol: u8, payload: Vec<u8>) {
        let (frame, ip) = v4(protocol, &payload);
        if let Ok(Some(ports)) = ports(frame.as_slice(), &ip) {
            prop_assert!(ports.offset + 4 <= frame.len());
        }
        let (frame, ip) = v6(protocol, &payload);
        if let Ok(Some(ports)) = ports(frame.as_slice(), &ip) {
            prop_assert!(ports.offset + 4 <= frame.len());
        }
    }
}
