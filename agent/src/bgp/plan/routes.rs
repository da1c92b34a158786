// SPDX-License-Identifier: Apache-2.0
//! What peers are told.
//!
//! Where several advertisements say the same prefix to a peer, it is told once: with the communities of all, the largest
//! local preference and the smallest metric. So it is with an aggregate that several services share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_api::{AdvertisementType, BgpAttributes, BgpRoutes, Selector, ServiceAddress, ServiceRoutes};
use rhumb_bgp_feed::{LocalRoute, NextHop, PeerKey, Recipients, RouteAttributes, RouteKind};
use rhumb_model::{Family, Prefix};

use super::Inputs;
use super::peers::Known;
use super::policy::split;
use crate::bgp::inputs::{Labels, ServiceFacts};

/// Labels that every pod and service has for a selector, besides its own.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const SERVICE_NAMESPACE: &str = "io.kubernetes.service.namespace";
const SERVICE_NAME: &str = "io.kubernetes.service.name";

/// What is known of a prefix.
#[derive(Debug)]
struct Row {
    kind: RouteKind,
    discard: bool,
    told: BTreeMap<PeerKey, RouteAttributes>,
}

/// The routes that the peers are told, by prefix.
pub(super) fn of(peers: &[Known], inputs: &Inputs) -> Vec<LocalRoute> {
    let mut rows: BTreeMap<Prefix, Row> = BTreeMap::new();
    for (labels, spec) in inputs.advertisements.values() {
        let hears = |peer: &Known, family: Family| {
            peer.hears.iter().any(|(of, selector)| *of == family && selector.matches(labels))
        };
        for routes in &spec.advertisements {
            let attributes = attributes(&routes.attributes);
            for Said { prefix, kind, discard } in said(routes, inputs) {
                for peer in peers.iter().filter(|peer| hears(peer, prefix.family())) {
                    let row = rows.entry(prefix).or_insert(Row { kind, discard, told: BTreeMap::new() });
                    row.kind = row.kind.min(kind);
                    row.discard |= discard;
                    let told = row.told.entry(peer.peer.key.clone()).or_insert_with(|| attributes.clone());
                    merge(told, &attributes);
                }
            }
        }
    }
    rows.into_iter().map(|(prefix, row)| route(prefix, row, peers)).collect()
}

/// One prefix that an advertisement says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    prefix: Prefix,
    kind: RouteKind,
    discard: bool,
}

/// The prefixes that an advertisement says now.
fn said(routes: &BgpRoutes, inputs: &Inputs) -> BTreeSet<Said> {
    let chooses = |labels: &Labels| routes.selector.as_ref().is_none_or(|selector| selector.matches(labels));
    let pool_chosen =
        |name| inputs.pools.get(name).map_or_else(|| chooses(&Labels::new()), |pool| chooses(&pool.labels));
    let plain = |kind| move |prefix| Said { prefix, kind, discard: false };
    match routes.about {
        AdvertisementType::PodCIDR => {
            let chosen = inputs
                .pod_cidrs
                .iter()
                .filter(|(pool, prefix)| pool_chosen(pool) && !inputs.eni_blocks.contains(prefix));
            chosen.map(|(_, prefix)| *prefix).map(plain(RouteKind::PodCidr)).collect()
        }
        AdvertisementType::PodPool => {
            let chosen = inputs.pools.iter().filter(|(name, pool)| {
                chooses(&pool.labels) && inputs.pod_cidrs.iter().any(|(of, _)| of == *name)
            });
            let blocks = chosen.flat_map(|(_, pool)| pool.cidrs.iter().copied());
            blocks.map(|prefix| Said { prefix, kind: RouteKind::Pool, discard: true }).collect()
        }
        AdvertisementType::Pod => {
            let chosen = inputs.pods.iter().filter(|(key, pod)| {
                let own = [(POD_NAMESPACE, key.namespace.as_str()), (POD_NAME, key.name.as_str())];
                chooses(&with(&pod.labels, own))
            });
            let addresses = chosen.flat_map(|(_, pod)| pod.addresses.iter().copied());
            addresses.map(Prefix::host).map(plain(RouteKind::Pod)).collect()
        }
        AdvertisementType::Interface => {
            let interface = routes.interface.as_ref().and_then(|name| inputs.interfaces.get(name));
            let addresses = interface.into_iter().flatten().copied();
            addresses.map(Prefix::host).map(plain(RouteKind::Interface)).collect()
        }
        AdvertisementType::Service => {
            let Some(service) = &routes.service else { return BTreeSet::new() };
            services(service, routes.selector.as_ref(), inputs)
        }
        AdvertisementType::ENI => inputs.eni_blocks.iter().copied().map(plain(RouteKind::PodCidr)).collect(),
    }
}

