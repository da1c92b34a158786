// SPDX-License-Identifier: Apache-2.0
//! The state of version 1, and maps of another size or with smaller entries, taken over with their flows.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod ground;

use std::fs;
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use ground::frame::Frame;
use ground::{Ground, Namespace, command};
use rhumb_ebpf::{
    AttachPoint, Attached, Code, Endpoint, EndpointAddr, Hook, IfIndex, PodLink, Reason, Trial,
};
use rhumb_model::{IfName, MacAddr, Target as _};

const POD: &str = "10.1.0.2";
const NODE: &str = "192.0.2.1";
const FAR: &str = "198.51.100.9";

fn bpftool(words: &str) {
    command("bpftool", &words.split_whitespace().collect::<Vec<_>>());
}

/// The maps of version 1, as its programs and loader made them.
fn version_1(root: &Path) -> PathBuf {
    let maps = root.join("v1/maps");
    for part in ["v1/maps", "v1/programs", "v1/links"] {
        fs::create_dir_all(root.join(part)).expect("made");
    }
    for (name, kind, key, value, entries, flags) in [
        ("pods", "hash", 16, 32, 65_536, 1),
        ("links", "hash", 4, 48, 65_536, 1),
        ("host_ports", "hash", 20, 24, 65_536, 1),
        ("flows", "lru_hash", 40, 32, 65_536, 0),
        ("counters", "percpu_array", 4, 16, 1_024, 0),
    ] {
        let path = maps.join(name);
        bpftool(&format!(
            "map create {} type {kind} key {key} value {value} entries {entries} name {name} flags {flags}",
            path.display()
        ));
    }
    maps
}

/// An entry of `flows`: TCP from the pod's port 8080 to `peer_port` at the far side, known as port 80 of the node.
fn host_port_flow(maps: &Path, peer_port: u8) {
    let mapped = "0 0 0 0 0 0 0 0 0 0 255 255";
    bpftool(&format!(
        "map update pinned {} key {mapped} 10 1 0 2 {mapped} 198 51 100 9 31 144 0 {peer_port} 6 0 0 0 \
         value {mapped} 192 0 2 1 0 80 2 0 0 0 0 0 0 0 0 0 0 0 0 0",
        maps.join("flows").display()
    ));
}

/// A namespace with a pod's host end and an uplink with a neighbour.
fn node() -> Namespace {
    let namespace = Namespace::new();
    for name in ["hosta", "wire"] {
        namespace.ip(&format!("link add {name} type veth peer name {name}-p"));
        namespace.ip(&format!("link set {name} up"));
        namespace.ip(&format!("link set {name}-p up"));
    }
    namespace.sysctl("net/ipv4/ip_forward", "1");
    namespace.ip(&format!("address add {NODE}/24 dev wire"));
    namespace.ip("neighbour add 192.0.2.254 lladdr 02:00:00:00:0e:02 dev wire nud permanent");
    namespace.ip("route add 198.51.100.0/24 via 192.0.2.254");
    namespace
}

fn put_pod(ground: &Ground, ifindex: u32) {
    let (mac, host_mac) = (MacAddr::from_seed(1), MacAddr::from_seed(2));
    let link = PodLink {
        v4: Some(POD.parse().expect("an address")),
        v6: None,
        mac,
        host_mac,
        chained: false,
        host_ports: true,
        interface: None,
    };
    let mut targets = ground.targets();
    block_on(targets.pod_links.put(&IfIndex(ifindex), &link)).expect("put");
    let key = EndpointAddr(POD.parse().expect("an address"));
    let endpoint = Endpoint { ifindex, mac, host_mac, shaped: false };
    block_on(targets.endpoints.put(&key, &endpoint)).expect("put");
}

/// Source address and port of the pod's answer to `peer_port` when it leaves.
fn answers_as(ground: &Ground, namespace: &Namespace, peer_port: u16) -> Vec<u8> {
    let ifindex = namespace.ifindex("hosta");
    let packet = Frame::tcp(POD, FAR, (8080, peer_port)).bytes();
    let trial = Trial { ingress_ifindex: ifindex, ..Trial::new(&packet, ifindex) };
    let ran = namespace.inside(|| ground.datapath().run(Hook::FromPod, &trial).expect("it runs"));
    assert_eq!(ran.code, Code::Redirect);
    [&ran.packet[26..30], &ran.packet[34..36]].concat()
}

const AS_NODE: [u8; 6] = [192, 0, 2, 1, 0, 80];
const AS_POD: [u8; 6] = [10, 1, 0, 2, 31, 144];

