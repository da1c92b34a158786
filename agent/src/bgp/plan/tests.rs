// SPDX-License-Identifier: Apache-2.0
//! Each file of `tests/bgp` is a case: a first document of what a node knows of itself, then objects. Beside it is what the
//! speaker is told; `UPDATE=1` rewrites that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rhumb_api::{
    BGPAdvertisement, BGPClusterConfig, BGPNodeOverride, BGPPeerConfig, EndpointSlice, Kind, Node,
    NodeConfig, NodeState, Pod, PodPool, Secret as SecretObject, Service, Update,
};
use rhumb_bgp_feed::{Change as Told, Secret, Snapshot};
use rhumb_model::{IfName, NodeName, PodKey, Revision};
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::bgp::objects::{Change, Objects};

/// What a node knows of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    node: NodeName,
    #[serde(default)]
    gateways: BTreeSet<(IpAddr, IfName)>,
    #[serde(default)]
    interfaces: BTreeMap<IfName, BTreeSet<IpAddr>>,
    #[serde(default)]
    pods: BTreeMap<String, Vec<IpAddr>>,
    #[serde(default)]
    files: BTreeMap<std::path::PathBuf, String>,
}

/// Takes the objects of a kind out of a list.
fn take<K: Kind>(objects: &mut Vec<Value>) -> Update<K> {
    let (ours, others) = std::mem::take(objects).into_iter().partition(|object| object["kind"] == K::KIND);
    *objects = others;
    let ours: Vec<Value> = ours;
    let read = ours.into_iter().map(|object| {
        let object: K = serde_json::from_value(object).expect("an object of its kind");
        object.validate().expect("sound");
        object
    });
    Update::Snapshot(read.collect())
}

/// The inputs that a case describes.
fn read(text: &str) -> (NodeName, Inputs) {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let mut documents: Vec<Value> = documents
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|it| !it.is_null())
        .collect();
    let facts: Facts = serde_json::from_value(documents.remove(0)).expect("facts");
    let mut objects = Objects::default();
    assert!(!objects.synced());
    objects.take(Change::ClusterConfigs(take::<BGPClusterConfig>(&mut documents)));
    objects.take(Change::PeerConfigs(take::<BGPPeerConfig>(&mut documents)));
    objects.take(Change::Advertisements(take::<BGPAdvertisement>(&mut documents)));
    objects.take(Change::Overrides(take::<BGPNodeOverride>(&mut documents)));
    objects.take(Change::Nodes(Box::new(take::<Node>(&mut documents))));
    objects.take(Change::NodeConfigs(take::<NodeConfig>(&mut documents)));
    objects.take(Change::NodeStates(take::<NodeState>(&mut documents)));
    objects.take(Change::Pools(take::<PodPool>(&mut documents)));
    objects.take(Change::Pods(Box::new(take::<Pod>(&mut documents))));
    objects.take(Change::Services(Box::new(take::<Service>(&mut documents))));
    objects.take(Change::Slices(take::<EndpointSlice>(&mut documents)));
    assert!(objects.synced());
    let secrets = take::<SecretObject>(&mut documents);
    assert!(documents.is_empty(), "of no known kind: {documents:?}");
    let pods = facts.pods.into_iter().map(|(key, addresses)| {
        let (namespace, name) = key.split_once('/').expect("NAMESPACE/NAME");
        (PodKey { namespace: namespace.into(), name: name.into() }, addresses)
    });
    let mut inputs = objects.inputs(&facts.node, &pods.collect());
    inputs.gateways = facts.gateways;
    inputs.interfaces = facts.interfaces;
    inputs.keys.files = facts.files.into_iter().map(|(path, key)| (path, Ok(Secret::new(key)))).collect();
    if let Update::Snapshot(secrets) = secrets {
        let entries = |object: &SecretObject| {
            let plain = object.string_data.clone().unwrap_or_default();
            plain.into_iter().map(|(entry, key)| (entry, Secret::new(key))).collect()
        };
        inputs.keys.secrets = secrets.iter().map(|object| (object.key(), entries(object))).collect();
    }
    (facts.node, inputs)
}

