// SPDX-License-Identifier: Apache-2.0
//! The law for every target, on the kernel in memory: also with any single call to the kernel failing.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use rhumb_model::law::converges;
use rhumb_model::{MacAddr, Prefix, Reconciler, Target};

use super::*;
use crate::{
    AddressError, Direction, Filter, FilterError, FilterKey, Filters, HostAddress, HostAddresses, HostRoute,
    HostRoutes, InterfaceSpec, Interfaces, LinkError, LinkSpec, Links, PodAddress, PodAddresses, PodNextHop,
    PodRoute, PodRoutes, QdiscError, QdiscKey, Qdiscs, RouteError, Rules, TableKey, TableRoute, TableRoutes,
    TokenBucket, TunnelError, TunnelSpec, Tunnels,
};

fn key(text: &str) -> AttachmentKey {
    text.parse().expect("valid")
}

fn name(text: &str) -> IfName {
    text.parse().expect("valid")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

fn spec(host: &str, seed: u64, mtu: u32) -> LinkSpec {
    LinkSpec { host: name(host), mac: MacAddr::from_seed(seed), host_mac: MacAddr::from_seed(seed + 1), mtu }
}

fn pod(key: &AttachmentKey) -> Place {
    Place::Pod(key.clone())
}

fn block_on<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(work)
}

/// A kernel with two pods and foreign objects of every kind on the host.
fn kernel() -> FakeKernel {
    let kernel = FakeKernel::new();
    for pod in ["a/eth0", "b/eth0"] {
        kernel.open(&key(pod));
    }
    kernel.add_link(&Place::Host, &name("uplink"));
    kernel.with(&Place::Host, |host| {
        let address = Address {
            ifname: name("uplink"),
            address: "192.168.1.1/24".parse().expect("valid"),
            protocol: 0,
            global: true,
        };
        host.addresses.insert(address);
        host.routes.insert(foreign_route("10.9.0.0/16", 0));
        host.routes.insert(foreign_route("10.0.0.0/24", 77));
        host.roots.insert(name("uplink"), FakeRoot::Foreign);
    });
    kernel
}

fn foreign_route(dst: &str, metric: u32) -> Route {
    let next_hop = NextHop::Link { ifname: Some(name("uplink")), gateway: None, onlink: false };
    Route { dst: prefix(dst), metric, next_hop, mtu: None, source: None, protocol: 4 }
}

/// [`kernel`] with the pairs of both pods, and a foreign address and route beside them.
fn kernel_with_pairs() -> FakeKernel {
    let kernel = kernel();
    for (at, attachment) in ["a/eth0", "b/eth0"].into_iter().enumerate() {
        let value = spec(&format!("rh{at}"), 7, 1500);
        block_on(Links::new(kernel.clone()).put(&key(attachment), &value)).expect("a pair");
        kernel.with(&pod(&key(attachment)), |namespace| {
            let address = Address {
                ifname: name("eth0"),
                address: "172.16.0.1/16".parse().expect("valid"),
                protocol: 0,
                global: true,
            };
            namespace.addresses.insert(address);
            let next_hop = NextHop::Link { ifname: Some(name("eth0")), gateway: None, onlink: false };
            let dst = prefix("172.16.0.0/16");
            let route = Route { dst, metric: 0, next_hop, mtu: None, source: None, protocol: 2 };
            namespace.routes.insert(route);
        });
    }
    kernel
}

/// The states one after the other; then again for every call to the kernel that the first pass to a state makes, with
/// that call failing and the passes after it repairing.
fn law<T: Target>(
    make: impl Fn() -> FakeKernel,
    target: impl Fn(FakeKernel) -> T,
    states: &[BTreeMap<T::Key, T::Value>],
) {
    block_on(converges(target(make()), states, Instant::now())).map(drop).expect("lawful");
    for (at, state) in states.iter().enumerate() {
        for call in 1.. {
            let kernel = make();
            let before = block_on(converges(target(kernel.clone()), &states[..at], Instant::now()));
            let mut reconciler = Reconciler::new(before.unwrap_or_else(|broken| panic!("{broken}")));
            kernel.fail_call(call);
            block_on(reconciler.remove_stale(state, Instant::now()));
            block_on(reconciler.put_missing(state, Instant::now()));
            let all_made = kernel.take_failure();
            let after = block_on(converges(reconciler.into_target(), &states[at..=at], Instant::now()));
            after.map(drop).unwrap_or_else(|broken| panic!("state {at}, call {call} fails: {broken}"));
            if all_made {
                break;
            }
        }
    }
}

