// SPDX-License-Identifier: Apache-2.0
//! Ways that are there and do not carry: a neighbour that answers no more, a path that dies behind a gateway that
//! lives. And agents that are away, whose nodes are still reached as before.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_integration::lab::{self, AgentOptions, Datagrams, Lab, Pod, Spec, Stream, Ways};
use rhumb_model::Prefix;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(10);
const HOLD_DOWN: &str = "0.3";

/// Two nodes with a pod each, and what each tells of its ways to the other.
struct Pair {
    // Before the lab whose agents tell them.
    ways: Vec<Ways>,
    pods: Vec<Pod>,
    cidrs: Vec<[Prefix; 2]>,
    lab: Lab,
}

impl Pair {
    fn build(name: &str, segments: usize, more: &[&str]) -> Self {
        let mut lab = Lab::build(Spec { segments, ..Spec::named(name) }).expect("the lab is built");
        lab.start_operator().expect("started");
        for node in 0..2 {
            start(&mut lab, node, more);
        }
        let pods = lab.nodes().iter().map(|node| node.add_pod("default", "pod").expect("added")).collect();
        let cidrs = lab.nodes().iter().map(|node| {
            let mut cidrs = node.pod_cidrs(lab.store()).expect("read");
            cidrs.sort_by_key(|cidr| cidr.addr().is_ipv6());
            cidrs.try_into().expect("one of each family")
        });
        let cidrs = cidrs.collect();
        let ways = lab.nodes().iter().map(|node| node.follow_ways().expect("started")).collect();
        Self { ways, pods, cidrs, lab }
    }

    /// Waits until both nodes reach each other's pods of the one family by `v4` and of the other by `v6`.
    fn until(&mut self, v4: &str, v6: &str) {
        for (node, other) in [(0, 1), (1, 0)] {
            for (prefix, word) in self.cidrs[other].into_iter().zip([v4, v6]) {
                self.ways[node].until(&[prefix], word, PATIENCE).expect("the way comes");
            }
        }
    }

