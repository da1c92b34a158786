// SPDX-License-Identifier: Apache-2.0
//! Echo requests (RFC 792, RFC 4443 §4), and what raw sockets hear that is a sign of life.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rhumb_model::Family;

/// Marks our echoes: others on the host send some, too.
const MARK: [u8; 8] = *b"rhumb PB";
const HEADER: usize = 8;
const UDP: u8 = 17;

/// What says that a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It sent an echo of ours back.
    Echo {
        /// The number of the question beside it.
        number: u64,
    },
    /// Nobody listens at the port that was asked.
    Refused {
        /// Which address was asked.
        addr: IpAddr,
    },
}

/// An echo request. For IPv6 the kernel fills in the checksum, which covers the addresses.
pub fn request(family: Family, number: u64) -> Vec<u8> {
    let [kind, _] = echo_types(family);
    let [.., high, low] = number.to_be_bytes();
    let mut packet = vec![kind, 0, 0, 0, 0x72, 0x68, high, low];
    packet.extend(MARK);
    packet.extend(number.to_be_bytes());
    if family == Family::V4 {
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Reads what a raw socket gives: for IPv4 with its header, for IPv6 without. `port` is that of the probe.
pub fn read(family: Family, packet: &[u8], port: u16) -> Option<Sign> {
    let message = match family {
        Family::V4 => without_header(packet)?,
        Family::V6 => packet,
    };
    let (header, body) = message.split_first_chunk::<HEADER>()?;
    let [_, reply] = echo_types(family);
    if header[..2] == [reply, 0] {
        let number = body.strip_prefix(&MARK)?;
        return Some(Sign::Echo { number: u64::from_be_bytes(number.try_into().ok()?) });
    }
    // Destination unreachable, and of its codes the port.
    let (unreachable, protocol, addr, udp) = match family {
        Family::V4 => {
            let addr = <[u8; 4]>::try_from(body.get(16..20)?).ok()?;
            ([3, 3], *body.get(9)?, Ipv4Addr::from(addr).into(), without_header(body)?)
        }
        Family::V6 => {
            let addr = <[u8; 16]>::try_from(body.get(24..40)?).ok()?;
            ([1, 4], *body.get(6)?, Ipv6Addr::from(addr).into(), body.get(40..)?)
        }
    };
    let asked = udp.get(2..4)? == port.to_be_bytes();
    (header[..2] == unreachable && protocol == UDP && asked).then_some(Sign::Refused { addr })
}

/// The types of request and reply.
fn echo_types(family: Family) -> [u8; 2] {
    match family {
        Family::V4 => [8, 0],
        Family::V6 => [128, 129],
    }
}

/// What is behind an IPv4 header.
fn without_header(packet: &[u8]) -> Option<&[u8]> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    if length < 20 { None } else { packet.get(length..) }
}

/// RFC 1071, of an even number of bytes.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("two folds leave sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PORT: u16 = 7269;

    fn ipv4(options: usize, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + u8::try_from(options / 4).expect("few");
        packet[9] = UDP;
        packet[16..20].copy_from_slice(&[192, 0, 2, 7]);
        [&packet, payload].concat()
    }

    #[test]
    fn an_echo_that_comes_back_has_its_number() {
        let mut v4 = request(Family::V4, 0x1234_5678_9abc_def0);
        assert_eq!(checksum(&v4), 0, "the checksum is right");
        assert_eq!(read(Family::V4, &ipv4(0, &v4), PORT), None, "a request is no reply");
        v4[0] = 0;
        let sign = Some(Sign::Echo { number: 0x1234_5678_9abc_def0 });
        assert_eq!(read(Family::V4, &ipv4(8, &v4), PORT), sign);
        let mut v6 = request(Family::V6, 0x1234_5678_9abc_def0);
        v6[0] = 129;
        assert_eq!(read(Family::V6, &v6, PORT), sign);
        v6[8] = 0;
        assert_eq!(read(Family::V6, &v6, PORT), None, "somebody else's echo");
    }

    #[test]
    fn a_port_without_a_listener_is_a_sign() {
        let udp = |port: u16| [&[0, 1][..], &port.to_be_bytes(), &[0, 8, 0, 0]].concat();
        let told = |code, port| [&[3, code, 0, 0, 0, 0, 0, 0][..], &ipv4(4, &udp(port))].concat();
        let refused = Some(Sign::Refused { addr: [192, 0, 2, 7].into() });
        assert_eq!(read(Family::V4, &ipv4(0, &told(3, PORT)), PORT), refused);
        assert_eq!(read(Family::V4, &ipv4(0, &told(1, PORT)), PORT), None, "the host is not reached");
        assert_eq!(read(Family::V4, &ipv4(0, &told(3, 53)), PORT), None);
        let mut inner = vec![0; 40];
        (inner[6], inner[39]) = (UDP, 7);
        let v6 = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &inner, &udp(PORT)].concat();
        let addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 7).into();
        assert_eq!(read(Family::V6, &v6, PORT), Some(Sign::Refused { addr }));
        assert_eq!(read(Family::V6, &v6[..50], PORT), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(packet: Vec<u8>, v6: bool) {
            read(if v6 { Family::V6 } else { Family::V4 }, &packet, PORT);
        }
    }
}
