// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NameError;

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Takes six octets in wire order.
    ///
    /// # Errors
    /// The all-zero address and group addresses (lowest bit of the first octet set) are refused: no interface may
    /// carry them.
    pub fn new(octets: [u8; 6]) -> Result<Self, NameError> {
        if octets == [0; 6] || octets[0] & 1 == 1 {
            return Err(refused(&format_octets(octets)));
        }
        Ok(Self(octets))
    }

    /// Makes a locally administered address out of a seed: the same seed, the same address.
    pub fn from_seed(seed: u64) -> Self {
        let bytes = seed.to_be_bytes();
        Self([(bytes[2] & 0xfc) | 0x02, bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// The six octets in wire order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

fn refused(value: &str) -> NameError {
    NameError {
        kind: "MAC address",
        value: value.to_owned(),
        rule: "six two-digit hexadecimal octets separated by ':', unicast and not all zero",
    }
}

fn format_octets(o: [u8; 6]) -> String {
    format!("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", o[0], o[1], o[2], o[3], o[4], o[5])
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_octets(self.0))
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    fn from_str(value: &str) -> Result<Self, NameError> {
        let mut octets = [0; 6];
        let mut parts = value.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(|| refused(value))?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| refused(value))?;
        }
        if parts.next().is_some() {
            return Err(refused(value));
        }
        Self::new(octets)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NameError;
    fn try_from(value: String) -> Result<Self, NameError> {
        value.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_agree() {
        let mac: MacAddr = "c2:11:22:33:44:55".parse().expect("valid");
        assert_eq!(mac.octets(), [0xc2, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(mac.to_string(), "c2:11:22:33:44:55");
    }

    #[test]
    fn group_zero_and_malformed_addresses_are_refused() {
        for bad in [
            "",
            "00:00:00:00:00:00",
            "01:00:00:00:00:00",
            "c2:11:22:33:44",
            "c2:11:22:33:44:55:66",
            "+2:11:22:33:44:55:",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_gives_a_local_unicast_address() {
        for seed in [0, 1, u64::MAX] {
            assert_eq!(MacAddr::from_seed(seed).octets()[0] & 0x03, 0x02);
        }
    }
}
