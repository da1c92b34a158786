// SPDX-License-Identifier: Apache-2.0
//! Four nodes with agent and speaker, two of which reflect routes because a label of their Node objects says so: the others
//! learn of each other by them alone, one of the two can die, and a label makes another one.

mod peers;

use std::time::Duration;

use peers::cluster::{advertisement, apply, object, pod_cidrs, quick, routes, sessions, start};
use peers::{Monitor, Net, until};
use rhumb_integration::lab::{Lab, Pinger, Spec, Ways};
use rhumb_model::Prefix;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(40);

fn node_object(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

fn configure(lab: &Lab) {
    let reflects = json!({"role": "reflector"});
    let peer = json!({
        "name": "fabric", "peerConfig": "quick",
        "routeReflectors": {"nodeSelector": {"matchLabels": reflects}},
    });
    let cluster = json!({"instances": [{
        "name": "main", "asn": 65000, "listenPort": 179, "clusterID": "192.0.2.100", "peers": [peer],
    }]});
    // Nothing of a reflector that died is kept.
    let config = json!({"timers": quick(), "gracefulRestart": {"enabled": false}});
    apply(
        lab,
        [
            node_object("n1", reflects.clone()),
            node_object("n2", reflects),
            object("BGPPeerConfig", "quick", config),
            object("BGPClusterConfig", "reflected", cluster),
            advertisement("pods", &json!({"type": "PodCIDR"})),
        ],
    );
}

/// Who told a node of a prefix.
fn tellers(lab: &Lab, node: usize, prefix: &str) -> Vec<String> {
    let told = routes(lab.node(node), "in").into_iter().filter(|route| route["prefix"] == prefix);
    told.map(|route| route["peer"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn clients_learn_by_reflectors_alone_and_one_of_two_is_enough() {
    let mut lab = Lab::build(Spec { nodes: 4, ..Spec::named("bgpl") }).expect("the lab is built");
    let net = Net::in_lab(&lab, &[]);
    configure(&lab);
    start(&mut lab);
    let (a, b) = ("main/fabric/n1", "main/fabric/n2");
    for client in [2, 3] {
        until("sessions with both reflectors", || sessions(lab.node(client)).len() == 2);
        assert_eq!(sessions(lab.node(client)), [a, b], "clients do not speak with each other");
    }
    until("reflectors speak with all", || (0..2).all(|node| sessions(lab.node(node)).len() == 3));
    for (client, other) in [(2, 3), (3, 2)] {
        for prefix in pod_cidrs(&lab, other) {
            until("both reflectors tell", || tellers(&lab, client, &prefix) == [a, b]);
            let address = &lab.node(other).addresses[usize::from(prefix.contains(':'))];
            until("the kernel has the way to the other client itself", || {
                let route = net.kernel_route(&lab.node(client).name, "7268", &prefix).unwrap_or_default();
                route.contains(&format!("via {address} dev eth0"))
            });
        }
    }

    // The forwarding plane goes by what was learned.
    let pods = [2, 3].map(|node| lab.node(node).add_pod("default", "pod").expect("attached"));
    let remote: Vec<Prefix> = lab.node(3).pod_cidrs(lab.store()).expect("assigned");
    let mut ways = lab.node(2).follow_ways().expect("told");
    ways.until(&remote, "fabric", PATIENCE).expect("the learned routes are taken");
    let turns = |ways: &mut Ways| {
        let turns = ways.turns().expect("told").iter();
        turns.filter(|turn| remote.contains(&turn.prefix)).count()
    };
    let before = turns(&mut ways);
    let monitor = Monitor::start(&net, "n3");
    let pingers: Vec<Pinger> = [pods[1].v4(), pods[1].v6()]
        .into_iter()
        .map(|pod| Pinger::start(&pods[0].namespace, pod, Duration::from_millis(5)).expect("answered"))
        .collect();

    lab.node_mut(0).kill_bgp().expect("killed");
    for client in [2, 3] {
        until("the dead reflector is noticed", || sessions(lab.node(client)) == [b]);
        for prefix in pod_cidrs(&lab, 5 - client) {
            until("nothing of it is left", || tellers(&lab, client, &prefix) == [b]);
        }
    }
    // A packet of each series after that.
    for pod in [pods[1].v4(), pods[1].v6()] {
        rhumb_integration::lab::ping(&pods[0].namespace, pod, PATIENCE).expect("answered");
    }
    for pinger in pingers {
        pinger.stop().expect("ended").all_answered().expect("nothing is lost");
    }
    for prefix in pod_cidrs(&lab, 3) {
        assert_eq!(monitor.removed(&prefix), None, "the route to {prefix} was away");
    }
    assert_eq!(turns(&mut ways), before, "no other way was taken meanwhile");

    // A label makes a client a reflector.
    apply(&lab, [node_object("n3", json!({"role": "reflector"}))]);
    let c = "main/fabric/n3";
    until("the other client has two again", || sessions(lab.node(3)) == [b, c]);
    for prefix in pod_cidrs(&lab, 1) {
        until("the new one reflects as well", || tellers(&lab, 3, &prefix) == [b, c]);
    }
}
