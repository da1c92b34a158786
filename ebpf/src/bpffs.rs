// SPDX-License-Identifier: Apache-2.0
//! The directory that everything is pinned in.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

/// `BPF_FS_MAGIC` (linux/magic.h).
const MAGIC: i64 = 0xcafe_4a11;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The path has no parent to mount at.
    #[error("bpffs directory {}: is not below another directory", .0.display())]
    Root(PathBuf),
    /// The directory cannot be made.
    #[error("make bpffs directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system cannot be asked for its type.
    #[error("look at the file system of {}", path.display())]
    Look {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no BPF file system, and none can be mounted.
    #[error("mount a BPF file system at {} (needs root; `mount -t bpf bpf {}` does it)", .path.display(), .path.display())]
    Mount {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Makes `path` a directory on a BPF file system, which is mounted at its parent when there is none.
pub(crate) fn prepare(path: &Path) -> Result<(), BpffsError> {
    let parent = path.parent().ok_or_else(|| BpffsError::Root(path.to_owned()))?;
    make(parent)?;
    if !is_bpffs(parent)? {
        mount("bpf", parent, "bpf", MountFlags::empty(), Some(c"mode=0700"))
            .map_err(|source| BpffsError::Mount { path: parent.to_owned(), source: source.into() })?;
    }
    make(path)
}

/// Makes a directory and those above it, for root alone.
pub(crate) fn make(path: &Path) -> Result<(), BpffsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| BpffsError::Make { path: path.to_owned(), source })
}

fn is_bpffs(path: &Path) -> Result<bool, BpffsError> {
    match statfs(path) {
        Ok(found) => Ok(found.f_type == MAGIC),
        Err(source) => Err(BpffsError::Look { path: path.to_owned(), source: source.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_parent_is_refused() {
        assert!(matches!(prepare(Path::new("/")), Err(BpffsError::Root(_))));
    }

    #[test]
    fn an_ordinary_file_system_is_told_apart() {
        assert!(!is_bpffs(Path::new("/proc")).expect("there"));
    }
}
