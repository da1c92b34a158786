// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::wire::samples::{attribute, body, external, internal, several_paths, two_octets, unnumbered};
use crate::wire::{AsPath, Asn, Community, LargeCommunity, RouterId};

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const NEXT_HOP: [u8; 7] = [0x40, 3, 4, 192, 0, 2, 1];
const LOCAL_PREF: [u8; 7] = [0x40, 5, 4, 0, 0, 0, 100];
/// 10.1.0.0/16.
const ROUTE: [u8; 3] = [16, 10, 1];
/// 2001:db8::/32 via 2001:db8::1.
const REACH: [u8; 26] = {
    let mut value = [0; 26];
    (value[1], value[2], value[3]) = (2, 1, 16);
    (value[4], value[5], value[6], value[7], value[19]) = (0x20, 1, 0x0d, 0xb8, 1);
    (value[21], value[22], value[23], value[24], value[25]) = (32, 0x20, 1, 0x0d, 0xb8);
    value
};

fn path(session: &Negotiated) -> Vec<u8> {
    let systems: &[u8] = if session.asn4 { &[2, 1, 0, 0, 0xfd, 0xe9] } else { &[2, 1, 0xfd, 0xe9] };
    attribute(0x40, 2, systems)
}

/// The attributes that routes of the session need.
fn base(session: &Negotiated) -> Vec<u8> {
    let preference: &[u8] = if session.is_internal() { &LOCAL_PREF } else { &[] };
    [&ORIGIN, &path(session)[..], &NEXT_HOP, preference].concat()
}

fn decode(session: &Negotiated, body: &[u8]) -> Result<Update, Notification> {
    update(session, &mut BTreeSet::new(), body)
}

/// What became of a message with an error.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Kept,
    Discarded,
    Withdrawn,
    Disabled(Family),
    Reset(u8),
}

fn outcome(result: Result<Update, Notification>) -> Outcome {
    let update = match result {
        Err(notification) => {
            assert_eq!(notification.code, 3);
            return Outcome::Reset(notification.subcode);
        }
        Ok(update) => update,
    };
    let worst = update.problems.iter().map(|problem| problem.disposition).max();
    match worst {
        None => {
            assert!(!update.reach.is_empty() && update.attributes.is_some());
            Outcome::Kept
        }
        Some(Disposition::DiscardAttribute) => {
            assert!(!update.reach.is_empty() && update.attributes.is_some());
            Outcome::Discarded
        }
        Some(Disposition::TreatAsWithdraw) => {
            assert!(update.reach.is_empty() && update.attributes.is_none());
            assert!(update.withdrawn.iter().any(|withdrawn| !withdrawn.nlri.is_empty()));
            Outcome::Withdrawn
        }
        Some(Disposition::DisableFamily(family)) => Outcome::Disabled(family),
    }
}

/// One attribute in the place of that of its code in otherwise good attributes.
fn with(session: &Negotiated, flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut rest = &base(session)[..];
    let mut attributes = Vec::new();
    while let [_, kind, length, ..] = rest {
        let (one, others) = rest.split_at(3 + usize::from(*length));
        if *kind != code {
            attributes.extend(one);
        }
        rest = others;
    }
    [attributes, attribute(flags, code, value)].concat()
}

/// What it is, the session, flags, code and value of an attribute, what becomes of the message.
type Row<'a> = (&'static str, &'a Negotiated, u8, u8, Vec<u8>, Outcome);

