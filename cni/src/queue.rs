// SPDX-License-Identifier: Apache-2.0
//! DELs that the agent could not be told because it was not running.
//!
//! ```text
//!  plugin: connect refused ─► shared lock ─► connect again ─┬─► refused: write the file, unlock
//!                                                           └─► connected: unlock, ask
//!  agent:  exclusive lock ─► drain ─► listen ─► unlock
//! ```
//! Whoever finds the agent absent while holding the shared lock has written its file before the agent drains; whoever
//! gets the lock after the agent let go of it can connect. So no file is written that nobody reads. An ADD needs the
//! agent, hence no queued DEL is older than an attachment of the same key, as long as the agent drains before it
//! listens.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rhumb_model::AttachmentKey;

use crate::frame::Deadline;
use crate::protocol::{DelRequest, QUEUE_DIR};

const SUFFIX: &str = ".json";
const BAD_SUFFIX: &str = ".bad";
/// No queued request is longer than this many bytes.
const LONGEST: u64 = 1 << 16;

/// Why the queue could not be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// A file or the directory itself.
    #[error("delete queue: {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The agent kept the lock for too long.
    #[error("delete queue: deadline passed while the agent drains it")]
    TimedOut,
}

/// Why a file of the queue is not a request.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It cannot be read.
    #[error("read the request")]
    Read(#[source] io::Error),
    /// Its content is none.
    #[error("decode the request")]
    Json(#[source] serde_json::Error),
    /// It is not named after its content.
    #[error("the file is not named after its attachment {key}")]
    Name {
        /// The attachment in the file.
        key: AttachmentKey,
    },
}

/// The agent's hold on the queue. While it lives no plugin queues anything: drop it once the agent listens.
#[derive(Debug)]
pub struct Queue {
    directory: PathBuf,
    _lock: File,
}

/// A file of the queue.
#[derive(Debug)]
pub struct Pending {
    /// Where it lies.
    pub path: PathBuf,
    /// The request in it.
    pub content: Result<DelRequest, BadFile>,
}

/// What draining came to.
#[derive(Debug)]
pub struct Drained<E> {
    /// Requests that were carried out; their files are gone.
    pub done: Vec<DelRequest>,
    /// Requests that were not; their files stay for the next start.
    pub failed: Vec<(DelRequest, E)>,
    /// Files that hold no request, where they lie now, and why.
    pub bad: Vec<(PathBuf, BadFile)>,
}

/// The queue beside the socket `socket`.
pub fn directory_of(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join(QUEUE_DIR)
}

impl Queue {
    /// Takes hold of the queue, waiting for plugins that are just writing to it.
    ///
    /// # Errors
    /// [`QueueError::File`] when the directory or its lock cannot be made.
    pub fn open(directory: &Path) -> Result<Self, QueueError> {
        let lock = made(directory)?;
        lock.lock().map_err(|source| failed("lock", directory, source))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// Carries out every queued request in the order of their names. A file is removed when `del` succeeded; one
    /// that holds no request is renamed to end in `.bad` and left for a person to see.
    ///
    /// # Errors
    /// [`QueueError::File`] when the directory cannot be read or a file cannot be renamed or removed.
    pub fn drain<E>(
        &self,
        mut del: impl FnMut(&DelRequest) -> Result<(), E>,
    ) -> Result<Drained<E>, QueueError> {
        let mut drained = Drained { done: Vec::new(), failed: Vec::new(), bad: Vec::new() };
        for pending in self.pending()? {
            let request = match pending.content {
                Ok(request) => request,
                Err(error) => {
                    drained.bad.push((set_aside(&pending.path)?, error));
                    continue;
                }
            };
            match del(&request) {
                Ok(()) => {
                    self.remove(&request)?;
                    drained.done.push(request);
                }
                Err(error) => drained.failed.push((request, error)),
            }
        }
        sync(&self.directory)?;
        Ok(drained)
    }

    /// Every file of the queue in the order of their names: for an agent that carries the requests out in a way of
    /// its own, and calls [`Queue::remove`] for each, and [`Pending::set_aside`] for those that hold none.
    ///
    /// # Errors
    /// [`QueueError::File`] when the directory cannot be read.
    pub fn pending(&self) -> Result<Vec<Pending>, QueueError> {
        let reading = |source| failed("read", &self.directory, source);
        let mut names = Vec::new();
        for entry in self.directory.read_dir().map_err(reading)? {
            names.push(entry.map_err(reading)?.file_name());
        }
        names.sort();
        let mut pending = Vec::new();
        for name in names {
            let path = self.directory.join(&name);
            let text = name.to_string_lossy();
            if text.starts_with('.') && text.ends_with(SUFFIX) {
                // Left by a plugin that was killed before it renamed the file: its DEL was never answered.
                remove_file(&path)?;
            } else if text.ends_with(SUFFIX) {
                let content = read(&path);
                pending.push(Pending { path, content });
            }
        }
        Ok(pending)
    }

    /// Removes the file of a request; its absence is success.
    ///
    /// # Errors
    /// [`QueueError::File`] when it cannot be removed.
    pub fn remove(&self, request: &DelRequest) -> Result<(), QueueError> {
        remove_file(&self.directory.join(file_name(&request.key)))
    }
}

impl Pending {
    /// Renames the file so that it is no longer part of the queue, and gives back its new path.
    ///
    /// # Errors
    /// [`QueueError::File`] when it cannot be renamed.
    pub fn set_aside(&self) -> Result<PathBuf, QueueError> {
        set_aside(&self.path)
    }
}

/// A plugin's hold on the queue: the agent cannot drain it meanwhile.
#[derive(Debug)]
pub(crate) struct Writer {
    directory: PathBuf,
    _lock: File,
}

impl Writer {
    /// Takes hold of the queue, waiting for an agent that is just draining it.
    pub(crate) fn open(directory: &Path, deadline: Deadline) -> Result<Self, QueueError> {
        let lock = made(directory)?;
        let (sender, receiver) = mpsc::channel();
        // A lock has no deadline of its own; a thread that still waits for it ends with the process.
        std::thread::spawn(move || {
            let taken = lock.lock_shared().map(|()| lock);
            drop(sender.send(taken));
        });
        let remaining = deadline.remaining().map_err(|_| QueueError::TimedOut)?;
        let taken = receiver.recv_timeout(remaining).map_err(|_| QueueError::TimedOut)?;
        let lock = taken.map_err(|source| failed("lock", directory, source))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// Puts a request into the queue; it is on disk when this returns.
    pub(crate) fn put(&self, request: &DelRequest) -> Result<(), QueueError> {
        let name = file_name(&request.key);
        let path = self.directory.join(&name);
        // The process in the name keeps two DELs of one attachment apart.
        let draft = self.directory.join(format!(".{}.{name}", std::process::id()));
        let writing = |source| failed("write", &draft, source);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(writing)?;
        serde_json::to_writer(&mut file, request).map_err(|e| writing(e.into()))?;
        file.write_all(b"\n").and_then(|()| file.sync_all()).map_err(writing)?;
        std::fs::rename(&draft, &path).map_err(|source| failed("rename", &draft, source))?;
        sync(&self.directory)
    }
}

/// The file of an attachment. No container id has a `:`, so no two attachments have the same file.
fn file_name(key: &AttachmentKey) -> String {
    format!("{}:{}{SUFFIX}", key.container, key.ifname)
}

/// The directory, made where it is absent, as what is locked: it needs no file of its own, which somebody could take
/// for a request.
fn made(directory: &Path) -> Result<File, QueueError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| failed("create", directory, source))?;
    File::open(directory).map_err(|source| failed("open", directory, source))
}

fn read(path: &Path) -> Result<DelRequest, BadFile> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(BadFile::Read)?;
    file.take(LONGEST).read_to_end(&mut bytes).map_err(BadFile::Read)?;
    let request: DelRequest = serde_json::from_slice(&bytes).map_err(BadFile::Json)?;
    if path.file_name() != Some(file_name(&request.key).as_ref()) {
        return Err(BadFile::Name { key: request.key });
    }
    Ok(request)
}

