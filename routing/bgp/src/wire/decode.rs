// SPDX-License-Identifier: Apache-2.0
//! Reading an UPDATE (RFC 4271 §4.3, RFC 4760), with errors answered as RFC 7606 says.
//!
//! ```text
//!   the sections do not fit ──────────────────────────────────────────────► session reset
//!   withdrawn routes ── not readable ─────────────────────────────────────► session reset
//!   attributes ── each: scope, flags, length, value ── discard ───────────► left out
//!       │                                           └─ withdraw ──┐
//!       ├─ MP_REACH, MP_UNREACH ── not readable, other families ──┼───────► the family is disabled
//!       │                                        └─ none ─────────┼───────► session reset
//!   destinations ── not readable ─────────────────────────────────┼───────► session reset
//!       ▼                                                         ▼
//!     routes                       no destination was seen ── session reset; else all are withdrawn
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rhumb_model::Family;

use super::nlri::{self, Paths};
use super::octets::{octet, short, take};
use super::rules::{self, Fault, Rule};
use super::values::{Values, Width, next_hop};
use super::{
    Disposition, Negotiated, NextHop, Nlri, Notification, Problem, RawAttribute, Reach, Update, Withdrawn,
    family,
};

/// Reads the body of an UPDATE. Families that are lost are added to `disabled`, and those in it are ignored.
///
/// # Errors
/// What the peer is to be told where the session cannot go on.
pub(super) fn update(
    session: &Negotiated,
    disabled: &mut BTreeSet<Family>,
    body: &[u8],
) -> Result<Update, Notification> {
    let list = || Notification::update(rules::MALFORMED_LIST, []);
    let input = &mut &*body;
    let withdrawn = short(input).and_then(|length| take(input, length.into())).ok_or_else(list)?;
    let attributes = short(input).and_then(|length| take(input, length.into())).ok_or_else(list)?;
    let destinations = *input;
    let (update, values) = (Update::default(), Values::default());
    let mut reader = Reader { session, disabled, update, values, seen: [false; 256], fault: None };
    if withdrawn.is_empty() && attributes.is_empty() && destinations.is_empty() {
        return Ok(if reader.usable(Family::V4) { Update::of_end(Family::V4) } else { Update::default() });
    }
    let nlri = reader.classic(withdrawn)?;
    if !nlri.is_empty() {
        reader.update.withdrawn.push(Withdrawn { family: Family::V4, nlri });
    }
    reader.attributes(attributes)?;
    let nlri = reader.classic(destinations)?;
    reader.mandatory(!nlri.is_empty());
    if !nlri.is_empty() {
        let next_hop = NextHop::V4(reader.values.next_hop.unwrap_or(Ipv4Addr::UNSPECIFIED));
        reader.update.reach.push(Reach { family: Family::V4, next_hop, nlri });
    }
    reader.finish(!destinations.is_empty())
}

struct Reader<'a> {
    session: &'a Negotiated,
    disabled: &'a mut BTreeSet<Family>,
    update: Update,
    values: Values,
    /// Codes of the attributes that were seen.
    seen: [bool; 256],
    /// What the peer is to be told if the first error that calls for a withdraw cannot be answered by one.
    fault: Option<Notification>,
}

/// An error in an attribute with destinations.
enum Trouble {
    Fault(Fault),
    /// The destinations cannot be read; `None` where not even their family can.
    Lost(Option<Family>),
}

