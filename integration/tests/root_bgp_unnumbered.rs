// SPDX-License-Identifier: Apache-2.0
//! A session over link-local addresses alone: IPv4 routes with IPv6 next hops (RFC 8950) in both kernels, and packets
//! that follow them.

mod peers;

use peers::{Bird, KEY, Net, OUR_AS, Peer, Snapshot, Speaker, THEIR_AS, until};
use rhumb_integration::lab;
use serde_json::{Value, json};

/// A BIRD that knows nothing of our addresses but the link-local one. It connects, when `more` does not say otherwise.
fn bird(net: &Net, more: &str) -> Bird {
    let config = format!(
        r#"router id 10.99.0.2;
        protocol device {{}}
        protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
        protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}
        protocol static s4 {{ ipv4; route 10.200.1.0/24 blackhole; }}
        protocol static s6 {{ ipv6; route fd00:200:1::/64 blackhole; }}
        protocol bgp p1 {{
            local fe80::b as {THEIR_AS};
            neighbor fe80::a % 'vb' as {OUR_AS};
            password "{KEY}";
            connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;
            {more}
            ipv4 {{ import all; export where source = RTS_STATIC; extended next hop on; next hop self; }};
            ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
        }}"#
    );
    Bird::start(net, "b", "p1", &config)
}

/// Neither end of the link has an IPv4 address.
fn without_addresses() -> Net {
    let net = Net::pair_with_hosts();
    for (namespace, link, v4, v6) in
        [("a", "va", "10.99.0.1/24", "fd99::1/64"), ("b", "vb", "10.99.0.2/24", "fd99::2/64")]
    {
        net.namespace(namespace)
            .ip(&format!("addr del {v4} dev {link}\naddr del {v6} dev {link}"))
            .expect("gone");
    }
    net
}

fn routes_over_link_local_addresses(address: Value, more: &str) {
    let net = without_addresses();
    let bird = bird(&net, more);
    let snapshot = Snapshot::pair(|peer| {
        peer["address"] = address;
        peer["import"] = json!({ "rules": [peers::rule("all", json!({}))] });
        for family in peer["families"].as_array_mut().expect("a list") {
            if family["family"] == "ipv4" {
                family["extended_next_hop"] = true.into();
            }
        }
    });
    let speaker = Speaker::start(&net, "a", &snapshot);
    until("the session is established", || bird.is_established());
    let ours = |prefix: &str| net.kernel_route("b", "main", prefix);
    until("our kernel has an IPv4 route by an IPv6 next hop", || {
        speaker.learned("10.200.1.0/24").is_some_and(|route| route.contains("via inet6 fe80::b dev va"))
    });
    until("the peer's kernel has one too", || {
        ours("10.100.1.0/24").is_some_and(|route| route.contains("via inet6 fe80::a dev vb"))
    });
    until("our kernel has the IPv6 route", || {
        speaker.learned("fd00:200:1::/64").is_some_and(|route| route.contains("via fe80::b dev va"))
    });
    until("the peer's kernel has ours", || ours("fd00:100:1::/64").is_some());
    for pod in ["10.100.1.2", "fd00:100:1::2"] {
        let pod = pod.parse().expect("valid");
        lab::ping(net.namespace("client"), pod, peers::PATIENCE).expect("packets follow the routes");
    }
}

#[test]
fn bird_at_a_link_local_address_is_connected_to() {
    let scoped = json!({ "scoped": { "address": "fe80::b", "interface": "va" } });
    routes_over_link_local_addresses(scoped, "passive on;");
}

#[test]
fn bird_that_connects_is_the_peer_of_the_link() {
    routes_over_link_local_addresses(json!({ "interface": "va" }), "");
}
