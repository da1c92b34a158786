// SPDX-License-Identifier: Apache-2.0
//! The BGP monitoring protocol (RFC 7854): what a speaker tells a station of its peers and of the routes they send.
//!
//! ```text
//!   Initiation ─► of each session: PeerUp ─► Routes … ─► PeerDown ─► Termination
//!                                     └── Statistics, now and then
//! ```
//!
//! The messages are values here, and [`Message::encode`] is their form on the wire; `station` is the task that sends them.
//! What is sent, and when, is the speaker's.

mod encode;
mod station;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use rhumb_model::Family;

pub(crate) use station::{Line, Order, Station};

use crate::wire::{Asn, Notification, RouterId};

/// A message for a station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The first of a connection (RFC 7854 §4.3).
    Initiation {
        /// The speaker's name.
        name: String,
        /// What it is: program and version.
        description: String,
    },
    /// A session with a peer is established, or was when the station came (RFC 7854 §4.10).
    PeerUp(Box<PeerUp>),
    /// Routes as the peer sent them, or as they were accepted: one UPDATE (RFC 7854 §4.6).
    Routes {
        /// The peer.
        peer: Peer,
        /// When they came, since 1970.
        at: Duration,
        /// The whole UPDATE, with its header.
        update: Bytes,
    },
    /// Numbers of a peer (RFC 7854 §4.8).
    Statistics {
        /// The peer.
        peer: Peer,
        /// When they were true, since 1970.
        at: Duration,
        /// The numbers.
        numbers: Vec<Statistic>,
    },
    /// A session is over (RFC 7854 §4.9).
    PeerDown {
        /// The peer.
        peer: Peer,
        /// When, since 1970.
        at: Duration,
        /// Why.
        reason: Down,
    },
    /// The last of a connection (RFC 7854 §4.5).
    Termination(Termination),
}

/// A peer as messages name it (RFC 7854 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address on the session.
    pub(crate) address: IpAddr,
    /// Its AS.
    pub(crate) asn: Asn,
    /// Its identifier.
    pub(crate) router_id: RouterId,
    /// Which routes the message is about.
    pub(crate) view: View,
    /// UPDATEs have AS paths of two octets a system.
    pub(crate) two_octets: bool,
}

/// Which of a peer's routes are meant (RFC 7854 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum View {
    /// Those that it sent.
    PrePolicy,
    /// Those that were accepted, as policy changed them.
    PostPolicy,
}

/// An established session (RFC 7854 §4.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerUp {
    /// The peer.
    pub(crate) peer: Peer,
    /// When, since 1970.
    pub(crate) at: Duration,
    /// Our end of the connection.
    pub(crate) local: SocketAddr,
    /// The peer's port.
    pub(crate) remote_port: u16,
    /// The OPEN that we sent, as it was on the wire.
    pub(crate) sent: Bytes,
    /// The OPEN that the peer sent, as it was on the wire.
    pub(crate) received: Bytes,
}

/// Why a session is over (RFC 7854 §4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Down {
    /// We ended it, and said so.
    Told(Notification),
    /// We ended it without a word; the number is that of the event (RFC 4271 §8.1).
    Event(u16),
    /// The peer ended it, and said so.
    Heard(Notification),
    /// The peer ended it without a word.
    Closed,
    /// The peer is no longer monitored.
    Unconfigured,
}

/// One number (RFC 7854 §4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// Routes of the peer that there are.
    Routes(u64),
    /// Routes of the peer that there are, by family.
    RoutesOf(Family, u64),
    /// UPDATEs that were treated as withdrawals, ever (RFC 7606).
    TreatedAsWithdraw(u32),
}

/// Why there will be no more messages (RFC 7854 §4.5); the values are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Termination {
    /// Closed by an administrator, for now.
    Closed = 0,
    /// Closed by an administrator, for good.
    ClosedForGood = 4,
}
