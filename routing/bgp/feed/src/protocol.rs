// SPDX-License-Identifier: Apache-2.0
//! What goes over the socket.
//!
//! ```text
//!   client                                   speaker
//!     Hello ────────────────────────────────►        who speaks, which protocol
//!           ◄──────────────────────────────── Welcome, or why not
//!   feeder:
//!     Snapshot, then Deltas, one at a time ──►
//!           ◄──────────────────────────────── Applied, or Refused (a snapshot follows)
//!           ◄──────────────────────────────── Changes: all that is, then Synced, then what changes
//!   asker:
//!     Ask ──────────────────────────────────►
//!           ◄──────────────────────────────── Answer
//! ```

use rhumb_model::{Prefix, Revision};
use serde::{Deserialize, Serialize};

use crate::{Answer, Delta, Learned, PeerKey, PeerState, Question, Snapshot};

/// Version of everything but [`Hello`] and [`Welcome`]. It grows with every change that the other side cannot read.
pub const PROTOCOL: u32 = 1;

/// First frame of a client. Fields of a later version are no error: the answer must be one that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version that the client speaks.
    pub protocol: u32,
    /// What the client is and its version, for the log.
    pub software: String,
    /// What it wants.
    pub role: Role,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To say what is to be done. There is one; a later one takes the place of an earlier.
    Feeder,
    /// To ask.
    Asker,
}

/// First frame of the speaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Version that the speaker speaks.
    pub protocol: u32,
    /// What the speaker is and its version.
    pub software: String,
    /// Why the connection is closed again.
    #[serde(default)]
    pub refused: Option<String>,
}

/// From a client to the speaker, after the hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Down {
    /// All that is to be done; it takes the place of whatever was. Of a feeder.
    Snapshot(Box<Snapshot>),
    /// What is to be done otherwise. Of a feeder, after a snapshot.
    Delta(Delta),
    /// A question. Of an asker.
    Ask(Question),
}

/// From the speaker to a client, after the welcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Up {
    /// A snapshot or delta was taken over.
    Applied(Revision),
    /// A snapshot or delta was not; the earlier one stays in force.
    Refused {
        /// Its revision.
        revision: Revision,
        /// Why.
        why: String,
    },
    /// What is now; at first all of it.
    Changes(Vec<StateChange>),
    /// All that is was told once.
    Synced,
    /// An answer.
    Answer(Box<Answer>),
}

/// A change of what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StateChange {
    /// So it stands with a peer now.
    Peer(Box<PeerState>),
    /// A peer is none any more.
    PeerGone(PeerKey),
    /// So a prefix is reached now.
    Learned(Learned),
    /// A prefix is not reached any more.
    LearnedGone {
        /// The instance.
        instance: String,
        /// The prefix.
        prefix: Prefix,
    },
}
