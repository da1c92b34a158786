// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fuzz`: libFuzzer on the parsers of foreign bytes.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::run::{output, run};
use crate::workspace::Workspace;

/// The targets of the `fuzz` workspace.
const TARGETS: &[&str] = &[
    "bfd_packet",
    "bgp_feed",
    "bgp_message",
    "cni_stdin",
    "ec2_form",
    "frame",
    "journal",
    "packet_parser",
    "probe",
    "question",
    "yaml_objects",
];

/// Runs one target, or all of them, each for `seconds`.
pub(crate) fn run_targets(workspace: &Workspace, name: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    let targets = match name {
        Some(name) if !TARGETS.contains(&name) => bail!("no target {name}; there are {}", TARGETS.join(", ")),
        Some(name) => vec![name],
        None => TARGETS.to_vec(),
    };
    if output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
        bail!("libFuzzer's instrumentation needs a nightly compiler: rustup toolchain install nightly");
    }
    if output(Command::new("rustup").args(["run", "nightly", "cargo", "fuzz", "--version"])).is_none() {
        bail!("cargo-fuzz is not installed: cargo install cargo-fuzz");
    }
    let folder = workspace.root().join("fuzz");
    for target in targets {
        // Finds go to the first folder; the seeds beside it are the project's.
        let (found, seeds) = (format!("corpus/{target}"), format!("seeds/{target}"));
        fs::create_dir_all(folder.join(&found)).with_context(|| format!("create {found}"))?;
        let mut fuzz = Command::new("rustup");
        fuzz.current_dir(&folder).args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "."]);
        fuzz.args([target, &found, &seeds, "--", "-print_final_stats=1"]);
        run(fuzz.arg(format!("-max_total_time={seconds}")))?;
    }
    Ok(())
}
