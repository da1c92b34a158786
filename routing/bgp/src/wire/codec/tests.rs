// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgpkit_parser::models::{AttributeValue, BgpMessage as TheirMessage};
use bgpkit_parser::parser::bgp::messages::parse_bgp_message;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rhumb_model::Prefix;

use super::*;
use crate::wire::samples::{external, internal, several_paths, two_octets, unnumbered};
use crate::wire::{
    AsPath, Asn, Cease, Community, LargeCommunity, Origin, RawAttribute, Reach, RouterId, Segment, Update,
    Withdrawn,
};

fn joined(messages: &[Bytes]) -> BytesMut {
    BytesMut::from(messages.concat().as_slice())
}

fn plain(codec: &Codec, message: &Message) -> BytesMut {
    joined(&codec.encode(message).expect("says it"))
}

#[test]
fn messages_are_taken_one_by_one_when_they_are_whole() {
    let mut codec = Codec::new(&external());
    let stream = [
        plain(&codec, &Message::Keepalive),
        plain(&codec, &Message::Update(Update::of_end(Family::V6))),
        plain(&codec, &Message::Notification(Notification::cease(Cease::AdministrativeReset))),
    ];
    let octets = stream.concat();
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for octet in octets {
        buffer.extend_from_slice(&[octet]);
        messages.extend(codec.decode(&mut buffer).expect("good"));
    }
    assert_eq!(
        messages,
        [
            Message::Keepalive,
            Message::Update(Update::of_end(Family::V6)),
            Message::Notification(Notification::cease(Cease::AdministrativeReset)),
        ]
    );
    assert!(buffer.is_empty());
}

#[test]
fn before_the_opens_there_are_no_routes() {
    let routes = plain(&Codec::new(&external()), &Message::Update(Update::of_end(Family::V4)));
    let refused = Codec::opening().decode(&mut routes.clone());
    assert_eq!(refused, Err(Notification::unexpected_in_open_sent(2)));
    assert_eq!(Codec::opening().encode_end_of_rib(Family::V4), Vec::<Bytes>::new());
}

#[test]
fn nothing_of_a_family_that_is_not_on_the_session_is_sent() {
    let mut session = external();
    session.families.remove(&Family::V6);
    let codec = Codec::new(&session);
    let nlri = |text: &str| Nlri::from(text.parse::<Prefix>().expect("a prefix"));
    let attributes = Arc::new(Attributes::default());
    let global = "2001:db8::1".parse().expect("an address");
    let next_hop = NextHop::V6 { global, link_local: None };
    assert_eq!(codec.encode_update(&attributes, &next_hop, &[nlri("fd00::/64")]), Ok(Vec::new()));
    assert!(codec.encode_withdraw(Family::V6, &[nlri("fd00::/64")]).is_empty());
    assert!(codec.encode_end_of_rib(Family::V6).is_empty());
    assert!(codec.encode_withdraw(Family::V4, &[]).is_empty(), "this would be an End-of-RIB");
    assert_eq!(codec.encode_withdraw(Family::V4, &[nlri("10.0.0.0/8")]).len(), 1);
}

/// A ROUTE-REFRESH with this subtype, family and tail.
fn refresh_octets(subtype: u8, afi: u8, tail: &[u8]) -> BytesMut {
    let length = u8::try_from(23 + tail.len()).expect("short");
    let octets = [&[0xff; 16][..], &[0, length, 5, 0, afi, subtype, 1], tail].concat();
    BytesMut::from(octets.as_slice())
}

#[test]
fn refreshes_that_mean_nothing_here_are_skipped() {
    let mut session = external();
    session.enhanced_route_refresh = true;
    let read = |session: &Negotiated, subtype, afi| {
        let mut octets = refresh_octets(subtype, afi, &[]);
        octets.extend_from_slice(&plain(&Codec::new(session), &Message::Keepalive));
        Codec::new(session).decode(&mut octets).expect("good").expect("whole")
    };
    for (subtype, kind) in [(0, RefreshKind::Request), (1, RefreshKind::Begin), (2, RefreshKind::End)] {
        let wanted = Message::RouteRefresh(RouteRefresh { family: Family::V6, kind });
        assert_eq!(plain(&Codec::new(&session), &wanted), refresh_octets(subtype, 2, &[]));
        assert_eq!(read(&session, subtype, 2), wanted);
        assert_eq!(read(&session, subtype, 25), Message::Keepalive, "a family of others");
    }
    assert_eq!(read(&session, 3, 2), Message::Keepalive, "a subtype of others");
    session.enhanced_route_refresh = false;
    assert_eq!(read(&session, 1, 2), Message::Keepalive, "a mark that was not negotiated");
    session.families.remove(&Family::V6);
    assert_eq!(read(&session, 0, 2), Message::Keepalive, "a family that was not negotiated");
}

#[test]
fn refreshes_of_a_wrong_length_end_the_session() {
    let mut session = external();
    session.enhanced_route_refresh = true;
    let long = |subtype| refresh_octets(subtype, 1, &[0]);
    let refused = |subtype| Codec::new(&session).decode(&mut long(subtype)).expect_err("refused");
    assert_eq!(refused(0), Notification::bad_length(24));
    for subtype in [1, 2] {
        assert_eq!(refused(subtype), Notification { code: 7, subcode: 1, data: long(subtype).to_vec() });
    }
}

