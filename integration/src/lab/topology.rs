// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::home::Home;
use super::process::Start;
use super::{AgentOptions, Binaries, Namespace, Node, Process, Spec, Store};

const PATIENCE: Duration = Duration::from_secs(20);

/// What an operator, or another program beside the nodes, is started with besides what the lab gives it.
#[derive(Debug, Clone, Default)]
pub struct ProgramOptions {
    /// More of its command line.
    pub args: Vec<String>,
    /// More of its environment.
    pub env: Vec<(String, String)>,
}

/// A cluster of namespaces; removed on drop.
// Fields are dropped in this order: programs first, then namespaces, then the files that the programs used.
#[derive(Debug)]
pub struct Lab {
    spec: Spec,
    operator: Option<Process>,
    nodes: Vec<Node>,
    client: Namespace,
    router: Namespace,
    store: Store,
    binaries: Binaries,
    home: Home,
}

impl Lab {
    /// Address of the router on the nodes' first segment, IPv4 first.
    pub const ROUTER: [&'static str; 2] = ["192.168.100.254", "fd00:192::fe"];
    /// Address of the client beyond the router, IPv4 first.
    pub const CLIENT: [&'static str; 2] = ["203.0.113.10", "2001:db8:cc::10"];

    /// Makes the namespaces, links, addresses and routes of the cluster, and the store with its pool.
    ///
    /// # Errors
    /// When the kernel refuses (mostly for want of root), or a lab of that name is up already.
    pub fn build(spec: Spec) -> Result<Lab> {
        Self::build_with(spec, false)
    }

    /// Makes a lab that outlives its owner when it is let go by [`Lab::keep`].
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn build_to_keep(spec: Spec) -> Result<Lab> {
        Self::build_with(spec, true)
    }

    fn build_with(spec: Spec, keep: bool) -> Result<Lab> {
        let letters = spec.name.bytes().all(|c| c.is_ascii_lowercase());
        ensure!(letters && (2..=6).contains(&spec.name.len()), "a lab's name has two to six letters");
        ensure!((1..=200).contains(&spec.nodes), "a lab has 1 to 200 nodes");
        ensure!((1..=9).contains(&spec.segments), "a lab has 1 to 9 segments");
        let binaries = Binaries::find()?;
        let home = Home::create(&spec.name, keep, &binaries)?;
        let namespace = |what: &str| Namespace::create(&format!("{}-{what}", home.id()));
        let router = router(namespace("router")?, spec.segments)?;
        let client = client(namespace("client")?, &router)?;
        let store = Store::new(home.path().join("store"));
        std::fs::create_dir(store.path())?;
        let mut nodes = Vec::new();
        for number in 1..=spec.nodes {
            let name = format!("n{number}");
            let seat = Seat::of(number, spec.segments);
            let node = Node::create(seat, namespace(&name)?, &router, &home, &binaries, store.path())?;
            nodes.push(node);
        }
        let lab = Lab { spec, operator: None, nodes, client, router, store, binaries, home };
        lab.write_pool()?;
        Ok(lab)
    }

    /// Starts the operator and one agent per node, and waits until every agent can serve ADD.
    ///
    /// # Errors
    /// With the log of the program that did not come up.
    pub fn start(&mut self) -> Result<()> {
        self.binaries.check()?;
        self.start_operator()?;
        for node in &mut self.nodes {
            node.launch_agent(&AgentOptions::default())?;
        }
        for node in &mut self.nodes {
            node.wait_for_agent(&AgentOptions::default())?;
        }
        self.route_world()
    }

    /// Starts the operator and waits until it serves.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_operator(&mut self) -> Result<()> {
        self.start_operator_with(&ProgramOptions::default())
    }

    /// Starts the operator and waits until it serves.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_operator_with(&mut self, options: &ProgramOptions) -> Result<()> {
        let mut args = vec!["--store".to_owned(), self.store.path().display().to_string()];
        if let Some(grace) = self.spec.grace {
            args.extend(["--grace".to_owned(), grace.as_secs().to_string()]);
        }
        args.extend(["--ready-fd", "1"].map(str::to_owned));
        args.extend(options.args.iter().cloned());
        let options = ProgramOptions { args, env: options.env.clone() };
        let operator = self.launch("rhumb-operator", options, &self.router, "operator.log")?;
        self.operator.insert(operator).wait_for("ready", PATIENCE)
    }

    /// The operator's process, while it runs; take it to stop or kill it.
    pub fn operator_mut(&mut self) -> &mut Option<Process> {
        &mut self.operator
    }

    /// A node, counted from 0.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// A node to start and stop, counted from 0.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn node_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The client beyond the router.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The router between the nodes' segment and the client.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The store's objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The folder of the store.
    pub fn store_dir(&self) -> &Path {
        self.store.path()
    }

    /// The programs under test.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The name of the lab, with which its namespaces begin.
    pub fn id(&self) -> &str {
        self.home.id()
    }

