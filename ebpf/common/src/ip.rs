// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! IPv4 and IPv6 headers, and what the datapath asks about them. Everything above is generic over [`Family`].

use core::cmp::Ordering;

use crate::layout::{Address, Link, Uplink, same};
use crate::{Bytes, Reason, ethernet};

/// Protocol number of ICMPv6.
pub(crate) const ICMPV6: u8 = 58;

/// Of an IP header, what the datapath needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip<F: Family> {
    /// Sender.
    pub src: F::Addr,
    /// Receiver.
    pub dst: F::Addr,
    /// Hops left.
    pub hops: u8,
    /// Number of what follows: for IPv6 the first next header, which may be an extension header.
    pub protocol: u8,
    /// Length of the packet without the Ethernet header.
    pub length: u32,
    /// What a route lookup takes: type of service in the first byte; IPv6: traffic class and flow label.
    pub class: u32,
    /// Whether it has IPv4 options.
    pub options: bool,
    /// Whether it is a fragment without the first bytes of the payload (IPv4; IPv6 says so in an extension header).
    pub later_fragment: bool,
    /// Whether more fragments follow (IPv4, as above).
    pub more_fragments: bool,
    /// What all fragments of a datagram have in common, as it is in the packet (IPv4, as above).
    pub id: u32,
}

/// Whose address the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The pod's own.
    Own,
    /// Link-local or unspecified (IPv6), good for neighbour discovery alone.
    Link,
    /// Somebody else's.
    Foreign,
}

/// An address family.
pub trait Family: Copy {
    /// An address, its bytes in wire order.
    type Addr: Copy + PartialEq;
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;
    /// Length of the header without options.
    const HEADER: usize;
    /// Where the source address is in the frame; the destination follows it.
    const SOURCE: usize;
    /// Length of an address.
    const ADDRESS: usize;

    /// Reads the header; `length` is that of the frame.
    ///
    /// # Errors
    /// [`Reason::Malformed`] when the header contradicts itself or the frame.
    fn parse<B: Bytes + ?Sized>(frame: &B, length: u32) -> Result<Ip<Self>, Reason>;

    /// The address as the maps have it.
    fn key(addr: Self::Addr) -> Address;

    /// The address of this family out of a map, without a check that it is of this family.
    fn unkey(addr: &Address) -> Self::Addr;

    /// The pod's own address.
    fn own(link: &Link) -> Self::Addr;

    /// Whose the source address is.
    fn source(addr: Self::Addr, link: &Link) -> Source;

    /// Reads protocol, sender and receiver of an IP header without options that begins at `at`.
    fn quoted<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<(u8, Self::Addr, Self::Addr)>;

    /// How two addresses are ordered in the key of a flow.
    fn order(a: Self::Addr, b: Self::Addr) -> Ordering;

    /// The address that packets of this family take on an uplink.
    fn masquerade(uplink: &Uplink) -> Option<Self::Addr>;

    /// Whether the address is a group or broadcast address.
    fn is_group(addr: Self::Addr) -> bool;

    /// Whether the address is good on one link only.
    fn is_link_local(addr: Self::Addr) -> bool;

    /// The address that pods know as their gateway, and nobody has: what the datapath says itself comes from it.
    fn gateway() -> Self::Addr;

    /// Whether two addresses are the same; word by word, as comparing memory is a call in a program.
    fn is_same(a: Self::Addr, b: Self::Addr) -> bool;
}

impl<F: Family> Ip<F> {
    /// Whether it is one of several fragments (IPv4; IPv6 says so in an extension header).
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.later_fragment || self.more_fragments
    }

    /// Whether the packet is for what pods know as their gateway.
    #[inline(always)]
    pub fn is_to_gateway(&self) -> bool {
        F::is_same(self.dst, F::gateway())
    }

    /// Type of service, or traffic class.
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        byte(u32::from_be(self.class) >> if F::HEADER == 40 { 20 } else { 24 })
    }

    /// Whether the packet may be forwarded once more.
    ///
    /// # Errors
    /// [`Reason::TimeExceeded`] when no hop is left.
    #[inline(always)]
    pub fn may_hop(&self) -> Result<(), Reason> {
        if self.hops <= 1 { Err(Reason::TimeExceeded) } else { Ok(()) }
    }

    /// Whether a pod may send there through the datapath.
    ///
    /// # Errors
    /// [`Reason::Multicast`] for groups, [`Reason::LinkLocal`] for addresses of the link, but not for the gateway.
    #[inline(always)]
    pub fn may_leave(&self) -> Result<(), Reason> {
        if F::is_group(self.dst) {
            Err(Reason::Multicast)
        } else if F::is_link_local(self.dst) && !self.is_to_gateway() {
            Err(Reason::LinkLocal)
        } else {
            Ok(())
        }
    }
}

