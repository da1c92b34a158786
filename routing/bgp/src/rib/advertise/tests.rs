// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use rhumb_bgp_feed::{Action, Changes, Match, PrefixRange, Recipients, RouteAttributes, RouteKind};

use super::super::Rib;
use super::super::sample::{
    OWN, accept, addr, all, announce, info, local, path, prefix, quiet, rule, settings, up,
};
use super::super::{Counts, Handling, Settings};
use super::*;
use crate::wire::{AsPath, Asn, RawAttribute, Reach, RouterId, Update};

const A: &str = "10.1.0.0/16";

fn rib() -> Rib {
    let mut rib = Rib::new(settings());
    rib.set_synced();
    rib
}

/// What a peer is told of a prefix.
fn told(rib: &mut Rib, peer: PeerId, text: &str) -> Option<(Attributes, NextHop)> {
    quiet(rib);
    rib.told(peer, prefix(text)).map(|(attributes, next_hop)| (Attributes::clone(attributes), next_hop))
}

/// Why a peer is not told of a prefix.
fn withheld(rib: &mut Rib, peer: PeerId, text: &str) -> String {
    assert_eq!(told(rib, peer, text), None);
    let key = rib.key(peer).cloned();
    let (_, all) = rib.explain("default", prefix(text));
    all.into_iter().find(|view| view.peer == key).map(|view| view.why).expect("explained")
}

fn client(number: u8) -> PeerInfo {
    PeerInfo { client: true, ..info(number, OWN.0) }
}

/// Everything that an attribute set can have.
fn rich() -> Attributes {
    Attributes {
        med: Some(5),
        atomic_aggregate: true,
        aggregator: Some((Asn(65001), [192, 0, 2, 9].into())),
        communities: vec![Community(7)],
        extended_communities: vec![[0, 2, 0, 0, 0, 0, 0, 1], [0x40, 4, 0, 0, 0, 0, 0, 2]],
        unknown: vec![RawAttribute { flags: 0xc0, code: 99, value: vec![1] }],
        ..path(&[65001])
    }
}

#[test]
fn to_an_external_peer_goes_our_system_in_front_and_nothing_that_stays_within() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    rib.update(one, &announce(1, rich(), &[A])).expect("within limits");
    let expected = Attributes {
        as_path: AsPath::sequence([OWN, Asn(65001)]),
        med: None,
        extended_communities: vec![[0, 2, 0, 0, 0, 0, 0, 1]],
        unknown: vec![RawAttribute { flags: 0xe0, code: 99, value: vec![1] }],
        ..rich()
    };
    assert_eq!(told(&mut rib, two, A), Some((expected, NextHop::V4([192, 0, 2, 254].into()))));
}

#[test]
fn to_an_internal_peer_everything_goes_as_it_is() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)));
    rib.update(one, &announce(1, rich(), &[A])).expect("within limits");
    let expected = Attributes {
        local_pref: Some(100),
        unknown: vec![RawAttribute { flags: 0xe0, code: 99, value: vec![1] }],
        ..rich()
    };
    assert_eq!(told(&mut rib, two, A), Some((expected, NextHop::V4([192, 0, 2, 1].into()))));
}

#[test]
fn routes_of_internal_peers_go_to_external_ones_and_to_clients_only() {
    let mut rib = rib();
    let one = up(&mut rib, info(1, OWN.0));
    let (internal, client, external) =
        (up(&mut rib, info(2, OWN.0)), up(&mut rib, client(3)), up(&mut rib, info(4, 65004)));
    let received = Attributes { local_pref: Some(70), ..path(&[65009]) };
    rib.update(one, &announce(9, received.clone(), &[A])).expect("within limits");
    assert_eq!(withheld(&mut rib, internal, A), "it is internal, and the peer is no client");
    assert_eq!(withheld(&mut rib, one, A), "it came from this peer");
    let (attributes, next_hop) = told(&mut rib, external, A).expect("told");
    assert_eq!((attributes.as_path.to_string().as_str(), attributes.local_pref), ("65000 65009", None));
    assert_eq!(attributes.originator_id, None);
    assert_eq!(next_hop, NextHop::V4([192, 0, 2, 254].into()));
    let reflected = Attributes {
        originator_id: Some(RouterId(0xc000_0201)),
        cluster_list: vec![settings().cluster_id],
        ..received
    };
    assert_eq!(told(&mut rib, client, A), Some((reflected, NextHop::V4([192, 0, 2, 9].into()))));
}

