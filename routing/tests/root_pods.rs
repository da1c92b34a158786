// SPDX-License-Identifier: Apache-2.0
//! Addresses, routes and shaping of pods on the real kernel, judged by `ip` and `tc`.

mod lab;

use std::collections::BTreeMap;
use std::time::Instant;

use lab::{Lab, key, prefix, spec};
use rhumb_model::Target;
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_routing::{
    AddressError, Direction, Links, Namespaces, Netlink, PodAddress, PodAddresses, PodNextHop, PodRoute,
    PodRoutes, QdiscError, QdiscKey, Qdiscs, TokenBucket,
};

/// Pairs to pods `a` and `b`, with foreign objects beside them in `a`.
async fn pairs(lab: &Lab, netlink: &Netlink, namespaces: &Namespaces) {
    lab.open(namespaces, &["a", "b"]);
    let mut links = Links::new(netlink.clone());
    links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect("a pair");
    links.put(&key("b/eth0"), &spec("rh1", 3, 1500)).await.expect("a pair");
    lab.ip("a", "addr add 172.16.0.1/16 dev eth0");
    lab.ip("a", "addr add fd99::1/64 dev eth0 nodad");
    lab.ip("a", "route add 172.20.0.0/16 via 172.16.0.2");
    lab.ip("a", "link add other type veth peer name third");
    lab.ip("a", "link set other up");
}

fn address(attachment: &str, address: &str) -> (PodAddress, ()) {
    (PodAddress { attachment: key(attachment), address: address.parse().expect("valid") }, ())
}

#[test]
fn pod_addresses_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let before = lab.everything("a");
        let states = [
            [
                address("a/eth0", "10.0.0.1/32"),
                address("a/eth0", "fd00::1/128"),
                address("b/eth0", "10.0.0.2/24"),
            ]
            .into(),
            [address("a/eth0", "10.0.0.3/32"), address("a/eth0", "fd00::1/128")].into(),
            BTreeMap::new(),
        ];
        let target = PodAddresses::new(netlink);
        let target = converges(target, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(lab.everything("a"), before);
    });
}

#[test]
fn pod_addresses_are_usable_at_once_and_bring_no_routes() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let routes = lab.ip("b", "route");
        let mut target = PodAddresses::new(netlink);
        let batch = [address("b/eth0", "10.0.0.2/24"), address("b/eth0", "fd00::2/64")];
        for result in target.put_all(&batch).await.into_iter().chain(target.put_all(&batch).await) {
            result.expect("added, or present");
        }
        let there = lab.ip("b", "-o addr show dev eth0");
        for words in ["inet 10.0.0.2/24", "inet6 fd00::2/64 scope global nodad noprefixroute"] {
            assert!(there.contains(words), "{words}: {there}");
        }
        assert_eq!(lab.ip("b", "route"), routes);
        assert!(!lab.ip("b", "-6 route").contains("fd00::"), "no route came with the address");
    });
}

#[test]
fn an_interface_without_ipv6_gets_it_with_its_address() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        lab.exec("b", "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
        let mut target = PodAddresses::new(netlink);
        let batch = [address("b/eth0", "10.0.0.2/32"), address("b/eth0", "fd00::2/128")];
        for result in target.put_all(&batch).await {
            result.expect("added");
        }
        assert!(lab.ip("b", "-6 addr show dev eth0").contains("fd00::2/128"));
    });
}

#[test]
fn a_foreign_address_is_neither_taken_over_nor_removed() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let before = lab.everything("a");
        let (theirs, ()) = address("a/eth0", "172.16.0.1/16");
        let mut target = PodAddresses::new(netlink);
        let error = target.put(&theirs, &()).await.expect_err("not ours");
        assert!(matches!(error, AddressError::Foreign { .. }), "{error}");
        target.remove(&theirs).await.expect("not ours, so nothing to do");
        assert_eq!(lab.everything("a"), before);
    });
}

#[test]
fn objects_go_with_their_link_and_their_namespace() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let (on_a, ()) = address("a/eth0", "10.0.0.1/32");
        let (on_b, ()) = address("b/eth0", "10.0.0.2/32");
        let mut target = PodAddresses::new(netlink);
        for key in [&on_a, &on_b] {
            target.put(key, &()).await.expect("added");
        }
        lab.ip("a", "link del eth0");
        namespaces.forget(&on_b.attachment);
        assert_eq!(target.observe().await.expect("observed"), BTreeMap::new());
        for key in [&on_a, &on_b] {
            target.remove(key).await.expect("absent is success");
            target.put(key, &()).await.expect_err("nothing to put it on");
        }
    });
}

fn route(attachment: &str, dst: &str, gateway: Option<&str>, mtu: Option<u32>) -> (PodRoute, PodNextHop) {
    let gateway = gateway.map(|gateway| gateway.parse().expect("valid"));
    let next_hop = PodNextHop { gateway, mtu, onlink: gateway.is_some() };
    (PodRoute { attachment: key(attachment), dst: prefix(dst) }, next_hop)
}