fn host_of(kernel: &FakeKernel) -> FakeNamespace {
    kernel.with(&Place::Host, |host| host.clone())
}

#[test]
fn links_obey_the_law() {
    let (a, b) = (key("a/eth0"), key("b/eth0"));
    let states = [
        [(a.clone(), spec("rh0", 1, 1500)), (b.clone(), spec("rh1", 3, 1500))].into(),
        [(a.clone(), spec("rh0", 1, 1400)), (b.clone(), spec("rh1", 5, 1500))].into(),
        [(b.clone(), spec("rh2", 5, 1500))].into(),
        BTreeMap::new(),
    ];
    law(kernel, Links::new, &states);
    let kernel = kernel();
    let before = host_of(&kernel);
    block_on(converges(Links::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    assert_eq!(host_of(&kernel), before, "foreign objects are as before");
    for key in [a, b] {
        assert_eq!(kernel.with(&pod(&key), |namespace| namespace.clone()), FakeNamespace::default());
    }
}

#[test]
fn rules_tables_and_interfaces_obey_the_law() {
    let rule = |priority, from: &str| PolicyRule {
        family: rhumb_model::Family::V4,
        priority,
        from: Some(prefix(from)),
        mark: None,
        table: 7300,
        suppress: None,
    };
    let rules = [
        [(rule(1, "10.0.0.0/28"), ()), (rule(2, "10.0.0.0/28"), ())].into(),
        [(rule(2, "10.0.0.0/28"), ())].into(),
        BTreeMap::new(),
    ];
    law(kernel, Rules::new, &rules);
    let key = |table, dst| TableKey { table, dst: prefix(dst) };
    let via = |gateway: Option<&str>| TableRoute::Link {
        ifname: name("uplink"),
        gateway: gateway.map(|gateway| gateway.parse().expect("valid")),
    };
    let routes = [
        [(key(7300, "0.0.0.0/0"), via(Some("192.168.1.254"))), (key(7299, "10.0.0.5/32"), via(None))].into(),
        [(key(7300, "0.0.0.0/0"), via(None)), (key(7299, "10.0.0.5/32"), TableRoute::Unreachable)].into(),
        BTreeMap::new(),
    ];
    law(kernel, TableRoutes::new, &routes);
    let address = |text: &str| HostAddress { ifname: name("uplink"), address: text.parse().expect("valid") };
    let addresses = [
        [(address("192.168.1.1/24"), ()), (address("192.168.1.7/32"), ())].into(),
        [(address("192.168.1.8/32"), ())].into(),
        BTreeMap::new(),
    ];
    law(kernel, HostAddresses::new, &addresses);
    let interfaces = [
        [(name("uplink"), InterfaceSpec { mtu: Some(9001) })].into(),
        [(name("uplink"), InterfaceSpec { mtu: None })].into(),
        BTreeMap::new(),
    ];
    law(kernel, Interfaces::new, &interfaces);
    let kernel = kernel();
    let before = host_of(&kernel);
    block_on(converges(Rules::new(kernel.clone()), &rules, Instant::now())).expect("lawful");
    block_on(converges(TableRoutes::new(kernel.clone()), &routes, Instant::now())).expect("lawful");
    block_on(converges(HostAddresses::new(kernel.clone()), &addresses, Instant::now())).expect("lawful");
    assert_eq!(host_of(&kernel), before, "foreign objects are as before");
}

#[test]
fn a_pair_that_is_not_whole_is_mended() {
    let states = [[(key("a/eth0"), spec("rh0", 1, 1500))].into()];
    for harm in [
        |host: &mut FakeNamespace| host.gateways.clear(),
        |host: &mut FakeNamespace| host.links.get_mut(&name("rh0")).expect("there").up = false,
        |host: &mut FakeNamespace| host.links.get_mut(&name("rh0")).expect("there").mtu = 1280,
        |host: &mut FakeNamespace| {
            host.links.get_mut(&name("rh0")).expect("there").mac = Some(MacAddr::from_seed(99))
        },
    ] {
        let kernel = kernel();
        let links = block_on(converges(Links::new(kernel.clone()), &states, Instant::now())).expect("lawful");
        let index = links.facts(&key("a/eth0")).expect("known").ifindex;
        kernel.with(&Place::Host, harm);
        let links = block_on(converges(links, &states, Instant::now())).expect("lawful");
        assert_eq!(links.facts(&key("a/eth0")).expect("known").ifindex, index, "mended in place");
    }
}

#[test]
fn a_pair_into_a_namespace_that_was_exchanged_is_made_anew() {
    let kernel = kernel();
    let a = key("a/eth0");
    let states = [[(a.clone(), spec("rh0", 1, 1500))].into()];
    let links = block_on(converges(Links::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    let index = links.facts(&a).expect("known").ifindex;
    kernel.open(&a);
    let links = block_on(converges(links, &states, Instant::now())).expect("lawful");
    assert_ne!(links.facts(&a).expect("known").ifindex, index);
    assert!(kernel.with(&pod(&a), |namespace| namespace.links.contains_key(&name("eth0"))));
}

#[test]
fn a_pod_may_change_its_mac_address() {
    let kernel = kernel();
    let a = key("a/eth0");
    let value = spec("rh0", 1, 1500);
    let mut links = Links::new(kernel.clone());
    block_on(links.put(&a, &value)).expect("a pair");
    kernel.with(&pod(&a), |namespace| {
        namespace.links.get_mut(&name("eth0")).expect("there").mac = Some(MacAddr::from_seed(99));
    });
    assert_eq!(block_on(Links::new(kernel).observe()).expect("observed"), [(a, value)].into());
}

#[test]
fn a_foreign_interface_of_the_pod_is_an_error_and_nothing_is_left() {
    let kernel = kernel();
    let a = key("a/eth0");
    kernel.add_link(&pod(&a), &name("eth0"));
    let before = host_of(&kernel);
    let error = block_on(Links::new(kernel.clone()).put(&a, &spec("rh0", 1, 1500))).expect_err("refused");
    assert!(matches!(error, LinkError::InterfaceExists { ifname } if ifname == name("eth0")));
    assert_eq!(host_of(&kernel), before);
    kernel.add_link(&Place::Host, &name("rh1"));
    let error = block_on(Links::new(kernel).put(&key("b/eth0"), &spec("rh1", 1, 1500))).expect_err("refused");
    assert!(matches!(error, LinkError::HostInterfaceExists { ifname } if ifname == name("rh1")));
}

#[test]
fn a_pair_whose_namespace_is_forgotten_is_still_seen_and_removed() {
    let kernel = kernel();
    let a = key("a/eth0");
    block_on(Links::new(kernel.clone()).put(&a, &spec("rh0", 1, 1500))).expect("a pair");
    kernel.forget(&a);
    let mut links = Links::new(kernel.clone());
    assert_eq!(block_on(links.observe()).expect("observed"), [(a.clone(), spec("rh0", 1, 1500))].into());
    block_on(links.remove(&a)).expect("removed");
    block_on(links.remove(&a)).expect("absent is success");
    let error = block_on(links.put(&a, &spec("rh0", 1, 1500))).expect_err("no namespace");
    assert!(matches!(error, LinkError::Kernel { cause: KernelError::NotOpen { .. }, .. }));
}

#[test]
fn a_batch_of_pairs_fails_one_by_one() {
    let kernel = kernel();
    let (a, b) = (key("a/eth0"), key("b/eth0"));
    kernel.add_link(&pod(&a), &name("eth0"));
    let mut links = Links::new(kernel);
    let batch = [(a.clone(), spec("rh0", 1, 1500)), (b.clone(), spec("rh1", 3, 1500))];
    let results = block_on(links.put_all(&batch));
    assert!(matches!(results[..], [Err(LinkError::InterfaceExists { .. }), Ok(())]), "{results:?}");
    assert!(links.facts(&a).is_none() && links.facts(&b).is_some());
    let results = block_on(links.remove_all(&[a, b]));
    assert!(matches!(results[..], [Ok(()), Ok(())]), "{results:?}");
}

fn address(attachment: &str, address: &str) -> (PodAddress, ()) {
    (PodAddress { attachment: key(attachment), address: address.parse().expect("valid") }, ())
}

#[test]
fn pod_addresses_obey_the_law() {
    let states = [
        [
            address("a/eth0", "10.0.0.1/32"),
            address("a/eth0", "fd00::1/128"),
            address("b/eth0", "10.0.0.2/32"),
        ]
        .into(),
        [address("a/eth0", "10.0.0.3/32"), address("a/eth0", "fd00::1/128")].into(),
        BTreeMap::new(),
    ];
    law(kernel_with_pairs, PodAddresses::new, &states);
    let kernel = kernel_with_pairs();
    let before = kernel.with(&pod(&key("a/eth0")), |namespace| namespace.clone());
    block_on(converges(PodAddresses::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    assert_eq!(kernel.with(&pod(&key("a/eth0")), |namespace| namespace.clone()), before);
}

#[test]
fn a_foreign_address_is_neither_taken_over_nor_removed() {
    let kernel = kernel_with_pairs();
    let mut addresses = PodAddresses::new(kernel.clone());
    let (theirs, ()) = address("a/eth0", "172.16.0.1/16");
    let error = block_on(addresses.put(&theirs, &())).expect_err("not ours");
    assert!(matches!(error, AddressError::Foreign { .. }), "{error}");
    block_on(addresses.remove(&theirs)).expect("not ours, so nothing to do");
    assert_eq!(kernel.with(&pod(&theirs.attachment), |namespace| namespace.addresses.len()), 1);
}

#[test]
fn objects_in_a_closed_namespace_are_absent() {
    let kernel = kernel_with_pairs();
    let a = key("a/eth0");
    let (mine, ()) = address("a/eth0", "10.0.0.1/32");
    let mut addresses = PodAddresses::new(kernel.clone());
    block_on(addresses.put(&mine, &())).expect("added");
    kernel.forget(&a);
    assert_eq!(block_on(addresses.observe()).expect("observed"), BTreeMap::new());
    block_on(addresses.remove(&mine)).expect("absent is success");
    let route = PodRoute { attachment: a.clone(), dst: prefix("0.0.0.0/0") };
    block_on(PodRoutes::new(kernel.clone()).remove(&route)).expect("absent is success");
    let shape = QdiscKey { attachment: a, direction: Direction::Egress };
    block_on(Qdiscs::new(kernel).remove(&shape)).expect("absent is success");
}

fn pod_route(attachment: &str, dst: &str, gateway: Option<&str>, mtu: Option<u32>) -> (PodRoute, PodNextHop) {
    let gateway = gateway.map(|gateway| gateway.parse().expect("valid"));
    let next_hop = PodNextHop { gateway, mtu, onlink: gateway.is_some() };
    (PodRoute { attachment: key(attachment), dst: prefix(dst) }, next_hop)
}

#[test]
fn pod_routes_obey_the_law() {
    let states = [
        [
            pod_route("a/eth0", "0.0.0.0/0", Some("169.254.1.1"), None),
            pod_route("a/eth0", "::/0", Some("fe80::1"), None),
            pod_route("b/eth0", "10.0.0.0/8", None, Some(1400)),
        ]
        .into(),
        [
            pod_route("a/eth0", "0.0.0.0/0", Some("169.254.1.2"), Some(1300)),
            pod_route("b/eth0", "10.0.0.0/8", Some("169.254.1.1"), None),
        ]
        .into(),
        BTreeMap::new(),
    ];
    law(kernel_with_pairs, PodRoutes::new, &states);
}

#[test]
fn of_two_interfaces_of_a_pod_the_first_wins_the_default_route() {
    let kernel = kernel_with_pairs();
    let second = key("a/net1");
    kernel.open_with(&second, &key("a/eth0"));
    block_on(Links::new(kernel.clone()).put(&second, &spec("rh9", 9, 1500))).expect("a pair");
    let states = [[
        pod_route("a/eth0", "0.0.0.0/0", Some("169.254.1.1"), None),
        pod_route("a/net1", "0.0.0.0/0", Some("169.254.1.1"), None),
    ]
    .into()];
    block_on(converges(PodRoutes::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    let metrics = kernel.with(&pod(&second), |namespace| {
        let ours = namespace.routes.iter().filter(|route| route.protocol == PROTOCOL);
        ours.map(|route| (route.metric, is_through(route, &name("eth0")))).collect::<Vec<_>>()
    });
    assert_eq!(metrics, [(0, true), (1, false)]);
}

fn device(ifname: &str) -> HostRoute {
    HostRoute::Device { ifname: name(ifname) }
}

fn tunnel(mtu: u32, source: Option<&str>) -> HostRoute {
    let source = source.map(|source| source.parse().expect("valid"));
    HostRoute::Tunnel { ifname: name("uplink"), mtu, source }
}

fn via(gateway: &str, ifname: Option<&str>) -> HostRoute {
    HostRoute::Via { gateway: gateway.parse().expect("valid"), ifname: ifname.map(name) }
}

#[test]
fn host_routes_obey_the_law() {
    let states = [
        [
            (prefix("10.0.0.0/24"), HostRoute::Unreachable),
            (prefix("10.0.0.5/32"), device("rh0")),
            (prefix("fd00::5/128"), device("rh0")),
            (prefix("10.0.1.0/24"), via("192.168.1.2", None)),
            (prefix("10.0.2.0/24"), tunnel(1450, Some("192.168.1.1"))),
            (prefix("fd00:2::/64"), tunnel(1430, None)),
        ]
        .into(),
        [
            (prefix("10.0.0.0/24"), via("192.168.1.3", Some("uplink"))),
            (prefix("10.0.0.5/32"), device("rh1")),
            (prefix("10.0.1.0/24"), HostRoute::Unreachable),
            (prefix("10.0.2.0/24"), tunnel(1400, None)),
            (prefix("fd00:2::/64"), device("uplink")),
        ]
        .into(),
        [(prefix("10.0.1.0/24"), via("192.168.1.2", Some("uplink")))].into(),
        BTreeMap::new(),
    ];
    law(kernel_with_pairs, HostRoutes::new, &states);
    let kernel = kernel_with_pairs();
    let before = host_of(&kernel);
    block_on(converges(HostRoutes::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    assert_eq!(host_of(&kernel), before);
}

#[test]
fn a_foreign_route_in_the_way_is_an_error_and_stays() {
    let kernel = kernel_with_pairs();
    let before = host_of(&kernel);
    let mut routes = HostRoutes::new(kernel.clone());
    for _ in 0..2 {
        let error = block_on(routes.put(&prefix("10.9.0.0/16"), &device("uplink"))).expect_err("in the way");
        assert!(matches!(error, RouteError::Occupied { .. }), "{error}");
    }
    block_on(routes.remove(&prefix("10.9.0.0/16"))).expect("not ours, so nothing to do");
    assert_eq!(host_of(&kernel), before);
}

#[test]
fn two_routes_of_ours_to_one_prefix_become_one() {
    for wanted in [HostRoute::Unreachable, device("rh0")] {
        let kernel = kernel_with_pairs();
        let dst = prefix("10.0.1.0/24");
        let next_hop = NextHop::Link { ifname: Some(name("rh0")), gateway: None, onlink: false };
        let route = Route { dst, metric: 0, next_hop, mtu: None, source: None, protocol: PROTOCOL };
        let last = Route { metric: 0xffff_0000, next_hop: NextHop::Unreachable, ..route.clone() };
        kernel.with(&Place::Host, |host| host.routes.extend([route, last]));
        let states = [[(dst, wanted)].into()];
        block_on(converges(HostRoutes::new(kernel.clone()), &states, Instant::now())).expect("lawful");
        let count = |host: &mut FakeNamespace| host.routes.iter().filter(|route| route.dst == dst).count();
        assert_eq!(kernel.with(&Place::Host, count), 1);
    }
}

fn shape(attachment: &str, direction: Direction, rate_bits: u64) -> (QdiscKey, TokenBucket) {
    let key = QdiscKey { attachment: key(attachment), direction };
    (key, TokenBucket { rate_bits, burst_bits: 800_000 })
}

#[test]
fn qdiscs_obey_the_law() {
    let states = [
        [
            shape("a/eth0", Direction::Ingress, 1_000_000),
            shape("a/eth0", Direction::Egress, 2_000_000),
            shape("b/eth0", Direction::Egress, 3_000_000),
        ]
        .into(),
        [shape("a/eth0", Direction::Ingress, 40_000_000_000), shape("b/eth0", Direction::Ingress, 5_000_000)]
            .into(),
        BTreeMap::new(),
    ];
    law(kernel_with_pairs, Qdiscs::new, &states);
    let kernel = kernel_with_pairs();
    let before = host_of(&kernel);
    block_on(converges(Qdiscs::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    assert_eq!(host_of(&kernel), before);
}

#[test]
fn a_foreign_qdisc_is_an_error_and_stays() {
    let kernel = kernel_with_pairs();
    let (key, value) = shape("a/eth0", Direction::Egress, 1_000_000);
    let place = pod(&key.attachment);
    kernel.with(&place, |namespace| namespace.roots.insert(name("eth0"), FakeRoot::Foreign));
    let mut qdiscs = Qdiscs::new(kernel.clone());
    let error = block_on(qdiscs.put(&key, &value)).expect_err("in the way");
    assert!(matches!(error, QdiscError::Foreign { .. }), "{error}");
    block_on(qdiscs.remove(&key)).expect("not ours, so nothing to do");
    let root = kernel.with(&place, |namespace| namespace.roots.get(&name("eth0")).cloned());
    assert_eq!(root, Some(FakeRoot::Foreign));
}

fn filters(kernel: FakeKernel) -> Filters<FakeKernel> {
    let fd = Arc::new(File::open("/dev/null").expect("there").into());
    Filters::new(kernel, [(7, Arc::clone(&fd)), (8, fd)].into())
}

fn filter(kernel: &FakeKernel, ifname: &str, hook: Hook, program: u32) -> (FilterKey, Filter) {
    let ifindex = host_of(kernel).links[&name(ifname)].ifindex;
    (FilterKey { ifname: name(ifname), hook }, Filter { ifindex, program })
}

#[test]
fn filters_obey_the_law() {
    let kernel = kernel_with_pairs();
    let states = [
        [
            filter(&kernel, "rh0", Hook::Ingress, 7),
            filter(&kernel, "rh0", Hook::Egress, 8),
            filter(&kernel, "rh1", Hook::Ingress, 7),
        ]
        .into(),
        [
            filter(&kernel, "rh0", Hook::Ingress, 8),
            filter(&kernel, "rh1", Hook::Egress, 8),
            filter(&kernel, "uplink", Hook::Ingress, 7),
        ]
        .into(),
        BTreeMap::new(),
    ];
    law(kernel_with_pairs, filters, &states);
    let mut before = host_of(&kernel);
    block_on(converges(filters(kernel.clone()), &states, Instant::now())).expect("lawful");
    before.classifiers = ["rh0", "rh1", "uplink"].map(|ifname| (name(ifname), FakeClassifier::Clsact)).into();
    assert_eq!(host_of(&kernel), before, "only what does nothing without filters is left");
}

#[test]
fn a_foreign_qdisc_leaves_room_for_ingress_alone() {
    let kernel = kernel_with_pairs();
    kernel.with(&Place::Host, |host| host.classifiers.insert(name("rh0"), FakeClassifier::Ingress));
    let batch = [filter(&kernel, "rh0", Hook::Egress, 7), filter(&kernel, "rh0", Hook::Ingress, 7)];
    let mut filters = filters(kernel.clone());
    let results = block_on(filters.put_all(&batch));
    assert!(matches!(results[..], [Err(FilterError::Foreign { .. }), Ok(())]), "{results:?}");
    block_on(filters.remove(&batch[0].0)).expect("absent is success");
    assert_eq!(block_on(filters.observe()).expect("observed"), [batch[1].clone()].into());
}

#[test]
fn a_filter_for_another_interface_or_of_an_unknown_program_is_refused_alone() {
    let kernel = kernel_with_pairs();
    let good = filter(&kernel, "rh0", Hook::Ingress, 7);
    let unknown = filter(&kernel, "rh0", Hook::Egress, 9);
    let mut other = filter(&kernel, "rh1", Hook::Ingress, 8);
    other.1.ifindex = good.1.ifindex;
    let mut filters = filters(kernel.clone());
    let results = block_on(filters.put_all(&[unknown, other, good.clone()]));
    let expected = matches!(
        results[..],
        [Err(FilterError::UnknownProgram { program: 9, .. }), Err(FilterError::LinkGone { .. }), Ok(())]
    );
    assert!(expected, "{results:?}");
    assert_eq!(block_on(filters.observe()).expect("observed"), [good].into());
    let gone = FilterKey { ifname: name("gone"), hook: Hook::Ingress };
    block_on(filters.remove(&gone)).expect("absent is success");
}

fn tunnel_spec(port: u16, mtu: u32, seed: u64) -> TunnelSpec {
    TunnelSpec { port, mtu, mac: MacAddr::from_seed(seed) }
}

/// [`kernel`] with VXLAN devices of others.
fn kernel_with_foreign_tunnels() -> FakeKernel {
    let kernel = kernel();
    for (at, (port, external)) in [(4789, false), (6081, true)].into_iter().enumerate() {
        let ifname = name(&format!("vxlan{at}"));
        kernel.add_link(&Place::Host, &ifname);
        kernel.with(&Place::Host, |host| host.tunnels.insert(ifname, FakeTunnel { port, external }));
    }
    kernel
}

#[test]
fn tunnels_obey_the_law() {
    let ours = name("rhumb_vxlan");
    let states = [
        [(ours.clone(), tunnel_spec(8472, 1450, 1))].into(),
        [(ours.clone(), tunnel_spec(8472, 1400, 2))].into(),
        [(ours.clone(), tunnel_spec(8473, 1400, 2))].into(),
        BTreeMap::new(),
    ];
    law(kernel_with_foreign_tunnels, Tunnels::new, &states);
    let kernel = kernel_with_foreign_tunnels();
    let before = host_of(&kernel);
    block_on(converges(Tunnels::new(kernel.clone()), &states, Instant::now())).expect("lawful");
    assert_eq!(host_of(&kernel), before);
}

#[test]
fn a_tunnel_in_the_way_is_an_error_and_stays() {
    let kernel = kernel_with_foreign_tunnels();
    let before = host_of(&kernel);
    let mut tunnels = Tunnels::new(kernel.clone());
    let error = block_on(tunnels.put(&name("vxlan0"), &tunnel_spec(8472, 1450, 1))).expect_err("a name");
    assert!(matches!(error, TunnelError::InterfaceExists { .. }), "{error}");
    for port in [4789, 6081] {
        let error =
            block_on(tunnels.put(&name("rhumb_vxlan"), &tunnel_spec(port, 1450, 1))).expect_err("a port");
        assert!(matches!(error, TunnelError::PortTaken { .. }), "{error}");
    }
    block_on(tunnels.remove(&name("vxlan0"))).expect("not ours, so nothing to do");
    assert_eq!(host_of(&kernel), before);
}
