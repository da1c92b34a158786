// SPDX-License-Identifier: Apache-2.0

use super::super::sample::{
    OWN, addr, all, announce, changed, info, local, path, prefix, quiet, rule, said, settings, up,
};
use super::*;
use crate::wire::{Nlri, RouterId};
use rhumb_bgp_feed::{Action, Changes, Match, PeerKey, Policy as Rules};

const A: &str = "10.1.0.0/16";

/// Why the only route to a prefix is used or not.
fn why(rib: &Rib, text: &str) -> String {
    let (candidates, _) = rib.explain("default", prefix(text));
    assert_eq!(candidates.len(), 1, "{candidates:?}");
    candidates[0].why.clone()
}

fn external(change: impl FnOnce(&mut Update)) -> Rib {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    let mut update = announce(1, path(&[65001]), &[A]);
    change(&mut update);
    rib.update(one, &update).expect("within limits");
    rib
}

fn internal(change: impl FnOnce(&mut Attributes)) -> Rib {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, OWN.0));
    let mut attributes = path(&[65009]);
    change(&mut attributes);
    rib.update(one, &announce(9, attributes, &[A])).expect("within limits");
    rib
}

fn with(update: &mut Update, attributes: Attributes) {
    update.attributes = Some(Arc::new(attributes));
}

#[test]
fn loops_and_foreign_first_systems_are_rejected() {
    assert_eq!(why(&external(|_| {}), A), "best");
    let own = external(|update| with(update, path(&[65001, OWN.0])));
    assert_eq!(why(&own, A), "our AS is in the path");
    for systems in [&[65002][..], &[]] {
        let rib = external(|update| with(update, path(systems)));
        assert_eq!(why(&rib, A), "the path does not begin with the peer's AS");
    }
    assert_eq!(why(&internal(|_| {}), A), "best");
    assert_eq!(why(&internal(|one| one.as_path = path(&[OWN.0]).as_path), A), "our AS is in the path");
    let originator = internal(|one| one.originator_id = Some(settings().router_id));
    assert_eq!(why(&originator, A), "we sent it first (originator id)");
    let cluster = internal(|one| one.cluster_list = vec![RouterId(5), settings().cluster_id]);
    assert_eq!(why(&cluster, A), "it was in our cluster (cluster list)");
}

#[test]
fn routes_of_its_cluster_are_no_loop_for_a_client() {
    let mut rib = internal(|one| one.cluster_list = vec![settings().cluster_id]);
    rib.set(Settings { reflects: false, ..settings() });
    assert_eq!(why(&rib, A), "best");
    rib.set(settings());
    assert_eq!(why(&rib, A), "it was in our cluster (cluster list)");
}

#[test]
fn a_next_hop_that_is_this_node_or_none_is_rejected() {
    let next_hop = |next_hop| external(|update| update.reach[0].next_hop = next_hop);
    let own = "its next hop is this node";
    assert_eq!(why(&next_hop(NextHop::V4([192, 0, 2, 254].into())), A), own);
    assert_eq!(why(&next_hop(NextHop::from(addr("2001:db8::fe"))), A), own);
    let v6 = |global: &str, link_local: Option<&str>| NextHop::V6 {
        global: global.parse().expect("valid"),
        link_local: link_local.map(|text| text.parse().expect("valid")),
    };
    assert_eq!(why(&next_hop(v6("2001:db8::9", Some("fe80::fe"))), A), own);
    let unusable = "its next hop cannot be used";
    assert_eq!(why(&next_hop(NextHop::V4([0; 4].into())), A), unusable);
    assert_eq!(why(&next_hop(v6("::", None)), A), unusable);
}

