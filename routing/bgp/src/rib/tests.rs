// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use rhumb_model::Family;

use super::sample::{
    addr, all, announce, changed, drain, info, local, path, prefix, quiet, said, settings, up, withdraw,
};
use super::*;

mod model;

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";
const C: &str = "2001:db8:c::/48";

fn rib() -> Rib {
    let mut rib = Rib::new(settings());
    rib.set_synced();
    rib
}

#[test]
fn a_learned_route_is_told_to_others_and_to_the_kernel() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    assert_eq!(said(&mut rib, two), ["end ipv4", "end ipv6"]);
    assert_eq!(said(&mut rib, one), ["end ipv4", "end ipv6"]);
    rib.ready();
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    assert_eq!(rib.ready(), BTreeSet::from([one, two]));
    assert_eq!(said(&mut rib, two), [format!("{A} {B} via 192.0.2.254 [65000 65001]")]);
    assert_eq!(said(&mut rib, one), [""; 0]);
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1"), format!("{B} 192.0.2.1")]);
    rib.update(one, &withdraw(&[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("gone {A}")]);
    assert_eq!(changed(&mut rib), [format!("{A} -")]);
}

#[test]
fn what_is_told_again_unchanged_is_told_to_nobody() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    quiet(&mut rib);
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!((rib.ready(), said(&mut rib, two), changed(&mut rib)), (BTreeSet::new(), vec![], vec![]));
}

#[test]
fn a_changed_attribute_replaces_without_a_withdrawal() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    drain(&mut rib, two);
    rib.update(one, &announce(1, path(&[65001, 65003]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("{A} via 192.0.2.254 [65000 65001 65003]")]);
}

#[test]
fn a_route_that_comes_and_goes_before_a_peer_reads_is_never_told() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    drain(&mut rib, two);
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.update(one, &withdraw(&[A])).expect("within limits");
    assert_eq!((said(&mut rib, two), changed(&mut rib)), (vec![], vec![]));
}

#[test]
fn what_changes_between_two_messages_is_told_once_as_it_is_then() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    drain(&mut rib, two);
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001, 7]), &[B, "10.3.0.0/16"])).expect("within limits");
    assert!(rib.next_update(two).is_some());
    // The second group is made already; one prefix of it goes, the other changes.
    rib.update(one, &withdraw(&[B])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001, 8]), &["10.3.0.0/16"])).expect("within limits");
    assert_eq!(said(&mut rib, two), ["10.3.0.0/16 via 192.0.2.254 [65000 65001 8]"]);
}

#[test]
fn routes_of_this_node_are_told_and_win_and_go() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    drain(&mut rib, one);
    rib.set_local([local(A), local(C)]);
    assert_eq!(
        said(&mut rib, one),
        [format!("{A} via 192.0.2.254 [65000]"), format!("{C} via 2001:db8::fe (fe80::fe) [65000]"),]
    );
    assert_eq!(changed(&mut rib), [""; 0], "the node itself knows where its pods are");
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!((said(&mut rib, one), changed(&mut rib)), (vec![], vec![]));
    let mut aggregate = local(C);
    aggregate.discard = true;
    rib.set_local([aggregate]);
    assert_eq!(said(&mut rib, one), [format!("gone {A}")]);
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1"), format!("{C} discard")]);
    rib.set_local([]);
    assert_eq!((said(&mut rib, one), changed(&mut rib)), (vec![format!("gone {C}")], vec![format!("{C} -")]));
}

#[test]
fn end_of_rib_waits_until_all_is_known() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    rib.set_local([local(A)]);
    assert_eq!(said(&mut rib, one), [format!("{A} via 192.0.2.254 [65000]")]);
    rib.ready();
    rib.set_synced();
    assert_eq!(rib.ready(), BTreeSet::from([one]));
    assert_eq!(said(&mut rib, one), ["end ipv4", "end ipv6"]);
}

#[test]
fn a_refresh_tells_everything_once_more_between_marks() {
    let mut rib = rib();
    rib.set_local([local(A), local(B)]);
    let one = up(&mut rib, info(1, 65001));
    drain(&mut rib, one);
    rib.ready();
    rib.refresh(one, Family::V4);
    assert_eq!(rib.ready(), BTreeSet::from([one]));
    rib.set_local([local(A)]);
    assert_eq!(
        said(&mut rib, one),
        [
            "begin refresh ipv4".to_owned(),
            format!("gone {B}"),
            format!("{A} via 192.0.2.254 [65000]"),
            "end refresh ipv4".to_owned(),
        ]
    );
    assert_eq!(said(&mut rib, one), [""; 0]);
}

#[test]
fn stale_routes_stay_in_use_until_swept_and_fresh_ones_stay_on() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001]), &[C])).expect("within limits");
    quiet(&mut rib);
    rib.peer_down(one, &BTreeSet::from([Family::V4]));
    assert_eq!(said(&mut rib, two), [format!("gone {C}")], "its family is not kept");
    assert_eq!(changed(&mut rib), [format!("{C} -")]);
    assert_eq!(rib.counts(one, Family::V4).stale, 2);
    rib.peer_up(one, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!((said(&mut rib, two), changed(&mut rib)), (vec![], vec![]), "nothing has changed for others");
    rib.sweep_stale(one, Family::V4);
    assert_eq!(said(&mut rib, two), [format!("gone {B}")]);
    assert_eq!(changed(&mut rib), [format!("{B} -")]);
    assert_eq!(rib.counts(one, Family::V4), Counts { received: 1, accepted: 1, advertised: 0, stale: 0 });
}

