// SPDX-License-Identifier: Apache-2.0
//! Sessions: sockets, and one task a peer that owns them and the peer's state machines. The tasks have a thread of their
//! own, so that nothing the speaker does with routes delays a KEEPALIVE.
//!
//! ```text
//!            commands                                   reports
//!   speaker ──────────► task of a peer ──────────────────────────► speaker
//!     │                  Pair (pure): actions, timers                 ▲
//!     │ batch of routes   │        ▲                                  │ Ready: the last batch is on its way
//!     └──────────────────►│        │ messages                        │
//!                         ▼        │                                  │
//!                      sockets ── codec ──────────────────────────────┘
//! ```
//!
//! Routes to be told are never queued: the speaker gives one batch, and the next one when the task says that the
//! kernel has taken all of it. While the speaker has not taken what a peer said, the peer is not read from; its own
//! TCP slows it down, and that does not count against its hold time.

mod connection;
mod endpoint;
mod fallback;
mod peer;
mod router;
mod socket_option;
mod thread;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rhumb_bgp_feed::{MessageCounts, PeerAsn};

use connection::Queued;
pub(crate) use endpoint::{Endpoint, NOWHERE, Reach, is_from, listen, listener_prefix};
pub(crate) use peer::Session;
pub(crate) use router::{Heard, discover};
pub(crate) use socket_option::put_md5_key;
pub(crate) use thread::SessionThread;

use crate::fsm::{self, Cause, State};
use crate::rib::Outgoing;
use crate::wire::{Message, Negotiated, Notification, Open, RouteRefresh, Update};

/// Number of an established session of a peer; later ones have larger numbers.
pub(crate) type Number = u64;

/// Number of a peer's task; never used twice.
pub(crate) type TaskId = u64;

/// All that a peer's task has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) fsm: fsm::Settings,
    /// Our OPEN.
    pub(crate) offer: Open,
    /// Which AS the peer may be of.
    pub(crate) expected: PeerAsn,
}

/// What the speaker asks of a peer's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Begins to try.
    Start,
    /// Ends the session, for good or for a time.
    Stop {
        /// What the peer is told, where it can be told.
        text: Notification,
        /// After how long to try again; `None`: not before a start.
        again: Option<Duration>,
    },
    /// A connection that the peer has made; of no runtime, so that the task's own thread watches it.
    Incoming(TcpStream, SocketAddr),
    /// Other settings, from the next connection on.
    Set(Box<Settings>),
    /// The address of an unnumbered peer.
    Found(IpAddr),
    /// Routes for the peer: one batch.
    Routes(Number, Vec<Outgoing>),
}

/// What a peer's task tells the speaker.
#[derive(Debug)]
pub(crate) enum Report {
    /// The session's state is another one.
    State(State),
    /// A session is established and ready for its first batch.
    Up(Box<Established>),
    /// It is over.
    Down(Cause),
    /// The peer told of routes.
    Updates(Vec<Update>),
    /// The peer asks for routes, or marks an answer.
    Refresh(RouteRefresh),
    /// The last batch was taken by the kernel.
    Ready(Number),
    /// An attempt has failed.
    Trouble(String),
}

/// An established session.
#[derive(Debug, Clone)]
pub(crate) struct Established {
    pub(crate) number: Number,
    pub(crate) negotiated: Negotiated,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Our OPEN and the peer's, as they were on the wire.
    pub(crate) opens: [Bytes; 2],
}

/// Messages of a peer by the type octet less one, since the task's start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: [AtomicU64; 5],
    sent: [AtomicU64; 5],
}

impl Counters {
    fn count(counters: &[AtomicU64; 5], message: &Message) {
        let index = match message {
            Message::Open(_) => 0,
            Message::Update(_) => 1,
            Message::Notification(_) => 2,
            Message::Keepalive => 3,
            Message::RouteRefresh(_) => 4,
        };
        counters[index].fetch_add(1, Ordering::Relaxed);
    }

    fn count_received(&self, message: &Message) {
        Self::count(&self.received, message);
    }

    fn count_sent(&self, message: &Message) {
        Self::count(&self.sent, message);
    }

    fn count_routes_sent(&self, queued: Queued) {
        self.sent[1].fetch_add(queued.updates as u64, Ordering::Relaxed);
        self.sent[4].fetch_add(queued.marks as u64, Ordering::Relaxed);
    }

    /// What was received and sent.
    pub(crate) fn read(&self) -> (MessageCounts, MessageCounts) {
        let read = |counters: &[AtomicU64; 5]| {
            let [open, update, notification, keepalive, route_refresh] =
                counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
            MessageCounts { open, update, notification, keepalive, route_refresh }
        };
        (read(&self.received), read(&self.sent))
    }
}

/// An error with what caused it, for people.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
