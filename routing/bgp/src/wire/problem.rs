// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use rhumb_model::Family;

/// What was done about an error in an UPDATE, the weakest first (RFC 7606 §2). The strongest, a reset of the session, is a
/// [`super::Notification`] in place of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Disposition {
    /// The attribute was left out, the routes stand.
    DiscardAttribute,
    /// The routes of the message were taken as withdrawn.
    TreatAsWithdraw,
    /// The destinations of a family could not be read: the peer's routes of it go, and it is ignored for the rest of the session.
    DisableFamily(Family),
}

/// An error in an UPDATE that did not end the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Type code of the attribute, if the error is one attribute's.
    pub attribute: Option<u8>,
    /// What was wrong, for a log.
    pub what: &'static str,
    /// What was done about it.
    pub disposition: Disposition,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.attribute {
            write!(f, "attribute {code}: ")?;
        }
        let done = match self.disposition {
            Disposition::DiscardAttribute => "attribute discarded",
            Disposition::TreatAsWithdraw => "treated as withdraw",
            Disposition::DisableFamily(Family::V4) => "ipv4 disabled",
            Disposition::DisableFamily(Family::V6) => "ipv6 disabled",
        };
        write!(f, "{}: {done}", self.what)
    }
}
