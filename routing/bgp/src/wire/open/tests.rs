// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use bgpkit_parser::models::AsnLength;
use rhumb_model::Family;

use super::*;
use crate::wire::header::HEADER;
use crate::wire::samples;
use crate::wire::{AddPath, Fqdn, GracefulRestart, LongLived};

fn encoded(open: &Open) -> Vec<u8> {
    encode(open).encode(AsnLength::Bits32).expect("within bounds")[HEADER..].to_vec()
}

/// A body with these capabilities in one parameter.
fn with(capabilities: &[u8]) -> Vec<u8> {
    let length = u8::try_from(capabilities.len()).expect("short");
    [&[4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1, length + 2, 2, length], capabilities].concat()
}

fn everything() -> Open {
    let mut open = samples::open(4_200_000_001);
    let forwarding = BTreeMap::from([(Family::V4, true), (Family::V6, false)]);
    open.capabilities = Capabilities {
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_message: true,
        extended_next_hop: BTreeSet::from([Family::V4]),
        graceful_restart: Some(GracefulRestart {
            restarting: true,
            notification: true,
            restart_time: 4095,
            families: forwarding,
        }),
        long_lived: Some(BTreeMap::from([(
            Family::V6,
            LongLived { forwarding: true, stale_time: 0x00ff_fffe },
        )])),
        add_path: BTreeMap::from([
            (Family::V4, AddPath { receive: true, send: false }),
            (Family::V6, AddPath { receive: true, send: true }),
        ]),
        fqdn: Some(Fqdn { host: "node-1".to_owned(), domain: "rack.example".to_owned() }),
        unknown: vec![(200, vec![1, 2, 3])],
        ..open.capabilities
    };
    open
}

#[test]
fn what_is_written_is_read() {
    for open in [everything(), samples::open(65001)] {
        assert_eq!(decode(&encoded(&open)), Ok(open));
    }
    let bare = Open { capabilities: Capabilities::default(), ..samples::open(65001) };
    assert_eq!(encoded(&bare).len(), 10);
    assert_eq!(decode(&encoded(&bare)), Ok(bare));
}

#[test]
fn more_than_255_octets_of_parameters_have_long_lengths() {
    let mut open = everything();
    open.capabilities.unknown = vec![(200, vec![7; 255]), (201, vec![8; 200])];
    let octets = encoded(&open);
    assert_eq!(octets[9..11], [255, 255]);
    assert_eq!(decode(&octets), Ok(open));
    // The form is told by the type 255 behind any length but 0 (RFC 9072 §2).
    let mut other = octets.clone();
    other[9] = 1;
    assert_eq!(decode(&other), decode(&octets));
    other[9] = 0;
    assert_eq!(decode(&other), Err(malformed()));
}

#[test]
fn each_bad_field_is_told_by_its_subcode() {
    let good = with(&[]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = good.clone();
        change(&mut octets);
        decode(&octets).map_err(|notification| {
            assert_eq!(notification.code, 2);
            (notification.subcode, notification.data)
        })
    };
    assert!(changed(&|_| ()).is_ok());
    assert_eq!(changed(&|octets| octets[0] = 5), Err((1, vec![0, 4])));
    assert_eq!(changed(&|octets| (octets[1], octets[2]) = (0, 0)), Err((2, vec![])));
    assert_eq!(changed(&|octets| (octets[1], octets[2]) = (0x5b, 0xa0)), Err((2, vec![])));
    assert_eq!(changed(&|octets| octets[5..9].fill(0)), Err((3, vec![])));
    assert_eq!(changed(&|octets| octets[10] = 1), Err((4, vec![])));
    for seconds in [1, 2] {
        assert_eq!(changed(&|octets| octets[4] = seconds), Err((6, vec![])));
    }
    for seconds in [0, 3] {
        let hold_time = changed(&|octets| octets[4] = seconds).map(|open| open.hold_time);
        assert_eq!(hold_time, Ok(seconds.into()));
    }
    // Lengths: of all parameters, of one, of a capability.
    assert_eq!(changed(&|octets| octets.push(0)), Err((0, vec![])));
    assert_eq!(changed(&|octets| octets[9] = 1), Err((0, vec![])));
    assert_eq!(changed(&|octets| octets[11] = 1), Err((0, vec![])));
    for bad in [&[1][..], &[1, 4, 0, 1, 0], &[65, 3, 0, 0, 1]] {
        assert_eq!(decode(&with(bad)), Err(malformed()), "{bad:?}");
    }
}

