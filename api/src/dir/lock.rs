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
    let race = Arc::new(Race::default());
    let theirs = Arc::clone(&race);
    let mut worker = spawn_blocking(move || {
        loop {
            let held = acquire(&shared).map_err(not_written)?;
            let mut loader = shared.loader();
            let entered = loader.enter(&shared.view, Instant::now()).map_err(not_written)?;
            // The lock file is another one when the directory, or just the file, was replaced meanwhile.
            if !held.is_at(&entered).map_err(not_written)? {
                continue;
            }
            if !theirs.wins(BEGUN) {
                return Err(not_written(io::ErrorKind::TimedOut.into()));
            }
            return work(&mut Session { shared: &shared, loader: &mut loader, entered, held });
        }
    });
    let result = match timeout(PATIENCE, &mut worker).await {
        Ok(result) => result,
        Err(_) if race.wins(GIVEN_UP) => {
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
