// SPDX-License-Identifier: Apache-2.0
//! Sessions with BIRD in other ways than between neighbours at port 179: over a router, from a loopback address, with TTL
//! security, at other ports, of several instances; both families, with MD5.

mod peers;

use std::time::Duration;

use peers::{Bird, KEY, Net, OUR_AS, Peer, Snapshot, Speaker, THEIR_AS, until, within};
use serde_json::{Value, json};

/// How long to look for a session that must not come: several tries of both sides.
const NEVER: Duration = Duration::from_secs(4);

/// A BIRD with a route of each family. `local` and `neighbour` may have a port behind them, `more` goes into the
/// protocol.
fn bird(net: &Net, namespace: &str, (local, neighbour): (&str, &str), more: &str) -> Bird {
    let config = format!(
        r#"router id 10.99.0.2;
        protocol device {{}}
        protocol static s4 {{ ipv4; route 10.200.1.0/24 blackhole; }}
        protocol static s6 {{ ipv6; route fd00:200:1::/64 blackhole; }}
        protocol bgp p1 {{
            local {local} as {THEIR_AS};
            neighbor {neighbour} as {OUR_AS};
            password "{KEY}";
            connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;
            {more}
            ipv4 {{ import all; export where source = RTS_STATIC; next hop address 10.99.0.2; }};
            ipv6 {{ import all; export where source = RTS_STATIC; next hop address fd99::2; }};
        }}"#
    );
    Bird::start(net, namespace, "p1", &config)
}

/// Our end: everything is taken from the peer at this address.
fn snapshot(address: &str, change: impl FnOnce(&mut Value)) -> Snapshot {
    Snapshot::pair(|peer| {
        peer["address"] = json!({ "ip": address });
        peer["import"] = json!({ "rules": [peers::rule("all", json!({}))] });
        change(peer);
    })
}

/// Routes of both families, both ways, also in our kernel.
fn exchanges(bird: &Bird, speaker: &Speaker<'_>, via: [&str; 2]) {
    until("the session is established", || bird.is_established());
    for prefix in ["10.100.1.0/24", "fd00:100:1::/64"] {
        until("the peer has ours", || bird.route(prefix).is_some());
    }
    for (prefix, via) in ["10.200.1.0/24", "fd00:200:1::/64"].into_iter().zip(via) {
        until("our kernel has the peer's", || speaker.learned(prefix).is_some());
        let route = speaker.learned(prefix).unwrap_or_default();
        assert!(route.contains(&format!("via {via} ")), "{route}");
    }
}

/// Whether we have no session, for as long as both sides try several times. What a peer sends before its connection is
/// ours can make the peer believe that there is one.
fn stays_without(speaker: &Speaker<'_>) -> bool {
    !within(NEVER, || speaker.peer("tor")["session"] == "established")
}

/// The next hops of the peer's routes where it is a neighbour: of IPv6 ones the address on the link.
const NEAR: [&str; 2] = ["10.99.0.2", "fe80::b"];

/// Us and the peer with a router between them: 10.98.0.1 and fd98::1, 10.99.0.2 and fd99::2. Both have an address on
/// their loopback link, too.
fn over_a_router() -> Net {
    let net = Net::new(&["a", "r", "b"]);
    net.link([
        ("a", "va", &["10.98.0.1/24", "fd98::1/64", "fe80::a/64"]),
        ("r", "ra", &["10.98.0.9/24", "fd98::9/64"]),
    ]);
    net.link([
        ("r", "rb", &["10.99.0.9/24", "fd99::9/64"]),
        ("b", "vb", &["10.99.0.2/24", "fd99::2/64", "fe80::b/64"]),
    ]);
    for (namespace, lines) in [
        (
            "a",
            "addr add 192.0.2.1/32 dev lo\naddr add 2001:db8::1/128 dev lo\nroute add default via 10.98.0.9\nroute add default via fd98::9",
        ),
        ("b", "route add default via 10.99.0.9\nroute add default via fd99::9"),
        ("r", "route add 192.0.2.1/32 via 10.98.0.1\nroute add 2001:db8::1/128 via fd98::1"),
    ] {
        net.namespace(namespace).ip(lines).expect("set up");
    }
    net
}

