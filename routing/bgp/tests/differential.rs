// SPDX-License-Identifier: Apache-2.0
//! The same UPDATEs, good and broken, read by this codec and by another (rustbgpd-wire): both say the same of them, or the
//! difference is one of those that are listed here with the rule they come from.

mod messages;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use messages::{Routes, Session, Values, Verdict, any_message, mutated, ours};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rhumb_model::Prefix;
use rustbgpd_wire::validate::{ErrorDisposition, validate_update_attributes};
use rustbgpd_wire::{Afi, AsPathSegment, PathAttribute, Safi, UpdateMessage};

/// What the other reader says beside its verdict.
#[derive(Debug, Default)]
struct Notes {
    text: String,
    /// Codes of attributes that it found malformed.
    codes: BTreeSet<u8>,
    /// Whether it found routes.
    reached: bool,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other crate has attributes that are not compared")]
fn theirs(session: Session, message: &[u8]) -> (Verdict, Notes) {
    let body = &message[19..];
    let reset = |error: &dyn std::fmt::Display| {
        (Verdict::Reset, Notes { text: error.to_string(), ..Notes::default() })
    };
    let update = match UpdateMessage::decode(&mut Bytes::copy_from_slice(body), body.len()) {
        Err(error) => return reset(&error),
        Ok(update) => update,
    };
    let internal = session == Session::Internal;
    let paths: &[(Afi, Safi)] = match session {
        Session::SeveralPaths => &[(Afi::Ipv6, Safi::Unicast)],
        Session::External | Session::Internal | Session::TwoOctets => &[],
    };
    let parsed = match update.parse_revised(session != Session::TwoOctets, internal, false, paths) {
        Err(error) => return reset(&error),
        Ok(parsed) => parsed,
    };
    let mut worst = parsed.malformed.iter().map(|malformed| malformed.disposition).max();
    let codes = parsed.malformed.iter().map(|malformed| malformed.type_code).collect();
    let mut notes = Notes { text: format!("{:?}", parsed.malformed), codes, reached: false };
    let update = parsed.update;
    let mut routes = Routes::default();
    let show = |prefix: &dyn ToString, path_id: u32| match path_id {
        0 => prefix.to_string(),
        id => format!("{} path {id}", prefix.to_string()),
    };
    let v4 = |entry: &rustbgpd_wire::nlri::Ipv4NlriEntry| {
        let prefix = Prefix::containing(entry.prefix.addr.into(), entry.prefix.len);
        show(&prefix, entry.path_id)
    };
    let any = |entry: &rustbgpd_wire::nlri::NlriEntry| {
        let text = format!("{}/{}", entry.prefix.addr_string(), entry.prefix.prefix_len());
        show(&text, entry.path_id)
    };
    routes.reached.extend(update.announced.iter().map(v4));
    routes.withdrawn.extend(update.withdrawn.iter().map(v4));
    let mut values = Values::default();
    let unicast = |afi: Afi, safi: Safi| matches!(afi, Afi::Ipv4 | Afi::Ipv6) && safi == Safi::Unicast;
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::Origin(origin) => values.origin = *origin as u8,
            PathAttribute::AsPath(path) => {
                values.path = path
                    .segments
                    .iter()
                    .flat_map(|segment| match segment {
                        AsPathSegment::AsSequence(systems) | AsPathSegment::AsSet(systems) => systems.clone(),
                    })
                    .collect();
            }
            PathAttribute::Med(med) => values.med = Some(*med),
            PathAttribute::LocalPref(preference) => values.local_pref = internal.then_some(*preference),
            PathAttribute::Communities(list) | PathAttribute::CommunitiesPartial(list) => {
                values.communities = list.iter().copied().collect();
            }
            PathAttribute::Aggregator(aggregator) => values.aggregator = Some(aggregator.asn),
            PathAttribute::MpReachNlri(reach) if unicast(reach.afi, reach.safi) => {
                routes.reached.extend(reach.announced.iter().map(any));
            }
            PathAttribute::MpUnreachNlri(gone) if unicast(gone.afi, gone.safi) => {
                routes.withdrawn.extend(gone.withdrawn.iter().map(any));
            }
            _ => {}
        }
    }
    let classic = !update.announced.is_empty();
    let validated =
        validate_update_attributes(&update.attributes, !routes.reached.is_empty(), classic, !internal);
    notes.reached = !routes.reached.is_empty();
    if let Err(error) = validated {
        notes.text.push_str(&format!("{error:?}"));
        worst = worst.max(Some(error.disposition));
    }
    match worst {
        Some(ErrorDisposition::SessionReset) => (Verdict::Reset, notes),
        Some(ErrorDisposition::TreatAsWithdraw) => {
            (Verdict::Withdraw(routes.withdrawn.union(&routes.reached).cloned().collect()), notes)
        }
        Some(ErrorDisposition::AttributeDiscard) | None => {
            routes.values = (!routes.reached.is_empty()).then_some(values);
            (Verdict::Routes(Box::new(routes)), notes)
        }
    }
}

