// SPDX-License-Identifier: Apache-2.0
//! Numbers of the families (RFC 4760 §3): AFI 1 and 2, SAFI 1 for unicast.

use rhumb_model::Family;

/// SAFI of unicast routes.
const UNICAST: u8 = 1;

pub(super) fn afi(family: Family) -> u16 {
    match family {
        Family::V4 => 1,
        Family::V6 => 2,
    }
}

/// Four octets as in the multiprotocol capability and in ROUTE-REFRESH: AFI, a reserved octet or subtype, SAFI.
pub(super) fn octets(family: Family, between: u8) -> [u8; 4] {
    let [high, low] = afi(family).to_be_bytes();
    [high, low, between, UNICAST]
}

/// Three octets as in MP_REACH_NLRI and in most capabilities: AFI and SAFI.
pub(super) fn pair(family: Family) -> [u8; 3] {
    let [high, low] = afi(family).to_be_bytes();
    [high, low, UNICAST]
}

/// The family of the numbers, if this speaker has it.
pub(super) fn of(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, UNICAST) => Some(Family::V4),
        (2, UNICAST) => Some(Family::V6),
        _ => None,
    }
}
