// SPDX-License-Identifier: Apache-2.0
//! What is written is read by a station's parser, that of bgpkit-parser.

use bgpkit_parser::models::{BgpMessage, ParamValue};
use bgpkit_parser::parser::bmp::messages::{
    BmpMessage, BmpMessageBody, InitiationTlvType, PeerDownReason, PeerFlags, PerPeerFlags, StatType,
    StatsData, TerminationReason, TerminationTlvValue,
};
use bgpkit_parser::parser::bmp::parse_bmp_msg;

use super::*;
use crate::bmp::Termination;
use crate::wire::{Asn, Attributes, Cease, NextHop, Nlri, Open, RouterId, Update};

fn read(message: &Message) -> BmpMessage {
    let mut octets = message.encode();
    let read = parse_bmp_msg(&mut octets).expect("readable");
    assert!(octets.is_empty(), "its length is that of the message");
    read
}

fn peer() -> Peer {
    Peer {
        address: "192.0.2.1".parse().expect("an address"),
        asn: Asn(4_200_000_001),
        router_id: RouterId(0x0a00_0001),
        view: View::PrePolicy,
        two_octets: false,
    }
}

const AT: Duration = Duration::new(1_700_000_000, 250_000_000);

fn open(asn: u32) -> Open {
    Open {
        asn: Asn(asn),
        hold_time: 90,
        router_id: RouterId(asn),
        capabilities: crate::wire::Capabilities { asn4: Some(Asn(asn)), ..Default::default() },
    }
}

fn octets(open: Open) -> Bytes {
    Codec::opening().encode(&Bgp::Open(open)).expect("an OPEN has no errors").concat().into()
}

#[test]
fn the_header_names_peer_view_and_time() {
    let down = |peer| Message::PeerDown { peer, at: AT, reason: Down::Closed };
    let header = |peer| read(&down(peer)).per_peer_header.expect("a peer's message");
    let v4 = header(peer());
    assert_eq!((v4.peer_ip, u32::from(v4.peer_asn)), (peer().address, 4_200_000_001));
    assert_eq!(v4.peer_bgp_id.to_string(), "10.0.0.1");
    assert_eq!((v4.timestamp, v4.peer_distinguisher), (1_700_000_000.25, 0));
    assert_eq!(v4.peer_flags, PerPeerFlags::PeerFlags(PeerFlags::empty()));
    let address = "fd00::1".parse().expect("an address");
    let v6 = header(Peer { address, view: View::PostPolicy, two_octets: true, ..peer() });
    assert_eq!(
        (v6.peer_ip, v6.peer_flags),
        (address, PerPeerFlags::PeerFlags(PeerFlags::from_bits_retain(0xe0)))
    );
}

#[test]
fn the_first_and_the_last_message_say_who_and_why() {
    let first = Message::Initiation { name: "node-1".to_owned(), description: "rhumb 0.1.0".to_owned() };
    let BmpMessageBody::InitiationMessage(first) = read(&first).message_body else {
        unreachable!("another message")
    };
    let texts: Vec<_> = first.tlvs.iter().map(|tlv| (tlv.info_type, tlv.info.as_str())).collect();
    assert_eq!(texts, [(InitiationTlvType::SysDescr, "rhumb 0.1.0"), (InitiationTlvType::SysName, "node-1")]);
    for (reason, wanted) in [
        (Termination::Closed, TerminationReason::AdministrativelyClosed),
        (Termination::ClosedForGood, TerminationReason::PermanentlyAdministrativelyClosed),
    ] {
        let BmpMessageBody::TerminationMessage(last) = read(&Message::Termination(reason)).message_body
        else {
            unreachable!("another message")
        };
        assert_eq!(last.tlvs[0].info_value, TerminationTlvValue::Reason(wanted));
    }
}

