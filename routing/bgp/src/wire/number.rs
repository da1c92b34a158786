// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of an autonomous system, four octets (RFC 6793); 0 is reserved and refused (RFC 7607).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands for a number above 65535 where only two octets are spoken (RFC 6793 §9).
    pub const TRANS: Asn = Asn(23456);

    /// The number in two octets, [`Asn::TRANS`] where it does not fit.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// BGP identifier: four octets, unique within an AS and never 0 (RFC 6286 §2); written like an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RouterId(pub u32);

impl From<Ipv4Addr> for RouterId {
    fn from(addr: Ipv4Addr) -> Self {
        RouterId(addr.to_bits())
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from_bits(self.0).fmt(f)
    }
}

/// Community of four octets: by custom an AS and a number (RFC 1997).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Community(pub u32);

impl Community {
    /// The sender asks for a less preferred route before it goes away (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// The route is kept although it is stale (RFC 9494 §4.5).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// The route is not to be kept when it becomes stale (RFC 9494 §4.5).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// Traffic to the prefix is to be discarded (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// Not to be advertised outside of the AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// Not to be advertised to any peer (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// Not to be advertised to external peers (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
    /// Not to be advertised by bilateral peering (RFC 3765).
    pub const NO_PEER: Community = Community(0xffff_ff04);

    /// Names by which well-known communities are written.
    const NAMES: [(Community, &str); 8] = [
        (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Community::LLGR_STALE, "llgr-stale"),
        (Community::NO_LLGR, "no-llgr"),
        (Community::BLACKHOLE, "blackhole"),
        (Community::NO_EXPORT, "no-export"),
        (Community::NO_ADVERTISE, "no-advertise"),
        (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Community::NO_PEER, "no-peer"),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: want {want}")]
pub struct NumberError {
    text: String,
    want: &'static str,
}

impl FromStr for Community {
    type Err = NumberError;

    /// Reads `65000:1`, or the name of a well-known community in any case.
    fn from_str(text: &str) -> Result<Self, NumberError> {
        if let Some((community, _)) = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            return Ok(*community);
        }
        let parts =
            text.split_once(':').and_then(|(asn, value)| Some((asn.parse().ok()?, value.parse().ok()?)));
        let want = "AS:VALUE of 16 bits each, or the name of a well-known community";
        let (asn, value): (u16, u16) = parts.ok_or(NumberError { text: text.to_owned(), want })?;
        Ok(Community(u32::from(asn) << 16 | u32::from(value)))
    }
}

/// Community of twelve octets (RFC 8092).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LargeCommunity {
    /// The AS that defines the meaning of the others.
    pub global: u32,
    /// First part of the meaning.
    pub local1: u32,
    /// Second part of the meaning.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let mut parts = text.split(':').map(str::parse::<u32>);
        let mut next = || parts.next().and_then(Result::ok);
        match (next(), next(), next(), next().is_none() && text.matches(':').count() == 2) {
            (Some(global), Some(local1), Some(local2), true) => Ok(LargeCommunity { global, local1, local2 }),
            _ => Err(NumberError { text: text.to_owned(), want: "GLOBAL:LOCAL:LOCAL of 32 bits each" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_as_they_are_written() {
        for community in
            [Community(65000 << 16 | 7), Community::NO_EXPORT, Community::BLACKHOLE, Community(0)]
        {
            assert_eq!(community.to_string().parse(), Ok(community));
        }
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        assert_eq!("No-Export".parse(), Ok(Community::NO_EXPORT));
        let large = LargeCommunity { global: 4_200_000_000, local1: 0, local2: 9 };
        assert_eq!(large.to_string().parse(), Ok(large));
    }

    #[test]
    fn texts_that_are_no_communities_are_refused() {
        for bad in ["", ":", "1", "65536:1", "1:65536", "1:2:3", "no-thing"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
        for bad in ["", "1:2", "1:2:3:4", "1:2:4294967296", "1:2:3:", "a:b:c"] {
            assert!(bad.parse::<LargeCommunity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_large_number_is_as_trans_in_two_octets() {
        assert_eq!(Asn(65535).two_octets(), 65535);
        assert_eq!(Asn(65536).two_octets(), 23456);
    }
}
