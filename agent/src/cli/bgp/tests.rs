// SPDX-License-Identifier: Apache-2.0

use rhumb_bgp_feed::{MessageCounts, PrefixRange, RouteKind, Rule, SessionState};

use super::*;

fn route() -> RouteView {
    RouteView {
        instance: "main".into(),
        peer: Some(PeerKey("main/tor".into())),
        prefix: "0.0.0.0/0".parse().expect("valid"),
        path_id: 0,
        kind: RouteKind::Learned,
        next_hop: "192.0.2.1".into(),
        as_path: "65001 {1,2}".into(),
        origin: "igp".into(),
        local_pref: Some(100),
        med: None,
        communities: vec![65001 << 16 | 7, 0xffff_ff01],
        large_communities: vec![[1, 2, 3]],
        best: true,
        stale: false,
        why: "shorter path".into(),
    }
}

#[test]
fn a_peer_is_a_row() {
    let family = |family, received| FamilyState {
        family,
        received,
        accepted: 1,
        stale: 0,
        advertised: 3,
        end_of_rib: true,
    };
    let peer = PeerState {
        key: PeerKey("main/tor".into()),
        instance: "main".into(),
        address: "fe80::1%eth0".into(),
        remote_address: None,
        local_address: None,
        asn: Some(65001),
        router_id: None,
        session: SessionState::Established,
        since: Timestamp(1_000),
        hold_time: Some(90),
        established_count: 1,
        last_error: None,
        restarting: false,
        families: vec![family(Family::V4, 4), family(Family::V6, 2)],
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        bfd: Some(rhumb_bgp_feed::BfdState::Up),
    };
    let shown = render(&Answer::Peers(vec![peer]), Timestamp(8_000), false);
    let row = "main/tor  fe80::1%eth0  65001  established  7s   up   6         2         6           -";
    assert_eq!(shown.lines().nth(1), Some(row));
}

#[test]
fn a_route_is_a_row_and_what_is_left_out_is_said() {
    let shown = render(&Answer::Routes { routes: vec![route()], more: 3 }, Timestamp(0), false);
    let lines: Vec<&str> = shown.lines().collect();
    let row = "*  0.0.0.0/0  main/tor  learned  192.0.2.1  65001 {1,2}  100   -    65001:7 no-export 1:2:3  shorter path";
    assert_eq!(lines[1..], [row, "3 more: choose with --peer or --family, or raise --most"]);
}

#[test]
fn a_policy_is_told_rule_by_rule() {
    let matches = Match {
        prefixes: vec![PrefixRange { prefix: "10.0.0.0/8".parse().expect("valid"), ge: 16, le: 24 }],
        communities: vec![1 << 16 | 2],
        kinds: vec![RouteKind::Pod],
        ..Match::default()
    };
    let changes =
        Changes { local_pref: Some(5), add_communities: vec![0xffff_0000], prepend: 2, ..Changes::default() };
    let rule = |name: &str, matches, action| Rule { name: name.into(), matches, action };
    let import = Policy {
        rules: vec![rule("a", matches, Action::Accept(changes)), rule("b", Match::default(), Action::Reject)],
    };
    let view = PolicyView {
        instance: "main".into(),
        peer: PeerKey("main/tor".into()),
        import,
        export: Policy::default(),
    };
    let expected = "main/tor import
  a: prefix 10.0.0.0/8 length 16-24; community 1:2; kind pod -> accept, preference 5, with graceful-shutdown, prepend 2
  b: anything -> reject
  anything else -> reject
main/tor export
  anything else -> reject
";
    assert_eq!(render(&Answer::Policies(vec![view]), Timestamp(0), false), expected);
}

#[test]
fn a_prefix_is_explained_with_its_candidates_and_who_is_told() {
    let prefix = "0.0.0.0/0".parse().expect("valid");
    let none =
        Explanation { prefix, candidates: vec![], told: vec![], notes: vec!["not in the kernel".into()] };
    assert_eq!(
        render(&Answer::Explanation(none.clone()), Timestamp(0), false),
        "no route to 0.0.0.0/0\nnot in the kernel\n"
    );
    let some = Explanation { candidates: vec![route()], told: vec![route()], ..none };
    let shown = render(&Answer::Explanation(some), Timestamp(0), false);
    assert_eq!(shown.matches("shorter path").count(), 2, "{shown}");
    assert!(shown.contains("\ntold:\n"), "{shown}");
}

#[test]
fn an_address_stands_for_its_prefix() {
    assert_eq!(prefix("192.0.2.1"), Ok("192.0.2.1/32".parse().expect("valid")));
    assert_eq!(prefix("fd00::/8"), Ok("fd00::/8".parse().expect("valid")));
    assert!(prefix("192.0.2.1/24").is_err());
}

#[test]
fn a_speaker_that_is_not_there_is_said_to_be_so() {
    let folder = tempfile::tempdir().expect("made");
    let error = run(&folder.path().join("bgp.sock"), &Command::Peers, false, false).expect_err("nobody");
    assert!(error.to_string().contains("is rhumb-bgp running on this node?"), "{error}");
}
