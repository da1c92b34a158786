// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{NextHop, PeerAddress, PeerAsn, Policy, Recipients, RouteAttributes, RouteKind, Timers, Ttl};

fn peer(key: u8, port: u16) -> Peer {
    Peer {
        key: PeerKey(format!("p{key}")),
        address: PeerAddress::Ip("192.0.2.1".parse().expect("valid")),
        asn: PeerAsn::External,
        port,
        local_asn: None,
        local_address: None,
        source_interface: None,
        md5: None,
        ttl: Ttl::Direct,
        passive: false,
        timers: Timers { hold_time: 90, keepalive: 30, connect_retry: 120 },
        families: Vec::new(),
        graceful_restart: None,
        import: Policy::default(),
        export: Policy::default(),
        route_reflector_client: false,
        bfd: None,
        shutdown: None,
    }
}

fn route(block: u8, med: u32) -> LocalRoute {
    LocalRoute {
        prefix: format!("10.{block}.0.0/16").parse().expect("valid"),
        kind: RouteKind::PodCidr,
        attributes: RouteAttributes { med: Some(med), ..RouteAttributes::default() },
        next_hop: NextHop::Own,
        discard: false,
        recipients: Recipients::Only(BTreeSet::from([PeerKey("p1".into())])),
        exceptions: BTreeMap::new(),
    }
}

fn instance() -> impl Strategy<Value = Instance> {
    let peers = proptest::collection::btree_map(0..6_u8, 1..3_u16, 0..4);
    let routes = proptest::collection::btree_map(0..9_u8, 0..3_u32, 0..6);
    (0..3_u8, 1..3_u32, peers, routes).prop_map(|(name, asn, peers, routes)| Instance {
        name: format!("i{name}"),
        asn,
        router_id: "192.0.2.9".parse().expect("valid"),
        listen: Vec::new(),
        cluster_id: None,
        multipath: 1,
        own: Vec::new(),
        peers: peers.into_iter().map(|(key, port)| peer(key, port)).collect(),
        routes: routes.into_iter().map(|(block, med)| route(block, med)).collect(),
        stations: Vec::new(),
    })
}

fn snapshot(revision: u64) -> impl Strategy<Value = Snapshot> {
    proptest::collection::vec(instance(), 0..4).prop_map(move |mut instances| {
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        instances.dedup_by(|a, b| a.name == b.name);
        Snapshot { revision: Revision(revision), instances }
    })
}

proptest! {
    #[test]
    fn a_delta_makes_the_next_snapshot_of_the_last(mut last in snapshot(1), next in snapshot(2)) {
        let delta = last.delta(&next);
        let told: Delta =
            serde_json::from_str(&serde_json::to_string(&delta).expect("plain data")).expect("as written");
        prop_assert_eq!(&told, &delta);
        last.apply(told).expect("fits");
        prop_assert_eq!(last, next);
    }

    #[test]
    fn a_snapshot_survives_its_text(snapshot in snapshot(7)) {
        let text = serde_json::to_string(&snapshot).expect("plain data");
        prop_assert_eq!(serde_json::from_str::<Snapshot>(&text).expect("as written"), snapshot);
    }
}

fn one(routes: Vec<LocalRoute>, revision: u64) -> Snapshot {
    let instance = Instance {
        name: "i".into(),
        asn: 65000,
        router_id: "192.0.2.9".parse().expect("valid"),
        listen: Vec::new(),
        cluster_id: None,
        multipath: 1,
        own: Vec::new(),
        peers: vec![peer(1, 179)],
        routes,
        stations: Vec::new(),
    };
    Snapshot { revision: Revision(revision), instances: vec![instance] }
}

#[test]
fn a_route_that_changes_is_the_only_change() {
    let last = one(vec![route(1, 0), route(2, 0), route(3, 0)], 4);
    let next = one(vec![route(1, 0), route(2, 5)], 5);
    let changes = vec![
        Change::RemoveRoute { instance: "i".into(), prefix: route(3, 0).prefix },
        Change::PutRoute { instance: "i".into(), route: Box::new(route(2, 5)) },
    ];
    assert_eq!(last.delta(&next), Delta { from: Revision(4), to: Revision(5), changes });
}

#[test]
fn a_delta_that_does_not_fit_changes_nothing() {
    let mut snapshot = one(vec![route(1, 0)], 4);
    let before = snapshot.clone();
    let late =
        Delta { from: Revision(3), to: Revision(5), changes: vec![Change::RemoveInstance("i".into())] };
    assert_eq!(snapshot.apply(late), Err(ApplyError::Revision { from: Revision(3), have: Revision(4) }));
    let changes = vec![
        Change::RemoveRoute { instance: "i".into(), prefix: route(1, 0).prefix },
        Change::RemovePeer { instance: "j".into(), peer: PeerKey("p1".into()) },
    ];
    let stray = Delta { from: Revision(4), to: Revision(5), changes };
    assert_eq!(snapshot.apply(stray), Err(ApplyError::NoInstance("j".into())));
    assert_eq!(snapshot, before);
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    let mut value = serde_json::to_value(one(vec![], 1)).expect("plain data");
    value["instances"][0]["colour"] = "blue".into();
    let error = serde_json::from_value::<Snapshot>(value).expect_err("unknown");
    assert!(error.to_string().contains("colour"), "{error}");
}

#[test]
fn a_peer_hears_of_a_route_what_is_meant_for_it() {
    let mut route = route(1, 0);
    let (one, two) = (PeerKey("p1".into()), PeerKey("p2".into()));
    assert_eq!(route.attributes_for(&one), Some(&route.attributes));
    assert_eq!(route.attributes_for(&two), None);
    route.recipients = Recipients::All;
    let other = RouteAttributes { med: Some(7), ..RouteAttributes::default() };
    route.exceptions.insert(two.clone(), other.clone());
    assert_eq!(route.attributes_for(&two), Some(&other));
}