#[test]
fn each_rule_of_rfc_7606_has_its_disposition() {
    use Outcome::{Discarded, Kept, Reset, Withdrawn};
    let (ext, int, two) = (&external(), &internal(), &two_octets());
    let rows: Vec<Row<'_>> = vec![
        ("7.1 ORIGIN of two octets", ext, 0x40, 1, vec![0, 0], Withdrawn),
        ("7.1 ORIGIN 3", ext, 0x40, 1, vec![3], Withdrawn),
        ("7.1 ORIGIN 2", ext, 0x40, 1, vec![2], Kept),
        ("4 ORIGIN without value", ext, 0x40, 1, vec![], Withdrawn),
        ("3c ORIGIN optional", ext, 0xc0, 1, vec![0], Withdrawn),
        ("3c ORIGIN not transitive", ext, 0x00, 1, vec![0], Withdrawn),
        ("low bits of the flags are ignored", ext, 0x4f & !0x10, 1, vec![0], Kept),
        ("partial is no error", ext, 0x60, 1, vec![0], Kept),
        ("7.2 AS_PATH of unknown segment", ext, 0x40, 2, vec![5, 1, 0, 0, 0, 1], Withdrawn),
        ("7.2 AS_PATH overrun", ext, 0x40, 2, vec![2, 2, 0, 0, 0, 1], Withdrawn),
        ("7.2 AS_PATH underrun", ext, 0x40, 2, vec![2, 1, 0, 0, 0, 1, 2], Withdrawn),
        ("7.2 AS_PATH with empty segment", ext, 0x40, 2, vec![2, 0], Withdrawn),
        ("7.2 AS_PATH empty", int, 0x40, 2, vec![], Kept),
        ("5065 AS_PATH with a confederation", ext, 0x40, 2, vec![3, 1, 0, 0, 0, 1], Withdrawn),
        ("7607 AS_PATH with AS 0", ext, 0x40, 2, vec![2, 2, 0, 0, 0, 1, 0, 0, 0, 0], Withdrawn),
        ("9774 AS_PATH with a set", ext, 0x40, 2, vec![2, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2], Withdrawn),
        ("7.3 NEXT_HOP of 16 octets", ext, 0x40, 3, vec![1; 16], Withdrawn),
        ("6.3 NEXT_HOP 0.0.0.0", ext, 0x40, 3, vec![0; 4], Withdrawn),
        ("6.3 NEXT_HOP multicast", ext, 0x40, 3, vec![224, 0, 0, 5], Withdrawn),
        ("6.3 NEXT_HOP loopback", ext, 0x40, 3, vec![127, 0, 0, 1], Withdrawn),
        ("7.4 MED of three octets", ext, 0x80, 4, vec![0; 3], Withdrawn),
        ("7.4 MED", ext, 0x80, 4, vec![0; 4], Kept),
        ("7.5 LOCAL_PREF from outside", ext, 0x40, 5, vec![0; 4], Discarded),
        ("7.5 LOCAL_PREF of any form from outside", ext, 0xc0, 5, vec![0; 9], Discarded),
        ("7.5 LOCAL_PREF of five octets", int, 0x40, 5, vec![0; 5], Withdrawn),
        ("7.6 ATOMIC_AGGREGATE with a value", ext, 0x40, 6, vec![0], Discarded),
        ("7.6 ATOMIC_AGGREGATE", ext, 0x40, 6, vec![], Kept),
        ("3c ATOMIC_AGGREGATE optional", ext, 0xc0, 6, vec![], Withdrawn),
        ("7.7 AGGREGATOR of six octets", ext, 0xc0, 7, vec![1; 6], Discarded),
        ("7.7 AGGREGATOR of eight octets", ext, 0xc0, 7, vec![1; 8], Kept),
        ("7.7 AGGREGATOR of eight octets to two", two, 0xc0, 7, vec![1; 8], Discarded),
        ("7.7 AGGREGATOR of six octets to two", two, 0xc0, 7, vec![1; 6], Kept),
        ("7607 AGGREGATOR with AS 0", ext, 0xc0, 7, vec![0, 0, 0, 0, 1, 1, 1, 1], Discarded),
        ("7.8 COMMUNITIES of five octets", ext, 0xc0, 8, vec![0; 5], Withdrawn),
        ("7.8 COMMUNITIES of none", ext, 0xc0, 8, vec![], Withdrawn),
        ("3c COMMUNITIES not transitive", ext, 0x80, 8, vec![0; 4], Withdrawn),
        ("7.9 ORIGINATOR_ID from outside", ext, 0x80, 9, vec![0; 3], Discarded),
        ("7.9 ORIGINATOR_ID of three octets", int, 0x80, 9, vec![0; 3], Withdrawn),
        ("7.9 ORIGINATOR_ID", int, 0x80, 9, vec![1; 4], Kept),
        ("7.10 CLUSTER_LIST from outside", ext, 0x80, 10, vec![0; 4], Discarded),
        ("7.10 CLUSTER_LIST of six octets", int, 0x80, 10, vec![0; 6], Withdrawn),
        ("7.10 CLUSTER_LIST of none", int, 0x80, 10, vec![], Withdrawn),
        ("7.14 EXTENDED_COMMUNITIES of four octets", ext, 0xc0, 16, vec![0; 4], Withdrawn),
        ("7.14 EXTENDED_COMMUNITIES", ext, 0xc0, 16, vec![0; 16], Kept),
        ("6793 AS4_PATH between speakers of four octets", ext, 0xc0, 17, vec![9], Discarded),
        ("6793 AS4_PATH overrun", two, 0xc0, 17, vec![2, 2, 0, 0, 0, 1], Discarded),
        ("7607 AS4_PATH with AS 0", two, 0xc0, 17, vec![2, 1, 0, 0, 0, 0], Discarded),
        ("9774 AS4_PATH with a set", two, 0xc0, 17, vec![1, 1, 0, 0, 0, 1], Withdrawn),
        ("9774 AS4_PATH with a confederation's set", two, 0xc0, 17, vec![4, 1, 0, 0, 0, 1], Withdrawn),
        ("6793 AS4_AGGREGATOR of six octets", two, 0xc0, 18, vec![1; 6], Discarded),
        ("6793 AS4_AGGREGATOR from a speaker of four octets", ext, 0xc0, 18, vec![1; 8], Discarded),
        ("8092 LARGE_COMMUNITY of eight octets", ext, 0xc0, 32, vec![0; 8], Withdrawn),
        ("8092 LARGE_COMMUNITY of none", ext, 0xc0, 32, vec![], Withdrawn),
        ("8092 LARGE_COMMUNITY", ext, 0xc0, 32, vec![0; 24], Kept),
        ("an unknown optional attribute", ext, 0xc0, 200, vec![1, 2], Kept),
        ("an unknown attribute that is not transitive", ext, 0x80, 200, vec![1, 2], Kept),
        ("6.3 an unknown well-known attribute", ext, 0x40, 200, vec![1, 2], Reset(2)),
        ("5.3 MP_REACH_NLRI of two octets", ext, 0x80, 14, vec![0, 2], Reset(9)),
        ("4760 MP_REACH_NLRI of another family", ext, 0x80, 14, vec![0, 25, 70, 0], Discarded),
        ("5.3 MP_UNREACH_NLRI of two octets", ext, 0x80, 15, vec![0, 2], Reset(9)),
    ];
    for (name, session, flags, code, value, wanted) in rows {
        let message = body(&[], &with(session, flags, code, &value), &ROUTE);
        assert_eq!(outcome(decode(session, &message)), wanted, "{name}");
    }
}

