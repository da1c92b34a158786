// SPDX-License-Identifier: Apache-2.0

use std::net::Ipv4Addr;

use super::{AsPath, Asn, Community, LargeCommunity, RouterId};

/// Where a route came from; a smaller value is preferred (RFC 4271 §5.1.1, §9.1.2.2 b).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// From within the AS that began it.
    #[default]
    Igp,
    /// From EGP (RFC 904).
    Egp,
    /// By other means.
    Incomplete,
}

/// An attribute that this speaker does not know, as it was received; passed on when it is transitive (RFC 4271 §5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawAttribute {
    /// First octet of the attribute: optional 0x80, transitive 0x40, partial 0x20. The extended-length bit is never set here.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// The octets of the value.
    pub value: Vec<u8>,
}

/// The path attributes that routes of one message share, but the next hop, which belongs to the message.
///
/// What is decoded is always canonical, so that equal attributes are equal values: communities sorted and without doubles,
/// unknown attributes ordered by code.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// ORIGIN (RFC 4271 §5.1.1).
    pub origin: Origin,
    /// AS_PATH, already merged with AS4_PATH (RFC 6793 §4.2.3).
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC; the smaller is preferred among routes of one neighbouring AS (RFC 4271 §5.1.4).
    pub med: Option<u32>,
    /// LOCAL_PREF; the greater is preferred. On the wire only between peers of one AS (RFC 4271 §5.1.5).
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE (RFC 4271 §5.1.6).
    pub atomic_aggregate: bool,
    /// AGGREGATOR, already merged with AS4_AGGREGATOR (RFC 4271 §5.1.7, RFC 6793 §4.2.3).
    pub aggregator: Option<(Asn, Ipv4Addr)>,
    /// COMMUNITIES, sorted, without doubles (RFC 1997).
    pub communities: Vec<Community>,
    /// LARGE_COMMUNITY, sorted, without doubles (RFC 8092 §3).
    pub large_communities: Vec<LargeCommunity>,
    /// EXTENDED_COMMUNITIES as eight octets each, sorted, without doubles (RFC 4360 §2).
    pub extended_communities: Vec<[u8; 8]>,
    /// ORIGINATOR_ID: the client of a reflector that sent the route first (RFC 4456 §8).
    pub originator_id: Option<RouterId>,
    /// CLUSTER_LIST: the clusters a route was reflected in, the latest first (RFC 4456 §8).
    pub cluster_list: Vec<RouterId>,
    /// Optional transitive attributes that this speaker does not know, by code (RFC 4271 §5).
    pub unknown: Vec<RawAttribute>,
}

impl Attributes {
    /// Puts the values into the one order in which equal sets are equal values.
    pub fn canonical(mut self) -> Self {
        self.communities.sort_unstable();
        self.communities.dedup();
        self.large_communities.sort_unstable();
        self.large_communities.dedup();
        self.extended_communities.sort_unstable();
        self.extended_communities.dedup();
        self.unknown.sort_by_key(|attribute| attribute.code);
        self
    }

    /// Whether the route carries the community.
    pub fn has_community(&self, community: Community) -> bool {
        self.communities.contains(&community)
    }
}
