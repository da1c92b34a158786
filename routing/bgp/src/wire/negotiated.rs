// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::Family;

use super::capabilities::MULTIPROTOCOL;
use super::{AddPath, Asn, Capabilities, GracefulRestart, LongLived, Notification, Open, RouterId, family};

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
    /// What the peer told about its long-lived stale routes, if both offered it with graceful restart (RFC 9494 §3.1).
    pub long_lived: BTreeMap<Family, LongLived>,
    /// The peer knows long-lived stale routes, and may be told of some (RFC 9494 §4.3).
    pub knows_long_lived: bool,
}

impl Negotiated {
    /// What both speakers can do. Whether the peer's AS is the one that was configured is the caller's to compare.
    ///
    /// # Errors
    /// What the peer is to be told: 2/3 for the own identifier within one AS (RFC 6286 §2.2), 2/7 with the own families where
    /// there is none in common (RFC 5492 §5).
    pub fn of(ours: &Open, theirs: &Open) -> Result<Self, Notification> {
        let (own, peer) = (&ours.capabilities, &theirs.capabilities);
        if ours.asn == theirs.asn && ours.router_id == theirs.router_id {
            return Err(Notification::bad_identifier());
        }
        let families: BTreeSet<Family> = spoken(own).intersection(&spoken(peer)).copied().collect();
        if families.is_empty() {
            let offered = own
                .families
                .iter()
                .flat_map(|family| [&[MULTIPROTOCOL, 4], &family::octets(*family, 0)[..]].concat());
            return Err(Notification::unsupported_capability(offered.collect()));
        }
        let common = |of: fn(&Capabilities) -> bool| of(own) && of(peer);
        // Several paths come where we receive and the peer sends, and the other way round.
        let paths = |receiver: &Capabilities, sender: &Capabilities| {
            let offer = |capabilities: &Capabilities, family: &Family| -> AddPath {
                capabilities.add_path.get(family).copied().unwrap_or_default()
            };
            let both = |family: &Family| offer(receiver, family).receive && offer(sender, family).send;
            families.iter().copied().filter(both).collect()
        };
        let graceful_restart = own.graceful_restart.as_ref().zip(peer.graceful_restart.clone());
        let graceful_restart = graceful_restart.map(|(own, peer)| GracefulRestart {
            notification: own.notification && peer.notification,
            ..peer
        });
        let long_lived = match &graceful_restart {
            Some(_) if own.long_lived.is_some() => peer.long_lived.clone().unwrap_or_default(),
            Some(_) | None => BTreeMap::new(),
        };
        Ok(Negotiated {
            asn: ours.asn,
            peer_asn: theirs.asn,
            peer_router_id: theirs.router_id,
            hold_time: ours.hold_time.min(theirs.hold_time),
            asn4: common(|capabilities| capabilities.asn4.is_some()),
            extended_message: common(|capabilities| capabilities.extended_message),
            extended_next_hop: own.extended_next_hop.intersection(&peer.extended_next_hop).copied().collect(),
            add_path_receive: paths(own, peer),
            add_path_send: paths(peer, own),
            route_refresh: peer.route_refresh,
            enhanced_route_refresh: common(|capabilities| capabilities.enhanced_route_refresh),
            graceful_restart,
            long_lived,
            // Without graceful restart the capability is as if not there (RFC 9494 §3.1).
            knows_long_lived: peer.long_lived.is_some() && peer.graceful_restart.is_some(),
            families,
        })
    }

    /// Whether both speakers are of one AS.
    pub fn is_internal(&self) -> bool {
        self.asn == self.peer_asn
    }

    /// Longest UPDATE, NOTIFICATION and ROUTE-REFRESH in octets: 4096 or 65535 (RFC 8654 §3).
    pub fn maximum(&self) -> usize {
        if self.extended_message { 65535 } else { 4096 }
    }
}

/// The families of a speaker: without any multiprotocol capability it is IPv4 (RFC 4760 §8).
fn spoken(capabilities: &Capabilities) -> BTreeSet<Family> {
    let foreign = capabilities.unknown.iter().any(|(code, _)| *code == MULTIPROTOCOL);
    match capabilities.families.is_empty() && !foreign {
        true => BTreeSet::from([Family::V4]),
        false => capabilities.families.clone(),
    }
}

#[cfg(test)]
mod tests;
