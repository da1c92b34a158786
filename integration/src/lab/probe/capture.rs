// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use crate::lab::Namespace;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of frames that may wait to be taken.
const QUEUE: usize = 16 << 20;

/// Sees every frame of a namespace from when it was opened; what nobody asks for is dropped when there is no room.
#[derive(Debug)]
pub struct Capture(OwnedFd);

/// What was seen of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Ethernet address of who sent the frame.
    pub sender: [u8; 6],
    /// Ethernet address of whom it was for.
    pub receiver: [u8; 6],
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// IP protocol number; for IPv6 that of the first header behind the fixed one.
    pub protocol: u8,
    /// Source and destination port, where it is TCP or UDP without options.
    pub ports: Option<(u16, u16)>,
    /// Length of the IP packet in bytes.
    pub length: usize,
}

impl Seen {
    /// Destination port, where it is UDP.
    pub fn udp(&self) -> Option<u16> {
        self.ports.filter(|_| self.protocol == UDP).map(|(_, to)| to)
    }
}

impl Capture {
    /// Begins to listen on all links of a namespace.
    ///
    /// # Errors
    /// For want of root.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(|| {
            let socket =
                socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL)).context("capture frames")?;
            set_socket_recv_buffer_size_force(&socket, QUEUE).context("make room for captured frames")?;
            Ok(Self(socket))
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
    let mac = |at: usize| <[u8; 6]>::try_from(frame.get(at..at + 6)?).ok();
    let kind = u16::from_be_bytes(frame.get(12..ETHERNET)?.try_into().ok()?);
    let ip = frame.get(ETHERNET..)?;
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
    let (from, to, protocol, header) = match kind {
        0x0800 => (v4(12)?, v4(16)?, *ip.get(9)?, 20),
        0x86dd => (v6(8)?, v6(24)?, *ip.get(6)?, 40),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(header + at..header + at + 2)?.try_into().ok()?));
    let ports = if matches!(protocol, TCP | UDP) { port(0).zip(port(2)) } else { None };
    Some(Seen { sender: mac(6)?, receiver: mac(0)?, from, to, protocol, ports, length: ip.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_far_as_it_goes() {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0x34, 0x21, 0x18, 0, 8, 0, 0]);
        let seen = Seen {
            sender: [2, 0, 0, 0, 0, 2],
            receiver: [2, 0, 0, 0, 0, 1],
            from: [10, 0, 0, 1].into(),
            to: [10, 0, 0, 2].into(),
            protocol: UDP,
            ports: Some((0x1234, 8472)),
            length: 28,
        };
        assert_eq!((read(&frame), seen.udp()), (Some(seen), Some(8472)));
        assert_eq!(read(&frame[..36]).map(|seen| seen.ports), Some(None));
        assert_eq!(read(&frame[..20]), None);
        assert_eq!(read(&[]), None);
    }
}