#[test]
fn a_notification_is_cut_to_the_longest_message() {
    let long = Notification { code: 3, subcode: 1, data: vec![1; 70_000] };
    let mut buffer = plain(&Codec::opening(), &Message::Notification(long));
    assert_eq!(buffer.len(), 4096);
    let Ok(Some(Message::Notification(read))) = Codec::opening().decode(&mut buffer) else {
        panic!("not read")
    };
    assert_eq!((read.code, read.data.len()), (3, 4096 - 21));
}

fn any_prefix(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        Family::V4 => (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| Prefix::containing(IpAddr::V4(bits.into()), len))
            .boxed(),
        Family::V6 => (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| Prefix::containing(IpAddr::V6(bits.into()), len))
            .boxed(),
    }
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let asn = || prop_oneof![(1..70_000_u32), Just(u32::MAX)].prop_map(Asn);
    let routers = vec(any::<u32>().prop_map(RouterId), 0..3);
    let large = (any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(|(global, local1, local2)| LargeCommunity { global, local1, local2 });
    let codes = [(0x80_u8 | 0x40 | 0x20, 20_u8), (0xe0, 99), (0xe0, 255)];
    let unknown = proptest::sample::subsequence(codes.to_vec(), 0..=3).prop_flat_map(|codes| {
        let raw = |(flags, code)| {
            vec(any::<u8>(), 0..300).prop_map(move |value| RawAttribute { flags, code, value })
        };
        codes.into_iter().map(raw).collect::<Vec<_>>()
    });
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let first = (origin, vec(asn(), 0..6), option::of(any::<u32>()), any::<u32>(), any::<bool>());
    let second =
        (option::of((asn(), any::<u32>())), vec(any::<u32>().prop_map(Community), 0..80), vec(large, 0..4));
    let third = (vec(any::<[u8; 8]>(), 0..3), option::of(any::<u32>().prop_map(RouterId)), routers, unknown);
    (first, second, third).prop_map(|(first, second, third)| {
        let (origin, systems, med, local_pref, atomic_aggregate) = first;
        let (aggregator, communities, large_communities) = second;
        let (extended_communities, originator_id, cluster_list, unknown) = third;
        Attributes {
            origin,
            as_path: AsPath::sequence(systems),
            med,
            local_pref: Some(local_pref),
            atomic_aggregate,
            aggregator: aggregator.map(|(asn, addr)| (asn, Ipv4Addr::from_bits(addr))),
            communities,
            large_communities,
            extended_communities,
            originator_id,
            cluster_list,
            unknown,
        }
        .canonical()
    })
}

fn any_next_hop(family: Family, session: &Negotiated) -> BoxedStrategy<NextHop> {
    let v4 = Just(NextHop::V4(Ipv4Addr::new(192, 0, 2, 7))).boxed();
    let global: Ipv6Addr = "2001:db8::7".parse().expect("an address");
    let local = option::of(Just("fe80::7".parse().expect("an address")));
    let v6 = local.prop_map(move |link_local| NextHop::V6 { global, link_local }).boxed();
    match family {
        Family::V6 => v6,
        Family::V4 if session.extended_next_hop.contains(&family) => prop_oneof![v4, v6].boxed(),
        Family::V4 => v4,
    }
}

fn any_session() -> impl Strategy<Value = Negotiated> {
    let extended = |session: &Negotiated| Negotiated { extended_message: true, ..session.clone() };
    let sessions = [
        internal(),
        external(),
        two_octets(),
        unnumbered(),
        several_paths(Family::V4),
        several_paths(Family::V6),
        extended(&internal()),
    ];
    proptest::sample::select(sessions.to_vec())
}

fn any_nlri(family: Family, session: &Negotiated) -> impl Strategy<Value = Vec<Nlri>> + use<> {
    let ids = if session.add_path_send.contains(&family) { 0..=u32::MAX } else { 0..=0 };
    vec((any_prefix(family), ids).prop_map(|(prefix, path_id)| Nlri { prefix, path_id }), 1..60)
}

/// A session, and a message that may be on it.
fn any_case() -> impl Strategy<Value = (Negotiated, Update)> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    (any_session(), family, any_attributes(), any::<bool>()).prop_flat_map(
        |(session, family, attributes, withdraw)| {
            (any_nlri(family, &session), any_next_hop(family, &session)).prop_map(move |(nlri, next_hop)| {
                let update = match withdraw {
                    true => Update { withdrawn: vec![Withdrawn { family, nlri }], ..Update::default() },
                    false => Update {
                        attributes: Some(Arc::new(attributes.clone())),
                        reach: vec![Reach { family, next_hop, nlri }],
                        ..Update::default()
                    },
                };
                (session.clone(), update)
            })
        },
    )
}

