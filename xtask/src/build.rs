// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask build`.

use std::path::PathBuf;

use crate::run::{cargo, run};
use crate::workspace::Workspace;

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

impl Profile {
    /// The folder of the built programs.
    pub(crate) fn folder(self, workspace: &Workspace) -> PathBuf {
        workspace.target().join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds every crate of the workspace; the BPF programs are built by `ebpf/build.rs` on the way.
pub(crate) fn programs(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    let mut command = cargo(workspace.root());
    command.args(["build", "--workspace"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    run(&mut command)
}
