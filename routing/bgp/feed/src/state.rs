// SPDX-License-Identifier: Apache-2.0
//! What the speaker says of itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Family, IfName, Prefix, Timestamp};
use serde::{Deserialize, Serialize};

use crate::PeerKey;

/// How it stands with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerState {
    /// The peer.
    pub key: PeerKey,
    /// The instance that it belongs to.
    pub instance: String,
    /// Where it is, as configured: an address, with a link behind `%`, or a link.
    pub address: String,
    /// Its address in use.
    pub remote_address: Option<IpAddr>,
    /// Our address in use.
    pub local_address: Option<IpAddr>,
    /// Its AS, once it was heard.
    pub asn: Option<u32>,
    /// Its BGP identifier, once it was heard.
    pub router_id: Option<Ipv4Addr>,
    /// State of the session (RFC 4271 §8.2.2).
    pub session: SessionState,
    /// Since when.
    pub since: Timestamp,
    /// Hold time in use, in seconds; `None` while there is no session.
    pub hold_time: Option<u16>,
    /// How often the session was established.
    pub established_count: u64,
    /// Why the last session ended, or the last try did.
    pub last_error: Option<String>,
    /// Whether its routes are kept while it restarts (RFC 4724).
    pub restarting: bool,
    /// The families in use.
    pub families: Vec<FamilyState>,
    /// Messages since the speaker's start.
    pub received: MessageCounts,
    /// Messages since the speaker's start.
    pub sent: MessageCounts,
    /// State of BFD, where it is on.
    pub bfd: Option<BfdState>,
}

/// State of a session (RFC 4271 §8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Not tried.
    Idle,
    /// A connection is being made.
    Connect,
    /// A connection is waited for.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// OPEN was accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionState::Idle => "idle",
            SessionState::Connect => "connect",
            SessionState::Active => "active",
            SessionState::OpenSent => "open_sent",
            SessionState::OpenConfirm => "open_confirm",
            SessionState::Established => "established",
        })
    }
}

/// How it stands with one family of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyState {
    /// The family.
    pub family: Family,
    /// Routes that the peer told.
    pub received: u64,
    /// Those that the import policy took.
    pub accepted: u64,
    /// Those kept from before its restart.
    pub stale: u64,
    /// Routes that it was told.
    pub advertised: u64,
    /// Whether its End-of-RIB was heard (RFC 4724 §2).
    pub end_of_rib: bool,
}

/// Messages of a peer, by type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

/// State of a BFD session (RFC 5880 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BfdState {
    /// Closed on purpose.
    AdminDown,
    /// The peer is not heard.
    Down,
    /// The peer is heard.
    Init,
    /// Both are heard.
    Up,
}

impl fmt::Display for BfdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BfdState::AdminDown => "admin_down",
            BfdState::Down => "down",
            BfdState::Init => "init",
            BfdState::Up => "up",
        })
    }
}

/// A prefix to which the speaker learned a way: the best routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// The instance that learned it.
    pub instance: String,
    /// The prefix.
    pub prefix: Prefix,
    /// Where packets go, with the link where the address is link-local; more than one are equal.
    pub gateways: Vec<(IpAddr, Option<IfName>)>,
    /// The peers that told of it, in the order of the gateways.
    pub peers: Vec<PeerKey>,
}
