// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use rhumb_model::Family;

use super::sample::{
    addr, all, announce, changed, drain, info, local, path, prefix, quiet, said, settings, up, withdraw,
};
use super::*;
use crate::wire::Community;

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
fn an_address_is_explained_by_the_longest_prefix_around_it() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &["10.0.0.0/8", A])).expect("within limits");
    for (asked, found) in
        [("10.1.2.3/32", Some(A)), (A, Some(A)), ("10.9.0.0/16", Some("10.0.0.0/8")), ("192.0.2.1/32", None)]
    {
        assert_eq!(rib.covering(prefix(asked)), found.map(prefix), "{asked}");
    }
    rib.update(one, &withdraw(&[A])).expect("within limits");
    assert_eq!(rib.covering(prefix(A)), Some(prefix("10.0.0.0/8")));
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

/// Communities of the routes to a prefix, best first.
fn communities(rib: &Rib, text: &str) -> Vec<Vec<Community>> {
    let (candidates, _) = rib.explain("main", prefix(text));
    candidates.iter().map(|view| view.communities.iter().copied().map(Community).collect()).collect()
}

#[test]
fn a_route_that_is_stale_for_long_is_a_last_resort_for_those_who_know_such_routes() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    let plain = up(&mut rib, PeerInfo { knows_long_lived: false, ..info(3, 65003) });
    let never = Attributes { communities: vec![Community::NO_LLGR], ..path(&[65001]) };
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    rib.update(one, &announce(1, never, &["10.3.0.0/16"])).expect("within limits");
    rib.update(two, &announce(2, path(&[65002, 7, 7]), &[B])).expect("within limits");
    quiet(&mut rib);
    rib.peer_down(one, &Family::BOTH.into());
    assert_eq!(changed(&mut rib), [""; 0], "kept as they are");

    rib.keep_long(one, Family::V4);
    assert_eq!(communities(&rib, A), [[Community::LLGR_STALE]]);
    assert_eq!(changed(&mut rib), ["10.3.0.0/16 -".to_owned(), format!("{B} 192.0.2.2")]);
    assert_eq!(
        said(&mut rib, two),
        [format!("gone 10.3.0.0/16 {B}"), format!("{A} via 192.0.2.254 [65000 65001]"),],
        "it is told again with the community"
    );
    assert_eq!(rib.told(two, prefix(A)).expect("told").0.communities, [Community::LLGR_STALE]);
    assert_eq!(
        said(&mut rib, plain),
        [format!("gone 10.3.0.0/16 {A}"), format!("{B} via 192.0.2.254 [65000 65002 7 7]"),]
    );
    let (_, told) = rib.explain("main", prefix(A));
    assert!(told.iter().any(|view| view.why.contains("stale for long")), "{told:?}");

    rib.sweep_stale(one, Family::V4);
    assert_eq!(changed(&mut rib), [format!("{A} -")]);
    assert_eq!(said(&mut rib, two), [format!("gone {A}")]);
    assert_eq!(rib.counts(one, Family::V4), Counts::default());
}

#[test]
fn a_peer_that_comes_back_takes_the_mark_from_what_it_tells_again() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
    quiet(&mut rib);
    rib.peer_down(one, &Family::BOTH.into());
    rib.keep_long(one, Family::V4);
    quiet(&mut rib);
    rib.peer_up(one, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("{A} via 192.0.2.254 [65000 65001]")]);
    assert_eq!(communities(&rib, A), [Vec::<Community>::new()]);
    // It goes once more before all was told: what it told now is kept like the rest.
    rib.peer_down(one, &Family::BOTH.into());
    for of in [A, B] {
        assert_eq!(communities(&rib, of), [[Community::LLGR_STALE]]);
    }
    rib.peer_up(one, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.sweep_stale(one, Family::V4);
    quiet(&mut rib);
    rib.peer_down(one, &Family::BOTH.into());
    assert_eq!(communities(&rib, A), [Vec::<Community>::new()], "a new time begins as any other");
    assert!(communities(&rib, B).is_empty());
}

