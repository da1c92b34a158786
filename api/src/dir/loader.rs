// SPDX-License-Identifier: Apache-2.0
//! Keeps the catalogue as the directory is, by what the kernel tells of it.
//!
//! ```text
//!            attached ── deleted, moved, unmounted, replaced ──► lost: nothing is removed, calls are refused
//!               ▲                                                  │
//!               └── a directory with objects is at the path again ─┘  all is read anew
//! ```

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::catalogue::{Catalogue, GRACE};
use super::place::{self, Entered, Place};
use super::view::View;
use crate::Problem;

/// How long files may be missing from a directory that came back: it may be filled file by file.
const RETURN_GRACE: Duration = Duration::from_secs(1);
/// How often a lost directory is looked for: nothing tells when it is mounted again.
const LOOK: Duration = Duration::from_millis(200);
/// How often all stamps are compared: what is mounted over, or changed behind a symbolic link, is not told.
const SWEEP: Duration = Duration::from_secs(10);
/// Files that are read before the kernel is asked for news again.
const BATCH: usize = 64;
/// How often a file that changes while it is read is read again at once.
const ROUNDS: usize = 4;
/// Room for some hundred events of one reading.
const BUFFER: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Loader {
    path: PathBuf,
    inotify: Inotify,
    watch: Option<WatchDescriptor>,
    place: Option<Place>,
    catalogue: Catalogue,
    news: News,
    next_sweep: Instant,
}

/// What the kernel told and nobody has looked at yet.
#[derive(Debug, Default)]
struct News {
    /// Files that changed.
    names: BTreeSet<String>,
    /// Files that were made, or got other permissions: of interest when no writer closes them.
    hints: BTreeSet<String>,
    /// Files that a store deleted.
    deleted: BTreeSet<String>,
    /// Files that somebody is writing: they are read when they are closed.
    writing: BTreeSet<String>,
    /// The last half of a rename that was seen: cookie, and the name that went away.
    moving: Option<(u32, String)>,
    /// Events may be missing.
    all: bool,
}

impl Loader {
    /// Opens the directory and reads every file.
    pub(super) fn open(path: &Path, view: &View, now: Instant) -> io::Result<Self> {
        let mut loader = Self {
            path: path.to_owned(),
            inotify: Inotify::init()?,
            watch: None,
            place: None,
            catalogue: Catalogue::default(),
            news: News::default(),
            next_sweep: now,
        };
        loader.attach(now)?;
        loader.publish(view);
        Ok(loader)
    }

    /// A descriptor that becomes readable when there is news.
    pub(super) fn news_fd(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Brings the view up to date. Returns when to do so again though nothing happened.
    pub(super) fn refresh(&mut self, view: &View, now: Instant) -> Instant {
        match self.enter(view, now) {
            Ok(_) if !self.news.names.is_empty() => now,
            Ok(_) => self.catalogue.next_deadline().map_or(self.next_sweep, |at| at.min(self.next_sweep)),
            Err(_) => now + LOOK,
        }
    }

    /// Reads a file again that is not as it was read; waits a little for somebody who is writing it.
    pub(super) fn read_again(&mut self, name: &str, view: &View) {
        if self.news.writing.contains(name) {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            if let Err(error) = poll(&mut fds, Some(&wait)) {
                warn!(error = &error as &dyn std::error::Error, "wait for news of the object directory");
            }
        } else {
            self.news.names.insert(name.to_owned());
        }
        self.refresh(view, Instant::now());
    }

    /// Brings the view up to date and opens the directory for work.
    pub(super) fn enter(&mut self, view: &View, now: Instant) -> io::Result<Entered> {
        let entered = self.look(now);
        match &entered {
            Ok(_) => view.set_lost(None),
            Err(error) => self.lose(error, view),
        }
        self.publish(view);
        entered
    }

    fn look(&mut self, now: Instant) -> io::Result<Entered> {
        let Some(place) = self.place.clone() else { return self.attach(now) };
        self.drain()?;
        // Only now: what disappeared with the directory is no removal.
        let entered = place.enter()?;
        if std::mem::take(&mut self.news.all) || self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.news.writing.clear();
            self.news.names.extend(self.catalogue.suspects(&entered)?);
        }
        for name in std::mem::take(&mut self.news.hints) {
            if entered.is_linked(&name) || self.catalogue.is_unreadable(&name) {
                self.news.names.insert(name);
            }
        }
        self.read(&entered, now + GRACE)?;
        for name in std::mem::take(&mut self.news.deleted) {
            self.catalogue.believe_gone(&name, now);
        }
        self.catalogue.give_up_missing(now);
        Ok(entered)
    }

    /// Reads the files that changed, but takes nothing that changed again while it was read. What then remains is
    /// read next time.
    ///
    /// The kernel tells of a truncation before anything is written behind it, so half a file is never taken.
    fn read(&mut self, entered: &Entered, gone_at: Instant) -> io::Result<()> {
        let mut batches = self.news.names.len() / BATCH + ROUNDS;
        while !self.news.names.is_empty() && batches > 0 {
            batches -= 1;
            let names: Vec<String> = self.news.names.iter().take(BATCH).cloned().collect();
            self.news.names.retain(|name| !names.contains(name));
            let read: Vec<_> = names.into_iter().map(|name| (entered.read(&name), name)).collect();
            self.drain()?;
            for (result, name) in read {
                if !self.news.writing.contains(&name) && !self.news.names.contains(&name) {
                    self.catalogue.take(&name, result, gone_at);
                }
            }
        }
        Ok(())
    }

