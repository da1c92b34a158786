// SPDX-License-Identifier: Apache-2.0
//! Frames for tables of packets, with every checksum right.

use std::net::IpAddr;

pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
pub(crate) const SCTP: u8 = 132;

/// A frame to be built.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) hops: u8,
    pub(crate) protocol: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) payload: Vec<u8>,
    pub(crate) checksum: bool,
}

impl Frame {
    pub(crate) fn udp(src: &str, dst: &str, ports: (u16, u16)) -> Self {
        Self {
            to: [2, 0, 0, 0, 0, 1],
            from: [2, 0, 0, 0, 0, 2],
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            hops: 64,
            protocol: UDP,
            ports,
            payload: b"some payload, odd".to_vec(),
            checksum: true,
        }
    }

    pub(crate) fn tcp(src: &str, dst: &str, ports: (u16, u16)) -> Self {
        Self { protocol: TCP, ..Self::udp(src, dst, ports) }
    }

    pub(crate) fn macs(mut self, to: [u8; 6], from: [u8; 6]) -> Self {
        (self.to, self.from) = (to, from);
        self
    }

    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.ports.0.to_be_bytes());
        transport.extend(self.ports.1.to_be_bytes());
        let at = if self.protocol == UDP {
            transport.extend(u16::try_from(8 + self.payload.len()).expect("short").to_be_bytes());
            transport.extend([0, 0]);
            6
        } else {
            transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
            16
        };
        transport.extend(&self.payload);
        if self.checksum && self.protocol != SCTP {
            let mut pseudo = octets(self.src);
            pseudo.extend(octets(self.dst));
            pseudo.extend(u32::try_from(transport.len()).expect("short").to_be_bytes());
            pseudo.extend([0, 0, 0, self.protocol]);
            pseudo.extend(&transport);
            let sum = checksum(&pseudo);
            transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        ip(self.to, self.from, self.src, self.dst, self.hops, self.protocol, &transport)
    }
}

/// The frame with its IPv4 header's checksum made right.
pub(crate) fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    let end = 14 + usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum(&frame[14..end]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
}

/// The frame of an IPv4 packet with four bytes of options.
pub(crate) fn with_options(frame: &[u8]) -> Vec<u8> {
    let (head, tail) = frame.split_at(34);
    let mut frame = [head, &[1, 1, 1, 0], tail].concat();
    frame[14] = 0x46;
    let length = u16::try_from(frame.len() - 14).expect("short").to_be_bytes();
    frame[16..18].copy_from_slice(&length);
    summed(frame)
}

/// An Ethernet frame with an IP packet.
pub(crate) fn ip(
    to: [u8; 6],
    from: [u8; 6],
    src: IpAddr,
    dst: IpAddr,
    hops: u8,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [to, from].concat();
    if src.is_ipv4() {
        let length = u16::try_from(20 + payload.len()).expect("short").to_be_bytes();
        let mut header = vec![0x45, 0, length[0], length[1], 0x12, 0x34, 0x40, 0, hops, protocol, 0, 0];
        header.extend(octets(src));
        header.extend(octets(dst));
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        frame.extend([8, 0]);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
        frame.extend([protocol, hops]);
        frame.extend(octets(src));
        frame.extend(octets(dst));
    }
    frame.extend(payload);
    frame
}

/// An ICMPv6 message in its frame.
pub(crate) fn icmp6(to: [u8; 6], from: [u8; 6], src: &str, dst: &str, hops: u8, message: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("an address"), dst.parse().expect("an address"));
    let mut message = message.to_vec();
    let mut pseudo = [octets(src), octets(dst)].concat();
    pseudo.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    pseudo.extend(&message);
    let sum = checksum(&pseudo).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    ip(to, from, src, dst, hops, 58, &message)
}

pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