impl Reader<'_> {
    fn usable(&self, family: Family) -> bool {
        self.session.families.contains(&family) && !self.disabled.contains(&family)
    }

    fn nlri(&self, family: Family, field: &[u8]) -> Result<Vec<Nlri>, nlri::Malformed> {
        let several = self.session.add_path_receive.contains(&family);
        nlri::decode(family, if several { Paths::Several } else { Paths::Single }, field)
    }

    /// Remembers an error of the attribute whose octets are `whole`.
    fn note(&mut self, fault: Fault, whole: &[u8]) {
        if fault.problem.disposition == Disposition::TreatAsWithdraw && self.fault.is_none() {
            let data = if fault.carries_attribute() { whole } else { &[] };
            self.fault = Some(Notification::update(fault.subcode, data));
        }
        self.update.problems.push(fault.problem);
    }

    /// A field of IPv4 destinations outside of attributes; without IPv4 on the session nothing in it counts.
    fn classic(&mut self, field: &[u8]) -> Result<Vec<Nlri>, Notification> {
        if self.usable(Family::V4) {
            let nlri = self.nlri(Family::V4, field);
            return nlri.map_err(|nlri::Malformed| Notification::update(rules::BAD_NETWORK, []));
        }
        if !field.is_empty() && !self.disabled.contains(&Family::V4) {
            let disposition = Disposition::DiscardAttribute;
            self.update.problems.push(Problem { attribute: None, what: NOT_NEGOTIATED, disposition });
        }
        Ok(Vec::new())
    }

    /// Walks through the attributes; what is behind one that does not fit is not looked at (RFC 7606 §4).
    fn attributes(&mut self, mut section: &[u8]) -> Result<(), Notification> {
        while !section.is_empty() {
            let start = section;
            let header = octet(&mut section).zip(octet(&mut section));
            let length = header.and_then(|(flags, _)| match flags & rules::EXTENDED {
                0 => octet(&mut section).map(usize::from),
                _ => short(&mut section).map(usize::from),
            });
            let value = length.and_then(|length| take(&mut section, length));
            let (Some((flags, code)), Some(value)) = (header, value) else {
                let attribute = header.map(|(_, code)| code);
                // Its destinations cannot be read, and what cannot be read cannot be withdrawn (RFC 7606 §5.3).
                if matches!(attribute, Some(rules::MP_REACH_NLRI | rules::MP_UNREACH_NLRI)) {
                    return Err(Notification::update(rules::MALFORMED_LIST, []));
                }
                self.note(Fault::withdraw(attribute, "longer than what is left", rules::MALFORMED_LIST), &[]);
                return Ok(());
            };
            let whole = &start[..start.len() - section.len()];
            self.attribute(code, flags, value, whole)?;
        }
        Ok(())
    }

    fn attribute(&mut self, code: u8, flags: u8, value: &[u8], whole: &[u8]) -> Result<(), Notification> {
        if std::mem::replace(&mut self.seen[usize::from(code)], true) {
            // Of two that carry destinations it cannot be told which counts (RFC 7606 §3 g).
            if matches!(code, rules::MP_REACH_NLRI | rules::MP_UNREACH_NLRI) {
                return Err(Notification::update(rules::MALFORMED_LIST, []));
            }
            self.note(Fault::discard(code, "a second one"), whole);
            return Ok(());
        }
        let Some(rule) = Rule::of(code, self.session) else { return self.unknown(code, flags, value, whole) };
        let checked = rule.check(code, flags, value.len(), self.session);
        let width = if self.session.asn4 { Width::Four } else { Width::Two };
        let taken = match code {
            // Destinations are wanted also when they are to be withdrawn.
            rules::MP_REACH_NLRI => self.reach(value).and(checked.map_err(Trouble::Fault)),
            rules::MP_UNREACH_NLRI => self.unreach(value).and(checked.map_err(Trouble::Fault)),
            _ => checked.and_then(|()| self.values.take(code, rule, value, width)).map_err(Trouble::Fault),
        };
        match taken {
            Ok(()) => {}
            Err(Trouble::Fault(fault)) => self.note(fault, whole),
            Err(Trouble::Lost(family)) => self.lose(code, family, whole)?,
        }
        Ok(())
    }

    /// Keeps what is to be passed on (RFC 4271 §5).
    fn unknown(&mut self, code: u8, flags: u8, value: &[u8], whole: &[u8]) -> Result<(), Notification> {
        if flags & rules::OPTIONAL == 0 {
            return Err(Notification::update(rules::UNRECOGNIZED, whole));
        }
        if flags & rules::TRANSITIVE != 0 {
            let flags = flags & (rules::OPTIONAL | rules::TRANSITIVE | rules::PARTIAL);
            self.values.attributes.unknown.push(RawAttribute { flags, code, value: value.to_vec() });
        }
        Ok(())
    }

    /// MP_REACH_NLRI: AFI, SAFI, next hop with its length, a reserved octet, destinations (RFC 4760 §3).
    fn reach(&mut self, value: &[u8]) -> Result<(), Trouble> {
        let input = &mut &*value;
        let Some(family) = self.family(rules::MP_REACH_NLRI, input)? else { return Ok(()) };
        let lost = || Trouble::Lost(Some(family));
        let address = octet(input).and_then(|length| take(input, length.into())).ok_or_else(lost)?;
        let expected = match (family, address.len()) {
            (Family::V4, 4) | (Family::V6, 16 | 32) => true,
            (Family::V4, 16 | 32) => self.session.extended_next_hop.contains(&family),
            (Family::V4 | Family::V6, _) => false,
        };
        octet(input).filter(|_| expected).ok_or_else(lost)?;
        let nlri = self.nlri(family, input).map_err(|nlri::Malformed| lost())?;
        let router = next_hop(address);
        if !nlri.is_empty() {
            let next_hop = router.unwrap_or(NextHop::V4(Ipv4Addr::UNSPECIFIED));
            self.update.reach.push(Reach { family, next_hop, nlri });
        }
        let fault =
            Fault::withdraw(Some(rules::MP_REACH_NLRI), "no address of a router", rules::BAD_NEXT_HOP);
        router.map(drop).ok_or(Trouble::Fault(fault))
    }

    /// MP_UNREACH_NLRI: AFI, SAFI, destinations (RFC 4760 §4).
    fn unreach(&mut self, value: &[u8]) -> Result<(), Trouble> {
        let input = &mut &*value;
        if let Some(family) = self.family(rules::MP_UNREACH_NLRI, input)? {
            let nlri = self.nlri(family, input).map_err(|nlri::Malformed| Trouble::Lost(Some(family)))?;
            self.update.withdrawn.push(Withdrawn { family, nlri });
        }
        Ok(())
    }

    /// The family of an attribute with destinations, if it is one of the session.
    fn family(&mut self, code: u8, input: &mut &[u8]) -> Result<Option<Family>, Trouble> {
        let (afi, safi) = short(input).zip(octet(input)).ok_or(Trouble::Lost(None))?;
        let family = family::of(afi, safi);
        if family.is_none_or(|family| !self.session.families.contains(&family)) {
            self.note(Fault::discard(code, NOT_NEGOTIATED), &[]);
        }
        Ok(family.filter(|family| self.usable(*family)))
    }

    /// Gives up a family whose destinations cannot be read; without another one the session goes (RFC 7606 §2, §7.11).
    fn lose(&mut self, code: u8, family: Option<Family>, whole: &[u8]) -> Result<(), Notification> {
        let remains = self
            .session
            .families
            .iter()
            .any(|other| Some(*other) != family && !self.disabled.contains(other));
        let Some(family) = family.filter(|_| remains) else {
            return Err(Notification::update(rules::OPTIONAL_ERROR, whole));
        };
        self.disabled.insert(family);
        self.update.reach.retain(|reach| reach.family != family);
        let disposition = Disposition::DisableFamily(family);
        self.update.problems.push(Problem {
            attribute: Some(code),
            what: "destinations cannot be read",
            disposition,
        });
        Ok(())
    }

    /// Attributes that routes must have; `classic` where there are routes outside of MP_REACH_NLRI (RFC 7606 §3 d).
    fn mandatory(&mut self, classic: bool) {
        if !classic && self.update.reach.is_empty() {
            return;
        }
        let internal = self.session.is_internal();
        let needed = [
            (rules::ORIGIN, true),
            (rules::AS_PATH, true),
            (rules::NEXT_HOP, classic),
            (rules::LOCAL_PREF, internal),
        ];
        for (code, needed) in needed {
            if needed && !self.seen[usize::from(code)] {
                self.note(Fault::withdraw(Some(code), "missing", rules::MISSING), &[code]);
            }
        }
    }

    /// Acts on the errors; `classic` where there were destinations outside of attributes.
    fn finish(self, classic: bool) -> Result<Update, Notification> {
        let Reader { mut update, values, seen, fault, .. } = self;
        let others = (0..=u8::MAX).any(|code| code != rules::MP_UNREACH_NLRI && seen[usize::from(code)]);
        if let Some(notification) = fault {
            // Nothing shows where the destinations are that the attributes were meant for (RFC 7606 §5.2).
            let only_withdraws = seen[usize::from(rules::MP_UNREACH_NLRI)] && !others;
            if !classic && !seen[usize::from(rules::MP_REACH_NLRI)] && !only_withdraws {
                return Err(notification);
            }
            let gone = update.reach.drain(..).map(|Reach { family, nlri, .. }| Withdrawn { family, nlri });
            update.withdrawn.extend(gone);
        }
        if !update.reach.is_empty() {
            update.attributes = Some(Arc::new(values.merged()));
        }
        // An empty list alone in its message ends a family's first exchange (RFC 4724 §2).
        if others || classic || update.withdrawn.len() > 1 {
            update.withdrawn.retain(|withdrawn| !withdrawn.nlri.is_empty());
        }
        Ok(update)
    }
}

/// The error of routes that were not asked for (RFC 4760 §6).
const NOT_NEGOTIATED: &str = "routes of a family that was not negotiated";

#[cfg(test)]
mod tests;
