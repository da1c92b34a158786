// SPDX-License-Identifier: MIT OR GPL-2.0-only
extern crate std;

use proptest::prelude::*;
use std::vec::Vec;

use super::*;
use crate::{Direction, Reason, Verdict};

const SECOND: u64 = 1_000_000_000;

fn v4(protocol: u8, first: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = std::vec![0; 12];
    frame.extend([8, 0, first, 0, 0, 0, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(payload);
    frame
}

fn seen(frame: &[u8]) -> Event {
    let mut event = Event::new(7, Reason::Malformed as u8, Direction::FromWire as u8, Verdict::Drop as u8);
    event.look(frame);
    event
}

fn words(bytes: [u8; 16]) -> Address {
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

#[test]
fn a_tcp_segment_shows_addresses_ports_and_flags() {
    let mut tcp = [0; 20];
    tcp[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
    tcp[13] = 0x12;
    let event = seen(&v4(6, 0x45, [0x40, 0], &tcp));
    assert_eq!(
        (event.src, event.dst),
        (mapped(u32::from_ne_bytes([10, 0, 0, 1])), mapped(u32::from_ne_bytes([10, 0, 0, 2])))
    );
    assert_eq!((event.src_port, event.dst_port, event.tcp_flags), ([0x1f, 0x90], [0, 80], 0x12));
    assert_eq!((event.protocol, event.ethertype), (6, ethernet::IPV4));
    assert_eq!((event.reason, event.direction, event.verdict), (80, 2, Verdict::Drop as u8));
}

#[test]
fn an_ipv6_message_shows_type_and_code() {
    let mut frame = std::vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
    let (src, dst) = ([0xfd; 16], [0xfc; 16]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend([135, 0, 1, 2]);
    let event = seen(&frame);
    assert_eq!((event.src, event.dst), (words(src), words(dst)));
    assert_eq!((event.protocol, event.src_port, event.dst_port), (58, [135, 0], [0, 0]));
}

#[test]
fn arp_shows_who_asks_for_whom() {
    let mut frame = std::vec![0; 12];
    frame
        .extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
    let event = seen(&frame);
    assert_eq!(event.src, mapped(u32::from_ne_bytes([10, 0, 0, 1])));
    assert_eq!(event.dst, mapped(u32::from_ne_bytes([10, 0, 0, 9])));
}

#[test]
fn what_has_no_ports_where_they_would_be_shows_none() {
    let payload = [9; 20];
    for frame in
        [v4(17, 0x45, [0, 5], &payload), v4(17, 0x46, [0, 0], &payload), v4(89, 0x45, [0, 0], &payload)]
    {
        let event = seen(&frame);
        assert_eq!((event.src_port, event.dst_port), ([0; 2], [0; 2]));
        assert_ne!(event.src, [0; 4]);
    }
}

#[test]
fn nobody_wants_nothing_and_a_watcher_only_his_own() {
    let mut watch = Watch::NOBODY;
    assert!(!watch.wants(Reason::ForwardedLocal as u8, 0));
    watch.until = 10;
    assert!(watch.wants(Reason::ForwardedLocal as u8, 9) && !watch.wants(Reason::ForwardedLocal as u8, 10));
    watch.reason = Reason::ToStack as u8;
    assert!(!watch.wants(Reason::ForwardedLocal as u8, 9) && watch.wants(Reason::ToStack as u8, 9));
    let one = mapped(1);
    let event = Event { src: mapped(2), dst: one, ..Event::default() };
    assert!(watch.concerns(&event));
    watch.addrs = [mapped(3), [1, 2, 3, 4]];
    assert!(!watch.concerns(&event));
    watch.addrs = [[0; 4], one];
    assert!(watch.concerns(&event));
}

proptest! {
    #[test]
    fn no_frame_is_too_strange_to_look_at(frame: Vec<u8>, kind in 0..4usize) {
        let mut frame = frame;
        if let Some(at) = frame.get_mut(12..14) {
            at.copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd], [1, 2]][kind]);
        }
        let event = seen(&frame);
        prop_assert_eq!(event.padding, [0; 5]);
    }

    #[test]
    fn over_any_time_the_rate_is_kept(steps in prop::collection::vec(0..SECOND / 20, 1..2000), count in 1..200u64) {
        let rate = Rate::per_second(count);
        let (mut limit, mut now, mut taken) = (Limit::default(), SECOND, 0u64);
        let asked = steps.len() as u64;
        for step in steps {
            now += step;
            taken += u64::from(limit.take(rate, now));
        }
        prop_assert!(taken <= rate.burst + (now - SECOND) / rate.interval + 1);
        prop_assert_eq!(taken + limit.limited, asked);
    }

    #[test]
    fn who_keeps_to_the_rate_loses_nothing(count in 1..1000u64, rounds in 1..500u64) {
        let rate = Rate::per_second(count);
        let mut limit = Limit::default();
        for round in 0..rounds {
            prop_assert!(limit.take(rate, round * rate.interval));
        }
    }
}
