// SPDX-License-Identifier: Apache-2.0
//! The ways between the nodes of a cluster on two segments: who is reached directly and who through the tunnel, as
//! nodes say it, as counters say it and as the wire says it; and how that follows the network's routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_integration::lab::{self, AgentOptions, Capture, Lab, Node, Pinger, Pod, Spec, Stream};
use rhumb_model::Prefix;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const TUNNEL_PORT: u16 = 8472;

/// Nodes on the first and on the second segment, by index.
const HERE: [usize; 2] = [0, 2];
const THERE: usize = 1;

/// Three nodes, two of them on one segment; the world knows no pod CIDR.
struct Segments {
    lab: Lab,
    pods: Vec<Pod>,
    cidrs: Vec<Vec<Prefix>>,
}

impl Segments {
    fn build(name: &str, hold_down: &str) -> Self {
        let mut lab = Lab::build(Spec { nodes: 3, segments: 2, ..Spec::named(name) }).expect("built");
        lab.start_operator().expect("started");
        let args = ["--route-hold-down".to_owned(), hold_down.to_owned()];
        for node in 0..3 {
            let options = AgentOptions { args: args.to_vec(), ..AgentOptions::default() };
            lab.node_mut(node).start_agent_with(options).expect("started");
        }
        let pods = ["a", "b", "c"].iter().zip(lab.nodes());
        let pods = pods.map(|(name, node)| node.add_pod("default", name).expect("added")).collect();
        let cidrs = lab.nodes().iter().map(|node| node.pod_cidrs(lab.store()).expect("read")).collect();
        Self { lab, pods, cidrs }
    }

    /// Routes, as a fabric has them: the router knows every pod CIDR, and the nodes the router for those of the other
    /// segment.
    fn routes(&self, verb: &str) -> (String, [(usize, String); 3]) {
        let of = |node: usize, v4: &str, v6: &str| -> String {
            let via = |prefix: &Prefix| if prefix.addr().is_ipv4() { v4.to_owned() } else { v6.to_owned() };
            self.cidrs[node].iter().map(|cidr| format!("route {verb} {cidr} via {}\n", via(cidr))).collect()
        };
        let router = (0..3).map(|node| {
            let addresses = &self.lab.node(node).addresses;
            let (v4, v6) = (addresses[0], addresses[1]);
            of(node, &v4.to_string(), &v6.to_string())
        });
        let [first, second] = [["192.168.100.254", "fd00:192::fe"], ["192.168.101.254", "fd00:192:0:1::fe"]];
        let there: String = HERE.iter().map(|node| of(*node, second[0], second[1])).collect();
        let here = |node| (node, of(THERE, first[0], first[1]));
        (router.collect(), [here(HERE[0]), here(HERE[1]), (THERE, there)])
    }

    /// The router has routes before the nodes hear of them, and until they have heard that they go.
    fn fabric_has_routes(&self) {
        let (router, nodes) = self.routes("add");
        self.lab.router().ip(&router).expect("routed");
        for (node, routes) in nodes {
            self.lab.node(node).namespace().ip(&routes).expect("routed");
        }
    }

    /// The nodes lose their routes while the router still has its own: whatever is lost then, the nodes lost.
    fn fabric_has_none(&self) {
        let (router, nodes) = self.routes("del");
        for (node, routes) in nodes {
            self.lab.node(node).namespace().ip(&routes).expect("unrouted");
        }
        self.until("tunnel");
        self.lab.router().ip(&router).expect("unrouted");
    }

    /// The way from one node to the pods of another, when it is the same for both families.
    fn way(&self, from: usize, to: usize) -> String {
        let ways = ways(self.lab.node(from));
        let all: BTreeSet<&String> = self.cidrs[to].iter().map(|cidr| &ways[cidr]).collect();
        let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        all.join(" and ")
    }

