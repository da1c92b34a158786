// SPDX-License-Identifier: Apache-2.0

/// NOTIFICATION: why the sender ends the session (RFC 4271 §4.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code (RFC 4271 §4.5).
    pub code: u8,
    /// Subcode within the code.
    pub subcode: u8,
    /// What the error was about; its form depends on code and subcode.
    pub data: Vec<u8>,
}

/// Reasons to end a session that are no errors (RFC 4486, RFC 8538); the values are the subcodes of code 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cease {
    /// The peer sent more routes than are allowed.
    MaximumPrefixes = 1,
    /// The session was shut by an administrator.
    AdministrativeShutdown = 2,
    /// The peer was taken out of the configuration.
    PeerDeconfigured = 3,
    /// The session was reset by an administrator and comes back.
    AdministrativeReset = 4,
    /// The connection was refused after its OPEN.
    ConnectionRejected = 5,
    /// The configuration changed such that the session starts anew.
    OtherConfigurationChange = 6,
    /// Another connection of the same peer was kept (RFC 4271 §6.8).
    ConnectionCollision = 7,
    /// There is no room for the peer's routes.
    OutOfResources = 8,
    /// As 2, 3 or 4, but the peer must not keep the routes (RFC 8538 §3.1).
    HardReset = 9,
    /// BFD found the way to the peer down (RFC 9384).
    BfdDown = 10,
}

/// Longest shutdown communication in octets (RFC 9003 §2).
const COMMUNICATION: usize = 255;

impl Notification {
    fn of(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Notification { code, subcode, data: data.into() }
    }

    /// 2/2: the peer's AS is not the one that was configured (RFC 4271 §6.2).
    pub fn bad_peer_as() -> Self {
        Self::of(2, 2, [])
    }

    /// 2/6: the peer's hold time is not acceptable (RFC 4271 §6.2).
    pub fn unacceptable_hold_time() -> Self {
        Self::of(2, 6, [])
    }

    /// 4/0: nothing came within the hold time (RFC 4271 §6.5).
    pub fn hold_timer_expired() -> Self {
        Self::of(4, 0, [])
    }

    /// 5/1: a message that does not belong into OpenSent; `kind` is its type octet (RFC 6608 §3).
    pub fn unexpected_in_open_sent(kind: u8) -> Self {
        Self::of(5, 1, [kind])
    }

    /// 5/2: a message that does not belong into OpenConfirm (RFC 6608 §3).
    pub fn unexpected_in_open_confirm(kind: u8) -> Self {
        Self::of(5, 2, [kind])
    }

    /// 5/3: a message that does not belong into Established (RFC 6608 §3).
    pub fn unexpected_in_established(kind: u8) -> Self {
        Self::of(5, 3, [kind])
    }

    /// 6/*: the session ends without an error (RFC 4486).
    pub fn cease(reason: Cease) -> Self {
        Self::of(6, reason as u8, [])
    }

    /// 6/2 or 6/4 with a text for the peer's operator (RFC 9003 §2); the text is cut to 255 octets at the border of a character.
    pub fn cease_because(reason: Cease, text: &str) -> Self {
        let mut end = text.len().min(COMMUNICATION);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let length = u8::try_from(end).expect("cut to 255");
        Self::of(6, reason as u8, [&[length], &text.as_bytes()[..end]].concat())
    }

    /// 6/9: the session ends and the routes are not to be kept; carries the reason (RFC 8538 §3.1).
    pub fn hard_reset(reason: &Notification) -> Self {
        Self::of(6, Cease::HardReset as u8, [&[reason.code, reason.subcode][..], &reason.data].concat())
    }

    /// Whether the receiver must not keep routes although graceful restart was negotiated with the N bit (RFC 8538 §3.1).
    pub fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (6, Cease::HardReset as u8)
    }
}
