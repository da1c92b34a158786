// SPDX-License-Identifier: Apache-2.0
//! What the agent and the BGP speaker say to each other over a Unix socket.
//!
//! Down goes what is wanted: a [`Snapshot`], then [`Delta`]s. Up goes what is: [`PeerState`]s and [`Learned`] routes.
//! Whoever wants to know more asks a [`Question`].
#![warn(missing_docs)]

/// Name of the speaker's socket in its run directory, which is the agent's as well.
pub const SOCKET: &str = "bgp.sock";

mod ask;
mod board;
pub mod client;
mod delta;
pub mod frame;
mod peer;
mod policy;
pub mod protocol;
mod question;
mod route;
mod secret;
pub mod server;
mod snapshot;
mod state;
mod stream;

pub use ask::ask;
pub use board::{Board, Way};
pub use delta::{ApplyError, Change, Delta};
pub use peer::{
    Bfd, FamilyConfig, GracefulRestart, Peer, PeerAddress, PeerAsn, PeerKey, Shutdown, Timers, Ttl,
};
pub use policy::{Action, Changes, Match, Policy, PrefixRange, Rule};
pub use question::{Answer, Explanation, PolicyView, Question, RouteView, Table};
pub use route::{LocalRoute, NextHop, Recipients, RouteAttributes, RouteKind};
pub use secret::Secret;
pub use snapshot::{Instance, Snapshot, Station};
pub use state::{BfdState, FamilyState, Learned, MessageCounts, PeerState, SessionState};
pub use stream::StreamError;