#[test]
fn stale_routes_that_may_become_a_last_resort_outlive_a_second_loss() {
    for (long_lived, left) in [(BTreeSet::new(), false), (BTreeSet::from([Family::V4]), true)] {
        let mut rib = rib();
        let info = PeerInfo { long_lived, ..info(1, 65001) };
        let one = up(&mut rib, info.clone());
        rib.update(one, &announce(1, path(&[65001]), &[A, B])).expect("within limits");
        rib.peer_down(one, &Family::BOTH.into());
        rib.peer_up(one, info);
        rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
        rib.peer_down(one, &Family::BOTH.into());
        let stays = |prefix| !communities(&rib, prefix).is_empty();
        assert_eq!((stays(A), stays(B)), (true, left));
    }
}

#[test]
fn no_policy_takes_the_mark_of_a_stale_route_away() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    let changes = rhumb_bgp_feed::Changes {
        remove_communities: vec![Community::LLGR_STALE.0, 7],
        ..rhumb_bgp_feed::Changes::default()
    };
    let remove = sample::accept(changes);
    rib.set_policy(one, &remove, &all());
    rib.set_policy(two, &all(), &remove);
    let stale = Attributes { communities: vec![Community(7), Community::LLGR_STALE], ..path(&[65001]) };
    rib.update(one, &announce(1, stale, &[A])).expect("within limits");
    drain(&mut rib, two);
    assert_eq!(rib.told(two, prefix(A)).expect("told").0.communities, [Community::LLGR_STALE]);
}

/// A peer that takes so many paths to an IPv4 destination.
fn takes(number: u8, asn: u32, most: usize) -> PeerInfo {
    PeerInfo { send_paths: BTreeMap::from([(Family::V4, most)]), ..info(number, asn) }
}

#[test]
fn a_peer_that_takes_several_paths_is_told_the_best_few_under_numbers_that_stay() {
    let mut rib = rib();
    let all: Vec<PeerId> = (1..=3).map(|at| up(&mut rib, info(at, 65000 + u32::from(at)))).collect();
    let (two, every) = (up(&mut rib, takes(8, 65008, 2)), up(&mut rib, takes(9, 65009, usize::MAX)));
    quiet(&mut rib);
    rib.update(all[0], &announce(1, path(&[65001, 7]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("{A} path 1 via 192.0.2.254 [65000 65001 7]")]);
    // A better one comes: the first keeps its number.
    rib.update(all[1], &announce(2, path(&[65002]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("{A} path 2 via 192.0.2.254 [65000 65002]")]);
    // The third best is told only to those who take all.
    rib.update(all[2], &announce(3, path(&[65003, 7, 7]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [""; 0]);
    assert_eq!(said(&mut rib, every).len(), 3);
    // Attributes change: the same number.
    rib.update(all[0], &announce(1, path(&[65001, 8]), &[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("{A} path 1 via 192.0.2.254 [65000 65001 8]")]);
    assert_eq!(rib.counts(two, Family::V4).advertised, 2);
    // The best goes, the third moves up.
    rib.update(all[1], &withdraw(&[A])).expect("within limits");
    assert_eq!(
        said(&mut rib, two),
        [format!("gone {A} path 2"), format!("{A} path 3 via 192.0.2.254 [65000 65003 7 7]")]
    );
    drain(&mut rib, every);
    rib.update(all[0], &withdraw(&[A])).expect("within limits");
    rib.update(all[2], &withdraw(&[A])).expect("within limits");
    assert_eq!(said(&mut rib, two), [format!("gone {A} path 1 {A} path 3")]);
    assert_eq!(said(&mut rib, every).len(), 1);
    assert_eq!(rib.counts(every, Family::V4).advertised, 0);
}

#[test]
fn the_paths_of_a_peer_itself_and_those_of_policy_are_none_of_the_few() {
    let mut rib = rib();
    let (one, three) = (up(&mut rib, takes(1, 65001, 2)), up(&mut rib, info(3, 65003)));
    rib.set_local([local(A)]);
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.update(three, &announce(3, path(&[65003, 9]), &[A])).expect("within limits");
    let told = said(&mut rib, one);
    assert_eq!(
        told[..2],
        [
            format!("{A} path 1 via 192.0.2.254 [65000]"),
            format!("{A} path 2 via 192.0.2.254 [65000 65003 9]")
        ]
    );
    // All of it once more, under the same numbers.
    rib.refresh(one, Family::V4);
    let again = said(&mut rib, one);
    assert_eq!(again[1..3], told[..2], "{again:?}");
    let views: Vec<_> = rib.routes_out("main", None, None).filter(|view| view.path_id > 0).collect();
    assert_eq!(views.iter().map(|view| view.path_id).collect::<Vec<_>>(), [1, 2]);
}
