// SPDX-License-Identifier: Apache-2.0
//! The thread that waits for news of the directory.
//!
//! A thread rather than a task: reading files blocks, and a store works the same under any runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::loader::Loader;
use super::view::View;

/// What the thread and the writers share.
#[derive(Debug)]
pub(super) struct Shared {
    loader: Mutex<Loader>,
    pub(super) view: View,
}

impl Shared {
    /// The loader; whoever has it may block, but does not wait for another process.
    pub(super) fn loader(&self) -> MutexGuard<'_, Loader> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread; ends when dropped.
#[derive(Debug)]
pub(super) struct Scanner {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Scanner {
    /// Reads the directory and begins to wait for news of it.
    pub(super) fn start(path: &Path, epoch: u64) -> io::Result<Self> {
        let view = View::new(epoch);
        let loader = Loader::open(path, &view, Instant::now())?;
        let news = loader.news_fd()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let shared = Arc::new(Shared { loader: Mutex::new(loader), view });
        let (theirs, their_stop) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("object-files".to_owned())
            .spawn(move || run(&theirs, &news, &their_stop))?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn view(&self) -> &View {
        &self.shared.view
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "thread of the object directory goes on"
            );
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("thread of the object directory panicked");
        }
    }
}

fn run(shared: &Shared, news: &OwnedFd, stop: &OwnedFd) {
    loop {
        let (now, again) = {
            let mut loader = shared.loader();
            // Only now, as a writer may have had the loader for long.
            let now = Instant::now();
            (now, loader.refresh(&shared.view, now))
        };
        // One millisecond more, so that what is due at `again` is due when it comes.
        let wait = again.saturating_duration_since(now) + Duration::from_millis(1);
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(news, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "wait for news of the object directory"
                );
                return;
            }
        }
        if !fds[1].revents().is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::test_directory;

    #[test]
    fn the_thread_ends_with_the_scanner() {
        let dir = test_directory();
        let scanner = Scanner::start(dir.path(), 1).expect("started");
        let shared = Arc::downgrade(scanner.shared());
        drop(scanner);
        assert!(shared.upgrade().is_none(), "the thread still holds what it shared");
    }
}
