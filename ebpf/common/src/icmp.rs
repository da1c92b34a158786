// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ICMP errors, which belong to the flow of the packet that they quote.

use crate::ip::ICMPV6;
use crate::transport::{ICMP, SCTP, TCP, UDP};
use crate::{Bytes, Family, Ip, Ports, ethernet};

/// Length of the header before the quoted packet.
const HEADER: usize = 8;

/// The packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<F: Family> {
    /// Where the ICMP header begins in the frame.
    pub at: usize,
    /// Where the quoted IP header begins in the frame.
    pub ip: usize,
    /// Sender of the quoted packet.
    pub src: F::Addr,
    /// Receiver of the quoted packet.
    pub dst: F::Addr,
    /// Its ports; `offset` is where its transport header begins in the frame.
    pub ports: Ports,
}

/// Whether the packet is an ICMP error right behind its IP header (RFC 792, RFC 4443).
#[inline(always)]
pub fn is_error<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> bool {
    if ip.later_fragment || ip.options {
        return false;
    }
    let protocol = if F::HEADER == 40 { ICMPV6 } else { ICMP };
    if ip.protocol != protocol {
        return false;
    }
    let Some([kind]) = frame.read(ethernet::HEADER + F::HEADER) else { return false };
    if F::HEADER == 40 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) }
}

/// Reads what an ICMP error quotes; nothing when it is no error, or quotes a packet that has no ports to be read.
#[inline(always)]
pub fn quote<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> Option<Quote<F>> {
    if !is_error(frame, ip) {
        return None;
    }
    let at = ethernet::HEADER + F::HEADER;
    let inner = at + HEADER;
    let (protocol, src, dst) = F::quoted(frame, inner)?;
    let offset = inner + F::HEADER;
    let (src_port, dst_port) = match protocol {
        TCP | UDP | SCTP => {
            let p: [u8; 4] = frame.read(offset)?;
            ([p[0], p[1]], [p[2], p[3]])
        }
        ICMP | ICMPV6 => {
            let p: [u8; 6] = frame.read(offset)?;
            if !matches!((protocol, p[0]), (ICMP, 0 | 8) | (ICMPV6, 128 | 129)) {
                return None;
            }
            ([p[4], p[5]], [p[4], p[5]])
        }
        _ => return None,
    };
    let ports = Ports { protocol, offset, src: src_port, dst: dst_port, ..Ports::NONE };
    Some(Quote { at, ip: inner, src, dst, ports })
}

#[cfg(test)]
mod tests;
