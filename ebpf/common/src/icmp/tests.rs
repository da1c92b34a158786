// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{V4, V6};

fn error4(kind: u8, quoted: &[u8]) -> (Vec<u8>, Ip<V4>) {
    let mut frame = std::vec![0; 14];
    let length = u8::try_from(28 + quoted.len()).expect("short");
    frame.extend([0x45, 0, 0, length, 0, 0, 0, 0, 64, ICMP, 0, 0, 9, 9, 9, 9, 1, 1, 1, 1]);
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(quoted);
    let ip = V4::parse(frame.as_slice(), u32::try_from(frame.len()).expect("short")).expect("well-formed");
    (frame, ip)
}

fn quoted4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x45, 0, 0, 100, 0, 0, 0, 0, 1, protocol, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    packet.extend(transport);
    packet
}

fn error6(kind: u8, protocol: u8, transport: &[u8]) -> (Vec<u8>, Ip<V6>) {
    let header = |protocol: u8, length: usize, src: u8, dst: u8| {
        let mut header = std::vec![0x60, 0, 0, 0, 0, u8::try_from(length).expect("short"), protocol, 64];
        header.extend([src; 16]);
        header.extend([dst; 16]);
        header
    };
    let mut frame = std::vec![0; 14];
    frame.extend(header(ICMPV6, 48 + transport.len(), 9, 1));
    frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(header(protocol, 100, 1, 2));
    frame.extend(transport);
    let ip = V6::parse(frame.as_slice(), u32::try_from(frame.len()).expect("short")).expect("well-formed");
    (frame, ip)
}

#[test]
fn an_error_tells_which_packet_it_is_about() {
    let udp = [1, 2, 3, 4, 0, 8, 0, 0];
    for kind in [3, 11, 12] {
        let (frame, ip) = error4(kind, &quoted4(UDP, &udp));
        let quote = quote(frame.as_slice(), &ip).expect("an error");
        assert_eq!((quote.src, quote.dst), (u32::from_ne_bytes([1; 4]), u32::from_ne_bytes([2; 4])));
        assert_eq!((quote.ports.src, quote.ports.dst, quote.ports.protocol), ([1, 2], [3, 4], UDP));
        assert_eq!((quote.at, quote.ip, quote.ports.offset), (34, 42, 62));
    }
    for kind in 1..=4 {
        let (frame, ip) = error6(kind, TCP, &udp);
        let quote = quote(frame.as_slice(), &ip).expect("an error");
        assert_eq!((quote.src, quote.dst), ([0x0101_0101; 4], [0x0202_0202; 4]));
        assert_eq!((quote.at, quote.ip, quote.ports.offset), (54, 62, 102));
    }
}

#[test]
fn an_error_about_an_echo_has_its_identifier() {
    let (frame, ip) = error4(11, &quoted4(ICMP, &[8, 0, 0, 0, 7, 7, 0, 1]));
    assert_eq!(quote(frame.as_slice(), &ip).expect("an error").ports.src, [7, 7]);
    let (frame, ip) = error6(3, ICMPV6, &[128, 0, 0, 0, 7, 7, 0, 1]);
    assert_eq!(quote(frame.as_slice(), &ip).expect("an error").ports.src, [7, 7]);
}

#[test]
fn other_messages_quote_nothing() {
    for kind in [0, 8, 5, 13] {
        let (frame, ip) = error4(kind, &quoted4(UDP, &[0; 8]));
        assert_eq!(quote(frame.as_slice(), &ip), None, "{kind}");
    }
    let (frame, ip) = error6(129, UDP, &[0; 8]);
    assert_eq!(quote(frame.as_slice(), &ip), None);
    let (frame, ip) = error4(3, &quoted4(47, &[0; 8]));
    assert_eq!(quote(frame.as_slice(), &ip), None);
    let mut later = quoted4(UDP, &[0; 8]);
    later[7] = 1;
    let (frame, ip) = error4(3, &later);
    assert_eq!(quote(frame.as_slice(), &ip), None);
    let (frame, ip) = error4(3, &quoted4(ICMP, &[3, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(quote(frame.as_slice(), &ip), None);
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_none(frame: Vec<u8>, kind: u8) {
        let mut frame = frame;
        if let Some(at) = frame.get_mut(34) {
            *at = kind;
        }
        let length = u32::try_from(frame.len()).expect("short");
        if let Ok(ip) = V4::parse(frame.as_slice(), length) {
            let _quote = quote(frame.as_slice(), &ip);
        }
        if let Ok(ip) = V6::parse(frame.as_slice(), length) {
            let _quote = quote(frame.as_slice(), &ip);
        }
    }
}
