// SPDX-License-Identifier: Apache-2.0
//! Nodes with agent, operator and speaker, and a BIRD in the place of their router: who is found as a peer, what it is
//! told of pods and services, and what changes when pods, endpoints, keys and objects do.

mod peers;

use std::time::Duration;

use peers::cluster::{advertisement, apply, everything, object, pod_cidrs, quick, start};
use peers::{Bird, Net, until, within};
use rhumb_integration::lab::{Lab, Node, Spec};
use serde_json::{Value, json};

/// Keys are looked at every 30 seconds, and nothing else takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes' router, in the lab's router namespace.
struct Router<'a> {
    net: &'a Net,
    bird: Bird,
}

impl<'a> Router<'a> {
    fn start(net: &'a Net, text: &str) -> Self {
        Self { net, bird: Bird::start(net, "router", "four1", text) }
    }

    fn configure(&self, text: &str) {
        self.bird.configure(self.net, "router", text);
    }

    /// How many sessions are established.
    fn sessions(&self) -> usize {
        self.bird.ask("show protocols").lines().filter(|line| line.contains("Established")).count()
    }

    /// The nodes by which the router reaches a prefix, by the last part of their address.
    fn ways(&self, prefix: &str) -> Vec<String> {
        let told = self.bird.show_route(prefix);
        let lines = told.lines().filter_map(|line| line.trim().strip_prefix("via "));
        let mut ways: Vec<String> = lines
            .filter_map(|line| line.split_whitespace().next()?.rsplit(['.', ':']).next().map(str::to_owned))
            .collect();
        ways.sort();
        ways
    }

    fn until_ways(&self, prefix: &str, ways: &[&str]) {
        until(&format!("{prefix} by {ways:?}"), || self.ways(prefix) == ways);
    }

    /// What the router's kernel does with packets to a prefix.
    fn kernel(&self, prefix: &str) -> String {
        self.net.kernel_route("router", "main", prefix).unwrap_or_default()
    }
}

/// BIRD takes every node of the segment: one session of each family with this key.
fn router(key: &str) -> String {
    let times = "connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 5;";
    let sessions = format!(
        r#"protocol bgp four {{
                local 192.168.100.254 as 64512; neighbor range 192.168.100.0/24 as 65000; dynamic name "four";
                password "{key}"; {times}
                ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};
            }}
            protocol bgp six {{
                local fd00:192::fe as 64512; neighbor range fd00:192::/64 as 65000; dynamic name "six";
                password "{key}"; {times}
                ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }};
            }}"#
    );
    format!(
        r#"router id 192.168.100.254;
        protocol device {{}}
        protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
        protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}
        protocol static s4 {{ ipv4; route 198.51.100.0/24 blackhole; }}
        protocol static s6 {{ ipv6; route 2001:db8:51::/48 blackhole; }}
        {sessions}"#
    )
}

fn set_key(lab: &Lab, key: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "kube-system", "name": "fabric"},
        "stringData": {"password": key},
    });
    apply(lab, [secret]);
}

/// Every node speaks with whom `finds` finds.
fn speak(lab: &Lab, finds: Value) {
    let mut peer = json!({"name": "fabric", "asn": 64512, "peerConfig": "fabric"});
    for (field, value) in finds.as_object().expect("an object") {
        peer[field] = value.clone();
    }
    let config = json!({
        "timers": quick(), "authSecret": {"name": "fabric"}, "import": everything(),
    });
    let cluster = json!({"instances": [{"name": "main", "asn": 65000, "listenPort": 179, "peers": [peer]}]});
    apply(lab, [object("BGPPeerConfig", "fabric", config), object("BGPClusterConfig", "fabric", cluster)]);
}

fn advertise(lab: &Lab, name: &str, routes: &Value) {
    apply(lab, [advertisement(name, routes)]);
}

/// What the node's kernel does with packets to a learned prefix.
fn learned(net: &Net, node: &Node, prefix: &str) -> String {
    net.kernel_route(&node.name, "7268", prefix).unwrap_or_default()
}

