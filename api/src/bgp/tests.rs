// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use crate::Kind;
use crate::{BGPAdvertisement, BGPClusterConfig, BGPNodeOverride, BGPPeerConfig};

/// An object of a kind with this spec, as a store reads it.
fn object<K: Kind>(spec: &Value) -> Result<K, serde_json::Error> {
    let metadata = json!({"name": "one"});
    let api_version = K::API_VERSION;
    serde_json::from_value(
        json!({"apiVersion": api_version, "kind": K::KIND, "metadata": metadata, "spec": spec}),
    )
}

/// Checks that a sound spec is accepted and survives being written, and that each change of it is refused with the name of
/// the field.
fn check<K: Kind>(sound: &Value, wrong: &[(&str, &str, Value)]) {
    let read: K = object(sound).expect("sound");
    assert_eq!(read.validate(), Ok(()));
    let written = serde_json::to_value(&read).expect("written");
    assert_eq!(serde_json::from_value::<K>(written).expect("as written"), read);
    for (place, field, value) in wrong {
        let mut spec = sound.clone();
        let target = spec.pointer_mut(place).unwrap_or_else(|| unreachable!("{place}"));
        match (target, value) {
            (Value::Object(fields), Value::Object(more)) => fields.extend(more.clone()),
            (target, value) => *target = value.clone(),
        }
        let object: K = object(&spec).expect(field);
        let error = object.validate().expect_err(field);
        assert_eq!(error.field, *field, "{error}");
    }
}

fn cluster_config() -> Value {
    json!({
        "nodeSelector": {"matchLabels": {"rack": "a"}},
        "instances": [{
            "name": "main", "asn": 65000, "listenPort": 179, "clusterID": "192.0.2.1", "multipath": 4,
            "peers": [
                {"name": "tor", "asn": 65001, "address": "192.0.2.1", "peerConfig": "tor"},
                {"name": "link", "asn": "external", "interface": "eth1"},
                {"name": "gateways", "asn": "any", "defaultGateway": {"families": ["ipv4", "ipv6"]}},
                {"name": "mesh", "nodeMesh": {"transport": "ipv6"}},
                {"name": "reflectors", "routeReflectors": {"nodeSelector": {"matchLabels": {"role": "rr"}}}},
            ],
        }, {"name": "second", "asn": 4_200_000_000_u32}],
    })
}

