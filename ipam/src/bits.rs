// SPDX-License-Identifier: Apache-2.0
//! Addresses as numbers, so that both families share their arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rhumb_model::{Family, Prefix};

pub(crate) fn to_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(crate) fn from_bits(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).expect("the bits are of an IPv4 address")))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// First and last address of a prefix.
pub(crate) fn ends(prefix: Prefix) -> (u128, u128) {
    (to_bits(prefix.addr()), to_bits(prefix.last()))
}
