// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::IpAddr;

use rhumb_model::Prefix;

use super::*;
use crate::wire::samples::{attribute, external, internal, several_paths, two_octets, unnumbered};
use crate::wire::{Community, LargeCommunity, Origin, RouterId, Update, decode};

const V4: NextHop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
const V6: NextHop = NextHop::V6 { global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), link_local: None };

fn routes(family: Family, count: u32) -> Vec<Nlri> {
    let prefix = |number: u32| match family {
        Family::V4 => Prefix::containing(IpAddr::V4((0x0a00_0000 + (number << 4)).into()), 28),
        Family::V6 => {
            Prefix::containing(IpAddr::V6((0xfd_u128 << 120 | u128::from(number) << 64).into()), 64)
        }
    };
    (0..count).map(|number| Nlri { prefix: prefix(number), path_id: 0 }).collect()
}

fn read(session: &Negotiated, message: &[u8]) -> Update {
    assert!(message.len() <= session.maximum());
    let update = decode::update(session, &mut BTreeSet::new(), &message[HEADER..]).expect("good");
    assert_eq!(update.problems, []);
    update
}

/// The attributes of the first message, without those with destinations.
fn attributes_of(session: &Negotiated, attributes: &Attributes) -> Vec<u8> {
    let messages = announce(session, attributes, V4, Family::V4, &routes(Family::V4, 1)).expect("fits");
    let body = &messages[0][HEADER..];
    body[4..4 + usize::from(u16::from_be_bytes([body[2], body[3]]))].to_vec()
}

#[test]
fn messages_are_filled_to_the_maximum_and_lose_nothing() {
    let wide = {
        let mut session = unnumbered();
        session.extended_message = true;
        session
    };
    for session in [external(), unnumbered(), several_paths(Family::V4), several_paths(Family::V6), wide] {
        for (family, next_hop) in [(Family::V4, V4), (Family::V4, V6), (Family::V6, V6)] {
            if announce(&session, &Attributes::default(), next_hop, family, &[]).is_err() {
                continue;
            }
            for count in [1, 2, 60, 2000, 20_000] {
                let nlri = routes(family, count);
                let messages =
                    announce(&session, &Attributes::default(), next_hop, family, &nlri).expect("fits");
                let read_back: Vec<Nlri> = messages
                    .iter()
                    .flat_map(|message| {
                        let update = read(&session, message);
                        assert_eq!((update.reach.len(), update.reach[0].next_hop), (1, next_hop));
                        update.reach[0].nlri.clone()
                    })
                    .collect();
                assert_eq!(read_back, nlri);
                for full in &messages[..messages.len() - 1] {
                    assert!(
                        full.len() + 13 + 1 > session.maximum(),
                        "{} of {}",
                        full.len(),
                        session.maximum()
                    );
                }
                let messages = withdraw(&session, family, &nlri);
                let gone =
                    messages.iter().flat_map(|message| read(&session, message).withdrawn[0].nlri.clone());
                assert_eq!(gone.collect::<Vec<_>>(), nlri);
            }
        }
    }
}

#[test]
fn a_long_value_has_a_long_length_and_a_short_one_a_short() {
    let session = external();
    for (count, header) in [(25, &[0x80, 14, 246][..]), (26, &[0x80, 14, 255]), (27, &[0x90, 14, 1, 8])] {
        // 21 octets and nine for each destination.
        let message = &announce(&session, &Attributes::default(), V6, Family::V6, &routes(Family::V6, count))
            .expect("fits")[0];
        assert_eq!(&message[HEADER + 4..HEADER + 4 + header.len()], header);
        assert_eq!(read(&session, message).reach[0].nlri.len(), usize::try_from(count).expect("few"));
    }
    let communities =
        |count: u32| Attributes { communities: (0..count).map(Community).collect(), ..Attributes::default() };
    let tail = |count| attributes_of(&session, &communities(count));
    assert!(tail(63).windows(3).any(|octets| octets == [0xc0, 8, 252]));
    assert!(tail(64).windows(4).any(|octets| octets == [0xd0, 8, 1, 0]));
}

#[test]
fn attributes_stand_in_the_order_of_their_codes() {
    let attributes = Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath::sequence([Asn(65000)]),
        med: Some(1),
        local_pref: Some(2),
        atomic_aggregate: true,
        aggregator: Some((Asn(65000), Ipv4Addr::LOCALHOST)),
        communities: vec![Community(3)],
        large_communities: vec![LargeCommunity { global: 4, local1: 5, local2: 6 }],
        extended_communities: vec![[7; 8]],
        originator_id: Some(RouterId(8)),
        cluster_list: vec![RouterId(9)],
        unknown: [25, 31, 200, 255]
            .map(|code| RawAttribute { flags: 0xc0, code, value: vec![code] })
            .to_vec(),
    };
    let codes = |session: &Negotiated| {
        let octets = attributes_of(session, &attributes);
        let mut rest = &octets[..];
        let mut codes = Vec::new();
        while let [flags, code, length, ..] = *rest {
            // What is passed on without being known is partial.
            assert_eq!(flags & PARTIAL != 0, [25, 31, 200, 255].contains(&code));
            codes.push(code);
            rest = &rest[3 + usize::from(length)..];
        }
        codes
    };
    assert_eq!(codes(&internal()), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 25, 31, 32, 200, 255]);
    // What is between speakers of one AS does not leave it (RFC 4271 §5.1.5, RFC 4456 §8).
    assert_eq!(codes(&external()), [1, 2, 3, 4, 6, 7, 8, 16, 25, 31, 32, 200, 255]);
}