/// The attributes as they are after a way over the session.
fn seen_by_peer(session: &Negotiated, attributes: &Attributes) -> Attributes {
    let mut seen = attributes.clone();
    if !session.is_internal() {
        seen.local_pref = None;
        seen.originator_id = None;
        seen.cluster_list.clear();
    }
    seen
}

fn read_all(session: &Negotiated, buffer: &mut BytesMut) -> Result<Vec<Message>, Notification> {
    let mut codec = Codec::new(session);
    std::iter::from_fn(|| codec.decode(buffer).transpose()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn updates_are_read_as_they_were_written((session, update) in any_case()) {
        let mut buffer = plain(&Codec::new(&session), &Message::Update(update.clone()));
        let messages = read_all(&session, &mut buffer).expect("no reset");
        let (mut reach, mut withdrawn) = (Vec::new(), Vec::new());
        for message in messages {
            let Message::Update(read) = message else { panic!("another message") };
            prop_assert_eq!(&read.problems, &[]);
            let wanted = update.attributes.as_deref().map(|attributes| seen_by_peer(&session, attributes));
            prop_assert_eq!(read.attributes.as_deref(), wanted.as_ref());
            reach.extend(read.reach);
            withdrawn.extend(read.withdrawn);
        }
        let nlri = |list: &[Reach]| list.iter().flat_map(|reach| reach.nlri.clone()).collect::<Vec<_>>();
        let gone = |list: &[Withdrawn]| list.iter().flat_map(|gone| gone.nlri.clone()).collect::<Vec<_>>();
        prop_assert!(reach.iter().all(|reach| reach.next_hop == update.reach[0].next_hop));
        prop_assert_eq!(nlri(&reach), nlri(&update.reach));
        prop_assert_eq!(gone(&withdrawn), gone(&update.withdrawn));
    }

    #[test]
    fn no_octets_make_the_codec_panic(
        session in any_session(),
        kind in 1..=5_u8,
        body in vec(any::<u8>(), 0..200),
    ) {
        let length = u16::try_from(19 + body.len()).expect("short").to_be_bytes();
        let octets = [&[0xff; 16][..], &length, &[kind], &body].concat();
        for mut codec in [Codec::opening(), Codec::new(&session)] {
            let mut buffer = BytesMut::from(octets.as_slice());
            if let Ok(Some(message)) = codec.decode(&mut buffer) {
                prop_assert!(buffer.is_empty());
                // What was understood can be said again, also where the message had errors.
                let again = codec.encode(&message);
                prop_assert!(again.is_ok() || matches!(message, Message::Update(_)));
            }
        }
    }

    #[test]
    fn a_changed_octet_never_makes_the_codec_panic((session, update) in any_case(), at: prop::sample::Index, to: u8) {
        let mut buffer = plain(&Codec::new(&session), &Message::Update(update));
        let at = at.index(buffer.len());
        buffer[at] = to;
        // Good, or a reason for the peer; never a panic.
        if let Err(notification) = read_all(&session, &mut buffer) {
            prop_assert!((1..=7).contains(&notification.code));
        }
    }

    #[test]
    fn another_reader_understands_what_is_written((session, update) in any_case()) {
        let several = session.add_path_send.iter().next().copied();
        for message in Codec::new(&session).encode(&Message::Update(update.clone())).expect("says it") {
            let family = update.reach.first().map_or(Family::V4, |reach| reach.family);
            let width = if session.asn4 { AsnLength::Bits32 } else { AsnLength::Bits16 };
            // That reader takes a default route for the start of an identifier.
            let list: Vec<Nlri> = update.reach.iter().flat_map(|reach| reach.nlri.clone()).collect();
            if list.is_empty() || list.iter().any(|nlri| nlri.prefix.len() == 0) {
                continue;
            }
            let theirs = parse_bgp_message(&mut message.clone(), several == Some(family), &width).expect("readable");
            let TheirMessage::Update(theirs) = theirs else { panic!("another message") };
            let mut reached = Vec::new();
            for value in theirs.attributes.iter() {
                if let AttributeValue::MpReachNlri(reach) = value {
                    reached.extend(&reach.prefixes);
                }
            }
            let texts: Vec<String> =
                theirs.announced_prefixes.iter().chain(reached).map(|nlri| nlri.prefix.to_string()).collect();
            let wanted: Vec<String> = list.iter().map(|nlri| nlri.prefix.to_string()).collect();
            prop_assert!(wanted.windows(texts.len()).any(|window| window == texts), "{:?} not in {:?}", texts, wanted);
            prop_assert_eq!(theirs.attributes.validation_warnings(), &[]);
        }
    }

    #[test]
    fn paths_are_prepended_and_counted_as_the_wire_says(systems in vec(1..u32::MAX, 0..600), asn in 1..u32::MAX, times in 0..300_usize) {
        let path = AsPath::sequence(systems.iter().copied().map(Asn)).prepend(Asn(asn), times);
        prop_assert_eq!(path.len(), systems.len() + times);
        prop_assert!(path.0.iter().all(|segment| matches!(segment, Segment::Sequence(systems) if (1..=255).contains(&systems.len()))));
        prop_assert!(path.systems().take(times).all(|system| system == Asn(asn)));
    }
}
