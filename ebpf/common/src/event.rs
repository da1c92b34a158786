// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel side tells of single packets, and how often it may.
//!
//! Drops are always told, at a limited rate. What is forwarded or passed on is told only while somebody watches.

use crate::layout::Address;
use crate::{Bytes, ethernet};

/// Size of the ring of events in bytes: a power of two and of pages.
pub const RING: u32 = 256 * 1024;
/// The reader is woken when this much waits; until then it looks by itself.
pub const WAKE: u64 = RING as u64 / 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// What happened to one packet, as the ring has it.
///
/// Addresses, ports and protocol are those of the packet at the end of the program: of a dropped one as it came, of a
/// forwarded one as it leaves. What could not be read is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot, suspension included.
    pub time: u64,
    /// Sender; of ARP the sender's protocol address.
    pub src: Address,
    /// Receiver; of ARP the target's protocol address.
    pub dst: Address,
    /// Length of the frame as it came.
    pub length: u32,
    /// The interface that the program is attached to.
    pub ifindex: u32,
    /// Type of the payload, in wire order.
    pub ethertype: [u8; 2],
    /// Sender's port in wire order; type and code of an ICMP message.
    pub src_port: [u8; 2],
    /// Receiver's port in wire order.
    pub dst_port: [u8; 2],
    /// Number of the [`Reason`](crate::Reason).
    pub reason: u8,
    /// Number of the [`Direction`](crate::Direction).
    pub direction: u8,
    /// Number of the [`Verdict`](crate::Verdict).
    pub verdict: u8,
    /// IP protocol number; for IPv6 the first next header, behind which no ports are looked for.
    pub protocol: u8,
    /// Flags of a TCP segment.
    pub tcp_flags: u8,
    /// Zero.
    pub padding: [u8; 5],
}

impl Event {
    /// What is known of a packet without looking into it.
    #[inline(always)]
    pub fn new(time: u64, reason: u8, direction: u8, verdict: u8) -> Self {
        Self { time, reason, direction, verdict, ..Self::default() }
    }

    /// Reads what the kernel side wrote; nothing when it is of another size.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let [reason, direction, verdict, protocol, tcp_flags] = bytes.read(54)?;
        Some(Self {
            time: u64::from_ne_bytes(bytes.read(0)?),
            src: bytes.words(8)?,
            dst: bytes.words(24)?,
            length: u32::from_ne_bytes(bytes.read(40)?),
            ifindex: u32::from_ne_bytes(bytes.read(44)?),
            ethertype: bytes.read(48)?,
            src_port: bytes.read(50)?,
            dst_port: bytes.read(52)?,
            reason,
            direction,
            verdict,
            protocol,
            tcp_flags,
            padding: bytes.read(59)?,
        })
    }

    /// Adds what the frame says; where it ends too early the rest stays zero.
    #[inline(always)]
    pub fn look<B: Bytes + ?Sized>(&mut self, frame: &B) {
        let Some(kind) = frame.read::<2>(ethernet::TYPE) else { return };
        self.ethertype = kind;
        let transport = match kind {
            ethernet::IPV4 => self.look_v4(frame),
            ethernet::IPV6 => self.look_v6(frame),
            ethernet::ARP => self.look_arp(frame),
            _ => None,
        };
        if let Some(offset) = transport {
            self.look_transport(frame, offset);
        }
    }

    #[inline(always)]
    fn look_v4<B: Bytes + ?Sized>(&mut self, frame: &B) -> Option<usize> {
        let [first, second, third, src, dst] = frame.words(ethernet::HEADER)?;
        (self.src, self.dst) = (mapped(src), mapped(dst));
        self.protocol = third.to_ne_bytes()[1];
        let later_fragment = u32::from_be(second) & 0x1fff != 0;
        let plain = first.to_ne_bytes()[0] == 0x45;
        (plain && !later_fragment).then_some(ethernet::HEADER + 20)
    }

    #[inline(always)]
    fn look_v6<B: Bytes + ?Sized>(&mut self, frame: &B) -> Option<usize> {
        let [_, second, s0, s1, s2, s3, d0, d1, d2, d3] = frame.words(ethernet::HEADER)?;
        (self.src, self.dst) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
        self.protocol = second.to_ne_bytes()[2];
        Some(ethernet::HEADER + 40)
    }

    #[inline(always)]
    fn look_arp<B: Bytes + ?Sized>(&mut self, frame: &B) -> Option<usize> {
        const SENDER: usize = ethernet::HEADER + 14;
        const TARGET: usize = ethernet::HEADER + 24;
        let ([src], [dst]) = (frame.words::<1>(SENDER)?, frame.words::<1>(TARGET)?);
        (self.src, self.dst) = (mapped(src), mapped(dst));
        None
    }

    #[inline(always)]
    fn look_transport<B: Bytes + ?Sized>(&mut self, frame: &B, offset: usize) {
        match self.protocol {
            TCP | UDP | SCTP => {
                let Some([a, b, c, d]) = frame.read::<4>(offset) else { return };
                (self.src_port, self.dst_port) = ([a, b], [c, d]);
                if self.protocol == TCP
                    && let Some([flags]) = frame.read::<1>(offset + 13)
                {
                    self.tcp_flags = flags;
                }
            }
            ICMP | ICMPV6 => {
                if let Some(kind) = frame.read::<2>(offset) {
                    self.src_port = kind;
                }
            }
            _ => {}
        }
    }
}

