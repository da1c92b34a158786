// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_model::Prefix;
use serde_json::{Value, json};

use super::home::{Home, Records};
use super::process::Start;
use super::topology::Seat;
use super::{Binaries, CniCall, CniOutput, Namespace, Pod, Process, Store, Ways};

/// Far above what an agent needs: on an emulated processor the kernel takes many seconds to verify its programs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an agent is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// ADD can be served.
    #[default]
    Ready,
    /// The socket listens.
    Serving,
    /// Nothing.
    Nothing,
}

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// Whether armed failpoints act, in the agent and in plugins called from now on.
    pub failpoints: bool,
    /// What to wait for.
    pub wait: Wait,
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// More of its command line.
    pub args: Vec<String>,
    /// Another store than the lab's.
    pub store: Option<PathBuf>,
    /// Another program than that of the build, for example of another version.
    pub program: Option<PathBuf>,
}

/// A node: a namespace with an uplink, folders, and an agent.
#[derive(Debug)]
pub struct Node {
    /// Its name in the store.
    pub name: String,
    /// Its addresses on the segment, IPv4 first.
    pub addresses: Vec<IpAddr>,
    agent: Option<Process>,
    speaker: Option<Process>,
    namespace: Namespace,
    folder: PathBuf,
    bpffs: PathBuf,
    cgroup: Option<PathBuf>,
    store: PathBuf,
    binaries: Binaries,
    records: Records,
    failpoints: bool,
    pods: AtomicUsize,
}

impl Node {
    pub(super) fn create(
        seat: Seat,
        namespace: Namespace,
        router: &Namespace,
        home: &Home,
        binaries: &Binaries,
        store: &Path,
    ) -> Result<Self> {
        let Seat { number, bridge, addresses: [v4, v6], gateways: [gateway_v4, gateway_v6] } = seat;
        let name = format!("n{number}");
        router.ip(&format!(
            "link add {name} type veth peer name eth0 netns {}
            link set {name} master {bridge} up",
            namespace.name()
        ))?;
        namespace.ip(&format!(
            "link set eth0 up
            address add {v4}/24 dev eth0
            address add {v6}/64 dev eth0 nodad
            route add default via {gateway_v4}
            route add default via {gateway_v6}"
        ))?;
        let folder = home.path().join(&name);
        for inner in ["state", "bgp", "run", "cni", "failpoints"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        let bpffs = home.bpffs().join(&name);
        fs::create_dir(&bpffs)?;
        let cgroup = home.cgroup().map(|cgroup| cgroup.join(&name));
        if let Some(cgroup) = &cgroup {
            fs::create_dir(cgroup)?;
        }
        Ok(Self {
            name,
            addresses: vec![v4, v6],
            agent: None,
            speaker: None,
            namespace,
            folder,
            bpffs,
            cgroup,
            store: store.to_owned(),
            binaries: binaries.clone(),
            records: home.records(),
            failpoints: false,
            pods: AtomicUsize::new(0),
        })
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Folder of the agent's sockets.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Folder of what the agent remembers.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Folder of the agent's pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The node's own cgroup, where cgroup v2 is mounted.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroup.as_deref()
    }

    /// Folder of CNI configuration.
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.folder.join("cni")
    }

    /// Folder in which failpoints are armed.
    pub fn failpoint_dir(&self) -> PathBuf {
        self.folder.join("failpoints")
    }

    /// The agent's log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// The BGP speaker's log.
    pub fn bgp_log(&self) -> PathBuf {
        self.folder.join("bgp.log")
    }

    /// Folder of what the BGP speaker remembers.
    pub fn bgp_state_dir(&self) -> PathBuf {
        self.folder.join("bgp")
    }

    /// The BGP speaker's socket.
    pub fn bgp_socket(&self) -> PathBuf {
        self.run_dir().join("bgp.sock")
    }