#[test]
fn every_wrong_field_of_a_cluster_config_is_named() {
    let peer = |more: Value| more;
    let monitoring = |more: Value| {
        let mut station = json!({"address": "192.0.2.9", "port": 11019});
        station.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!({"monitoring": [station]})
    };
    check::<BGPClusterConfig>(
        &cluster_config(),
        &[
            ("/instances", "spec.instances", json!([])),
            ("/instances/1/name", "spec.instances[1].name", json!("main")),
            ("/instances/0/name", "spec.instances[0].name", json!("")),
            ("/instances/0/name", "spec.instances[0].name", json!("Main/1")),
            ("/instances/0/asn", "spec.instances[0].asn", json!(0)),
            ("/instances/0/asn", "spec.instances[0].asn", json!(23456)),
            ("/instances/0/listenPort", "spec.instances[0].listenPort", json!(0)),
            ("/instances/1", "spec.instances[1].listenPort", json!({"listenPort": 179})),
            ("/instances/0/clusterID", "spec.instances[0].clusterID", json!("0.0.0.0")),
            ("/instances/0/multipath", "spec.instances[0].multipath", json!(0)),
            ("/instances/0/multipath", "spec.instances[0].multipath", json!(65)),
            ("/instances/0", "spec.instances[0].monitoring[0].port", monitoring(json!({"port": 0}))),
            ("/instances/0", "spec.instances[0].monitoring[0].address", monitoring(json!({"address": "::"}))),
            (
                "/instances/0",
                "spec.instances[0].monitoring[0].statisticsSeconds",
                monitoring(json!({"statisticsSeconds": 9})),
            ),
            ("/instances/0", "spec.instances[0].monitoring[0].views", monitoring(json!({"views": []}))),
            ("/instances/0/peers/1/name", "spec.instances[0].peers[1].name", json!("tor")),
            ("/instances/0/peers/0", "spec.instances[0].peers[0]", peer(json!({"interface": "eth0"}))),
            ("/instances/0/peers/0", "spec.instances[0].peers[0]", peer(json!({"address": null}))),
            ("/instances/0/peers/0/asn", "spec.instances[0].peers[0].asn", json!(null)),
            ("/instances/0/peers/0/asn", "spec.instances[0].peers[0].asn", json!(65535)),
            ("/instances/0/peers/3", "spec.instances[0].peers[3].asn", peer(json!({"asn": "internal"}))),
            ("/instances/0/peers/0/address", "spec.instances[0].peers[0].address", json!("fe80::1")),
            ("/instances/0/peers/0/address", "spec.instances[0].peers[0].address", json!("::")),
            ("/instances/0/peers/0/address", "spec.instances[0].peers[0].address", json!("224.0.0.1")),
            ("/instances/0/peers/0/peerConfig", "spec.instances[0].peers[0].peerConfig", json!("A b")),
            (
                "/instances/0/peers/2/defaultGateway/families",
                "spec.instances[0].peers[2].defaultGateway.families",
                json!([]),
            ),
            (
                "/instances/0/peers/2/defaultGateway/families",
                "spec.instances[0].peers[2].defaultGateway.families",
                json!(["ipv4", "ipv4"]),
            ),
            ("/instances/0/listenPort", "spec.instances[0].peers[3]", json!(null)),
            (
                "/nodeSelector",
                "spec.nodeSelector.matchExpressions[0].values",
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            ),
        ],
    );
}

