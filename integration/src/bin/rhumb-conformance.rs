// SPDX-License-Identifier: Apache-2.0
//! Runs a file of conformance cases. By other names it is the helper plugins that the cases need.
#![expect(clippy::print_stderr, reason = "a program for a person at a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rhumb_integration::conformance::{self, AfterFailure, Options};

#[derive(Parser)]
#[command(name = "rhumb-conformance", about = "Run conformance cases against the programs beside this one")]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// The CNI plugin's protocol and what it does to the node
    Cni {
        /// File of cases
        #[arg(long)]
        cases: PathBuf,
        /// Run these cases only
        #[arg(long, value_delimiter = ',', value_name = "ID")]
        only: Vec<String>,
        /// Run the rest after a failure; this is the default
        #[arg(long, conflicts_with = "stop_at_failure")]
        keep_going: bool,
        /// End after the first failure
        #[arg(long)]
        stop_at_failure: bool,
    },
}

fn main() -> ExitCode {
    if let Some(code) = conformance::act_by_name() {
        return code;
    }
    let Suite::Cni { cases, only, keep_going: _, stop_at_failure } = Arguments::parse().suite;
    let after_failure = if stop_at_failure { AfterFailure::Stop } else { AfterFailure::Continue };
    match conformance::run(&Options { cases, only, after_failure }, std::io::stdout().lock()) {
        Ok(tally) if tally.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