#[test]
fn routes_of_clients_go_to_all_and_keep_who_sent_them_first() {
    let mut rib = rib();
    let one = up(&mut rib, client(1));
    let (internal, other) = (up(&mut rib, info(2, OWN.0)), up(&mut rib, client(3)));
    let received = Attributes {
        originator_id: Some(RouterId(0xc000_0203)),
        cluster_list: vec![RouterId(8)],
        ..path(&[65009])
    };
    rib.update(one, &announce(9, received, &[A])).expect("within limits");
    let (attributes, _) = told(&mut rib, internal, A).expect("told");
    assert_eq!(attributes.originator_id, Some(RouterId(0xc000_0203)));
    assert_eq!(attributes.cluster_list, [settings().cluster_id, RouterId(8)]);
    assert_eq!(withheld(&mut rib, other, A), "it came from this peer", "who is its originator");
}

#[test]
fn well_known_communities_of_received_routes_are_obeyed_and_ours_are_for_the_peer() {
    let table = [
        (Community::NO_ADVERTISE, [false, false]),
        (Community::NO_EXPORT, [true, false]),
        (Community::NO_EXPORT_SUBCONFED, [true, false]),
        (Community::NO_PEER, [true, true]),
    ];
    for (community, expected) in table {
        let mut rib = rib();
        let one = up(&mut rib, info(1, 65001));
        let peers = [up(&mut rib, info(2, OWN.0)), up(&mut rib, info(3, 65003))];
        let marked = Attributes { communities: vec![community], ..path(&[65001]) };
        rib.update(one, &announce(1, marked, &[A])).expect("within limits");
        let mut ours = local("10.2.0.0/16");
        ours.attributes.communities.insert(community.0);
        rib.set_local([ours]);
        for (peer, expected) in peers.into_iter().zip(expected) {
            assert_eq!(told(&mut rib, peer, A).is_some(), expected, "{community}");
            assert!(told(&mut rib, peer, "10.2.0.0/16").is_some(), "{community} of ours");
        }
        if community == Community::NO_EXPORT {
            assert_eq!(withheld(&mut rib, peers[1], A), "it has the community no-export");
        }
    }
}

#[test]
fn an_export_rule_cannot_lift_a_well_known_community() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, 65002)));
    let lifts = Changes { remove_communities: vec![Community::NO_EXPORT.0], ..Changes::default() };
    rib.set_policy(two, &all(), &accept(lifts));
    let marked = Attributes { communities: vec![Community::NO_EXPORT], ..path(&[65001]) };
    rib.update(one, &announce(1, marked, &[A])).expect("within limits");
    assert_eq!(told(&mut rib, two, A), None);
}

#[test]
fn a_route_of_ours_is_told_to_its_recipients_with_their_attributes() {
    let mut rib = rib();
    let peers = [up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)), up(&mut rib, info(3, 65003))];
    let keys: Vec<_> = peers.iter().map(|peer| rib.key(*peer).cloned().expect("known")).collect();
    let mut ours = local(A);
    ours.attributes = RouteAttributes { local_pref: Some(70), med: Some(3), ..RouteAttributes::default() };
    ours.recipients = Recipients::Only([keys[0].clone(), keys[1].clone()].into());
    let exception = RouteAttributes { communities: [9].into(), ..RouteAttributes::default() };
    ours.exceptions.insert(keys[1].clone(), exception);
    rib.set_local([ours]);
    let first = Attributes { med: Some(3), ..path(&[OWN.0]) };
    let second =
        Attributes { local_pref: Some(100), communities: vec![Community(9)], ..Attributes::default() };
    assert_eq!(told(&mut rib, peers[0], A).map(|told| told.0), Some(first));
    assert_eq!(told(&mut rib, peers[1], A).map(|told| told.0), Some(second));
    assert_eq!(withheld(&mut rib, peers[2], A), "it is not for this peer");
}

