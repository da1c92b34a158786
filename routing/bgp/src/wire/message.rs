// SPDX-License-Identifier: Apache-2.0

use rhumb_model::Family;

use super::{Asn, Capabilities, Notification, RouterId, Update};

/// One message (RFC 4271 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First message of a session.
    Open(Open),
    /// Routes.
    Update(Update),
    /// Last message of a session.
    Notification(Notification),
    /// Sign of life.
    Keepalive,
    /// Request for all routes of a family, or a mark in the answer to one.
    RouteRefresh(RouteRefresh),
}

/// OPEN (RFC 4271 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: of the 4-octet capability where there is one, which the encoder adds from `capabilities.asn4`.
    pub asn: Asn,
    /// Seconds; 0 for no keepalives, otherwise at least 3.
    pub hold_time: u16,
    /// The sender's identifier, never 0.
    pub router_id: RouterId,
    /// What the sender offers.
    pub capabilities: Capabilities,
}

/// ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family whose routes are meant.
    pub family: Family,
    /// Request or mark.
    pub kind: RefreshKind,
}

/// What a ROUTE-REFRESH message is; the values are the subtypes of the wire (RFC 7313 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshKind {
    /// All routes are asked for.
    Request = 0,
    /// The sender begins to send all routes.
    Begin = 1,
    /// All routes were sent; those not seen since the begin are stale.
    End = 2,
}
