// SPDX-License-Identifier: Apache-2.0
//! What this node tells its peers about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use rhumb_model::Prefix;
use serde::{Deserialize, Serialize};

use crate::PeerKey;

/// A prefix that this node reaches; an instance has at most one of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalRoute {
    /// The prefix.
    pub prefix: Prefix,
    /// What it is; never [`RouteKind::Learned`].
    pub kind: RouteKind,
    /// With what it is told, before a peer's export policy.
    pub attributes: RouteAttributes,
    /// Where packets are to go.
    pub next_hop: NextHop,
    /// Whether packets to it that no longer route has are dropped here, so that an aggregate makes no loop.
    pub discard: bool,
    /// Who is told.
    pub recipients: Recipients,
    /// With what other attributes some of them are told.
    pub exceptions: BTreeMap<PeerKey, RouteAttributes>,
}

impl LocalRoute {
    /// With what a peer is told of this route; `None` when it is not told at all.
    pub fn attributes_for(&self, peer: &PeerKey) -> Option<&RouteAttributes> {
        let told = match &self.recipients {
            Recipients::All => true,
            Recipients::Only(peers) => peers.contains(peer),
        };
        told.then(|| self.exceptions.get(peer).unwrap_or(&self.attributes))
    }
}

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// A block of pod addresses of this node.
    PodCidr,
    /// A whole pool of pod addresses.
    Pool,
    /// The address of one pod.
    Pod,
    /// An address of an interface of this node.
    Interface,
    /// An address of a service, or an aggregate of such.
    Service,
    /// Learned from a peer; only a rule names this one.
    Learned,
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteKind::PodCidr => "pod_cidr",
            RouteKind::Pool => "pool",
            RouteKind::Pod => "pod",
            RouteKind::Interface => "interface",
            RouteKind::Service => "service",
            RouteKind::Learned => "learned",
        })
    }
}

/// Attributes of a route of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteAttributes {
    /// Communities (RFC 1997), sorted.
    pub communities: BTreeSet<u32>,
    /// Large communities (RFC 8092), sorted.
    pub large_communities: BTreeSet<[u32; 3]>,
    /// Local preference; only internal peers hear of it.
    pub local_pref: Option<u32>,
    /// Metric (MULTI_EXIT_DISC).
    pub med: Option<u32>,
}

/// Where packets to a route of ours are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextHop {
    /// To this node, at the address that its session with the peer uses.
    Own,
    /// To this address.
    Given(IpAddr),
}

/// Who is told of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipients {
    /// Every peer of the instance.
    All,
    /// These.
    Only(BTreeSet<PeerKey>),
}
