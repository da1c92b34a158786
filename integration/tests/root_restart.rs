// SPDX-License-Identifier: Apache-2.0
//! Agents are killed, restarted, replaced and given maps of another size, while pods talk through the tunnel and, under
//! the node's address, to the world: no packet is lost, and nobody's address changes.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints what it measured"
)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rhumb_integration::lab::{AgentOptions, Datagrams, Lab, Pod, Spec, Stream};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(10);
const ROUNDS: usize = 12;

/// Two nodes that reach each other's pods only through the tunnel, a pod on each, and a world that knows no pod.
struct Cluster {
    lab: Lab,
    here: Pod,
    there: Pod,
    args: Vec<String>,
}

/// Everything that must not be disturbed.
struct Load {
    streams: Vec<(String, Stream)>,
    datagrams: Vec<(String, Datagrams)>,
}

impl Cluster {
    fn build(name: &str) -> Self {
        let mut lab = Lab::build(Spec { segments: 2, ..Spec::named(name) }).expect("the lab is built");
        lab.start_operator().expect("started");
        // The lab's world has addresses of documentation, which stay untranslated unless the file says otherwise.
        let file = lab.home().join("ip-masq-agent");
        let keep = "nonMasqueradeCIDRs: [10.0.0.0/8, 192.168.0.0/16, 'fd00::/8']\n";
        std::fs::write(&file, keep).expect("written");
        let args = vec!["--ip-masq-config".to_owned(), file.display().to_string()];
        for node in 0..2 {
            let options = AgentOptions { args: args.clone(), ..AgentOptions::default() };
            lab.node_mut(node).start_agent_with(options).expect("started");
        }
        let here = lab.node(0).add_pod("default", "here").expect("added");
        let there = lab.node(1).add_pod("default", "there").expect("added");
        Self { lab, here, there, args }
    }

    fn start(&mut self, node: usize, program: Option<PathBuf>, more: &[&str]) {
        let args = self.args.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect();
        let options = AgentOptions { args, program, ..AgentOptions::default() };
        self.lab.node_mut(node).start_agent_with(options).expect("started");
    }

    /// TCP and UDP of both families, through the tunnel and to the world.
    fn load(&self) -> Load {
        let world: [IpAddr; 2] = Lab::CLIENT.map(|address| address.parse().expect("an address"));
        let mut load = Load { streams: Vec::new(), datagrams: Vec::new() };
        let pods = [self.there.v4(), self.there.v6()].map(|to| (&self.there.namespace, to));
        for (namespace, to) in pods.into_iter().chain(world.map(|to| (self.lab.client(), to))) {
            let stream = Stream::start(&self.here.namespace, namespace, to).expect("connected");
            load.streams.push((format!("TCP to {to}"), stream));
            let series = Datagrams::start(&self.here.namespace, namespace, to, INTERVAL).expect("answered");
            load.datagrams.push((format!("UDP to {to}"), series));
        }
        load
    }

    /// How many packets a node counted for a reason.
    fn packets(&self, node: usize, reason: &str) -> u64 {
        let counted = self.lab.node(node).packets().expect("counted");
        counted.iter().filter(|(_, name, _)| name == reason).map(|(.., packets)| packets).sum()
    }
}

impl Load {
    /// Waits until as many datagrams as are sent in this time have come back in each series.
    fn goes_on_for(&self, time: Duration) {
        let wanted = u64::try_from(time.as_millis() / INTERVAL.as_millis()).expect("short");
        let deadline = Instant::now() + PATIENCE;
        for (what, series) in &self.datagrams {
            let before = series.received();
            while series.received() < before + wanted {
                assert!(Instant::now() < deadline, "{what} stands still");
                // The time that so many datagrams take is what is waited for.
                std::thread::sleep(INTERVAL);
            }
        }
    }

