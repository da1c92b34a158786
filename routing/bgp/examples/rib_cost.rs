// SPDX-License-Identifier: Apache-2.0
//! What a full table costs: routes in from one peer, best path, out to another, and to the kernel's list of changes.
//!
//! `cargo run --release -p rhumb-bgp --example rib_cost [ROUTES] [PREFIXES_PER_MESSAGE]`. Times are those of the
//! processor, of one thread, with nothing but the table in them: no octets, no sockets, no kernel.
#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rhumb_bgp::rib::{OwnAddresses, PeerId, PeerInfo, Rib, Settings};
use rhumb_bgp::wire::{
    AsPath, Asn, Attributes, Community, NextHop, Nlri, Reach, RouterId, Update, Withdrawn,
};
use rhumb_bgp_feed::{Action, Changes, Match, PeerKey, Policy, Rule};
use rhumb_model::{Family, Prefix};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let routes = arguments.next().unwrap_or(100_000);
    let pack = arguments.next().unwrap_or(200).max(1);
    let mut rib = Rib::new(settings());
    rib.set_synced();
    let (from, to) = (peer(&mut rib, 1, 65001), peer(&mut rib, 2, 65002));
    drain(&mut rib, to);
    drain(&mut rib, from);
    let prefixes: Vec<Prefix> = (0..routes)
        .map(|number| Prefix::containing(Ipv4Addr::from(0x0a00_0000 + number * 256).into(), 24))
        .collect();
    let messages: Vec<Update> =
        prefixes.chunks(pack as usize).enumerate().map(|(at, chunk)| message(at, chunk)).collect();
    let takes_back: Vec<Update> = prefixes.chunks(pack as usize).map(withdrawal).collect();
    let before = resident();

    let each = |what: &str, began: Duration, count: usize| {
        let took = processor_time().saturating_sub(began);
        let one = took.as_nanos() / u128::from(routes.max(1));
        println!("{what:24} {took:>12.3?} {one:>6} ns a route {count:>8}");
    };
    let began = processor_time();
    for message in &messages {
        rib.update(from, message).expect("no limit");
    }
    each("in", began, messages.len());
    let began = processor_time();
    each("out", began, drain(&mut rib, to));
    let began = processor_time();
    each("back to the sender", began, drain(&mut rib, from));
    let began = processor_time();
    let changes = rib.changes();
    each("changes for the kernel", began, changes.len());
    drop(changes);
    println!("resident: {} KiB more, {} KiB in all", resident() - before, resident());
    let began = processor_time();
    for message in &messages {
        rib.update(from, message).expect("no limit");
    }
    each("in, the same again", began, drain(&mut rib, to));
    // What the owner of the tables does in one piece, and nothing else meanwhile.
    let whole = |what: &str, rib: &mut Rib, step: &dyn Fn(&mut Rib)| {
        let began = processor_time();
        step(rib);
        each(what, began, 1);
        drain(rib, to);
        rib.changes();
    };
    whole("another import policy", &mut rib, &|rib| rib.set_policy(from, &accept(Some(50)), &accept(None)));
    whole("another export policy", &mut rib, &|rib| rib.set_policy(to, &accept(None), &accept(Some(50))));
    whole("lost, and kept", &mut rib, &|rib| rib.peer_down(from, &Family::BOTH.into()));
    whole("kept as a last resort", &mut rib, &|rib| rib.keep_long(from, Family::V4));
    whole("swept", &mut rib, &|rib| rib.sweep_stale(from, Family::V4));
    for message in &messages {
        rib.update(from, message).expect("no limit");
    }
    whole("lost", &mut rib, &|rib| rib.peer_down(from, &BTreeSet::new()));
    let from = peer(&mut rib, 1, 65001);
    for message in &messages {
        rib.update(from, message).expect("no limit");
    }
    drain(&mut rib, to);
    let began = processor_time();
    for message in &takes_back {
        rib.update(from, message).expect("no limit");
    }
    each("taken back", began, takes_back.len());
    let began = processor_time();
    each("out", began, drain(&mut rib, to));
}

fn settings() -> Settings {
    Settings {
        asn: Asn(65000),
        router_id: RouterId(1),
        cluster_id: RouterId(1),
        reflects: false,
        multipath: 2,
        always_compare_med: false,
        own: Vec::new(),
        track_next_hops: false,
    }
}

/// All routes, with this MED.
fn accept(med: Option<u32>) -> Policy {
    let action = Action::Accept(Changes { med, ..Changes::default() });
    Policy { rules: vec![Rule { name: "all".to_owned(), matches: Match::default(), action }] }
}

fn peer(rib: &mut Rib, number: u8, asn: u32) -> PeerId {
    let peer = rib.peer(&PeerKey(number.to_string()));
    rib.set_policy(peer, &accept(None), &accept(None));
    let info = PeerInfo {
        asn: Asn(asn),
        own_asn: Asn(65000),
        router_id: RouterId(u32::from(number) + 1),
        address: IpAddr::from([192, 0, 2, number]),
        interface: None,
        own: OwnAddresses { v4: Some(Ipv4Addr::new(192, 0, 2, 254)), ..OwnAddresses::default() },
        client: false,
        families: Family::BOTH.into(),
        extended_next_hop: BTreeSet::new(),
        knows_long_lived: false,
        long_lived: BTreeSet::new(),
        send_paths: BTreeMap::new(),
        next_hop_self: BTreeSet::new(),
        max_prefixes: BTreeMap::new(),
    };
    rib.peer_up(peer, info);
    peer
}

/// A message with attributes of its own.
fn message(number: usize, prefixes: &[Prefix]) -> Update {
    let number = u32::try_from(number).unwrap_or(0);
    let attributes = Attributes {
        as_path: AsPath::sequence([65001, 64512 + number % 1000, 64512 + number / 1000].map(Asn)),
        communities: vec![Community((65001 << 16) | (number % 65536))],
        ..Attributes::default()
    };
    let nlri = prefixes.iter().copied().map(Nlri::from).collect();
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    Update {
        attributes: Some(Arc::new(attributes)),
        reach: vec![Reach { family: Family::V4, next_hop, nlri }],
        ..Update::default()
    }
}

fn withdrawal(prefixes: &[Prefix]) -> Update {
    let nlri = prefixes.iter().copied().map(Nlri::from).collect();
    Update { withdrawn: vec![Withdrawn { family: Family::V4, nlri }], ..Update::default() }
}

fn drain(rib: &mut Rib, peer: PeerId) -> usize {
    std::iter::from_fn(|| rib.next_update(peer)).count()
}

/// How long this thread has been on a processor.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
