// SPDX-License-Identifier: Apache-2.0
//! The same UPDATEs, good and broken, read by this codec and by another (rustbgpd-wire): both say the same of them, or the
//! difference is one of those that are listed here with the rule they come from.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rhumb_bgp::wire::{
    AddPath, AsPath, Asn, Capabilities, Codec, Community, Disposition, Message, Negotiated, Open, Origin,
    RouterId, Segment,
};
use rhumb_model::{Family, Prefix};
use rustbgpd_wire::validate::{ErrorDisposition, validate_update_attributes};
use rustbgpd_wire::{Afi, AsPathSegment, PathAttribute, Safi, UpdateMessage};

/// What a reader makes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The session ends.
    Reset,
    /// All routes are withdrawn: these prefixes.
    Withdraw(BTreeSet<String>),
    /// Routes and withdrawals.
    Routes(Box<Routes>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Routes {
    reached: BTreeSet<String>,
    withdrawn: BTreeSet<String>,
    values: Option<Values>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Values {
    origin: u8,
    path: Vec<u32>,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: BTreeSet<u32>,
    aggregator: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Session {
    External,
    Internal,
    SeveralPaths,
    TwoOctets,
}

impl Session {
    const ALL: [Session; 4] =
        [Session::External, Session::Internal, Session::SeveralPaths, Session::TwoOctets];

    fn negotiated(self) -> Negotiated {
        let open = |asn: u32, router_id: u32| Open {
            asn: Asn(asn),
            hold_time: 90,
            router_id: RouterId(router_id),
            capabilities: Capabilities {
                families: BTreeSet::from(Family::BOTH),
                asn4: (self != Session::TwoOctets).then_some(Asn(asn)),
                add_path: match self {
                    Session::SeveralPaths => {
                        BTreeMap::from([(Family::V6, AddPath { receive: true, send: true })])
                    }
                    Session::External | Session::Internal | Session::TwoOctets => BTreeMap::new(),
                },
                ..Capabilities::default()
            },
        };
        let peer = if self == Session::Internal { 65000 } else { 65001 };
        Negotiated::of(&open(65000, 1), &open(peer, 2)).expect("families in common")
    }
}

fn ours(session: Session, message: &[u8]) -> (Verdict, Vec<String>) {
    let mut buffer = BytesMut::from(message);
    let update = match Codec::new(&session.negotiated()).decode(&mut buffer) {
        Err(notification) => return (Verdict::Reset, vec![notification.to_string()]),
        Ok(Some(Message::Update(update))) => update,
        Ok(other) => unreachable!("an UPDATE was read as {other:?}"),
    };
    let problems = update.problems.iter().map(ToString::to_string).collect();
    let list = |nlri: &rhumb_bgp::wire::Nlri| nlri.to_string();
    let withdrawn: BTreeSet<String> =
        update.withdrawn.iter().flat_map(|part| part.nlri.iter().map(list)).collect();
    let worst = update.problems.iter().map(|problem| problem.disposition).max();
    if worst.is_some_and(|worst| worst != Disposition::DiscardAttribute) {
        return (Verdict::Withdraw(withdrawn), problems);
    }
    let reached: BTreeSet<String> = update.reach.iter().flat_map(|part| part.nlri.iter().map(list)).collect();
    let values = update.attributes.as_deref().map(|attributes| Values {
        origin: attributes.origin as u8,
        path: attributes.as_path.systems().map(|asn| asn.0).collect(),
        med: attributes.med,
        local_pref: attributes.local_pref,
        communities: attributes.communities.iter().map(|community| community.0).collect(),
        aggregator: attributes.aggregator.map(|(asn, _)| asn.0),
    });
    (Verdict::Routes(Box::new(Routes { reached, withdrawn, values })), problems)
}

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

/// A good message of the session.
fn any_message(session: Session) -> impl Strategy<Value = Vec<u8>> {
    let prefix = |family: Family, bits: u128, len: u8| match family {
        Family::V4 => {
            let bits = u32::try_from(bits & 0xffff_ffff).expect("masked");
            Prefix::containing(std::net::Ipv4Addr::from_bits(bits).into(), len % 33)
        }
        Family::V6 => Prefix::containing(std::net::Ipv6Addr::from_bits(bits).into(), len % 129),
    };
    let nlri = prop::collection::vec((any::<u128>(), any::<u8>(), any::<u32>()), 1..8);
    let options = (
        any::<bool>(),
        prop::option::of(any::<u32>()),
        prop::collection::vec(any::<u32>(), 0..4),
        any::<bool>(),
    );
    let path = prop::collection::vec(1..100_000_u32, 0..5);
    (any::<bool>(), any::<bool>(), nlri, options, path, 0..3_u8).prop_map(move |parts| {
        let (six, withdraw, nlri, (aggregated, med, communities, atomic), path, origin) = parts;
        let family = if six { Family::V6 } else { Family::V4 };
        let paths = six && session == Session::SeveralPaths;
        let nlri: Vec<_> = nlri
            .into_iter()
            .map(|(bits, len, id)| rhumb_bgp::wire::Nlri {
                prefix: prefix(family, bits, len),
                path_id: if paths { id } else { 0 },
            })
            .collect();
        let attributes = rhumb_bgp::wire::Attributes {
            origin: [Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(origin)],
            as_path: AsPath(vec![Segment::Sequence(path.into_iter().chain([65001]).map(Asn).collect())]),
            med,
            local_pref: Some(100),
            atomic_aggregate: atomic,
            aggregator: aggregated.then_some((Asn(65009), std::net::Ipv4Addr::new(10, 0, 0, 9))),
            communities: communities.into_iter().map(Community).collect(),
            ..Default::default()
        }
        .canonical();
        let codec = Codec::new(&session.negotiated());
        let messages = if withdraw {
            codec.encode_withdraw(family, &nlri)
        } else {
            let next_hop = match family {
                Family::V4 => rhumb_bgp::wire::NextHop::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
                Family::V6 => rhumb_bgp::wire::NextHop::V6 {
                    global: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
                    link_local: None,
                },
            };
            codec.encode_update(&attributes.into(), &next_hop, &nlri).expect("fits")
        };
        messages[0].to_vec()
    })
}

/// The message with octets of its body changed, inserted or left out; its length stays true.
fn mutated(message: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut message = message.to_vec();
    for (at, kind, to) in changes {
        let at = 19 + at.index(message.len() - 19);
        match kind % 8 {
            0 => message.insert(at, *to),
            1 if message.len() > 23 => drop(message.remove(at)),
            // Small changes of small numbers: lengths, codes, flags.
            2 | 3 => message[at] = message[at].wrapping_add(to % 5).wrapping_sub(2),
            4 => message[at] ^= 0x80 >> (to % 8),
            _ => message[at] = *to,
        }
    }
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    message[16..18].copy_from_slice(&length);
    message
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
