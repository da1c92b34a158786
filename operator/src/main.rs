// SPDX-License-Identifier: Apache-2.0
//! The operator: one per cluster that acts, any number that wait to take over.

mod app;
mod args;
mod bgp;
mod cluster;
mod eni;
mod failpoint;
mod leader;
mod metrics;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    rhumb_process::exit_code(start())
}

fn start() -> anyhow::Result<()> {
    let args = args::Args::parse();
    rhumb_process::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(app::run(args))
}
