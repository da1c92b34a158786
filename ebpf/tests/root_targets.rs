// SPDX-License-Identifier: Apache-2.0
//! Every target of the datapath obeys the law of targets on the real kernel, and leaves alone what is not ours.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::time::Instant;

use futures::executor::block_on;
use ground::{Ground, Namespace, command};
use rhumb_ebpf::{
    AttachPoint, Attached, Datapath, Endpoint, EndpointAddr, Hook, HostPort, HostPortBackend, IfIndex,
    OpenError, PodLink, Remote, RemotePrefix, TunnelLink, Uplink,
};
use rhumb_model::{IfName, MacAddr, Target, law};

/// Drives a target and its fake through the same states.
fn obeys<T>(target: T, states: &[BTreeMap<T::Key, T::Value>])
where
    T: Target,
    T::Key: Debug + Display,
{
    let now = Instant::now();
    let fake = law::Fake::new(BTreeMap::new());
    let fake = block_on(law::converges(fake, states, now)).expect("lawful fake");
    block_on(law::survives_any_single_failure(fake, states, now)).expect("lawful fake");
    let target = block_on(law::converges(target, states, now)).expect("lawful");
    block_on(law::survives_any_single_failure(target, states, now)).expect("lawful");
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn endpoints_are_lawful() {
    let ground = Ground::new();
    let endpoint = |ifindex, shaped| Endpoint {
        ifindex,
        mac: MacAddr::from_seed(1),
        host_mac: MacAddr::from_seed(2),
        shaped,
    };
    let [a, b, c] = ["10.0.0.1", "fd00::1", "10.0.0.2"].map(|text| EndpointAddr(addr(text)));
    let states = [
        [(a, endpoint(5, false)), (b, endpoint(5, false))].into(),
        [(b, endpoint(6, true)), (c, endpoint(7, false))].into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().endpoints, &states);
}

#[test]
fn pod_links_are_lawful() {
    let ground = Ground::new();
    let link = |v4: bool, chained| PodLink {
        v4: v4.then_some([10, 0, 0, 1].into()),
        v6: Some("fd00::1".parse().expect("an address")),
        mac: MacAddr::from_seed(1),
        host_mac: MacAddr::from_seed(2),
        chained,
        host_ports: !chained,
        interface: None,
    };
    let states = [
        [(IfIndex(5), link(true, false)), (IfIndex(6), link(false, true))].into(),
        [(IfIndex(5), link(false, false))].into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().pod_links, &states);
}

#[test]
fn host_ports_are_lawful() {
    let ground = Ground::new();
    let port = |text: &str, port| HostPort { addr: addr(text), port, protocol: 6 };
    let backend = |text: &str, port| HostPortBackend { addr: addr(text), port };
    let states = [
        [
            (port("192.0.2.1", 80), backend("10.0.0.1", 8080)),
            (port("2001:db8::1", 80), backend("fd00::1", 8080)),
        ]
        .into(),
        [(port("192.0.2.1", 80), backend("10.0.0.2", 8080))].into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().host_ports, &states);
}

#[test]
fn the_ipcache_is_lawful() {
    let ground = Ground::new();
    let prefix = |text: &str| RemotePrefix(text.parse().expect("a prefix"));
    let tunnel = |text: &str, mtu| Remote { tunnel: Some(addr(text)), mtu, identity: 7, ..Remote::default() };
    let kept = Remote { keep_source: true, ..Remote::default() };
    let states = [
        [
            (prefix("10.2.0.0/24"), tunnel("192.0.2.2", 1450)),
            (prefix("10.2.0.0/16"), kept),
            (prefix("fd00:2::/64"), tunnel("2001:db8::2", 1430)),
            (prefix("192.0.2.2/32"), Remote { node: true, ..Remote::default() }),
            (prefix("::/0"), kept),
            (prefix("0.0.0.0/0"), Remote::default()),
        ]
        .into(),
        [(prefix("10.2.0.0/24"), kept), (prefix("fd00:2::/64"), tunnel("192.0.2.2", 1450))].into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().ipcache, &states);
}

#[test]
fn tunnel_links_are_lawful() {
    let ground = Ground::new();
    let link = |port, v6: Option<&str>| TunnelLink {
        port,
        v4: v6.is_none().then_some([192, 0, 2, 1].into()),
        v6: v6.map(|text| text.parse().expect("an address")),
    };
    let states = [
        [(IfIndex(5), link(8472, None))].into(),
        [(IfIndex(5), link(4789, Some("2001:db8::1")))].into(),
        [(IfIndex(6), link(8472, None))].into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().tunnel_links, &states);
}

#[test]
fn uplinks_are_lawful() {
    let ground = Ground::new();
    let v4 = |last| Some([192, 0, 2, last].into());
    let v6 = Some("2001:db8::1".parse().expect("an address"));
    let states = [
        [(IfIndex(5), Uplink { v4: v4(1), v6, mark: Some(0x7202_0000) }), (IfIndex(6), Uplink::default())]
            .into(),
        [
            (IfIndex(5), Uplink { v4: v4(2), v6: None, mark: None }),
            (IfIndex(7), Uplink { v4: None, v6, mark: None }),
        ]
        .into(),
        BTreeMap::new(),
    ];
    obeys(ground.targets().uplinks, &states);
}

fn point(ifname: &str, hook: Hook) -> AttachPoint {
    AttachPoint { ifname: IfName::new(ifname).expect("a name"), hook }
}

fn two_links() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add one.1 type veth peer name two");
    namespace
}

