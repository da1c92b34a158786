// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fuzz`: libFuzzer on the parsers of foreign bytes.

use std::process::Command;

use anyhow::bail;

use crate::run::{output, run};
use crate::workspace::Workspace;

/// The targets of the `fuzz` workspace.
const TARGETS: &[&str] = &["cni_stdin", "frame", "journal", "packet_parser", "yaml_objects"];

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
    for target in targets {
        let mut fuzz = Command::new("rustup");
        fuzz.current_dir(workspace.root().join("fuzz")).args([
            "run",
            "nightly",
            "cargo",
            "fuzz",
            "run",
            "--fuzz-dir",
            ".",
            target,
        ]);
        run(fuzz.args(["--", "-print_final_stats=1"]).arg(format!("-max_total_time={seconds}")))?;
    }
    Ok(())
}