    fn was_not_disturbed(self) {
        for (what, stream) in self.streams {
            let report = stream.stop().unwrap_or_else(|error| panic!("{what}: {error:#}"));
            eprintln!("{what}: {} chunks, the slowest {:?}", report.chunks, report.longest);
            report.nothing_lost().unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
        for (what, series) in self.datagrams {
            let report = series.stop().unwrap_or_else(|error| panic!("{what}: {error:#}"));
            eprintln!("{what}: {} of {}, the slowest {:?}", report.received, report.sent, report.longest);
            report.nothing_lost().unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
    }
}

#[test]
fn nothing_is_lost_while_agents_are_killed_restarted_and_replaced() {
    let mut all = Cluster::build("reborn");
    let load = all.load();
    // Other bytes of a program, in another file, as an upgrade has it.
    let next = all.lab.home().join("rhumb-agent-next");
    std::fs::copy(all.lab.binaries().path("rhumb-agent"), &next).expect("copied");
    for round in 0..ROUNDS {
        let node = round % 2;
        let upgraded = (round / 2) % 3 == 2;
        if (round / 2).is_multiple_of(3) {
            all.lab.node_mut(node).kill_agent().expect("killed");
        } else {
            all.lab.node_mut(node).stop_agent().expect("stopped");
        }
        load.goes_on_for(Duration::from_millis(200));
        all.start(node, upgraded.then(|| next.clone()), &[]);
        load.goes_on_for(Duration::from_millis(300));
    }
    for node in 0..2 {
        assert!(all.packets(node, "forwarded_tunnel") > 0, "node {node} encapsulates");
    }
    assert!(all.packets(0, "masqueraded") > 0, "the world sees the node");
    load.was_not_disturbed();
    all.lab.close().expect("closed");
}

#[test]
fn flows_move_to_maps_of_another_size_while_packets_flow() {
    let mut all = Cluster::build("resize");
    let load = all.load();
    for (round, flows) in [4_096_u32, 262_144, 16_384, 65_536].into_iter().enumerate() {
        for node in 0..2 {
            if round % 2 == 0 {
                all.lab.node_mut(node).kill_agent().expect("killed");
            } else {
                all.lab.node_mut(node).stop_agent().expect("stopped");
            }
            all.start(node, None, &["--flows", &flows.to_string()]);
            load.goes_on_for(Duration::from_millis(300));
            for map in ["ct", "nat"] {
                assert_eq!(capacity(&all.lab, node, map), f64::from(flows), "{map}");
                let left = all.lab.node(node).bpffs().join(format!("v2/maps/was:{map}"));
                assert!(!left.exists(), "{} is still there", left.display());
            }
        }
    }
    load.was_not_disturbed();
    all.lab.close().expect("closed");
}

#[test]
fn an_agent_ends_while_another_process_holds_the_store() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("held") }).expect("the lab is built");
    lab.start().expect("started");
    let lock = std::fs::File::open(lab.store_dir().join(".lock")).expect("the store has a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    // What is published is otherwise with a pod, so that the agent wants to write.
    let pod = lab.node(0).add_pod("default", "pod").expect("added");
    let agent = lab.node(0).agent_pid().expect("it runs").to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let locks = std::fs::read_to_string("/proc/locks").expect("told");
        let waits = |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == agent);
        if locks.lines().any(waits) {
            break;
        }
        assert!(Instant::now() < deadline, "the agent writes nothing");
        // The kernel tells nobody who waits for a lock.
        std::thread::sleep(INTERVAL);
    }
    let process = lab.node_mut(0).agent().expect("it runs");
    process.signal(Signal::TERM).expect("told to end");
    assert!(process.wait(PATIENCE / 2).expect("it ends").success());
    drop(lock);
    lab.node_mut(0).start_agent().expect("started");
    lab.node(0).del_pod(pod).expect("deleted");
    lab.close().expect("closed");
}

/// How many entries a map of the datapath can have.
fn capacity(lab: &Lab, node: usize, map: &str) -> f64 {
    let samples = lab.node(node).show("metrics").expect("told");
    let mut samples = samples.as_array().expect("a list").iter();
    let own = samples.find(|sample| {
        sample["name"] == "rhumb_bpf_map_capacity" && sample["labels"] == serde_json::json!([["map", map]])
    });
    own.and_then(|sample| sample["value"].as_f64()).expect("every map has a size")
}
