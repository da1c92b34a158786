// SPDX-License-Identifier: Apache-2.0

use std::fmt;

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

/// Reasons to end a session that are no errors (RFC 4486, RFC 8538, RFC 9384); the values are the subcodes of code 6.
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
    /// The session ends for the reason in the data, and the peer must not keep the routes (RFC 8538 §3.1).
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

    /// 1/1: the marker was not all ones (RFC 4271 §6.1).
    pub fn not_synchronized() -> Self {
        Self::of(1, 1, [])
    }

    /// 1/2: no message of the type has this length (RFC 4271 §6.1).
    pub fn bad_length(length: u16) -> Self {
        Self::of(1, 2, length.to_be_bytes())
    }

    /// 1/3: there is no such type of messages (RFC 4271 §6.1).
    pub fn bad_type(kind: u8) -> Self {
        Self::of(1, 3, [kind])
    }

    /// 2/*: the OPEN is not acceptable (RFC 4271 §6.2).
    pub(super) fn open(subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self::of(2, subcode, data)
    }

    /// 2/2: the peer's AS is not the one that was configured (RFC 4271 §6.2).
    pub fn bad_peer_as() -> Self {
        Self::of(2, 2, [])
    }

    /// 2/3: the peer's identifier is 0, or the own one within an AS (RFC 6286 §2.2).
    pub fn bad_identifier() -> Self {
        Self::of(2, 3, [])
    }

    /// 2/6: the peer's hold time is not acceptable (RFC 4271 §6.2).
    pub fn unacceptable_hold_time() -> Self {
        Self::of(2, 6, [])
    }

    /// 2/7: a capability that is needed was not offered; `capabilities` as on the wire (RFC 5492 §5).
    pub fn unsupported_capability(capabilities: Vec<u8>) -> Self {
        Self::of(2, 7, capabilities)
    }

    /// 3/*: the UPDATE cannot be followed (RFC 4271 §6.3, RFC 7606).
    pub(super) fn update(subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self::of(3, subcode, data)
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

    /// 7/1: a mark of a refresh has a wrong length; `message` is all of it (RFC 7313 §5).
    pub(super) fn bad_refresh_length(message: &[u8]) -> Self {
        Self::of(7, 1, message)
    }

    /// Whether the receiver must not keep routes although graceful restart was negotiated with the N bit (RFC 8538 §3.1).
    pub fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (6, Cease::HardReset as u8)
    }

    /// Whether another connection of the same two speakers is kept instead (RFC 4271 §6.8).
    pub fn is_collision(&self) -> bool {
        (self.code, self.subcode) == (6, Cease::ConnectionCollision as u8)
    }

    /// The reason that a hard reset carries (RFC 8538 §3.1).
    pub fn within_hard_reset(&self) -> Option<Notification> {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.is_hard_reset() => Some(Self::of(*code, *subcode, data)),
            _ => None,
        }
    }

    /// The text of an administrator in a shutdown or reset (RFC 9003 §2, RFC 8203 for texts of at most 128 octets). What is
    /// not UTF-8 is replaced and control characters are left out, so that it is fit for a log.
    pub fn communication(&self) -> Option<String> {
        let (6, 2 | 4, [length, text @ ..]) = (self.code, self.subcode, self.data.as_slice()) else {
            return None;
        };
        let text = text.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).chars().filter(|char| !char.is_control()).collect())
    }

    /// What code and subcode mean (IANA registry of BGP error codes).
    pub fn meaning(&self) -> &'static str {
        match (self.code, self.subcode) {
            (1, 1) => "connection not synchronized",
            (1, 2) => "bad message length",
            (1, 3) => "bad message type",
            (1, _) => "message header error",
            (2, 1) => "unsupported version number",
            (2, 2) => "bad peer AS",
            (2, 3) => "bad BGP identifier",
            (2, 4) => "unsupported optional parameter",
            (2, 6) => "unacceptable hold time",
            (2, 7) => "unsupported capability",
            (2, 11) => "role mismatch",
            (2, _) => "OPEN message error",
            (3, 1) => "malformed attribute list",
            (3, 2) => "unrecognized well-known attribute",
            (3, 3) => "missing well-known attribute",
            (3, 4) => "attribute flags error",
            (3, 5) => "attribute length error",
            (3, 6) => "invalid ORIGIN",
            (3, 8) => "invalid NEXT_HOP",
            (3, 9) => "optional attribute error",
            (3, 10) => "invalid network field",
            (3, 11) => "malformed AS_PATH",
            (3, _) => "UPDATE message error",
            (4, _) => "hold timer expired",
            (5, 1) => "unexpected message in OpenSent",
            (5, 2) => "unexpected message in OpenConfirm",
            (5, 3) => "unexpected message in Established",
            (5, _) => "finite state machine error",
            (6, 1) => "maximum number of prefixes reached",
            (6, 2) => "administrative shutdown",
            (6, 3) => "peer de-configured",
            (6, 4) => "administrative reset",
            (6, 5) => "connection rejected",
            (6, 6) => "other configuration change",
            (6, 7) => "connection collision resolution",
            (6, 8) => "out of resources",
            (6, 9) => "hard reset",
            (6, 10) => "BFD down",
            (6, _) => "cease",
            (7, 1) => "invalid ROUTE-REFRESH length",
            (7, _) => "ROUTE-REFRESH message error",
            (8, _) => "send hold timer expired",
            (_, _) => "unknown error",
        }
    }
}

