// SPDX-License-Identifier: Apache-2.0
//! From what the agent wants of a peer to what the peer's task and the table have to know.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::{PeerAddress, PeerAsn};
use rhumb_model::Family;

use super::addresses::Links;
use super::restart::{self, LastRun, offer, offer_long};
use crate::fsm;
use crate::rib::{self, PeerInfo};
use crate::session::{Endpoint, Established, NOWHERE, Reach, Settings};
use crate::wire::{AddPath, Asn, Capabilities, Fqdn, Open, RouterId};

/// Longest wait in Idle after failures in a row.
const IDLE_HOLD: Duration = Duration::from_secs(60);

/// Our AS towards a peer.
pub(crate) fn own_asn(instance: &feed::Instance, peer: &feed::Peer) -> Asn {
    Asn(peer.local_asn.unwrap_or(instance.asn))
}

/// What a peer's task has to know.
pub(crate) fn session(
    instance: &feed::Instance,
    peer: &feed::Peer,
    last: LastRun,
    host: &str,
    links: &Links,
) -> Settings {
    let asn = own_asn(instance, peer);
    let internal = match peer.asn {
        PeerAsn::Number(number) => number == asn.0,
        PeerAsn::Internal => true,
        PeerAsn::External | PeerAsn::Any => false,
    };
    let hold_time = Duration::from_secs(peer.timers.hold_time.into());
    let (address, link) = match &peer.address {
        PeerAddress::Ip(address) => (*address, None),
        PeerAddress::Scoped { address, interface } => (IpAddr::V6(*address), Some(interface.clone())),
        PeerAddress::Interface(interface) => (NOWHERE, Some(interface.clone())),
    };
    let of_link =
        || peer.source_interface.as_ref().and_then(|link| links.address_of(link, Family::of(address)));
    let endpoint = Endpoint {
        address,
        link,
        port: peer.port,
        local: peer.local_address.or_else(of_link),
        md5: peer.md5.clone(),
        reach: Reach::of(peer.ttl, internal),
        hold_time,
    };
    let mut seed = DefaultHasher::new();
    (instance.router_id, &peer.key).hash(&mut seed);
    let fsm = fsm::Settings {
        connect_retry: Duration::from_secs(peer.timers.connect_retry.max(1).into()),
        keepalive: (peer.timers.keepalive > 0).then(|| Duration::from_secs(peer.timers.keepalive.into())),
        delay_open: None,
        passive: peer.passive,
        idle_hold: Some(IDLE_HOLD),
        seed: seed.finish(),
    };
    let offer = Open {
        asn,
        hold_time: peer.timers.hold_time,
        router_id: RouterId::from(instance.router_id),
        capabilities: capabilities(asn, peer, last, host),
    };
    Settings { endpoint, fsm, offer, expected: peer.asn }
}

fn capabilities(asn: Asn, peer: &feed::Peer, last: LastRun, host: &str) -> Capabilities {
    let families: BTreeSet<Family> = peer.families.iter().map(|family| family.family).collect();
    let extended =
        peer.families.iter().filter(|family| family.extended_next_hop && family.family == Family::V4);
    let restart = peer.graceful_restart.as_ref();
    Capabilities {
        route_refresh: true,
        enhanced_route_refresh: true,
        extended_message: true,
        asn4: Some(asn),
        extended_next_hop: extended.map(|family| family.family).collect(),
        graceful_restart: restart.map(|restart| offer(restart.restart_time, &families, last)),
        long_lived: restart.map(|restart| offer_long(restart.long_lived_stale_time, &families, last)),
        add_path: peer.families.iter().filter_map(paths).collect(),
        fqdn: (!host.is_empty()).then(|| Fqdn { host: host.to_owned(), domain: String::new() }),
        families,
        unknown: Vec::new(),
    }
}

/// What is offered of several paths to a destination (RFC 7911 §4).
fn paths(family: &feed::FamilyConfig) -> Option<(Family, AddPath)> {
    let offer = AddPath { receive: family.receive_paths, send: family.send_paths != 1 };
    (offer != AddPath::default()).then_some((family.family, offer))
}

/// What the table has to know of an established session.
pub(crate) fn info(
    instance: &feed::Instance,
    peer: &feed::Peer,
    session: &Established,
    links: &Links,
) -> PeerInfo {
    let scope = match session.remote {
        SocketAddr::V6(remote) => Some(remote.scope_id()).filter(|scope| *scope != 0),
        SocketAddr::V4(_) => None,
    };
    let interface = scope.or_else(|| links.shared_with(session.remote.ip()));
    let negotiated = &session.negotiated;
    let rib::Handling { client, next_hop_self, max_prefixes } = handling(peer);
    let longest = peer.graceful_restart.map_or(0, |restart| restart.long_lived_stale_time);
    PeerInfo {
        asn: negotiated.peer_asn,
        own_asn: own_asn(instance, peer),
        router_id: negotiated.peer_router_id,
        address: session.remote.ip(),
        interface,
        own: links.own(session.local.ip(), interface),
        client,
        families: negotiated.families.clone(),
        extended_next_hop: negotiated.extended_next_hop.clone(),
        knows_long_lived: negotiated.knows_long_lived,
        long_lived: restart::long_lived(negotiated, longest).into_keys().collect(),
        send_paths: peer
            .families
            .iter()
            .filter(|family| negotiated.add_path_send.contains(&family.family))
            .map(|family| (family.family, most_paths(family.send_paths)))
            .collect(),
        next_hop_self,
        max_prefixes,
    }
}

