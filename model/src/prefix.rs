// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Length of an address in bits: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The prefix that holds every address: `0.0.0.0/0` or `::/0`.
    pub fn default_route(self) -> Prefix {
        match self {
            Family::V4 => Prefix { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 },
            Family::V6 => Prefix { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 },
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// A block of addresses: first address and length in bits, with no bit set behind the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text or a pair is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The text is no address with a length.
    #[error("{value:?}: want ADDRESS/LENGTH, for example 10.0.0.0/16 or fd00::/48")]
    Syntax {
        /// The text that was refused.
        value: String,
    },
    /// A bit behind the length is set.
    #[error("{value}: address bits are set behind the length; the block is {block}")]
    HostBits {
        /// The text that was refused.
        value: String,
        /// The block that holds the address.
        block: Prefix,
    },
}

impl Prefix {
    /// The block of length `len` that holds `addr`; `len` is cut to the length of an address.
    pub fn containing(addr: IpAddr, len: u8) -> Self {
        let len = len.min(Family::of(addr).bits());
        Self { addr: from_bits(Family::of(addr), to_bits(addr) & mask(Family::of(addr), len)), len }
    }

    /// The block that is one address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: Family::of(addr).bits() }
    }

    /// First address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of a prefix is in bits; a prefix is never empty"
    )]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Address family.
    pub fn family(self) -> Family {
        Family::of(self.addr)
    }

    /// Last address.
    pub fn last(self) -> IpAddr {
        let family = self.family();
        from_bits(family, to_bits(self.addr) | (!mask(family, self.len) & mask(family, family.bits())))
    }

    /// How many addresses; `u128::MAX` stands for all of IPv6.
    pub fn size(self) -> u128 {
        1u128.checked_shl(u32::from(self.family().bits() - self.len)).unwrap_or(u128::MAX)
    }

    /// The address at `offset` from the first, or `None` behind the last.
    pub fn nth(self, offset: u128) -> Option<IpAddr> {
        (offset < self.size()).then(|| from_bits(self.family(), to_bits(self.addr) + offset))
    }

    /// The distance of `addr` from the first address, or `None` outside of the block.
    pub fn offset_of(self, addr: IpAddr) -> Option<u128> {
        self.contains(addr).then(|| to_bits(addr) - to_bits(self.addr))
    }

    /// Whether `addr` is in the block.
    pub fn contains(self, addr: IpAddr) -> bool {
        Family::of(addr) == self.family() && Prefix::containing(addr, self.len).addr == self.addr
    }

    /// Whether all of `other` is in the block.
    pub fn covers(self, other: Prefix) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// Whether the two blocks share an address.
    pub fn overlaps(self, other: Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }
}

fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).expect("masked to 32 bits"))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// The bits of a network part of length `len`.
fn mask(family: Family, len: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(family.bits()));
    let host = u32::from(family.bits() - len);
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(value: &str) -> Result<Self, PrefixError> {
        let syntax = || PrefixError::Syntax { value: value.to_owned() };
        let (addr, len) = value.split_once('/').ok_or_else(syntax)?;
        let addr: IpAddr = addr.parse().map_err(|_| syntax())?;
        let len: u8 = len.parse().map_err(|_| syntax())?;
        if len > Family::of(addr).bits() {
            return Err(syntax());
        }
        let block = Prefix::containing(addr, len);
        if block.addr != addr {
            return Err(PrefixError::HostBits { value: value.to_owned(), block });
        }
        Ok(block)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;
    fn try_from(value: String) -> Result<Self, PrefixError> {
        value.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl From<IpNetwork> for Prefix {
    fn from(network: IpNetwork) -> Self {
        Prefix::containing(network.ip(), network.prefix())
    }
}

impl From<Prefix> for IpNetwork {
    fn from(prefix: Prefix) -> Self {
        IpNetwork::new(prefix.addr, prefix.len).expect("the length fits the family")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Prefix {
        text.parse().expect("valid prefix")
    }

    #[test]
    fn host_bits_and_bad_lengths_are_refused() {
        assert!(matches!("10.0.0.1/8".parse::<Prefix>(), Err(PrefixError::HostBits { .. })));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/-1"] {
            assert!(matches!(bad.parse::<Prefix>(), Err(PrefixError::Syntax { .. })), "{bad}");
        }
    }

    #[test]
    fn edges_of_both_families() {
        assert_eq!(p("10.1.2.0/24").last().to_string(), "10.1.2.255");
        assert_eq!(p("fd00::/120").last().to_string(), "fd00::ff");
        assert_eq!(p("0.0.0.0/0").size(), 1 << 32);
        assert_eq!(p("::/0").size(), u128::MAX);
        assert_eq!(p("10.0.0.0/31").nth(2), None);
        assert!(!p("0.0.0.0/0").contains("::1".parse().expect("valid")));
    }

    proptest! {
        #[test]
        fn a_block_covers_exactly_the_addresses_with_its_bits(bits: u32, len in 0u8..=32, other: u32) {
            let block = Prefix::containing(IpAddr::V4(bits.into()), len);
            let same = len == 0 || (bits ^ other) >> (32 - len) == 0;
            prop_assert_eq!(block.contains(IpAddr::V4(other.into())), same);
            prop_assert_eq!(block.to_string().parse::<Prefix>(), Ok(block));
        }

        #[test]
        fn offset_and_nth_are_inverse(bits: u128, len in 0u8..=128, offset: u64) {
            let block = Prefix::containing(IpAddr::V6(bits.into()), len);
            if let Some(addr) = block.nth(u128::from(offset)) {
                prop_assert_eq!(block.offset_of(addr), Some(u128::from(offset)));
            }
        }
    }
}