#[test]
fn routes_that_were_stale_before_do_not_outlive_a_second_loss() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    let keep = BTreeSet::from([Family::V4]);
    rib.peer_down(one, &keep);
    rib.peer_up(one, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.peer_down(one, &keep);
    assert_eq!(rib.counts(one, Family::V4), Counts { received: 1, accepted: 1, advertised: 0, stale: 1 });
}

#[test]
fn another_router_at_the_peers_place_inherits_nothing() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.peer_down(one, &BTreeSet::from([Family::V4]));
    rib.peer_up(one, PeerInfo { router_id: RouterId(99), ..info(1, 65001) });
    assert_eq!(rib.counts(one, Family::V4).received, 0);
}

#[test]
fn equal_routes_share_packets_up_to_the_limit() {
    let mut rib = Rib::new(Settings { multipath: 2, ..settings() });
    for number in [3, 1, 2] {
        let peer = up(&mut rib, info(number, 65000 + u32::from(number)));
        rib.update(peer, &announce(number, path(&[65000 + u32::from(number)]), &[A])).expect("within limits");
    }
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1 192.0.2.2")]);
    let one = rib.peer(&PeerKey("192.0.2.1".to_owned()));
    rib.peer_down(one, &BTreeSet::new());
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.2 192.0.2.3")]);
    rib.set(settings());
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.2")]);
}

#[test]
fn a_route_is_used_only_while_packets_get_to_its_next_hop() {
    let mut rib = Rib::new(Settings { track_next_hops: true, ..settings() });
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.update(two, &announce(2, path(&[65002, 7]), &[A])).expect("within limits");
    assert_eq!(changed(&mut rib), [""; 0]);
    let hop = |number| Hop { address: addr(&format!("192.0.2.{number}")), scope: None };
    assert_eq!(rib.next_hops(), Some(BTreeSet::from([hop(1), hop(2)])));
    assert_eq!(rib.next_hops(), None);
    rib.set_next_hops(&BTreeMap::from([(hop(1), 0), (hop(2), 0)]));
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1")]);
    rib.set_next_hops(&BTreeMap::from([(hop(2), 0)]));
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.2")]);
    let (candidates, _) = rib.explain("default", prefix(A));
    let why: Vec<&str> = candidates.iter().map(|view| view.why.as_str()).collect();
    assert_eq!(why, ["best", "packets do not get to its next hop"]);
}

#[test]
fn more_routes_than_the_limit_are_an_error() {
    let mut rib = rib();
    let limited = PeerInfo { max_prefixes: BTreeMap::from([(Family::V4, 2)]), ..info(1, 65001) };
    let one = up(&mut rib, limited);
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001, 7]), &[A])).expect("a replacement is no further route");
    rib.update(one, &announce(1, path(&[65001]), &[C])).expect("the limit is of another family");
    let error = rib.update(one, &announce(1, path(&[65001]), &["10.3.0.0/16"])).expect_err("three");
    assert_eq!(error, TooManyPrefixes { family: Family::V4, limit: 2 });
}

#[test]
fn a_limit_that_comes_later_counts_what_is_there() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    let limit = |most| Handling { max_prefixes: BTreeMap::from([(Family::V4, most)]), ..Handling::default() };
    rib.set_handling(one, limit(2)).expect("two");
    let error = rib.set_handling(one, limit(1)).expect_err("two");
    assert_eq!(error, TooManyPrefixes { family: Family::V4, limit: 1 });
    rib.set_handling(one, limit(2)).expect("two");
    rib.update(one, &announce(1, path(&[65001]), &["10.3.0.0/16"])).expect_err("three");
}

#[test]
fn numbers_of_prefixes_that_are_gone_are_used_again() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    up(&mut rib, info(2, 65002));
    for third in 0..=255 {
        let text = format!("10.0.{third}.0/24");
        rib.update(one, &announce(1, path(&[65001]), &[&text])).expect("within limits");
        quiet(&mut rib);
        rib.update(one, &withdraw(&[&text])).expect("within limits");
        quiet(&mut rib);
    }
    assert!(rib.table(Family::V4).ids().count() <= 2, "{}", rib.table(Family::V4).ids().count());
    assert_eq!(rib.table(Family::V4).len(), 0);
}

#[test]
fn equal_attributes_are_stored_once_and_forgotten_when_nobody_has_them() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    for third in 0..=255 {
        let text = format!("10.0.{third}.0/24");
        rib.update(one, &announce(1, path(&[65001]), &[&text])).expect("within limits");
    }
    assert_eq!(rib.attributes.len(), 1);
    for third in 0..2000 {
        rib.update(one, &announce(1, path(&[65001, third]), &[A])).expect("within limits");
    }
    assert!(rib.attributes.len() < 200, "{}", rib.attributes.len());
}

#[test]
fn a_policy_that_comes_later_finds_what_was_received() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    let none = rhumb_bgp_feed::Policy::default();
    rib.set_policy(one, &none, &none);
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    quiet(&mut rib);
    assert_eq!(changed(&mut rib), [""; 0], "without a policy nothing is taken");
    rib.set_policy(one, &all(), &none);
    assert_eq!(rib.ready(), BTreeSet::from([one, two]));
    assert_eq!(said(&mut rib, two), [format!("{A} via 192.0.2.254 [65000 65001]")]);
    rib.set_policy(two, &all(), &none);
    assert_eq!(said(&mut rib, two), [format!("gone {A}")], "without a policy nothing is told");
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1")]);
}
