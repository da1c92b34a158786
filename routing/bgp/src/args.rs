// SPDX-License-Identifier: Apache-2.0
//! The command line.

use std::path::PathBuf;

/// Holds the BGP and BFD sessions of a node.
#[derive(Debug, clap::Parser)]
#[command(name = "rhumb-bgp", version)]
pub(crate) struct Args {
    /// Socket at which the agent says what is to be done, and `rhumb bgp` asks how it stands; without it, nobody can.
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    pub(crate) socket: Option<PathBuf>,

    /// Directory for what has to be known after a restart: the last configuration, keys included. Without it, every
    /// start is a first one.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Configuration to begin with, in the form of the agent's snapshot (JSON). For running the speaker alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Routing table for learned routes, the same at every start; 0 keeps them out of the kernel.
    #[arg(long, value_name = "NUMBER", default_value_t = rhumb_routing::learned::TABLE)]
    pub(crate) table: u32,

    /// Open descriptor that receives the line `ready` when sessions are being tried.
    #[arg(long, value_name = "FD")]
    pub(crate) ready_fd: Option<i32>,
}