/// How routes of a peer and for it are handled, which can change while a session is up.
pub(crate) fn handling(peer: &feed::Peer) -> rib::Handling {
    let self_told = peer.families.iter().filter(|family| family.next_hop_self);
    rib::Handling {
        client: peer.route_reflector_client,
        next_hop_self: self_told.map(|family| family.family).collect(),
        max_prefixes: limits(peer),
    }
}

fn limits(peer: &feed::Peer) -> BTreeMap<Family, u32> {
    peer.families.iter().filter_map(|family| Some((family.family, family.max_prefixes?))).collect()
}

/// Whether both allow as many routes.
pub(crate) fn same_limits(old: &feed::Peer, new: &feed::Peer) -> bool {
    limits(old) == limits(new)
}

fn most_paths(send_paths: u16) -> usize {
    if send_paths == 0 { usize::MAX } else { send_paths.into() }
}

/// What holds for an instance's table.
pub(crate) fn rib(instance: &feed::Instance, track_next_hops: bool) -> rib::Settings {
    rib::Settings {
        asn: Asn(instance.asn),
        router_id: RouterId::from(instance.router_id),
        cluster_id: RouterId::from(instance.cluster_id.unwrap_or(instance.router_id)),
        reflects: instance.peers.iter().any(|peer| peer.route_reflector_client),
        multipath: instance.multipath,
        always_compare_med: false,
        own: instance.own.clone(),
        track_next_hops,
    }
}

/// Whether a session has to begin anew to get from one configuration of a peer to another: what an OPEN says, the
/// connection's addresses and its key do that. Policies do not, nor what [`handling`] is made of, nor how connections
/// are made that are not there yet.
pub(crate) fn must_reset(old: &feed::Peer, new: &feed::Peer) -> bool {
    let comparable = |peer: &feed::Peer| feed::Peer {
        import: feed::Policy::default(),
        export: feed::Policy::default(),
        bfd: None,
        shutdown: None,
        passive: false,
        timers: feed::Timers { connect_retry: 0, ..peer.timers },
        route_reflector_client: false,
        families: peer
            .families
            .iter()
            .map(|family| feed::FamilyConfig { max_prefixes: None, next_hop_self: false, ..*family })
            .collect(),
        ..peer.clone()
    };
    comparable(old) != comparable(new)
}

/// Whether two configurations differ in routes at most.
pub(crate) fn same_sessions(old: &feed::Snapshot, new: &feed::Snapshot) -> bool {
    let same = |(old, new): (&feed::Instance, &feed::Instance)| {
        let who = |it: &feed::Instance| (it.asn, it.router_id, it.cluster_id, it.multipath);
        (&old.name, who(old)) == (&new.name, who(new))
            && (&old.listen, &old.own, &old.peers) == (&new.listen, &new.own, &new.peers)
            && old.stations == new.stations
    };
    old.instances.len() == new.instances.len() && old.instances.iter().zip(&new.instances).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(change: impl FnOnce(&mut serde_json::Value)) -> feed::Peer {
        let mut text = serde_json::json!({
            "key": "main/tor", "address": {"ip": "192.0.2.1"}, "asn": {"number": 65000}, "port": 179,
            "local_asn": null, "local_address": null, "source_interface": null, "md5": null, "ttl": "direct",
            "passive": false, "timers": {"hold_time": 90, "keepalive": 30, "connect_retry": 20},
            "families": [
                {"family": "ipv4", "max_prefixes": null, "extended_next_hop": false, "next_hop_self": false},
            ],
            "graceful_restart": null, "import": {"rules": []}, "export": {"rules": []},
            "route_reflector_client": false, "bfd": null, "shutdown": null,
        });
        change(&mut text);
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_both_ends_agreed_on_needs_a_new_session_and_what_we_do_with_routes_does_not() {
        for (resets, path, value) in [
            (false, "/families/0/max_prefixes", serde_json::json!(10)),
            (false, "/families/0/next_hop_self", serde_json::json!(true)),
            (false, "/route_reflector_client", serde_json::json!(true)),
            (false, "/passive", serde_json::json!(true)),
            (false, "/timers/connect_retry", serde_json::json!(1)),
            (false, "/shutdown", serde_json::json!({"reason": "away"})),
            (true, "/families/0/extended_next_hop", serde_json::json!(true)),
            (true, "/timers/hold_time", serde_json::json!(9)),
            (true, "/md5", serde_json::json!("key")),
            (true, "/ttl", serde_json::json!({"security": 1})),
            (true, "/local_address", serde_json::json!("192.0.2.2")),
            (true, "/graceful_restart", serde_json::json!({"restart_time": 120})),
        ] {
            let changed = peer(|peer| *peer.pointer_mut(path).unwrap() = value);
            assert_eq!(must_reset(&peer(|_| ()), &changed), resets, "{path}");
        }
    }
}
