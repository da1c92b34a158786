// SPDX-License-Identifier: Apache-2.0
//! Sessions and messages that the tests of this room share.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::Family;

use super::{AddPath, Asn, Capabilities, Negotiated, Open, RouterId};

/// An OPEN with both families and four-octet systems.
pub(super) fn open(asn: u32) -> Open {
    let capabilities = Capabilities {
        families: BTreeSet::from(Family::BOTH),
        asn4: Some(Asn(asn)),
        ..Capabilities::default()
    };
    Open { asn: Asn(asn), hold_time: 90, router_id: RouterId(asn), capabilities }
}

/// The session of two OPENs.
pub(super) fn session(ours: &Open, theirs: &Open) -> Negotiated {
    Negotiated::of(ours, theirs).expect("the OPENs have families in common")
}

/// A session of AS 65000 with AS 65001, in both families.
pub(super) fn external() -> Negotiated {
    session(&open(65000), &open(65001))
}

/// A session within AS 65000.
pub(super) fn internal() -> Negotiated {
    let mut theirs = open(65000);
    theirs.router_id = RouterId(2);
    session(&open(65000), &theirs)
}

/// As [`external`], with a peer of two-octet systems.
pub(super) fn two_octets() -> Negotiated {
    let mut theirs = open(65001);
    theirs.capabilities.asn4 = None;
    session(&open(65000), &theirs)
}

/// As [`external`], with IPv6 next hops for IPv4.
pub(super) fn unnumbered() -> Negotiated {
    let with = |mut open: Open| {
        open.capabilities.extended_next_hop = BTreeSet::from([Family::V4]);
        open
    };
    session(&with(open(65000)), &with(open(65001)))
}

/// As [`external`], with several paths, in both directions, of one family.
pub(super) fn several_paths(family: Family) -> Negotiated {
    let with = |mut open: Open| {
        open.capabilities.add_path = BTreeMap::from([(family, AddPath { receive: true, send: true })]);
        open
    };
    session(&with(open(65000)), &with(open(65001)))
}

/// An attribute: flags, code, length, value.
pub(super) fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    let header = if value.len() > 255 {
        vec![flags | 0x10, code, length[0], length[1]]
    } else {
        vec![flags, code, length[1]]
    };
    [&header, value].concat()
}

/// The body of an UPDATE.
pub(super) fn body(withdrawn: &[u8], attributes: &[u8], destinations: &[u8]) -> Vec<u8> {
    let length = |section: &[u8]| u16::try_from(section.len()).expect("short").to_be_bytes();
    [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, destinations].concat()
}
