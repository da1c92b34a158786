// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Whether a packet fits the way that it is to take.

use crate::{Bytes, Family, Ip, ethernet};

/// Every link takes IPv6 packets of this length (RFC 8200, section 5), so nobody is told of less.
pub const LEAST_V6: u32 = 1280;

/// Whether the packets that this one becomes on the wire are longer than `mtu`; an `mtu` of 0 is no limit.
///
/// `segment` is the payload per packet of a segment to be cut up, 0 for a packet that is one already; `headers` is the
/// length of the IP and transport headers that each packet of a segment carries.
#[inline(always)]
pub fn exceeds<F: Family>(ip: &Ip<F>, segment: u32, headers: u32, mtu: u32) -> bool {
    let length = if segment == 0 { ip.length } else { segment.saturating_add(headers) };
    mtu != 0 && length > reported::<F>(mtu)
}

/// The MTU that a sender is told of.
#[inline(always)]
pub fn reported<F: Family>(mtu: u32) -> u32 {
    if F::HEADER == 40 && mtu < LEAST_V6 { LEAST_V6 } else { mtu }
}

/// Whether a packet that does not fit is to be answered with an error, not cut up: IPv6 packets, and those of IPv4 that
/// say so. Errors are not answered, and neither are later fragments (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
#[inline(always)]
pub fn is_answered<F: Family, B: Bytes + ?Sized>(frame: &B, ip: &Ip<F>) -> bool {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let kind = |at| frame.read::<1>(at).map_or(0, |kind| kind[0]);
    let transport = ethernet::HEADER + F::HEADER;
    if F::HEADER == 40 {
        // Errors are below 128 (RFC 4443, section 2.1); redirects are not answered either.
        return ip.protocol != ICMPV6 || (kind(transport) >= 128 && kind(transport) != 137);
    }
    let whole = kind(ethernet::HEADER + 6) & 0x40 != 0 && !ip.later_fragment;
    let error = ip.protocol == ICMP && matches!(kind(transport), 3 | 4 | 5 | 11 | 12);
    whole && !error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{V4, V6};

    fn v4(length: u16, flags: u8, protocol: u8, kind: u8) -> ([u8; 2048], Ip<V4>) {
        let mut frame = [0; 2048];
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        (frame[20], frame[22], frame[23], frame[34]) = (flags, 64, protocol, kind);
        let ip = V4::parse(&frame, 2048).expect("whole");
        (frame, ip)
    }

    fn v6(payload: u16, protocol: u8, kind: u8) -> ([u8; 2048], Ip<V6>) {
        let mut frame = [0; 2048];
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        (frame[20], frame[21], frame[54]) = (protocol, 64, kind);
        let ip = V6::parse(&frame, 2048).expect("whole");
        (frame, ip)
    }

    #[test]
    fn a_packet_of_the_length_of_the_mtu_fits() {
        let (_, ip) = v4(1450, 0, 17, 0);
        assert!(!exceeds(&ip, 0, 0, 1450));
        assert!(exceeds(&ip, 0, 0, 1449));
        assert!(!exceeds(&ip, 0, 0, 0), "nobody says how large");
    }

    #[test]
    fn a_segment_counts_with_what_it_is_cut_into() {
        let (_, ip) = v4(2000, 0, 6, 0);
        assert!(!exceeds(&ip, 1398, 52, 1450));
        assert!(exceeds(&ip, 1399, 52, 1450));
        assert!(exceeds(&ip, u32::MAX, 52, 1450));
    }

    #[test]
    fn nobody_is_told_of_less_than_every_ipv6_link_takes() {
        let (_, ip) = v6(1280 - 40, 17, 0);
        assert!(!exceeds(&ip, 0, 0, 1000));
        assert_eq!((reported::<V6>(1000), reported::<V6>(1430), reported::<V4>(1000)), (1280, 1430, 1000));
    }

    #[test]
    fn only_what_must_not_be_cut_up_is_answered() {
        for (flags, answered) in [(0x40, true), (0, false), (0x20, false), (0x60, true)] {
            let (frame, ip) = v4(1500, flags, 17, 0);
            assert_eq!(is_answered(&frame, &ip), answered, "{flags:x}");
        }
        let (mut frame, _) = v4(1500, 0x40, 17, 0);
        frame[21] = 1;
        assert!(!is_answered(&frame, &V4::parse(&frame, 2048).expect("whole")), "a later fragment");
        let (frame, ip) = v6(1500, 6, 0);
        assert!(is_answered(&frame, &ip));
    }

    #[test]
    fn an_error_is_not_answered_with_an_error() {
        for (kind, answered) in [(8, true), (0, true), (3, false), (11, false), (12, false)] {
            let (frame, ip) = v4(1500, 0x40, 1, kind);
            assert_eq!(is_answered(&frame, &ip), answered, "{kind}");
        }
        for (kind, answered) in [(128, true), (129, true), (1, false), (2, false), (3, false), (137, false)] {
            let (frame, ip) = v6(1500, 58, kind);
            assert_eq!(is_answered(&frame, &ip), answered, "{kind}");
        }
    }
}