#[test]
fn missing_attributes_make_routes_withdrawn() {
    let session = external();
    let all = [(1, ORIGIN.to_vec()), (2, path(&session)), (3, NEXT_HOP.to_vec())];
    for missing in [1, 2, 3] {
        let attributes: Vec<u8> =
            all.iter().filter(|(code, _)| *code != missing).flat_map(|(_, octets)| octets.clone()).collect();
        let update = decode(&session, &body(&[], &attributes, &ROUTE)).expect("no reset");
        assert_eq!(update.problems, [Fault::withdraw(Some(missing), "missing", rules::MISSING).problem]);
        assert_eq!(outcome(Ok(update)), Outcome::Withdrawn);
    }
    let attributes = [&ORIGIN[..], &path(&session), &NEXT_HOP].concat();
    assert_eq!(
        outcome(decode(&internal(), &body(&[], &attributes, &ROUTE))),
        Outcome::Withdrawn,
        "LOCAL_PREF"
    );
    // NEXT_HOP belongs to the field of destinations alone.
    let attributes = [attribute(0x80, 14, &REACH), ORIGIN.to_vec(), path(&session)].concat();
    assert_eq!(outcome(decode(&session, &body(&[], &attributes, &[]))), Outcome::Kept);
    // Withdrawals need no attributes.
    assert_eq!(decode(&session, &body(&ROUTE, &[], &[])).map(|update| update.problems), Ok(Vec::new()));
}