fn services(wanted: &ServiceRoutes, selector: Option<&Selector>, inputs: &Inputs) -> BTreeSet<Said> {
    let chosen = inputs.services.iter().filter(|(key, facts)| {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let own = [(SERVICE_NAMESPACE, namespace), (SERVICE_NAME, key.name.as_str())];
        selector.is_none_or(|selector| selector.matches(&with(&facts.labels, own)))
    });
    let mut said = BTreeSet::new();
    for (_, facts) in chosen {
        for (kind, address) in &facts.addresses {
            if wanted.addresses.contains(kind) && takes_packets(facts, *kind, wanted) {
                said.insert(service_route(facts, *kind, *address, wanted));
            }
        }
    }
    said
}

/// Whether this node is to have packets to a service's addresses of this kind.
fn takes_packets(facts: &ServiceFacts, kind: ServiceAddress, wanted: &ServiceRoutes) -> bool {
    if facts.is_local(kind) { facts.ready_here } else { facts.ready_anywhere || wanted.without_endpoints }
}

fn service_route(
    facts: &ServiceFacts,
    kind: ServiceAddress,
    address: IpAddr,
    wanted: &ServiceRoutes,
) -> Said {
    let length = wanted.aggregation.and_then(|aggregation| aggregation.length(Family::of(address)));
    match length.filter(|_| !facts.is_local(kind)) {
        Some(length) => {
            Said { prefix: Prefix::containing(address, length), kind: RouteKind::Service, discard: true }
        }
        None => Said { prefix: Prefix::host(address), kind: RouteKind::Service, discard: false },
    }
}

fn with(labels: &Labels, own: [(&str, &str); 2]) -> Labels {
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    labels.clone().into_iter().chain(own).collect()
}

fn attributes(wanted: &BgpAttributes) -> RouteAttributes {
    let (communities, large_communities) = split(&wanted.communities);
    RouteAttributes {
        communities: communities.into_iter().collect(),
        large_communities: large_communities.into_iter().collect(),
        local_pref: wanted.local_preference,
        med: wanted.med,
    }
}

/// Adds what another advertisement says of the same prefix.
fn merge(told: &mut RouteAttributes, other: &RouteAttributes) {
    told.communities.extend(&other.communities);
    told.large_communities.extend(&other.large_communities);
    told.local_pref = told.local_pref.max(other.local_pref);
    told.med = match (told.med, other.med) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    };
}

/// The route in the form that says the least: what most are told, then the exceptions.
fn route(prefix: Prefix, row: Row, peers: &[Known]) -> LocalRoute {
    let speaks = |peer: &&Known| peer.hears.iter().any(|(family, _)| *family == prefix.family());
    let all = peers.iter().filter(speaks).all(|peer| row.told.contains_key(&peer.peer.key));
    let count = |attributes: &RouteAttributes| row.told.values().filter(|other| *other == attributes).count();
    // Of those that are said equally often, what the first peer is told.
    let mut usual: Option<(&RouteAttributes, usize)> = None;
    for attributes in row.told.values() {
        let count = count(attributes);
        if usual.is_none_or(|(_, most)| count > most) {
            usual = Some((attributes, count));
        }
    }
    let usual = usual.map(|(attributes, _)| attributes.clone()).unwrap_or_default();
    let recipients = if all { Recipients::All } else { Recipients::Only(row.told.keys().cloned().collect()) };
    let exceptions = row.told.into_iter().filter(|(_, attributes)| *attributes != usual);
    LocalRoute {
        prefix,
        kind: row.kind,
        next_hop: NextHop::Own,
        discard: row.discard,
        recipients,
        exceptions: exceptions.collect(),
        attributes: usual,
    }
}

#[cfg(test)]
mod tests;
