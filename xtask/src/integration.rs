// SPDX-License-Identifier: Apache-2.0
//! Labs, demo, conformance and benches: the programs of the `integration` room, built and started.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::build::{self, Profile};
use crate::preflight;
use crate::run::{cargo, run};
use crate::setup::{self, Part};
use crate::workspace::Workspace;

/// `cargo xtask demo`.
pub(crate) fn demo(workspace: &Workspace, keep: bool) -> anyhow::Result<()> {
    prepare(workspace, Profile::Dev)?;
    let mut demo = program(workspace, Profile::Dev, "rhumb-demo");
    if keep {
        demo.arg("--keep");
    }
    run(&mut demo)
}

/// `cargo xtask lab down`.
pub(crate) fn lab_down(workspace: &Workspace) -> anyhow::Result<()> {
    preflight::machine()?;
    run(cargo(workspace.root()).args(["build", "-p", "rhumb-integration", "--bin", "rhumb-lab"]))?;
    run(program(workspace, Profile::Dev, "rhumb-lab").arg("down"))
}

/// `cargo xtask conformance`; a relative path of `cases` starts where xtask was called.
pub(crate) fn conformance(workspace: &Workspace, suite: &str, cases: &Path) -> anyhow::Result<()> {
    let cases = cases.canonicalize().with_context(|| format!("find {}", cases.display()))?;
    prepare(workspace, Profile::Dev)?;
    run(program(workspace, Profile::Dev, "rhumb-conformance").arg(suite).arg("--cases").arg(cases))
}

/// `cargo xtask bench`, with optimised programs; `more` is what the bench itself understands.
pub(crate) fn bench(workspace: &Workspace, name: &str, more: &[String]) -> anyhow::Result<()> {
    prepare(workspace, Profile::Release)?;
    run(program(workspace, Profile::Release, "rhumb-bench").arg(name).args(more))
}

/// Everything that a lab needs: the machine, the packages, the kernel, the programs.
pub(crate) fn prepare(workspace: &Workspace, profile: Profile) -> anyhow::Result<()> {
    preflight::machine()?;
    setup::install(&[Part::Build, Part::Lab])?;
    preflight::kernel_features()?;
    build::programs(workspace, profile)
}

/// A built program of the `integration` room; it finds the others beside itself.
pub(crate) fn program(workspace: &Workspace, profile: Profile, name: &str) -> Command {
    let mut command = Command::new(profile.folder(workspace).join(name));
    command.current_dir(workspace.root());
    command
}
