// SPDX-License-Identifier: Apache-2.0
//! Destinations on the wire: length in bits, as many octets as that needs, in front of them a path identifier where
//! ADD-PATH is negotiated for the family and direction (RFC 4271 §4.3, RFC 4760 §5, RFC 7911 §3). Nothing is guessed from
//! the octets: a zero octet is a default route or the start of an identifier only by what was negotiated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use rhumb_model::{Family, Prefix};

use super::Nlri;
use super::octets::{octet, take, word};

/// Whether destinations carry a path identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paths {
    Single,
    Several,
}

/// A list of destinations ends within one, or has one that is longer than an address (RFC 7606 §5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a whole field of destinations; host bits are cleared.
pub(super) fn decode(family: Family, paths: Paths, mut field: &[u8]) -> Result<Vec<Nlri>, Malformed> {
    let mut nlri = Vec::with_capacity(field.len() / least(family, paths));
    while !field.is_empty() {
        nlri.push(one(family, paths, &mut field).ok_or(Malformed)?);
    }
    Ok(nlri)
}

/// Octets of a destination as it commonly comes, to guess how many there are.
fn least(family: Family, paths: Paths) -> usize {
    let prefix = match family {
        Family::V4 => 4,
        Family::V6 => 7,
    };
    match paths {
        Paths::Single => prefix,
        Paths::Several => prefix + 4,
    }
}

fn one(family: Family, paths: Paths, field: &mut &[u8]) -> Option<Nlri> {
    let path_id = match paths {
        Paths::Single => 0,
        Paths::Several => word(field)?,
    };
    let len = octet(field).filter(|len| *len <= family.bits())?;
    let octets = take(field, usize::from(len).div_ceil(8))?;
    let addr: IpAddr = match family {
        Family::V4 => Ipv4Addr::from(filled(octets)).into(),
        Family::V6 => Ipv6Addr::from(filled(octets)).into(),
    };
    Some(Nlri { prefix: Prefix::containing(addr, len), path_id })
}

fn filled<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    whole[..octets.len()].copy_from_slice(octets);
    whole
}

/// Octets that [`encode`] writes.
pub(super) fn size(nlri: &Nlri, paths: Paths) -> usize {
    let identifier = match paths {
        Paths::Single => 0,
        Paths::Several => 4,
    };
    identifier + 1 + usize::from(nlri.prefix.len()).div_ceil(8)
}

/// Appends one destination.
pub(super) fn encode(nlri: &Nlri, paths: Paths, out: &mut BytesMut) {
    if paths == Paths::Several {
        out.put_u32(nlri.path_id);
    }
    out.put_u8(nlri.prefix.len());
    let count = usize::from(nlri.prefix.len()).div_ceil(8);
    match nlri.prefix.addr() {
        IpAddr::V4(addr) => out.put_slice(&addr.octets()[..count]),
        IpAddr::V6(addr) => out.put_slice(&addr.octets()[..count]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(family: Family, paths: Paths, field: &[u8]) -> Result<Vec<String>, Malformed> {
        Ok(decode(family, paths, field)?.iter().map(Nlri::to_string).collect())
    }

    #[test]
    fn a_default_route_beside_others_is_no_path_identifier() {
        let v4 = [0, 24, 10, 200, 2, 24, 10, 200, 1];
        let wanted = ["0.0.0.0/0", "10.200.2.0/24", "10.200.1.0/24"].map(str::to_owned);
        assert_eq!(texts(Family::V4, Paths::Single, &v4), Ok(wanted.to_vec()));
        let v6 = [0, 32, 0x20, 1, 0x0d, 0xb8, 8, 0xfd];
        let wanted = ["::/0", "2001:db8::/32", "fd00::/8"].map(str::to_owned);
        assert_eq!(texts(Family::V6, Paths::Single, &v6), Ok(wanted.to_vec()));
    }

    #[test]
    fn identifiers_are_read_where_they_were_negotiated() {
        let field = [0, 0, 0, 7, 0, 0, 0, 0, 8, 24, 10, 1, 2];
        let wanted = ["0.0.0.0/0 path 7", "10.1.2.0/24 path 8"].map(str::to_owned);
        assert_eq!(texts(Family::V4, Paths::Several, &field), Ok(wanted.to_vec()));
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(texts(Family::V4, Paths::Single, &[9, 10, 255]), Ok(vec!["10.128.0.0/9".to_owned()]));
        assert_eq!(texts(Family::V4, Paths::Single, &[31, 10, 0, 0, 1]), Ok(vec!["10.0.0.0/31".to_owned()]));
    }

    #[test]
    fn a_field_is_consumed_to_its_last_octet_or_refused() {
        for bad in [&[24, 10, 0][..], &[33, 10, 0, 0, 0, 0], &[8, 10, 8], &[255]] {
            assert_eq!(texts(Family::V4, Paths::Single, bad), Err(Malformed), "{bad:?}");
        }
        for bad in [&[129][..], &[128, 0, 1], &[1]] {
            assert_eq!(texts(Family::V6, Paths::Single, bad), Err(Malformed), "{bad:?}");
        }
        for bad in [&[0, 0, 0, 1][..], &[0, 0, 0], &[0]] {
            assert_eq!(texts(Family::V4, Paths::Several, bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(texts(Family::V4, Paths::Single, &[]), Ok(Vec::new()));
    }
}