#[test]
fn the_default_gateway_of_both_families_is_told_of_pods_and_its_key_can_change() {
    let mut lab = Lab::build(Spec::named("bgpg")).expect("the lab is built");
    speak(&lab, json!({"defaultGateway": {"families": ["ipv4", "ipv6"]}}));
    advertise(&lab, "blocks", &json!({"type": "PodCIDR"}));
    let shown = json!({"type": "Pod", "selector": {"matchLabels": {"shown": "yes"}}});
    advertise(&lab, "pods", &shown);
    start(&mut lab);
    let lab = lab;
    let net = Net::in_lab(&lab, &[]);
    let bird = Router::start(&net, &router("one"));

    // Without its key a peer is left out, and each node says so.
    for node in lab.nodes() {
        let is_missing = |state: &Value| {
            let mut conditions = state["status"]["conditions"].as_array().into_iter().flatten();
            conditions.any(|one| one["type"] == "BGPMissingAuthSecret" && one["status"] == "True")
        };
        let said = lab.store().wait_until("the condition", PATIENCE, |store| {
            Ok(store.get("NodeState", "", &node.name)?.filter(is_missing))
        });
        said.expect("published");
        assert_eq!(node.show("bgp peers").expect("answered"), json!([]));
    }
    set_key(&lab, "one");
    until("two sessions of each node", || bird.sessions() == 4);
    for (node, number) in [(0, "1"), (1, "2")] {
        for prefix in pod_cidrs(&lab, node) {
            bird.until_ways(&prefix, &[number]);
            until("the router's kernel", || bird.kernel(&prefix).contains(" via "));
        }
        for (prefix, via) in [("198.51.100.0/24", "192.168.100.254"), ("2001:db8:51::/48", "fe80::")] {
            until("the node's kernel", || {
                learned(&net, lab.node(node), prefix).contains(&format!("via {via}"))
            });
        }
    }

    // What the operator says of the object as a whole.
    let said = lab.store().wait_until("a status", PATIENCE, |store| {
        let config = store.get("BGPClusterConfig", "", "fabric")?;
        Ok(config.map(|config| config["status"].clone()).filter(|status| status["nodes"] == 2))
    });
    let said = said.expect("written");
    let conditions = said["conditions"].as_array().expect("a list");
    assert!(conditions.len() == 3 && conditions.iter().all(|one| one["status"] == "False"), "{said}");

    // One pod by its labels, for as long as it is attached.
    let labelled = |name: &str, labels: Value| {
        lab.store().apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name, "labels": labels},
        }))
    };
    labelled("web", json!({"shown": "yes"})).expect("written");
    labelled("dark", json!({})).expect("written");
    let (web, dark) = (
        lab.node(0).add_pod("default", "web").expect("attached"),
        lab.node(0).add_pod("default", "dark").expect("attached"),
    );
    let [v4, v6] = [format!("{}/32", web.v4()), format!("{}/128", web.v6())];
    bird.until_ways(&v4, &["1"]);
    bird.until_ways(&v6, &["1"]);
    assert_eq!(bird.ways(&format!("{}/32", dark.v4())), [""; 0]);
    lab.node(0).del_pod(web).expect("detached");
    bird.until_ways(&v4, &[]);
    bird.until_ways(&v6, &[]);
    lab.node(0).del_pod(dark).expect("detached");

    // The key becomes another one, first at the router: sessions with the old one end, and come back with the new one.
    let established = |node: &Node| {
        let peers = node.show("bgp peers").expect("the speaker answers");
        let counts = peers.as_array().expect("a list").iter().map(|it| it["established_count"].as_u64());
        counts.map(|count| count.unwrap_or(0)).min().unwrap_or(0)
    };
    bird.configure(&router("two"));
    set_key(&lab, "two");
    let is_new = || bird.sessions() == 4 && lab.nodes().iter().all(|node| established(node) >= 2);
    assert!(within(PATIENCE, is_new), "no sessions with the new key");
    for (node, number) in [(0, "1"), (1, "2")] {
        for prefix in pod_cidrs(&lab, node) {
            bird.until_ways(&prefix, &[number]);
        }
    }
}

/// A service with an address of each kind, and where its endpoints are.
fn serve(lab: &Lab, policy: &str, ready: &[&str]) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "web", "labels": {"tier": "front"}},
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"], "externalIPs": ["192.0.2.80"],
            "type": "LoadBalancer", "externalTrafficPolicy": policy,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.129"}]}},
    });
    let endpoints: Vec<Value> = ["n1", "n2"]
        .iter()
        .map(|node| {
            json!({"addresses": ["10.244.0.2"], "nodeName": node, "conditions": {"ready": ready.contains(node)}})
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
    });
    apply(lab, [service, slice]);
}

#[test]
fn services_are_told_where_endpoints_take_packets() {
    let mut lab = Lab::build(Spec::named("bgps")).expect("the lab is built");
    set_key(&lab, "one");
    speak(&lab, json!({"defaultGateway": {"families": ["ipv4", "ipv6"]}}));
    let chosen = json!({"matchLabels": {"tier": "front"}});
    let kinds = json!(["ClusterIP", "ExternalIP", "LoadBalancerIP"]);
    advertise(
        &lab,
        "services",
        &json!({"type": "Service", "selector": chosen, "service": {"addresses": kinds}}),
    );
    serve(&lab, "Cluster", &["n1"]);
    start(&mut lab);
    let lab = lab;
    let net = Net::in_lab(&lab, &[]);
    let bird = Router::start(&net, &router("one"));
    let all = ["10.96.0.10/32", "fd00:96::a/128", "192.0.2.80/32", "192.0.2.129/32"];
    for prefix in all {
        bird.until_ways(prefix, &["1", "2"]);
    }

    // From outside only to nodes with an endpoint; the address of the cluster is another policy's.
    serve(&lab, "Local", &["n1"]);
    for prefix in ["192.0.2.80/32", "192.0.2.129/32"] {
        bird.until_ways(prefix, &["1"]);
    }
    assert_eq!(bird.ways("10.96.0.10/32"), ["1", "2"]);
    serve(&lab, "Local", &["n2"]);
    bird.until_ways("192.0.2.129/32", &["2"]);
    serve(&lab, "Local", &[]);
    for prefix in all {
        bird.until_ways(prefix, &[]);
    }

    // Without endpoints by choice; in blocks, where the node drops what nobody serves.
    let anyway = json!({
        "addresses": kinds, "withoutEndpoints": true, "aggregation": {"ipv4": 24, "ipv6": 64},
    });
    advertise(&lab, "services", &json!({"type": "Service", "selector": chosen, "service": anyway}));
    bird.until_ways("10.96.0.0/24", &["1", "2"]);
    bird.until_ways("fd00:96::/64", &["1", "2"]);
    for node in lab.nodes() {
        for prefix in ["10.96.0.0/24", "fd00:96::/64"] {
            until("the node drops the rest", || learned(&net, node, prefix).starts_with("blackhole"));
        }
    }
    assert_eq!(bird.ways("192.0.2.129/32"), [""; 0], "no endpoint takes packets of the policy Local");
    let other = json!({"matchLabels": {"tier": "back"}});
    advertise(&lab, "services", &json!({"type": "Service", "selector": other, "service": anyway}));
    bird.until_ways("10.96.0.0/24", &[]);
    for node in lab.nodes() {
        until("nothing is dropped any more", || learned(&net, node, "10.96.0.0/24").is_empty());
    }
}
