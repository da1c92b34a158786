// SPDX-License-Identifier: Apache-2.0
//! What the network around a host offers, on the real kernel: routes of others, rules, neighbours, and how fast their
//! changes are heard.

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::{Lab, name, prefix};
use rhumb_model::Prefix;
use rhumb_routing::fabric::{self, Fabric, Liveness};
use rhumb_routing::plan::Gateway;
use rhumb_routing::{Events, HostRoute, HostRoutes, Netlink};

const PODS: [&str; 2] = ["10.1.2.0/24", "fd00:1:2::/64"];

fn addr(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

fn gateway(text: &str) -> Gateway {
    Gateway { addr: addr(text), ifname: name("uplink") }
}

/// A host with a router at the other end of its uplink.
fn segment() -> Lab {
    let lab = Lab::new(&["router"]);
    lab.link_into("host", "uplink", "router", "eth0");
    for (name, link, host) in [("host", "uplink", "1"), ("router", "eth0", "fe")] {
        let low = if name == "host" { "1" } else { "254" };
        lab.ip(name, &format!("addr add 192.168.1.{low}/24 dev {link}"));
        lab.ip(name, &format!("addr add fd99::{host}/64 dev {link} nodad"));
    }
    lab
}

fn watch(netlink: &Netlink, more: &[&str]) {
    let addresses: BTreeSet<IpAddr> = more.iter().map(|text| addr(text)).collect();
    netlink.watch(PODS.map(prefix).into(), addresses);
}

/// The destination of the route of others to each pod prefix, and its only gateway.
fn found(fabric: &Fabric) -> Vec<String> {
    let of = |pods: &str| {
        let (dst, hops) = fabric.route_to(prefix(pods))?;
        Some(format!("{dst} {}", hops[0].as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)))
    };
    PODS.iter().filter_map(|pods| of(pods)).collect()
}

async fn seen(netlink: &Netlink) -> Vec<String> {
    found(&fabric::look(netlink).await.expect("told"))
}

#[test]
fn routes_of_others_are_seen_and_ours_are_not() {
    let lab = segment();
    lab.run(async |netlink, _| {
        watch(&netlink, &[]);
        lab.ip("host", "route add default via 192.168.1.254");
        lab.ip("host", "-6 route add default via fd99::fe");
        assert_eq!(seen(&netlink).await, [""; 0], "a default route says nothing");
        let ours: BTreeMap<Prefix, HostRoute> =
            PODS.map(|pods| (prefix(pods), HostRoute::Device { ifname: name("uplink") })).into();
        let mut routes = HostRoutes::new(netlink.clone());
        for (prefix, route) in &ours {
            rhumb_model::Target::put(&mut routes, prefix, route).await.expect("put");
        }
        assert_eq!(seen(&netlink).await, [""; 0], "ours are not the fabric's");
        lab.ip("host", "route add 10.0.0.0/8 via 192.168.1.254 proto bird");
        lab.ip("host", "-6 route add fd00::/16 via fd99::fe proto static");
        let far = ["10.0.0.0/8 192.168.1.254 dev uplink", "fd00::/16 fd99::fe dev uplink"];
        assert_eq!(seen(&netlink).await, far);
        lab.ip("host", "route add blackhole 10.1.0.0/16");
        lab.ip("host", "-6 route add unreachable fd00:1::/32");
        assert_eq!(seen(&netlink).await, [""; 0], "a black hole is no way");
    });
}

#[test]
fn other_tables_count_as_the_hosts_rules_say() {
    let lab = segment();
    lab.run(async |netlink, _| {
        watch(&netlink, &[]);
        lab.ip("host", "route add 10.1.0.0/16 via 192.168.1.254 table 4242");
        lab.ip("host", "-6 route add fd00:1::/32 via fd99::fe table 4242");
        assert_eq!(seen(&netlink).await, [""; 0], "no rule leads there");
        lab.ip("host", "rule add fwmark 7 lookup 4242");
        lab.ip("host", "-6 rule add from fd99::/64 lookup 4242");
        assert_eq!(seen(&netlink).await, [""; 0], "not for every packet");
        lab.ip("host", "rule add to 10.1.0.0/16 lookup 4242");
        lab.ip("host", "-6 rule add pref 500 lookup 4242");
        let there = ["10.1.0.0/16 192.168.1.254 dev uplink", "fd00:1::/32 fd99::fe dev uplink"];
        assert_eq!(seen(&netlink).await, there);
    });
}

