// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask lint`: format and clippy, warnings being errors.

use std::path::{Path, PathBuf};

use crate::run::{cargo, run};
use crate::workspace::Workspace;

/// The BPF programs.
const KERNEL_SIDE: &str = "ebpf/programs";

/// Workspaces of their own, built by other compilers.
const APART: &[&str] = &[KERNEL_SIDE, "fuzz"];

/// The whole tree.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    format(workspace)?;
    run(cargo(workspace.root()).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    kernel_side(workspace)
}

/// The format of the whole tree, and clippy on these crates only.
pub(crate) fn run_some(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<()> {
    format(workspace)?;
    let mut clippy = cargo(workspace.root());
    clippy.arg("clippy").args(packages.iter().flat_map(|name| ["-p", name]));
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

/// Clippy on the BPF programs, compiled for the host: rustup's stable toolchain has no core library for BPF.
fn kernel_side(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = workspace.root().join(KERNEL_SIDE);
    let mut clippy = cargo(&folder);
    clippy.arg("clippy").arg("--target-dir").arg(workspace.target().join("lint"));
    run(clippy.args(["--", "-D", "warnings"]))
}

fn format(workspace: &Workspace) -> anyhow::Result<()> {
    run(cargo(workspace.root()).args(["fmt", "--all", "--check"]))?;
    for folder in apart(workspace.root()) {
        run(cargo(&folder).args(["fmt", "--all", "--check"]))?;
    }
    Ok(())
}

fn apart(root: &Path) -> impl Iterator<Item = PathBuf> {
    APART.iter().map(|name| root.join(name)).filter(|folder| folder.join("Cargo.toml").exists())
}
