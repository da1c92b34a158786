// SPDX-License-Identifier: Apache-2.0
//! The commands of the project: `cargo xtask --help`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "xtask speaks to a person at a terminal")]

mod build;
mod fuzz;
mod generate;
mod integration;
mod limits;
mod lint;
mod preflight;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::build::Profile;
use crate::setup::Part;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, test, lint, tidy, demo and bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, testing and the labs need, and say why
    Setup,
    /// Build every program
    Build {
        /// With optimisation
        #[arg(long)]
        release: bool,
    },
    /// Lint, tidy, all tests, the conformance cases and the demo
    Test {
        /// Only what needs no root, no BPF and no network namespace
        #[arg(long)]
        unprivileged: bool,
    },
    /// Check formatting and run clippy, warnings being errors
    Lint,
    /// Write the documents that are made from sources
    Gen,
    /// Make the table of what instance types can have
    Limits {
        /// What `aws ec2 describe-instance-types` printed
        file: PathBuf,
        /// Where the data are from, and of what date
        #[arg(long)]
        source: String,
    },
    /// Check what the compiler cannot: arrows between rooms, names, sizes, paths in documents
    Tidy,
    /// Show a small cluster of network namespaces at work
    Demo {
        /// Leave the lab up afterwards, and say how to enter it
        #[arg(long)]
        keep: bool,
    },
    /// Look after labs that were left up
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
    /// Run a file of conformance cases
    Conformance {
        /// Which suite, for example `cni`
        suite: String,
        /// The file with the cases
        #[arg(long)]
        cases: PathBuf,
    },
    /// Measure beside a peer and print the ratio: `pods`, `path`, `bgp`, `eni`
    Bench {
        /// Which bench
        name: String,
        /// What the bench understands, for example `--only programs` of `path`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Try the datapath on the oldest kernel, Debian's 6.1, in a virtual machine
    Vm {
        /// Which checks, each as a whole; when absent, as much as takes about two minutes
        checks: Vec<String>,
    },
    /// Fuzz the parsers of foreign bytes (needs rustup nightly and cargo-fuzz)
    Fuzz {
        /// Which target; all of them when absent
        name: Option<String>,
        /// How long each target runs, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

#[derive(Subcommand)]
enum LabCommand {
    /// Remove every lab that was left up
    Down,
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match command {
        Command::Setup => setup::install(&[Part::Build, Part::Check, Part::Lab, Part::Machine]),
        Command::Build { release } => {
            setup::install(&[Part::Build])?;
            build::programs(&workspace, if release { Profile::Release } else { Profile::Dev })
        }
        Command::Test { unprivileged: false } => test::run_all(&workspace),
        Command::Test { unprivileged: true } => test::run_unprivileged(&workspace),
        Command::Lint => {
            setup::install(&[Part::Build, Part::Check])?;
            lint::run_all(&workspace)
        }
        Command::Gen => generate::write(workspace.root()),
        Command::Limits { file, source } => limits::write(workspace.root(), &file, &source),
        Command::Tidy => tidy::run(&workspace),
        Command::Demo { keep } => integration::demo(&workspace, keep),
        Command::Lab { command: LabCommand::Down } => integration::lab_down(&workspace),
        Command::Conformance { suite, cases } => integration::conformance(&workspace, &suite, &cases),
        Command::Bench { name, more } => integration::bench(&workspace, &name, &more),
        Command::Vm { checks } => {
            setup::install(&[Part::Build, Part::Lab, Part::Machine])?;
            vm::run(&workspace, &checks)
        }
        Command::Fuzz { name, seconds } => fuzz::run_targets(&workspace, name.as_deref(), seconds),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const CONTRIBUTING: &str = include_str!("../../CONTRIBUTING.md");

    /// Every command of this program that a document names, in words up to the end of its line or quotation.
    fn named(text: &str) -> impl Iterator<Item = Vec<&str>> {
        let commands = text.lines().flat_map(|line| line.split("cargo xtask ").skip(1));
        commands
            .map(|rest| rest.split(['`', '#', ',']).next().unwrap_or_default().split_whitespace().collect())
    }

    #[test]
    fn commands_that_documents_name_are_understood() {
        let documents =
            [CONTRIBUTING, include_str!("../../README.md"), include_str!("../../ARCHITECTURE.md")];
        let mut seen = 0;
        for words in documents.into_iter().flat_map(named) {
            // What stands for something, and what may be left out, is no word to try.
            if words.iter().all(|word| !word.starts_with('[') && word.chars().any(char::is_lowercase)) {
                let tried = Arguments::try_parse_from(["xtask"].iter().chain(&words));
                assert!(tried.is_ok(), "cargo xtask {}: {:?}", words.join(" "), tried.err());
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} commands in the documents");
        Arguments::try_parse_from(["xtask", "bench", "path", "--only", "programs"]).expect("understood");
    }

    #[test]
    fn every_command_is_in_the_table() {
        for command in Arguments::command().get_subcommands() {
            let told = format!("`cargo xtask {}", command.get_name());
            assert!(CONTRIBUTING.contains(&told), "CONTRIBUTING.md lacks {told}`");
        }
    }
}
