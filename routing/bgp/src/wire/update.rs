// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::{Attributes, Disposition, Problem};

/// A destination in a message: a prefix, and the identifier of the path to it where several are sent (RFC 7911 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The destination; host bits of the wire are cleared (RFC 4271 §4.3).
    pub prefix: Prefix,
    /// Identifier of the path; 0 where ADD-PATH is not negotiated for the family and direction.
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Nlri { prefix, path_id: 0 }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            0 => self.prefix.fmt(f),
            id => write!(f, "{} path {id}", self.prefix),
        }
    }
}

/// The router to which packets for a destination are to be sent. IPv4 destinations may have one of IPv6 (RFC 8950).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// IPv6 addresses (RFC 2545 §3).
    V6 {
        /// The global address; some speakers on unnumbered links send a link-local one here, alone.
        global: Ipv6Addr,
        /// The link-local address on the link that both speakers share.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address, for IPv6 the global one.
    pub fn addr(self) -> IpAddr {
        match self {
            NextHop::V4(addr) => addr.into(),
            NextHop::V6 { global, .. } => global.into(),
        }
    }

    /// Family of the address.
    pub fn family(self) -> Family {
        Family::of(self.addr())
    }
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => NextHop::V4(addr),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::V4(addr) => addr.fmt(f),
            NextHop::V6 { global, link_local: None } => global.fmt(f),
            NextHop::V6 { global, link_local: Some(local) } => write!(f, "{global} ({local})"),
        }
    }
}

/// Destinations of one family that can be reached by one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Family of the destinations.
    pub family: Family,
    /// Where packets for them go.
    pub next_hop: NextHop,
    /// The destinations.
    pub nlri: Vec<Nlri>,
}

/// Destinations of one family that can no longer be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// Family of the destinations.
    pub family: Family,
    /// The destinations.
    pub nlri: Vec<Nlri>,
}

/// An UPDATE, with what was wrong in it already acted upon (RFC 4271 §4.3, RFC 7606): routes to be treated as withdrawn are
/// in `withdrawn`, discarded attributes are gone. What is left to the receiver are families in [`Update::disabled`].
///
/// Where a destination is in `withdrawn` and in `reach`, the latter counts (RFC 7606 §5.1 keeps RFC 4271 §4.3 here).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Attributes of all routes in `reach`; `None` where there are none.
    pub attributes: Option<Arc<Attributes>>,
    /// Routes, an entry for each part of the message that carried some.
    pub reach: Vec<Reach>,
    /// Routes that are gone; an entry may be empty, which is how the end of a family's first exchange is told.
    pub withdrawn: Vec<Withdrawn>,
    /// What was wrong, in the order of the message; for logs and counters.
    pub problems: Vec<Problem>,
}

impl Update {
    /// The message that tells that all of a family's routes were sent (RFC 4724 §2).
    pub fn of_end(family: Family) -> Self {
        Update { withdrawn: vec![Withdrawn { family, nlri: Vec::new() }], ..Update::default() }
    }

    /// The family whose End-of-RIB marker this message is, if it is one (RFC 4724 §2).
    pub fn end_of_rib(&self) -> Option<Family> {
        match (self.withdrawn.as_slice(), self.reach.is_empty(), self.problems.is_empty()) {
            ([only], true, true) if only.nlri.is_empty() => Some(only.family),
            _ => None,
        }
    }

    /// Families in which the peer can no longer be followed: all its routes of them are to be deleted (RFC 4760 §7, RFC 7606 §2).
    /// The codec ignores these families for the rest of the session.
    pub fn disabled(&self) -> impl Iterator<Item = Family> {
        self.problems.iter().filter_map(|problem| match problem.disposition {
            Disposition::DisableFamily(family) => Some(family),
            Disposition::DiscardAttribute | Disposition::TreatAsWithdraw => None,
        })
    }
}