#[test]
fn a_link_local_next_hop_is_on_the_link_of_the_session() {
    let v6 = |global: &str, link_local: Option<&str>| NextHop::V6 {
        global: global.parse().expect("valid"),
        link_local: link_local.map(|text| text.parse().expect("valid")),
    };
    let near = info(1, 65001);
    let far = PeerInfo { interface: None, ..info(1, 65001) };
    let scoped = Some(Hop { address: addr("fe80::9"), scope: Some(7) });
    let global = Some(Hop { address: addr("2001:db8::9"), scope: None });
    let table = [
        (v6("2001:db8::9", Some("fe80::9")), scoped, global),
        (v6("2001:db8::9", None), global, global),
        (v6("fe80::9", None), scoped, None),
        (v6("fe80::9", Some("fe80::9")), scoped, None),
        (v6("::", Some("fe80::9")), scoped, None),
        (v6("::", None), None, None),
    ];
    for (next_hop, on_link, elsewhere) in table {
        assert_eq!(hop(next_hop, &near), on_link, "{next_hop}");
        assert_eq!(hop(next_hop, &far), elsewhere, "{next_hop} from far away");
    }
}

#[test]
fn nothing_within_a_block_of_this_node_is_accepted() {
    let mut rib = Rib::new(Settings { own: vec![prefix("10.1.4.0/22")], ..settings() });
    let one = up(&mut rib, info(1, 65001));
    let table = ["10.1.4.0/22", "10.1.5.0/24", "10.1.0.0/16", "10.1.8.0/24", "0.0.0.0/0"];
    rib.update(one, &announce(1, path(&[65001]), &table)).expect("within limits");
    let hop = "192.0.2.1";
    assert_eq!(changed(&mut rib), table[2..].iter().map(|text| format!("{text} {hop}")).collect::<Vec<_>>());
    assert_eq!(why(&rib, "10.1.5.0/24"), "it is within a block of this node");
    // A block that comes later counts for what is there already, and one that goes does not count any more.
    rib.set(Settings { own: vec![prefix("10.1.8.0/24")], ..settings() });
    let expected = ["10.1.4.0/22 192.0.2.1", "10.1.5.0/24 192.0.2.1", "10.1.8.0/24 -"];
    assert_eq!(changed(&mut rib), expected);
}

#[test]
fn what_an_external_peer_must_not_decide_is_left_out() {
    let rib = external(|update| {
        let attributes = Attributes {
            local_pref: Some(7),
            originator_id: Some(settings().router_id),
            cluster_list: vec![settings().cluster_id],
            ..path(&[65001])
        };
        with(update, attributes);
    });
    let (candidates, _) = rib.explain("default", prefix(A));
    assert_eq!((candidates[0].why.as_str(), candidates[0].local_pref), ("best", None));
}

#[test]
fn whoever_is_about_to_leave_is_preferred_least() {
    let mut rib = external(|_| {});
    let two = up(&mut rib, info(2, 65002));
    rib.update(two, &announce(2, path(&[65002, 7, 8, 9]), &[A])).expect("within limits");
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.1")]);
    let one = rib.peer(&PeerKey("192.0.2.1".to_owned()));
    let leaving = Attributes { communities: vec![Community::GRACEFUL_SHUTDOWN], ..path(&[65001]) };
    rib.update(one, &announce(1, leaving, &[A])).expect("within limits");
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.2")]);
    let (candidates, _) = rib.explain("default", prefix(A));
    assert_eq!((candidates[1].why.as_str(), candidates[1].local_pref), ("lower local preference", Some(0)));
}

#[test]
fn packets_are_dropped_where_a_rule_names_the_community_and_nowhere_else() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    let marked = || Attributes { communities: vec![Community::BLACKHOLE], ..path(&[65001]) };
    rib.update(one, &announce(1, marked(), &["10.1.2.3/32"])).expect("within limits");
    assert_eq!(changed(&mut rib), ["10.1.2.3/32 192.0.2.1"], "nobody said that it is honoured");
    let named = Match { communities: vec![Community::BLACKHOLE.0], ..Match::default() };
    let rules = vec![rule("honour", named, Action::Accept(Changes::default())), all().rules[0].clone()];
    rib.set_policy(one, &Rules { rules }, &all());
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!(changed(&mut rib), ["10.1.2.3/32 discard".to_owned(), format!("{A} 192.0.2.1")]);
}

