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
use super::restart::{LastRun, offer};
use crate::fsm;
use crate::rib::{self, PeerInfo};
use crate::session::{Endpoint, Established, NOWHERE, Reach, Settings};
use crate::wire::{Asn, Capabilities, Fqdn, Open, RouterId};

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
        long_lived: BTreeMap::new(),
        add_path: BTreeMap::new(),
        fqdn: (!host.is_empty()).then(|| Fqdn { host: host.to_owned(), domain: String::new() }),
        families,
        unknown: Vec::new(),
    }
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
    let of_family = |wanted: fn(&feed::FamilyConfig) -> bool| {
        peer.families.iter().filter(move |family| wanted(family)).map(|family| family.family)
    };
    let negotiated = &session.negotiated;
    PeerInfo {
        asn: negotiated.peer_asn,
        own_asn: own_asn(instance, peer),
        router_id: negotiated.peer_router_id,
        address: session.remote.ip(),
        interface,
        own: links.own(session.local.ip(), interface),
        client: peer.route_reflector_client,
        families: negotiated.families.clone(),
        extended_next_hop: negotiated.extended_next_hop.clone(),
        next_hop_self: of_family(|family| family.next_hop_self).collect(),
        max_prefixes: peer
            .families
            .iter()
            .filter_map(|family| Some((family.family, family.max_prefixes?)))
            .collect(),
    }
}

/// What holds for an instance's table.
pub(crate) fn rib(instance: &feed::Instance, track_next_hops: bool) -> rib::Settings {
    rib::Settings {
        asn: Asn(instance.asn),
        router_id: RouterId::from(instance.router_id),
        cluster_id: RouterId::from(instance.cluster_id.unwrap_or(instance.router_id)),
        multipath: instance.multipath,
        always_compare_med: false,
        own: instance.own.clone(),
        track_next_hops,
    }
}

/// Whether a session has to begin anew to get from one configuration of a peer to another. Policies are none of it.
pub(crate) fn must_reset(old: &feed::Peer, new: &feed::Peer) -> bool {
    let comparable = |peer: &feed::Peer| feed::Peer {
        import: feed::Policy::default(),
        export: feed::Policy::default(),
        bfd: None,
        shutdown: None,
        ..peer.clone()
    };
    comparable(old) != comparable(new)
}
