// SPDX-License-Identifier: Apache-2.0
//! `rhumb-bgp`: one per node, holds the BGP and BFD sessions and outlives the agent.

mod args;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use rhumb_bgp::speaker::{self, Options};

/// At most this many calls to the kernel wait at a time.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    rhumb_process::heap::share();
    rhumb_process::exit_code(start())
}

fn start() -> anyhow::Result<()> {
    let args = args::Args::parse();
    rhumb_process::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: args::Args) -> anyhow::Result<()> {
    let mut ready = rhumb_process::Ready::open(args.ready_fd).context("open the descriptor of --ready-fd")?;
    let signal = rhumb_process::stop_signal()?;
    let stop = async { tracing::info!(signal = signal.await, "stopping") };
    let options = Options {
        socket: args.socket,
        state_dir: args.state_dir,
        config: args.config,
        table: (args.table != 0).then_some(args.table),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    speaker::run(options, || ready.say("ready"), stop).await?;
    tracing::info!("stopped");
    Ok(())
}