#[test]
fn good_messages_are_read_alike() {
    let mut runner = TestRunner::deterministic();
    for session in Session::ALL {
        for _ in 0..1000 {
            let message = any_message(session).new_tree(&mut runner).expect("a message").current();
            let (our, problems) = ours(session, &message);
            let (their, notes) = theirs(session, &message);
            assert_eq!(our, their, "{session:?} {message:02x?} {problems:?} {notes:?}");
        }
    }
}

#[test]
fn broken_messages_are_read_alike_or_the_rule_is_known() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4);
    for session in Session::ALL {
        let strategy = (any_message(session), changes.clone());
        for _ in 0..10_000 {
            let (message, changes) = strategy.new_tree(&mut runner).expect("a message").current();
            let message = mutated(&message, &changes);
            let (our, problems) = ours(session, &message);
            let (their, notes) = theirs(session, &message);
            if our == their {
                *seen.entry("alike").or_default() += 1;
                continue;
            }
            match explained(&our, &their, &problems, &notes) {
                Some(rule) => *seen.entry(rule).or_default() += 1,
                None => unknown.push(format!(
                    "{session:?} {message:02x?}\n  ours {our:?} {problems:?}\n  theirs {their:?} {notes:?}"
                )),
            }
        }
    }
    println!("{seen:#?}");
    assert!(seen["alike"] > 30_000, "most messages are read alike: {seen:?}");
    assert!(
        unknown.is_empty(),
        "{} differences, among them\n{}",
        unknown.len(),
        unknown.iter().step_by(unknown.len().div_ceil(12)).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Codes of attributes that this speaker knows.
const KNOWN: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32];

/// The rule that a difference comes from.
fn explained(ours: &Verdict, theirs: &Verdict, problems: &[String], notes: &Notes) -> Option<&'static str> {
    use Verdict::{Reset, Routes, Withdraw};
    let we = |what: &str| problems.iter().any(|problem| problem.contains(what));
    let they = |what: &str| notes.text.contains(what);
    match (ours, theirs) {
        // RFC 4760 §6: a family that was not negotiated may be ignored; the other reader ends the session, or reads it.
        (_, Reset) if we("was not negotiated") => Some("a foreign family"),
        // RFC 7606 §2: of AFI/SAFI disable and session reset, the other reader has the latter alone.
        (_, Reset) if we("disabled") => Some("a family is given up"),
        // RFC 7606 §3 c: wrong flags are answered by a withdraw, and the flag Partial alone by nothing.
        (_, Reset) if they("type 14 flags") || they("type 15 flags") => {
            Some("flags of an attribute with destinations")
        }
        // RFC 4271 §6.3 stands where RFC 7606 says nothing; the other reader is milder.
        (Reset, Withdraw(_)) if we("unrecognized well-known") => Some("an unknown well-known attribute"),
        // RFC 7606 §5.2: there is nothing that could be withdrawn; the other reader leaves this to its caller.
        (Reset, Withdraw(_)) if !notes.reached => Some("no destination"),
        // RFC 7606 §7.5, §7.9, §7.10, RFC 6793 §4.1: discarded, whatever it looks like; the other reader looks at the flags first.
        (Routes(_), Withdraw(_)) if we("does not belong on this session") => {
            Some("an attribute out of place")
        }
        (_, Withdraw(_)) if they("flags 0xa0 (expected 0x80)") || they("flags 0x60 (expected 0x40)") => {
            Some("the flag Partial alone")
        }
        // RFC 4271 §5, §6.3: both must be there between peers of one AS as well.
        (Withdraw(_), Routes(_)) if we("attribute 5: missing") => Some("no LOCAL_PREF within an AS"),
        (Withdraw(_), Routes(_)) if we("attribute 3: missing") => Some("no NEXT_HOP within an AS"),
        // RFC 4271 §6.3: addresses of 0.0.0.0/8 and 240.0.0.0/4 are no hosts; the other reader knows only the ends of these.
        (Withdraw(_), Routes(_)) if we("no address of a router") => Some("a reserved next hop"),
        // RFC 4271 §5: what is not known is not looked into.
        (Routes(_), Withdraw(_))
            if notes.codes.iter().all(|code| !KNOWN.contains(code)) && !notes.codes.is_empty() =>
        {
            Some("an attribute that only the other knows")
        }
        _ => None,
    }
}
