// SPDX-License-Identifier: Apache-2.0
//! The other speakers of these labs with a BIRD in the place of ours: what fails here is no fault of `rhumb-bgp`.

mod peers;

use peers::{Bird, Exabgp, Frr, Gobgp, KEY, Net, OUR_AS, Openbgpd, Peer, THEIR_AS, has, until};

/// A BIRD that does what ours does, for both address families over IPv4, and IPv6 over IPv6 too.
fn bird_in_our_place(net: &Net) -> Bird {
    let times = "connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;";
    let marked = "if source != RTS_STATIC then reject; bgp_community.add((65001,100)); \
                  bgp_large_community.add((4200000001,1,2)); accept;";
    let config = format!(
        r#"router id 10.99.0.1;
        protocol device {{}}
        protocol static s4 {{ ipv4; route 10.100.1.0/24 blackhole; }}
        protocol static s6 {{ ipv6; route fd00:100:1::/64 blackhole; }}
        protocol bgp p1 {{
            local 10.99.0.1 as {OUR_AS}; neighbor 10.99.0.2 as {THEIR_AS}; password "{KEY}"; {times}
            ipv4 {{ import all; export filter {{ {marked} }}; next hop self; }};
            ipv6 {{ import all; export filter {{ {marked} }}; next hop address fd99::1; }};
        }}
        protocol bgp p6 {{
            local fd99::1 as {OUR_AS}; neighbor fd99::2 as {THEIR_AS}; password "{KEY}"; {times}
            ipv6 {{ import all; export filter {{ {marked} }}; }};
        }}"#
    );
    Bird::start(net, "a", "p1", &config)
}

/// Sessions, routes both ways with communities, and all routes again when asked.
fn speaks_with(net: &Net, peer: &impl Peer) {
    let bird = bird_in_our_place(net);
    until("the session is established", || bird.is_established() && peer.is_established());
    for (ours, theirs) in [("10.100.1.0/24", "10.200.1.0/24"), ("fd00:100:1::/64", "fd00:200:1::/64")] {
        until("the peer has ours", || {
            peer.route(ours).is_some_and(|route| has(&route, "65001:100", "4200000001:1:2"))
        });
        until("we have the peer's", || has(&bird.show_route(theirs), "65002:5", "4200000002:5:6"));
    }
    let before = peer.told();
    if peer.ask_again() {
        until("all comes again", || peer.told() > before);
    }
}

#[test]
fn frr_speaks_with_bird() {
    let net = Net::pair();
    speaks_with(&net, &Frr::pair(&net, &[]));
}

#[test]
fn gobgp_speaks_with_bird() {
    let net = Net::pair();
    speaks_with(&net, &Gobgp::pair(&net));
}

#[test]
fn openbgpd_speaks_with_bird() {
    let net = Net::pair();
    speaks_with(&net, &Openbgpd::pair(&net));
}

#[test]
fn exabgp_speaks_with_bird() {
    let net = Net::pair();
    speaks_with(&net, &Exabgp::pair(&net));
}

#[test]
fn bird_speaks_with_bird() {
    let net = Net::pair();
    speaks_with(&net, &Bird::pair(&net, ""));
}
