// SPDX-License-Identifier: Apache-2.0
//! Who an instance speaks with.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rhumb_api::{
    BGPClusterConfigSpec, BGPPeerConfigSpec, BgpFamily, BgpInstance, BgpPeer, BgpPeerAsn, ObjectKey,
    SecretReference, Selector,
};
use rhumb_bgp_feed::{
    Bfd, FamilyConfig, GracefulRestart, Instance, Peer, PeerAddress, PeerAsn, PeerKey, Secret, Shutdown,
    Timers, Ttl,
};
use rhumb_model::{Family, NodeName};

use super::policy::{Usual, export, import};
use super::{Inputs, Problem};
use crate::bgp::inputs::SECRET_NAMESPACE;

/// Port of BGP (RFC 4271 §3).
const PORT: u16 = 179;

/// Entry of a Secret when none is named.
const ENTRY: &str = "password";

/// A peer, and what it hears of.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) peer: Peer,
    /// Which BGPAdvertisement objects, by family.
    pub(super) hears: Vec<(Family, Selector)>,
}

/// A peer before anybody says how to speak with it.
#[derive(Debug)]
struct Found {
    key: PeerKey,
    address: PeerAddress,
    asn: PeerAsn,
    /// The address to connect from, where that is known.
    local: Option<IpAddr>,
    passive: bool,
    client: bool,
    usual: Usual,
}

/// The peers of an instance, by key. Where several rules find the same address, the first one counts.
pub(super) fn of(
    node: &NodeName,
    config: &BGPClusterConfigSpec,
    wanted: &BgpInstance,
    instance: &Instance,
    inputs: &Inputs,
    problems: &mut Vec<Problem>,
) -> Vec<Known> {
    let mut seen = BTreeSet::new();
    let mut known = Vec::new();
    for peer in &wanted.peers {
        for found in find(node, config, wanted, peer, inputs) {
            if !seen.insert(found.address.clone()) {
                continue;
            }
            match settle(found, peer, instance, inputs) {
                Ok(peer) => known.push(peer),
                Err(problem) => problems.push(problem),
            }
        }
    }
    known.sort_by(|a, b| a.peer.key.cmp(&b.peer.key));
    known
}

/// The peers that a rule finds.
fn find(
    node: &NodeName,
    config: &BGPClusterConfigSpec,
    wanted: &BgpInstance,
    peer: &BgpPeer,
    inputs: &Inputs,
) -> Vec<Found> {
    let prefix = format!("{}/{}", wanted.name, peer.name);
    let router = |key: String, address| Found {
        key: PeerKey(key),
        address,
        asn: match peer.asn {
            Some(BgpPeerAsn::Number(number)) => PeerAsn::Number(number),
            Some(BgpPeerAsn::Internal) => PeerAsn::Internal,
            Some(BgpPeerAsn::External) => PeerAsn::External,
            Some(BgpPeerAsn::Any) | None => PeerAsn::Any,
        },
        local: None,
        passive: false,
        client: false,
        usual: Usual::Router,
    };
    if let Some(address) = peer.address {
        return vec![router(prefix, PeerAddress::Ip(address))];
    }
    if let Some(interface) = &peer.interface {
        return vec![router(prefix, PeerAddress::Interface(interface.clone()))];
    }
    if let Some(gateways) = &peer.default_gateway {
        let chosen =
            inputs.gateways.iter().filter(|(address, _)| gateways.families.contains(&Family::of(*address)));
        return chosen
            .map(|(address, interface)| {
                let address = match address {
                    IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                        PeerAddress::Scoped { address: *v6, interface: interface.clone() }
                    }
                    IpAddr::V4(_) | IpAddr::V6(_) => PeerAddress::Ip(*address),
                };
                router(format!("{prefix}/{address}"), address)
            })
            .collect();
    }
    let (transport, reflectors) = match (&peer.node_mesh, &peer.route_reflectors) {
        (Some(mesh), _) => (mesh.transport, None),
        (None, Some(reflectors)) => (reflectors.transport, Some(&reflectors.node_selector)),
        (None, None) => return Vec::new(),
    };
    let reflects = |labels| reflectors.is_some_and(|selector| selector.matches(labels));
    let we_reflect = inputs.nodes.get(node).is_some_and(&reflects);
    let others = inputs.nodes.iter().filter(|(name, labels)| {
        *name != node
            && config.node_selector.matches(labels)
            && (reflectors.is_none() || we_reflect || reflects(labels))
    });
    others
        .filter_map(|(name, labels)| {
            let client = we_reflect && !reflects(labels);
            Some(Found {
                key: PeerKey(format!("{prefix}/{name}")),
                address: PeerAddress::Ip(inputs.primary(name, transport)?),
                asn: PeerAsn::Internal,
                local: inputs.primary(node, transport),
                // One of the two connects, so that a connection of the other does not end a graceful restart.
                passive: match (reflectors.is_some() && we_reflect, reflectors.is_some() && reflects(labels))
                {
                    (true, false) => true,
                    (false, true) => false,
                    (true, true) | (false, false) => node > name,
                },
                client,
                usual: if we_reflect { Usual::Reflected } else { Usual::Node },
            })
        })
        .collect()
}

