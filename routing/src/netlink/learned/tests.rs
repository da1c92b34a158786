// SPDX-License-Identifier: Apache-2.0

use std::fs::File;

use netlink_packet_core::NetlinkPayload;

use super::super::message::messages;
use super::*;

fn via(ifindex: u32, gateway: &str) -> Via {
    Via { ifindex, gateway: (!gateway.is_empty()).then(|| gateway.parse().expect("valid")) }
}

fn write(prefix: &str, action: WriteAction) -> Write {
    Write { prefix: prefix.parse().expect("valid"), action }
}

/// The messages of a datagram with these changes, as the library reads them.
fn understood(writes: &[Write]) -> Vec<(u16, Told)> {
    let mut datagram = Vec::new();
    for (at, one) in writes.iter().enumerate() {
        append(&mut datagram, 7268, one, u32::try_from(at).expect("few"), 0);
    }
    let each = messages(&datagram, |_| true).map(|message| {
        let NetlinkPayload::InnerMessage(object) = &message.payload else { panic!("{message:?}") };
        // A removal is read as if it were a route that is told.
        let object = if let RouteNetlinkMessage::DelRoute(about) = object {
            RouteNetlinkMessage::NewRoute(about.clone())
        } else {
            object.clone()
        };
        (message.header.message_type, read(&object, 7268).expect("a route of this table"))
    });
    each.collect()
}

#[test]
fn what_is_put_together_by_hand_is_what_the_library_reads() {
    let routes = [
        ("10.1.0.0/16", vec![via(7, "192.0.2.1")]),
        ("10.1.0.0/16", vec![via(7, "fe80::1")]),
        ("0.0.0.0/0", vec![via(7, "192.0.2.1"), via(8, "fe80::1"), via(9, "")]),
        ("10.9.8.7/32", vec![via(7, "")]),
        ("2001:db8::/32", vec![via(7, "fe80::1")]),
        ("::/0", vec![via(7, "2001:db8::1"), via(8, "fe80::1")]),
    ];
    let puts = routes
        .iter()
        .map(|(prefix, via)| write(prefix, WriteAction::Add(Arc::new(LearnedRoute::Via(via.clone())))));
    let told = understood(&puts.collect::<Vec<_>>());
    assert_eq!(told.len(), routes.len());
    for ((prefix, via), (kind, told)) in routes.iter().zip(&told) {
        assert_eq!((*kind, told.kind), (RTM_NEWROUTE, RouteType::Unicast));
        assert_eq!((told.dst.to_string(), &told.via), ((*prefix).to_owned(), via));
        assert_eq!((told.metric, told.protocol), (METRIC, PROTOCOL));
    }
}

#[test]
fn black_holes_and_removals_have_no_next_hop() {
    let discard = WriteAction::Replace(Arc::new(LearnedRoute::Discard));
    let told = understood(&[write("10.1.0.0/16", discard), write("2001:db8::/32", WriteAction::Remove)]);
    let kinds: Vec<_> = told.iter().map(|(kind, told)| (*kind, told.kind)).collect();
    assert_eq!(kinds, [(RTM_NEWROUTE, RouteType::BlackHole), (RTM_DELROUTE, RouteType::Unspec)]);
    assert!(told.iter().all(|(_, told)| told.via.is_empty() && told.protocol == PROTOCOL));
}

/// Answers to removals of what is not there: absent, or refused to who is not root. Nothing is changed by them.
#[test]
fn answers_that_have_no_room_are_asked_for_once_more() {
    let namespace = Arc::new(OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("own namespace")));
    let writes: Vec<Write> = (0..BATCH).map(|_| write("203.0.113.1/32", WriteAction::Remove)).collect();
    let mut bulk = Bulk::open_in(&namespace).expect("a socket");
    let roomy = bulk.write(u32::MAX - 7268, &writes).expect("all answers");
    SockRef::from(&bulk.raw).set_recv_buffer_size(1).expect("set to the least that there is");
    assert!(matches!(bulk.exchange(u32::MAX - 7268, &writes).expect("talk"), Answered::Lost));
    let mut bulk = Bulk { sequence: 1000, ..bulk };
    assert_eq!(bulk.write(u32::MAX - 7268, &writes).expect("all answers, one by one"), roomy);
}