fn attached(namespace: &Namespace, ifname: &str) -> Attached {
    Attached { ifindex: namespace.ifindex(ifname) }
}

#[test]
fn attachments_are_lawful() {
    let (ground, namespace) = (Ground::new(), two_links());
    let (a, b) = (attached(&namespace, "one.1"), attached(&namespace, "two"));
    let states = [
        [(point("one.1", Hook::FromPod), a), (point("one.1", Hook::ToPod), a)].into(),
        [(point("one.1", Hook::ToPod), a), (point("two", Hook::FromWire), b)].into(),
        [(point("two", Hook::FromTunnel), b), (point("two", Hook::ToTunnel), b)].into(),
        BTreeMap::new(),
    ];
    namespace.inside(|| obeys(ground.targets().attachments, &states));
}

#[test]
fn an_attachment_that_was_forced_off_is_absent_and_comes_back() {
    let (ground, namespace) = (Ground::new(), two_links());
    let key = point("two", Hook::FromWire);
    namespace.inside(|| {
        let mut attachments = ground.targets().attachments;
        let value = attached(&namespace, "two");
        block_on(attachments.put(&key, &value)).expect("put");
        let pin = ground.config.bpffs.join("v2/links/from_wire:two");
        let pin = pin.to_str().expect("text");
        let shown = command("bpftool", &["link", "show", "pinned", pin]);
        let id = shown.split(':').next().expect("an id");
        command("bpftool", &["link", "detach", "id", id]);
        assert!(block_on(attachments.observe()).expect("observed").is_empty());
        block_on(attachments.put(&key, &value)).expect("put");
        assert_eq!(block_on(attachments.observe()).expect("observed"), [(key, value)].into());
    });
}

#[test]
fn an_interface_of_the_same_name_is_another_one() {
    let (ground, namespace) = (Ground::new(), two_links());
    let key = point("two", Hook::FromPod);
    namespace.inside(|| {
        let mut attachments = ground.targets().attachments;
        let old = attached(&namespace, "two");
        block_on(attachments.put(&key, &old)).expect("put");
        namespace.ip("link del two");
        namespace.ip("link add filler type veth peer name filler-p");
        namespace.ip("link add two type veth peer name c");
        assert!(block_on(attachments.observe()).expect("observed").is_empty());
        block_on(attachments.put(&key, &old)).expect_err("the old interface is gone");
        let new = attached(&namespace, "two");
        block_on(attachments.put(&key, &new)).expect("put");
        assert_eq!(block_on(attachments.observe()).expect("observed"), [(key.clone(), new)].into());
        namespace.ip("link del two");
        assert!(block_on(attachments.observe()).expect("observed").is_empty());
    });
}