#[test]
fn the_as_of_a_peer_is_a_number_or_a_word() {
    for (text, why) in
        [("\"ours\"", "expected the number of an AS"), ("4294967296", "expected the number of an AS")]
    {
        let error = serde_json::from_str::<crate::BgpPeerAsn>(text).expect_err(text);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn every_wrong_field_of_a_peer_config_is_named() {
    let sound = json!({
        "port": 1179, "localASN": 65010, "sourceInterface": "lo", "passive": true,
        "timers": {"holdSeconds": 3, "keepaliveSeconds": 1, "connectRetrySeconds": 1},
        "authSecret": {"namespace": "kube-system", "name": "tor", "key": "md5"},
        "multihop": 3,
        "gracefulRestart": {"enabled": true, "restartSeconds": 4095, "longLivedStaleSeconds": 16_777_215},
        "families": [
            {"family": "ipv4", "maxPrefixes": 100, "extendedNextHop": true, "advertisements": {"matchLabels": {"a": "b"}}},
            {"family": "ipv6", "nextHopSelf": true, "sendPaths": 2, "receivePaths": true},
        ],
        "import": {"rules": [
            {"name": "default", "match": {"prefixes": [{"prefix": "0.0.0.0/0"}]}, "action": "accept",
             "set": {"localPreference": 50, "addCommunities": ["65000:1"]}},
            {"name": "rest", "match": {"prefixes": [{"prefix": "10.0.0.0/8", "ge": 16, "le": 24}]}, "action": "reject"},
        ]},
        "export": {"rules": [{"name": "pods", "match": {"kinds": ["PodCIDR"]}, "action": "accept", "set": {"prepend": 10}}]},
        "bfd": {"transmitMilliseconds": 50, "receiveMilliseconds": 50, "multiplier": 3, "hold": true},
        "shutdown": "maintenance",
    });
    check::<BGPPeerConfig>(&json!({}), &[]);
    check::<BGPPeerConfig>(
        &sound,
        &[
            ("/port", "spec.port", json!(0)),
            ("/localASN", "spec.localASN", json!(0)),
            ("/timers/holdSeconds", "spec.timers.holdSeconds", json!(2)),
            ("/timers/keepaliveSeconds", "spec.timers.keepaliveSeconds", json!(2)),
            ("/timers/keepaliveSeconds", "spec.timers.keepaliveSeconds", json!(0)),
            ("/timers/connectRetrySeconds", "spec.timers.connectRetrySeconds", json!(0)),
            ("/authSecret", "spec.authSecret", json!({"file": "/etc/key"})),
            ("/authSecret/name", "spec.authSecret", json!(null)),
            ("/authSecret/name", "spec.authSecret.name", json!("A/B")),
            (
                "/authSecret",
                "spec.authSecret.file",
                json!({"name": null, "namespace": null, "key": null, "file": "key"}),
            ),
            (
                "/authSecret",
                "spec.authSecret.key",
                json!({"name": null, "namespace": null, "file": "/etc/key"}),
            ),
            ("", "spec.ttlSecurity", json!({"ttlSecurity": 1})),
            ("/multihop", "spec.multihop", json!(0)),
            ("", "spec.ttlSecurity", json!({"multihop": null, "ttlSecurity": 255})),
            ("/gracefulRestart/restartSeconds", "spec.gracefulRestart.restartSeconds", json!(4096)),
            (
                "/gracefulRestart/longLivedStaleSeconds",
                "spec.gracefulRestart.longLivedStaleSeconds",
                json!(16_777_216),
            ),
            ("/gracefulRestart/enabled", "spec.gracefulRestart.longLivedStaleSeconds", json!(false)),
            ("/families/1/family", "spec.families[1].family", json!("ipv4")),
            ("/families/0/maxPrefixes", "spec.families[0].maxPrefixes", json!(0)),
            ("/families/1", "spec.families[1].extendedNextHop", json!({"extendedNextHop": true})),
            ("/import/rules/1/name", "spec.import.rules[1].name", json!("default")),
            ("/import/rules/1/match/prefixes/0/ge", "spec.import.rules[1].match.prefixes[0].ge", json!(7)),
            ("/import/rules/1/match/prefixes/0/le", "spec.import.rules[1].match.prefixes[0].le", json!(33)),
            ("/import/rules/1/match/prefixes/0/le", "spec.import.rules[1].match.prefixes[0].le", json!(15)),
            ("/import/rules/0/match", "spec.import.rules[0].match.kinds", json!({"kinds": ["Learned"]})),
            ("/import/rules/0/action", "spec.import.rules[0].set", json!("reject")),
            ("/export/rules/0/set/prepend", "spec.export.rules[0].set.prepend", json!(11)),
            ("/bfd/transmitMilliseconds", "spec.bfd.transmitMilliseconds", json!(9)),
            ("/bfd/receiveMilliseconds", "spec.bfd.receiveMilliseconds", json!(60_001)),
            ("/bfd/multiplier", "spec.bfd.multiplier", json!(0)),
            ("/shutdown", "spec.shutdown", json!("x".repeat(256))),
        ],
    );
}

#[test]
fn every_wrong_field_of_an_advertisement_is_named() {
    let sound = json!({"advertisements": [
        {"type": "PodCIDR", "attributes": {"communities": ["65000:1", "no-export", "1:2:3"], "localPreference": 5, "med": 1}},
        {"type": "PodPool", "selector": {"matchLabels": {"a": "b"}}},
        {"type": "Pod", "selector": {}},
        {"type": "Interface", "interface": "lo"},
        {"type": "Service", "selector": {}, "service": {
            "addresses": ["ClusterIP", "LoadBalancerIP"], "aggregation": {"ipv4": 24, "ipv6": 64}, "withoutEndpoints": true,
        }},
        {"type": "ENI", "selector": null},
    ]});
    check::<BGPAdvertisement>(
        &sound,
        &[
            ("/advertisements", "spec.advertisements", json!([])),
            ("/advertisements/5/selector", "spec.advertisements[5].selector", json!({})),
            ("/advertisements/0", "spec.advertisements[0].interface", json!({"interface": "lo"})),
            (
                "/advertisements/0",
                "spec.advertisements[0].service",
                json!({"service": {"addresses": ["ClusterIP"]}}),
            ),
            ("/advertisements/2/selector", "spec.advertisements[2].selector", json!(null)),
            ("/advertisements/3/interface", "spec.advertisements[3].interface", json!(null)),
            ("/advertisements/3", "spec.advertisements[3].selector", json!({"selector": {}})),
            ("/advertisements/4/selector", "spec.advertisements[4].selector", json!(null)),
            (
                "/advertisements/4/service",
                "spec.advertisements[4].service.addresses",
                json!({"addresses": []}),
            ),
            (
                "/advertisements/4/service/addresses/1",
                "spec.advertisements[4].service.addresses[1]",
                json!("ClusterIP"),
            ),
            (
                "/advertisements/4/service/aggregation/ipv4",
                "spec.advertisements[4].service.aggregation.ipv4",
                json!(32),
            ),
            (
                "/advertisements/4/service/aggregation/ipv6",
                "spec.advertisements[4].service.aggregation.ipv6",
                json!(0),
            ),
        ],
    );
}

#[test]
fn a_community_that_is_none_is_refused_where_it_stands() {
    let spec = json!({"advertisements": [{"type": "PodCIDR", "attributes": {"communities": ["65536:1"]}}]});
    let error = object::<BGPAdvertisement>(&spec).expect_err("too large");
    assert!(error.to_string().contains("want ASN:VALUE"), "{error}");
}

#[test]
fn every_wrong_field_of_an_override_is_named() {
    let sound = json!({"instances": [
        {"name": "main", "routerID": "192.0.2.1", "asn": 65001, "listenPort": 1179,
         "peers": [{"name": "tor", "localAddress": "192.0.2.2", "port": 1179}]},
        {"name": "second"},
    ]});
    check::<BGPNodeOverride>(
        &sound,
        &[
            ("/instances/1/name", "spec.instances[1].name", json!("main")),
            ("/instances/0/routerID", "spec.instances[0].routerID", json!("0.0.0.0")),
            ("/instances/0/asn", "spec.instances[0].asn", json!(0)),
            ("/instances/0/listenPort", "spec.instances[0].listenPort", json!(0)),
            ("/instances/0/peers/0/port", "spec.instances[0].peers[0].port", json!(0)),
            ("/instances/0/peers/0/name", "spec.instances[0].peers[0].name", json!("")),
        ],
    );
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    for spec in
        [json!({"instances": [], "colour": 1}), json!({"instances": [{"name": "a", "asn": 1, "colour": 1}]})]
    {
        let error = object::<BGPClusterConfig>(&spec).expect_err("unknown");
        assert!(error.to_string().contains("colour"), "{error}");
    }
}

#[test]
fn a_status_stands_beside_what_people_wrote() {
    let written = json!({
        "apiVersion": "rhumb.io/v1alpha1", "kind": "BGPClusterConfig", "metadata": {"name": "racks"},
        "spec": {"nodeSelector": {}, "instances": [{"name": "main", "asn": 65000, "multipath": 16, "peers": []}]},
    });
    let plain: BGPClusterConfig = serde_json::from_value(written.clone()).expect("valid");
    assert_eq!(serde_json::to_value(&plain).expect("written"), written, "one that says nothing is not there");
    let mut told = written;
    told["status"] = json!({
        "nodes": 3, "conditions": [{"type": "NoMatchingNode", "status": "False", "since": "today"}], "mood": "good",
    });
    let read: BGPClusterConfig =
        serde_json::from_value(told).expect("what a newer operator says is passed over");
    assert_eq!((read.status.nodes, read.status.conditions.len()), (3, 1));
    let again: BGPClusterConfig =
        serde_json::from_value(serde_json::to_value(&read).expect("written")).expect("valid");
    assert_eq!(again, read);
}
