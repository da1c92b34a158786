// SPDX-License-Identifier: Apache-2.0

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rhumb_model::AttachmentKey;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The open network namespaces of attachments; clones share them.
///
/// An open namespace lives on without its processes, so whoever registers one forgets it again when the attachment
/// goes.
#[derive(Debug, Clone, Default)]
pub struct Namespaces(Rc<RefCell<BTreeMap<AttachmentKey, Arc<OwnedFd>>>>);

/// Why a path could not be opened as a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing, or it may not be opened.
    #[error("open network namespace {path}")]
    Open {
        /// The path.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The path leads to something else.
    #[error("{path} is no network namespace")]
    NoNamespace {
        /// The path.
        path: String,
        /// What the kernel said when a thread tried to enter.
        #[source]
        cause: io::Error,
    },
}

impl OpenError {
    /// Whether nothing is at the path any more: the pod is gone.
    pub fn is_absent(&self) -> bool {
        let OpenError::Open { cause, .. } = self else { return false };
        cause.kind() == io::ErrorKind::NotFound
    }
}

impl Namespaces {
    /// Begins with none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an open namespace, in place of the one that was registered for `key`.
    pub fn insert(&self, key: AttachmentKey, fd: OwnedFd) {
        self.0.borrow_mut().insert(key, Arc::new(fd));
    }

    /// Closes the namespace of `key`.
    pub fn forget(&self, key: &AttachmentKey) {
        self.0.borrow_mut().remove(key);
    }

    /// Whether the namespace of `key` is open.
    pub fn has(&self, key: &AttachmentKey) -> bool {
        self.0.borrow().contains_key(key)
    }

    /// Opens the namespace at `path` and registers it.
    ///
    /// # Errors
    /// [`OpenError`] when nothing is there, or something that is no network namespace.
    pub fn open(&self, key: AttachmentKey, path: &Path) -> Result<(), OpenError> {
        let text = || path.display().to_string();
        let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|cause| OpenError::Open { path: text(), cause: cause.into() })?;
        in_own_thread(|| enter(&fd)).map_err(|cause| OpenError::NoNamespace { path: text(), cause })?;
        self.insert(key, fd);
        Ok(())
    }

    /// The number by which the kernel knows the namespace of `key`.
    pub fn inode(&self, key: &AttachmentKey) -> Option<u64> {
        fstat(self.get(key)?.as_fd()).ok().map(|stat| stat.st_ino)
    }

    pub(crate) fn get(&self, key: &AttachmentKey) -> Option<Arc<OwnedFd>> {
        self.0.borrow().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(AttachmentKey, Arc<OwnedFd>)> {
        self.0.borrow().iter().map(|(key, fd)| (key.clone(), fd.clone())).collect()
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: &impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Runs `work` on a thread that ends with it, so that whatever namespace it enters is left again.
pub(crate) fn in_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AttachmentKey {
        "c1/eth0".parse().expect("valid")
    }

    #[test]
    fn a_path_without_anything_is_told_from_one_with_something_else() {
        let namespaces = Namespaces::new();
        let gone = namespaces.open(key(), Path::new("/proc/self/no-such-thing")).expect_err("nothing there");
        assert!(gone.is_absent(), "{gone}");
        let file = namespaces.open(key(), Path::new("/proc/self/status")).expect_err("a file");
        assert!(!file.is_absent() && file.to_string().contains("is no network namespace"), "{file}");
        assert!(!namespaces.has(&key()));
    }

    #[test]
    fn clones_share_what_is_registered() {
        let namespaces = Namespaces::new();
        let file = std::fs::File::open("/proc/thread-self/ns/net").expect("own namespace");
        namespaces.clone().insert(key(), file.into());
        assert!(namespaces.has(&key()) && namespaces.inode(&key()).is_some());
        namespaces.forget(&key());
        assert!(!namespaces.has(&key()) && namespaces.inode(&key()).is_none());
    }
}
