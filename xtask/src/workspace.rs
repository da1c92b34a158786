// SPDX-License-Identifier: Apache-2.0
//! The tree that xtask works on, as cargo sees it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand, Package, TargetKind};

/// Prefix of the test files that need root, BPF or a network namespace.
const ROOT_TEST: &str = "root_";

/// The workspace: where it is and what is in it.
pub(crate) struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .no_deps()
            .exec()
            .context("read the workspace with cargo metadata")?;
        Ok(Self { metadata })
    }

    /// The top folder.
    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// The crates of the workspace.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.metadata.packages
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        self.metadata.target_directory.clone().into_std_path_buf()
    }

    /// Names of the test files of `packages`, those that need privileges kept apart.
    pub(crate) fn tests<'a>(packages: impl IntoIterator<Item = &'a Package>) -> Tests {
        let mut tests = Tests { plain: Vec::new(), root: Vec::new() };
        for package in packages {
            for target in package.targets.iter().filter(|target| target.kind.contains(&TargetKind::Test)) {
                let list =
                    if target.name.starts_with(ROOT_TEST) { &mut tests.root } else { &mut tests.plain };
                list.push(target.name.clone());
            }
        }
        tests
    }
}

/// Test files by what they need.
pub(crate) struct Tests {
    /// They need nothing.
    pub(crate) plain: Vec<String>,
    /// They need root, BPF or a network namespace.
    pub(crate) root: Vec<String>,
}