#[test]
fn a_rule_changes_what_it_accepts_and_says_what_it_rejects() {
    let mut rib = Rib::new(settings());
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)));
    let some = |text: &str| Match {
        prefixes: vec![rhumb_bgp_feed::PrefixRange::exact(prefix(text))],
        ..Match::default()
    };
    let changes = Changes {
        local_pref: Some(300),
        med: Some(4),
        add_communities: vec![9],
        prepend: 2,
        ..Changes::default()
    };
    let rules = vec![
        rule("ours", some(A), Action::Accept(changes)),
        rule("never", some("10.2.0.0/16"), Action::Reject),
    ];
    rib.set_policy(one, &Rules { rules }, &all());
    rib.update(one, &announce(1, path(&[65001]), &[A, "10.2.0.0/16", "10.3.0.0/16"])).expect("within limits");
    let told = |rib: &mut Rib| said(rib, two);
    rib.set_synced();
    assert_eq!(told(&mut rib)[0], format!("{A} via 192.0.2.1 [65001 65001 65001]"));
    let (attributes, _) = rib.told(two, prefix(A)).expect("told");
    assert_eq!((attributes.local_pref, attributes.med), (Some(300), Some(4)));
    assert_eq!(attributes.communities, [Community(9)]);
    assert_eq!(why(&rib, "10.2.0.0/16"), "rejected by import rule \"never\"");
    assert_eq!(why(&rib, "10.3.0.0/16"), "no import rule accepts it");
}

#[test]
fn several_paths_of_one_peer_are_candidates_of_their_own() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    let with_id = |id: u32, systems: &[u32]| {
        let mut update = announce(1, path(systems), &[A]);
        update.reach[0].nlri = vec![Nlri { prefix: prefix(A), path_id: id }];
        update.reach[0].next_hop = NextHop::V4([192, 0, 2, 10 + u8::try_from(id).expect("small")].into());
        update
    };
    rib.update(one, &with_id(1, &[65001, 7])).expect("within limits");
    rib.update(one, &with_id(2, &[65001])).expect("within limits");
    assert_eq!(rib.counts(one, Family::V4).received, 2);
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.12")]);
    let gone =
        crate::wire::Withdrawn { family: Family::V4, nlri: vec![Nlri { prefix: prefix(A), path_id: 2 }] };
    rib.update(one, &Update { withdrawn: vec![gone], ..Update::default() }).expect("within limits");
    assert_eq!(changed(&mut rib), [format!("{A} 192.0.2.11")]);
}

#[test]
fn a_family_that_can_no_longer_be_followed_is_forgotten_and_others_stay() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, info(1, 65001));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    rib.update(one, &announce(1, path(&[65001]), &["fd01::/32"])).expect("within limits");
    quiet(&mut rib);
    let disposition = crate::wire::Disposition::DisableFamily(Family::V6);
    let problem = crate::wire::Problem { attribute: Some(14), what: "too long", disposition };
    rib.update(one, &Update { problems: vec![problem], ..Update::default() }).expect("within limits");
    assert_eq!(changed(&mut rib), ["fd01::/32 -"]);
}

#[test]
fn families_that_were_not_negotiated_tell_nothing() {
    let mut rib = Rib::new(settings());
    let one = up(&mut rib, PeerInfo { families: [Family::V6].into(), ..info(1, 65001) });
    rib.set_local([local(A)]);
    rib.set_synced();
    rib.update(one, &announce(1, path(&[65001]), &["10.2.0.0/16"])).expect("within limits");
    assert_eq!((changed(&mut rib), said(&mut rib, one)), (vec![], vec!["end ipv6".to_owned()]));
    assert_eq!(rib.counts(one, Family::V4), super::super::Counts::default());
}
