// SPDX-License-Identifier: Apache-2.0
//! The command line for people: asks the agent of this node and prints tables, or JSON with `-o json`.

mod bgp;
mod explain;
mod follow;
mod monitor;
mod table;
mod view;

use std::io::{IsTerminal, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use rhumb_model::NodeName;
use serde_json::{Value, json};

/// Name of the agent's socket in its directory.
const SOCKET: &str = "rhumb.sock";

const DEADLINE: Duration = Duration::from_secs(10);

/// Shows what the rhumb agent of this node knows and does.
#[derive(Debug, Parser)]
#[command(name = "rhumb", version)]
struct Args {
    /// Directory of the agent's sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/rhumb")]
    run_dir: PathBuf,

    /// Socket of the BGP speaker. Without it: bgp.sock in the directory of the sockets.
    #[arg(long, global = true, value_name = "PATH")]
    bgp_socket: Option<PathBuf>,

    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Readiness, pools, and the state of every kind of kernel object.
    Status,
    /// Pods of this node.
    #[command(subcommand)]
    Pod(List),
    /// Addresses that are leased or rest, and why a node has no more.
    #[command(subcommand)]
    Ip(Ip),
    /// Pod prefixes and the way to them.
    #[command(subcommand)]
    Route(Route),
    /// Maps of the datapath.
    #[command(subcommand)]
    Bpf(Bpf),
    /// The node's BGP speaker: peers, routes, policies, and leaving.
    #[command(subcommand)]
    Bgp(bgp::Command),
    /// Counters and gauges in the Prometheus text format.
    Metrics,
    /// Packets that were dropped, forwarded or passed on, one line each, as it happens.
    Monitor(monitor::Filter),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum List {
    /// Lists them.
    List,
}

#[derive(Debug, Clone, Subcommand)]
enum Ip {
    /// Lists those of this node.
    List,
    /// Says why a node has no more addresses, and what would help; asks the cluster's objects, not the agent.
    Explain {
        /// The node.
        node: NodeName,
        /// Directory of YAML objects: the cluster's object store.
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Route {
    /// Lists them.
    List,
    /// The last times that packets to a prefix changed their way, the newest first.
    Changes {
        /// The oldest first, and then, as they happen, all that come.
        #[arg(long)]
        follow: bool,
    },
    /// Whether the agents of other nodes answer, by address.
    Probes,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Bpf {
    /// Pods to which the datapath delivers on this node.
    Endpoints,
    /// What the datapath knows about prefixes elsewhere.
    Ipcache,
    /// Flows that the datapath remembers.
    Ct(Entries),
    /// Which port of the node stands for which of a pod.
    Nat(Entries),
}

/// Which entries to show.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Entries {
    /// Only those of this address, also when it stands for a pod.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    most: usize,
}

impl Command {
    /// What the agent is asked.
    fn question(&self, form: Output) -> Value {
        match (self, form) {
            (Command::Metrics, Output::Json) => json!({"metrics": "samples"}),
            (Command::Metrics, Output::Table) => json!({"metrics": "text"}),
            (Command::Bpf(Bpf::Ct(Entries { address, most }) | Bpf::Nat(Entries { address, most })), _) => {
                json!({"flows": {"table": self.word(), "address": address, "most": most}})
            }
            _ => json!(self.word()),
        }
    }

    /// The agent's word for it.
    fn word(&self) -> &'static str {
        match self {
            Command::Status => "status",
            Command::Pod(List::List) => "pods",
            Command::Ip(Ip::List | Ip::Explain { .. }) => "ips",
            Command::Route(Route::List) => "routes",
            Command::Route(Route::Changes { .. }) => "route_changes",
            Command::Route(Route::Probes) => "probes",
            Command::Bpf(Bpf::Endpoints) => "endpoints",
            Command::Bpf(Bpf::Ipcache) => "ipcache",
            Command::Bpf(Bpf::Ct(_)) => "ct",
            Command::Bpf(Bpf::Nat(_)) => "nat",
            Command::Bgp(_) => "bgp",
            Command::Metrics => "metrics",
            Command::Monitor(_) => "monitor",
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut out = std::io::stdout().lock();
    if let Command::Monitor(filter) = &args.command {
        return monitor::run(connect(&args.run_dir)?, filter, args.output, &mut out);
    }
    if let Command::Route(Route::Changes { follow: true }) = &args.command {
        return follow::run(connect(&args.run_dir)?, args.output, &mut out);
    }
    let text = if let Command::Bgp(command) = &args.command {
        let socket = args.bgp_socket.clone().unwrap_or_else(|| args.run_dir.join(rhumb_bgp_feed::SOCKET));
        bgp::run(&socket, command, args.output == Output::Json, out.is_terminal())?
    } else if let Command::Ip(Ip::Explain { node, store }) = &args.command {
        explain::run(store, node, args.output == Output::Json, out.is_terminal())?
    } else {
        let answer = ask(&args.run_dir, &args.command.question(args.output))?;
        match (args.output, &args.command, &answer) {
            (Output::Json, ..) => format!("{answer:#}\n"),
            (Output::Table, Command::Metrics, Value::String(text)) => text.clone(),
            (Output::Table, command, _) => view::render(command.word(), &answer, out.is_terminal()),
        }
    };
    match out.write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

fn connect(run_dir: &Path) -> Result<UnixStream> {
    let socket = run_dir.join(SOCKET);
    UnixStream::connect(&socket).with_context(|| {
        format!("no agent answers at {}: is rhumb-agent running on this node?", socket.display())
    })
}

fn ask(run_dir: &Path, question: &Value) -> Result<Value> {
    let mut stream = connect(run_dir)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("wait for the agent's answer")?;
    if answer.is_empty() {
        bail!("the agent at {} gave no answer: it is stopping, or of another version", run_dir.display());
    }
    serde_json::from_str(&answer).context("read the agent's answer")
}