    /// Waits until the ways between the segments are `word` on all nodes.
    fn until(&self, word: &str) {
        let begin = Instant::now();
        let pairs = [(HERE[0], THERE), (HERE[1], THERE), (THERE, HERE[0]), (THERE, HERE[1])];
        loop {
            let now: Vec<String> = pairs.iter().map(|(from, to)| self.way(*from, *to)).collect();
            if now.iter().all(|way| way == word) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{word} never comes: {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every pod reaches every other, and every other node.
    fn everybody_reaches_everybody(&self) {
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let targets = self.pods[to].addresses.iter().chain(&self.lab.node(to).addresses);
                for target in targets {
                    let reached = lab::ping(&self.pods[from].namespace, *target, PATIENCE);
                    assert!(reached.is_ok(), "{from} to {target}: {reached:?}");
                }
                for target in &self.pods[to].addresses {
                    let reached = lab::ping(self.lab.node(from).namespace(), *target, PATIENCE);
                    assert!(reached.is_ok(), "node {from} to {target}: {reached:?}");
                }
            }
        }
    }

    /// What the router sees while everybody talks to everybody: the destinations of packets in the tunnel, and pods'
    /// packets as they are.
    fn on_the_wire(&self) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let capture = Capture::open(self.lab.router()).expect("root may");
        self.everybody_reaches_everybody();
        let pods: BTreeSet<IpAddr> = self.pods.iter().flat_map(|pod| pod.addresses.clone()).collect();
        let seen = capture.take();
        let tunnelled = seen.iter().filter(|packet| packet.udp == Some(TUNNEL_PORT)).map(|packet| packet.to);
        let plain = seen.iter().filter(|packet| pods.contains(&packet.to)).map(|packet| packet.to);
        (tunnelled.collect(), plain.collect())
    }

    fn tunnelled_by(&self, node: usize) -> u64 {
        let counted = self.lab.node(node).packets().expect("counted");
        counted.iter().filter(|(_, reason, _)| reason == "forwarded_tunnel").map(|(.., count)| count).sum()
    }
}

/// The way to each pod CIDR of others as a node says it.
fn ways(node: &Node) -> BTreeMap<Prefix, String> {
    let list = node.show("route list").expect("told");
    let word = |route: &Value, name: &str| route[name].as_str().unwrap_or_default().to_owned();
    let routes = list.as_array().expect("a list").iter();
    routes.map(|route| (word(route, "prefix").parse().expect("a prefix"), word(route, "kind"))).collect()
}

#[test]
fn segments_are_joined_by_the_tunnel_until_the_fabric_has_routes_and_again_when_it_has_none() {
    let all = Segments::build("seg", "0.3");
    all.until("tunnel");
    assert_eq!([all.way(HERE[0], HERE[1]), all.way(HERE[1], HERE[0])], ["direct", "direct"]);
    let (tunnelled, plain) = all.on_the_wire();
    let nodes: BTreeSet<IpAddr> = all.lab.nodes().iter().map(|node| node.addresses[0]).collect();
    assert_eq!(tunnelled, nodes, "every node gets what is encapsulated");
    let neighbours = HERE.iter().flat_map(|node| all.pods[*node].addresses.clone()).collect();
    assert!(plain.is_subset(&neighbours), "{plain:?}");
    let before: Vec<u64> = (0..3).map(|node| all.tunnelled_by(node)).collect();
    assert!(before.iter().all(|count| *count > 0), "{before:?}");

    all.fabric_has_routes();
    all.until("fabric");
    let (tunnelled, plain) = all.on_the_wire();
    assert_eq!(tunnelled, BTreeSet::new(), "nothing is encapsulated any more");
    assert!(all.pods.iter().all(|pod| plain.contains(&pod.v4()) && plain.contains(&pod.v6())), "{plain:?}");
    assert_eq!((0..3).map(|node| all.tunnelled_by(node)).collect::<Vec<_>>(), before);

    all.fabric_has_none();
    let (tunnelled, _) = all.on_the_wire();
    assert_eq!(tunnelled, nodes);

    let changes = all.lab.node(THERE).show("route changes").expect("told");
    let of = |change: &Value| {
        ["from_kind", "to_kind", "why"].map(|key| change[key].as_str().expect("a word").to_owned())
    };
    let told: BTreeSet<[String; 3]> = changes.as_array().expect("a list").iter().map(of).collect();
    let expected = [
        ["none", "tunnel", "no_direct_way"],
        ["tunnel", "fabric", "hold_down_over"],
        ["fabric", "tunnel", "direct_gone"],
    ];
    assert_eq!(told, expected.map(|words| words.map(str::to_owned)).into());
    all.lab.close().expect("closed");
}

