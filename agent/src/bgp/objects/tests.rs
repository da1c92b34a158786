// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;

fn read_slice(name: &str, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints,
    }))
    .expect("valid")
}

#[test]
fn an_endpoint_takes_packets_when_it_is_ready_or_still_serves_while_it_ends() {
    for (conditions, usable) in [
        (json!({}), true),
        (json!({"ready": true}), true),
        (json!({"ready": false}), false),
        (json!({"ready": false, "serving": true, "terminating": false}), false),
        (json!({"ready": false, "serving": true, "terminating": true}), true),
        (json!({"ready": false, "serving": false, "terminating": true}), false),
    ] {
        let row = slice(&read_slice(
            "web-1",
            json!([{"addresses": ["10.1.0.1"], "conditions": conditions, "nodeName": "n1"}]),
        ));
        assert_eq!(row.anywhere, usable, "{conditions}");
        assert_eq!(row.nodes.len(), usize::from(usable), "{conditions}");
    }
}

#[test]
fn a_slice_that_goes_takes_its_endpoints_along() {
    let mut objects = Objects::default();
    let web: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"},
    }))
    .expect("valid");
    objects.take(Change::Services(Box::new(Update::Snapshot(vec![web.clone()]))));
    let here = read_slice("web-1", json!([{"addresses": ["10.1.0.1"], "nodeName": "n1"}]));
    let there = read_slice("web-2", json!([{"addresses": ["10.2.0.1"], "nodeName": "n2"}]));
    objects.take(Change::Slices(Update::Snapshot(vec![here.clone(), there.clone()])));
    let node = NodeName::new("n1").expect("valid");
    let facts = |objects: &Objects| objects.inputs(&node, &BTreeMap::new()).services[&web.key()].clone();
    assert!(facts(&objects).ready_here && facts(&objects).ready_anywhere && facts(&objects).external_local);
    objects.take(Change::Slices(Update::Delete(here)));
    assert!(!facts(&objects).ready_here && facts(&objects).ready_anywhere);
    objects.take(Change::Slices(Update::Delete(there)));
    assert!(!facts(&objects).ready_anywhere);
}

#[test]
fn a_service_has_all_its_addresses_and_a_headless_one_none() {
    let read = |spec: Value, ingress: Value| {
        let object: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .expect("valid");
        service(&object)
            .addresses
            .iter()
            .map(|(kind, address)| format!("{kind:?} {address}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        read(
            json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["198.51.100.1"]}),
            json!([{"ip": "203.0.113.1"}, {"hostname": "lb.example.com"}])
        ),
        ["ClusterIP 10.96.0.1", "ClusterIP fd00::1", "ExternalIP 198.51.100.1", "LoadBalancerIP 203.0.113.1"]
    );
    assert_eq!(read(json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!([])), Vec::<String>::new());
}

#[test]
fn where_nobody_wants_bgp_nothing_else_is_waited_for() {
    let mut objects = Objects::default();
    assert!(!objects.synced());
    objects.take(Change::ClusterConfigs(Update::Snapshot(vec![])));
    assert!(objects.synced() && !objects.wants_any());
    objects.take(Change::ClusterConfigs(Update::Put(BGPClusterConfig::new("a", Default::default()))));
    assert!(!objects.synced() && objects.wants_any());
}
