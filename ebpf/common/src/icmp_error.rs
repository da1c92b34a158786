// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What tells a pod that its packet was too large: "fragmentation needed" (RFC 792, RFC 1191) and "packet too big"
//! (RFC 4443, section 3.2), as the headers that go before the quoted packet.
//!
//! The sender of both is the gateway that the pod knows, `169.254.1.1` and `fe80::1`: nobody has to reach it, and a
//! pod's stack takes the error by what it quotes.

use crate::bytes::octets;
use crate::checksum::{fold, sum};
use crate::ethernet;
use crate::ip::ICMPV6;
use crate::layout::Address;
use crate::neighbour::put;

/// How much of a packet is quoted. With its headers an error stays below the 576 bytes that RFC 1812 (section
/// 4.3.2.3) allows, and is what one checksum call of the kernel takes.
pub const QUOTE: usize = 512;

/// Length of the Ethernet, IP and ICMP headers before the quote.
pub const V4_HEADERS: usize = ethernet::HEADER + 20 + 8;
/// As [`V4_HEADERS`] for IPv6.
pub const V6_HEADERS: usize = ethernet::HEADER + 40 + 8;

const GATEWAY_V4: [u8; 4] = [169, 254, 1, 1];
const GATEWAY_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const HOPS: u8 = 64;
/// Internetwork control, as RFC 1812 (section 4.3.2.5) asks for.
const CLASS: u8 = 0xc0;

/// Where the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressee {
    /// Address of the pod's interface.
    pub mac: [u8; 6],
    /// Address of the host end.
    pub host_mac: [u8; 6],
}

/// The headers of "fragmentation needed" to `pod`.
///
/// `quote` is the sum of the quoted bytes as 16-bit words, as they are in memory.
#[inline(always)]
pub fn fragmentation_needed(to: Addressee, pod: u32, mtu: u16, quote: u32) -> [u8; V4_HEADERS] {
    let mut frame = [0; V4_HEADERS];
    put(&mut frame, 0, &to.mac);
    put(&mut frame, 6, &to.host_mac);
    put(&mut frame, 12, &ethernet::IPV4);
    let [high, low] = length(20 + 8);
    put(&mut frame, 14, &[0x45, CLASS, high, low, 0, 0, 0x40, 0, HOPS, 1]);
    put(&mut frame, 26, &GATEWAY_V4);
    put(&mut frame, 30, &pod.to_ne_bytes());
    let header = fold(sum(&frame[14..34]));
    put(&mut frame, 24, &header.to_be_bytes());
    put(&mut frame, 34, &[3, 4]);
    put(&mut frame, 40, &mtu.to_be_bytes());
    let message = fold(sum(&frame[34..42]) + in_order(quote));
    put(&mut frame, 36, &message.to_be_bytes());
    frame
}

/// The headers of "packet too big" to `pod`; `quote` as for [`fragmentation_needed`].
#[inline(always)]
pub fn packet_too_big(to: Addressee, pod: Address, mtu: u32, quote: u32) -> [u8; V6_HEADERS] {
    let mut frame = [0; V6_HEADERS];
    put(&mut frame, 0, &to.mac);
    put(&mut frame, 6, &to.host_mac);
    put(&mut frame, 12, &ethernet::IPV6);
    let [high, low] = length(8);
    put(&mut frame, 14, &[0x60, 0, 0, 0, high, low, ICMPV6, HOPS]);
    put(&mut frame, 22, &GATEWAY_V6);
    put(&mut frame, 38, &octets(pod));
    put(&mut frame, 54, &[2, 0]);
    put(&mut frame, 58, &mtu.to_be_bytes());
    let pseudo = sum(&frame[22..54]) + u32::from(u16::from_be_bytes([high, low])) + u32::from(ICMPV6);
    let message = fold(pseudo + sum(&frame[54..62]) + in_order(quote));
    put(&mut frame, 56, &message.to_be_bytes());
    frame
}

/// The length of the quote and what goes before it.
const fn length(headers: usize) -> [u8; 2] {
    let [.., high, low] = (headers + QUOTE).to_be_bytes();
    [high, low]
}

/// A sum of words in the order of memory as one of words in the order of the wire.
#[inline(always)]
const fn in_order(sum: u32) -> u32 {
    u16::from_be(!fold(sum)) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    const TO: Addressee = Addressee { mac: [2, 0, 0, 0, 0, 2], host_mac: [2, 0, 0, 0, 0, 1] };

    fn quote() -> [u8; QUOTE] {
        core::array::from_fn(|at| (at * 37 % 251).to_le_bytes()[0])
    }

    /// As the kernel's helper sums: words as they are in memory.
    fn in_memory(bytes: &[u8]) -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum()
    }

    #[test]
    fn fragmentation_needed_is_whole_and_its_sums_are_right() {
        let pod = u32::from_ne_bytes([10, 1, 0, 2]);
        let frame = fragmentation_needed(TO, pod, 1450, in_memory(&quote()));
        let packet: Vec<u8> = frame[14..].iter().copied().chain(quote()).collect();
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(fold(sum(&packet[..20])), 0);
        assert_eq!(fold(sum(&packet[20..])), 0);
        assert_eq!(packet[12..20], [169, 254, 1, 1, 10, 1, 0, 2]);
        assert_eq!((&packet[20..22], &packet[24..28]), (&[3, 4][..], &[0, 0, 0x05, 0xaa][..]));
        assert!(packet.len() <= 576);
    }

    #[test]
    fn packet_too_big_is_whole_and_its_sums_are_right() {
        let pod = [u32::from_ne_bytes([0xfd, 0, 0, 1]), 0, 0, 2u32.to_be()];
        let frame = packet_too_big(TO, pod, 1430, in_memory(&quote()));
        let packet: Vec<u8> = frame[14..].iter().copied().chain(quote()).collect();
        let payload = u16::from_be_bytes([packet[4], packet[5]]);
        assert_eq!(usize::from(payload) + 40, packet.len());
        let pseudo = sum(&packet[8..40]) + u32::from(payload) + u32::from(ICMPV6);
        assert_eq!(fold(pseudo + sum(&packet[40..])), 0);
        assert_eq!((&packet[40..42], &packet[44..48]), (&[2, 0][..], &[0, 0, 0x05, 0x96][..]));
        assert!(packet.len() <= 1280);
    }
}