#[test]
fn destinations_of_the_attribute_come_before_the_others() {
    let message = &announce(&unnumbered(), &Attributes::default(), V6, Family::V4, &routes(Family::V4, 1))
        .expect("fits")[0];
    assert_eq!(message[HEADER..HEADER + 6], [0, 0, 0, 36, 0x80, 14]);
}

#[test]
fn large_numbers_reach_a_two_octet_speaker_beside_the_path() {
    let session = two_octets();
    let large = Attributes {
        as_path: AsPath::sequence([Asn(65001), Asn(70000)]),
        aggregator: Some((Asn(70000), Ipv4Addr::new(10, 0, 0, 1))),
        ..Attributes::default()
    };
    let wanted = [
        attribute(0x40, 1, &[0]),
        attribute(0x40, 2, &[2, 2, 0xfd, 0xe9, 0x5b, 0xa0]),
        attribute(0x40, 3, &[192, 0, 2, 1]),
        attribute(0xc0, 7, &[0x5b, 0xa0, 10, 0, 0, 1]),
        attribute(0xc0, 17, &[2, 2, 0, 0, 0xfd, 0xe9, 0, 1, 0x11, 0x70]),
        attribute(0xc0, 18, &[0, 1, 0x11, 0x70, 10, 0, 0, 1]),
    ];
    assert_eq!(attributes_of(&session, &large), wanted.concat());
    let messages = announce(&session, &large, V4, Family::V4, &routes(Family::V4, 1)).expect("fits");
    assert_eq!(read(&session, &messages[0]).attributes.as_deref(), Some(&large));
    let small = Attributes { as_path: AsPath::sequence([Asn(65001)]), ..Attributes::default() };
    assert_eq!(attributes_of(&session, &small), wanted_small().concat());
}

fn wanted_small() -> [Vec<u8>; 3] {
    [attribute(0x40, 1, &[0]), attribute(0x40, 2, &[2, 1, 0xfd, 0xe9]), attribute(0x40, 3, &[192, 0, 2, 1])]
}

#[test]
fn a_path_of_more_than_255_systems_has_several_segments() {
    let session = external();
    let attributes = Attributes {
        as_path: AsPath(vec![Segment::Sequence((1..=300).map(Asn).collect())]),
        ..Attributes::default()
    };
    let messages = announce(&session, &attributes, V4, Family::V4, &routes(Family::V4, 1)).expect("fits");
    let path = read(&session, &messages[0]).attributes.expect("there").as_path.clone();
    assert_eq!(path, AsPath::sequence((1..=300).map(Asn)));
}

#[test]
fn what_cannot_be_said_is_an_error() {
    let mut session = external();
    let three = routes(Family::V4, 3);
    let with =
        |count: u32| Attributes { communities: (0..count).map(Community).collect(), ..Attributes::default() };
    // Fourteen octets are attributes that are always there, four the header of the communities; a destination needs five.
    let (fits, longer) = (with(1012), with(1013));
    assert_eq!(announce(&session, &fits, V4, Family::V4, &three).map(|messages| messages.len()), Ok(3));
    let result = announce(&session, &longer, V4, Family::V4, &three);
    assert_eq!(result, Err(EncodeError::TooLong { octets: 4070, maximum: 4096 }));
    session.extended_message = true;
    assert!(announce(&session, &longer, V4, Family::V4, &three).is_ok());
    let beyond = Attributes { communities: (0..20_000).map(Community).collect(), ..Attributes::default() };
    assert!(announce(&session, &beyond, V4, Family::V4, &three).is_err());
    for (family, next_hop) in [(Family::V4, V6), (Family::V6, V4)] {
        let result = announce(&external(), &Attributes::default(), next_hop, family, &routes(family, 1));
        assert_eq!(result, Err(EncodeError::NextHop { family, next_hop }));
    }
}

#[test]
fn the_end_of_a_first_exchange_is_the_shortest_message() {
    let session = external();
    let end = |family| withdraw(&session, family, &[]);
    assert_eq!(end(Family::V4)[0][HEADER..], [0, 0, 0, 0]);
    assert_eq!(end(Family::V6)[0][HEADER..], [0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]);
    for family in Family::BOTH {
        assert_eq!(end(family).len(), 1);
        assert_eq!(read(&session, &end(family)[0]).end_of_rib(), Some(family));
    }
}
