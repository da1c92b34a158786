// SPDX-License-Identifier: Apache-2.0
//! An append-only file of records that survives a crash at any point.
//!
//! ```text
//!   PATH        the journal; it gets its name when header and records are on disk
//!   PATH.new    the next one while it is written (creation, compaction); removed when the journal is opened
//!   PATH.lock   locked while the journal is open; stays, empty
//! ```

mod medium;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::frame::Corruption;
use crate::frame::{EncodeError, HEADER, encode, header, parse};
use medium::Tail;

/// Records of one frame of a compacted journal: far below the longest frame, and few frames.
const COMPACT_BATCH: usize = 1024;

/// An open journal. No other process opens it as long as this lives.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    tail: Tail<File>,
    /// Keeps the lock.
    _lock: File,
    records: PhantomData<fn(&R)>,
}

/// What an opened journal holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<R> {
    /// Every record, in the order in which they were written.
    pub records: Vec<R>,
    /// What was cut off, if anything was.
    pub repaired: Option<Repair>,
}

/// The last write was cut short by a crash, so nobody was told of it; its remains are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// Length of the remains in bytes.
    pub bytes_cut: u64,
}

/// Why a journal is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("open journal {}: another process has it open", path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// It was damaged after it was written. Records behind the damage may be lost, so a person has to look.
    #[error("open journal {}: corrupt at byte {offset}; nothing was changed", path.display())]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        #[source]
        corruption: Corruption,
    },
    /// A file operation did not succeed.
    #[error("open journal {}: {step}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why it did not succeed.
        #[source]
        source: io::Error,
    },
}

/// Why records are not written. The journal is as it was before the call, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A record has no JSON form.
    #[error("append to journal {}: encode a record", path.display())]
    Encode {
        /// The journal.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// One batch has more bytes than a journal takes at once.
    #[error("append to journal {}: the batch is longer than 16 MiB", path.display())]
    TooLong {
        /// The journal.
        path: PathBuf,
    },
    /// A file operation did not succeed.
    #[error("append to journal {}: {step}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why it did not succeed.
        #[source]
        source: io::Error,
    },
    /// An earlier error left open what is on disk. Opening the journal again finds out.
    #[error("append to journal {}: refused after an earlier error until it is opened again", path.display())]
    Broken {
        /// The journal.
        path: PathBuf,
    },
}

