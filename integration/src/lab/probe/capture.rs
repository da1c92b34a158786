// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use crate::lab::Namespace;

const ETHERNET: usize = 14;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Bytes of frames that may wait to be taken.
const QUEUE: usize = 16 << 20;
const LONGEST: Duration = Duration::from_secs(5);

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
    /// Source and destination port, where it is TCP or UDP without options. Who asks for an echo has its identifier as
    /// port, who answers 0.
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

    /// The packets that were seen since the last time, once for `quiet` there was no other: some are still on their way
    /// when those who sent them have gone. What never ends is cut off after five seconds.
    pub fn take_all(&self, quiet: Duration) -> Vec<Seen> {
        let (deadline, timeout) = (Instant::now() + LONGEST, quiet.try_into().ok());
        let mut packets = self.take();
        while poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()).is_ok_and(|came| came > 0) {
            packets.extend(self.take());
            if Instant::now() > deadline {
                break;
            }
        }
        packets
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
    let ports = match (protocol, ip.get(header)) {
        (TCP | UDP, _) => port(0).zip(port(2)),
        (ICMP, Some(8)) | (ICMPV6, Some(128)) => port(4).zip(Some(0)),
        (ICMP, Some(0)) | (ICMPV6, Some(129)) => Some(0).zip(port(4)),
        _ => None,
    };
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
        frame[23] = ICMP;
        for (kind, ports) in [(8, Some((0x8, 0))), (0, Some((0, 0x8))), (3, None)] {
            frame[34] = kind;
            assert_eq!(read(&frame).map(|seen| seen.ports), Some(ports), "type {kind}");
        }
        assert_eq!(read(&frame[..20]), None);
        assert_eq!(read(&[]), None);
    }
}