#[test]
fn the_flows_of_version_1_go_on_and_its_pins_go() {
    let (mut ground, namespace) = (Ground::new(), node());
    let point = AttachPoint { ifname: IfName::new("wire").expect("a name"), hook: Hook::FromWire };
    let attached = Attached { ifindex: namespace.ifindex("wire") };
    let root = ground.config.bpffs.clone();
    namespace.inside(|| {
        // A link of ours, moved to where version 1 has its links.
        block_on(ground.targets().attachments.put(&point, &attached)).expect("attached");
        ground.datapath = None;
        let maps = version_1(&root);
        fs::rename(root.join("v2/links/from_wire:wire"), root.join("v1/links/from_wire:wire"))
            .expect("moved");
        for part in ["maps", "programs"] {
            for entry in fs::read_dir(root.join("v2").join(part)).expect("there") {
                fs::remove_file(entry.expect("there").path()).expect("removed");
            }
        }
        host_port_flow(&maps, 10);

        ground.reopen();
        put_pod(&ground, namespace.ifindex("hosta"));
        let observed = block_on(ground.targets().attachments.observe()).expect("observed");
        assert_eq!(observed, [(point, attached)].into());
        assert_eq!(answers_as(&ground, &namespace, 10), AS_NODE);
        assert_eq!(answers_as(&ground, &namespace, 11), AS_POD);
        // One map under two names: what is put into it is seen by programs of both versions.
        let dump = command("bpftool", &["map", "dump", "pinned", maps.join("pods").to_str().expect("text")]);
        assert!(dump.contains("0a 01 00 02"), "{dump}");

        // Filters of pods run the old programs until the agent replaces them.
        host_port_flow(&maps, 12);
        // Killed before the end, and again.
        ground.reopen();
        assert_eq!(answers_as(&ground, &namespace, 12), AS_NODE);
        host_port_flow(&maps, 13);
        ground.datapath().finish_migration().expect("finished");
        assert_eq!(answers_as(&ground, &namespace, 13), AS_NODE);
        assert_eq!(answers_as(&ground, &namespace, 10), AS_NODE);
        assert!(!root.join("v1").exists());
        ground.datapath().finish_migration().expect("nothing to finish");
    });
    assert_eq!(ground.count(Hook::FromPod, Reason::ForwardedRemote), 5);
}

#[test]
fn flows_with_smaller_entries_go_on() {
    let (mut ground, namespace) = (Ground::new(), node());
    put_pod(&ground, namespace.ifindex("hosta"));
    let root = ground.config.bpffs.clone();
    let (map, was) = (root.join("v2/maps/ct"), root.join("v2/maps/was:ct"));
    ground.datapath = None;
    fs::remove_file(&map).expect("removed");
    bpftool(&format!(
        "map create {} type lru_hash key 40 value 104 entries {} name ct flags 0",
        map.display(),
        ground.config.flows
    ));
    // The far side, whose address is the higher one, called port 80 of the node.
    let flow = |path: &Path, port: u8| {
        let mapped = "0 0 0 0 0 0 0 0 0 0 255 255";
        let zeros = |count| vec!["0"; count].join(" ");
        let head = format!("255 255 255 127 255 255 255 127 4 9 0 80 {mapped} 192 0 2 1 {}", zeros(20));
        let counts = format!("7 {} 5 {} {} {}", zeros(7), zeros(7), zeros(16), zeros(24));
        bpftool(&format!(
            "map update pinned {} key {mapped} 10 1 0 2 {mapped} 198 51 100 9 31 144 0 {port} 6 0 0 0 \
             value {head} {counts}",
            path.display()
        ));
    };
    flow(&map, 10);
    ground.reopen();
    assert_eq!(answers_as(&ground, &namespace, 10), AS_NODE);
    assert_eq!(answers_as(&ground, &namespace, 11), AS_POD);
    let (flows, _) = ground.datapath().flow_table().flows(9, |flow| flow.packets[0] == 7).expect("read");
    assert_eq!(flows.iter().map(|flow| flow.packets).collect::<Vec<_>>(), [[7, 6]]);
    // Filters of pods still run the programs of before; and the agent is killed meanwhile.
    flow(&was, 12);
    ground.reopen();
    assert_eq!(answers_as(&ground, &namespace, 12), AS_NODE);
    flow(&was, 13);
    ground.datapath().finish_migration().expect("finished");
    assert_eq!(answers_as(&ground, &namespace, 13), AS_NODE);
    assert!(!was.exists());
}

#[test]
fn the_number_that_ends_what_flows_keep_outlives_programs() {
    let mut ground = Ground::new();
    let pin = ground.config.bpffs.join("v2/maps/epoch");
    let read = || {
        command(
            "bpftool",
            &["map", "lookup", "pinned", pin.to_str().expect("text"), "key", "0", "0", "0", "0"],
        )
    };
    let map = || command("bpftool", &["-j", "map", "show", "pinned", pin.to_str().expect("text")]);
    let (told, before) = (ground.datapath().epoch(), map());
    ground.reopen();
    let number = read();
    // By a handle of before: programs of both versions read one map.
    told.advance().expect("told");
    assert_ne!(read(), number);
    assert_eq!(map(), before);
}

#[test]
fn another_number_of_flows_keeps_those_that_there_are() {
    let (mut ground, namespace) = (Ground::new(), node());
    put_pod(&ground, namespace.ifindex("hosta"));
    let root = ground.config.bpffs.clone();
    let ifindex = namespace.ifindex("hosta");
    let through_stack = |ground: &Ground, port| {
        let question = Frame::tcp(FAR, POD, (port, 8080)).bytes();
        let trial = Trial { ingress_ifindex: 1, ..Trial::new(&question, ifindex) };
        namespace.inside(|| ground.datapath().run(Hook::ToPod, &trial).expect("it runs"));
    };
    let returns = |ground: &Ground, port| {
        let answer = Frame::tcp(POD, FAR, (8080, port)).bytes();
        let trial = Trial { ingress_ifindex: ifindex, ..Trial::new(&answer, ifindex) };
        namespace.inside(|| ground.datapath().run(Hook::FromPod, &trial).expect("it runs")).code
    };
    through_stack(&ground, 100);
    for flows in [8_192, 2_048] {
        ground.config.flows = flows;
        ground.reopen();
        assert_eq!(returns(&ground, 100), Code::Next);
        assert!(root.join("v2/maps/was:ct").exists());
        ground.datapath().finish_migration().expect("finished");
        assert!(!root.join("v2/maps/was:ct").exists());
    }
    assert_eq!(returns(&ground, 101), Code::Redirect);
}