#[test]
fn the_two_places_of_the_as_must_agree() {
    let of = |asn: u32| decode(&with(&[&[65, 4][..], &asn.to_be_bytes()].concat())).map(|open| open.asn);
    assert_eq!(of(65001), Ok(Asn(65001)));
    for bad in [0, 65002, 23456, 70000] {
        assert_eq!(of(bad), Err(Notification::bad_peer_as()), "{bad}");
    }
    let mut octets = with(&[65, 4, 0, 1, 0x11, 0x70]);
    (octets[1], octets[2]) = (0x5b, 0xa0);
    assert_eq!(decode(&octets).map(|open| open.asn), Ok(Asn(70000)));
}

#[test]
fn a_family_that_is_not_known_hides_none_that_is() {
    let capabilities = [
        &[1, 4, 0, 25, 0, 70, 1, 4, 0, 2, 0, 1][..],
        &[5, 12, 0, 1, 0, 128, 0, 2, 0, 1, 0, 1, 0, 2],
        &[64, 10, 0x40, 120, 0, 25, 70, 0x80, 0, 1, 1, 0x80],
        &[69, 8, 0, 25, 70, 3, 0, 1, 1, 1],
        &[71, 14, 0, 25, 70, 0, 0, 0, 1, 0, 1, 1, 0x80, 0, 1, 0],
    ];
    let found = decode(&with(&capabilities.concat())).expect("good").capabilities;
    assert_eq!(found.families, BTreeSet::from([Family::V6]));
    assert_eq!(found.extended_next_hop, BTreeSet::from([Family::V4]));
    let restart = GracefulRestart {
        restarting: false,
        notification: true,
        restart_time: 120,
        families: BTreeMap::from([(Family::V4, true)]),
    };
    assert_eq!(found.graceful_restart, Some(restart));
    assert_eq!(found.add_path, BTreeMap::from([(Family::V4, AddPath { receive: true, send: false })]));
    assert_eq!(
        found.long_lived.unwrap_or_default(),
        BTreeMap::from([(Family::V4, LongLived { forwarding: true, stale_time: 256 })])
    );
    assert_eq!(found.unknown, [(1, vec![0, 25, 0, 70])]);
}

#[test]
fn capabilities_of_a_wrong_form_are_as_if_not_offered() {
    let bad = [
        &[1, 3, 0, 1, 0][..],
        &[2, 1, 0],
        &[5, 5, 0, 1, 0, 1, 0],
        &[6, 1, 0],
        &[64, 1, 0],
        &[64, 3, 0, 120, 0],
        &[69, 3, 0, 1, 1],
        &[70, 1, 0],
        &[71, 6, 0, 1, 1, 0, 0, 0],
        &[73, 2, 2, b'a'],
        &[73, 4, 1, b'a', 0, 0],
    ];
    let found = decode(&with(&bad.concat())).expect("good").capabilities;
    let wanted = bad.iter().map(|octets| (octets[0], octets[2..].to_vec())).collect();
    assert_eq!(found, Capabilities { unknown: wanted, ..Capabilities::default() });
    // Directions without a meaning are left out (RFC 7911 §4).
    let found = decode(&with(&[69, 8, 0, 1, 1, 0, 0, 2, 1, 4])).expect("good").capabilities;
    assert_eq!(found, Capabilities::default());
}

#[test]
fn names_of_hosts_are_cut_between_characters() {
    let mut open = samples::open(65001);
    open.capabilities.fqdn = Some(Fqdn { host: "ö".repeat(100), domain: String::new() });
    let found = decode(&encoded(&open)).expect("good").capabilities.fqdn;
    assert_eq!(found, Some(Fqdn { host: "ö".repeat(63), domain: String::new() }));
    assert_eq!(decode(&with(&[73, 2, 1, b'a'])).expect("good").capabilities.fqdn.expect("named").host, "a");
}
