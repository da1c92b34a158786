// SPDX-License-Identifier: Apache-2.0
//! Waiting for the right to write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::place::Held;
use super::scanner::Shared;
use super::write::{Session, not_written};
use crate::StoreError;

/// How long to wait for other writers. Each holds the lock for some milliseconds, so this is a process that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who was first: the worker that got the lock, or the caller that gave up waiting.
#[derive(Default)]
struct Race(AtomicU8);

/// The caller; gives up when it is dropped, so that a cancelled call that has not begun never does.
struct Caller(Arc<Race>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.wins(GIVEN_UP);
    }
}

const OPEN: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Race {
    fn wins(&self, outcome: u8) -> bool {
        self.0.compare_exchange(OPEN, outcome, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Does `work` on a blocking thread with the right to write. It either does not happen, or happens as a whole.
pub(super) async fn write<T, F>(shared: Arc<Shared>, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Session<'_>) -> Result<T, StoreError> + Send + 'static,
{
    write_within(PATIENCE, shared, work).await
}

async fn write_within<T, F>(patience: Duration, shared: Arc<Shared>, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Session<'_>) -> Result<T, StoreError> + Send + 'static,
{
    let caller = Caller(Arc::default());
    let race = Arc::clone(&caller.0);
    let mut worker = spawn_blocking(move || {
        loop {
            let held = acquire(&shared).map_err(not_written)?;
            let mut loader = shared.loader();
            let entered = loader.enter(&shared.view, Instant::now()).map_err(not_written)?;
            // The lock file is another one when the directory, or just the file, was replaced meanwhile.
            if !held.is_at(&entered).map_err(not_written)? {
                continue;
            }
            if !race.wins(BEGUN) {
                return Err(not_written(io::ErrorKind::TimedOut.into()));
            }
            return work(&mut Session { shared: &shared, loader: &mut loader, entered, held });
        }
    });
    let result = match timeout(patience, &mut worker).await {
        Ok(result) => result,
        Err(_) if caller.0.wins(GIVEN_UP) => {
            let message = "another process holds the lock of the object directory";
            return Err(not_written(io::Error::new(io::ErrorKind::TimedOut, message)));
        }
        Err(_) => worker.await,
    };
    match result {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => Err(not_written(io::Error::other(cancelled))),
        },
    }
}

/// Waits for the lock, without keeping the readers from their work.
fn acquire(shared: &Shared) -> io::Result<Held> {
    let entered = shared.loader().enter(&shared.view, Instant::now())?;
    entered.lock_file()?.acquire()
}

/// Removes what writers that died left behind, unless a writer is at work or nobody may write here.
pub(super) fn clean_up(shared: &Shared) {
    let cleaned = shared.loader().enter(&shared.view, Instant::now()).and_then(|entered| {
        match entered.lock_file()?.try_acquire()? {
            Some(held) if held.is_at(&entered)? => entered.clean(&held),
            Some(_) | None => Ok(()),
        }
    });
    if let Err(error) = cleaned {
        tracing::debug!(error = &error as &dyn std::error::Error, "nothing is cleaned up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::scanner::Scanner;
    use crate::dir::test_directory;
    use futures::FutureExt;
    use std::sync::atomic::AtomicUsize;

    /// A store, and the lock of its directory in the hands of another.
    fn hung() -> (tempfile::TempDir, Scanner, Held) {
        let dir = test_directory();
        let scanner = Scanner::start(dir.path(), 1).expect("started");
        let held = acquire(scanner.shared()).expect("locked");
        (dir, scanner, held)
    }

    #[tokio::test]
    async fn a_writer_that_hangs_does_not_hang_others() {
        let (_dir, scanner, held) = hung();
        let done = Arc::new(AtomicUsize::new(0));
        let work = |done: Arc<AtomicUsize>| {
            move |_: &mut Session<'_>| {
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        };
        let shared = scanner.shared();
        let patience = Duration::from_millis(20);
        let error = write_within(patience, Arc::clone(shared), work(Arc::clone(&done))).await;
        let error = error.expect_err("the lock is held");
        assert!(error.is_retryable(), "{error}");
        let cause = std::error::Error::source(&error).expect("has a cause").to_string();
        assert_eq!(cause, "another process holds the lock of the object directory");
        // One more that is dropped while it waits.
        let mut cancelled = Box::pin(write(Arc::clone(shared), work(Arc::clone(&done))));
        assert!((&mut cancelled).now_or_never().is_none());
        drop(cancelled);
        drop(held);
        write(Arc::clone(shared), work(Arc::clone(&done))).await.expect("the lock is free");
        assert_eq!(done.load(Ordering::SeqCst), 1, "what was given up did not happen");
    }

    #[tokio::test]
    async fn a_lock_file_that_was_replaced_is_locked_anew() {
        let (dir, scanner, held) = hung();
        std::fs::remove_file(dir.path().join(super::super::place::LOCK)).expect("removed");
        write(Arc::clone(scanner.shared()), |session| {
            assert!(session.held.is_at(&session.entered).expect("looked"));
            Ok(())
        })
        .await
        .expect("a new lock file");
        drop(held);
    }
}