impl AppendError {
    /// Whether the same call may succeed later, for example when the disk has room again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AppendError::Io { .. })
    }
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens the journal at `path`, and makes it when it is absent. The directory must exist.
    ///
    /// What is returned is on disk: a record that the last process wrote, but did not see through, is so now.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while another process has it open; [`OpenError::Corrupt`] when records in its middle are
    /// damaged or unknown, without having changed anything.
    pub fn open(path: &Path) -> Result<(Self, Opened<R>), OpenError> {
        let io = |step| move |source| OpenError::Io { path: path.to_owned(), step, source };
        let lock = lock(path)?;
        if !path.try_exists().map_err(io("look for the file"))? {
            create::<R>(path, &[]).map_err(|error| error.opening(path))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io("open the file"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let parsed = parse(&bytes).map_err(|damage| OpenError::Corrupt {
            path: path.to_owned(),
            offset: to_u64(damage.offset),
            corruption: damage.corruption,
        })?;
        match fs::remove_file(beside(path, ".new")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove what an interrupted compaction left")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let good = to_u64(parsed.good);
        let bytes_cut = to_u64(bytes.len()) - good;
        if bytes_cut > 0 {
            file.set_len(good).map_err(io("cut the torn tail"))?;
        }
        file.sync_all().map_err(io("sync the file"))?;
        sync_directory(path).map_err(io("sync the directory"))?;
        let journal = Self {
            path: path.to_owned(),
            tail: Tail::new(file, good, parsed.frames),
            _lock: lock,
            records: PhantomData,
        };
        let repaired = (bytes_cut > 0).then_some(Repair { bytes_cut });
        Ok((journal, Opened { records: parsed.records, repaired }))
    }

    /// Writes the records as one batch; they are on disk, all of them, when this returns.
    ///
    /// # Errors
    /// [`AppendError::Io`] when nothing was written, and later calls may succeed; [`AppendError::Broken`] on every
    /// call after an error that could not be undone.
    pub fn append(&mut self, records: &[R]) -> Result<(), AppendError> {
        if self.tail.is_broken() {
            return Err(AppendError::Broken { path: self.path.clone() });
        }
        if records.is_empty() {
            return Ok(());
        }
        let frame = encode(records, self.tail.frames())
            .map_err(|error| WriteError::Encode(error).appending(&self.path))?;
        self.tail.append(&frame).map_err(|source| AppendError::Io {
            path: self.path.clone(),
            step: "write and sync",
            source,
        })
    }

    /// Replaces everything by these records. A crash at any point leaves the old records or the new ones.
    ///
    /// # Errors
    /// As [`Journal::append`]; the old records are still in force then, or, when the directory could not be synced,
    /// the old or the new ones, and the journal must be opened again.
    pub fn compact(&mut self, records: &[R]) -> Result<(), AppendError> {
        if self.tail.is_broken() {
            return Err(AppendError::Broken { path: self.path.clone() });
        }
        match create(&self.path, records) {
            Ok(tail) => {
                self.tail = tail;
                Ok(())
            }
            Err(error) => {
                if let WriteError::Directory(_) = error {
                    self.tail.set_broken();
                }
                Err(error.appending(&self.path))
            }
        }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.tail.length()
    }
}

/// Why a new file did not come to be.
#[derive(Debug)]
enum WriteError {
    Encode(EncodeError),
    Io(&'static str, io::Error),
    /// The new file has its name, but might lose it in a crash.
    Directory(io::Error),
}

impl WriteError {
    fn appending(self, path: &Path) -> AppendError {
        let path = path.to_owned();
        match self {
            WriteError::Encode(EncodeError::Json(source)) => AppendError::Encode { path, source },
            WriteError::Encode(EncodeError::TooLong) => AppendError::TooLong { path },
            WriteError::Io(step, source) => AppendError::Io { path, step, source },
            WriteError::Directory(source) => AppendError::Io { path, step: "sync the directory", source },
        }
    }

    fn opening(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            WriteError::Encode(EncodeError::Json(source)) => {
                OpenError::Io { path, step: "encode", source: source.into() }
            }
            WriteError::Encode(EncodeError::TooLong) => {
                OpenError::Io { path, step: "encode", source: io::ErrorKind::FileTooLarge.into() }
            }
            WriteError::Io(step, source) => OpenError::Io { path, step, source },
            WriteError::Directory(source) => OpenError::Io { path, step: "sync the directory", source },
        }
    }
}

/// Puts a journal with these records in place of whatever is at `path`.
fn create<R: Serialize>(path: &Path, records: &[R]) -> Result<Tail<File>, WriteError> {
    let new = beside(path, ".new");
    let tail = write_new(&new, records).and_then(|tail| {
        fs::rename(&new, path).map_err(|error| WriteError::Io("rename the new file", error))?;
        Ok(tail)
    });
    match tail {
        Ok(tail) => sync_directory(path).map_err(WriteError::Directory).map(|()| tail),
        Err(error) => {
            // The first error is the one to tell; opening the journal removes the file as well.
            drop(fs::remove_file(&new));
            Err(error)
        }
    }
}

fn write_new<R: Serialize>(new: &Path, records: &[R]) -> Result<Tail<File>, WriteError> {
    let io = |step| move |error| WriteError::Io(step, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(new).map_err(io("create the new file"))?;
    let (mut length, mut frames) = (HEADER, 0);
    file.write_all(&header()).map_err(io("write the new file"))?;
    for batch in records.chunks(COMPACT_BATCH) {
        let frame = encode(batch, frames).map_err(WriteError::Encode)?;
        file.write_all(&frame).map_err(io("write the new file"))?;
        length += frame.len();
        frames += 1;
    }
    file.sync_all().map_err(io("sync the new file"))?;
    Ok(Tail::new(file, to_u64(length), frames))
}

/// Locks the file beside the journal: the journal itself is replaced by compaction, and a lock would go with it.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |step| move |source| OpenError::Io { path: path.to_owned(), step, source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let lock = options.open(beside(path, ".lock")).map_err(io("open the lock file"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io("lock")(error)),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
