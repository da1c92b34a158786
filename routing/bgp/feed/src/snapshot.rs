// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, SocketAddr};

use rhumb_model::{Prefix, Revision};
use serde::{Deserialize, Serialize};

use crate::{LocalRoute, Peer};

/// All that the speaker is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Its number; a later snapshot or delta of the same agent has a larger one.
    pub revision: Revision,
    /// Its instances, sorted by name, which is unique.
    pub instances: Vec<Instance>,
}

/// A speaker of its own in the speaker's process: one AS, one router id, its peers and its routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Our AS (RFC 6793).
    pub asn: u32,
    /// Our BGP identifier, never 0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Where to wait for peers' connections; none of them: no peer can connect.
    pub listen: Vec<SocketAddr>,
    /// Cluster id for routes that we reflect (RFC 4456); `None` is the router id.
    pub cluster_id: Option<Ipv4Addr>,
    /// How many equal routes packets are spread over, at least 1.
    pub multipath: u8,
    /// Blocks of this node: nothing inside of them is accepted from a peer.
    pub own: Vec<Prefix>,
    /// Its peers, sorted by key, which is unique in the snapshot.
    pub peers: Vec<Peer>,
    /// What they are told, sorted by prefix, at most one of each.
    pub routes: Vec<LocalRoute>,
    /// Stations that are told what peers tell (RFC 7854), sorted by address, which is unique.
    #[serde(default)]
    pub stations: Vec<Station>,
}

/// A monitoring station (RFC 7854).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Where it waits.
    pub address: SocketAddr,
    /// Time between numbers of each peer, in seconds; 0: none are sent.
    pub statistics: u32,
    /// Whether it is told routes as peers told them.
    pub pre_policy: bool,
    /// Whether it is told routes as they were accepted.
    pub post_policy: bool,
}
