// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;
use rhumb_bgp_feed::{Action, Match, PeerKey, PrefixRange};

use super::*;
use crate::rib::{Rib, Settings};
use crate::wire::{AsPath, RouterId};

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn range(text: &str, ge: u8, le: u8) -> PrefixRange {
    PrefixRange { prefix: prefix(text), ge, le }
}

fn rule(name: &str, matches: Match, action: Action) -> feed::Rule {
    feed::Rule { name: name.to_owned(), matches, action }
}

fn accept() -> Action {
    Action::Accept(feed::Changes::default())
}

/// Numbers for peers: `a` is the first, `b` the second.
fn policy(rules: Vec<feed::Rule>) -> (Policy, [PeerId; 2]) {
    let mut rib = Rib::new(Settings {
        asn: Asn(65000),
        router_id: RouterId(1),
        cluster_id: RouterId(1),
        reflects: false,
        multipath: 1,
        always_compare_med: false,
        own: Vec::new(),
        track_next_hops: false,
    });
    let peers = ["a", "b"].map(|name| rib.peer(&PeerKey(name.to_owned())));
    (Policy::new(&feed::Policy { rules }, |key| rib.peer(key)), peers)
}

fn learned(attributes: &Attributes) -> Subject<'_> {
    Subject { attributes, kind: RouteKind::Learned, from: None }
}

fn judge(policy: &Policy, subject: Subject<'_>, text: &str) -> Judgement {
    policy.judge(&policy.matching(subject), prefix(text))
}

#[test]
fn without_a_rule_nothing_is_accepted() {
    let (policy, _) = policy(vec![]);
    assert_eq!(judge(&policy, learned(&Attributes::default()), "10.0.0.0/8"), Judgement::NoRule);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let some = Match { prefixes: vec![range("10.0.0.0/8", 8, 16)], ..Match::default() };
    let (policy, _) = policy(vec![
        rule("no some", some.clone(), Action::Reject),
        rule("some", some, accept()),
        rule("rest", Match { prefixes: vec![range("0.0.0.0/0", 0, 32)], ..Match::default() }, accept()),
    ]);
    let attributes = Attributes::default();
    let judged = |text| judge(&policy, learned(&attributes), text);
    assert_eq!(judged("10.1.0.0/16"), Judgement::Reject(0));
    assert_eq!(judged("10.1.1.0/24"), Judgement::Accept(2));
    assert_eq!(judged("fd00::/8"), Judgement::NoRule);
    assert_eq!((policy.name(0), policy.name(2)), ("no some", "rest"));
}

#[test]
fn a_rule_matches_what_passes_all_of_its_lists() {
    let attributes = Attributes {
        communities: vec![Community(7), Community(9)],
        large_communities: vec![LargeCommunity { global: 1, local1: 2, local2: 3 }],
        ..Attributes::default()
    };
    let (key, other) = (|text: &str| PeerKey(text.to_owned()), Match::default());
    let table = [
        (Match { communities: vec![1, 9], ..other.clone() }, true),
        (Match { communities: vec![1, 2], ..other.clone() }, false),
        (Match { large_communities: vec![[1, 2, 3]], ..other.clone() }, true),
        (Match { large_communities: vec![[3, 2, 1]], ..other.clone() }, false),
        (Match { kinds: vec![RouteKind::Learned], ..other.clone() }, true),
        (Match { kinds: vec![RouteKind::Service, RouteKind::Pool], ..other.clone() }, false),
        (Match { neighbours: vec![key("a")], ..other.clone() }, true),
        (Match { neighbours: vec![key("b")], ..other.clone() }, false),
        (Match { communities: vec![7], kinds: vec![RouteKind::Learned], ..other.clone() }, true),
        (Match { communities: vec![7], kinds: vec![RouteKind::Pod], ..other.clone() }, false),
        (other, true),
    ];
    for (matches, expected) in table {
        let (policy, [a, _]) = policy(vec![rule("one", matches.clone(), accept())]);
        let subject = Subject { from: Some(a), ..learned(&attributes) };
        let judged = judge(&policy, subject, "10.0.0.0/8");
        assert_eq!(judged == Judgement::Accept(0), expected, "{matches:?}");
    }
}

#[test]
fn a_route_of_this_node_is_of_no_neighbour() {
    let matches = Match { neighbours: vec![PeerKey("a".to_owned())], ..Match::default() };
    let (policy, _) = policy(vec![rule("one", matches, accept())]);
    assert_eq!(judge(&policy, learned(&Attributes::default()), "10.0.0.0/8"), Judgement::NoRule);
}

#[test]
fn changes_take_away_before_they_add_and_keep_the_order() {
    let changes = Changes::new(&feed::Changes {
        local_pref: Some(50),
        med: None,
        remove_communities: vec![5, 7],
        add_communities: vec![7, 1],
        remove_large_communities: vec![[1, 1, 1]],
        add_large_communities: vec![[0, 0, 1], [0, 0, 1]],
        prepend: 2,
    });
    let one = |global, local1, local2| LargeCommunity { global, local1, local2 };
    let mut attributes = Attributes {
        med: Some(8),
        communities: vec![Community(3), Community(5), Community(7)],
        large_communities: vec![one(1, 1, 1), one(2, 2, 2)],
        as_path: AsPath::sequence([Asn(1)]),
        ..Attributes::default()
    };
    changes.apply(&mut attributes);
    assert_eq!((attributes.local_pref, attributes.med), (Some(50), Some(8)));
    assert_eq!(attributes.communities, [Community(1), Community(3), Community(7)]);
    assert_eq!(attributes.large_communities, [one(0, 0, 1), one(2, 2, 2)]);
    assert_eq!(attributes.as_path, AsPath::sequence([Asn(1)]), "the path is changed by who knows the AS");
    assert_eq!(attributes, attributes.clone().canonical());
    assert_eq!(changes.prepend(Asn(9)), Prepend { asn: Asn(9), times: 2 });
    assert!(Changes::new(&feed::Changes::default()).is_none() && !changes.is_none());
}

proptest! {
    #[test]
    fn a_list_contains_what_one_of_its_ranges_does(
        ranges in prop::collection::vec((0u32..4, 0u8..=4, 0u8..=4, 0u8..=4), 0..6),
        bits in 0u32..16, length in 0u8..=4,
    ) {
        let block = |bits: u32, length| Prefix::containing(std::net::Ipv4Addr::from(bits << 28).into(), length);
        let ranges: Vec<PrefixRange> = ranges
            .into_iter()
            .map(|(bits, length, ge, le)| PrefixRange { prefix: block(bits << 2, length), ge: ge.max(length), le })
            .collect();
        let list = Prefixes::new(&ranges);
        let wanted = block(bits, length);
        prop_assert_eq!(list.contain(wanted), ranges.iter().any(|range| range.contains(wanted)));
    }
}
