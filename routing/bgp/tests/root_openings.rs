// SPDX-License-Identifier: Apache-2.0
//! How sessions begin with peers that know no capabilities, or not all of ours.

mod lab;

use std::io::{Read, Write};

use bytes::BytesMut;
use lab::{Lab, snapshot, tor};
use rhumb_bgp::wire::{Asn, Capabilities, Codec, Message, Notification, Open, RouterId};
use rhumb_bgp_feed::{Peer, PeerState, SessionState};

fn is_up(peer: &PeerState) -> bool {
    peer.session == SessionState::Established
}

/// A speaker of RFC 4271 alone: it takes an OPEN without optional parameters, and refuses others as `refusal` says.
fn old_peer(
    lab: &Lab,
    refusal: fn(&Open) -> Option<Notification>,
) -> std::thread::JoinHandle<Vec<Capabilities>> {
    let listener = lab.listen("a", "10.99.0.1:179");
    std::thread::spawn(move || {
        let mut offers = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut codec, mut input) = (Codec::opening(), BytesMut::new());
            let theirs = loop {
                match codec.decode(&mut input).expect("good") {
                    Some(Message::Open(theirs)) => break theirs,
                    Some(other) => unreachable!("{other:?}"),
                    None => {
                        let mut octets = [0; 4096];
                        let length = stream.read(&mut octets).expect("something");
                        assert!(length > 0, "closed");
                        input.extend_from_slice(&octets[..length]);
                    }
                }
            };
            let mut say = |message: &Message| {
                let octets = Codec::opening().encode(message).expect("no errors").concat();
                stream.write_all(&octets).expect("said");
            };
            let refused = refusal(&theirs);
            offers.push(theirs.capabilities);
            match refused {
                Some(text) => say(&Message::Notification(text)),
                None => {
                    let router_id = RouterId(0x0a63_0001);
                    let capabilities = Capabilities::default();
                    let open = Open { asn: Asn(65001), hold_time: 9, router_id, capabilities };
                    say(&Message::Open(open));
                    say(&Message::Keepalive);
                    // Until the speaker ends it.
                    std::io::copy(&mut stream, &mut std::io::sink()).ok();
                    return offers;
                }
            }
        }
    })
}

fn comes_up_after(refusal: fn(&Open) -> Option<Notification>) -> Vec<Capabilities> {
    let lab = Lab::new();
    let peer = old_peer(&lab, refusal);
    let mut speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(tor_without_key()));
    speaker.until("a session in the old way", is_up);
    speaker.child.kill();
    peer.join().expect("the peer's offers")
}

fn tor_without_key() -> Peer {
    Peer { md5: None, ..tor() }
}

#[test]
fn a_peer_that_knows_no_optional_parameters_gets_as_few_as_can_be() {
    let offers = comes_up_after(|open| {
        let plain = !open.capabilities.route_refresh && open.capabilities.graceful_restart.is_none();
        (!plain).then_some(Notification { code: 2, subcode: 4, data: Vec::new() })
    });
    assert!(offers[0].graceful_restart.is_some() && offers[0].extended_message);
    let last = offers.last().expect("an offer");
    assert!(!last.route_refresh && !last.extended_message && last.fqdn.is_none(), "{last:?}");
    assert_eq!(offers.len(), 2, "the second try is the plain one");
}

#[test]
fn a_peer_that_names_a_capability_gets_all_others() {
    let offers = comes_up_after(|open| {
        let named = vec![6, 0];
        open.capabilities.extended_message.then_some(Notification { code: 2, subcode: 7, data: named })
    });
    let last = offers.last().expect("an offer");
    assert!(!last.extended_message && last.route_refresh && last.graceful_restart.is_some(), "{last:?}");
    assert_eq!(offers.len(), 2);
}