    /// The plugin's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("agent.sock")
    }

    /// Starts the agent and waits until it can serve ADD.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_agent(&mut self) -> Result<()> {
        self.start_agent_with(AgentOptions::default())
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_agent_with(&mut self, options: AgentOptions) -> Result<()> {
        self.launch_agent(&options)?;
        self.wait_for_agent(&options)
    }

    pub(super) fn launch_agent(&mut self, options: &AgentOptions) -> Result<()> {
        ensure!(!self.agent_running(), "the agent of {} runs already", self.name);
        let path = |path: &Path| path.display().to_string();
        let mut args: Vec<String> = vec!["--node".into(), self.name.clone(), "--register-node".into()];
        let folders = [
            ("--store", path(options.store.as_deref().unwrap_or(&self.store))),
            ("--state-dir", path(&self.state_dir())),
            ("--run-dir", path(&self.run_dir())),
            ("--bpffs", path(&self.bpffs)),
            ("--cni-conf-dir", path(&self.cni_conf_dir())),
            ("--uplink", "eth0".to_owned()),
            ("--ready-fd", "1".to_owned()),
        ];
        args.extend(folders.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        for address in &self.addresses {
            args.extend(["--node-address".to_owned(), address.to_string()]);
        }
        args.extend(options.args.iter().cloned());
        let mut env = options.env.clone();
        self.failpoints = options.failpoints;
        env.extend(self.failpoint_env());
        let start = Start {
            program: options.program.clone().unwrap_or_else(|| self.binaries.path("rhumb-agent")),
            netns: Some(self.namespace.path()),
            args,
            env,
            log: self.log(),
        };
        self.agent = Some(Process::start(&self.records, start)?);
        Ok(())
    }

    pub(super) fn wait_for_agent(&mut self, options: &AgentOptions) -> Result<()> {
        let word = match options.wait {
            Wait::Ready => "ready",
            Wait::Serving => "serving",
            Wait::Nothing => return Ok(()),
        };
        let agent = self.agent.as_mut().context("the agent was started")?;
        agent.wait_for(word, PATIENCE).with_context(|| format!("node {}", self.name))
    }

    /// Ends the agent by SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not run, does not end, or ends with a failure.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().with_context(|| format!("the agent of {} does not run", self.name))?.stop()
    }

    /// Ends the agent by SIGKILL and waits.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().with_context(|| format!("the agent of {} does not run", self.name))?.kill()
    }

    /// Whether the agent runs.
    pub fn agent_running(&mut self) -> bool {
        self.agent.as_mut().is_some_and(Process::is_running)
    }

    /// The agent's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().with_context(|| format!("the agent of {} does not run", self.name))
    }

    /// Starts the BGP speaker beside the agent, with more of its command line, and waits until its socket listens.
    ///
    /// # Errors
    /// With its log when it does not come up.
    pub fn start_bgp(&mut self, args: &[&str]) -> Result<()> {
        let running = self.speaker.as_mut().is_some_and(Process::is_running);
        ensure!(!running, "the BGP speaker of {} runs already", self.name);
        let path = |path: &Path| path.display().to_string();
        let flags = [
            ("--state-dir", path(&self.bgp_state_dir())),
            ("--socket", path(&self.bgp_socket())),
            ("--ready-fd", "1".to_owned()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let start = Start {
            program: self.binaries.path("rhumb-bgp"),
            netns: Some(self.namespace.path()),
            args: flags.chain(args.iter().map(ToString::to_string)).collect(),
            env: Vec::new(),
            log: self.bgp_log(),
        };
        let speaker = self.speaker.insert(Process::start(&self.records, start)?);
        speaker.wait_for("ready", PATIENCE).with_context(|| format!("node {}", self.name))
    }

    /// The BGP speaker's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn bgp(&mut self) -> Result<&mut Process> {
        self.speaker.as_mut().with_context(|| format!("the BGP speaker of {} does not run", self.name))
    }

    /// Ends the BGP speaker by SIGTERM and waits.
    ///
    /// # Errors
    /// When it does not run, does not end, or ends with a failure.
    pub fn stop_bgp(&mut self) -> Result<()> {
        self.speaker.take().with_context(|| format!("the BGP speaker of {} does not run", self.name))?.stop()
    }

    /// Ends the BGP speaker by SIGKILL and waits.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_bgp(&mut self) -> Result<()> {
        self.speaker.take().with_context(|| format!("the BGP speaker of {} does not run", self.name))?.kill()
    }

    /// The agent's process id, when it was started.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Process::pid)
    }

    /// The agent's resident memory in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn agent_rss_kib(&self) -> Result<u64> {
        self.agent.as_ref().with_context(|| format!("the agent of {} does not run", self.name))?.rss_kib()
    }

    /// Runs the plugin inside of the node's namespace with exactly this environment, the agent's socket, and, where
    /// the agent was started with them, the failpoints.
    ///
    /// # Errors
    /// When the plugin cannot be started.
    pub fn cni(&self, call: &CniCall) -> Result<CniOutput> {
        let mut call = call.clone();
        call.env.push(("RHUMB_AGENT_SOCKET".to_owned(), self.socket().display().to_string()));
        call.env.extend(self.failpoint_env());
        call.run(&self.binaries.path("rhumb-cni"), &self.namespace)
    }

    /// What `rhumb <what> -o json` shows on this node, for example `pod list`.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn show(&self, what: &str) -> Result<Value> {
        let output = self
            .namespace
            .command(self.binaries.path("rhumb"))
            .arg("--run-dir")
            .arg(self.run_dir())
            .args(what.split_whitespace())
            .args(["-o", "json"])
            .output()
            .context("run rhumb")?;
        ensure!(
            output.status.success(),
            "rhumb {what} on {}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).with_context(|| format!("read what rhumb {what} printed"))
    }

    /// Follows the changes of ways on this node, those of before too, as `rhumb route changes --follow` tells them.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn follow_ways(&self) -> Result<Ways> {
        let run_dir = self.run_dir().display().to_string();
        let words = ["--run-dir", &run_dir, "-o", "json", "route", "changes", "--follow"];
        let start = Start {
            program: self.binaries.path("rhumb"),
            netns: Some(self.namespace.path()),
            args: words.map(str::to_owned).into(),
            env: Vec::new(),
            log: self.folder.join("ways.log"),
        };
        Ok(Ways::new(self.name.clone(), Process::start(&self.records, start)?))
    }

    /// Packets that the datapath counted: direction, reason, how many.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn packets(&self) -> Result<Vec<(String, String, u64)>> {
        let samples = self.show("metrics")?;
        let counters = samples.as_array().context("a list of samples")?.iter();
        counters
            .filter(|sample| {
                sample["name"] == "rhumb_drop_count_total" || sample["name"] == "rhumb_forward_count_total"
            })
            .map(|sample| {
                let labels: BTreeMap<String, String> = sample["labels"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|pair| serde_json::from_value(pair.clone()).ok())
                    .collect();
                let label =
                    |name| labels.get(name).cloned().with_context(|| format!("a counter has no {name}"));
                Ok((label("direction")?, label("reason")?, sample["value"].as_u64().context("a count")?))
            })
            .collect()
    }

    /// The network configuration with which pods of the lab are made.
    pub fn network(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "rhumb",
            "type": "rhumb-cni",
            "agentSocket": self.socket(),
        })
    }

    /// Makes a pod: a namespace, ADD, and its result.
    ///
    /// # Errors
    /// When ADD does not succeed.
    pub fn add_pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let pod = self.make_container(namespace, name)?;
        self.attach(pod)
    }

    /// Makes the container of a pod without calling the plugin.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_container(&self, namespace: &str, name: &str) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let netns = Namespace::create(&format!("{}-p{number}", self.namespace.name()))?;
        Ok(Pod::new(namespace, name, netns))
    }

    /// Calls ADD for a container.
    ///
    /// # Errors
    /// When ADD does not succeed.
    pub fn attach(&self, pod: Pod) -> Result<Pod> {
        self.attach_as(pod, &self.network())
    }

    /// Calls ADD for a container with a network configuration of its own.
    ///
    /// # Errors
    /// When ADD does not succeed.
    pub fn attach_as(&self, mut pod: Pod, network: &Value) -> Result<Pod> {
        let output = self.cni(&pod.call("ADD", network))?.success()?;
        pod.read(&output)?;
        Ok(pod)
    }

    /// Calls DEL for a pod and removes its namespace.
    ///
    /// # Errors
    /// When DEL does not succeed.
    pub fn del_pod(&self, pod: Pod) -> Result<()> {
        self.cni(&pod.call("DEL", &self.network()))?.success()?;
        Ok(())
    }

    /// Arms a failpoint: it acts once, for whoever passes it first (`NAME`) or for one container (`NAME@CONTAINER`).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn arm(&self, failpoint: &str, action: &str) -> Result<()> {
        let folder = self.failpoint_dir();
        let fresh = folder.join(".fresh");
        fs::write(&fresh, action)?;
        Ok(fs::rename(fresh, folder.join(failpoint))?)
    }

    /// Disarms every failpoint; gives those that had not acted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn disarm(&self) -> Result<Vec<String>> {
        let mut armed = Vec::new();
        for entry in fs::read_dir(self.failpoint_dir())? {
            let entry = entry?;
            fs::remove_file(entry.path())?;
            armed.push(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(armed)
    }

    /// Waits until the agent has free addresses of every family in its pool.
    ///
    /// # Errors
    /// When `patience` is over before.
    pub fn until_free(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let status = self.show("status")?;
            let mut pools = status["pools"].as_array().context("a list of pools")?.iter();
            if pools.all(|pool| pool["free"].as_u64() > Some(0)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} has no free addresses: {}", self.name, status["pools"]);
        }
    }

    /// Takes away what a reboot of the machine would: sockets and the plugin's queue, pins, and our links and routes.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget_what_a_reboot_forgets(&self) -> Result<()> {
        for folder in [self.run_dir().as_path(), self.bpffs()] {
            fs::remove_dir_all(folder)?;
            fs::create_dir(folder)?;
        }
        for family in ["-4", "-6"] {
            self.namespace.ip_show(&format!("{family} route flush table all proto 114"))?;
        }
        let links = self.namespace.ip_show("-o link show")?;
        let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
        for name in names.filter(|name| name.starts_with("rh")) {
            self.namespace.ip(&format!("link del {name}"))?;
        }
        Ok(())
    }

    /// The pod CIDRs that the operator gave to this node.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pod_cidrs(&self, store: &Store) -> Result<Vec<Prefix>> {
        let config = store.get("NodeConfig", "", &self.name)?.unwrap_or_default();
        let cidrs = config.pointer("/spec/podCIDRs").and_then(Value::as_array).cloned().unwrap_or_default();
        cidrs
            .iter()
            .map(|entry| {
                let text = entry.get("cidr").unwrap_or(entry).as_str().context("a CIDR is a string")?;
                text.parse().with_context(|| format!("read the pod CIDR {text}"))
            })
            .collect()
    }

    pub(super) fn keep(&mut self) {
        self.namespace.keep();
    }

    fn failpoint_env(&self) -> Option<(String, String)> {
        self.failpoints
            .then(|| (rhumb_cni::failpoint::ENV.to_owned(), self.failpoint_dir().display().to_string()))
    }
}
