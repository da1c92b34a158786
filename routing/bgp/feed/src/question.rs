// SPDX-License-Identifier: Apache-2.0
//! What people ask the speaker.

use rhumb_model::{Family, Prefix};
use serde::{Deserialize, Serialize};

use crate::{PeerKey, PeerState, Policy, RouteKind};

/// A question of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How it stands with every peer: [`Answer::Peers`].
    Peers,
    /// Routes: [`Answer::Routes`].
    Routes {
        /// Which.
        table: Table,
        /// Only those from, or to, this peer.
        peer: Option<PeerKey>,
        /// Only those of this family.
        family: Option<Family>,
        /// At most this many.
        most: usize,
    },
    /// The policies in force: [`Answer::Policies`].
    Policy {
        /// Only those of this peer.
        peer: Option<PeerKey>,
    },
    /// Why a prefix is reached as it is, and who is told: [`Answer::Explanation`].
    Explain {
        /// The prefix.
        prefix: Prefix,
    },
    /// Takes the node out of service before it goes: tells every peer to prefer others (RFC 8326), withdraws, closes.
    /// [`Answer::Done`] when the sessions are closed.
    Drain {
        /// What peers are told (RFC 9003), at most 255 bytes.
        reason: String,
    },
    /// Ends a drain: [`Answer::Done`].
    Undrain,
}

/// Which routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// As peers told them, with what the import policy made of them.
    In,
    /// As peers are told.
    Out,
    /// The best of each prefix, with those that are equal.
    Best,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// How it stands with the peers, by key.
    Peers(Vec<PeerState>),
    /// Routes, by prefix.
    Routes {
        /// As many as asked for.
        routes: Vec<RouteView>,
        /// How many there are more.
        more: u64,
    },
    /// Policies, by peer.
    Policies(Vec<PolicyView>),
    /// Why.
    Explanation(Explanation),
    /// It is done.
    Done,
    /// It is not, and why.
    Refused(String),
}

/// A route as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteView {
    /// The instance.
    pub instance: String,
    /// From whom, or to whom; `None` for a route of ours among the best.
    pub peer: Option<PeerKey>,
    /// The prefix.
    pub prefix: Prefix,
    /// Its path identifier (RFC 7911); 0 is none.
    pub path_id: u32,
    /// What it is about.
    pub kind: RouteKind,
    /// Where packets go; a link-local one follows behind a space.
    pub next_hop: String,
    /// The AS path as it is usually written; a set stands in braces.
    pub as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// Local preference.
    pub local_pref: Option<u32>,
    /// Metric.
    pub med: Option<u32>,
    /// Communities (RFC 1997).
    pub communities: Vec<u32>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// Whether it is the best, or equal to it.
    pub best: bool,
    /// Whether it is kept from before the peer's restart.
    pub stale: bool,
    /// Why it is the best or not, was rejected or is not told; empty where there is nothing to say.
    pub why: String,
}

/// The policies of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    /// The instance.
    pub instance: String,
    /// The peer.
    pub peer: PeerKey,
    /// What is taken from it.
    pub import: Policy,
    /// What it is told.
    pub export: Policy,
}

/// Why a prefix is reached as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The prefix that was asked for.
    pub prefix: Prefix,
    /// All routes to it, the best first, each with why.
    pub candidates: Vec<RouteView>,
    /// What every peer is told of it, with why not where it is told nothing.
    pub told: Vec<RouteView>,
    /// What else there is to know, a sentence each: the kernel's route, for example.
    pub notes: Vec<String>,
}
