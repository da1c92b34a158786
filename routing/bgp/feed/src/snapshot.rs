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
}