#[test]
fn lengths_that_do_not_fit_are_acted_upon_by_what_is_lost() {
    let session = external();
    let good = base(&session);
    // The sections do not fit into the message (RFC 4271 §6.3).
    for bad in [vec![], vec![0], vec![0, 3, 8, 10], vec![0, 0, 0], vec![0, 0, 0, 9, 0x40]] {
        assert_eq!(outcome(decode(&session, &bad)), Outcome::Reset(1), "{bad:?}");
    }
    // An attribute overruns the section, or its header is cut short (§4).
    for tail in [&[0xc0, 8, 9, 0][..], &[0xc0, 8], &[0xc0], &[0xd0, 8, 0]] {
        let attributes = [&good, tail].concat();
        assert_eq!(
            outcome(decode(&session, &body(&[], &attributes, &ROUTE))),
            Outcome::Withdrawn,
            "{tail:?}"
        );
        // Without destinations there is nothing to withdraw (§5.2).
        assert_eq!(outcome(decode(&session, &body(&[], &attributes, &[]))), Outcome::Reset(1), "{tail:?}");
        let first = [attribute(0x80, 14, &REACH), attributes].concat();
        assert_eq!(outcome(decode(&session, &body(&[], &first, &[]))), Outcome::Withdrawn, "{tail:?}");
    }
    // It is the one with destinations (§5.3).
    for tail in [&[0x80, 14, 9, 0, 2][..], &[0x80, 15, 9, 0, 2], &[0x80, 15]] {
        let attributes = [&good, tail].concat();
        assert_eq!(outcome(decode(&session, &body(&[], &attributes, &ROUTE))), Outcome::Reset(1), "{tail:?}");
    }
    // Destinations cannot be read (§5.3).
    for bad in [&[33, 10, 0, 0, 0, 0][..], &[24, 10, 0]] {
        assert_eq!(outcome(decode(&session, &body(&[], &good, bad))), Outcome::Reset(10), "{bad:?}");
        assert_eq!(outcome(decode(&session, &body(bad, &good, &ROUTE))), Outcome::Reset(10), "{bad:?}");
    }
}

#[test]
fn errors_without_destinations_end_the_session_with_their_own_code() {
    let session = external();
    let rows = [
        (with(&session, 0x40, 1, &[7]), 6, vec![0x40, 1, 1, 7]),
        (with(&session, 0xc0, 1, &[0]), 4, vec![0xc0, 1, 1, 0]),
        (with(&session, 0x80, 4, &[0]), 5, vec![0x80, 4, 1, 0]),
        (with(&session, 0x40, 3, &[0; 4]), 8, vec![0x40, 3, 4, 0, 0, 0, 0]),
        (with(&session, 0x40, 2, &[9]), 11, vec![]),
        (with(&session, 0xc0, 8, &[9]), 9, vec![0xc0, 8, 1, 9]),
    ];
    for (attributes, subcode, data) in rows {
        let notification = decode(&session, &body(&[], &attributes, &[])).expect_err("reset");
        assert_eq!(notification, Notification { code: 3, subcode, data });
        // With routes to withdraw in the other field it is the same: where the announced ones are is not known.
        assert!(decode(&session, &body(&ROUTE, &attributes, &[])).is_err());
    }
    // What is left out changes nothing for routes, so that there need be none.
    let harmless = with(&session, 0x40, 6, &[0]);
    assert!(decode(&session, &body(&[], &harmless, &[])).is_ok());
    // Flags of an attribute that withdraws are no reason to lose the session.
    let update =
        decode(&session, &body(&[], &attribute(0xc0, 15, &[0, 2, 1, 8, 0xfd]), &[])).expect("no reset");
    assert_eq!((update.withdrawn.len(), update.problems.len()), (1, 1));
}

#[test]
fn a_second_attribute_is_left_out_and_a_second_list_of_destinations_ends_the_session() {
    let session = external();
    let attributes = [base(&session), attribute(0x40, 1, &[2]), attribute(0x80, 4, &[9])].concat();
    let attributes = [attributes, attribute(0x80, 4, &[0, 0, 0, 1])].concat();
    let update = decode(&session, &body(&[], &attributes, &ROUTE)).expect("no reset");
    let problems: Vec<String> = update.problems.iter().map(Problem::to_string).collect();
    let wanted = [
        "attribute 1: a second one: attribute discarded",
        "attribute 4: bad length: treated as withdraw",
        "attribute 4: a second one: attribute discarded",
    ];
    assert_eq!(problems, wanted);
    for code in [14, 15] {
        let value = if code == 14 { &REACH[..] } else { &[0, 2, 1, 8, 0xfd] };
        let twice = [attribute(0x80, code, value), attribute(0x80, code, value), base(&session)].concat();
        assert_eq!(outcome(decode(&session, &body(&[], &twice, &[]))), Outcome::Reset(1));
    }
}