fn set_aside(path: &Path) -> Result<PathBuf, QueueError> {
    let mut to = path.as_os_str().to_owned();
    to.push(BAD_SUFFIX);
    std::fs::rename(path, &to).map_err(|source| failed("rename", path, source))?;
    Ok(to.into())
}

fn remove_file(path: &Path) -> Result<(), QueueError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<(), QueueError> {
    let synced = File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|source| failed("write", directory, source))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> QueueError {
    QueueError::File { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    fn request(key: &str) -> DelRequest {
        DelRequest { key: key.parse().expect("key"), network: "podnet".into() }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = directory
            .read_dir()
            .expect("directory")
            .map(|e| e.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_put_is_drained_once() {
        let room = tempfile::tempdir().expect("dir");
        let directory = room.path().join("a/queue");
        let requests = [request("a.b/c"), request("a/b.c"), request("z/eth0")];
        for r in requests.iter().chain([&requests[0]]) {
            Writer::open(&directory, soon()).expect("lock").put(r).expect("disk");
        }
        let mode = directory.metadata().expect("directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        let queue = Queue::open(&directory).expect("lock");
        let drained = queue.drain(|_| Ok::<_, Infallible>(())).expect("disk");
        assert_eq!(drained.done, requests);
        assert!(names(&directory).is_empty());
        assert!(queue.drain(|_| Ok::<_, Infallible>(())).expect("disk").done.is_empty());
    }

    #[test]
    fn what_could_not_be_carried_out_stays() {
        let room = tempfile::tempdir().expect("dir");
        let writer = Writer::open(room.path(), soon()).expect("lock");
        writer.put(&request("bad/eth0")).expect("disk");
        writer.put(&request("good/eth0")).expect("disk");
        drop(writer);
        let queue = Queue::open(room.path()).expect("lock");
        let fail = |r: &DelRequest| if r.key.container.as_str() == "bad" { Err("busy") } else { Ok(()) };
        let drained = queue.drain(fail).expect("disk");
        assert_eq!(drained.done, [request("good/eth0")]);
        assert_eq!(drained.failed, [(request("bad/eth0"), "busy")]);
        assert_eq!(names(room.path()), ["bad:eth0.json"]);
    }

    #[test]
    fn corrupt_files_are_set_aside_and_drafts_removed() {
        let room = tempfile::tempdir().expect("dir");
        let json = serde_json::to_string(&request("a/eth0")).expect("json");
        for (name, text) in [
            ("torn:eth0.json", &json[..10]),
            ("other:eth0.json", &json),
            ("empty:eth0.json", ""),
            (".17.a:eth0.json", &json),
            ("a:eth0.json", &json),
            ("note", "kept"),
        ] {
            std::fs::write(room.path().join(name), text).expect("file");
        }
        let queue = Queue::open(room.path()).expect("lock");
        let drained = queue.drain(|_| Ok::<_, Infallible>(())).expect("disk");
        assert_eq!(drained.done, [request("a/eth0")]);
        assert_eq!(drained.bad.len(), 3);
        assert_eq!(
            names(room.path()),
            ["empty:eth0.json.bad", "note", "other:eth0.json.bad", "torn:eth0.json.bad"]
        );
    }

    #[test]
    fn plugins_share_the_lock_and_the_agent_has_it_alone() {
        let room = tempfile::tempdir().expect("dir");
        let first = Writer::open(room.path(), soon()).expect("lock");
        let second = Writer::open(room.path(), soon()).expect("shared");
        drop((first, second));
        let queue = Queue::open(room.path()).expect("lock");
        let short = Deadline::after(Duration::from_millis(30));
        assert!(matches!(Writer::open(room.path(), short), Err(QueueError::TimedOut)));
        drop(queue);
        assert!(Writer::open(room.path(), soon()).is_ok());
    }

    #[test]
    fn a_queue_that_cannot_be_made_says_where() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let error = Writer::open(&file.path().join("queue"), soon()).expect_err("no directory").to_string();
        assert!(error.contains("create") && error.contains("queue"), "{error}");
    }
}
