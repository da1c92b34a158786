// SPDX-License-Identifier: Apache-2.0
//! The double as a process: for labs, and for clients in other languages.
//!
//! It writes one line to stdout when it listens, and then serves until SIGTERM or SIGINT:
//! `{"ec2":"127.0.0.1:40001","control":"127.0.0.1:40002","hooks":"127.0.0.1:40003"}`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use rhumb_cloud_fake::server::{Handle, Listen, Pace, Servers};
use rhumb_cloud_fake::{Config, Refusal};
use rhumb_model::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

/// An EC2 in memory. Signatures are not checked: whoever can connect may do everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// What there is and how it behaves, in YAML or JSON; an empty account when left out.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where EC2 listens; port 0 is any.
    #[arg(long, default_value = "127.0.0.1:0")]
    ec2: SocketAddr,
    /// Where the control endpoint listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Where the stream of hooks listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    hooks: SocketAddr,
    /// How many times as fast as real time the clock runs; 0 lets it stand until the control endpoint sets it.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Time to begin with, in milliseconds since 1970; that of the machine when left out.
    #[arg(long)]
    now: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("read {path}: {source}")]
    Config { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("build the world: {0}")]
    World(#[from] Refusal),
    #[error("serve: {0}")]
    Serve(#[from] std::io::Error),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nowhere is left to say that this cannot be said.
            drop(writeln!(std::io::stderr(), "rhumb-fake-ec2: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), StartError> {
    let config = match &arguments.config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| StartError::Read { path: path.clone(), source })?;
            serde_yaml_ng::from_str(&text)
                .map_err(|source| StartError::Config { path: path.clone(), source })?
        }
    };
    let now = arguments.now.map_or_else(|| Timestamp::from(SystemTime::now()), Timestamp);
    let handle = Handle::new(config.build(now)?);
    if arguments.speed > 0.0 {
        handle.pace(Pace::Running(arguments.speed));
    }
    let listen = Listen { ec2: arguments.ec2, control: arguments.control, hooks: arguments.hooks };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut ended, mut stopped) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let servers = Servers::start(handle, listen).await?;
        let line = serde_json::json!({ "ec2": servers.ec2(), "control": servers.control(), "hooks": servers.hooks() });
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{line}")?;
        stdout.flush()?;
        tokio::select! {
            _ = ended.recv() => {}
            _ = stopped.recv() => {}
        }
        Ok(())
    })
}
