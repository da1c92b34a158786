// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What tells flows apart above IP.

use crate::ct::Signal;
use crate::ip::ICMPV6;
use crate::layout::FragmentKey;
use crate::{Bytes, Family, Ip, Reason, ethernet};

/// How many extension headers are followed; more are refused, as no honest packet has them.
const EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Which part of its datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the transport header.
    First,
    /// A later fragment, which has not.
    Later,
}

/// Protocol and ports of a packet.
///
/// Without implicit padding: older kernels let functions of programs share only memory that is initialised whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Ports {
    /// Where the transport header begins in the frame.
    pub offset: usize,
    /// What all fragments of the datagram have in common, as it is in the packet.
    pub id: u32,
    /// Sender's port in wire order; the identifier of an ICMP echo.
    pub src: [u8; 2],
    /// Receiver's port in wire order; the identifier of an ICMP echo.
    pub dst: [u8; 2],
    /// IP protocol number behind all extension headers.
    pub protocol: u8,
    /// Which part of its datagram the packet is: a later one has no ports of its own.
    pub part: Part,
    /// What the packet says of its flow.
    pub signal: Signal,
    /// Zero.
    pub padding: [u8; 5],
}

const _: () = assert!(size_of::<Ports>() == size_of::<usize>() + 16);

impl Ports {
    /// Of a packet that has none.
    pub const NONE: Self = Self {
        offset: 0,
        id: 0,
        src: [0; 2],
        dst: [0; 2],
        protocol: 0,
        part: Part::Whole,
        signal: Signal::DATA,
        padding: [0; 5],
    };

    /// Whether the packet is a fragment without ports of its own.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        matches!(self.part, Part::Later)
    }

    /// The datagram that a fragment is part of.
    #[inline(always)]
    pub fn datagram<F: Family>(&self, ip: &Ip<F>) -> FragmentKey {
        let (src, dst) = (F::key(ip.src), F::key(ip.dst));
        FragmentKey { src, dst, id: self.id, protocol: ip.protocol, padding: [0; 3] }
    }

    /// Where the checksum is within the transport header, for protocols whose checksum a change of a port is told to.
    #[inline(always)]
    pub fn checksum(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            ICMP | ICMPV6 => Some(2),
            _ => None,
        }
    }

    /// Whether the checksum covers the addresses.
    #[inline(always)]
    pub fn covers_addresses(&self) -> bool {
        self.protocol != ICMP
    }

    /// Whether sender and receiver have one number in common, the identifier of an echo.
    #[inline(always)]
    pub fn is_echo(&self) -> bool {
        self.protocol == ICMP || self.protocol == ICMPV6
    }

    /// Whether the packet asks for an echo; of a later fragment nobody knows.
    #[inline(always)]
    pub fn is_echo_request(&self) -> bool {
        self.is_echo() && self.signal == Signal::DATA && !self.is_later_fragment()
    }

    /// Whether a checksum of zero means that there is none (RFC 768).
    #[inline(always)]
    pub fn zero_is_none(&self) -> bool {
        self.protocol == UDP
    }
}

/// Finds the ports; `None` is a protocol without ports. Those of a later fragment are zero.
///
/// # Errors
/// [`Reason::IpOptions`] for IPv4 options, [`Reason::Malformed`] when the packet ends before the ports or has more
/// extension headers than are followed.
#[inline(always)]
pub fn ports<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> Result<Option<Ports>, Reason> {
    if ip.options {
        return Err(Reason::IpOptions);
    }
    let part = if ip.later_fragment {
        Part::Later
    } else if ip.more_fragments {
        Part::First
    } else {
        Part::Whole
    };
    let offset = ethernet::HEADER + F::HEADER;
    let mut found = Ports { protocol: ip.protocol, part, offset, id: ip.id, ..Ports::NONE };
    if F::HEADER == 40 {
        behind_extensions(frame, &mut found)?;
    }
    if found.is_later_fragment() {
        return Ok(Some(found));
    }
    let (offset, protocol) = (found.offset, found.protocol);
    let (src, dst, signal) = match protocol {
        TCP => {
            let p: [u8; 14] = frame.read(offset).ok_or(Reason::Malformed)?;
            ([p[0], p[1]], [p[2], p[3]], Signal::of_tcp(p[13]))
        }
        UDP => {
            let p: [u8; 4] = frame.read(offset).ok_or(Reason::Malformed)?;
            ([p[0], p[1]], [p[2], p[3]], Signal::DATA)
        }
        SCTP => {
            let p: [u8; 13] = frame.read(offset).ok_or(Reason::Malformed)?;
            ([p[0], p[1]], [p[2], p[3]], Signal::of_sctp(p[12]))
        }
        ICMP | ICMPV6 => {
            let p: [u8; 6] = frame.read(offset).ok_or(Reason::Malformed)?;
            let signal = match (protocol, p[0]) {
                (ICMP, 8) | (ICMPV6, 128) => Signal::DATA,
                (ICMP, 0) | (ICMPV6, 129) => Signal::OPEN_ACK,
                _ => return Ok(None),
            };
            ([p[4], p[5]], [p[4], p[5]], signal)
        }
        _ => return Ok(None),
    };
    Ok(Some(Ports { src, dst, signal, ..found }))
}

/// The ports of TCP or UDP right behind a header without options, which is what nearly every packet has.
#[inline(always)]
pub fn plain_ports<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> Option<Ports> {
    if ip.options || ip.is_fragment() {
        return None;
    }
    let offset = ethernet::HEADER + F::HEADER;
    let signal = match ip.protocol {
        TCP => {
            let [_, flags]: [u8; 2] = frame.read(offset + 12)?;
            Signal::of_tcp(flags)
        }
        UDP => Signal::DATA,
        _ => return None,
    };
    let [a, b, c, d] = frame.read(offset)?;
    Some(Ports { protocol: ip.protocol, offset, src: [a, b], dst: [c, d], signal, id: ip.id, ..Ports::NONE })
}

/// Goes from the IPv6 header to the transport header, or to a fragment header that says that there is none.
#[inline(always)]
fn behind_extensions<B: Bytes + ?Sized>(frame: &B, found: &mut Ports) -> Result<(), Reason> {
    for _ in 0..EXTENSIONS {
        let length = match found.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let h: [u8; 2] = frame.read(found.offset).ok_or(Reason::Malformed)?;
                found.protocol = h[0];
                (usize::from(h[1]) + 1) * 8
            }
            AUTHENTICATION => {
                let h: [u8; 2] = frame.read(found.offset).ok_or(Reason::Malformed)?;
                found.protocol = h[0];
                (usize::from(h[1]) + 2) * 4
            }
            FRAGMENT => {
                let [h, id] = frame.words(found.offset).ok_or(Reason::Malformed)?;
                let [next, _, high, low] = h.to_ne_bytes();
                (found.protocol, found.id) = (next, id);
                let at = u16::from_be_bytes([high, low]);
                if at & 0xfff8 != 0 {
                    found.part = Part::Later;
                    return Ok(());
                }
                found.part = if at & 1 == 0 { Part::Whole } else { Part::First };
                8
            }
            _ => return Ok(()),
        };
        found.offset += length;
    }
    Err(Reason::Malformed)
}

#[cfg(test)]
mod tests;
