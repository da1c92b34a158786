// SPDX-License-Identifier: Apache-2.0
//! The thread of the sessions: a KEEPALIVE waits for no work on routes.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Session;

/// Turns of tasks after which timers, sockets and what the owner says are looked at again. A turn may decode 64 KiB:
/// so many of them as is usual, 61 and 31, take seconds.
const TURNS: u32 = 2;

/// A thread on which tasks of peers run, with timers and sockets that nobody else waits for. It ends with this value;
/// tasks that have not ended by then are cut off.
#[derive(Debug)]
pub(crate) struct SessionThread {
    tasks: Handle,
    _stop: oneshot::Sender<()>,
}

impl SessionThread {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// When the kernel gives no descriptors or no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .event_interval(TURNS)
            .global_queue_interval(TURNS)
            .enable_all()
            .build()?;
        let tasks = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            // Nothing is ever sent: the sender's end is the word.
            drop(runtime.block_on(stopped));
        };
        std::thread::Builder::new().name("bgp-sessions".to_owned()).spawn(work)?;
        Ok(Self { tasks, _stop: stop })
    }

    /// Runs a peer's task there; its end is seen in `running`.
    pub(crate) fn spawn(&self, session: Session, running: &mut JoinSet<()>) {
        running.spawn_on(session.run(), &self.tasks);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_runs_there_does_not_wait_for_the_thread_that_started_it() {
        let thread = SessionThread::start().expect("started");
        let (tell, told) = std::sync::mpsc::channel();
        thread.tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tell.send(std::thread::current().name().map(str::to_owned)).expect("heard");
        });
        // This thread is blocked meanwhile, which is what is tried here.
        let name = told.recv_timeout(Duration::from_secs(20)).expect("it runs");
        assert_eq!(name.as_deref(), Some("bgp-sessions"));
        drop(thread);
        assert!(told.recv().is_err(), "nothing is left of the task");
    }
}