    /// The folder of the lab's files: the programs' logs, the store, the nodes' state.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A namespace with no link, of the lab's name, for example for a container that a test makes itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn namespace(&self, what: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{what}", self.id()))
    }

    /// Starts one of the programs inside a namespace, and waits until it says `ready` on standard output.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_program(&self, program: &str, args: &[&str], inside: &Namespace) -> Result<Process> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let options = ProgramOptions { args, env: Vec::new() };
        let mut process = self.launch(program, options, inside, &format!("{program}.log"))?;
        process.wait_for("ready", PATIENCE)?;
        Ok(process)
    }

    /// Starts one of the programs inside a namespace and waits for nothing; it logs to a file of this name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(
        &self,
        program: &str,
        options: ProgramOptions,
        inside: &Namespace,
        log: &str,
    ) -> Result<Process> {
        let start = Start {
            program: self.binaries.path(program),
            netns: Some(inside.path()),
            args: options.args,
            env: options.env,
            log: self.home.path().join(log),
        };
        Process::start(&self.home.records(), start)
    }

    /// Tells the router which node has which pod CIDR, as a network of the world around the cluster would know it.
    ///
    /// # Errors
    /// When a node's CIDRs cannot be read or routed.
    pub fn route_world(&self) -> Result<()> {
        let mut batch = String::new();
        for node in &self.nodes {
            for prefix in node.pod_cidrs(&self.store)? {
                let gateway = node
                    .addresses
                    .iter()
                    .find(|address| address.is_ipv4() == prefix.addr().is_ipv4())
                    .with_context(|| {
                        format!("node {} has no address of the family of {prefix}", node.name)
                    })?;
                batch.push_str(&format!("route replace {prefix} via {gateway}\n"));
            }
        }
        self.router.ip(&batch)
    }

    /// Ends all programs and removes everything, going on after a failure.
    ///
    /// # Errors
    /// What could not be ended or removed.
    pub fn close(mut self) -> Result<()> {
        let mut failures = Vec::new();
        let mut note = |result: Result<()>| failures.extend(result.err().map(|error| format!("{error:#}")));
        for node in &mut self.nodes {
            if node.agent_running() {
                note(node.stop_agent());
            }
        }
        if let Some(operator) = self.operator.take() {
            note(operator.stop());
        }
        note(self.home.close());
        if failures.is_empty() { Ok(()) } else { bail!("close the lab: {}", failures.join("; ")) }
    }

    /// Lets go of a lab that was built to be kept: programs, namespaces and files stay until [`super::down_all`].
    ///
    /// # Errors
    /// When its reaper does not end.
    pub fn keep(mut self) -> Result<()> {
        self.client.keep();
        self.router.keep();
        for node in &mut self.nodes {
            node.keep();
        }
        self.home.let_go()
    }

    fn write_pool(&self) -> Result<()> {
        let family = |pool: Option<(rhumb_model::Prefix, u8)>| {
            pool.map(|(cidr, length)| json!({"cidrs": [cidr], "nodePrefixLength": length}))
        };
        let mut spec = json!({"reserved": self.spec.reserved});
        for (name, block) in [("ipv4", family(self.spec.pool_v4)), ("ipv6", family(self.spec.pool_v6))] {
            if let Some(block) = block {
                spec[name] = block;
            }
        }
        self.store.apply(&json!({
            "apiVersion": "rhumb.io/v1alpha1",
            "kind": "PodPool",
            "metadata": {"name": "default"},
            "spec": spec,
        }))
    }
}

fn router(router: Namespace, segments: usize) -> Result<Namespace> {
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for number in 1..=segments {
        let Seat { bridge, gateways: [v4, v6], .. } = Seat::of(number, segments);
        router.ip(&format!(
            "link add {bridge} type bridge
            link set {bridge} up
            address add {v4}/24 dev {bridge}
            address add {v6}/64 dev {bridge} nodad"
        ))?;
    }
    Ok(router)
}

fn client(client: Namespace, router: &Namespace) -> Result<Namespace> {
    router.ip(&format!(
        "link add client type veth peer name eth0 netns {}
        link set client up
        address add 203.0.113.1/24 dev client
        address add 2001:db8:cc::1/64 dev client nodad",
        client.name()
    ))?;
    client.ip("link set eth0 up
        address add 203.0.113.10/24 dev eth0
        address add 2001:db8:cc::10/64 dev eth0 nodad
        route add default via 203.0.113.1
        route add default via 2001:db8:cc::1")?;
    Ok(client)
}

/// Where a node is: its addresses and those of its segment's router, IPv4 first.
#[derive(Debug)]
pub(super) struct Seat {
    /// Number of the node, from 1.
    pub(super) number: usize,
    /// The router's link to the segment.
    pub(super) bridge: String,
    pub(super) addresses: [IpAddr; 2],
    pub(super) gateways: [IpAddr; 2],
}

impl Seat {
    /// Nodes are seated on the segments in turns.
    pub(super) fn of(number: usize, segments: usize) -> Self {
        let small = |number: usize| u8::try_from(number).expect("a lab has at most 200 nodes");
        let segment = small((number - 1) % segments);
        let pair = |low: u8, v6: u8| -> [IpAddr; 2] {
            let net = 100 + segment;
            let v6 = [0xfd00, 0x192, 0, u16::from(segment), 0, 0, 0, u16::from(v6)];
            [[192, 168, net, low].into(), v6.into()]
        };
        Self {
            number,
            bridge: format!("br{segment}"),
            addresses: pair(small(number), small(number)),
            gateways: pair(254, 0xfe),
        }
    }
}
