// SPDX-License-Identifier: Apache-2.0
//! The directory itself: the only file that reads from it and writes to it.
//!
//! No descriptor of the directory stays open between calls: it would keep a file system from being unmounted and
//! the kernel from telling that the directory was deleted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self as sys, AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Name of the file whose lock orders all writers.
pub(super) const LOCK: &str = ".lock";
/// Files that a writer is still at.
const TEMPORARY: &str = ".rhumb-new-";
/// Files on their way out.
const DELETED: &str = ".rhumb-deleted-";
/// No file is longer than this many bytes.
pub(super) const MAX_FILE: u64 = 16 << 20;

/// Whether a file of this name holds objects: `*.yaml`, `*.yml` and `*.json`, but no dot files, which editors and
/// we use while writing.
pub(super) fn is_object_file(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Whether a rename to this name is how a store deletes a file.
pub(super) fn is_deleted_name(name: &str) -> bool {
    name.starts_with(DELETED)
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Stamp {
    fn of(stat: &sys::Stat) -> Self {
        Self {
            file: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether the last change is so long ago that a later one has another stamp, however coarse the clock.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        now.duration_since(changed).is_ok_and(|age| age > Duration::from_secs(3))
    }
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) stamp: Stamp,
    pub(super) bytes: Vec<u8>,
    mode: Mode,
    is_link: bool,
}

/// The directory that was opened, known by path and identity.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    identity: (u64, u64),
}

/// The directory, open for one piece of work.
#[derive(Debug)]
pub(super) struct Entered {
    dir: OwnedFd,
}

impl Place {
    /// Finds what is at `path` now.
    pub(super) fn find(path: &Path) -> io::Result<Self> {
        let dir = open_directory(path)?;
        Ok(Self { path: path.to_owned(), identity: identity(&dir)? })
    }

    /// Opens the directory; an error if another one, or none, is at its path now.
    pub(super) fn enter(&self) -> io::Result<Entered> {
        let dir = open_directory(&self.path)?;
        if identity(&dir)? != self.identity {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another directory is at this path now"));
        }
        Ok(Entered { dir })
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(sys::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn identity(dir: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = sys::fstat(dir)?;
    if stat.st_nlink == 0 {
        return Err(Errno::NOENT.into());
    }
    Ok((stat.st_dev, stat.st_ino))
}

impl Entered {
    /// Names of all files that may hold objects, in order.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.all_names()?;
        names.retain(|name| is_object_file(name));
        names.sort();
        Ok(names)
    }

    fn all_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(&self.dir)? {
            // A name that is no UTF-8 was given by nobody who wants it read.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The stamp of a file, or `None` if there is no such file. Symbolic links are followed.
    pub(super) fn stamp(&self, name: &str) -> io::Result<Option<Stamp>> {
        match sys::statat(&self.dir, name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a file is one that no writer announces by closing it: a link, hard or symbolic.
    pub(super) fn is_linked(&self, name: &str) -> bool {
        sys::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            sys::FileType::from_raw_mode(stat.st_mode) == sys::FileType::Symlink || stat.st_nlink > 1
        })
    }

    /// Reads a file, or `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Contents>> {
        // Non-blocking, as somebody may have put a pipe there.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match sys::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = sys::fstat(&file)?;
        if sys::FileType::from_raw_mode(stat.st_mode) != sys::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
        }
        let mut bytes = Vec::new();
        File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            let message = format!("longer than {} MiB", MAX_FILE >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let own = sys::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_link = own.is_ok_and(|own| sys::FileType::from_raw_mode(own.st_mode).is_symlink());
        Ok(Some(Contents {
            stamp: Stamp::of(&stat),
            bytes,
            mode: Mode::from_raw_mode(stat.st_mode),
            is_link,
        }))
    }

    /// Opens the lock file; [`Lock::acquire`] then waits for its lock.
    pub(super) fn lock_file(&self) -> io::Result<Lock> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Lock(sys::openat(&self.dir, LOCK, flags, Mode::from_raw_mode(0o644))?))
    }

    /// Removes what writers that died left behind. Only under the lock: only its holder has such files.
    pub(super) fn clean(&self, _held: &Held) -> io::Result<()> {
        for name in self.all_names()? {
            if name.starts_with(TEMPORARY) || name.starts_with(DELETED) {
                self.unlink(&name)?;
            }
        }
        Ok(())
    }

    /// Makes a file that was not there. `false` if there is one of this name.
    pub(super) fn create(&self, name: &str, bytes: &[u8], _held: &Held) -> io::Result<bool> {
        let temporary = self.write_temporary(bytes, Mode::from_raw_mode(0o644))?;
        match sys::renameat_with(&self.dir, &temporary.name, &self.dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                temporary.keep();
                sys::fsync(&self.dir)?;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts new contents in place of `old`. `false` if the file is not as it was read.
    pub(super) fn replace(&self, name: &str, old: &Contents, bytes: &[u8], _held: &Held) -> io::Result<bool> {
        self.refuse_link(old)?;
        let temporary = self.write_temporary(bytes, old.mode)?;
        if self.stamp(name)? != Some(old.stamp) {
            return Ok(false);
        }
        sys::renameat(&self.dir, &temporary.name, &self.dir, name)?;
        temporary.keep();
        sys::fsync(&self.dir)?;
        Ok(true)
    }

    /// Removes a file. `false` if it is not as it was read.
    ///
    /// It is renamed before it is removed, which tells other stores that this is meant, and no editor's doing.
    pub(super) fn delete(&self, name: &str, old: &Contents, _held: &Held) -> io::Result<bool> {
        self.refuse_link(old)?;
        if self.stamp(name)? != Some(old.stamp) {
            return Ok(false);
        }
        let gone = unique(DELETED);
        sys::renameat(&self.dir, name, &self.dir, &gone)?;
        self.unlink(&gone)?;
        sys::fsync(&self.dir)?;
        Ok(true)
    }

    fn refuse_link(&self, old: &Contents) -> io::Result<()> {
        if old.is_link {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a symbolic link is read, but not written",
            ));
        }
        Ok(())
    }

    fn write_temporary(&self, bytes: &[u8], mode: Mode) -> io::Result<Temporary<'_>> {
        let name = unique(TEMPORARY);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = sys::openat(&self.dir, &name, flags, mode)?;
        let temporary = Temporary { entered: self, name };
        sys::fchmod(&file, mode)?;
        let mut file = File::from(file);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match sys::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A name that no other writer uses: process, and a number within it.
fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A temporary file, removed unless it found its place.
struct Temporary<'a> {
    entered: &'a Entered,
    name: String,
}

impl Temporary<'_> {
    fn keep(mut self) {
        self.name.clear();
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty()
            && let Err(error) = self.entered.unlink(&self.name)
        {
            tracing::debug!(
                file = self.name,
                error = &error as &dyn std::error::Error,
                "temporary file stays"
            );
        }
    }
}

/// The lock file, not yet locked.
#[derive(Debug)]
pub(super) struct Lock(OwnedFd);

/// The lock; given up when dropped.
#[derive(Debug)]
pub(super) struct Held {
    file: OwnedFd,
}

impl Held {
    /// Whether the lock is that of the file which others find now.
    pub(super) fn is_at(&self, entered: &Entered) -> io::Result<bool> {
        let held = sys::fstat(&self.file)?;
        match sys::statat(&entered.dir, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Lock {
    /// Waits until nobody else holds the lock.
    pub(super) fn acquire(self) -> io::Result<Held> {
        loop {
            match sys::flock(&self.0, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Held { file: self.0 }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub(super) fn try_acquire(self) -> io::Result<Option<Held>> {
        match sys::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held { file: self.0 })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