/// Says how to speak with a peer.
fn settle(found: Found, peer: &BgpPeer, instance: &Instance, inputs: &Inputs) -> Result<Known, Problem> {
    let usual_config = BGPPeerConfigSpec::default();
    let config = match &peer.peer_config {
        None => &usual_config,
        Some(name) => inputs
            .peer_configs
            .get(name)
            .ok_or_else(|| Problem::MissingPeerConfig { peer: found.key.clone(), config: name.clone() })?,
    };
    let md5 = match &config.auth_secret {
        None => None,
        Some(reference) => Some(
            key(reference, inputs)
                .map_err(|why| Problem::MissingAuthSecret { peer: found.key.clone(), why })?,
        ),
    };
    let other = inputs.node_override.as_ref().and_then(|it| it.instance(&instance.name)?.peer(&peer.name));
    let same_family = |address: &IpAddr| match &found.address {
        PeerAddress::Ip(peer) => Family::of(*peer) == Family::of(*address),
        PeerAddress::Scoped { .. } | PeerAddress::Interface(_) => false,
    };
    let local_address = other.and_then(|other| other.local_address).filter(same_family).or(found.local);
    let families = families(config);
    let over_v6 = match &found.address {
        PeerAddress::Ip(address) => Family::of(*address) == Family::V6,
        PeerAddress::Scoped { .. } | PeerAddress::Interface(_) => true,
    };
    let exchanged = families.iter().map(|family| FamilyConfig {
        family: family.family,
        max_prefixes: family.max_prefixes,
        extended_next_hop: family.family == Family::V4 && family.extended_next_hop.unwrap_or(over_v6),
        next_hop_self: family.next_hop_self,
        send_paths: family.send_paths,
        receive_paths: family.receive_paths,
    });
    let peer = Peer {
        asn: found.asn,
        port: other.and_then(|other| other.port).or(config.port).unwrap_or(PORT),
        local_asn: config.local_asn,
        source_interface: config.source_interface.clone().filter(|_| local_address.is_none()),
        local_address,
        md5,
        ttl: match (config.multihop, config.ttl_security) {
            (_, Some(hops)) => Ttl::Security(hops),
            (Some(hops), None) => Ttl::Multihop(hops),
            (None, None) => Ttl::Direct,
        },
        passive: config.passive || found.passive,
        timers: Timers {
            hold_time: config.timers.hold_seconds,
            keepalive: config.timers.keepalive_seconds,
            connect_retry: config.timers.connect_retry_seconds,
        },
        families: exchanged.collect(),
        graceful_restart: config.graceful_restart.enabled.then_some(GracefulRestart {
            restart_time: config.graceful_restart.restart_seconds,
            long_lived_stale_time: config.graceful_restart.long_lived_stale_seconds,
        }),
        import: import(&config.import, found.usual, inputs),
        export: export(&config.export, found.usual),
        route_reflector_client: found.client,
        bfd: config.bfd.map(|bfd| Bfd {
            transmit_ms: bfd.transmit_milliseconds,
            receive_ms: bfd.receive_milliseconds,
            multiplier: bfd.multiplier,
            multihop: bfd
                .multihop
                .unwrap_or(config.multihop.or(config.ttl_security).is_some_and(|hops| hops > 1)),
            hold: bfd.hold,
        }),
        shutdown: config.shutdown.clone().map(|reason| Shutdown { reason }),
        key: found.key,
        address: found.address,
    };
    let hears = families.into_iter().map(|family| (family.family, family.advertisements)).collect();
    Ok(Known { peer, hears })
}

/// The families to exchange: both when nothing is said.
fn families(config: &BGPPeerConfigSpec) -> Vec<BgpFamily> {
    if !config.families.is_empty() {
        return config.families.clone();
    }
    let usual = |family| BgpFamily {
        family,
        max_prefixes: None,
        extended_next_hop: None,
        next_hop_self: false,
        send_paths: 1,
        receive_paths: false,
        advertisements: Selector::default(),
    };
    Family::BOTH.map(usual).to_vec()
}

/// The key of a session, or why there is none.
fn key(reference: &SecretReference, inputs: &Inputs) -> Result<Secret, String> {
    if let Some(file) = &reference.file {
        return match inputs.keys.files.get(file) {
            Some(Ok(key)) => Ok(key.clone()),
            Some(Err(why)) => Err(format!("key file {}: {why}", file.display())),
            None => Err(format!("key file {}: not read yet", file.display())),
        };
    }
    let namespace = reference.namespace.as_deref().unwrap_or(SECRET_NAMESPACE);
    let object = ObjectKey::namespaced(namespace, reference.name.clone().unwrap_or_default());
    let Some(entries) = inputs.keys.secrets.get(&object) else { return Err(format!("no Secret {object}")) };
    let entry = reference.key.as_deref().unwrap_or(ENTRY);
    entries
        .get(entry)
        .cloned()
        .ok_or_else(|| format!("Secret {object} has no entry {entry} of 1 to 80 bytes of text"))
}
