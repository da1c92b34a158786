// SPDX-License-Identifier: Apache-2.0
//! The ways between the nodes of a cluster on two segments: who is reached directly and who through the tunnel, as
//! nodes say it, as counters say it and as the wire says it; and how that follows the network's routes.

#![expect(clippy::print_stderr, reason = "a test prints what it measured")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_integration::lab::{
    self, AgentOptions, Capture, DatagramReport, Datagrams, Lab, Namespace, Node, Pinger, Pod, Slow, Spec,
    Stream, StreamReport, Ways,
};
use rhumb_model::Prefix;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const TUNNEL_PORT: u16 = 8472;

/// Nodes on the first and on the second segment, by index.
const HERE: [usize; 2] = [0, 2];
const THERE: usize = 1;

/// Three nodes, two of them on one segment; the world knows no pod CIDR.
struct Segments {
    // Before the lab whose agents tell them.
    ways: Vec<Ways>,
    pods: Vec<Pod>,
    cidrs: Vec<Vec<Prefix>>,
    lab: Lab,
}

/// Whose routes are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Router,
    Node(usize),
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
        let ways = lab.nodes().iter().map(|node| node.follow_ways().expect("started")).collect();
        Self { ways, pods, cidrs, lab }
    }

    /// Routes, as a fabric has them: the router knows every pod CIDR, and the nodes the router for those of the other
    /// segment.
    fn change(&self, who: Who, verb: &str) {
        let of = |node: usize, [v4, v6]: [&str; 2]| -> String {
            let via = |prefix: &Prefix| if prefix.addr().is_ipv4() { v4 } else { v6 };
            self.cidrs[node].iter().map(|cidr| format!("route {verb} {cidr} via {}\n", via(cidr))).collect()
        };
        let first = ["192.168.100.254", "fd00:192::fe"];
        let second = ["192.168.101.254", "fd00:192:0:1::fe"];
        match who {
            Who::Router => {
                let router = (0..3).map(|node| {
                    let own: Vec<String> =
                        self.lab.node(node).addresses.iter().map(ToString::to_string).collect();
                    of(node, [&own[0], &own[1]])
                });
                self.lab.router().ip(&router.collect::<String>()).expect("the router's routes change");
            }
            Who::Node(node) => {
                let routes: String = if node == THERE {
                    HERE.iter().map(|node| of(*node, second)).collect()
                } else {
                    of(THERE, first)
                };
                self.lab.node(node).namespace().ip(&routes).expect("the node's routes change");
            }
        }
    }

    /// The router has routes before the nodes hear of them, and until they have heard that they go.
    fn fabric_has_routes(&self) {
        for who in [Who::Router, Who::Node(HERE[0]), Who::Node(HERE[1]), Who::Node(THERE)] {
            self.change(who, "add");
        }
    }

    /// The nodes lose their routes while the router still has its own: whatever is lost then, the nodes lost.
    fn fabric_has_none(&mut self) {
        for node in [HERE[0], HERE[1], THERE] {
            self.change(Who::Node(node), "del");
        }
        self.until("tunnel");
        self.change(Who::Router, "del");
    }

    /// The way from one node to the pods of another, when it is the same for both families.
    fn way(&self, from: usize, to: usize) -> String {
        let ways = ways(self.lab.node(from));
        let all: BTreeSet<&String> = self.cidrs[to].iter().map(|cidr| &ways[cidr]).collect();
        let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        all.join(" and ")
    }

    /// Waits until the ways between the segments are `word` on all nodes.
    fn until(&mut self, word: &str) {
        let there = self.cidrs[THERE].clone();
        let here: Vec<Prefix> = HERE.iter().flat_map(|node| self.cidrs[*node].clone()).collect();
        for (node, ways) in self.ways.iter_mut().enumerate() {
            let prefixes = if node == THERE { &here } else { &there };
            ways.until(prefixes, word, PATIENCE).expect("the way comes");
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
        let tunnelled =
            seen.iter().filter(|packet| packet.udp() == Some(TUNNEL_PORT)).map(|packet| packet.to);
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
    let mut all = Segments::build("seg", "0.3");
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

/// Between two datagrams.
const INTERVAL: Duration = Duration::from_millis(10);

/// No chunk of a stream waits longer: a lost packet would make it wait for the shortest timeout of TCP.
const STALL: Duration = Duration::from_millis(200);

#[test]
fn no_packet_is_lost_through_fifty_withdrawn_and_restored_routes() {
    let mut all = Segments::build("flap", "0.01");
    all.fabric_has_routes();
    all.until("fabric");
    let [a, b] = [&all.pods[HERE[0]], &all.pods[THERE]];
    let streams =
        [b.v4(), b.v6()].map(|to| Stream::start(&a.namespace, &b.namespace, to).expect("connected"));
    let series = [b.v4(), b.v6()]
        .map(|to| Datagrams::start(&a.namespace, &b.namespace, to, INTERVAL).expect("answered"));
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
    for series in series {
        let report = series.stop().expect("told");
        assert!(report.nothing_lost().is_ok(), "{report:?}");
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

/// A time in which some have routes and some have none.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    begin: Instant,
    /// When the last command was done.
    commanded: Instant,
    end: Instant,
}

impl Unsettled {
    /// Whether what was sent then may have been lost. What was sent just before may still have been under way.
    fn explains(&self, sent: Instant) -> bool {
        sent + INTERVAL >= self.begin && sent <= self.end
    }

    /// Whether a chunk that was under way for this time can have met it.
    fn meets(&self, slow: &Slow) -> bool {
        self.begin <= slow.sent + slow.took && slow.sent <= self.end
    }
}

/// The longest time that a chunk can take whose repetitions met these times: TCP waits for a fifth of a second, and each
/// time for twice as long as before.
fn bound(met: &[&Unsettled]) -> Duration {
    let waits: u32 = (0..met.len()).map(|number| 1 << number).sum();
    Duration::from_millis(250) * waits + met.iter().map(|time| (time.end - time.begin) * 2).sum::<Duration>()
}

/// Every order in which four can come, one after the other.
fn order(round: u32) -> Vec<Who> {
    let mut left = vec![Who::Router, Who::Node(HERE[0]), Who::Node(HERE[1]), Who::Node(THERE)];
    let mut number = usize::try_from(round).expect("small") % 24;
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.remove(number % left.len()));
        number /= left.len() + 1;
    }
    order
}

/// Packets that were dropped in a namespace for want of a route.
fn without_route(namespace: &Namespace) -> u64 {
    let read = || {
        let v4 = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
        let v6 = std::fs::read_to_string("/proc/thread-self/net/snmp6")?;
        Ok((v4, v6))
    };
    let (v4, v6) = namespace.run(read).expect("the kernel counts");
    let mut lines = v4.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let v4 = pairs.find(|(name, _)| *name == "InNoRoutes").expect("counted").1;
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6InNoRoutes")).expect("counted");
    [v4, v6].iter().map(|count| count.trim().parse::<u64>().expect("a number")).sum()
}

#[test]
fn abrupt_withdrawals_cost_what_the_network_drops_until_the_nodes_have_heard() {
    let mut all = Segments::build("abrupt", "0.05");
    all.fabric_has_routes();
    all.until("fabric");
    let [a, b] = [&all.pods[HERE[0]], &all.pods[THERE]];
    let streams =
        [b.v4(), b.v6()].map(|to| Stream::start(&a.namespace, &b.namespace, to).expect("connected"));
    let series = [b.v4(), b.v6()]
        .map(|to| Datagrams::start(&a.namespace, &b.namespace, to, INTERVAL).expect("answered"));
    let before = without_route(all.lab.router());
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        for (verb, word, order) in [("del", "tunnel", order(round)), ("add", "fabric", order(round * 7 + 5))]
        {
            let begin = Instant::now();
            for who in order {
                all.change(who, verb);
            }
            let commanded = Instant::now();
            all.until(word);
            times.push(Unsettled { begin, commanded, end: Instant::now() });
        }
    }
    let streams = streams.map(|stream| stream.stop().expect("no reset, and every chunk came back"));
    let series = series.map(|series| series.stop().expect("told"));
    let dropped = without_route(all.lab.router()) - before;
    tell(&times, &streams, &series, dropped);

    for report in &streams {
        assert!(report.chunks > 0, "{report:?}");
        for slow in &report.slow {
            assert!(times.iter().any(|time| time.explains(slow.sent)), "{slow:?} {times:?}");
            let met: Vec<&Unsettled> = times.iter().filter(|time| time.meets(slow)).collect();
            assert!(slow.took < bound(&met), "{slow:?} {met:?}");
        }
    }
    for report in &series {
        let explained = |sent: &Instant| times.iter().any(|time| time.explains(*sent));
        assert!(report.lost.iter().all(explained), "{report:?}");
        assert!(report.errors.is_empty() && report.seen_as.len() == 1, "{report:?}");
    }
    let lost: usize = series.iter().map(|report| report.lost.len()).sum();
    // The kernel counts those of all streams together; an answer that is lost takes its acknowledgement along, and
    // both sides send again.
    let again = streams.iter().map(|report| report.retransmitted).max().expect("two streams");
    assert!(u64::try_from(lost).expect("few") + again / 2 <= dropped, "{lost} and {again} of {dropped}");
    all.lab.close().expect("closed");
}

