// SPDX-License-Identifier: Apache-2.0

mod codec;

pub(super) use codec::MULTIPROTOCOL;

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::Family;

use super::Asn;

/// What a speaker offers in its OPEN (RFC 5492).
///
/// Families that this speaker does not have are left out where they stand beside known ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families of routes (RFC 4760 §8); a peer that offers none speaks IPv4 unicast alone.
    pub families: BTreeSet<Family>,
    /// ROUTE-REFRESH is understood (RFC 2918).
    pub route_refresh: bool,
    /// The begin and the end of a refresh are told (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Messages may have up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// The own AS in four octets, and with it AS paths of four octets (RFC 6793).
    pub asn4: Option<Asn>,
    /// Families whose routes may have an IPv6 next hop; IPv4 is the one of use (RFC 8950 §4).
    pub extended_next_hop: BTreeSet<Family>,
    /// Graceful restart (RFC 4724, RFC 8538).
    pub graceful_restart: Option<GracefulRestart>,
    /// Families whose stale routes are kept longer; none of them: such routes are known, and none are asked to be kept
    /// (RFC 9494 §3.1).
    pub long_lived: Option<BTreeMap<Family, LongLived>>,
    /// Families with several paths to a destination (RFC 7911 §4).
    pub add_path: BTreeMap<Family, AddPath>,
    /// Name of the host, for operators' eyes (draft-walton-bgp-hostname-capability).
    pub fqdn: Option<Fqdn>,
    /// Others: code and value, as they were received.
    pub unknown: Vec<(u8, Vec<u8>)>,
}

/// What a speaker tells about its restarts (RFC 4724 §3, RFC 8538 §2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has restarted; its peer does not wait for its End-of-RIB.
    pub restarting: bool,
    /// N: routes are also kept over a NOTIFICATION and over an expired hold timer (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until the session is back, 0 to 4095.
    pub restart_time: u16,
    /// Families whose routes are kept, and F: whether forwarding state was kept in the last restart.
    pub families: BTreeMap<Family, bool>,
}

/// One family of the long-lived graceful restart (RFC 9494 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLived {
    /// F: forwarding state was kept in the last restart.
    pub forwarding: bool,
    /// Seconds for which stale routes are kept after the restart time, 0 to 2²⁴ - 1.
    pub stale_time: u32,
}

/// Directions in which a speaker does ADD-PATH (RFC 7911 §4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddPath {
    /// The speaker can receive several paths.
    pub receive: bool,
    /// The speaker would send several paths.
    pub send: bool,
}

/// Name of a speaker's host and its domain; sent cut to 126 octets each, so that both fit into a capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fqdn {
    /// Host name.
    pub host: String,
    /// Domain; may be empty.
    pub domain: String,
}
