// SPDX-License-Identifier: Apache-2.0
//! Routes and settings of the host, and what is asked about it, on the real kernel; judged by `ip`.

mod lab;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lab::{Lab, key, name, prefix, spec};
use rhumb_model::Target;
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_routing::{
    Events, HostRoute, HostRoutes, Links, Notices, PodAddress, PodAddresses, PodNextHop, PodRoute, PodRoutes,
    RouteError, Sysctl, Sysctls, host, inspect,
};

/// An uplink with addresses of both families and routes of others.
fn uplink(lab: &Lab) {
    lab.ip("host", "link add uplink type veth peer name far");
    lab.ip("host", "link set uplink up");
    lab.ip("host", "link set far up");
    lab.ip("host", "addr add 192.168.1.1/24 dev uplink");
    lab.ip("host", "addr add fd99::1/64 dev uplink nodad");
    lab.ip("host", "route add default via 192.168.1.254");
    lab.ip("host", "route add 10.9.0.0/16 via 192.168.1.2 proto static");
    lab.ip("host", "route add 10.0.0.0/24 via 192.168.1.9 metric 77");
    lab.ip("host", "-6 route add fd00:9::/64 via fd99::9 proto bird");
}

fn device(ifname: &str) -> HostRoute {
    HostRoute::Device { ifname: name(ifname) }
}

fn tunnel(ifname: &str, mtu: u32, source: Option<&str>) -> HostRoute {
    let source = source.map(|source| source.parse().expect("valid"));
    HostRoute::Tunnel { ifname: name(ifname), mtu, source }
}

fn via(gateway: &str, ifname: Option<&str>) -> HostRoute {
    HostRoute::Via { gateway: gateway.parse().expect("valid"), ifname: ifname.map(name) }
}

#[test]
fn host_routes_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    let before = lab.everything("host");
    lab.run(async |netlink, _| {
        let states = [
            [
                (prefix("10.0.0.0/24"), HostRoute::Unreachable),
                (prefix("10.0.0.5/32"), device("uplink")),
                (prefix("fd00::5/128"), device("uplink")),
                (prefix("fd00::/64"), HostRoute::Unreachable),
                (prefix("10.0.1.0/24"), via("192.168.1.2", None)),
                (prefix("fd00:1::/64"), via("fd99::2", None)),
                (prefix("10.0.2.0/24"), tunnel("uplink", 1450, Some("192.168.1.1"))),
                (prefix("10.0.3.0/24"), tunnel("uplink", 1450, None)),
                (prefix("fd00:2::/64"), tunnel("uplink", 1430, Some("fd99::1"))),
            ]
            .into(),
            [
                (prefix("10.0.0.0/24"), via("192.168.1.3", Some("uplink"))),
                (prefix("10.0.0.5/32"), device("far")),
                (prefix("fd00::5/128"), device("far")),
                (prefix("fd00::/64"), via("fd99::3", Some("uplink"))),
                (prefix("10.0.1.0/24"), HostRoute::Unreachable),
                (prefix("fd00:1::/64"), HostRoute::Unreachable),
                (prefix("10.0.2.0/24"), tunnel("far", 1400, None)),
                (prefix("10.0.3.0/24"), via("192.168.1.2", None)),
                (prefix("fd00:2::/64"), device("uplink")),
            ]
            .into(),
            [
                (prefix("10.0.1.0/24"), via("192.168.1.4", Some("uplink"))),
                (prefix("fd00:1::/64"), via("fd99::4", Some("uplink"))),
                (prefix("10.0.3.0/24"), tunnel("uplink", 1450, None)),
                (prefix("fd00:2::/64"), tunnel("uplink", 1430, None)),
            ]
            .into(),
            BTreeMap::new(),
        ];
        let target = HostRoutes::new(netlink);
        let target = converges(target, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(lab.everything("host"), before);
    });
}