#[test]
fn export_rules_change_and_withhold() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)));
    let pods = Match { kinds: vec![RouteKind::PodCidr], ..Match::default() };
    let secret = Match { prefixes: vec![PrefixRange::within(prefix("10.2.0.0/16"))], ..Match::default() };
    let changes = Changes {
        local_pref: Some(50),
        med: Some(1),
        add_communities: vec![4],
        prepend: 2,
        ..Changes::default()
    };
    let rules = vec![rule("secret", secret, Action::Reject), rule("pods", pods, Action::Accept(changes))];
    let policy = rhumb_bgp_feed::Policy { rules };
    let mut service = local("10.3.0.0/16");
    service.kind = RouteKind::Service;
    rib.set_local([local(A), local("10.2.7.0/24"), service]);
    for peer in [one, two] {
        rib.set_policy(peer, &all(), &policy);
        assert_eq!(withheld(&mut rib, peer, "10.2.7.0/24"), "rejected by export rule \"secret\"");
        assert_eq!(withheld(&mut rib, peer, "10.3.0.0/16"), "no export rule accepts it");
    }
    let changed = Attributes { med: Some(1), communities: vec![Community(4)], ..Attributes::default() };
    let external = Attributes { as_path: AsPath::sequence([OWN; 3]), ..changed.clone() };
    assert_eq!(told(&mut rib, one, A).map(|told| told.0), Some(external));
    let internal = Attributes { local_pref: Some(50), ..changed };
    assert_eq!(told(&mut rib, two, A).map(|told| told.0), Some(internal), "a longer path would be a loop");
}

#[test]
fn a_node_that_leaves_says_so_first_and_withdraws_then() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)));
    rib.set_local([local(A)]);
    let marked = |rib: &mut Rib, peer| {
        let attributes = told(rib, peer, A).expect("told").0;
        (attributes.has_community(Community::GRACEFUL_SHUTDOWN), attributes.local_pref)
    };
    assert_eq!((marked(&mut rib, one), marked(&mut rib, two)), ((false, None), (false, Some(100))));
    for peer in [one, two] {
        rib.set_leave(peer, Leave::Shutdown);
    }
    assert_eq!((marked(&mut rib, one), marked(&mut rib, two)), ((true, None), (true, Some(0))));
    for peer in [one, two] {
        rib.set_leave(peer, Leave::Withdraw);
        assert_eq!(withheld(&mut rib, peer, A), "this node is leaving");
        assert_eq!(rib.counts(peer, Family::V4), Counts::default());
        rib.set_leave(peer, Leave::Stay);
    }
    assert_eq!((marked(&mut rib, one), marked(&mut rib, two)), ((false, None), (false, Some(100))));
}

fn v6(global: &str, link_local: Option<&str>) -> NextHop {
    let valid = |text: &str| text.parse().expect("valid");
    NextHop::V6 { global: valid(global), link_local: link_local.map(valid) }
}

#[test]
fn this_node_is_told_as_next_hop_in_the_form_that_the_peer_can_use() {
    let v4 = info(1, 65001);
    let over_v6 = PeerInfo { address: addr("2001:db8::1"), ..v4.clone() };
    let extended = PeerInfo { extended_next_hop: [Family::V4].into(), ..over_v6.clone() };
    let far = PeerInfo { interface: None, ..v4.clone() };
    let mut unnumbered = extended.clone();
    (unnumbered.own.v4, unnumbered.own.v6) = (None, None);
    let mut only_v6 = over_v6.clone();
    only_v6.own.v4 = None;
    let mut only_v4 = v4.clone();
    (only_v4.own.v6, only_v4.own.link_local) = (None, None);
    let own_v4 = Some(NextHop::V4([192, 0, 2, 254].into()));
    let both = Some(v6("2001:db8::fe", Some("fe80::fe")));
    let link_local = Some(v6("fe80::fe", Some("fe80::fe")));
    let table = [
        (&v4, own_v4, both),
        (&over_v6, own_v4, both),
        (&extended, both, both),
        (&far, own_v4, Some(v6("2001:db8::fe", None))),
        (&unnumbered, link_local, link_local),
        (&only_v6, None, both),
        (&only_v4, own_v4, None),
    ];
    for (info, as_v4, as_v6) in table {
        assert_eq!(own_next_hop(info, Family::V4), as_v4, "{info:?}");
        assert_eq!(own_next_hop(info, Family::V6), as_v6, "{info:?}");
    }
    let extended_over_v4 = PeerInfo { extended_next_hop: [Family::V4].into(), ..v4 };
    assert_eq!(own_next_hop(&extended_over_v4, Family::V4), own_v4);
}

