// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn v4(header: &[u8], payload: usize) -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend(ethernet::IPV4);
    frame.extend(header);
    frame.resize(frame.len() + payload, 0);
    frame
}

fn parse<F: Family>(frame: &[u8]) -> Result<Ip<F>, Reason> {
    F::parse(frame, u32::try_from(frame.len()).expect("short"))
}

const HEADER: [u8; 20] = [0x45, 0xb8, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

fn link() -> Link {
    Link {
        v4: u32::from_ne_bytes([10, 0, 0, 1]),
        v6: words([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        flags: Link::HAS_V4 | Link::HAS_V6,
        ..Link::default()
    }
}

fn words(octets: [u8; 16]) -> Address {
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]))
}

#[test]
fn an_ipv4_header_is_read() {
    let ip = parse::<V4>(&v4(&HEADER, 8)).expect("well-formed");
    assert_eq!((ip.src.to_ne_bytes(), ip.dst.to_ne_bytes()), ([10, 0, 0, 1], [10, 0, 0, 2]));
    assert_eq!((ip.hops, ip.protocol, ip.length), (64, 17, 28));
    assert_eq!(ip.class.to_ne_bytes(), [0xb8, 0, 0, 0]);
    assert!(!ip.options && !ip.later_fragment);
}

#[test]
fn ipv4_lengths_that_contradict_each_other_are_malformed() {
    let with = |at: usize, value: u8| {
        let mut header = HEADER;
        header[at] = value;
        parse::<V4>(&v4(&header, 8))
    };
    for (at, value) in [(0, 0x65), (0, 0x44), (2, 1), (3, 29), (3, 19)] {
        assert_eq!(with(at, value), Err(Reason::Malformed), "{at} {value}");
    }
    assert_eq!(parse::<V4>(&v4(&HEADER[..19], 0)), Err(Reason::Malformed));
}

#[test]
fn padding_behind_a_short_packet_is_no_contradiction() {
    assert!(parse::<V4>(&v4(&HEADER, 26)).is_ok());
}

#[test]
fn options_and_fragments_are_told() {
    let mut header = HEADER;
    header[0] = 0x46;
    assert!(parse::<V4>(&v4(&header, 8)).expect("well-formed").options);
    for (fragment, later) in [([0x20, 0], false), ([0x20, 1], true), ([0x00, 1], true), ([0x1f, 0xff], true)]
    {
        let mut header = HEADER;
        header[6..8].copy_from_slice(&fragment);
        assert_eq!(parse::<V4>(&v4(&header, 8)).expect("well-formed").later_fragment, later);
    }
}

#[test]
fn a_segment_without_a_length_takes_that_of_the_frame() {
    let mut header = HEADER;
    header[2..4].copy_from_slice(&[0, 0]);
    let frame = v4(&header, 70_000);
    assert_eq!(parse::<V4>(&frame).expect("well-formed").length, 70_020);
    assert_eq!(parse::<V4>(&frame[..60_000]), Err(Reason::Malformed));
}

#[test]
fn an_ipv6_header_is_read() {
    let mut frame = std::vec![0; 12];
    frame.extend(ethernet::IPV6);
    frame.extend([0x6a, 0xbc, 0xde, 0xf0, 0, 8, 58, 255]);
    let (src, dst) = ([1u8; 16], [2u8; 16]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend([0; 8]);
    let ip = parse::<V6>(&frame).expect("well-formed");
    assert_eq!((ip.src, ip.dst), (words(src), words(dst)));
    assert_eq!((ip.hops, ip.protocol, ip.length), (255, 58, 48));
    assert_eq!(ip.class.to_ne_bytes(), [0x0a, 0xbc, 0xde, 0xf0]);
    frame.pop();
    assert_eq!(parse::<V6>(&frame), Err(Reason::Malformed));
}

#[test]
fn only_the_pods_own_address_is_its_source() {
    let link = link();
    assert_eq!(V4::source(link.v4, &link), Source::Own);
    assert_eq!(V4::source(u32::from_ne_bytes([10, 0, 0, 2]), &link), Source::Foreign);
    assert_eq!(V4::source(0, &Link::default()), Source::Foreign);
    assert_eq!(V6::source(link.v6, &link), Source::Own);
    assert_eq!(V6::source([0; 4], &link), Source::Link);
    assert_eq!(V6::source([0; 4], &Link::default()), Source::Link);
    let mut other = link.v6;
    other[3] ^= 1;
    assert_eq!(V6::source(other, &link), Source::Foreign);
}

#[test]
fn groups_and_link_local_addresses_are_told() {
    for (addr, group) in
        [([224, 0, 0, 1], true), ([239, 255, 255, 255], true), ([255; 4], true), ([223, 0, 0, 1], false)]
    {
        assert_eq!(V4::is_group(u32::from_ne_bytes(addr)), group, "{addr:?}");
    }
    for (first, second, local) in
        [(0xfe, 0x80, true), (0xfe, 0xbf, true), (0xfe, 0xc0, false), (0xff, 0x02, false)]
    {
        let mut addr = [0; 16];
        (addr[0], addr[1]) = (first, second);
        assert_eq!(V6::is_link_local(words(addr)), local);
        assert_eq!(V6::is_group(words(addr)), first == 0xff);
    }
}

#[test]
fn a_packet_without_hops_does_not_go_on() {
    let mut ip = parse::<V4>(&v4(&HEADER, 8)).expect("well-formed");
    assert_eq!(ip.may_hop(), Ok(()));
    for hops in [0, 1] {
        ip.hops = hops;
        assert_eq!(ip.may_hop(), Err(Reason::TimeExceeded));
    }
}

fn checksum(header: &[u8]) -> u16 {
    crate::fold(crate::checksum::sum(header))
}

proptest! {
    #[test]
    fn the_checksum_after_a_hop_is_that_of_the_changed_header(mut header: [u8; 20], hops in 1u8..) {
        header[8] = hops;
        header[10..12].copy_from_slice(&[0, 0]);
        let before = checksum(&header).to_be_bytes();
        header[8] -= 1;
        let after = checksum(&header);
        let stepped = V4::checksum_after_hop(u16::from_ne_bytes(before)).to_ne_bytes();
        // Both forms of zero mean the same.
        let same = u16::from_be_bytes(stepped) % 0xffff == after % 0xffff;
        prop_assert!(same, "{:?} {:?}", stepped, after);
    }

    #[test]
    fn any_bytes_are_read_or_refused(frame: Vec<u8>, length: u32) {
        for length in [length, u32::try_from(frame.len()).expect("short")] {
            for result in [V4::parse(frame.as_slice(), length).map(|ip| ip.length), V6::parse(frame.as_slice(), length).map(|ip| ip.length)] {
                match result {
                    Ok(inner) => prop_assert!(inner <= length.saturating_sub(14)),
                    Err(reason) => prop_assert_eq!(reason, Reason::Malformed),
                }
            }
        }
    }

    #[test]
    fn a_key_leads_back_to_its_address(v4: u32, v6: [u32; 4]) {
        prop_assert_eq!(V4::unkey(&V4::key(v4)), v4);
        prop_assert_eq!(V6::unkey(&V6::key(v6)), v6);
    }
}