#[test]
fn an_unreachable_prefix_yields_to_every_other_route() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    lab.run(async |netlink, _| {
        let mut target = HostRoutes::new(netlink);
        for of in ["10.0.0.0/24", "10.0.2.0/24", "fd00::/64"] {
            target.put(&prefix(of), &HostRoute::Unreachable).await.expect("added");
        }
        target.put(&prefix("10.0.2.7/32"), &device("uplink")).await.expect("added");
        assert!(
            lab.ip("host", "route get 10.0.0.7").contains("via 192.168.1.9"),
            "the same prefix of another"
        );
        assert!(lab.ip("host", "route get 10.0.2.7").contains("dev uplink"), "part of the prefix");
        let there = lab.ip("host", "route show 10.0.2.0/24");
        assert!(there.starts_with("unreachable 10.0.2.0/24 proto 114 metric 4294901760"), "{there}");
        let there = lab.ip("host", "-6 route show fd00::/64");
        assert!(there.contains("unreachable fd00::/64") && there.contains("proto 114"), "{there}");
    });
}

#[test]
fn a_foreign_route_in_the_way_is_an_error_and_stays() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    let before = lab.everything("host");
    lab.run(async |netlink, _| {
        let mut target = HostRoutes::new(netlink);
        for of in ["10.9.0.0/16", "fd00:9::/64"] {
            let error = target.put(&prefix(of), &device("uplink")).await.expect_err("in the way");
            assert!(matches!(error, RouteError::Occupied { .. }), "{error}");
            target.remove(&prefix(of)).await.expect("not ours, so nothing to do");
        }
        assert_eq!(lab.everything("host"), before);
    });
}

#[test]
fn a_route_changes_without_a_moment_of_absence() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    lab.run(async |netlink, _| {
        let mut target = HostRoutes::new(netlink);
        let of = prefix("10.0.1.0/24");
        target.put(&of, &via("192.168.1.2", None)).await.expect("added");
        let mut monitor = lab.monitor("host", "route");
        for gateway in ["192.168.1.3", "192.168.1.4"] {
            target.put(&of, &via(gateway, None)).await.expect("replaced");
        }
        target.put(&of, &HostRoute::Unreachable).await.expect("replaced");
        target.remove(&of).await.expect("removed");
        let told = monitor.until("Deleted unreachable 10.0.1.0/24");
        let told: Vec<&str> = told.iter().map(|line| line.trim()).collect();
        let after_the_new = told.iter().position(|line| line.starts_with("unreachable")).expect("told");
        assert!(told[..after_the_new].iter().all(|line| !line.starts_with("Deleted")), "{told:?}");
        assert!(told[after_the_new + 1].starts_with("Deleted 10.0.1.0/24 via 192.168.1.4"), "{told:?}");
    });
}

#[test]
fn uplinks_are_those_with_a_default_route() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    lab.run(async |netlink, _| {
        let uplinks = host::uplinks(&netlink).await.expect("told");
        assert_eq!(uplinks.len(), 1);
        let link = host::link(&netlink, &name("uplink")).await.expect("told").expect("there");
        assert_eq!((uplinks[0].ifname.as_str(), uplinks[0].ifindex), ("uplink", link.ifindex));
        assert_eq!(uplinks[0].reach().on_link, [prefix("192.168.1.0/24"), prefix("fd99::/64")]);
        let addresses = host::addresses(&netlink).await.expect("told");
        assert_eq!(
            addresses,
            ["192.168.1.1/24".parse().expect("valid"), "fd99::1/64".parse().expect("valid")]
        );
        // Several next hops in one route, of the other family.
        lab.ip("host", "route del default");
        lab.ip("host", "addr add fd98::1/64 dev far nodad");
        lab.ip("host", "-6 route add default nexthop via fd99::2 nexthop via fd98::2");
        let names =
            |uplinks: Vec<host::Uplink>| uplinks.into_iter().map(|uplink| uplink.ifname).collect::<Vec<_>>();
        assert_eq!(names(host::uplinks(&netlink).await.expect("told")), [name("far"), name("uplink")]);
        let named = host::uplinks_named(&netlink, &[name("lo"), name("none")]).await.expect("told");
        assert_eq!(names(named), [name("lo")]);
        assert_eq!(host::link(&netlink, &name("none")).await.expect("told"), None);
    });
}

