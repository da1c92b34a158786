// SPDX-License-Identifier: Apache-2.0
//! What happens to a machine, and what it asks for.

use std::time::Duration;

use crate::wire::Notification;

/// Where a machine stands (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Refuses connections.
    Idle,
    /// Waits for its own connection to be made.
    Connect,
    /// Waits for the peer's connection, or for the next try.
    Active,
    /// Has sent its OPEN.
    OpenSent,
    /// Has both OPENs.
    OpenConfirm,
    /// Exchanges routes.
    Established,
}

impl State {
    /// All states, in their order.
    pub const ALL: [State; 6] =
        [State::Idle, State::Connect, State::Active, State::OpenSent, State::OpenConfirm, State::Established];

    /// The state's name in RFC 4271.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        }
    }
}

/// The events of RFC 4271 §8.1, numbers in parentheses. Passive and damped starts (4 to 7) are starts whose
/// [`Settings`](super::Settings) say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ManualStart (1, 4): a person or the configuration starts the peer.
    ManualStart,
    /// ManualStop (2): ends it, with the given NOTIFICATION where there is a connection that has seen an OPEN.
    ManualStop(Notification),
    /// AutomaticStart (3, 5, 6, 7).
    AutomaticStart,
    /// AutomaticStop (8): ends it with the given NOTIFICATION and starts it again after at least the given time.
    AutomaticStop(Notification, Duration),
    /// ConnectRetryTimer_Expires (9).
    ConnectRetryTimerExpires,
    /// HoldTimer_Expires (10).
    HoldTimerExpires,
    /// KeepaliveTimer_Expires (11).
    KeepaliveTimerExpires,
    /// DelayOpenTimer_Expires (12).
    DelayOpenTimerExpires,
    /// IdleHoldTimer_Expires (13).
    IdleHoldTimerExpires,
    /// TcpConnection_Valid (14): the peer asks for a connection.
    TcpConnectionValid,
    /// Tcp_CR_Invalid (15): somebody else asks for one.
    TcpConnectionInvalid,
    /// Tcp_CR_Acked (16): our connection is made.
    TcpConnectionAcked,
    /// TcpConnectionConfirmed (17): the peer's connection is made.
    TcpConnectionConfirmed,
    /// TcpConnectionFails (18).
    TcpConnectionFails,
    /// BGPOpen (19, 20): the peer's OPEN is acceptable; the hold time is the smaller of both.
    Open {
        /// Zero: no keepalives.
        hold_time: Duration,
    },
    /// BGPHeaderErr (21), with what the peer is told.
    HeaderError(Notification),
    /// BGPOpenMsgErr (22), with what the peer is told.
    OpenError(Notification),
    /// OpenCollisionDump (23).
    OpenCollisionDump,
    /// NotifMsgVerErr (24): the peer does not speak this version.
    NotificationVersionError(Notification),
    /// NotifMsg (25).
    Notification(Notification),
    /// KeepAliveMsg (26).
    Keepalive,
    /// UpdateMsg (27).
    Update,
    /// UpdateMsgErr (28), with what the peer is told.
    UpdateError(Notification),
    /// A ROUTE-REFRESH (RFC 2918 §3), which only an established session sees.
    RouteRefresh,
}

impl Event {
    /// Type octet of the message that the event is about, 0 if it is about none (RFC 4271 §4.1).
    pub(super) fn message_type(&self) -> u8 {
        match self {
            Event::Open { .. } | Event::OpenError(_) => 1,
            Event::Update | Event::UpdateError(_) => 2,
            Event::NotificationVersionError(_) | Event::Notification(_) => 3,
            Event::Keepalive => 4,
            Event::RouteRefresh => 5,
            Event::ManualStart
            | Event::ManualStop(_)
            | Event::AutomaticStart
            | Event::AutomaticStop(..)
            | Event::ConnectRetryTimerExpires
            | Event::HoldTimerExpires
            | Event::KeepaliveTimerExpires
            | Event::DelayOpenTimerExpires
            | Event::IdleHoldTimerExpires
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid
            | Event::TcpConnectionAcked
            | Event::TcpConnectionConfirmed
            | Event::TcpConnectionFails
            | Event::HeaderError(_)
            | Event::OpenCollisionDump => 0,
        }
    }
}

/// What the owner of the sockets does next, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Opens a connection.
    Connect,
    /// Sends our OPEN.
    SendOpen,
    /// Sends a KEEPALIVE.
    SendKeepalive,
    /// Sends a NOTIFICATION.
    SendNotification(Notification),
    /// Closes the connection, or gives up the attempt.
    Drop,
    /// The session is established.
    Up,
    /// The session is established no more.
    Down(Cause),
}

/// Why a session ended; what becomes of its routes depends on it (RFC 4724 §4.2, RFC 8538 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The connection broke.
    ConnectionFailed,
    /// Nothing was heard for the hold time.
    HoldTimerExpired,
    /// The peer said so.
    Received(Notification),
    /// We said so: an error of the peer, or a decision here.
    Sent(Notification),
    /// A connection of the same peer was kept instead.
    Collision,
}
