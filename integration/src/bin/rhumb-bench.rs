// SPDX-License-Identifier: Apache-2.0
//! Runs a bench and tells its figures; a missed aim is told, and is no failure.

use std::io::stdout;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use rhumb_integration::bench;
use rhumb_integration::print::Paint;

/// Measures rhumb beside its peers.
#[derive(Parser)]
struct Arguments {
    /// Which bench.
    bench: Bench,
}

#[derive(Clone, ValueEnum)]
enum Bench {
    /// ADD and DEL beside the reference plugins; what pods cost the agent.
    Pods,
    /// TCP between pods beside plain veth pairs and kernel routing.
    Path,
}

fn main() -> Result<()> {
    let report = match Arguments::parse().bench {
        Bench::Pods => bench::pods()?,
        Bench::Path => bench::path()?,
    };
    report.tell(Paint::of_stdout(), &mut stdout().lock())
}
