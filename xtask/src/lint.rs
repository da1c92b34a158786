// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask lint`: format and clippy, warnings being errors.

use std::path::{Path, PathBuf};

use crate::run::{cargo, run};
use crate::workspace::Workspace;

/// Workspaces of their own, built by other compilers.
const APART: &[&str] = &["ebpf/programs", "fuzz"];

/// The whole tree.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    format(workspace)?;
    run(cargo(workspace.root()).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    apart_clippy(workspace)
}

/// The format of the whole tree, and clippy on these crates only.
pub(crate) fn run_some(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<()> {
    format(workspace)?;
    let mut clippy = cargo(workspace.root());
    clippy.arg("clippy").args(packages.iter().flat_map(|name| ["-p", name]));
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

/// Clippy on what other compilers build, with rustup's stable one: it has no core library for BPF, so the programs are
/// compiled for the host; and libFuzzer itself, which is C++, is not needed for looking at Rust.
fn apart_clippy(workspace: &Workspace) -> anyhow::Result<()> {
    for folder in apart(workspace.root()) {
        let mut clippy = cargo(&folder);
        clippy.arg("clippy").arg("--target-dir").arg(workspace.target().join("lint"));
        clippy.args(["--", "-D", "warnings"]).env("CUSTOM_LIBFUZZER_PATH", "/absent/libfuzzer.a");
        run(&mut clippy)?;
    }
    Ok(())
}

fn format(workspace: &Workspace) -> anyhow::Result<()> {
    run(cargo(workspace.root()).args(["fmt", "--all", "--check"]))?;
    for folder in apart(workspace.root()) {
        run(cargo(&folder).args(["fmt", "--check"]))?;
    }
    Ok(())
}

fn apart(root: &Path) -> impl Iterator<Item = PathBuf> {
    APART.iter().map(|name| root.join(name)).filter(|folder| folder.join("Cargo.toml").exists())
}