#[test]
fn pod_routes_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let before = lab.everything("a");
        let states = [
            [
                route("a/eth0", "0.0.0.0/0", Some("169.254.1.1"), None),
                route("a/eth0", "::/0", Some("fe80::1"), None),
                route("b/eth0", "10.0.0.0/8", None, Some(1400)),
                route("b/eth0", "fd00::/16", None, None),
            ]
            .into(),
            [
                route("a/eth0", "0.0.0.0/0", Some("169.254.1.2"), Some(1300)),
                route("a/eth0", "::/0", Some("fe80::1"), Some(1300)),
                route("b/eth0", "10.0.0.0/8", Some("169.254.1.1"), None),
            ]
            .into(),
            BTreeMap::new(),
        ];
        let target = PodRoutes::new(netlink);
        let target = converges(target, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!(lab.everything("a"), before);
    });
}

#[test]
fn pod_routes_read_as_intended() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let mut target = PodRoutes::new(netlink);
        for (key, value) in [
            route("b/eth0", "0.0.0.0/0", Some("169.254.1.1"), Some(1400)),
            route("b/eth0", "::/0", Some("fe80::1"), None),
        ] {
            target.put(&key, &value).await.expect("added");
            target.put(&key, &value).await.expect("present is success");
        }
        let there = lab.ip("b", "route").replace(" \n", "\n");
        assert_eq!(there, "default via 169.254.1.1 dev eth0 proto 114 onlink mtu 1400\n");
        let there = lab.ip("b", "-6 route show default");
        assert!(there.starts_with("default via fe80::1 dev eth0 proto 114 metric 1024 onlink"), "{there}");
    });
}

#[test]
fn of_two_interfaces_of_a_pod_the_first_wins_the_default_route() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        namespaces.open(key("b/net1"), &lab.path("b")).expect("a namespace");
        Links::new(netlink.clone()).put(&key("b/net1"), &spec("rh2", 5, 1500)).await.expect("a pair");
        let states = [[
            route("b/eth0", "0.0.0.0/0", Some("169.254.1.1"), None),
            route("b/eth0", "::/0", Some("fe80::1"), None),
            route("b/net1", "0.0.0.0/0", Some("169.254.1.1"), None),
            route("b/net1", "::/0", Some("fe80::1"), None),
        ]
        .into()];
        converges(PodRoutes::new(netlink), &states, Instant::now()).await.expect("lawful");
        lab.ip("b", "addr add 10.0.0.2/32 dev eth0");
        assert!(lab.ip("b", "route get 8.8.8.8").contains("dev eth0"));
        let both = lab.ip("b", "-6 route show default");
        assert!(
            both.contains("dev eth0 proto 114 metric 1024")
                && both.contains("dev net1 proto 114 metric 1025"),
            "{both}"
        );
    });
}

fn shape(attachment: &str, direction: Direction, rate_bits: u64) -> (QdiscKey, TokenBucket) {
    let key = QdiscKey { attachment: key(attachment), direction };
    (key, TokenBucket { rate_bits, burst_bits: 800_000 })
}

#[test]
fn qdiscs_obey_the_law_and_leave_foreign_ones_alone() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        lab.tc("a", "qdisc add dev other root handle 5: tbf rate 1mbit burst 10kb latency 50ms");
        lab.tc("a", "qdisc add dev eth0 clsact");
        lab.tc("host", "qdisc add dev rh0 clsact");
        let before = (lab.everything("a"), lab.everything("host"));
        let states = [
            [
                shape("a/eth0", Direction::Ingress, 1_000_000),
                shape("a/eth0", Direction::Egress, 2_000_000),
                shape("b/eth0", Direction::Egress, 3_000_000),
            ]
            .into(),
            [
                shape("a/eth0", Direction::Ingress, 80_000_000_000),
                shape("b/eth0", Direction::Ingress, 5_000_001),
            ]
            .into(),
            BTreeMap::new(),
        ];
        let target = Qdiscs::new(netlink);
        let target = converges(target, &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(target, &states, Instant::now()).await.expect("lawful");
        assert_eq!((lab.everything("a"), lab.everything("host")), before);
    });
}

#[test]
fn a_limited_rate_reads_as_intended() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        let mut target = Qdiscs::new(netlink);
        for (key, value) in [
            shape("a/eth0", Direction::Ingress, 8_000_000),
            shape("a/eth0", Direction::Egress, 80_000_000_000),
        ] {
            target.put(&key, &value).await.expect("limited");
            target.put(&key, &value).await.expect("present is success");
        }
        let host = lab.tc("host", "qdisc show dev rh0");
        assert!(host.contains("qdisc tbf 7268: root") && host.contains("rate 8Mbit burst 100000b"), "{host}");
        let pod = lab.tc("a", "qdisc show dev eth0");
        assert!(pod.contains("qdisc tbf 7268: root") && pod.contains("rate 80Gbit"), "{pod}");
    });
}

#[test]
fn a_foreign_qdisc_is_an_error_and_stays() {
    let lab = Lab::new(&["a", "b"]);
    lab.run(async |netlink, namespaces| {
        pairs(&lab, &netlink, &namespaces).await;
        lab.tc("a", "qdisc add dev eth0 root handle 5: tbf rate 1mbit burst 10kb latency 50ms");
        let before = lab.everything("a");
        let mut target = Qdiscs::new(netlink);
        let (key, value) = shape("a/eth0", Direction::Egress, 8_000_000);
        let error = target.put(&key, &value).await.expect_err("in the way");
        assert!(matches!(error, QdiscError::Foreign { .. }), "{error}");
        target.remove(&key).await.expect("not ours, so nothing to do");
        assert_eq!(lab.everything("a"), before);
    });
}
