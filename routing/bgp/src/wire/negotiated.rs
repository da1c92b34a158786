// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::Family;

use super::{Asn, GracefulRestart, LongLived, RouterId};

/// What two OPENs have in common: how the session is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// Own AS.
    pub asn: Asn,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's identifier.
    pub peer_router_id: RouterId,
    /// Seconds, the smaller of both; 0 for no keepalives (RFC 4271 §4.2).
    pub hold_time: u16,
    /// Families that both offered; never empty.
    pub families: BTreeSet<Family>,
    /// AS paths have four octets a system (RFC 6793).
    pub asn4: bool,
    /// Messages may have up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// Families of which both offered IPv6 next hops (RFC 8950).
    pub extended_next_hop: BTreeSet<Family>,
    /// Families whose destinations come with a path identifier (RFC 7911).
    pub add_path_receive: BTreeSet<Family>,
    /// Families whose destinations are sent with a path identifier (RFC 7911).
    pub add_path_send: BTreeSet<Family>,
    /// The peer understands ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Both offered marks around refreshes (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// What the peer told about its restarts, if both offered it (RFC 4724); N is set if both set it (RFC 8538 §2).
    pub graceful_restart: Option<GracefulRestart>,
    /// What the peer told about its long-lived stale routes, if both offered it with graceful restart (RFC 9494).
    pub long_lived: BTreeMap<Family, LongLived>,
}

impl Negotiated {
    /// Whether both speakers are of one AS.
    pub fn is_internal(&self) -> bool {
        self.asn == self.peer_asn
    }

    /// Longest UPDATE or NOTIFICATION in octets: 4096 or 65535 (RFC 8654 §3).
    pub fn maximum(&self) -> usize {
        if self.extended_message { 65535 } else { 4096 }
    }
}
