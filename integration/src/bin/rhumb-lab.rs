// SPDX-License-Identifier: Apache-2.0
//! Removes labs: all whose owner is gone (`down`), or one as soon as its owner is gone (`reap`).

use anyhow::Result;
use clap::{Parser, Subcommand};
use rhumb_integration::lab;

/// Labs of network namespaces.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Remove every lab whose owner is gone.
    Down,
    /// Remove one lab when standard input ends before its owner said that nothing is left to do.
    #[command(hide = true)]
    Reap { id: String },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Down => down(),
        Command::Reap { id } => lab::reap(&id),
    }
}

#[expect(clippy::print_stdout, reason = "the answer to a person")]
fn down() -> Result<()> {
    let gone = lab::down_all()?;
    println!(
        "{}",
        if gone.is_empty() { "no lab was up".to_owned() } else { format!("removed {}", gone.join(", ")) }
    );
    Ok(())
}
