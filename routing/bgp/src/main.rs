// SPDX-License-Identifier: Apache-2.0
//! `rhumb-bgp`: one per node, holds the BGP and BFD sessions and outlives the agent.

mod args;
mod heap;
mod ready;

use std::process::ExitCode;

use clap::Parser;
use rhumb_bgp::speaker::{self, Options};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// At most this many calls to the kernel wait at a time.
const BLOCKING_THREADS: usize = 4;

fn main() -> ExitCode {
    heap::share();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let args = args::Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: args::Args) -> anyhow::Result<()> {
    let mut ready = ready::Ready::open(args.ready_fd)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
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