#[test]
fn every_gateway_of_the_best_default_route_is_found_with_its_link() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    // Two next hops of one route; two routes that are equal, one by a link-local address; worse, and elsewhere.
    lab.ip("host", "route replace default nexthop via 192.168.1.254 nexthop via 192.168.1.253");
    lab.ip("host", "route add default via 192.168.1.9 metric 50");
    lab.ip("host", "route add default via 192.168.1.8 table 77");
    lab.ip("host", "-6 route add default via fe80::1 dev uplink metric 7");
    lab.ip("host", "-6 route append default via fd99::2 dev uplink metric 7");
    lab.ip("host", "-6 route add default via fd99::9 dev uplink metric 8");
    lab.ip("host", "-6 route add fd77::/64 via fd99::8 dev uplink");
    lab.run(async |netlink, _| {
        let found = host::default_gateways(&netlink).await.expect("told");
        let found: Vec<String> = found.iter().map(|it| format!("{} {}", it.addr, it.ifname)).collect();
        assert_eq!(
            found,
            ["192.168.1.253 uplink", "192.168.1.254 uplink", "fd99::2 uplink", "fe80::1 uplink"]
        );
        let addresses = host::addresses_by_link(&netlink).await.expect("told");
        let of_uplink: Vec<String> = addresses[&name("uplink")].iter().map(ToString::to_string).collect();
        assert_eq!(of_uplink, ["192.168.1.1/24", "fd99::1/64"]);
        assert_eq!(addresses[&name("far")], []);
    });
}

async fn heard(events: &mut Events) -> Notices {
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("in time").expect("heard")
}

#[test]
fn changes_by_others_are_heard_and_own_ones_are_not() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut events = Events::open(&netlink).await.expect("listening");
        let mut links = Links::new(netlink.clone());
        links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect("a pair");
        let mut routes = HostRoutes::new(netlink.clone());
        for of in ["10.0.0.5/32", "fd00::5/128"] {
            routes.put(&prefix(of), &device("rh0")).await.expect("added");
        }
        lab.ip("host", "addr add 192.168.1.1/24 dev lo");
        let first = heard(&mut events).await;
        assert_eq!(first, Notices { addresses: true, ..Notices::default() }, "nothing of ours came before");
        lab.ip("host", "route del 10.0.0.5/32");
        assert!(heard(&mut events).await.routes);
        lab.ip("host", "link set rh0 down");
        while !heard(&mut events).await.links {}
        lab.ip("host", "link add uplink type veth peer name far");
        while !heard(&mut events).await.links {}
        lab.ip("host", "route add unreachable default");
        while !heard(&mut events).await.routes {}
    });
}

#[test]
fn whatever_changes_is_told_of_at_once_also_what_is_not_looked_at() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    lab.run(async |netlink, _| {
        let mut events = Events::open(&netlink).await.expect("listening");
        let mut told = 0;
        let mut routes = HostRoutes::new(netlink.clone());
        for change in [
            // Ours, and not so.
            "",
            "route add 203.0.113.0/24 dev uplink",
            "route del 203.0.113.0/24",
            "neigh add 192.168.1.77 lladdr 02:00:00:00:00:77 dev uplink",
        ] {
            if change.is_empty() {
                routes.put(&prefix("10.0.0.5/32"), &device("uplink")).await.expect("added");
            } else {
                lab.ip("host", change);
            }
            let before = told;
            let more = async { while events.next_after(|| told += 1).await.is_ok() {} };
            // Nobody is told of anything else: what was told of is counted when that is waited for in vain.
            drop(tokio::time::timeout(Duration::from_millis(300), more).await);
            assert!(told > before, "{change}");
        }
    });
}

#[test]
fn an_overflow_of_notices_counts_as_a_change_of_everything() {
    let lab = Lab::new(&[]);
    uplink(&lab);
    lab.run(async |netlink, _| {
        let mut events = Events::open(&netlink).await.expect("listening");
        let lines: String = (0..20_000)
            .map(|at| format!("route add 10.{}.{}.0/24 dev uplink proto 114\n", 100 + at / 250, at % 250))
            .collect();
        lab.batch("host", &lines);
        let everything = Notices { links: true, addresses: true, routes: true, fabric: true };
        while heard(&mut events).await != everything {}
    });
}