#[test]
fn next_hops_of_others_are_kept_for_internal_peers_that_can_use_them() {
    let (external, internal) = (info(1, 65001), info(2, OWN.0));
    let other = info(3, OWN.0);
    let given = Some(NextHop::V4([198, 51, 100, 1].into()));
    let own = Some(NextHop::V4([192, 0, 2, 254].into()));
    let of = |hop: Option<NextHop>, source, to: &PeerInfo| next_hop(hop, source, to, Family::V4);
    assert_eq!(of(given, Some(&external), &other), given);
    assert_eq!(of(given, Some(&internal), &other), given);
    assert_eq!(of(given, Some(&internal), &external), own);
    assert_eq!(of(given, None, &external), given, "a route of ours with a next hop of its own");
    assert_eq!(of(None, None, &external), own);
    let own_by_setting = PeerInfo { next_hop_self: [Family::V4].into(), ..other.clone() };
    assert_eq!(of(given, Some(&external), &own_by_setting), own);
    assert_eq!(of(given, Some(&internal), &own_by_setting), given, "what is reflected keeps its next hop");
    assert_eq!(of(given, None, &own_by_setting), given);
    let the_peer = Some(NextHop::from(other.address));
    assert_eq!(of(the_peer, Some(&external), &other), own, "a peer is never told its own address");
    let six = Some(v6("2001:db8::9", Some("fe80::9")));
    assert_eq!(of(six, Some(&external), &other), own, "an IPv6 next hop that was not negotiated");
    let extended = PeerInfo { extended_next_hop: [Family::V4].into(), ..other.clone() };
    assert_eq!(of(six, Some(&external), &extended), Some(v6("2001:db8::9", None)));
    assert_eq!(of(Some(v6("fe80::9", None)), Some(&external), &extended), own, "nobody else is on that link");
    assert_eq!(next_hop(six, Some(&external), &other, Family::V6), Some(v6("2001:db8::9", None)));
}

#[test]
fn a_peer_becomes_a_client_while_its_session_is_up() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, OWN.0)), up(&mut rib, info(2, OWN.0)));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!(withheld(&mut rib, two, A), "it is internal, and the peer is no client");
    let handling = |client| Handling { client, ..Handling::default() };
    rib.set_handling(one, handling(true)).expect("no limit");
    assert!(told(&mut rib, two, A).is_some(), "what a client tells, all are told");
    rib.set_handling(one, handling(false)).expect("no limit");
    assert_eq!(told(&mut rib, two, A), None);
    rib.set_handling(two, handling(true)).expect("no limit");
    assert!(told(&mut rib, two, A).is_some(), "a client is told what all tell");
}

#[test]
fn a_peer_is_told_this_node_as_next_hop_from_now_on() {
    let mut rib = rib();
    let (one, two) = (up(&mut rib, info(1, 65001)), up(&mut rib, info(2, OWN.0)));
    rib.update(one, &announce(1, path(&[65001]), &[A])).expect("within limits");
    assert_eq!(told(&mut rib, two, A).expect("told").1, NextHop::V4([192, 0, 2, 1].into()));
    let own = Handling { next_hop_self: [Family::V4].into(), ..Handling::default() };
    rib.set_handling(two, own).expect("no limit");
    assert_eq!(told(&mut rib, two, A).expect("told").1, NextHop::V4([192, 0, 2, 254].into()));
}

#[test]
fn without_an_address_for_a_family_nothing_of_it_is_told() {
    let mut rib = rib();
    let mut only_v4 = info(1, 65001);
    (only_v4.own.v6, only_v4.own.link_local) = (None, None);
    let one = up(&mut rib, only_v4);
    rib.set_local([local("fd01::/32"), local(A)]);
    assert_eq!(withheld(&mut rib, one, "fd01::/32"), "we have no address for it towards this peer");
    assert!(told(&mut rib, one, A).is_some());
}

#[test]
fn an_ipv4_route_with_an_ipv6_next_hop_reaches_the_kernel_and_others() {
    let mut rib = Rib::new(Settings { track_next_hops: false, ..settings() });
    let unnumbered = PeerInfo {
        address: addr("fe80::1"),
        extended_next_hop: BTreeSet::from([Family::V4]),
        ..info(1, 65001)
    };
    let (one, two) = (up(&mut rib, unnumbered), up(&mut rib, info(2, 65002)));
    let reach = Reach { family: Family::V4, next_hop: v6("fe80::1", None), nlri: vec![prefix(A).into()] };
    let attributes = Some(Arc::new(path(&[65001])));
    rib.update(one, &Update { attributes, reach: vec![reach], ..Update::default() }).expect("within limits");
    let changes = rib.changes();
    let hop = super::super::Hop { address: addr("fe80::1"), scope: Some(7) };
    assert_eq!(changes[0].forward.as_deref(), Some(&super::super::Forward::Via(vec![hop])));
    assert_eq!(told(&mut rib, two, A).expect("told").1, NextHop::V4([192, 0, 2, 254].into()));
}
