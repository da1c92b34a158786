// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::wire::samples::{external, internal, open, session, several_paths};

#[test]
fn what_only_one_side_offers_is_not_on_the_session() {
    let all = |mut open: Open| {
        let capabilities = &mut open.capabilities;
        capabilities.route_refresh = true;
        capabilities.enhanced_route_refresh = true;
        capabilities.extended_message = true;
        capabilities.extended_next_hop = BTreeSet::from([Family::V4]);
        let restart = GracefulRestart { notification: true, restart_time: 7, ..GracefulRestart::default() };
        capabilities.graceful_restart = Some(restart);
        capabilities.long_lived =
            Some(BTreeMap::from([(Family::V4, LongLived { forwarding: false, stale_time: 9 })]));
        open
    };
    let both = session(&all(open(65000)), &all(open(65001)));
    assert!(both.asn4 && both.extended_message && both.route_refresh && both.enhanced_route_refresh);
    assert_eq!((both.maximum(), both.extended_next_hop.len(), both.long_lived.len()), (65535, 1, 1));
    assert!(both.graceful_restart.is_some_and(|restart| restart.notification && restart.restart_time == 7));
    for one in [session(&all(open(65000)), &open(65001)), session(&open(65000), &all(open(65001)))] {
        assert!(!one.extended_message && !one.enhanced_route_refresh);
        assert_eq!((one.maximum(), one.extended_next_hop.len(), one.long_lived.len()), (4096, 0, 0));
        assert_eq!(one.graceful_restart, None);
    }
    // A peer that understands requests may be sent them, whatever we offer.
    assert!(session(&open(65000), &all(open(65001))).route_refresh);
    let mut without = all(open(65001));
    without.capabilities.graceful_restart = Some(GracefulRestart::default());
    let restart = session(&all(open(65000)), &without).graceful_restart;
    assert!(restart.is_some_and(|restart| !restart.notification));
}

#[test]
fn several_paths_need_a_sender_and_a_receiver() {
    let with = |asn: u32, receive: bool, send: bool| {
        let mut open = open(asn);
        open.capabilities.add_path = BTreeMap::from([(Family::V6, AddPath { receive, send })]);
        open
    };
    let paths = |ours: (bool, bool), theirs: (bool, bool)| {
        let session = session(&with(65000, ours.0, ours.1), &with(65001, theirs.0, theirs.1));
        (!session.add_path_receive.is_empty(), !session.add_path_send.is_empty())
    };
    assert_eq!(paths((true, false), (true, true)), (true, false));
    assert_eq!(paths((true, false), (true, false)), (false, false));
    assert_eq!(paths((false, true), (true, false)), (false, true));
    assert_eq!(paths((true, true), (true, true)), (true, true));
    assert_eq!(several_paths(Family::V4).add_path_receive, BTreeSet::from([Family::V4]));
}

#[test]
fn a_peer_without_families_speaks_ipv4() {
    let mut theirs = open(65001);
    theirs.capabilities.families.clear();
    assert_eq!(session(&open(65000), &theirs).families, BTreeSet::from([Family::V4]));
    // One that has only others does not.
    theirs.capabilities.unknown.push((1, vec![0, 25, 0, 70]));
    let refused = Negotiated::of(&open(65000), &theirs).expect_err("nothing in common");
    assert_eq!((refused.code, refused.subcode), (2, 7));
    assert_eq!(refused.data, [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]);
}

#[test]
fn identifiers_differ_within_one_system_only() {
    let (ours, mut theirs) = (open(65000), open(65000));
    assert_eq!(Negotiated::of(&ours, &theirs), Err(Notification::bad_identifier()));
    theirs = open(65001);
    theirs.router_id = ours.router_id;
    assert!(Negotiated::of(&ours, &theirs).is_ok());
    assert!(internal().is_internal() && !external().is_internal());
}

#[test]
fn the_smaller_hold_time_counts() {
    let mut theirs = open(65001);
    theirs.hold_time = 0;
    assert_eq!(session(&open(65000), &theirs).hold_time, 0);
    theirs.hold_time = 3;
    assert_eq!(session(&theirs, &open(65000)).hold_time, 3);
}

#[test]
fn long_lived_stale_routes_need_graceful_restart_and_may_be_known_without_any_kept() {
    let with = |long_lived: Option<BTreeMap<Family, LongLived>>, restart: bool| {
        let mut open = open(65001);
        open.capabilities.long_lived = long_lived;
        open.capabilities.graceful_restart = restart.then(GracefulRestart::default);
        open
    };
    let kept = || Some(BTreeMap::from([(Family::V4, LongLived { forwarding: true, stale_time: 9 })]));
    for (theirs, knows, count) in [
        (with(kept(), true), true, 1),
        (with(Some(BTreeMap::new()), true), true, 0),
        (with(kept(), false), false, 0),
        (with(None, true), false, 0),
    ] {
        let mut ours = with(Some(BTreeMap::new()), true);
        (ours.asn, ours.router_id) = (Asn(65000), RouterId(1));
        let found = session(&ours, &theirs);
        assert_eq!((found.knows_long_lived, found.long_lived.len()), (knows, count), "{theirs:?}");
    }
}
