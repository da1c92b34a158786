// SPDX-License-Identifier: Apache-2.0
//! Packet events: out of the kernel's ring, to whoever watches; the last drops are kept.
//!
//! ```text
//!   ring ──► record (names of pods) ──► kept drops
//!    ▲                           └────► filter ──► watcher's channel ──► connection
//!    └── wish: what the watchers together want to hear besides drops
//! ```
//! Nobody here waits for a watcher: one whose channel is full loses events and is told how many.

mod record;
mod watchers;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use rhumb_ebpf::{Events, Verdict, boot_clock};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::node::Input;
use record::Record;
use watchers::Watchers;

pub(crate) use record::Names;
pub(crate) use watchers::{Join, LINES, Request};

/// How many drops are kept for those who come later.
pub(crate) const KEPT: usize = 512;

/// How often the ring is looked at while somebody watches; a quarter of the ring wakes us before.
const WATCHED: Duration = Duration::from_millis(100);

/// How often it is looked at otherwise, for names of pods that are still there.
const UNWATCHED: Duration = Duration::from_secs(1);

/// How long the kernel side goes on telling when we do not say so again.
const LEASE: Duration = Duration::from_secs(5);

/// How often names, wish and what was not told are looked at anew.
const REFRESH: Duration = Duration::from_secs(1);

/// Reads the ring and serves watchers until the node's loop is gone.
pub(crate) async fn run(events: Events, inbox: mpsc::Sender<Input>, mut joins: mpsc::Receiver<Join>) {
    #[expect(
        deprecated,
        reason = "the ring owns its descriptor and keeps it; the constructor in its stead is unsafe"
    )]
    let registered = AsyncFd::new(events);
    let mut ring = match registered {
        Ok(ring) => ring,
        Err(error) => {
            warn!(%error, "packet events are not heard");
            return;
        }
    };
    let mut monitor = Monitor::new(inbox.clone());
    loop {
        let pause = if monitor.watchers.is_empty() { UNWATCHED } else { WATCHED };
        tokio::select! {
            join = joins.recv() => match join {
                Some(join) => {
                    // What waits in the ring is older than the wish to hear.
                    monitor.step(ring.get_mut()).await;
                    monitor.join(join);
                }
                None => return,
            },
            ready = ring.readable_mut() => if let Ok(mut ready) = ready { ready.clear_ready() },
            () = tokio::time::sleep(pause) => {}
            () = inbox.closed() => return,
        }
        monitor.step(ring.get_mut()).await;
    }
}

struct Monitor {
    inbox: mpsc::Sender<Input>,
    watchers: Watchers,
    kept: VecDeque<Rc<Record>>,
    names: Names,
    /// When names and wish were last looked at.
    refreshed: Option<Instant>,
    /// Whether the kernel side was asked for more than drops.
    asked: bool,
}

impl Monitor {
    fn new(inbox: mpsc::Sender<Input>) -> Self {
        Self {
            inbox,
            watchers: Watchers::default(),
            kept: VecDeque::new(),
            names: Names::default(),
            refreshed: None,
            asked: false,
        }
    }

    fn join(&mut self, join: Join) {
        self.watchers.join(join, &self.kept);
        // The kernel side hears of a new wish at once.
        self.refreshed = None;
    }

    async fn step(&mut self, events: &mut Events) {
        self.watchers.forget_the_gone();
        let first = events.next();
        let due = self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH);
        if due && (first.is_some() || !self.watchers.is_empty()) {
            self.refreshed = Some(Instant::now());
            self.learn_names().await;
            self.watchers.say_untold(events);
        }
        // Between the two clocks; drawn anew each time, as the wall clock may be set.
        let boot = SystemTime::now().checked_sub(boot_clock()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut event = first;
        while let Some(found) = event {
            let record = Rc::new(Record::new(&found, boot, &self.names));
            self.watchers.offer(&record);
            if record.verdict() == Verdict::Drop {
                if self.kept.len() == KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(record);
            }
            event = events.next();
        }
        if due {
            self.wish(events);
        }
    }

    /// Says to the kernel side what is wanted besides drops.
    fn wish(&mut self, events: &mut Events) {
        let wish = self.watchers.wish(&self.names);
        if wish.is_none() && !self.asked {
            return;
        }
        self.asked = wish.is_some();
        if let Err(error) = events.watch(wish.as_ref(), boot_clock() + LEASE) {
            warn!(error = &error as &dyn std::error::Error, "packets cannot be watched");
        }
    }

    async fn learn_names(&mut self) {
        let (reply, names) = oneshot::channel();
        if self.inbox.send(Input::Names { reply }).await.is_ok()
            && let Ok(names) = names.await
        {
            self.names = names;
        }
    }
}
