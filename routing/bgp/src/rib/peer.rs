// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rhumb_bgp_feed::PeerKey;
use rhumb_model::Family;

use super::adj_out::AdjOut;
use crate::policy::Policy;
use crate::wire::{Asn, RouterId};

/// Number of a peer within a speaker; it stays the same while the speaker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) u32);

impl PeerId {
    /// Stands for this node among the candidates of a prefix.
    pub(super) const OWN: PeerId = PeerId(u32::MAX);
    /// The peer that is known first.
    pub(super) const FIRST: PeerId = PeerId(0);
}

/// What the table has to know about an established session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's AS.
    pub asn: Asn,
    /// Our AS as this peer knows it.
    pub own_asn: Asn,
    /// The peer's BGP identifier.
    pub router_id: RouterId,
    /// The peer's address.
    pub address: IpAddr,
    /// Index of the link that we share with the peer: where its link-local next hops are. `None` when the peer is
    /// farther away.
    pub interface: Option<u32>,
    /// Our own addresses on that link or session: what the peer is told as next hop.
    pub own: OwnAddresses,
    /// Whether routes are reflected to the peer (RFC 4456); of internal peers only.
    pub client: bool,
    /// What was negotiated; other families are neither taken nor told.
    pub families: BTreeSet<Family>,
    /// Families of which the peer takes IPv6 next hops for IPv4 destinations (RFC 8950).
    pub extended_next_hop: BTreeSet<Family>,
    /// Whether the peer may be told of routes that are stale for long (RFC 9494 §4.3).
    pub knows_long_lived: bool,
    /// Families whose routes become a last resort when the peer does not come back: stale ones outlive another loss of
    /// the session before that (RFC 9494 §4.2).
    pub long_lived: BTreeSet<Family>,
    /// Families of which the peer takes several paths to a destination, and how many at most it is told (RFC 7911).
    pub send_paths: BTreeMap<Family, usize>,
    /// Families of which the peer is told ourselves as the next hop of learned routes, too.
    pub next_hop_self: BTreeSet<Family>,
    /// With more routes than this, [`Rib::update`] says so.
    ///
    /// [`Rib::update`]: super::Rib::update
    pub max_prefixes: BTreeMap<Family, u32>,
}

/// What of a [`PeerInfo`] can change while a session is up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handling {
    /// See [`PeerInfo::client`].
    pub client: bool,
    /// See [`PeerInfo::next_hop_self`].
    pub next_hop_self: BTreeSet<Family>,
    /// See [`PeerInfo::max_prefixes`].
    pub max_prefixes: BTreeMap<Family, u32>,
}

/// Addresses of this node towards a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, global.
    pub v6: Option<Ipv6Addr>,
    /// IPv6, on the shared link.
    pub link_local: Option<Ipv6Addr>,
}

impl PeerInfo {
    /// Whether the peer is of another AS.
    pub fn is_external(&self) -> bool {
        self.asn != self.own_asn
    }

    /// Whether routes of a session with `before` can go on as routes of this one.
    pub(super) fn is_same_router(&self, before: &PeerInfo) -> bool {
        let who = |info: &PeerInfo| (info.asn, info.own_asn, info.router_id, info.address, info.client);
        who(self) == who(before)
    }
}

impl OwnAddresses {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address) || self.link_local == Some(address),
        }
    }
}

/// How a node that is going to be away takes leave of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leave {
    /// Not at all.
    #[default]
    Stay,
    /// Routes are told with GRACEFUL_SHUTDOWN, so that others are preferred (RFC 8326 §4.2).
    Shutdown,
    /// All routes are withdrawn.
    Withdraw,
}

/// Numbers of a session's routes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes that the peer told, before policy.
    pub received: u32,
    /// Those of them that policy accepts.
    pub accepted: u32,
    /// Routes that the peer was told.
    pub advertised: u32,
    /// Routes of a peer that is away.
    pub stale: u32,
}

/// A peer, with or without a session.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) import: Arc<Policy>,
    pub(super) export: Arc<Policy>,
    /// Of the session, or of the last one while routes of it are kept.
    pub(super) info: Option<PeerInfo>,
    /// What the peer was and is to be told, of negotiated families of the session.
    pub(super) out: BTreeMap<Family, AdjOut>,
    /// Routes of the peer by family.
    pub(super) received: BTreeMap<Family, u32>,
    /// Families whose stale routes are kept as a last resort (RFC 9494 §4.2).
    pub(super) long_lived: BTreeSet<Family>,
    pub(super) leave: Leave,
}

impl Peer {
    pub(super) fn new(key: PeerKey) -> Self {
        Self {
            key,
            import: Arc::default(),
            export: Arc::default(),
            info: None,
            out: BTreeMap::new(),
            received: BTreeMap::new(),
            long_lived: BTreeSet::new(),
            leave: Leave::default(),
        }
    }
}
