// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What tells flows apart above IP.

use crate::ip::ICMPV6;
use crate::{Bytes, Family, Ip, Reason, ethernet};

/// How many extension headers are followed; more are refused, as no honest packet has them.
const EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;

/// Protocol and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// IP protocol number behind all extension headers.
    pub protocol: u8,
    /// Where the transport header begins in the frame.
    pub offset: usize,
    /// Sender's port in wire order; the identifier of an ICMP echo.
    pub src: [u8; 2],
    /// Receiver's port in wire order; the identifier of an ICMP echo.
    pub dst: [u8; 2],
}

impl Ports {
    /// Where the checksum is within the transport header, for protocols whose checksum covers the addresses.
    #[inline(always)]
    pub fn checksum(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            _ => None,
        }
    }

    /// Whether a checksum of zero means that there is none (RFC 768).
    #[inline(always)]
    pub fn zero_is_none(&self) -> bool {
        self.protocol == UDP
    }
}

/// Finds the ports; `None` is a protocol without ports.
///
/// # Errors
/// [`Reason::Fragment`] for a fragment that has none, [`Reason::Malformed`] when the packet ends before them or has
/// more extension headers than are followed.
#[inline(always)]
pub fn ports<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> Result<Option<Ports>, Reason> {
    if ip.later_fragment {
        return Err(Reason::Fragment);
    }
    if ip.options {
        return Err(Reason::IpOptions);
    }
    let mut offset = ethernet::HEADER + F::HEADER;
    let mut protocol = ip.protocol;
    if F::HEADER == 40 {
        (protocol, offset) = behind_extensions(frame, protocol, offset)?;
    }
    let (src, dst) = match protocol {
        TCP | UDP | SCTP => {
            let p: [u8; 4] = frame.read(offset).ok_or(Reason::Malformed)?;
            ([p[0], p[1]], [p[2], p[3]])
        }
        ICMP | ICMPV6 => {
            let p: [u8; 6] = frame.read(offset).ok_or(Reason::Malformed)?;
            let echo = if protocol == ICMP { p[0] == 8 || p[0] == 0 } else { p[0] == 128 || p[0] == 129 };
            if !echo {
                return Ok(None);
            }
            ([p[4], p[5]], [p[4], p[5]])
        }
        _ => return Ok(None),
    };
    Ok(Some(Ports { protocol, offset, src, dst }))
}

#[inline(always)]
fn behind_extensions<B: Bytes + ?Sized>(
    frame: &B,
    mut protocol: u8,
    mut offset: usize,
) -> Result<(u8, usize), Reason> {
    for _ in 0..EXTENSIONS {
        let length = match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let h: [u8; 2] = frame.read(offset).ok_or(Reason::Malformed)?;
                protocol = h[0];
                (usize::from(h[1]) + 1) * 8
            }
            AUTHENTICATION => {
                let h: [u8; 2] = frame.read(offset).ok_or(Reason::Malformed)?;
                protocol = h[0];
                (usize::from(h[1]) + 2) * 4
            }
            FRAGMENT => {
                let h: [u8; 8] = frame.read(offset).ok_or(Reason::Malformed)?;
                if u16::from_be_bytes([h[2], h[3]]) & 0xfff8 != 0 {
                    return Err(Reason::Fragment);
                }
                protocol = h[0];
                8
            }
            _ => return Ok((protocol, offset)),
        };
        offset += length;
    }
    Err(Reason::Malformed)
}

#[cfg(test)]
mod tests;
