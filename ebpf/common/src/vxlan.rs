// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What goes around a packet in the tunnel over IPv4 (RFC 7348), as the kernel's own device writes it.
//!
//! ```text
//!  Ethernet │ IPv4 │ UDP │ VXLAN │ Ethernet │ the packet
//!    6+6+2    20     8      8       6+6+2
//!         └── written here: 52 bytes ───┘
//! ```

use crate::checksum::fold;
use crate::ethernet;
use crate::layout::{TUNNEL_MAC, TUNNEL_SENDER};
use crate::transport::UDP;

/// How many bytes longer a frame is with it.
pub const ROOM: u32 = 50;
/// Where in the frame [`headers`] begin: behind the addresses of the outer Ethernet header.
pub const AT: usize = ethernet::TYPE;
/// How many pairs of bytes [`headers`] are.
pub const PAIRS: usize = 26;
/// The longest frame that can be wrapped: the length of an IPv4 packet has 16 bits.
pub const LONGEST: u32 = 0xffff - (20 + 8 + 8);

/// Hops that the outer packet may take.
const HOPS: u8 = 64;
/// The ports that the kernel takes for senders unless it is told otherwise (`net.ipv4.ip_local_port_range`).
const PORTS: core::ops::Range<u32> = 32_768..60_999;

/// What the outer headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Address of this node, its bytes in wire order.
    pub src: u32,
    /// Address of the node that the packet goes to, its bytes in wire order.
    pub dst: u32,
    /// What tells the fragments of this packet from those of others: it may be cut up on its way.
    pub id: u16,
    /// Port of the sender; [`source_port`].
    pub src_port: u16,
    /// Port of the tunnel in wire order.
    pub dst_port: [u8; 2],
    /// Identity of the sending pod, of which 24 bits fit.
    pub identity: u32,
    /// Type of service, or traffic class, of the packet inside.
    pub class: u8,
    /// Length of the frame inside, at most [`LONGEST`].
    pub length: u16,
    /// Type of the packet inside, in wire order.
    pub kind: [u8; 2],
}

/// The headers from the type of the outer frame to that of the inner one, in pairs of bytes as they are in the packet.
#[inline(always)]
pub const fn headers(outer: &Outer) -> [u16; PAIRS] {
    const TO: [u8; 6] = TUNNEL_MAC;
    const FROM: [u8; 6] = TUNNEL_SENDER;
    let (src, dst) = (outer.src.to_ne_bytes(), outer.dst.to_ne_bytes());
    let [_, a, b, c] = outer.identity.to_be_bytes();
    let datagram = outer.length.wrapping_add(8 + 8);
    let mut pairs = [
        pair(ethernet::IPV4),
        pair([0x45, class(outer.class)]),
        datagram.wrapping_add(20).to_be(),
        outer.id.to_be(),
        0,
        pair([HOPS, UDP]),
        0,
        pair([src[0], src[1]]),
        pair([src[2], src[3]]),
        pair([dst[0], dst[1]]),
        pair([dst[2], dst[3]]),
        outer.src_port.to_be(),
        pair(outer.dst_port),
        datagram.to_be(),
        // The packet inside has its own checksum; this one is optional for IPv4.
        0,
        // The network's number is there.
        pair([0x08, 0]),
        0,
        pair([a, b]),
        pair([c, 0]),
        pair([TO[0], TO[1]]),
        pair([TO[2], TO[3]]),
        pair([TO[4], TO[5]]),
        pair([FROM[0], FROM[1]]),
        pair([FROM[2], FROM[3]]),
        pair([FROM[4], FROM[5]]),
        pair(outer.kind),
    ];
    // A sum over pairs of bytes in the order of memory is one in the order of memory (RFC 1071, section 2).
    let mut sum = 0;
    let mut at = 1;
    while at <= 10 {
        sum += pairs[at] as u32;
        at += 1;
    }
    pairs[6] = fold(sum);
    pairs
}

#[inline(always)]
const fn pair(bytes: [u8; 2]) -> u16 {
    u16::from_ne_bytes(bytes)
}

/// The port that a packet is sent from, by a number that its flow has: routers spread flows by it.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    let hash = hash ^ (hash << 16);
    let at = (hash as u64 * (PORTS.end - PORTS.start) as u64) >> 32;
    #[expect(clippy::cast_possible_truncation, reason = "below the end of the range")]
    {
        PORTS.start as u16 + at as u16
    }
}

/// Type of service outside: what routers mark congestion in, and nothing else of the packet inside (RFC 6040, section
/// 4.1, compatibility mode: a mark that is there stays inside).
#[inline(always)]
const fn class(inside: u8) -> u8 {
    match inside & 3 {
        3 => 2,
        capable => capable,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::checksum::sum;
    use std::vec::Vec;

    const OUTER: Outer = Outer {
        src: u32::from_ne_bytes([192, 0, 2, 1]),
        dst: u32::from_ne_bytes([198, 51, 100, 2]),
        id: 0x1234,
        src_port: 40_000,
        dst_port: 8472u16.to_be_bytes(),
        identity: 0x0102_0304,
        class: 0xb8,
        length: 1_464,
        kind: ethernet::IPV6,
    };

    fn bytes(outer: &Outer) -> Vec<u8> {
        headers(outer).into_iter().flat_map(u16::to_ne_bytes).collect()
    }

    #[test]
    fn the_headers_are_those_of_the_kernels_device() {
        let bytes = bytes(&OUTER);
        assert_eq!(bytes.len() + AT, ROOM as usize + ethernet::HEADER);
        assert_eq!(bytes[..2], [8, 0]);
        let (ip, rest) = bytes[2..].split_at(20);
        assert_eq!(ip[..10], [0x45, 0, 0x05, 0xdc, 0x12, 0x34, 0, 0, 64, 17]);
        assert_eq!(ip[12..], [192, 0, 2, 1, 198, 51, 100, 2]);
        assert_eq!(rest[..8], [0x9c, 0x40, 0x21, 0x18, 0x05, 0xc8, 0, 0]);
        assert_eq!(rest[8..16], [8, 0, 0, 0, 2, 3, 4, 0]);
        assert_eq!(rest[16..], [&TUNNEL_MAC[..], &TUNNEL_SENDER, &ethernet::IPV6].concat());
    }

    #[test]
    fn the_checksum_is_right_whatever_the_headers_say() {
        for id in [0, 1, 0x7fff, 0xffff] {
            for (src, length) in [(0, 0), (u32::MAX, u16::try_from(LONGEST).expect("fits")), (77, 1_000)] {
                let bytes = bytes(&Outer { id, src, length, class: 3, ..OUTER });
                assert_eq!(fold(sum(&bytes[2..22])), 0);
            }
        }
    }

    #[test]
    fn congestion_is_not_told_twice_and_nothing_else_is_told_outside() {
        assert_eq!([0, 1, 2, 3, 0xb8, 0xbb].map(class), [0, 1, 2, 2, 0, 2]);
    }

    #[test]
    fn the_sending_port_is_one_of_the_kernels() {
        for hash in [0, 1, 0xffff, 0x8000_0000, u32::MAX, 0x1234_5678] {
            assert!(PORTS.contains(&u32::from(source_port(hash))), "{hash:x}");
        }
        assert_ne!(source_port(0x1234_5678), source_port(0x8765_4321));
    }
}