/// IPv4 (RFC 791).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V4;

impl Family for V4 {
    type Addr = u32;
    const AF: u8 = 2;
    const HEADER: usize = 20;
    const SOURCE: usize = ethernet::HEADER + 12;
    const ADDRESS: usize = 4;

    #[inline(always)]
    fn parse<B: Bytes + ?Sized>(frame: &B, length: u32) -> Result<Ip<Self>, Reason> {
        let [first, second, third, src, dst] = frame.words(ethernet::HEADER).ok_or(Reason::Malformed)?;
        let (first, second, third) = (u32::from_be(first), u32::from_be(second), u32::from_be(third));
        let there = length.saturating_sub(14);
        let header = (first >> 24 & 0x0f) * 4;
        if first >> 28 != 4 || header < 20 {
            return Err(Reason::Malformed);
        }
        let mut total = first & 0xffff;
        if total == 0 && there > 0xffff {
            // A segment above 64 KiB that the device is to cut up has no length of its own (BIG TCP).
            total = there;
        }
        if total < header || total > there {
            return Err(Reason::Malformed);
        }
        Ok(Ip {
            src,
            dst,
            hops: byte(third >> 24),
            protocol: byte(third >> 16),
            length: total,
            class: u32::from_ne_bytes([byte(first >> 16), 0, 0, 0]),
            options: header > 20,
            later_fragment: second & 0x1fff != 0,
            more_fragments: second & 0x2000 != 0,
            id: (second >> 16).to_be(),
        })
    }

    #[inline(always)]
    fn key(addr: u32) -> Address {
        [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), addr]
    }

    #[inline(always)]
    fn unkey(addr: &Address) -> u32 {
        addr[3]
    }

    #[inline(always)]
    fn own(link: &Link) -> u32 {
        link.v4
    }

    #[inline(always)]
    fn source(addr: u32, link: &Link) -> Source {
        if link.has(Link::HAS_V4) && link.v4 == addr { Source::Own } else { Source::Foreign }
    }

    #[inline(always)]
    fn quoted<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<(u8, u32, u32)> {
        let [first, second, third, src, dst] = frame.words(at)?;
        let later_fragment = u32::from_be(second) & 0x1fff != 0;
        (u32::from_be(first) >> 24 == 0x45 && !later_fragment).then_some((
            byte(u32::from_be(third) >> 16),
            src,
            dst,
        ))
    }

    #[inline(always)]
    fn order(a: u32, b: u32) -> Ordering {
        a.cmp(&b)
    }

    #[inline(always)]
    fn masquerade(uplink: &Uplink) -> Option<u32> {
        uplink.has(Uplink::HAS_V4).then_some(uplink.v4)
    }

    #[inline(always)]
    fn is_group(addr: u32) -> bool {
        u32::from_be(addr) >> 28 == 0xe || addr == u32::MAX
    }

    #[inline(always)]
    fn is_link_local(_: u32) -> bool {
        // The host routes 169.254.0.0/16 like any other prefix: clouds have their metadata service there.
        false
    }

    #[inline(always)]
    fn gateway() -> u32 {
        u32::from_ne_bytes([169, 254, 1, 1])
    }

    #[inline(always)]
    fn is_same(a: u32, b: u32) -> bool {
        a == b
    }
}

impl V4 {
    /// Whether an address out of a map is of this family.
    #[inline(always)]
    pub fn is_key(addr: &Address) -> bool {
        let [a, b, c, _] = Self::key(0);
        addr[0] == a && addr[1] == b && addr[2] == c
    }

