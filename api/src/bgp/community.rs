// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A community as people write it: `65000:100` (RFC 1997), `65000:1:2` (a large one, RFC 8092), or a well-known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BgpCommunity {
    /// A standard one.
    Standard(u32),
    /// A large one.
    Large([u32; 3]),
}

/// A text that is no community.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}: want ASN:VALUE (each at most 65535), GLOBAL:LOCAL:LOCAL, or one of {names}", names = names())]
pub struct BgpCommunityError {
    /// The text.
    pub value: String,
}

/// Names that the registry of well-known communities gives (RFC 1997, RFC 3765, RFC 7999, RFC 8326, RFC 9494).
const WELL_KNOWN: [(&str, u32); 8] = [
    ("graceful-shutdown", 0xffff_0000),
    ("accept-own", 0xffff_0001),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-peer", 0xffff_ff04),
];

fn names() -> String {
    WELL_KNOWN.map(|(name, _)| name).join(", ")
}

impl FromStr for BgpCommunity {
    type Err = BgpCommunityError;

    fn from_str(text: &str) -> Result<Self, BgpCommunityError> {
        let error = || BgpCommunityError { value: text.to_owned() };
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(BgpCommunity::Standard(*value));
        }
        // A sign would pass as a number.
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [asn, value] if digits(asn) && digits(value) => {
                let asn: u16 = asn.parse().map_err(|_| error())?;
                let value: u16 = value.parse().map_err(|_| error())?;
                Ok(BgpCommunity::Standard(u32::from(asn) << 16 | u32::from(value)))
            }
            [global, first, second] if [global, first, second].iter().all(|part| digits(part)) => {
                let number = |part: &str| part.parse::<u32>().map_err(|_| error());
                Ok(BgpCommunity::Large([number(global)?, number(first)?, number(second)?]))
            }
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for BgpCommunity {
    type Error = BgpCommunityError;

    fn try_from(text: String) -> Result<Self, BgpCommunityError> {
        text.parse()
    }
}

impl From<BgpCommunity> for String {
    fn from(community: BgpCommunity) -> String {
        community.to_string()
    }
}

impl fmt::Display for BgpCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BgpCommunity::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xffff),
            },
            BgpCommunity::Large([global, first, second]) => write!(f, "{global}:{first}:{second}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_community_is_read_as_people_write_it() {
        for (text, value) in [
            ("65000:100", BgpCommunity::Standard(65000 << 16 | 100)),
            ("0:0", BgpCommunity::Standard(0)),
            ("no-export", BgpCommunity::Standard(0xffff_ff01)),
            ("graceful-shutdown", BgpCommunity::Standard(0xffff_0000)),
            ("4200000000:1:2", BgpCommunity::Large([4_200_000_000, 1, 2])),
        ] {
            assert_eq!(text.parse(), Ok(value), "{text}");
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in
            ["", "65536:1", "1:65536", "1", "1:2:3:4", "+1:2", "1:", "a:b", "NO-EXPORT", "1:2:4294967296"]
        {
            assert!(text.parse::<BgpCommunity>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_community_survives_its_text(standard: u32, large: [u32; 3]) {
            for community in [BgpCommunity::Standard(standard), BgpCommunity::Large(large)] {
                prop_assert_eq!(community.to_string().parse::<BgpCommunity>(), Ok(community));
            }
        }
    }
}