fn case(name: &str) -> (NodeName, Inputs) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bgp").join(name).with_extension("yaml");
    read(&fs::read_to_string(path).expect("a case"))
}

/// A plan as text.
fn written(plan: &Plan) -> String {
    let mut text = String::new();
    for problem in &plan.problems {
        writeln!(text, "{}: {problem}", problem.condition()).expect("a string takes every write");
    }
    for instance in &plan.instances {
        let Value::Object(mut settings) = serde_json::json!(instance) else { unreachable!("a struct") };
        let (peers, routes) = (settings.remove("peers"), settings.remove("routes"));
        writeln!(text, "instance {}", Value::Object(settings)).expect("a string takes every write");
        for (word, items) in [("peer", peers), ("route", routes)] {
            for item in items.iter().filter_map(Value::as_array).flatten() {
                writeln!(text, "  {word} {item}").expect("a string takes every write");
            }
        }
    }
    text
}

#[test]
fn every_case_is_planned_as_written_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bgp");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let (node, inputs) = read(&fs::read_to_string(&path).expect("a case"));
        let planned = written(&plan(&node, &inputs));
        let beside = path.with_extension("out");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&beside, &planned).expect("written");
        }
        assert_eq!(planned, fs::read_to_string(&beside).unwrap_or_default(), "{}", path.display());
    }
    assert!(cases >= 8, "{cases} cases in {}", folder.display());
}

/// The changes that the speaker is told after a change of the inputs.
fn told(name: &str, change: impl FnOnce(&mut Inputs)) -> Vec<Told> {
    let (node, mut inputs) = case(name);
    let snapshot = |inputs: &Inputs, revision| Snapshot {
        revision: Revision(revision),
        instances: plan(&node, inputs).instances,
    };
    let before = snapshot(&inputs, 1);
    change(&mut inputs);
    before.delta(&snapshot(&inputs, 2)).changes
}

#[test]
fn an_advertisement_that_changes_is_a_delta_of_exactly_its_routes() {
    let changes = told("services", |inputs| {
        let (_, spec) = inputs.advertisements.get_mut("services").expect("there");
        spec.advertisements[0].attributes.med = Some(77);
    });
    assert!(!changes.is_empty());
    for change in &changes {
        let Told::PutRoute { route, .. } = change else { unreachable!("{change:?}") };
        assert_eq!((route.kind, route.attributes.med), (rhumb_bgp_feed::RouteKind::Service, Some(77)));
    }
}

#[test]
fn a_local_service_whose_last_endpoint_goes_is_one_withdrawal_per_address() {
    let changes = told("services", |inputs| {
        let key = rhumb_api::ObjectKey::namespaced("default", "local");
        inputs.services.get_mut(&key).expect("there").ready_here = false;
    });
    let prefixes: Vec<String> = changes
        .iter()
        .map(|change| {
            let Told::RemoveRoute { prefix, .. } = change else { unreachable!("{change:?}") };
            prefix.to_string()
        })
        .collect();
    assert_eq!(prefixes, ["203.0.113.20/32"]);
}

#[test]
fn a_key_that_comes_is_a_peer_that_comes() {
    let changes = told("missing", |inputs| {
        let keys = BTreeMap::from([("password".to_owned(), Secret::new("s3cret"))]);
        inputs.keys.secrets.insert(rhumb_api::ObjectKey::namespaced("kube-system", "absent"), keys);
    });
    let [Told::PutPeer { peer, .. }] = changes.as_slice() else { unreachable!("{changes:?}") };
    assert_eq!(peer.md5, Some(Secret::new("s3cret")));
}

#[test]
fn a_node_without_ipv4_has_a_router_id_of_its_own() {
    let name = |text: &str| NodeName::new(text).expect("valid");
    let inputs = Inputs::default();
    let ids: BTreeSet<Ipv4Addr> =
        (0..1000).map(|number| router_id(&name(&format!("node-{number}")), &inputs)).collect();
    assert_eq!(ids.len(), 1000);
    assert!(!ids.contains(&Ipv4Addr::UNSPECIFIED));
    assert_eq!(router_id(&name("node-1"), &inputs), router_id(&name("node-1"), &inputs));
}