    /// The header's checksum, as it is in the packet, after one hop was counted (RFC 1141).
    #[inline(always)]
    pub fn checksum_after_hop(checksum: u16) -> u16 {
        let sum = u32::from(u16::from_be(checksum)) + 0x0100;
        let sum = sum + u32::from(sum >= 0xffff);
        let [_, _, high, low] = sum.to_be_bytes();
        u16::from_ne_bytes([high, low])
    }
}

/// IPv6 (RFC 8200).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V6;

impl Family for V6 {
    type Addr = [u32; 4];
    const AF: u8 = 10;
    const HEADER: usize = 40;
    const SOURCE: usize = ethernet::HEADER + 8;
    const ADDRESS: usize = 16;

    #[inline(always)]
    fn parse<B: Bytes + ?Sized>(frame: &B, length: u32) -> Result<Ip<Self>, Reason> {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] =
            frame.words(ethernet::HEADER).ok_or(Reason::Malformed)?;
        let (version, second) = (u32::from_be(first) >> 28, u32::from_be(second));
        let there = length.saturating_sub(14);
        let mut total = (second >> 16) + 40;
        if total == 40 && there > 0xffff {
            // A jumbogram, or a segment above 64 KiB that the device is to cut up (BIG TCP).
            total = there;
        }
        if version != 6 || total > there {
            return Err(Reason::Malformed);
        }
        Ok(Ip {
            src: [s0, s1, s2, s3],
            dst: [d0, d1, d2, d3],
            hops: byte(second),
            protocol: byte(second >> 8),
            length: total,
            class: first & u32::from_be_bytes([0x0f, 0xff, 0xff, 0xff]).to_be(),
            options: false,
            later_fragment: false,
            more_fragments: false,
            id: 0,
        })
    }

    #[inline(always)]
    fn key(addr: [u32; 4]) -> Address {
        addr
    }

    #[inline(always)]
    fn unkey(addr: &Address) -> [u32; 4] {
        *addr
    }

    #[inline(always)]
    fn own(link: &Link) -> [u32; 4] {
        link.v6
    }

    #[inline(always)]
    fn source(addr: [u32; 4], link: &Link) -> Source {
        if link.has(Link::HAS_V6) && same(&link.v6, &addr) {
            Source::Own
        } else if Self::is_link_local(addr) || same(&addr, &[0; 4]) {
            Source::Link
        } else {
            Source::Foreign
        }
    }

    #[inline(always)]
    fn quoted<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<(u8, [u32; 4], [u32; 4])> {
        let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] = frame.words(at)?;
        (u32::from_be(first) >> 28 == 6).then_some((
            byte(u32::from_be(second) >> 8),
            [s0, s1, s2, s3],
            [d0, d1, d2, d3],
        ))
    }

    #[inline(always)]
    fn order(a: [u32; 4], b: [u32; 4]) -> Ordering {
        if a[0] != b[0] {
            a[0].cmp(&b[0])
        } else if a[1] != b[1] {
            a[1].cmp(&b[1])
        } else if a[2] != b[2] {
            a[2].cmp(&b[2])
        } else {
            a[3].cmp(&b[3])
        }
    }

    #[inline(always)]
    fn masquerade(uplink: &Uplink) -> Option<[u32; 4]> {
        uplink.has(Uplink::HAS_V6).then_some(uplink.v6)
    }

    #[inline(always)]
    fn is_group(addr: [u32; 4]) -> bool {
        u32::from_be(addr[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_link_local(addr: [u32; 4]) -> bool {
        u32::from_be(addr[0]) >> 22 == 0xfe80 >> 6
    }

    #[inline(always)]
    fn gateway() -> [u32; 4] {
        [u32::from_ne_bytes([0xfe, 0x80, 0, 0]), 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]
    }

    #[inline(always)]
    fn is_same(a: [u32; 4], b: [u32; 4]) -> bool {
        same(&a, &b)
    }
}

#[inline(always)]
fn byte(word: u32) -> u8 {
    word.to_be_bytes()[3]
}

#[cfg(test)]
mod tests;
