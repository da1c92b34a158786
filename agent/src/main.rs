// SPDX-License-Identifier: Apache-2.0
//! The node agent.

mod app;
mod args;
mod bgp;
mod conf_file;
mod desired;
mod endpoint;
mod eni;
mod flows;
mod follow;
mod instance;
mod kernel;
mod ledger;
mod link_managers;
mod local_socket;
mod masquerade;
mod metrics;
mod monitor;
mod node;
mod plugin_socket;
mod probe;
mod publish;
mod question;
mod shortage;
mod sweep;
mod tables;
mod tunnel;
mod udev;
mod ways;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// At most this many calls to the kernel, or conversations with plugins, wait at a time.
const BLOCKING_THREADS: usize = 16;

/// How long threads may take to end when everything else has: one may wait for a lock that another process holds. What
/// they do survives a kill at any step.
const LAST: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    rhumb_process::heap::share();
    rhumb_process::exit_code(start())
}

fn start() -> anyhow::Result<()> {
    let args = args::Args::parse();
    rhumb_process::log_to_stderr();
    // Threads that wait for the kernel or a plugin; each costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let ended = local.block_on(&runtime, app::run(args));
    drop(local);
    runtime.shutdown_timeout(LAST);
    ended
}
