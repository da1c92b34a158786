// SPDX-License-Identifier: Apache-2.0
//! TCP packets made by hand, for programs to be run on.

use std::net::IpAddr;

/// Who asks whom, and for which service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// Ethernet address of the interface that takes the packet.
    pub(super) mac: [u8; 6],
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) port: u16,
}

/// A packet without payload from the port `sender`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) source: Source,
    pub(super) sender: u16,
}

impl Frame {
    /// The packet in the middle of a stream.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.with_flags(0x10)
    }

    /// The packet that opens the stream.
    pub(super) fn opening(&self) -> Vec<u8> {
        self.with_flags(0x02)
    }

    /// The answer to a packet that was sent, to the interface `mac`; nothing when that has no ports.
    pub(super) fn answering(sent: &[u8], mac: [u8; 6]) -> Option<Self> {
        let is_v4 = sent.get(12..14)? == [8, 0];
        let (at, length) = if is_v4 { (26, 4) } else { (22, 16) };
        let addr = |at: usize| -> Option<IpAddr> {
            let bytes = sent.get(at..at + length)?;
            Some(if is_v4 {
                IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)
            } else {
                IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)
            })
        };
        let (to, from) = (addr(at)?, addr(at + length)?);
        let &[a, b, c, d] = sent.get(at + 2 * length..at + 2 * length + 4)? else { return None };
        let source = Source { mac, from, to, port: u16::from_be_bytes([a, b]) };
        Some(Self { source, sender: u16::from_be_bytes([c, d]) })
    }

    /// An Ethernet frame with as many hops as there can be. Its TCP checksum is none: no program reads it.
    fn with_flags(&self, flags: u8) -> Vec<u8> {
        let Source { mac, from, to, port } = self.source;
        let mut frame = [mac, [2, 0, 0, 0, 0, 2]].concat();
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([8, 0]);
                let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 255, 6, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                frame.extend(header);
            }
            (from, to) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 255]);
                for addr in [from, to] {
                    match addr {
                        IpAddr::V4(v4) => frame.extend(v4.to_ipv6_mapped().octets()),
                        IpAddr::V6(v6) => frame.extend(v6.octets()),
                    }
                }
            }
        }
        frame.extend(self.sender.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        frame
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_back_where_the_packet_came_from() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let source = Source {
                mac: [2; 6],
                from: from.parse().expect("an address"),
                to: to.parse().expect("an address"),
                port: 80,
            };
            let answer = Frame::answering(&Frame { source, sender: 5 }.bytes(), [2; 6]).expect("ports");
            assert_eq!((answer.source.from, answer.source.to), (source.to, source.from));
            assert_eq!((answer.source.port, answer.sender), (5, 80));
        }
        assert!(Frame::answering(&[0; 20], [2; 6]).is_none());
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_nothing() {
        let source = Source { mac: [2; 6], from: [10, 0, 0, 1].into(), to: [10, 0, 0, 2].into(), port: 80 };
        assert_eq!(checksum(&Frame { source, sender: 5 }.bytes()[14..34]), 0);
    }
}
