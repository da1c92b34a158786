// SPDX-License-Identifier: Apache-2.0
//! Two nodes with agent and BGP speaker, in a mesh: what objects say is what the speakers do, the agent's end and return
//! touch no session, and nothing is told before a node forwards.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod peers;

use std::time::Duration;

use peers::cluster::{advertisement, apply, object, pod_cidrs, quick, start};
use peers::{Net, until, until_found};
use rhumb_integration::lab::{AgentOptions, Lab, Node, Spec, Wait, ping};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A mesh of all nodes with quick timers and a key.
fn configure(lab: &Lab) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "kube-system", "name": "mesh"},
        "stringData": {"password": "s3cret"},
    });
    let peer = json!({
        "timers": quick(), "authSecret": {"name": "mesh"},
    });
    let cluster = json!({"instances": [{
        "name": "main", "asn": 65000, "listenPort": 179,
        "peers": [{"name": "nodes", "nodeMesh": {}, "peerConfig": "quick"}],
    }]});
    apply(lab, [secret, object("BGPPeerConfig", "quick", peer), object("BGPClusterConfig", "mesh", cluster)]);
}

fn advertise(lab: &Lab, med: u32) {
    let routes = json!({"type": "PodCIDR", "attributes": {"communities": ["65000:1"], "med": med}});
    apply(lab, [advertisement("pods", &routes)]);
}

/// The one peer of a node, when its session is established.
fn established(node: &Node) -> Option<Value> {
    let peers = node.show("bgp peers").ok()?;
    let [peer] = peers.as_array()?.as_slice() else { return None };
    (peer["session"] == "established").then(|| peer.clone())
}

/// Prefixes that a node was told, with their metric.
fn learned(node: &Node) -> Vec<(String, Value)> {
    let routes = node.show("bgp routes in").expect("the speaker answers");
    let routes = routes["routes"].as_array().unwrap_or_else(|| panic!("a list: {routes}")).clone();
    routes
        .iter()
        .map(|route| (route["prefix"].as_str().expect("a prefix").to_owned(), route["med"].clone()))
        .collect()
}

/// Waits until a node was told exactly the other one's blocks, with this metric.
fn told(lab: &Lab, node: usize, med: u32) {
    let wanted = pod_cidrs(lab, 1 - node);
    until("the other node's blocks", || {
        let mut prefixes = learned(lab.node(node));
        prefixes.sort_by(|a, b| a.0.cmp(&b.0));
        prefixes.iter().map(|(prefix, _)| prefix).eq(&wanted)
            && prefixes.iter().all(|(_, told)| *told == json!(med))
    });
}

#[test]
fn two_nodes_tell_each_other_their_pods_and_agents_come_and_go() {
    let mut lab = Lab::build(Spec::named("bgpn")).expect("the lab is built");
    let _net = Net::in_lab(&lab, &[]);
    configure(&lab);
    start(&mut lab);
    for node in lab.nodes() {
        until_found("the session", || established(node));
        assert_eq!(learned(node), [], "nothing is advertised");
    }
    advertise(&lab, 5);
    told(&lab, 0, 5);
    told(&lab, 1, 5);

    // A change of attributes replaces the routes and touches no session.
    let before: Vec<Value> = lab.nodes().iter().map(|node| established(node).expect("up")).collect();
    advertise(&lab, 6);
    told(&lab, 0, 6);

    // The agent ends; the speaker goes on, and answers people.
    lab.node_mut(0).kill_agent().expect("killed");
    lab.store().delete("BGPAdvertisement", "", "pods").expect("deleted");
    until("the withdrawal by the other node", || learned(lab.node(0)).is_empty());
    told(&lab, 1, 6);

    // The agent comes back; what changed meanwhile is all that changes.
    lab.node_mut(0).start_agent().expect("started");
    until("the withdrawal", || learned(lab.node(1)).is_empty());
    for (node, before) in lab.nodes().iter().zip(&before) {
        let after = established(node).expect("up");
        assert_eq!(after["since"], before["since"], "the session of {} was touched", node.name);
        assert_eq!(after["established_count"], json!(1));
    }

    // NodeState and metrics say the same.
    let published = lab
        .store()
        .wait_until("the peer in NodeState", PATIENCE, |store| {
            let state = store.get("NodeState", "", "n1")?;
            let peers = state.map(|state| state["status"]["bgpPeers"].clone());
            Ok(peers.filter(|peers| peers[0]["session"] == "established"))
        })
        .expect("published");
    assert_eq!(published[0]["peer"], "main/nodes/n2");
    let samples = lab.node(0).show("metrics").expect("answered");
    let up = samples.as_array().into_iter().flatten().find(|it| it["name"] == "rhumb_bgp_session_up");
    assert_eq!(up.unwrap_or_else(|| panic!("no sample: {samples}"))["value"], 1);
}

#[test]
fn a_node_tells_nothing_before_it_forwards() {
    let mut lab = Lab::build(Spec::named("bgpr")).expect("the lab is built");
    let _net = Net::in_lab(&lab, &[]);
    configure(&lab);
    let uplink = json!({"type": "Interface", "interface": "eth0"});
    apply(&lab, [advertisement("uplinks", &uplink)]);
    for node in 0..2 {
        lab.node_mut(node).start_bgp(&[]).expect("started");
        // Without an operator there are no blocks for pods: the node is not ready.
        let options = AgentOptions { wait: Wait::Serving, ..AgentOptions::default() };
        lab.node_mut(node).start_agent_with(options).expect("started");
    }
    for node in lab.nodes() {
        lab.store()
            .wait_until("the state of the node", PATIENCE, |store| store.get("NodeState", "", &node.name))
            .expect("published");
        assert_eq!(node.show("status").expect("answered")["ready"], json!(false));
    }
    for node in lab.nodes() {
        assert_eq!(node.show("bgp peers").expect("answered"), json!([]), "the speaker was told something");
    }
    lab.start_operator().expect("started");
    for node in 0..2 {
        let other = lab.node(1 - node).addresses[0].to_string() + "/32";
        until("the other node's address", || {
            learned(lab.node(node)).iter().any(|(prefix, _)| *prefix == other)
        });
    }
}

#[test]
fn a_pool_told_as_a_whole_takes_nothing_from_pods_behind_the_tunnel() {
    let mut lab = Lab::build(Spec { segments: 2, ..Spec::named("bgpa") }).expect("the lab is built");
    let net = Net::in_lab(&lab, &[]);
    configure(&lab);
    apply(&lab, [advertisement("pools", &json!({"type": "PodPool"}))]);
    start(&mut lab);
    for node in lab.nodes() {
        for pool in ["10.244.0.0/16", "fd00:10:244::/104"] {
            until("the node drops what nobody has", || {
                net.kernel_route(&node.name, "7268", pool).is_some_and(|route| route.starts_with("blackhole"))
            });
            until("the other node is told", || {
                let told = learned(node);
                told.iter().any(|(prefix, _)| prefix == pool)
            });
        }
    }
    let pods = [0, 1].map(|node| lab.node(node).add_pod("default", "pod").expect("attached"));
    let others: Vec<_> = lab.node(1).pod_cidrs(lab.store()).expect("assigned");
    let mut ways = lab.node(0).follow_ways().expect("told");
    ways.until(&others, "tunnel", PATIENCE).expect("there is no other way");
    for pod in [pods[1].v4(), pods[1].v6()] {
        for from in [&pods[0].namespace, lab.node(0).namespace()] {
            ping(from, pod, PATIENCE).expect("answered");
        }
    }
}