#[test]
fn a_session_is_told_with_both_opens() {
    let up = PeerUp {
        peer: peer(),
        at: AT,
        local: "192.0.2.2:179".parse().expect("an address"),
        remote_port: 40000,
        sent: octets(open(65000)),
        received: octets(open(4_200_000_001)),
    };
    let BmpMessageBody::PeerUpNotification(read) = read(&Message::PeerUp(Box::new(up))).message_body else {
        unreachable!("another message")
    };
    assert_eq!(
        (read.local_addr.to_string().as_str(), read.local_port, read.remote_port),
        ("192.0.2.2", 179, 40000)
    );
    let of = |message: BgpMessage| {
        let BgpMessage::Open(open) = message else { unreachable!("another message") };
        let capabilities =
            open.opt_params.iter().filter(|one| matches!(one.param_value, ParamValue::Capacities(_)));
        (u32::from(open.asn), open.hold_time, capabilities.count())
    };
    assert_eq!((of(read.sent_open), of(read.received_open)), ((65000, 90, 1), (23456, 90, 1)));
}

#[test]
fn each_end_of_a_session_has_its_reason() {
    let notification = Notification::cease(Cease::AdministrativeReset);
    let octets = Codec::opening().encode(&Bgp::Notification(notification.clone())).expect("says it").concat();
    let rows = [
        (
            Down::Told(notification.clone()),
            PeerDownReason::LocalSystemClosedNotificationPduFollows,
            Some(octets.clone()),
        ),
        (Down::Event(18), PeerDownReason::LocalSystemClosedFsmEvenFollows, Some(vec![0, 18])),
        (Down::Heard(notification), PeerDownReason::RemoteSystemClosedNotificationPduFollows, Some(octets)),
        (Down::Closed, PeerDownReason::RemoteSystemsClosedNoData, None),
        (Down::Unconfigured, PeerDownReason::PeerDeConfigured, None),
    ];
    for (reason, wanted, data) in rows {
        let message = Message::PeerDown { peer: peer(), at: AT, reason };
        let BmpMessageBody::PeerDownNotification(read) = read(&message).message_body else {
            unreachable!("another message")
        };
        assert_eq!((read.reason, read.data.filter(|data| !data.is_empty())), (wanted, data));
    }
}

#[test]
fn routes_are_one_update_behind_the_peer() {
    let negotiated =
        crate::wire::Negotiated::of(&open(65000), &open(4_200_000_001)).expect("both speak IPv4");
    let nlri = Nlri::from("10.1.0.0/16".parse::<rhumb_model::Prefix>().expect("a prefix"));
    let next_hop = NextHop::V4("192.0.2.1".parse().expect("an address"));
    let attributes = std::sync::Arc::new(Attributes::default());
    let updates = Codec::new(&negotiated).encode_update(&attributes, &next_hop, &[nlri]).expect("fits");
    let message = Message::Routes { peer: peer(), at: AT, update: updates[0].clone() };
    let BmpMessageBody::RouteMonitoring(routes) = read(&message).message_body else {
        unreachable!("another message")
    };
    let BgpMessage::Update(update) = routes.bgp_message else { unreachable!("another message") };
    assert_eq!(
        update.announced_prefixes.iter().map(|one| one.prefix.to_string()).collect::<Vec<_>>(),
        ["10.1.0.0/16"]
    );
    let end = Codec::new(&negotiated).encode(&Bgp::Update(Update::of_end(Family::V4))).expect("fits");
    let message = Message::Routes { peer: peer(), at: AT, update: end[0].clone() };
    let BmpMessageBody::RouteMonitoring(end) = read(&message).message_body else {
        unreachable!("another message")
    };
    assert!(end.is_end_of_rib());
}

#[test]
fn numbers_have_their_types_and_widths() {
    let numbers =
        vec![Statistic::Routes(7), Statistic::RoutesOf(Family::V6, 1 << 40), Statistic::TreatedAsWithdraw(3)];
    let message = Message::Statistics { peer: peer(), at: AT, numbers };
    let BmpMessageBody::StatsReport(read) = read(&message).message_body else {
        unreachable!("another message")
    };
    let found: Vec<_> = read.counters.into_iter().map(|one| (one.stat_type, one.stat_data)).collect();
    let wanted = [
        (StatType::RoutesInAdjRibsIn, StatsData::Gauge(7)),
        (StatType::RoutesInPerAfiSafiAdjRibIn, StatsData::AfiSafiGauge(2, 1, 1 << 40)),
        (StatType::UpdatesSubjectedToTreatAsWithdraw, StatsData::Counter(3)),
    ];
    assert_eq!(found, wanted);
}