#[test]
fn a_session_over_ipv6_is_signed_and_carries_both_families() {
    let net = Net::pair();
    let bird = bird(&net, "b", ("fd99::2", "fd99::1"), "");
    let speaker = Speaker::start(&net, "a", &snapshot("fd99::2", |_| {}));
    exchanges(&bird, &speaker, NEAR);
}

#[test]
fn another_key_over_ipv6_brings_no_session() {
    let net = Net::pair();
    let bird = bird(&net, "b", ("fd99::2", "fd99::1"), "");
    let speaker = Speaker::start(&net, "a", &snapshot("fd99::2", |peer| peer["md5"] = "other".into()));
    assert!(stays_without(&speaker) && !bird.is_established());
}

#[test]
fn ttl_security_holds_in_both_families() {
    for (ours, theirs) in [("10.99.0.1", "10.99.0.2"), ("fd99::1", "fd99::2")] {
        let net = Net::pair();
        let bird = bird(&net, "b", (theirs, ours), "ttl security on;");
        let guarded = snapshot(theirs, |peer| peer["ttl"] = json!({ "security": 1 }));
        let speaker = Speaker::start(&net, "a", &guarded);
        exchanges(&bird, &speaker, NEAR);
    }
}

#[test]
fn who_sends_with_a_low_ttl_is_not_heard_in_either_family() {
    for (ours, theirs) in [("10.99.0.1", "10.99.0.2"), ("fd99::1", "fd99::2")] {
        let net = Net::pair();
        let _bird = bird(&net, "b", (theirs, ours), "");
        let guarded = snapshot(theirs, |peer| peer["ttl"] = json!({ "security": 1 }));
        let speaker = Speaker::start(&net, "a", &guarded);
        assert!(stays_without(&speaker), "over {theirs}");
    }
}

#[test]
fn an_external_peer_behind_a_router_needs_multihop() {
    for (ours, theirs) in [("10.98.0.1", "10.99.0.2"), ("fd98::1", "fd99::2")] {
        let net = over_a_router();
        let bird = bird(&net, "b", (theirs, ours), "multihop 2;");
        let speaker = Speaker::start(&net, "a", &snapshot(theirs, |_| {}));
        assert!(stays_without(&speaker) && !bird.is_established(), "a TTL of 1 goes as far as the router");
        drop(speaker);
        let far = snapshot(theirs, |peer| peer["ttl"] = json!({ "multihop": 2 }));
        let speaker = Speaker::start(&net, "a", &far);
        exchanges(&bird, &speaker, ["10.98.0.9", "fd98::9"]);
    }
}

#[test]
fn ttl_security_counts_the_routers_between() {
    let net = over_a_router();
    let bird = bird(&net, "b", ("10.99.0.2", "10.98.0.1"), "multihop 2; ttl security on;");
    let too_few = snapshot("10.99.0.2", |peer| peer["ttl"] = json!({ "security": 1 }));
    let speaker = Speaker::start(&net, "a", &too_few);
    assert!(stays_without(&speaker));
    drop(speaker);
    let enough = snapshot("10.99.0.2", |peer| peer["ttl"] = json!({ "security": 2 }));
    let speaker = Speaker::start(&net, "a", &enough);
    exchanges(&bird, &speaker, ["10.98.0.9", "fd98::9"]);
}

