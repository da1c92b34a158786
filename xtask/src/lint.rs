// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask lint`: format and clippy, warnings being errors.

use std::path::{Path, PathBuf};

use crate::run::{cargo, run};
use crate::workspace::Workspace;

/// Workspaces of their own, built for other targets.
const APART: &[&str] = &["ebpf/programs", "fuzz"];

/// The whole tree.
pub(crate) fn run_all(workspace: &Workspace) -> anyhow::Result<()> {
    format(workspace)?;
    run(cargo(workspace.root()).args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The format of the whole tree, and clippy on these crates only.
pub(crate) fn run_some(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<()> {
    format(workspace)?;
    let mut clippy = cargo(workspace.root());
    clippy.arg("clippy").args(packages.iter().flat_map(|name| ["-p", name]));
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
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