/// The IPv4 address as the maps have it.
#[inline(always)]
fn mapped(v4: u32) -> Address {
    [0, 0, u32::from_be(0xffff), v4]
}

/// What somebody wants to hear besides drops; all zero is nobody. The one value of `watch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Watch {
    /// Until when, in the clock of [`Event::time`]: a watcher that died costs nothing for long.
    pub until: u64,
    /// Only packets from or to one of these; both zero is all.
    pub addrs: [Address; 2],
    /// Only packets with this reason; zero is all.
    pub reason: u8,
    /// Zero.
    pub padding: [u8; 7],
}

impl Watch {
    /// Nobody.
    pub const NOBODY: Self = Self { until: 0, addrs: [[0; 4]; 2], reason: 0, padding: [0; 7] };

    /// Whether somebody wants to hear of packets with this reason now.
    #[inline(always)]
    pub fn wants(&self, reason: u8, now: u64) -> bool {
        now < self.until && (self.reason == 0 || self.reason == reason)
    }

    /// Whether the packet is one of those that are wanted.
    #[inline(always)]
    pub fn concerns(&self, event: &Event) -> bool {
        let [one, other] = &self.addrs;
        let all = is_zero(one) && is_zero(other);
        all || same(one, &event.src)
            || same(one, &event.dst)
            || same(other, &event.src)
            || same(other, &event.dst)
    }
}

/// Word by word: comparing arrays calls `memcmp`, which the kernel side has not.
#[inline(always)]
fn same(a: &Address, b: &Address) -> bool {
    a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

#[inline(always)]
fn is_zero(addr: &Address) -> bool {
    addr[0] | addr[1] | addr[2] | addr[3] == 0
}

/// How many events a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next in the long run.
    pub interval: u64,
    /// How many at once.
    pub burst: u64,
}

impl Rate {
    /// Drops of one reason on one CPU.
    pub const DROPS: Self = Self::per_second(100);
    /// Other events of one reason on one CPU.
    pub const TRACES: Self = Self::per_second(4_000);

    /// The rate of this many a second, and as many at once.
    pub const fn per_second(count: u64) -> Self {
        Self { interval: 1_000_000_000 / count, burst: count }
    }
}

/// Value of `event_limits`, one per CPU; the key is the number of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// When the events so far would have ended, had they come at the rate.
    pub until: u64,
    /// Events not told because there were too many.
    pub limited: u64,
    /// Events not told because the ring was full.
    pub full: u64,
}

impl Limit {
    /// Whether one more event may be told; counts it when not.
    #[inline(always)]
    pub fn take(&mut self, rate: Rate, now: u64) -> bool {
        let from = if self.until > now { self.until } else { now };
        if from - now > rate.interval * (rate.burst - 1) {
            self.limited += 1;
            return false;
        }
        self.until = from + rate.interval;
        true
    }
}

#[cfg(test)]
mod tests;