/// `administrative shutdown (6/2): "moving racks"`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.meaning(), self.code, self.subcode)?;
        if let Some(reason) = self.within_hard_reset() {
            write!(f, ": {} ({}/{})", reason.meaning(), reason.code, reason.subcode)?;
            if let Some(text) = reason.communication() {
                write!(f, ": {text:?}")?;
            }
        } else if let Some(text) = self.communication() {
            write!(f, ": {text:?}")?;
        } else if !self.data.is_empty() {
            f.write_str(": 0x")?;
            self.data.iter().take(32).try_for_each(|octet| write!(f, "{octet:02x}"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Notification {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_communication_is_read_as_it_was_written_and_cut_between_characters() {
        let notification = Notification::cease_because(Cease::AdministrativeShutdown, "moving racks");
        assert_eq!(notification.to_string(), "administrative shutdown (6/2): \"moving racks\"");
        let long = Notification::cease_because(Cease::AdministrativeReset, &"ü".repeat(200));
        assert_eq!(long.communication(), Some("ü".repeat(127)));
        assert_eq!(long.data.len(), 255);
    }

    #[test]
    fn a_bad_communication_is_shown_without_harm() {
        let of = |data: &[u8]| Notification { code: 6, subcode: 2, data: data.to_vec() }.communication();
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[0]), None);
        assert_eq!(of(&[9, b'a']), None);
        assert_eq!(of(&[4, b'a', 0x1b, 0xff, b'b']), Some("a\u{fffd}b".to_owned()));
        assert_eq!(Notification { code: 6, subcode: 3, data: vec![1, b'a'] }.communication(), None);
    }

    #[test]
    fn a_hard_reset_carries_its_reason() {
        let reason = Notification::cease_because(Cease::AdministrativeShutdown, "gone");
        let reset = Notification::hard_reset(&reason);
        assert!(reset.is_hard_reset() && !reason.is_hard_reset());
        assert_eq!(reset.within_hard_reset(), Some(reason));
        assert_eq!(reset.to_string(), "hard reset (6/9): administrative shutdown (6/2): \"gone\"");
        assert_eq!(Notification { code: 6, subcode: 9, data: vec![6] }.within_hard_reset(), None);
    }

    #[test]
    fn unknown_errors_have_a_text_with_their_octets() {
        let unknown = Notification { code: 99, subcode: 7, data: vec![0xab; 40] };
        assert_eq!(unknown.to_string(), format!("unknown error (99/7): 0x{}", "ab".repeat(32)));
    }
}
