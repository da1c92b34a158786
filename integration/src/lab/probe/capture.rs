// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use crate::lab::Namespace;

const ETHERNET: usize = 14;
const UDP: u8 = 17;

/// Sees every frame of a namespace from when it was opened; what nobody asks for is dropped when there is no room.
#[derive(Debug)]
pub struct Capture(OwnedFd);

/// What was seen of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Destination port, where it is UDP without options.
    pub udp: Option<u16>,
    /// Length of the IP packet in bytes.
    pub length: usize,
}

impl Capture {
    /// Begins to listen on all links of a namespace.
    ///
    /// # Errors
    /// For want of root.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(|| {
            socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL)).map(Self).context("capture frames")
        })
    }

    /// The packets that were seen since the last time.
    pub fn take(&self) -> Vec<Seen> {
        let mut buffer = vec![0; 1 << 17];
        let mut packets = Vec::new();
        while let Ok((length, _)) = recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            packets.extend(read(&buffer[..length]));
        }
        packets
    }
}

fn read(frame: &[u8]) -> Option<Seen> {
    let kind = u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?);
    let ip = frame.get(ETHERNET..)?;
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
    let (from, to, protocol, header) = match kind {
        0x0800 => (v4(12)?, v4(16)?, *ip.get(9)?, 20),
        0x86dd => (v6(8)?, v6(24)?, *ip.get(6)?, 40),
        _ => return None,
    };
    let port = || Some(u16::from_be_bytes(ip.get(header + 2..header + 4)?.try_into().ok()?));
    Some(Seen { from, to, udp: (protocol == UDP).then(port).flatten(), length: ip.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_far_as_it_goes() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0x34, 0x21, 0x18, 0, 8, 0, 0]);
        let seen = Seen { from: [10, 0, 0, 1].into(), to: [10, 0, 0, 2].into(), udp: Some(8472), length: 28 };
        assert_eq!(read(&frame), Some(seen));
        assert_eq!(read(&frame[..36]).map(|seen| seen.udp), Some(None));
        assert_eq!(read(&frame[..20]), None);
        assert_eq!(read(&[]), None);
    }
}
