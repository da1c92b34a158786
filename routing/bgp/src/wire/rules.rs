// SPDX-License-Identifier: Apache-2.0
//! What each known attribute must look like, and what is done when it does not (RFC 7606 §3 and §7, with the RFC of each
//! attribute).

use super::{Disposition, Negotiated, Problem};

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const MULTI_EXIT_DISC: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const ATOMIC_AGGREGATE: u8 = 6;
pub(super) const AGGREGATOR: u8 = 7;
pub(super) const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH_NLRI: u8 = 14;
pub(super) const MP_UNREACH_NLRI: u8 = 15;
pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
pub(super) const AS4_PATH: u8 = 17;
pub(super) const AS4_AGGREGATOR: u8 = 18;
pub(super) const LARGE_COMMUNITY: u8 = 32;

/// Flags of an attribute (RFC 4271 §4.3).
pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED: u8 = 0x10;

/// Subcodes of code 3 (RFC 4271 §4.5), for errors that end the session.
pub(super) const MALFORMED_LIST: u8 = 1;
pub(super) const UNRECOGNIZED: u8 = 2;
pub(super) const MISSING: u8 = 3;
pub(super) const FLAGS: u8 = 4;
pub(super) const LENGTH: u8 = 5;
pub(super) const BAD_ORIGIN: u8 = 6;
pub(super) const BAD_NEXT_HOP: u8 = 8;
pub(super) const OPTIONAL_ERROR: u8 = 9;
pub(super) const BAD_NETWORK: u8 = 10;
pub(super) const BAD_PATH: u8 = 11;

/// Octets that the value of an attribute may have.
#[derive(Debug, Clone, Copy)]
enum Length {
    Any,
    Exactly(usize),
    /// A multiple, and not none.
    Multiple(usize),
}

/// Sessions on which an attribute counts; on others it is discarded, whatever it looks like.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Everywhere,
    /// Between peers of one AS (RFC 7606 §7.5, §7.9, §7.10).
    Internal,
    /// Where two octets a system are spoken (RFC 6793 §4.1).
    TwoOctets,
}

/// The form of one attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    flags: u8,
    length: Length,
    scope: Scope,
    /// What is done about a length or a value that is wrong.
    pub(super) malformed: Disposition,
    /// What the peer is told if that cannot be done.
    pub(super) subcode: u8,
}

/// An error in the form of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What was wrong and what is done.
    pub(super) problem: Problem,
    /// Subcode of the NOTIFICATION, if it comes to that.
    pub(super) subcode: u8,
}

impl Fault {
    pub(super) fn withdraw(attribute: Option<u8>, what: &'static str, subcode: u8) -> Self {
        Fault { problem: Problem { attribute, what, disposition: Disposition::TreatAsWithdraw }, subcode }
    }

    /// Whether the NOTIFICATION has the attribute in its data (RFC 4271 §6.3).
    pub(super) fn carries_attribute(&self) -> bool {
        !matches!(self.subcode, MALFORMED_LIST | BAD_PATH)
    }

    pub(super) fn discard(attribute: u8, what: &'static str) -> Self {
        let disposition = Disposition::DiscardAttribute;
        Fault { problem: Problem { attribute: Some(attribute), what, disposition }, subcode: OPTIONAL_ERROR }
    }
}

impl Rule {
    /// The rule of a known attribute.
    pub(super) fn of(code: u8, session: &Negotiated) -> Option<Rule> {
        use Disposition::{DiscardAttribute as Discard, TreatAsWithdraw as Withdraw};
        use Length::{Any, Exactly, Multiple};
        use Scope::{Everywhere, Internal, TwoOctets};
        const WELL_KNOWN: u8 = TRANSITIVE;
        const TRANSIT: u8 = OPTIONAL | TRANSITIVE;
        let aggregator = if session.asn4 { 8 } else { 6 };
        let (flags, length, scope, malformed, subcode) = match code {
            ORIGIN => (WELL_KNOWN, Exactly(1), Everywhere, Withdraw, LENGTH),
            AS_PATH => (WELL_KNOWN, Any, Everywhere, Withdraw, BAD_PATH),
            NEXT_HOP => (WELL_KNOWN, Exactly(4), Everywhere, Withdraw, LENGTH),
            MULTI_EXIT_DISC => (OPTIONAL, Exactly(4), Everywhere, Withdraw, LENGTH),
            LOCAL_PREF => (WELL_KNOWN, Exactly(4), Internal, Withdraw, LENGTH),
            ATOMIC_AGGREGATE => (WELL_KNOWN, Exactly(0), Everywhere, Discard, LENGTH),
            AGGREGATOR => (TRANSIT, Exactly(aggregator), Everywhere, Discard, LENGTH),
            COMMUNITIES => (TRANSIT, Multiple(4), Everywhere, Withdraw, OPTIONAL_ERROR),
            ORIGINATOR_ID => (OPTIONAL, Exactly(4), Internal, Withdraw, LENGTH),
            CLUSTER_LIST => (OPTIONAL, Multiple(4), Internal, Withdraw, LENGTH),
            MP_REACH_NLRI | MP_UNREACH_NLRI => (OPTIONAL, Any, Everywhere, Withdraw, OPTIONAL_ERROR),
            EXTENDED_COMMUNITIES => (TRANSIT, Multiple(8), Everywhere, Withdraw, OPTIONAL_ERROR),
            AS4_PATH => (TRANSIT, Any, TwoOctets, Discard, OPTIONAL_ERROR),
            AS4_AGGREGATOR => (TRANSIT, Exactly(8), TwoOctets, Discard, OPTIONAL_ERROR),
            LARGE_COMMUNITY => (TRANSIT, Multiple(12), Everywhere, Withdraw, OPTIONAL_ERROR),
            _ => return None,
        };
        Some(Rule { flags, length, scope, malformed, subcode })
    }

    /// Holds scope, flags and length of an attribute against its rule.
    pub(super) fn check(self, code: u8, flags: u8, length: usize, session: &Negotiated) -> Result<(), Fault> {
        let counts = match self.scope {
            Scope::Everywhere => true,
            Scope::Internal => session.is_internal(),
            Scope::TwoOctets => !session.asn4,
        };
        if !counts {
            return Err(Fault::discard(code, "does not belong on this session"));
        }
        if flags & (OPTIONAL | TRANSITIVE) != self.flags {
            return Err(Fault::withdraw(Some(code), "flags contradict the type", FLAGS));
        }
        let fits = match self.length {
            Length::Any => true,
            Length::Exactly(octets) => length == octets,
            Length::Multiple(octets) => length != 0 && length.is_multiple_of(octets),
        };
        if fits { Ok(()) } else { Err(self.fault(code, "bad length")) }
    }

    /// The error of a value that does not have its form.
    pub(super) fn fault(self, code: u8, what: &'static str) -> Fault {
        let problem = Problem { attribute: Some(code), what, disposition: self.malformed };
        Fault { problem, subcode: self.subcode }
    }
}
