// SPDX-License-Identifier: Apache-2.0
//! Pairs of links on the real kernel, judged by `ip`.

mod lab;

use std::collections::BTreeMap;
use std::time::Instant;

use lab::{Lab, key, name, spec};
use rhumb_model::Target;
use rhumb_model::law::{converges, survives_any_single_failure};
use rhumb_routing::kernel::KernelError;
use rhumb_routing::{LinkError, Links};

/// Foreign objects of every kind on the host.
fn with_foreigners(lab: &Lab) {
    lab.ip("host", "link add uplink type veth peer name far");
    lab.ip("host", "link set uplink up alias somebody");
    lab.ip("host", "link set far up");
    lab.ip("host", "addr add 192.168.1.1/24 dev uplink");
    lab.ip("host", "route add 10.9.0.0/16 via 192.168.1.2 proto static");
    lab.ip("host", "route add 10.8.0.0/16 dev uplink metric 5");
    lab.tc("host", "qdisc add dev uplink root handle 5: tbf rate 1mbit burst 10kb latency 50ms");
}

#[test]
fn links_obey_the_law_and_leave_foreign_objects_alone() {
    let lab = Lab::new(&["a", "b"]);
    with_foreigners(&lab);
    let before = lab.everything("host");
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a", "b"]);
        let (a, b) = (key("a/eth0"), key("b/eth0"));
        let states = [
            [(a.clone(), spec("rh0", 1, 1500)), (b.clone(), spec("rh1", 3, 1500))].into(),
            [(a.clone(), spec("rh0", 1, 1400)), (b.clone(), spec("rh1", 5, 1500))].into(),
            [(b.clone(), spec("rh2", 5, 1500))].into(),
            BTreeMap::new(),
        ];
        let links = converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
        survives_any_single_failure(links, &states, Instant::now()).await.expect("lawful");
        assert_eq!(lab.everything("host"), before);
        assert!(!lab.ip("a", "-o link").contains("eth0"), "nothing is left in the pod");
    });
}

#[test]
fn a_pair_is_ready_for_use_at_once() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut links = Links::new(netlink);
        links.put(&key("a/eth0"), &spec("rh0", 1, 1400)).await.expect("a pair");
        links.put(&key("a/eth0"), &spec("rh0", 1, 1400)).await.expect("present is success");
        let facts = links.facts(&key("a/eth0")).expect("known");
        let host = lab.ip("host", "-d link show rh0");
        assert!(host.starts_with(&format!("{}: rh0@if", facts.ifindex)), "{host}");
        for words in [
            "alias rhumb:a/eth0",
            "mtu 1400",
            "link/ether 02:00:00:00:00:02",
            ",UP,LOWER_UP>",
            "addrgenmode none",
        ] {
            assert!(host.contains(words), "{words}: {host}");
        }
        let gateway = lab.ip("host", "-6 -o addr show dev rh0");
        assert!(gateway.contains("inet6 fe80::1/64 scope link nodad"), "{gateway}");
        assert_eq!(gateway.lines().count(), 1, "{gateway}");
        assert!(!gateway.contains("tentative"), "{gateway}");
        let pod = lab.ip("a", "-d link show eth0");
        for words in ["mtu 1400", "link/ether 02:00:00:00:00:01", ",UP,LOWER_UP>"] {
            assert!(pod.contains(words), "{words}: {pod}");
        }
        assert!(lab.ip("a", "link show lo").contains(",UP,LOWER_UP>"), "the loopback is up");
    });
}

#[test]
fn a_pair_is_whole_where_the_host_switches_ipv6_off() {
    let lab = Lab::new(&["a"]);
    lab.exec("host", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let states = [[(key("a/eth0"), spec("rh0", 1, 1500))].into(), BTreeMap::new()];
        converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
    });
}

#[test]
fn a_foreign_interface_of_that_name_in_the_pod_stays_and_nothing_is_left_behind() {
    let lab = Lab::new(&["a"]);
    lab.ip("a", "link add eth0 type veth peer name other");
    lab.ip("host", "link add rh1 type veth peer name other");
    let before = (lab.everything("host"), lab.ip("a", "-o link show type veth"));
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut links = Links::new(netlink);
        let error = links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect_err("taken");
        assert!(matches!(error, LinkError::InterfaceExists { ifname } if ifname == name("eth0")));
        namespaces.open(key("a/net1"), &lab.path("a")).expect("a namespace");
        let error = links.put(&key("a/net1"), &spec("rh1", 1, 1500)).await.expect_err("taken");
        assert!(matches!(error, LinkError::HostInterfaceExists { ifname } if ifname == name("rh1")));
        assert_eq!((lab.everything("host"), lab.ip("a", "-o link show type veth")), before);
    });
}

#[test]
fn what_others_do_to_the_hosts_end_is_mended_in_place() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let states = [[(key("a/eth0"), spec("rh0", 1, 1500))].into()];
        let mut links = converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
        let index = links.facts(&key("a/eth0")).expect("known").ifindex;
        for harm in [
            "link set rh0 down",
            "addr del fe80::1/64 dev rh0",
            "link set rh0 mtu 1280",
            "link set rh0 address 02:00:00:00:00:99",
        ] {
            lab.ip("host", harm);
            links = converges(links, &states, Instant::now()).await.expect(harm);
            assert_eq!(links.facts(&key("a/eth0")).expect("known").ifindex, index, "{harm}");
        }
        lab.ip("host", "link del rh0");
        links = converges(links, &states, Instant::now()).await.expect("made anew");
        assert_ne!(links.facts(&key("a/eth0")).expect("known").ifindex, index);
    });
}