#[test]
fn a_family_that_cannot_be_read_is_given_up_while_another_remains() {
    let session = external();
    let mut broken = REACH;
    broken[3] = 17;
    let message = body(&[], &[attribute(0x80, 14, &broken), base(&session)].concat(), &ROUTE);
    let mut disabled = BTreeSet::new();
    let first = update(&session, &mut disabled, &message).expect("no reset");
    assert_eq!(first.disabled().collect::<Vec<_>>(), [Family::V6]);
    assert_eq!(first.reach.iter().map(|reach| reach.family).collect::<Vec<_>>(), [Family::V4]);
    // From then on it is not looked at.
    let good = body(&[], &[attribute(0x80, 14, &REACH), base(&session)].concat(), &[]);
    assert_eq!(update(&session, &mut disabled, &good), Ok(Update::default()));
    // Losing the last one ends the session.
    let mut broken = [0, 1, 1, 33];
    assert_eq!(
        outcome(update(&session, &mut disabled, &body(&[], &attribute(0x80, 15, &broken), &[]))),
        Outcome::Reset(9)
    );
    broken[1] = 2;
    broken[3] = 129;
    assert_eq!(
        outcome(decode(&session, &body(&[], &attribute(0x80, 15, &broken), &[]))),
        Outcome::Disabled(Family::V6)
    );
}

#[test]
fn routes_of_a_family_that_cannot_be_read_do_not_stay_in_the_message() {
    let session = external();
    let attributes =
        [attribute(0x80, 14, &REACH), attribute(0x80, 15, &[0, 2, 1, 129]), base(&session)].concat();
    let update = decode(&session, &body(&[], &attributes, &[])).expect("no reset");
    assert_eq!((update.reach.len(), update.attributes), (0, None));
    assert_eq!(update.problems.len(), 1);
}

#[test]
fn families_of_the_other_side_alone_are_ignored() {
    let mut session = external();
    session.families = BTreeSet::from([Family::V6]);
    let attributes = [attribute(0x80, 14, &REACH), base(&session)].concat();
    let update = decode(&session, &body(&ROUTE, &attributes, &[200])).expect("no reset");
    assert_eq!(update.reach.iter().map(|reach| reach.family).collect::<Vec<_>>(), [Family::V6]);
    assert!(update.withdrawn.is_empty());
    assert_eq!(update.problems.len(), 2);
    assert_eq!(decode(&session, &body(&[], &[], &[])), Ok(Update::default()));
}

#[test]
fn an_empty_message_and_an_empty_list_end_the_first_exchange() {
    let session = external();
    let end = |attributes: &[u8]| decode(&session, &body(&[], attributes, &[])).expect("good").end_of_rib();
    assert_eq!(end(&[]), Some(Family::V4));
    assert_eq!(end(&attribute(0x80, 15, &[0, 2, 1])), Some(Family::V6));
    assert_eq!(end(&attribute(0x80, 15, &[0, 1, 1])), Some(Family::V4));
    assert_eq!(end(&attribute(0x80, 15, &[0, 2, 1, 8, 0xfd])), None);
    assert_eq!(end(&[attribute(0x80, 15, &[0, 2, 1]), ORIGIN.to_vec()].concat()), None);
    assert_eq!(end(&ORIGIN), None);
    let update = decode(&session, &body(&ROUTE, &attribute(0x80, 15, &[0, 2, 1]), &[])).expect("good");
    assert_eq!((update.end_of_rib(), update.withdrawn.len()), (None, 1));
}

/// The cases that a decoder which guesses path identifiers from a zero octet gets wrong.
#[test]
fn a_default_route_is_read_beside_other_routes() {
    let session = external();
    let v4 = [0, 24, 10, 200, 2, 24, 10, 200, 1];
    let update = decode(&session, &body(&[], &base(&session), &v4)).expect("good");
    let texts = |nlri: &[Nlri]| nlri.iter().map(Nlri::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&update.reach[0].nlri), ["0.0.0.0/0", "10.200.2.0/24", "10.200.1.0/24"]);
    let update = decode(&session, &body(&v4, &[], &[])).expect("good");
    assert_eq!(texts(&update.withdrawn[0].nlri), ["0.0.0.0/0", "10.200.2.0/24", "10.200.1.0/24"]);
    let v6 = [&REACH[..21], &[0, 32, 0x20, 1, 0x0d, 0xb8, 8, 0xfd]].concat();
    let update = decode(&session, &body(&[], &[attribute(0x80, 14, &v6), base(&session)].concat(), &[]))
        .expect("good");
    assert_eq!(texts(&update.reach[0].nlri), ["::/0", "2001:db8::/32", "fd00::/8"]);
}

