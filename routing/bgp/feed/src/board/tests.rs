// SPDX-License-Identifier: Apache-2.0

use rhumb_model::Timestamp;

use super::*;
use crate::{MessageCounts, SessionState};

fn peer(key: &str, session: SessionState) -> PeerState {
    PeerState {
        key: PeerKey(key.into()),
        instance: "i".into(),
        address: "192.0.2.1".into(),
        remote_address: None,
        local_address: None,
        asn: None,
        router_id: None,
        session,
        since: Timestamp(0),
        hold_time: None,
        established_count: 0,
        last_error: None,
        restarting: false,
        families: Vec::new(),
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        bfd: None,
    }
}

fn prefix(block: u32) -> Prefix {
    Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + block).into())
}

fn way(peer: &str) -> Arc<Way> {
    Arc::new(Way { gateways: Vec::new(), peers: vec![PeerKey(peer.into())] })
}

#[test]
fn a_new_reader_is_told_all_and_then_what_changes() {
    let board = Board::default();
    let up = peer("a", SessionState::Established);
    board.put_peer(up.clone());
    let reader = board.reader();
    assert_eq!(reader.take(), [StateChange::Peer(Box::new(up.clone()))]);
    assert_eq!(reader.take(), []);
    board.put_peer(up);
    assert_eq!(reader.take(), [], "the same again is no change");
    board.remove_peer(&PeerKey("a".into()));
    assert_eq!(reader.take(), [StateChange::PeerGone(PeerKey("a".into()))]);
}

#[test]
fn a_slow_reader_is_told_the_newest_once_and_holds_up_nobody() {
    let board = Board::default();
    let (slow, quick) = (board.reader(), board.reader());
    let mut told = 0;
    for session in [SessionState::Connect, SessionState::OpenSent, SessionState::Established] {
        board.put_peer(peer("a", session));
        told += quick.take().len();
    }
    assert_eq!(told, 3);
    let newest = StateChange::Peer(Box::new(peer("a", SessionState::Established)));
    assert_eq!(slow.take(), [newest]);
}

#[test]
fn what_a_reader_has_not_seen_does_not_grow_beyond_what_there_is() {
    let board = Board::default();
    let reader = board.reader();
    for _ in 0..3 {
        for block in 0..600 {
            board.put_learned("i", prefix(block), &way("a"));
        }
        for block in 0..600 {
            board.remove_learned("i", prefix(block));
        }
    }
    let batches: Vec<usize> =
        std::iter::from_fn(|| Some(reader.take().len())).take_while(|len| *len > 0).collect();
    assert_eq!(batches, [BATCH, BATCH, 600 - 2 * BATCH]);
}

#[test]
fn a_reader_that_is_gone_is_forgotten() {
    let board = Board::default();
    drop(board.reader());
    assert!(board.lock().readers.is_empty());
}

#[test]
fn a_way_that_changes_is_told_with_its_prefix_and_an_equal_one_is_not() {
    let board = Board::default();
    let reader = board.reader();
    board.put_learned("i", prefix(1), &way("a"));
    board.put_learned("j", prefix(1), &way("a"));
    assert_eq!(reader.take().len(), 2, "one of each instance");
    board.put_learned("i", prefix(1), &way("a"));
    assert_eq!(reader.take(), []);
    board.put_learned("i", prefix(1), &way("b"));
    let learned = Learned {
        instance: "i".into(),
        prefix: prefix(1),
        gateways: Vec::new(),
        peers: vec![PeerKey("b".into())],
    };
    assert_eq!(reader.take(), [StateChange::Learned(learned)]);
    board.remove_learned("i", prefix(1));
    assert_eq!(reader.take(), [StateChange::LearnedGone { instance: "i".into(), prefix: prefix(1) }]);
}
