// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask tidy`: what the compiler cannot check. Each check is a pure function from sources or manifests to
//! findings, and has a test in which it finds something.

mod arrows;
mod documents;
mod files;
mod manifests;
mod source;
mod words;

use anyhow::{Context, bail};
use cargo_metadata::{MetadataCommand, Package};

use self::source::Source;
use crate::generate;
use crate::workspace::Workspace;

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    fn at(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{}:{}", source.path, line + 1), what)
    }
}

/// Checks the tree; fails with every finding.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let sources = source::walk(workspace.root())?;
    let packages = packages(workspace)?;
    let tests = documents::tests(&sources);
    let mut findings = Vec::new();
    findings.extend(arrows::check(&packages));
    findings.extend(manifests::wrapped(&packages));
    findings.extend(manifests::lints(&packages, &sources));
    for source in &sources {
        findings.extend(files::check(source));
        findings.extend(words::check(source));
        findings.extend(documents::check(source, workspace.root(), &tests));
    }
    for path in generate::stale(workspace.root())? {
        findings.push(Finding::new(path, "out of date: run `cargo xtask gen`"));
    }
    for Finding { place, what } in &findings {
        println!("{place}: {what}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files and {} crates in order", sources.len(), packages.len());
    Ok(())
}

/// The crates of the workspace and of the kernel side, which is a workspace of its own.
fn packages(workspace: &Workspace) -> anyhow::Result<Vec<Package>> {
    let mut packages = workspace.packages().to_vec();
    let programs = workspace.root().join("ebpf/programs/Cargo.toml");
    if programs.exists() {
        let metadata = MetadataCommand::new().manifest_path(programs).no_deps().exec();
        packages.extend(metadata.context("read the manifest of the kernel side")?.packages);
    }
    Ok(packages)
}
