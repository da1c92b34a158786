// SPDX-License-Identifier: Apache-2.0
//! What the speaker of this node is to do, from what people, the operator and the node say. Pure.
//!
//! ```text
//!   BGPClusterConfig ─ chooses the node ─► instances ─► peers ◄─ BGPPeerConfig, BGPNodeOverride, keys,
//!                                                        │        gateways, other nodes
//!                                    BGPAdvertisement ───┴─► routes, each with who is told and how
//! ```

mod peers;
mod policy;
mod routes;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rhumb_api::{BGPClusterConfigSpec, BgpInstance, BgpMonitoring, BgpView};
use rhumb_bgp_feed::{Instance, PeerKey, Station};
use rhumb_model::{Family, NodeName};

use super::inputs::Inputs;

/// What is to be done, and what keeps something from being done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Sorted by name.
    pub(crate) instances: Vec<Instance>,
    pub(crate) problems: Vec<Problem>,
}

/// What keeps something from being done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    /// A BGPClusterConfig chooses this node, which another one configures.
    ConflictingClusterConfig { config: String, in_force: String },
    /// A peer is left out: its BGPPeerConfig is not there.
    MissingPeerConfig { peer: PeerKey, config: String },
    /// A peer is left out: the key of its session is not there.
    MissingAuthSecret { peer: PeerKey, why: String },
}

impl Problem {
    /// The condition that it makes true.
    pub(crate) fn condition(&self) -> &'static str {
        match self {
            Problem::ConflictingClusterConfig { .. } => "BGPConflictingClusterConfig",
            Problem::MissingPeerConfig { .. } => "BGPMissingPeerConfig",
            Problem::MissingAuthSecret { .. } => "BGPMissingAuthSecret",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::ConflictingClusterConfig { config, in_force } => {
                write!(f, "BGPClusterConfig {config} is not in force here: {in_force} comes first")
            }
            Problem::MissingPeerConfig { peer, config } => {
                write!(f, "peer {peer} is left out: no BGPPeerConfig {config}")
            }
            Problem::MissingAuthSecret { peer, why } => write!(f, "peer {peer} is left out: {why}"),
        }
    }
}

/// Plans for `node`.
pub(crate) fn plan(node: &NodeName, inputs: &Inputs) -> Plan {
    let mut plan = Plan::default();
    let Some(config) = choose(node, inputs, &mut plan.problems) else { return plan };
    for wanted in &config.instances {
        let mut instance = instance(node, wanted, inputs);
        let known = peers::of(node, config, wanted, &instance, inputs, &mut plan.problems);
        instance.routes = routes::of(&known, inputs);
        instance.peers = known.into_iter().map(|known| known.peer).collect();
        plan.instances.push(instance);
    }
    plan.instances.sort_by(|a, b| a.name.cmp(&b.name));
    plan.problems.sort();
    plan
}

/// The object that configures the node: of those that choose it, the one whose name comes first.
fn choose<'a>(
    node: &NodeName,
    inputs: &'a Inputs,
    problems: &mut Vec<Problem>,
) -> Option<&'a BGPClusterConfigSpec> {
    let labels = inputs.nodes.get(node).cloned().unwrap_or_default();
    let mut chosen: Option<(&String, &BGPClusterConfigSpec)> = None;
    for (name, spec) in &inputs.cluster_configs {
        if !spec.node_selector.matches(&labels) {
            continue;
        }
        match chosen {
            None => chosen = Some((name, spec)),
            Some((in_force, _)) => problems
                .push(Problem::ConflictingClusterConfig { config: name.clone(), in_force: in_force.clone() }),
        }
    }
    chosen.map(|(_, spec)| spec)
}

/// An instance without peers and routes.
fn instance(node: &NodeName, wanted: &BgpInstance, inputs: &Inputs) -> Instance {
    let other = inputs.node_override.as_ref().and_then(|it| it.instance(&wanted.name));
    let port = other.and_then(|other| other.listen_port).or(wanted.listen_port);
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    Instance {
        name: wanted.name.clone(),
        asn: other.and_then(|other| other.asn).unwrap_or(wanted.asn),
        router_id: other.and_then(|other| other.router_id).unwrap_or_else(|| router_id(node, inputs)),
        listen: port
            .into_iter()
            .flat_map(|port| everywhere.map(|address| SocketAddr::new(address, port)))
            .collect(),
        cluster_id: wanted.cluster_id,
        multipath: wanted.multipath,
        own: inputs.pod_cidrs.iter().map(|(_, prefix)| *prefix).collect(),
        peers: Vec::new(),
        routes: Vec::new(),
        stations: stations(wanted),
    }
}

/// The stations of an instance, in the order of their addresses.
fn stations(wanted: &BgpInstance) -> Vec<Station> {
    let station = |wish: &BgpMonitoring| Station {
        address: SocketAddr::new(wish.address, wish.port),
        statistics: wish.statistics_seconds,
        pre_policy: wish.views.contains(&BgpView::PrePolicy),
        post_policy: wish.views.contains(&BgpView::PostPolicy),
    };
    let mut stations: Vec<Station> = wanted.monitoring.iter().map(station).collect();
    stations.sort_unstable();
    stations
}

/// The node's IPv4 address; for a node without one, a number made of its name (FNV-1a), which is the same after every
/// start. An override settles the case of two nodes that come to the same number.
fn router_id(node: &NodeName, inputs: &Inputs) -> Ipv4Addr {
    if let Some(IpAddr::V4(address)) = inputs.primary(node, Family::V4) {
        return address;
    }
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = node.as_str().bytes().fold(0x811c_9dc5, mix);
    Ipv4Addr::from(hash.max(1))
}

#[cfg(test)]
mod tests;