/// Prints what was seen.
fn tell(times: &[Unsettled], streams: &[StreamReport], series: &[DatagramReport], dropped: u64) {
    let mut heard: Vec<Duration> = times.iter().step_by(2).map(|time| time.end - time.commanded).collect();
    heard.sort();
    eprintln!(
        "all nodes on the tunnel {:?} after the last withdrawal at the median, {:?} at most",
        heard[heard.len() / 2],
        heard[heard.len() - 1]
    );
    for StreamReport { chunks, longest, slow, retransmitted } in streams {
        let took: Vec<u128> = slow.iter().map(|Slow { took, .. }| took.as_millis()).collect();
        eprintln!(
            "TCP: {chunks} chunks, the slowest {longest:?}; {retransmitted} sent again; stalls in ms {took:?}"
        );
    }
    for report in series {
        let (lost, there) = (report.lost.len(), report.sent - report.arrived);
        eprintln!("UDP: {lost} of {} lost, {there} of them on their way there", report.sent);
    }
    eprintln!("the router dropped {dropped} packets for want of a route");
}

#[test]
fn an_agent_that_starts_takes_nothing_away_before_it_knows_more() {
    let mut all = Segments::build("keep", "0.3");
    all.until("tunnel");
    all.ways.clear();
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
    let known = before.lines().count();
    let begin = Instant::now();
    // An agent answers between its passes: one that tells of the routes has made a pass that knew them.
    while objects(all.lab.node(THERE), "host route") < known {
        assert!(begin.elapsed() < PATIENCE, "the agent sees no routes");
        // Nobody is told of a pass: it is asked for.
        std::thread::sleep(INTERVAL);
    }
    assert_eq!(ours(&all), before);
    for ping in pings {
        let report = ping.stop().expect("told");
        assert!(report.all_answered().is_ok(), "{report:?}");
    }
    all.lab.close().expect("closed");
}

/// How many objects of a kind a node knows.
fn objects(node: &Node, kind: &str) -> usize {
    let status = node.show("status").expect("told");
    let mut targets = status["targets"].as_array().expect("a list").iter();
    let target = targets.find(|target| target["kind"] == kind).expect("a kind of object");
    target["objects"].as_u64().and_then(|count| count.try_into().ok()).expect("a number")
}
