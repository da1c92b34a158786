// SPDX-License-Identifier: Apache-2.0
//! Any frame, from any pod, is read or refused with a reason; answers are frames that the parser understands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_ebpf_common::layout::Link;
use rhumb_ebpf_common::{
    Bytes, Family, Ip, V4, V6, arp, ethernet, fold, is_discovery, neighbour_discovery, ports,
};

fuzz_target!(|data: &[u8]| {
    let Some((&flags, frame)) = data.split_first() else { return };
    let length = u32::try_from(frame.len()).expect("short");
    // The pod's addresses are those of the packet in half of the cases, so that what is behind the source check is seen.
    let mut link = Link { flags: flags & 0x0f, ..Link::default() };
    if flags & 0x80 != 0 {
        link.v4 = frame.read(ethernet::HEADER + 14).map_or(0, u32::from_ne_bytes);
        link.v6 = V6::parse(frame, length).map_or(link.v6, |ip| ip.src);
    }
    match frame.read(ethernet::TYPE) {
        Some(ethernet::ARP) => {
            if let Ok(request) = arp(frame, &link) {
                let answer = request.answer([2; 6]);
                assert_eq!(answer.read(ethernet::TYPE), Some(ethernet::ARP));
            }
        }
        Some(ethernet::IPV4) => {
            if let Ok(ip) = V4::parse(frame, length) {
                inside::<V4>(frame, &ip, length);
            }
        }
        Some(ethernet::IPV6) => {
            if let Ok(ip) = V6::parse(frame, length) {
                inside::<V6>(frame, &ip, length);
                if is_discovery(frame, &ip)
                    && let Ok(solicitation) = neighbour_discovery(frame, &ip, &link)
                {
                    let answer = solicitation.answer([2; 6]);
                    let ip = V6::parse(&answer, 86).expect("an answer is a packet");
                    assert!(is_discovery(&answer, &ip));
                    assert_eq!(checksum(&answer), 0);
                }
            }
        }
        _ => {}
    }
});

fn inside<F: Family>(frame: &[u8], ip: &Ip<F>, length: u32) {
    assert!(ip.length <= length - 14);
    let _ = (ip.may_hop(), ip.may_leave());
    if let Ok(Some(ports)) = ports(frame, ip) {
        // A later fragment has no ports, and may be shorter than they would be.
        assert!(ports.offset + 4 <= frame.len() || ports.is_later_fragment());
    }
}

/// Sum over an ICMPv6 message and its pseudo-header: 0 when the checksum is right.
fn checksum(frame: &[u8]) -> u16 {
    let words = frame[22..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    fold(words.sum::<u32>() + 32 + 58)
}
