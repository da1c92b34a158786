// SPDX-License-Identifier: Apache-2.0
//! The header of a message: marker, length, type (RFC 4271 §4.1, §6.1; RFC 8654 §4).

use bytes::{BufMut, BytesMut};

use super::Notification;

/// Octets of the header.
pub(super) const HEADER: usize = 19;
/// Longest OPEN and KEEPALIVE, and longest of all others where extended messages were not negotiated.
pub(super) const STANDARD: usize = 4096;

/// Types of messages; the values are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl Kind {
    fn of(octet: u8) -> Option<Self> {
        let all = [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh];
        all.into_iter().find(|kind| *kind as u8 == octet)
    }

    /// Shortest and longest whole message of the type, where others may have up to `maximum` octets.
    fn lengths(self, maximum: usize) -> (usize, usize) {
        match self {
            Kind::Open => (29, STANDARD),
            Kind::Update => (23, maximum),
            Kind::Notification => (21, maximum),
            Kind::Keepalive => (HEADER, HEADER),
            Kind::RouteRefresh => (23, maximum),
        }
    }
}

/// The type and the whole length of the message that begins with `octets`; `None` until its header is there.
///
/// # Errors
/// What the peer is to be told: 1/1 for a marker that is not all ones, 1/2 with the length, 1/3 with the type.
pub(super) fn parse(octets: &[u8], maximum: usize) -> Result<Option<(Kind, usize)>, Notification> {
    let Some((header, _)) = octets.split_first_chunk::<HEADER>() else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(Notification::not_synchronized());
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let whole = usize::from(length);
    if whole < HEADER || whole > maximum {
        return Err(Notification::bad_length(length));
    }
    let kind = Kind::of(header[18]).ok_or_else(|| Notification::bad_type(header[18]))?;
    let (least, most) = kind.lengths(maximum);
    if whole < least || whole > most {
        return Err(Notification::bad_length(length));
    }
    Ok(Some((kind, whole)))
}

/// Appends a header for a message of `whole` octets.
pub(super) fn put(kind: Kind, whole: usize, out: &mut BytesMut) {
    out.put_bytes(0xff, 16);
    out.put_u16(u16::try_from(whole).expect("messages are split to the negotiated maximum, at most 65535"));
    out.put_u8(kind as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u16, kind: u8) -> Vec<u8> {
        [&[0xff; 16][..], &length.to_be_bytes(), &[kind]].concat()
    }

    #[test]
    fn each_type_has_its_lengths() {
        let cases: [(u8, usize, usize, usize); 5] = [
            (1, 29, 4096, 4096),
            (2, 23, 4096, 65535),
            (3, 21, 4096, 65535),
            (4, 19, 19, 19),
            (5, 23, 4096, 65535),
        ];
        for (kind, least, most, extended) in cases {
            for (maximum, most) in [(4096, most), (65535, extended)] {
                for whole in [0, 18, 19, 20, 21, 22, 23, 28, 29, 4096, 4097, 65535] {
                    let length = u16::try_from(whole).expect("short");
                    let parsed = parse(&header(length, kind), maximum);
                    if (least..=most).contains(&whole) {
                        assert_eq!(
                            parsed.map(|found| found.map(|(_, whole)| whole)),
                            Ok(Some(whole)),
                            "{kind} {whole}"
                        );
                    } else {
                        assert_eq!(parsed, Err(Notification::bad_length(length)), "{kind} {whole} {maximum}");
                    }
                }
            }
        }
    }

    #[test]
    fn marker_and_type_are_told_with_the_octets_that_were_wrong() {
        let mut octets = header(19, 4);
        octets[15] = 0xfe;
        let notification = parse(&octets, 4096).expect_err("refused");
        assert_eq!((notification.code, notification.subcode, notification.data), (1, 1, vec![]));
        for kind in [0, 6, 255] {
            let notification = parse(&header(19, kind), 4096).expect_err("refused");
            assert_eq!((notification.code, notification.subcode, notification.data), (1, 3, vec![kind]));
        }
        let notification = parse(&header(5000, 2), 4096).expect_err("refused");
        assert_eq!((notification.code, notification.subcode, notification.data), (1, 2, vec![0x13, 0x88]));
    }

    #[test]
    fn nothing_is_said_before_the_header_is_whole() {
        for count in 0..HEADER {
            assert_eq!(parse(&[0; HEADER][..count], 4096), Ok(None));
        }
    }
}
