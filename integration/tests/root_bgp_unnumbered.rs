// SPDX-License-Identifier: Apache-2.0
//! A session over link-local addresses alone: IPv4 routes with IPv6 next hops (RFC 8950) in both kernels, and packets
//! that follow them; with BIRD, and with FRR, which finds its neighbour by router advertisements as we do. At last with the
//! agent, which is told of the link alone.

mod peers;

use peers::cluster::{advertisement, apply, everything, object, pod_cidrs, quick, routes, start};
use peers::{Bird, Frr, KEY, Net, OUR_AS, Peer, Snapshot, Speaker, THEIR_AS, until};
use rhumb_integration::lab::{self, Lab, Spec};
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

/// An FRR that knows of the link alone, and finds who is there by router advertisements.
fn frr(net: &Net, more: &str) -> Frr {
    let bgpd = format!(
        "router bgp {THEIR_AS}
 bgp router-id 10.99.0.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor vb interface remote-as {OUR_AS}
 neighbor vb timers 10 30
 neighbor vb timers connect 1
{more} address-family ipv4 unicast
  neighbor vb activate
  redistribute static
 exit-address-family
 address-family ipv6 unicast
  neighbor vb activate
  redistribute static
 exit-address-family
"
    );
    let staticd = "ip route 10.200.1.0/24 blackhole\nipv6 route fd00:200:1::/64 blackhole\n";
    Frr::start(net, "b", "vb", &[("bgpd", &bgpd), ("staticd", staticd)])
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

/// Our end of the link, with the whole link as the peer's address.
fn unnumbered(change: impl FnOnce(&mut Value)) -> Snapshot {
    Snapshot::pair(|peer| {
        peer["address"] = json!({ "interface": "va" });
        peer["import"] = json!({ "rules": [peers::rule("all", json!({}))] });
        for family in peer["families"].as_array_mut().expect("a list") {
            if family["family"] == "ipv4" {
                family["extended_next_hop"] = true.into();
            }
        }
        change(peer);
    })
}

fn routes_over_link_local_addresses(net: &Net, peer: &impl Peer, change: impl FnOnce(&mut Value)) {
    let snapshot = unnumbered(change);
    let speaker = Speaker::start(net, "a", &snapshot);
    until("the session is established", || peer.is_established());
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
    let net = without_addresses();
    let bird = bird(&net, "passive on;");
    routes_over_link_local_addresses(&net, &bird, |peer| {
        peer["address"] = json!({ "scoped": { "address": "fe80::b", "interface": "va" } });
    });
}

#[test]
fn bird_that_connects_is_the_peer_of_the_link() {
    let net = without_addresses();
    let bird = bird(&net, "");
    routes_over_link_local_addresses(&net, &bird, |_| {});
}

#[test]
fn frr_and_we_find_each_other_on_the_link() {
    let net = without_addresses();
    let frr = frr(&net, &format!(" neighbor vb password {KEY}\n"));
    routes_over_link_local_addresses(&net, &frr, |_| {});
}

#[test]
fn frr_that_waits_is_connected_to() {
    let net = without_addresses();
    let frr = frr(&net, &format!(" neighbor vb password {KEY}\n neighbor vb passive\n"));
    routes_over_link_local_addresses(&net, &frr, |_| {});
}

#[test]
fn frr_that_comes_late_is_found() {
    let net = without_addresses();
    let speaker = Speaker::start(&net, "a", &unnumbered(|_| {}));
    assert_ne!(speaker.peer("tor")["session"], "established");
    let frr = frr(&net, &format!(" neighbor vb password {KEY}\n"));
    until("the session is established", || frr.is_established());
    assert_eq!(speaker.peer("tor")["session"], "established");
}

#[test]
fn frr_connects_to_us_who_wait() {
    let net = without_addresses();
    let frr = frr(&net, "");
    routes_over_link_local_addresses(&net, &frr, |peer| {
        peer["md5"] = Value::Null;
        peer["passive"] = true.into();
    });
}

/// Everything between the node and its router has to be found: the peer on the link, and next hops of both families. What
/// is otherwise on this node are its AS and its router id.
#[test]
fn a_node_that_is_told_of_a_link_alone_finds_the_router_there() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("bgpu") }).expect("the lab is built");
    let net = Net::in_lab(&lab, &["b", "far"]);
    net.link([("n1", "va", &["fe80::a/64"]), ("b", "vb", &["fe80::b/64"])]);
    net.host("b", "far", ("10.200.1", 25), ("fd00:200:1:", 80));
    let peer = json!({"name": "tor", "asn": "external", "interface": "va", "peerConfig": "tor"});
    let other = json!({"instances": [{"name": "main", "asn": OUR_AS, "routerID": "192.0.2.201"}]});
    apply(
        &lab,
        [
            object("BGPPeerConfig", "tor", json!({"timers": quick(), "import": everything()})),
            object(
                "BGPClusterConfig",
                "tor",
                json!({"instances": [{
                    "name": "main", "asn": 65000, "listenPort": 179, "peers": [peer],
                }]}),
            ),
            object("BGPNodeOverride", "n1", other),
            advertisement("pods", &json!({"type": "PodCIDR", "attributes": {"communities": ["65001:100"]}})),
        ],
    );
    start(&mut lab);
    let lab = lab;
    let node = lab.node(0);
    let frr = frr(&net, "");
    until("the session is established", || frr.is_established());
    let neighbour = frr.neighbour();
    assert_eq!(
        (&neighbour["remoteAs"], &neighbour["remoteRouterId"]),
        (&json!(OUR_AS), &json!("192.0.2.201"))
    );
    for prefix in ["10.200.1.0/24", "fd00:200:1::/64"] {
        let via = if prefix.contains(':') { "via fe80::b dev va" } else { "via inet6 fe80::b dev va" };
        until("the node's kernel has the router's route", || {
            net.kernel_route("n1", "7268", prefix).is_some_and(|route| route.contains(via))
        });
    }
    for prefix in pod_cidrs(&lab, 0) {
        let via = if prefix.contains(':') { "via fe80::a dev vb" } else { "via inet6 fe80::a dev vb" };
        until("the router's kernel has the node's", || {
            net.kernel_route("b", "main", &prefix).is_some_and(|route| route.contains(via))
        });
    }
    let pod = node.add_pod("default", "pod").expect("attached");
    for (pod_address, far) in [(pod.v4(), "10.200.1.2"), (pod.v6(), "fd00:200:1::2")] {
        let far = far.parse().expect("valid");
        lab::ping(net.namespace("far"), pod_address, peers::PATIENCE).expect("packets come by the routes");
        lab::ping(&pod.namespace, far, peers::PATIENCE).expect("packets go by the routes");
    }

    // What people see of it.
    let peers = node.show("bgp peers").expect("answered");
    let [peer] = peers.as_array().expect("a list").as_slice() else { unreachable!("one peer: {peers}") };
    assert_eq!((&peer["key"], &peer["address"]), (&json!("main/tor"), &json!("va")));
    assert_eq!(peer["remote_address"], "fe80::b");
    let of = |table: &str, field: &str| -> Vec<String> {
        let mut told: Vec<String> =
            routes(node, table).iter().map(|route| route[field].as_str().expect("text").to_owned()).collect();
        told.sort();
        told
    };
    // FRR tells us of our own, too.
    let own = pod_cidrs(&lab, 0);
    let mut all = [&["10.200.1.0/24", "fd00:200:1::/64"].map(str::to_owned)[..], &own].concat();
    all.sort();
    assert_eq!((of("in", "prefix"), of("best", "prefix"), of("out", "prefix")), (all.clone(), all, own));
    let policy = node.show("bgp policy --peer main/tor").expect("answered");
    assert_eq!(policy[0]["import"]["rules"][0]["name"], "all");
    let explained = node.show("bgp explain 10.200.1.2").expect("answered");
    assert_eq!(
        (&explained["prefix"], &explained["candidates"][0]["best"]),
        (&json!("10.200.1.0/24"), &json!(true))
    );
}