#[test]
fn a_listing_is_complete_while_links_come_and_go() {
    let lab = Lab::new(&["a", "b"]);
    uplink(&lab);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a", "b"]);
        let churn = async {
            let mut links = Links::new(netlink.clone());
            for _ in 0..30 {
                for (at, pod) in ["a/eth0", "b/eth0"].into_iter().enumerate() {
                    links.put(&key(pod), &spec(&format!("rh{at}"), 1, 1500)).await.expect("a pair");
                }
                let keys = [key("a/eth0"), key("b/eth0")];
                assert!(links.remove_all(&keys).await.into_iter().all(|result| result.is_ok()));
            }
        };
        let list = async {
            for _ in 0..100 {
                let names = [name("uplink"), name("far"), name("lo")];
                let there = host::uplinks_named(&netlink, &names).await.expect("told");
                assert_eq!(there.len(), 3);
            }
        };
        tokio::join!(churn, list);
    });
}

#[test]
fn a_pod_is_seen_as_it_is() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a", "b"]);
        let a = key("a/eth0");
        assert_eq!(inspect::pod(&namespaces, &a).await.expect("seen"), inspect::PodView::default());
        assert_eq!(inspect::host_end(&namespaces, &a).await.expect("seen"), None);
        let mut links = Links::new(netlink.clone());
        links.put(&a, &spec("rh0", 1, 1400)).await.expect("a pair");
        let address = PodAddress { attachment: a.clone(), address: "10.0.0.1/32".parse().expect("valid") };
        PodAddresses::new(netlink.clone()).put(&address, &()).await.expect("added");
        let gateway = Some("169.254.1.1".parse().expect("valid"));
        let route = PodRoute { attachment: a.clone(), dst: prefix("0.0.0.0/0") };
        let next_hop = PodNextHop { gateway, mtu: None, onlink: true };
        PodRoutes::new(netlink).put(&route, &next_hop).await.expect("added");
        let seen = inspect::pod(&namespaces, &a).await.expect("seen");
        assert!(seen.exists && seen.up);
        assert_eq!((seen.mtu, seen.mac), (1400, Some(spec("rh0", 1, 1400).mac)));
        assert!(seen.addresses.contains(&address.address));
        assert!(seen.routes.contains(&(prefix("0.0.0.0/0"), gateway)), "{:?}", seen.routes);
        let end = inspect::host_end(&namespaces, &a).await.expect("seen");
        assert_eq!(end, Some((name("rh0"), links.facts(&a).expect("known").ifindex)));
    });
}

#[test]
fn the_hosts_end_of_a_pair_of_others_is_found() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |_, namespaces| {
        lab.open(&namespaces, &["a", "b"]);
        lab.link_into("host", "bridge0", "a", "eth0");
        // The other end of this one is in another pod.
        lab.link_into("a", "eth1", "b", "eth0");
        let end = inspect::host_end(&namespaces, &key("a/eth0")).await.expect("seen").expect("on the host");
        assert_eq!(end.0, name("bridge0"));
        assert_eq!(inspect::host_end(&namespaces, &key("b/eth0")).await.expect("seen"), None);
        // Both ends in the pod.
        namespaces.open(key("b/one"), &lab.path("b")).expect("a namespace");
        lab.ip("b", "link add one type veth peer name two");
        assert_eq!(inspect::host_end(&namespaces, &key("b/one")).await.expect("seen"), None);
    });
}

#[test]
fn sysctls_obey_the_law() {
    let lab = Lab::new(&[]);
    lab.run(async |_, _| {
        let sysctl = |name: &str, value: &str| (Sysctl(name.to_owned()), value.to_owned());
        let states = [
            [
                sysctl("net.ipv4.ip_forward", "1"),
                sysctl("net.ipv6.conf.all.forwarding", "1"),
                sysctl("net.ipv4.ip_local_port_range", "40000 50000"),
            ]
            .into(),
            [sysctl("net.ipv4.ip_forward", "0")].into(),
            BTreeMap::new(),
        ];
        let target = converges(Sysctls::default(), &states, Instant::now()).await.expect("lawful");
        let mut target = survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        let missing = Sysctl("net.ipv4.conf.none.rp_filter".to_owned());
        let error = target.put(&missing, &"1".to_owned()).await.expect_err("no such setting");
        assert_eq!(error.to_string(), "read kernel setting net.ipv4.conf.none.rp_filter");
    });
}
