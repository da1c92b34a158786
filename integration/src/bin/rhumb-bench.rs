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
    /// One part of `path`.
    #[arg(long)]
    only: Option<Only>,
    /// How many nodes the clusters of `eni` have.
    #[arg(long)]
    nodes: Vec<u16>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Only {
    /// Rates of traffic.
    Rates,
    /// What programs take under load.
    Programs,
    /// What programs take for packets in memory.
    Trials,
}

impl Only {
    fn part(self) -> bench::Part {
        match self {
            Self::Rates => bench::Part::Rates,
            Self::Programs => bench::Part::Programs,
            Self::Trials => bench::Part::Trials,
        }
    }
}

#[derive(Clone, ValueEnum)]
enum Bench {
    /// ADD and DEL beside the reference plugins; what pods cost the agent.
    Pods,
    /// TCP between pods beside plain veth pairs and kernel routing.
    Path,
    /// The BGP speaker beside BIRD, FRR, GoBGP and OpenBGPD.
    Bgp,
    /// Addresses of the VPC for all pods of a cluster, in a simulation beside models of two other networks.
    Eni,
}

fn main() -> Result<()> {
    let Arguments { bench, only, nodes } = Arguments::parse();
    let report = match bench {
        Bench::Pods => bench::pods()?,
        Bench::Path => bench::path(only.map(Only::part))?,
        Bench::Bgp => bench::bgp()?,
        Bench::Eni => bench::eni(&nodes.into_iter().map(usize::from).collect::<Vec<_>>())?,
    };
    report.tell(Paint::of_stdout(), &mut stdout().lock())
}