#[test]
fn several_paths_of_one_family_leave_the_other_as_it_is() {
    let (v4, v6) = (several_paths(Family::V4), several_paths(Family::V6));
    let reach = |session: &Negotiated, list: &[u8], field: &[u8]| {
        let attribute = attribute(0x80, 14, &[&REACH[..21], list].concat());
        let update = decode(session, &body(&[], &[attribute, base(session)].concat(), field)).expect("good");
        assert_eq!(update.problems, []);
        update.reach.iter().flat_map(|reach| &reach.nlri).map(Nlri::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        reach(&v4, &[0, 8, 0xfd], &[0, 0, 0, 9, 0, 0, 0, 0, 8, 8, 10]),
        ["::/0", "fd00::/8", "0.0.0.0/0 path 9", "10.0.0.0/8 path 8"]
    );
    assert_eq!(reach(&v6, &[0, 0, 0, 7, 0], &[0, 8, 10]), ["::/0 path 7", "0.0.0.0/0", "10.0.0.0/8"]);
}

#[test]
fn next_hops_of_sixteen_and_of_32_octets_have_one_form() {
    let session = unnumbered();
    let (global, local) = (
        "2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address"),
        "fe80::1".parse::<std::net::Ipv6Addr>().expect("an address"),
    );
    let via = |session: &Negotiated, family: u8, octets: &[u8]| {
        let length = u8::try_from(octets.len()).expect("short");
        let value = [&[0, family, 1, length][..], octets, &[0, 8, 10]].concat();
        let update = decode(session, &body(&[], &[attribute(0x80, 14, &value), base(session)].concat(), &[]));
        update.map(|update| update.reach.first().map(|reach| reach.next_hop))
    };
    let both = |one: std::net::Ipv6Addr, two: std::net::Ipv6Addr| [one.octets(), two.octets()].concat();
    let v6 = |global, link_local| Ok(Some(NextHop::V6 { global, link_local }));
    let none = std::net::Ipv6Addr::UNSPECIFIED;
    for family in [1, 2] {
        assert_eq!(via(&session, family, &global.octets()), v6(global, None));
        assert_eq!(via(&session, family, &local.octets()), v6(local, None));
        assert_eq!(via(&session, family, &both(global, local)), v6(global, Some(local)));
        assert_eq!(via(&session, family, &both(none, local)), v6(local, Some(local)));
        assert_eq!(via(&session, family, &both(local, local)), v6(local, Some(local)));
        assert_eq!(via(&session, family, &both(global, global)), v6(global, None));
        // No router has these addresses: the routes are withdrawn.
        for bad in [none, "ff02::1".parse().expect("an address"), "::1".parse().expect("an address")] {
            assert_eq!(via(&session, family, &bad.octets()), Ok(None), "{bad}");
        }
    }
    assert_eq!(via(&session, 1, &[192, 0, 2, 1]), Ok(Some(NextHop::V4([192, 0, 2, 1].into()))));
    // Without RFC 8950 the length is wrong, and the family is lost.
    assert_eq!(via(&external(), 1, &global.octets()), Ok(None));
    assert_eq!(via(&external(), 2, &[192, 0, 2, 1]), Ok(None));
}

#[test]
fn values_are_read_and_put_in_order() {
    let session = internal();
    let attributes = [
        base(&session),
        attribute(0x80, 4, &[0, 0, 0, 9]),
        attribute(0xc0, 8, &[0xff, 0xff, 0xff, 1, 0, 1, 0, 2, 0, 1, 0, 2]),
        attribute(0x80, 9, &[1, 2, 3, 4]),
        attribute(0x80, 10, &[0, 0, 0, 2, 0, 0, 0, 1]),
        attribute(0xc0, 32, &[[0, 0, 0, 7], [0, 0, 0, 8], [0, 0, 0, 9]].concat()),
        attribute(0xc0, 250, &[1]),
        attribute(0xe0, 199, &[2; 300]),
        attribute(0x80, 201, &[3]),
    ];
    let update = decode(&session, &body(&[], &attributes.concat(), &ROUTE)).expect("good");
    assert_eq!(update.problems, []);
    let wanted = crate::wire::Attributes {
        as_path: AsPath::sequence([Asn(65001)]),
        med: Some(9),
        local_pref: Some(100),
        communities: vec![Community(0x0001_0002), Community::NO_EXPORT],
        originator_id: Some(RouterId(0x0102_0304)),
        cluster_list: vec![RouterId(2), RouterId(1)],
        large_communities: vec![LargeCommunity { global: 7, local1: 8, local2: 9 }],
        unknown: vec![
            RawAttribute { flags: 0xe0, code: 199, value: vec![2; 300] },
            RawAttribute { flags: 0xc0, code: 250, value: vec![1] },
        ],
        ..crate::wire::Attributes::default()
    };
    assert_eq!(update.attributes.as_deref(), Some(&wanted));
}