    /// Waits until a node gives one of these reasons for each of its ways to the other's pods, of both families.
    fn until_reason(&self, node: usize, why: &[&str]) {
        let begin = Instant::now();
        loop {
            let list = self.lab.node(node).show("route list").expect("told");
            let mut routes = list.as_array().expect("a list").iter();
            let of_others = |route: &&serde_json::Value| route["why"].is_string();
            if routes.clone().any(|route| of_others(&route))
                && routes.by_ref().filter(of_others).all(|route| why.iter().any(|why| route["why"] == *why))
            {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{why:?} never comes: {list:#}");
            // The agent tells of ways that change, and a reason may change without its way.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a node says this of the other's agent, at all its addresses.
    fn until_probe(&self, node: usize, state: &str) {
        let begin = Instant::now();
        loop {
            let rows = self.lab.node(node).show("route probes").expect("told");
            let rows = rows.as_array().expect("a list");
            if rows.len() == 2 && rows.iter().all(|row| row["state"] == state) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{state} never comes: {rows:?}");
            // Nobody is told of what the probe knows: it is asked for.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The reasons for which a node changed between sorts of ways to one of the other's prefixes, after the first.
    fn reasons(&mut self, node: usize, family: usize) -> Vec<String> {
        let prefix = self.cidrs[1 - node][family];
        let turns = self.ways[node].turns().expect("told").iter().filter(|turn| turn.prefix == prefix);
        let others = turns.skip(1).filter(|turn| turn.words[0] != turn.words[1]);
        others.map(|turn| turn.words[2].clone()).collect()
    }

    fn pods_reach_each_other(&self) {
        for (from, to) in [(0, 1), (1, 0)] {
            for target in [self.pods[to].v4(), self.pods[to].v6()] {
                lab::ping(&self.pods[from].namespace, target, PATIENCE).expect("answered");
            }
        }
    }
}

fn start(lab: &mut Lab, node: usize, more: &[&str]) {
    let words = ["--route-hold-down", HOLD_DOWN].iter().chain(more);
    let args = words.map(|word| (*word).to_owned()).collect();
    lab.node_mut(node).start_agent_with(AgentOptions { args, ..AgentOptions::default() }).expect("started");
}

/// Loads rules into the router's namespace.
fn nft(lab: &Lab, rules: &str) -> Result<()> {
    use std::io::Write as _;
    let mut nft = lab.router().command("nft");
    let mut child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("run nft")?;
    child.stdin.take().context("the pipe was asked for")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "nft takes\n{rules}");
    Ok(())
}

/// A table that applies this rule to all that is forwarded.
fn lost(family: &str, rule: &str) -> String {
    format!(
        "table {family} lost {{\nchain forwarded {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}\n"
    )
}

#[test]
fn an_agent_that_is_away_takes_no_direct_way_down() {
    let mut all = Pair::build("away", 1, &[]);
    all.until("direct", "direct");
    all.until_probe(0, "answering");
    all.until_probe(1, "answering");
    let [a, b] = [&all.pods[0], &all.pods[1]];
    let stream = Stream::start(&a.namespace, &b.namespace, b.v4()).expect("connected");
    let series = Datagrams::start(&a.namespace, &b.namespace, b.v6(), INTERVAL).expect("answered");

    all.lab.node_mut(1).agent().expect("it runs").signal(Signal::STOP).expect("stopped in its tracks");
    all.until_probe(0, "away");
    all.lab.node_mut(1).agent().expect("it runs").signal(Signal::CONT).expect("woken");
    all.until_probe(0, "answering");

    all.lab.node_mut(1).kill_agent().expect("killed");
    all.until_probe(0, "away");
    // As an agent of a version without probes.
    start(&mut all.lab, 1, &["--probe", "off"]);
    series_goes_on(&series, Duration::from_secs(4));
    all.until_probe(0, "away");
    assert_eq!([all.reasons(0, 0), all.reasons(0, 1)], [vec![""; 0], vec![]]);
    let rows = all.lab.node(1).show("route probes").expect("told");
    assert_eq!(rows, serde_json::json!([]));

    let report = series.stop().expect("told");
    report.nothing_lost().expect("no datagram is lost");
    stream.stop().expect("no reset").nothing_lost().expect("no segment is lost");
    all.lab.close().expect("closed");
}

/// Waits until as many datagrams have come back as are sent in this time.
fn series_goes_on(series: &Datagrams, time: Duration) {
    let (begin, before) = (Instant::now(), series.received());
    let wanted = u64::try_from(time.as_millis() / INTERVAL.as_millis()).expect("short");
    while series.received() < before + wanted {
        assert!(begin.elapsed() < PATIENCE, "the series stands still");
        // The time that so many datagrams take is what is waited for.
        std::thread::sleep(INTERVAL);
    }
}

#[test]
fn a_path_that_dies_behind_a_living_gateway_is_left_until_the_node_answers_again() {
    let mut all = Pair::build("path", 2, &[]);
    all.until("tunnel", "tunnel");
    // The fabric's routes, which stay for the whole time.
    let gateways = [["192.168.100.254", "fd00:192::fe"], ["192.168.101.254", "fd00:192:0:1::fe"]];
    let via = |node: usize, via: [&dyn std::fmt::Display; 2]| -> String {
        let pairs = all.cidrs[node].iter().zip(via);
        pairs.map(|(cidr, via)| format!("route replace {cidr} via {via}\n")).collect()
    };
    for node in 0..2 {
        let own = &all.lab.node(node).addresses;
        all.lab.router().ip(&via(node, [&own[0], &own[1]])).expect("routed");
        let [v4, v6] = gateways[1 - node];
        all.lab.node(1 - node).namespace().ip(&via(node, [&v4, &v6])).expect("routed");
    }
    all.until("fabric", "fabric");
    all.until_probe(0, "answering");
    all.until_probe(1, "answering");

    // Of IPv4, everything between the two is lost on the way, and nobody says so.
    nft(&all.lab, &lost("ip", "drop")).expect("taken");
    let died = Instant::now();
    all.until("tunnel", "fabric");
    let left = died.elapsed();
    eprintln!("both nodes on the tunnel {left:?} after the path died");
    assert!(left < Duration::from_secs(15), "{left:?}");
    // The tunnel leads to the other address of the node.
    let endpoint = |node: usize| -> IpAddr {
        let list = all.lab.node(node).show("route list").expect("told");
        let prefix = all.cidrs[1 - node][0].to_string();
        let route = list.as_array().expect("a list").iter().find(|route| route["prefix"] == *prefix);
        route.expect("it is listed")["gateway"].as_str().expect("an address").parse().expect("an address")
    };
    assert!([0, 1].map(endpoint).iter().all(IpAddr::is_ipv6));
    all.pods_reach_each_other();

    nft(&all.lab, "delete table ip lost").expect("taken");
    all.until("fabric", "fabric");
    all.pods_reach_each_other();
    for node in 0..2 {
        let told = all.reasons(node, 0);
        assert_eq!(told[told.len() - 2..], ["probe_lost", "probe_answered"], "{told:?}");
        let metrics = all.lab.node(node).show("metrics").expect("told").to_string();
        assert!(metrics.contains(r#"["reason","probe_lost"]"#), "{metrics}");
    }
    all.lab.close().expect("closed");
}

#[test]
fn a_neighbour_that_answers_no_more_is_reached_through_the_tunnel_until_it_is_back() {
    // The kernel's neighbours alone decide. It takes one that answered for reachable for up to 45 s: here for 3.
    let mut all = Pair::build("silent", 1, &["--probe", "off"]);
    all.until("direct", "direct");
    all.pods_reach_each_other();
    for (node, other) in [(0, 1), (1, 0)] {
        for family in ["ipv4", "ipv6"] {
            let name = format!("net/{family}/neigh/eth0/base_reachable_time_ms");
            all.lab.node(node).namespace().sysctl(&name, "2000").expect("set");
        }
        // Those who answered before are still believed for as long as was meant then.
        let known = all.lab.node(other).addresses.iter();
        let doubted: String = known.map(|addr| format!("neigh change {addr} dev eth0 nud stale\n")).collect();
        all.lab.node(node).namespace().ip(&doubted).expect("doubted");
    }

    // ARP goes unheard, as on a segment that lost its broadcasts; IPv6 is as before.
    nft(&all.lab, &lost("bridge", "ether type { arp, ip } drop")).expect("taken");
    all.until("tunnel", "direct");
    all.pods_reach_each_other();
    nft(&all.lab, "delete table bridge lost").expect("taken");
    all.until("direct", "direct");
    all.pods_reach_each_other();
    for node in 0..2 {
        assert_eq!(all.reasons(node, 0), ["no_answer", "hold_down_over"], "node {node}");
        assert_eq!(all.reasons(node, 1), [""; 0], "node {node}");
    }

    // Its cable is pulled: no way is better than the one there is, which stays, and the node says so.
    let cable = all.lab.node(1).name.clone();
    all.lab.router().ip(&format!("link set {cable} down")).expect("pulled");
    all.until_reason(0, &["nothing_better"]);
    assert!(lab::ping(&all.pods[0].namespace, all.pods[1].v4(), Duration::from_secs(1)).is_err());
    all.lab.router().ip(&format!("link set {cable} up")).expect("plugged in");
    all.pods_reach_each_other();
    all.until("direct", "direct");
    // The family that comes back later goes through the tunnel over the other meanwhile.
    all.until_reason(0, &["neighbour", "hold_down_over"]);
    all.lab.close().expect("closed");
}