#[test]
fn a_session_comes_from_the_address_of_the_source_interface() {
    for (ours, theirs) in [("192.0.2.1", "10.99.0.2"), ("2001:db8::1", "fd99::2")] {
        let net = over_a_router();
        // BIRD waits, and knows us by that address alone.
        let bird = bird(&net, "b", (theirs, ours), "multihop 2; passive on;");
        let from_loopback = snapshot(theirs, |peer| {
            (peer["ttl"], peer["source_interface"]) = (json!({ "multihop": 2 }), "lo".into());
        });
        let speaker = Speaker::start(&net, "a", &from_loopback);
        until("the session is established", || bird.is_established());
        assert_eq!(speaker.peer("tor")["session"], "established");
    }
}

#[test]
fn other_ports_serve_whoever_connects() {
    for (theirs_passive, ours_passive) in [("passive on;", false), ("", true)] {
        let net = Net::pair();
        let ends = ("10.99.0.2 port 1790", "10.99.0.1 port 1791");
        let bird = bird(&net, "b", ends, theirs_passive);
        let mut wanted = snapshot("10.99.0.2", |peer| {
            (peer["port"], peer["passive"]) = (1790.into(), ours_passive.into());
        });
        wanted.0["instances"][0]["listen"] = json!(["0.0.0.0:1791"]);
        let speaker = Speaker::start(&net, "a", &wanted);
        exchanges(&bird, &speaker, NEAR);
    }
}

/// Two instances of different systems, each with a router of its own, and both routers tell the same prefixes.
#[test]
fn of_two_instances_the_first_by_name_forwards_and_the_second_when_it_has_no_route() {
    let net = Net::new(&["a", "b", "c"]);
    net.link([
        ("a", "va", &["10.99.0.1/24", "fd99::1/64", "fe80::a/64"]),
        ("b", "vb", &["10.99.0.2/24", "fd99::2/64", "fe80::b/64"]),
    ]);
    net.link([
        ("a", "wa", &["10.97.0.1/24", "fd97::1/64", "fe80::aa/64"]),
        ("c", "vc", &["10.97.0.2/24", "fd97::2/64", "fe80::c/64"]),
    ]);
    let second_as = OUR_AS + 7;
    let other = format!(
        r#"router id 10.97.0.2;
        protocol device {{}}
        protocol static s4 {{ ipv4; route 10.200.1.0/24 blackhole; }}
        protocol bgp p1 {{
            local 10.97.0.2 as {THEIR_AS}; neighbor 10.97.0.1 port 1792 as {second_as};
            connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;
            ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
        }}"#
    );
    let second = Bird::start(&net, "c", "p1", &other);
    let mut wanted = snapshot("10.99.0.2", |_| {});
    let mut instance = Snapshot::new(second_as, "10.97.0.1");
    instance.add_peer(peers::peer("other", json!({ "ip": "10.97.0.2" }), json!({ "number": THEIR_AS })));
    instance.add_route("10.101.1.0/24");
    let mut instance = instance.0["instances"][0].clone();
    (instance["name"], instance["listen"]) = ("second".into(), json!(["0.0.0.0:1792"]));
    wanted.0["instances"].as_array_mut().expect("a list").push(instance);
    let speaker = Speaker::start(&net, "a", &wanted);
    let goes_by = |via: &str| {
        speaker.learned("10.200.1.0/24").is_some_and(|route| route.contains(&format!("via {via} ")))
    };
    until("the second session is established", || second.is_established());
    until("the second instance's way, while there is no other", || goes_by("10.97.0.2"));
    let first = bird(&net, "b", ("10.99.0.2", "10.99.0.1"), "");
    until("the first session is established", || first.is_established());
    until("the first instance's way", || goes_by("10.99.0.2"));
    // Each tells its own peers alone of its own routes.
    until("its own routes", || {
        first.route("10.100.1.0/24").is_some() && second.route("10.101.1.0/24").is_some()
    });
    assert!(first.route("10.101.1.0/24").is_none() && second.route("10.100.1.0/24").is_none());
    drop(first);
    until("the second instance's way again", || goes_by("10.97.0.2"));
}
