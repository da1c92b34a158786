// SPDX-License-Identifier: Apache-2.0
//! Whatever a peer sends, the codec reads it or names an error; what it read without an error it can say again, and reads alike.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rhumb_bgp::wire::{AddPath, Asn, Capabilities, Codec, Message, Negotiated, Open, RouterId, Update};
use rhumb_model::Family;

fuzz_target!(|data: &[u8]| {
    let Some((&shape, data)) = data.split_first() else { return };
    let mut codec = codec(shape);
    // Half of the inputs are bodies behind a good header, so that what is within is reached soon.
    let mut buffer = BytesMut::from(if shape & 0x80 == 0 { data.to_vec() } else { framed(data) }.as_slice());
    loop {
        match codec.decode(&mut buffer) {
            Err(notification) => {
                assert!((1..=7).contains(&notification.code), "{notification}");
                assert!(!codec.encode(&Message::Notification(notification)).expect("has room").is_empty());
                return;
            }
            Ok(None) => return,
            Ok(Some(Message::Update(update))) if update.problems.is_empty() => again(&codec, &update),
            Ok(Some(Message::Update(update))) => {
                assert!(update.attributes.is_some() || update.reach.is_empty())
            }
            Ok(Some(message)) => {
                let octets = codec.encode(&message).expect("others than UPDATE have no errors").concat();
                let read = codec.clone().decode(&mut BytesMut::from(octets.as_slice()));
                match (message, read) {
                    (Message::Open(said), Ok(Some(Message::Open(read)))) => {
                        assert_eq!(
                            (said.asn, said.hold_time, said.router_id),
                            (read.asn, read.hold_time, read.router_id)
                        );
                    }
                    (said, read) => assert_eq!(read, Ok(Some(said))),
                }
            }
        }
    }
});

/// Says a good UPDATE again.
fn again(codec: &Codec, update: &Update) {
    // What was received in long messages, or with next hops that are not sent, may not fit.
    let Ok(messages) = codec.encode(&Message::Update(update.clone())) else { return };
    let mut reader = codec.clone();
    let (mut reach, mut withdrawn) = (Vec::new(), Vec::new());
    for message in messages {
        let read = reader.decode(&mut BytesMut::from(&message[..])).expect("good").expect("whole");
        let Message::Update(read) = read else { panic!("an UPDATE was read as {read:?}") };
        assert_eq!(read.problems, []);
        reach.extend(read.reach.iter().flat_map(|part| part.nlri.iter().map(|nlri| (part.next_hop, *nlri))));
        withdrawn.extend(read.withdrawn.iter().flat_map(|part| part.nlri.clone()));
        if let (Some(said), Some(read)) = (&update.attributes, &read.attributes) {
            let known = |of: &rhumb_bgp::wire::Attributes| rhumb_bgp::wire::Attributes {
                // A segment that is full is cut differently, an unknown attribute becomes partial.
                as_path: rhumb_bgp::wire::AsPath::sequence(of.as_path.systems()),
                unknown: Vec::new(),
                ..of.clone()
            };
            assert_eq!(known(said), known(read));
        }
    }
    assert_eq!(
        reach,
        update
            .reach
            .iter()
            .flat_map(|part| part.nlri.iter().map(|nlri| (part.next_hop, *nlri)))
            .collect::<Vec<_>>()
    );
    assert_eq!(withdrawn, update.withdrawn.iter().flat_map(|part| part.nlri.clone()).collect::<Vec<_>>());
}

/// The codec of a session that the bits name.
fn codec(shape: u8) -> Codec {
    let has = |bit: u8| shape & bit != 0;
    if shape & 0x7f == 0x7f {
        return Codec::opening();
    }
    let both = AddPath { receive: true, send: true };
    let capabilities = |asn| Capabilities {
        families: BTreeSet::from(Family::BOTH),
        asn4: has(1).then_some(Asn(asn)),
        add_path: if has(2) { BTreeMap::from([(Family::V4, both)]) } else { BTreeMap::new() },
        extended_next_hop: if has(4) { BTreeSet::from([Family::V4]) } else { BTreeSet::new() },
        extended_message: has(8),
        enhanced_route_refresh: has(16),
        ..Capabilities::default()
    };
    let open = |asn, id| Open {
        asn: Asn(asn),
        hold_time: 90,
        router_id: RouterId(id),
        capabilities: capabilities(asn),
    };
    let peer = if has(32) { 65000 } else { 65001 };
    Codec::new(&Negotiated::of(&open(65000, 1), &open(peer, 2)).expect("families in common"))
}

/// The octets as a body: the first is its type.
fn framed(data: &[u8]) -> Vec<u8> {
    let (kind, body) = data.split_first().map_or((4, data), |(kind, body)| (1 + kind % 5, body));
    let body = &body[..body.len().min(60_000)];
    let length = u16::try_from(19 + body.len()).expect("cut").to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}