/// How often the routes go and come.
const ROUNDS: u32 = 50;

/// No chunk of a stream waits longer: a lost packet would make it wait for the shortest timeout of TCP.
const STALL: Duration = Duration::from_millis(200);

#[test]
fn no_packet_is_lost_through_fifty_withdrawn_and_restored_routes() {
    let all = Segments::build("flap", "0.01");
    all.fabric_has_routes();
    all.until("fabric");
    let [a, b] = [&all.pods[HERE[0]], &all.pods[THERE]];
    let streams =
        [b.v4(), b.v6()].map(|to| Stream::start(&a.namespace, &b.namespace, to).expect("connected"));
    let pings = [b.v4(), b.v6()]
        .map(|to| Pinger::start(&a.namespace, to, Duration::from_millis(10)).expect("started"));
    for _ in 0..ROUNDS {
        all.fabric_has_none();
        all.fabric_has_routes();
        all.until("fabric");
    }
    for stream in streams {
        let report = stream.stop().expect("no reset, and every chunk came back");
        assert!(report.chunks > 0 && report.longest < STALL, "{report:?}");
        assert!(report.nothing_lost().is_ok(), "{report:?}");
    }
    for ping in pings {
        let report = ping.stop().expect("told");
        assert!(report.all_answered().is_ok(), "{report:?}");
    }
    let counted = all.lab.node(THERE).show("metrics").expect("told");
    let fell = counted.as_array().expect("a list").iter().filter(|sample| {
        sample["name"] == "rhumb_route_changes_total" && sample["labels"].to_string().contains("direct_gone")
    });
    let fell: u64 = fell.filter_map(|sample| sample["value"].as_u64()).sum();
    let prefixes: usize = HERE.iter().map(|node| all.cidrs[*node].len()).sum();
    assert_eq!(fell, u64::from(ROUNDS) * u64::try_from(prefixes).expect("few"));
    all.lab.close().expect("closed");
}

#[test]
fn an_agent_that_starts_takes_nothing_away_before_it_knows_more() {
    let mut all = Segments::build("keep", "0.3");
    all.until("tunnel");
    let ours =
        |all: &Segments| all.lab.node(THERE).namespace().ip_show("route show proto 114").expect("told");
    let before = ours(&all);
    assert!(before.contains("dev rhumb_vxlan"), "{before}");
    let pings: Vec<Pinger> = [all.pods[HERE[0]].v4(), all.pods[HERE[1]].v6()]
        .map(|to| Pinger::start(&all.pods[THERE].namespace, to, Duration::from_millis(5)).expect("started"))
        .into();
    all.lab.node_mut(THERE).kill_agent().expect("killed");
    // No store: the agent hears plugins and knows nothing of other nodes.
    let nowhere = AgentOptions {
        wait: lab::Wait::Serving,
        store: Some(all.lab.home().join("nowhere")),
        ..AgentOptions::default()
    };
    all.lab.node_mut(THERE).start_agent_with(nowhere).expect("started");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ours(&all), before);
    for ping in pings {
        let report = ping.stop().expect("told");
        assert!(report.all_answered().is_ok(), "{report:?}");
    }
    all.lab.close().expect("closed");
}
