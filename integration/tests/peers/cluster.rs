// SPDX-License-Identifier: Apache-2.0

use rhumb_integration::lab::{Lab, Node};
use serde_json::{Value, json};

/// An object of ours.
pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "rhumb.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Writes objects, as a person would.
pub(crate) fn apply(lab: &Lab, objects: impl IntoIterator<Item = Value>) {
    for object in objects {
        lab.store().apply(&object).expect("written");
    }
}

/// Timers with which nobody waits long.
pub(crate) fn quick() -> Value {
    json!({"holdSeconds": 9, "keepaliveSeconds": 3, "connectRetrySeconds": 1})
}

/// A policy that takes everything.
pub(crate) fn everything() -> Value {
    let prefixes =
        json!([{"prefix": "0.0.0.0/0", "ge": 0, "le": 32}, {"prefix": "::/0", "ge": 0, "le": 128}]);
    json!({"rules": [{"name": "all", "match": {"prefixes": prefixes}, "action": "accept"}]})
}

/// An object that tells of one kind of routes.
pub(crate) fn advertisement(name: &str, routes: &Value) -> Value {
    object("BGPAdvertisement", name, json!({"advertisements": [routes]}))
}

/// Starts the operator, and speaker and agent of every node.
pub(crate) fn start(lab: &mut Lab) {
    lab.start_operator().expect("started");
    for node in 0..lab.nodes().len() {
        lab.node_mut(node).start_bgp(&[]).expect("started");
        lab.node_mut(node).start_agent().expect("started");
    }
}

/// Blocks of pod addresses of a node, sorted as text.
pub(crate) fn pod_cidrs(lab: &Lab, node: usize) -> Vec<String> {
    let prefixes = lab.node(node).pod_cidrs(lab.store()).expect("assigned");
    let mut prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    prefixes.sort();
    prefixes
}

/// The sessions of a node that are established, by the peer's name, as the command line tells.
pub(crate) fn sessions(node: &Node) -> Vec<String> {
    let peers = node.show("bgp peers").expect("the speaker answers");
    let up = peers.as_array().into_iter().flatten().filter(|peer| peer["session"] == "established");
    up.map(|peer| peer["key"].as_str().expect("a name").to_owned()).collect()
}

/// Routes as `rhumb bgp routes` tells them.
pub(crate) fn routes(node: &Node, table: &str) -> Vec<Value> {
    let told = node.show(&format!("bgp routes {table}")).expect("the speaker answers");
    told["routes"].as_array().cloned().unwrap_or_default()
}
