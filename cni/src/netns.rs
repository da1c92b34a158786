// SPDX-License-Identifier: Apache-2.0
//! The pod's network namespace, opened to be passed to the agent.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::io::Errno;

/// File system type of namespaces (`NSFS_MAGIC` in linux/magic.h).
const NSFS_MAGIC: u32 = 0x6e73_6673;

/// Why a namespace was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// The path cannot be opened.
    #[error("open the network namespace {path}")]
    Open {
        /// `CNI_NETNS`.
        path: String,
        /// What the kernel says.
        #[source]
        source: Errno,
    },
    /// The path leads to something else.
    #[error("CNI_NETNS {path} is not a network namespace")]
    Other {
        /// `CNI_NETNS`.
        path: String,
    },
}

/// Opens the namespace at `path`. That it is one for networks, the kernel says when the agent uses it.
///
/// # Errors
/// [`NetnsError`] when the path cannot be opened or is no namespace.
pub(crate) fn open_netns(path: &str) -> Result<OwnedFd, NetnsError> {
    let refused = |source| NetnsError::Open { path: path.to_owned(), source };
    // Without NONBLOCK a named pipe would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open(path, flags, Mode::empty()).map_err(refused)?;
    let kind = fstatfs(&fd).map_err(refused)?.f_type;
    if u32::try_from(kind) != Ok(NSFS_MAGIC) {
        return Err(NetnsError::Other { path: path.to_owned() });
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_opened_and_nothing_else() {
        assert!(open_netns("/proc/self/ns/net").is_ok());
        let file = tempfile::NamedTempFile::new().expect("file");
        let path = file.path().to_str().expect("text");
        assert!(matches!(open_netns(path), Err(NetnsError::Other { .. })));
        assert!(matches!(open_netns("/dev/null"), Err(NetnsError::Other { .. })));
        assert!(matches!(
            open_netns("/proc/self/ns/none"),
            Err(NetnsError::Open { source: Errno::NOENT, .. })
        ));
    }
}