#[test]
fn several_next_hops_and_those_of_the_other_family_are_read() {
    let lab = segment();
    lab.run(async |netlink, _| {
        watch(&netlink, &[]);
        lab.ip("host", "route add 10.1.2.0/24 nexthop via 192.168.1.254 nexthop via 192.168.1.253");
        lab.ip("host", "-6 route add fd00:1:2::/64 nexthop via fd99::fe nexthop via fd99::fd");
        let fabric = fabric::look(&netlink).await.expect("told");
        for pods in PODS {
            let (dst, hops) = fabric.route_to(prefix(pods)).expect("a route");
            assert_eq!((dst, hops.len()), (prefix(pods), 2));
        }
        lab.ip("host", "route replace 10.1.2.0/24 via inet6 fd99::fe dev uplink");
        assert_eq!(seen(&netlink).await[0], "10.1.2.0/24 fd99::fe dev uplink");
    });
}

#[test]
fn a_route_goes_with_its_link() {
    let lab = segment();
    lab.run(async |netlink, _| {
        watch(&netlink, &[]);
        lab.ip("host", "route add 10.1.0.0/16 via 192.168.1.254");
        assert_eq!(seen(&netlink).await.len(), 1);
        lab.ip("router", "link set eth0 down");
        // The kernel marks the route a moment after the link lost its carrier.
        let until = Instant::now() + Duration::from_secs(10);
        while !seen(&netlink).await.is_empty() {
            assert!(Instant::now() < until, "the route of a link without carrier counts");
        }
    });
}

/// Waits until a look finds a neighbour in this state.
async fn becomes(netlink: &Netlink, events: &mut Events, text: &str, liveness: Liveness) {
    let wait = async {
        while fabric::look(netlink).await.expect("told").liveness(&gateway(text)) != liveness {
            while !events.next().await.expect("heard").fabric {}
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{text} never becomes {liveness:?}");
}

#[test]
fn probes_find_out_who_answers_and_who_does_not_any_more() {
    let lab = segment();
    lab.run(async |netlink, _| {
        let there = ["192.168.1.254", "fd99::fe"];
        watch(&netlink, &["192.168.1.254", "fd99::fe", "192.168.1.77"]);
        let mut events = Events::open(&netlink).await.expect("listening");
        let all: BTreeSet<Gateway> = ["192.168.1.254", "fd99::fe", "192.168.1.77"].map(gateway).into();
        assert_eq!(
            fabric::look(&netlink).await.expect("told").liveness(&gateway(there[0])),
            Liveness::Unknown
        );
        fabric::probe(&netlink, all.clone()).await.expect("asked");
        for text in there {
            becomes(&netlink, &mut events, text, Liveness::Alive).await;
        }
        becomes(&netlink, &mut events, "192.168.1.77", Liveness::Dead).await;
        // The router falls silent; what the kernel knows of it grows old.
        lab.ip("router", "link set eth0 arp off");
        lab.ip("router", "addr flush dev eth0");
        for text in there {
            lab.ip("host", &format!("neigh change {text} dev uplink nud stale"));
        }
        fabric::probe(&netlink, all).await.expect("asked");
        for text in there {
            becomes(&netlink, &mut events, text, Liveness::Dead).await;
        }
    });
}

#[test]
fn what_concerns_a_pod_prefix_is_heard_at_once_and_nothing_else() {
    let lab = segment();
    lab.run(async |netlink, _| {
        watch(&netlink, &[]);
        let mut events = Events::open(&netlink).await.expect("listening");
        let mut changes: Vec<(bool, String)> = Vec::new();
        for pods in PODS {
            let via = if pods.contains(':') { "fd99::fe" } else { "192.168.1.254" };
            for verb in ["add", "del"] {
                changes.push((true, format!("route {verb} {pods} via {via} proto bird")));
            }
        }
        changes.push((false, "route add 10.1.3.0/24 via 192.168.1.254".to_owned()));
        changes.push((false, "route add 10.1.2.0/25 via 192.168.1.254".to_owned()));
        changes.push((false, "neigh add 192.168.1.99 lladdr 02:00:00:00:00:01 dev uplink".to_owned()));
        changes.push((true, "rule add to 10.1.0.0/16 lookup 4242".to_owned()));
        for (matters, change) in &changes {
            lab.ip("host", change);
            // An address ends what is heard of the change.
            let heard = async {
                let mut fabric = false;
                loop {
                    let notices = events.next().await.expect("heard");
                    fabric |= notices.fabric;
                    if notices.addresses {
                        return fabric;
                    }
                }
            };
            lab.ip("host", "addr add 198.51.100.1/32 dev lo");
            let fabric = tokio::time::timeout(Duration::from_secs(5), heard).await.expect("heard in time");
            assert_eq!(fabric, *matters, "{change}");
            lab.ip("host", "addr del 198.51.100.1/32 dev lo");
            while !events.next().await.expect("heard").addresses {}
        }
    });
}
