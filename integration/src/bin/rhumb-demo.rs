// SPDX-License-Identifier: Apache-2.0
//! Plays the demo, or removes the lab that it left up.

use std::io::stdout;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use rhumb_integration::demo::{After, play, serve};
use rhumb_integration::lab;
use rhumb_integration::print::Paint;

/// A small cluster of network namespaces in which pods reach each other.
#[derive(Parser)]
struct Arguments {
    /// Leave the lab up and say how to enter it.
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Remove every lab whose owner is gone.
    Down,
    /// Answer requests, as the pods of the demo do.
    #[command(hide = true)]
    Serve,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Down) => lab::down_all().map(|_| ExitCode::SUCCESS),
        Some(Command::Serve) => serve().map(|()| ExitCode::SUCCESS),
        None => {
            let after = if arguments.keep { After::Keep } else { After::Remove };
            let landed = play(after, Paint::of_stdout(), &mut stdout().lock())?;
            Ok(if landed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