#[test]
fn programs_of_others_stay_attached() {
    let (ours, theirs, namespace) = (Ground::new(), Ground::new(), two_links());
    let key = point("two", Hook::FromWire);
    namespace.inside(|| {
        let value = attached(&namespace, "two");
        let (mut our, mut their) = (ours.targets().attachments, theirs.targets().attachments);
        for attachments in [&mut their, &mut our] {
            block_on(attachments.put(&key, &value)).expect("put");
        }
        block_on(our.remove(&key)).expect("removed");
        assert!(block_on(our.observe()).expect("observed").is_empty());
        assert_eq!(block_on(their.observe()).expect("observed"), [(key.clone(), value)].into());
    });
}

#[test]
fn opening_again_takes_everything_over() {
    let (mut ground, namespace) = (Ground::new(), two_links());
    let key = point("two", Hook::FromPod);
    let endpoint =
        Endpoint { ifindex: 7, mac: MacAddr::from_seed(1), host_mac: MacAddr::from_seed(2), shaped: false };
    let value = attached(&namespace, "two");
    namespace.inside(|| {
        let mut targets = ground.targets();
        block_on(targets.attachments.put(&key, &value)).expect("put");
        block_on(targets.endpoints.put(&EndpointAddr(addr("10.0.0.1")), &endpoint)).expect("put");
        let old = namespace.run("bpftool", &["net", "show", "dev", "two"]);
        ground.reopen();
        assert_ne!(namespace.run("bpftool", &["net", "show", "dev", "two"]), "", "{old}");
        let mut targets = ground.targets();
        assert_eq!(block_on(targets.attachments.observe()).expect("observed"), [(key, value)].into());
        let endpoints = block_on(targets.endpoints.observe()).expect("observed");
        assert_eq!(endpoints, [(EndpointAddr(addr("10.0.0.1")), endpoint)].into());
    });
}

#[test]
fn a_link_whose_interface_is_gone_does_not_stop_the_next_start() {
    let (mut ground, namespace) = (Ground::new(), two_links());
    namespace.inside(|| {
        let mut attachments = ground.targets().attachments;
        block_on(attachments.put(&point("two", Hook::ToPod), &attached(&namespace, "two"))).expect("put");
        namespace.ip("link del two");
        ground.reopen();
        let links = std::fs::read_dir(ground.config.bpffs.join("v2/links")).expect("there").count();
        assert_eq!(links, 0);
    });
}

#[test]
fn a_map_of_another_layout_is_refused_by_name() {
    let mut ground = Ground::new();
    ground.datapath = None;
    let pin = ground.config.bpffs.join("v2/maps/pods");
    std::fs::remove_file(&pin).expect("removed");
    let other = pin.to_str().expect("text");
    command(
        "bpftool",
        &["map", "create", other, "type", "hash", "key", "4", "value", "4", "entries", "1", "name", "x"],
    );
    let error = Datapath::open(&ground.config).expect_err("refused");
    assert!(matches!(error, OpenError::Load(_)), "{error}");
    assert!(error.to_string().contains("v2/maps/pods has another layout"), "{error}");
}

#[test]
fn purging_removes_ours_and_nothing_else() {
    let (mut ground, namespace) = (Ground::new(), two_links());
    namespace.inside(|| {
        let mut attachments = ground.targets().attachments;
        block_on(attachments.put(&point("two", Hook::ToPod), &attached(&namespace, "two"))).expect("put");
        let foreign = ground.config.bpffs.join("v2/maps/foreign");
        let text = foreign.to_str().expect("text");
        command(
            "bpftool",
            &["map", "create", text, "type", "hash", "key", "4", "value", "4", "entries", "1", "name", "x"],
        );
        ground.datapath.take().expect("open").purge().expect("purged");
        assert!(foreign.exists());
        assert!(!ground.config.bpffs.join("v2/links").exists());
        assert!(!ground.config.bpffs.join("v2/programs").exists());
        std::fs::remove_file(foreign).expect("removed");
        ground.reopen();
        ground.datapath.take().expect("open").purge().expect("purged");
        assert!(!ground.config.bpffs.exists());
    });
}
