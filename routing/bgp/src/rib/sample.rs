// SPDX-License-Identifier: Apache-2.0
//! Peers, policies and messages for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rhumb_bgp_feed::{
    Action, Changes, LocalRoute, Match, PeerKey, Policy, Recipients, RouteAttributes, RouteKind, Rule,
};
use rhumb_model::{Family, Prefix};

use super::*;
use crate::wire::{AsPath, NextHop, Nlri, Reach, Update, Withdrawn};

pub(super) const OWN: Asn = Asn(65000);

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

pub(super) fn addr(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

pub(super) fn settings() -> Settings {
    Settings {
        asn: OWN,
        router_id: RouterId(0x0a00_0001),
        cluster_id: RouterId(0x0a00_0001),
        reflects: true,
        multipath: 1,
        always_compare_med: false,
        own: Vec::new(),
        track_next_hops: false,
    }
}

/// The peer of this number: its address and identifier end with it.
pub(super) fn info(number: u8, asn: u32) -> PeerInfo {
    PeerInfo {
        asn: Asn(asn),
        own_asn: OWN,
        router_id: RouterId(0xc000_0200 + u32::from(number)),
        address: IpAddr::from([192, 0, 2, number]),
        interface: Some(7),
        own: OwnAddresses {
            v4: Some([192, 0, 2, 254].into()),
            v6: Some("2001:db8::fe".parse().expect("valid")),
            link_local: Some("fe80::fe".parse().expect("valid")),
        },
        client: false,
        families: Family::BOTH.into(),
        extended_next_hop: BTreeSet::new(),
        knows_long_lived: true,
        long_lived: BTreeSet::new(),
        send_paths: BTreeMap::new(),
        next_hop_self: BTreeSet::new(),
        max_prefixes: BTreeMap::new(),
    }
}

pub(super) fn rule(name: &str, matches: Match, action: Action) -> Rule {
    Rule { name: name.to_owned(), matches, action }
}

/// Accepts everything with these changes.
pub(super) fn accept(changes: Changes) -> Policy {
    Policy { rules: vec![rule("all", Match::default(), Action::Accept(changes))] }
}

pub(super) fn all() -> Policy {
    accept(Changes::default())
}

/// Lets a peer come up that is told, and may tell, everything.
pub(super) fn up(rib: &mut Rib, info: PeerInfo) -> PeerId {
    let peer = rib.peer(&PeerKey(format!("{}", info.address)));
    rib.set_policy(peer, &all(), &all());
    rib.peer_up(peer, info);
    peer
}

pub(super) fn path(systems: &[u32]) -> Attributes {
    Attributes { as_path: AsPath::sequence(systems.iter().copied().map(Asn)), ..Attributes::default() }
}

/// An UPDATE with routes of one family, by the next hop that ends with `number`.
pub(super) fn announce(number: u8, attributes: Attributes, prefixes: &[&str]) -> Update {
    let nlri: Vec<Nlri> = prefixes.iter().map(|text| prefix(text).into()).collect();
    let family = nlri[0].prefix.family();
    let next_hop = match family {
        Family::V4 => NextHop::V4([192, 0, 2, number].into()),
        Family::V6 => NextHop::from(addr(&format!("2001:db8::{number}"))),
    };
    Update {
        attributes: Some(Arc::new(attributes.canonical())),
        reach: vec![Reach { family, next_hop, nlri }],
        ..Update::default()
    }
}

pub(super) fn withdraw(prefixes: &[&str]) -> Update {
    let nlri: Vec<Nlri> = prefixes.iter().map(|text| prefix(text).into()).collect();
    let family = nlri[0].prefix.family();
    Update { withdrawn: vec![Withdrawn { family, nlri }], ..Update::default() }
}

pub(super) fn local(text: &str) -> LocalRoute {
    LocalRoute {
        prefix: prefix(text),
        kind: RouteKind::PodCidr,
        attributes: RouteAttributes::default(),
        next_hop: rhumb_bgp_feed::NextHop::Own,
        discard: false,
        recipients: Recipients::All,
        exceptions: BTreeMap::new(),
    }
}

/// Everything that the peer is to be told, until nothing is left.
pub(super) fn drain(rib: &mut Rib, peer: PeerId) -> Vec<Outgoing> {
    std::iter::from_fn(|| rib.next_update(peer)).collect()
}

/// Lets everybody hear everything.
pub(super) fn quiet(rib: &mut Rib) {
    for peer in rib.ids() {
        drain(rib, peer);
    }
    rib.changes();
    rib.ready();
}

/// What was drained, a word per message and its destinations.
pub(super) fn words(outgoing: &[Outgoing]) -> Vec<String> {
    let list = |nlri: &[Nlri]| nlri.iter().map(Nlri::to_string).collect::<Vec<_>>().join(" ");
    let word = |one: &Outgoing| match one {
        Outgoing::Announce { attributes, next_hop, nlri, .. } => {
            format!("{} via {next_hop} [{}]", list(nlri), attributes.as_path)
        }
        Outgoing::Withdraw { nlri, .. } => format!("gone {}", list(nlri)),
        Outgoing::EndOfRib(family) => format!("end {family}"),
        Outgoing::BeginOfRefresh(family) => format!("begin refresh {family}"),
        Outgoing::EndOfRefresh(family) => format!("end refresh {family}"),
    };
    outgoing.iter().map(word).collect()
}

/// What is drained, in words.
pub(super) fn said(rib: &mut Rib, peer: PeerId) -> Vec<String> {
    words(&drain(rib, peer))
}

/// What the kernel is to do otherwise, in words.
pub(super) fn changed(rib: &mut Rib) -> Vec<String> {
    let word = |change: Change| match change.forward.as_deref() {
        None => format!("{} -", change.prefix),
        Some(Forward::Discard) => format!("{} discard", change.prefix),
        Some(Forward::Via(hops)) => {
            let hops: Vec<String> = hops.iter().map(|hop| hop.address.to_string()).collect();
            format!("{} {}", change.prefix, hops.join(" "))
        }
    };
    rib.changes().into_iter().map(word).collect()
}