    /// Takes the directory that is at the path now.
    fn attach(&mut self, now: Instant) -> io::Result<Entered> {
        let place = Place::find(&self.path)?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = self.inotify.watches().add(&self.path, mask)?;
        let entered = place.enter()?;
        if !self.catalogue.is_empty() && entered.names()?.is_empty() {
            let message =
                "the directory that came back holds no objects; it is taken again when it holds one";
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        self.catalogue.postpone_missing(now + RETURN_GRACE);
        self.news = News { names: self.catalogue.suspects(&entered)?, ..News::default() };
        (self.place, self.watch) = (Some(place), Some(watch));
        self.read(&entered, now + RETURN_GRACE)?;
        self.next_sweep = now + SWEEP;
        info!(path = %self.path.display(), "object directory is read");
        Ok(entered)
    }

    fn lose(&mut self, error: &io::Error, view: &View) {
        if self.place.take().is_some() {
            warn!(path = %self.path.display(), %error, "object directory is lost, what was read stays in force");
            if let Some(watch) = self.watch.take() {
                // A deleted directory took its watch along.
                drop(self.inotify.watches().remove(watch));
            }
        }
        let error = io::Error::new(error.kind(), error.to_string());
        view.set_lost(Some(Arc::new(error)));
    }

    fn publish(&mut self, view: &View) {
        view.apply(self.catalogue.decide());
        let mut problems = self.catalogue.problems();
        if self.place.is_none() {
            let message = "the directory is not there; what was read from it stays in force".to_owned();
            let file = self.path.display().to_string();
            problems.push(Problem { file, line: None, column: None, object: None, field: None, message });
        }
        view.set_problems(problems);
    }

    /// Takes in all that the kernel told up to now.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER];
        loop {
            let events = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in events {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    self.news.all = true;
                } else if Some(&event.wd) == self.watch.as_ref() {
                    self.news.take(&event);
                }
            }
        }
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }
}

impl News {
    fn take(&mut self, event: &Event<&std::ffi::OsStr>) {
        let ends = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED;
        if event.mask.intersects(ends) {
            self.all = true;
            return;
        }
        let Some(name) = event.name.and_then(|name| name.to_str()) else { return };
        if event.mask.contains(EventMask::MOVED_TO)
            && place::is_deleted_name(name)
            && let Some((_, from)) = self.moving.take_if(|(cookie, _)| *cookie == event.cookie)
        {
            self.deleted.insert(from);
        }
        if event.mask.contains(EventMask::MOVED_FROM) {
            self.moving = Some((event.cookie, name.to_owned()));
        }
        if name.starts_with("..") {
            // Kubernetes changes a mounted ConfigMap by one rename of `..data`, to which all files are links.
            self.all = true;
        } else if place::is_object_file(name) {
            if event.mask.contains(EventMask::MODIFY) {
                self.writing.insert(name.to_owned());
            } else if event.mask.intersects(EventMask::CREATE | EventMask::ATTRIB) {
                self.hints.insert(name.to_owned());
            } else {
                self.writing.remove(name);
                self.names.insert(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::test_directory;
    use crate::{Kind, Namespace};

    fn write(dir: &Path, name: &str) {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        std::fs::write(dir.join(format!("{name}.yaml")), text).expect("written");
    }

    fn names(view: &View) -> Vec<String> {
        let list = view.list::<Namespace>().expect("the directory is there");
        list.items.iter().map(|object| object.key().name).collect()
    }

    #[test]
    fn an_overflow_of_the_kernels_queue_loses_nothing() {
        let dir = test_directory();
        write(dir.path(), "a");
        let (view, now) = (View::new(1), Instant::now());
        let mut loader = Loader::open(dir.path(), &view, now).expect("opened");
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("read");
        for i in 0..limit.trim().parse::<usize>().expect("a number") {
            std::fs::write(dir.path().join(format!("{}.txt", i % 2)), "x").expect("written");
        }
        write(dir.path(), "b");
        std::fs::remove_file(dir.path().join("a.yaml")).expect("removed");
        let again = loader.refresh(&view, now);
        assert_eq!(names(&view), ["a", "b"]);
        loader.refresh(&view, again);
        assert_eq!(names(&view), ["b"]);
    }

    #[test]
    fn half_a_file_is_never_taken() {
        use std::io::Write;
        let dir = test_directory();
        write(dir.path(), "a");
        let (view, now) = (View::new(1), Instant::now());
        let mut loader = Loader::open(dir.path(), &view, now).expect("opened");
        // Somebody touched the file before, so that it is to be read while it is written.
        write(dir.path(), "a");
        let mut file = std::fs::File::create(dir.path().join("a.yaml")).expect("truncated");
        loader.refresh(&view, now);
        loader.refresh(&view, now + GRACE * 2);
        assert_eq!(names(&view), ["a"]);
        file.write_all(b"apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n").expect("written");
        loader.refresh(&view, now + GRACE * 4);
        assert_eq!(names(&view), ["a"]);
        drop(file);
        loader.refresh(&view, now + GRACE * 4);
        assert_eq!(names(&view), ["b"]);
    }

    #[test]
    fn a_sweep_finds_what_nobody_told() {
        let (dir, outside) = (test_directory(), test_directory());
        write(outside.path(), "a");
        let link = dir.path().join("link.yaml");
        std::os::unix::fs::symlink(outside.path().join("a.yaml"), link).expect("linked");
        let (view, now) = (View::new(1), Instant::now());
        let mut loader = Loader::open(dir.path(), &view, now).expect("opened");
        write(outside.path(), "b");
        std::fs::rename(outside.path().join("b.yaml"), outside.path().join("a.yaml")).expect("renamed");
        loader.refresh(&view, now);
        assert_eq!(names(&view), ["a"]);
        loader.refresh(&view, now + SWEEP);
        assert_eq!(names(&view), ["b"]);
    }
}
