// SPDX-License-Identifier: Apache-2.0
//! Whom to speak with, and how.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rhumb_model::{Family, IfName};
use serde::{Deserialize, Serialize};

use crate::{Policy, Secret};

/// Name of a peer, unique in a snapshot; what a peer's session goes by while its settings change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerKey(pub String);

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One peer of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name.
    pub key: PeerKey,
    /// Where it is.
    pub address: PeerAddress,
    /// Its AS.
    pub asn: PeerAsn,
    /// TCP port to connect to.
    pub port: u16,
    /// Our AS towards this peer, where it is not the instance's.
    pub local_asn: Option<u32>,
    /// Address to connect from; `None` leaves it to the kernel.
    pub local_address: Option<IpAddr>,
    /// Interface whose address to connect from; not together with `local_address`.
    pub source_interface: Option<IfName>,
    /// Key of the TCP MD5 option (RFC 2385).
    pub md5: Option<Secret>,
    /// How far away it may be.
    pub ttl: Ttl,
    /// Whether to wait for its connection instead of connecting.
    pub passive: bool,
    /// Timers of the session.
    pub timers: Timers,
    /// What is exchanged; each family at most once.
    pub families: Vec<FamilyConfig>,
    /// Graceful restart (RFC 4724, RFC 8538); `None` is off.
    pub graceful_restart: Option<GracefulRestart>,
    /// What is taken from it; without a rule, nothing (RFC 8212).
    pub import: Policy,
    /// What it is told; without a rule, nothing (RFC 8212).
    pub export: Policy,
    /// Whether we reflect routes to it (RFC 4456).
    pub route_reflector_client: bool,
    /// BFD beside the session.
    pub bfd: Option<Bfd>,
    /// Closed on purpose.
    pub shutdown: Option<Shutdown>,
}

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PeerAddress {
    /// At an address; a link-local one is in `Scoped`.
    Ip(IpAddr),
    /// At a link-local address of a link.
    Scoped {
        /// The address, in `fe80::/10`.
        address: Ipv6Addr,
        /// The link.
        interface: IfName,
    },
    /// The one router on a link, found by its router advertisements or its connection (unnumbered).
    Interface(IfName),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Ip(address) => address.fmt(f),
            PeerAddress::Scoped { address, interface } => write!(f, "{address}%{interface}"),
            PeerAddress::Interface(interface) => interface.fmt(f),
        }
    }
}

/// Which AS a peer may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAsn {
    /// This one; ours makes the session internal.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Any,
}

/// How far away a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ttl {
    /// External: on a link of ours, packets go out with TTL 1. Internal: anywhere.
    Direct,
    /// At most this many hops away; packets go out with this TTL.
    Multihop(u8),
    /// At most this many hops away, checked: we send with TTL 255 and take only what has at least 256 less this (RFC 5082).
    Security(u8),
}

/// Timers of a session, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timers {
    /// Hold time to propose; 0, or at least 3 (RFC 4271 §4.2).
    pub hold_time: u16,
    /// Time between keepalives; never longer than a third of the hold time that was agreed on.
    pub keepalive: u16,
    /// Time between tries to connect, at least 1 (RFC 4271 §8).
    pub connect_retry: u16,
}

/// What is exchanged of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FamilyConfig {
    /// The family; unicast.
    pub family: Family,
    /// With more prefixes than this the session is closed (RFC 4486: Cease/1); `None` is no limit.
    pub max_prefixes: Option<u32>,
    /// Whether to offer IPv4 prefixes with an IPv6 next hop (RFC 8950); IPv4 only.
    pub extended_next_hop: bool,
    /// Whether learned routes are passed on with ourselves as their next hop.
    pub next_hop_self: bool,
    /// How many paths to a destination the peer is told, the best ones, if it takes several (RFC 7911); 0 is all.
    #[serde(default = "one")]
    pub send_paths: u16,
    /// Whether the peer may tell several paths to a destination.
    #[serde(default)]
    pub receive_paths: bool,
}

fn one() -> u16 {
    1
}

/// Graceful restart (RFC 4724).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GracefulRestart {
    /// For how many seconds the peer is asked to keep our routes; at most 4095.
    pub restart_time: u16,
    /// For how many seconds after that the peer is asked to keep them as a last resort, and for how many at most its own
    /// are kept if it asks (RFC 9494); 0: none are, at most 2²⁴ - 1.
    #[serde(default)]
    pub long_lived_stale_time: u32,
}

/// BFD beside a session (RFC 5880, RFC 5882).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bfd {
    /// Time between packets that we send, in milliseconds.
    pub transmit_ms: u32,
    /// Time between packets that we can take, in milliseconds.
    pub receive_ms: u32,
    /// After how many missing packets the peer is down.
    pub multiplier: u8,
    /// Whether the peer is more than one hop away (RFC 5883).
    pub multihop: bool,
    /// Whether the session is not tried before BFD is up.
    pub hold: bool,
}

/// Why a session is closed on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What the peer is told (RFC 9003), at most 255 bytes.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_people_write_it() {
        let eth0 = IfName::new("eth0").expect("valid");
        let scoped =
            PeerAddress::Scoped { address: "fe80::1".parse().expect("valid"), interface: eth0.clone() };
        assert_eq!(scoped.to_string(), "fe80::1%eth0");
        assert_eq!(PeerAddress::Interface(eth0).to_string(), "eth0");
        assert_eq!(PeerAddress::Ip("192.0.2.1".parse().expect("valid")).to_string(), "192.0.2.1");
    }
}