#[test]
fn a_half_made_pair_is_finished() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        // As a process that was killed in between leaves it.
        lab.link_into("host", "rh0", "a", "eth0");
        lab.ip("host", "link set rh0 alias rhumb:a/eth0");
        lab.ip("host", "link set rh0 address 02:00:00:00:00:02");
        lab.ip("host", "addr flush dev rh0");
        lab.ip("a", "link set eth0 down");
        let states = [[(key("a/eth0"), spec("rh0", 1, 1500))].into()];
        converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
        assert!(lab.ip("host", "addr show dev rh0").contains("fe80::1/64"));
        for link in ["lo", "eth0"] {
            assert!(lab.ip("a", &format!("link show {link}")).contains(",UP,LOWER_UP>"), "{link}");
        }
    });
}

#[test]
fn a_pod_may_change_its_mac_address() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let states = [[(key("a/eth0"), spec("rh0", 1, 1500))].into()];
        let links = converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
        lab.ip("a", "link set eth0 address 02:00:00:00:00:99");
        converges(links, &states, Instant::now()).await.expect("lawful");
        assert!(lab.ip("a", "link show eth0").contains("link/ether 02:00:00:00:00:99"));
    });
}

#[test]
fn a_namespace_made_anew_at_the_same_path_gets_a_pair_of_its_own() {
    let mut lab = Lab::new(&["a"]);
    // The pod's namespace changes meanwhile, so the host is another lab's.
    Lab::new(&[]).run(async |netlink, namespaces| {
        let a = key("a/eth0");
        lab.open(&namespaces, &["a"]);
        let states = [[(a.clone(), spec("rh0", 1, 1500))].into()];
        let mut links = converges(Links::new(netlink), &states, Instant::now()).await.expect("lawful");
        let (index, inode) = (links.facts(&a).expect("known").ifindex, namespaces.inode(&a));
        lab.delete("a");
        lab.add("a");
        assert!(links.observe().await.expect("observed") == states[0], "the open namespace lives on");
        lab.open(&namespaces, &["a"]);
        assert_ne!(namespaces.inode(&a), inode);
        let links = converges(links, &states, Instant::now()).await.expect("lawful");
        assert_ne!(links.facts(&a).expect("known").ifindex, index);
        assert!(lab.ip("a", "link show eth0").contains("UP"));
    });
}

#[test]
fn a_pair_is_removed_without_its_namespace() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut links = Links::new(netlink.clone());
        links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect("a pair");
        namespaces.forget(&key("a/eth0"));
        let mut links = Links::new(netlink);
        links.remove(&key("a/eth0")).await.expect("removed");
        links.remove(&key("a/eth0")).await.expect("absent is success");
        assert!(!lab.ip("host", "-o link").contains("rh0"));
        let error = links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect_err("no namespace");
        assert!(matches!(error, LinkError::Kernel { cause: KernelError::NotOpen { .. }, .. }), "{error}");
    });
}

#[test]
fn a_link_is_gone_with_everything_on_it_when_its_removal_returns() {
    let lab = Lab::new(&["a"]);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &["a"]);
        let mut links = Links::new(netlink);
        for _ in 0..20 {
            links.put(&key("a/eth0"), &spec("rh0", 1, 1500)).await.expect("a pair");
            lab.ip("host", "route add 10.0.0.5/32 dev rh0");
            links.remove(&key("a/eth0")).await.expect("removed");
            assert!(!lab.ip("host", "route").contains("10.0.0.5"));
            assert!(!lab.ip("host", "-o link").contains("rh0"));
            assert!(!lab.ip("a", "-o link").contains("eth0"));
        }
    });
}

#[test]
fn fifty_pods_come_and_go_at_once() {
    let pods: Vec<String> = (0..50).map(|at| format!("p{at}")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let lab = Lab::new(&pods);
    lab.run(async |netlink, namespaces| {
        lab.open(&namespaces, &pods);
        let local = tokio::task::LocalSet::new();
        let mut tasks = Vec::new();
        for (at, pod) in (0u64..).zip(&pods) {
            let (netlink, key) = (netlink.clone(), key(&format!("{pod}/eth0")));
            tasks.push(local.spawn_local(async move {
                let mut links = Links::new(netlink);
                for _ in 0..3 {
                    links.put(&key, &spec(&format!("rh{at}"), 2 * at + 1, 1500)).await.expect("a pair");
                    links.remove(&key).await.expect("removed");
                }
                links.put(&key, &spec(&format!("rh{at}"), 2 * at + 1, 1500)).await.expect("a pair");
            }));
        }
        local.await;
        for task in tasks {
            task.await.expect("no panic");
        }
        let mut links = Links::new(netlink);
        let there = links.observe().await.expect("observed");
        assert_eq!(there.len(), 50);
        let keys: Vec<_> = there.into_keys().collect();
        for result in links.remove_all(&keys).await {
            result.expect("removed");
        }
        assert_eq!(lab.ip("host", "-o link").lines().count(), 1, "only the loopback is left");
    });
}
