// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Family, IfName};
use serde::{Deserialize, Serialize};

use super::{asn, at, label, once};
use crate::own::{named, own_kind};
use crate::{Condition, FieldError, ObjectMeta, Selector};

/// With whom the nodes that it chooses speak BGP.
///
/// A node is configured by one: of several that choose it, the one whose name comes first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BGPClusterConfig {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: BGPClusterConfigSpec,
    /// What the operator says of it.
    pub status: BGPClusterConfigStatus,
}

own_kind!(BGPClusterConfig, "bgpclusterconfigs", spec: BGPClusterConfigSpec; status: BGPClusterConfigStatus);

/// What the operator says of a [`BGPClusterConfig`]. How it stands on each node, the node's
/// [`crate::NodeState`] says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BGPClusterConfigStatus {
    /// On how many nodes it is in force.
    pub nodes: u32,
    /// Conditions, one per type.
    pub conditions: Vec<Condition>,
}

/// With whom the nodes that it chooses speak BGP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BGPClusterConfigSpec {
    /// The nodes, by the labels of their Node objects; all of them when nothing is said.
    #[serde(default)]
    pub node_selector: Selector,
    /// Speakers of each of these nodes, with names that differ.
    pub instances: Vec<BgpInstance>,
}

/// One speaker: an AS, its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpInstance {
    /// Its name.
    pub name: String,
    /// AS of the nodes; a [`crate::BGPNodeOverride`] gives a node another.
    pub asn: u32,
    /// TCP port at which peers may connect; without it they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Cluster id of reflectors (RFC 4456), the same on those that reflect for the same clients; the router id when
    /// nothing is said.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Ipv4Addr>,
    /// Over how many equal routes packets are spread, 1 to 64.
    #[serde(default = "multipath")]
    pub multipath: u8,
    /// Its peers, with names that differ.
    #[serde(default)]
    pub peers: Vec<BgpPeer>,
    /// Stations that are told what peers tell (RFC 7854).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitoring: Vec<BgpMonitoring>,
}

/// A monitoring station (RFC 7854), to which every node of the object connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpMonitoring {
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Time between numbers of each peer, 10 to 86400 seconds; 0: none are sent.
    #[serde(default = "statistics")]
    pub statistics_seconds: u32,
    /// Which routes it is told of, at least one kind.
    #[serde(default = "views")]
    pub views: Vec<BgpView>,
}

/// Which routes of peers a station is told of (RFC 7854 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BgpView {
    /// As peers told them.
    PrePolicy,
    /// As they were accepted.
    PostPolicy,
}

fn statistics() -> u32 {
    60
}

fn views() -> Vec<BgpView> {
    vec![BgpView::PrePolicy]
}

fn multipath() -> u8 {
    16
}

/// One peer, or a rule that finds peers: exactly one of `address`, `interface`, `defaultGateway`, `nodeMesh` and
/// `routeReflectors` is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// Its AS: a number, `internal`, `external` or `any`. A mesh and reflectors are internal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<BgpPeerAsn>,
    /// It is at this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// It is the one router on this link (unnumbered).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<IfName>,
    /// They are the node's default gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_gateway: Option<GatewayPeers>,
    /// They are the other nodes of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh: Option<MeshPeers>,
    /// They are those nodes of this object that reflect routes; a reflector's are all the others (RFC 4456).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflectors: Option<ReflectorPeers>,
    /// Name of the BGPPeerConfig that says how to speak; what is usual when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_config: Option<String>,
}

/// Peers at the next hops of the node's default routes in the main table: all of a route with several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayPeers {
    /// Of which families' default routes.
    #[serde(default = "both")]
    pub families: Vec<Family>,
}

fn both() -> Vec<Family> {
    Family::BOTH.to_vec()
}

/// A session with every other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshPeers {
    /// Between the nodes' addresses of which family.
    #[serde(default = "v4")]
    pub transport: Family,
}

/// Sessions with route reflectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReflectorPeers {
    /// The nodes that reflect.
    pub node_selector: Selector,
    /// Between the nodes' addresses of which family.
    #[serde(default = "v4")]
    pub transport: Family,
}

fn v4() -> Family {
    Family::V4
}

/// Which AS a peer may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BgpPeerAsn {
    /// This one.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
    /// Any.
    Any,
}

const WORDS: [(&str, BgpPeerAsn); 3] =
    [("internal", BgpPeerAsn::Internal), ("external", BgpPeerAsn::External), ("any", BgpPeerAsn::Any)];

impl Serialize for BgpPeerAsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, WORDS.iter().find(|(_, asn)| asn == self)) {
            (BgpPeerAsn::Number(number), _) => serializer.serialize_u32(*number),
            (_, found) => serializer.serialize_str(found.map_or("any", |(word, _)| word)),
        }
    }
}

impl<'de> Deserialize<'de> for BgpPeerAsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = BgpPeerAsn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of an AS, internal, external or any")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<BgpPeerAsn, E> {
                let unexpected = serde::de::Unexpected::Unsigned(number);
                let number = u32::try_from(number).map_err(|_| E::invalid_value(unexpected, &self))?;
                Ok(BgpPeerAsn::Number(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BgpPeerAsn, E> {
                let found = WORDS.iter().find(|(word, _)| *word == text).map(|(_, asn)| *asn);
                found.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl BGPClusterConfig {
    /// An object with this name.
    pub fn new(name: impl Into<String>, spec: BGPClusterConfigSpec) -> Self {
        Self { metadata: named(name), spec, status: BGPClusterConfigStatus::default() }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let spec = &self.spec;
        at("spec.nodeSelector", || spec.node_selector.check())?;
        if spec.instances.is_empty() {
            return Err(FieldError::new("spec.instances", "want at least one instance"));
        }
        for (i, instance) in spec.instances.iter().enumerate() {
            let before = spec.instances[..i].iter();
            at(&format!("spec.instances[{i}]"), || {
                once(&instance.name, before.clone().map(|other| other.name.as_str()))?;
                let same = |other: &&BgpInstance| {
                    instance.listen_port.is_some() && other.listen_port == instance.listen_port
                };
                if let Some(other) = before.clone().find(same) {
                    let message = format!("instance {:?} listens there already", other.name);
                    return Err(FieldError::new("listenPort", message));
                }
                instance.check()
            })?;
        }
        Ok(())
    }
}

impl BgpInstance {
    fn check(&self) -> Result<(), FieldError> {
        asn("asn", self.asn)?;
        if self.listen_port == Some(0) {
            return Err(FieldError::new("listenPort", "0 is no port"));
        }
        if self.cluster_id == Some(Ipv4Addr::UNSPECIFIED) {
            return Err(FieldError::new("clusterID", "0.0.0.0 is no cluster id"));
        }
        if !(1..=64).contains(&self.multipath) {
            return Err(FieldError::new("multipath", format!("{}: want 1 to 64", self.multipath)));
        }
        for (i, peer) in self.peers.iter().enumerate() {
            at(&format!("peers[{i}]"), || {
                once(&peer.name, self.peers[..i].iter().map(|other| other.name.as_str()))?;
                peer.check(self)
            })?;
        }
        for (i, station) in self.monitoring.iter().enumerate() {
            let is_there =
                |other: &BgpMonitoring| (other.address, other.port) == (station.address, station.port);
            at(&format!("monitoring[{i}]"), || match self.monitoring[..i].iter().any(is_there) {
                true => Err(FieldError::new("address", "another entry has this address and port")),
                false => station.check(),
            })?;
        }
        Ok(())
    }
}

impl BgpMonitoring {
    fn check(&self) -> Result<(), FieldError> {
        if self.address.is_unspecified() || self.address.is_multicast() {
            return Err(FieldError::new("address", format!("{}: no station's address", self.address)));
        }
        if self.port == 0 {
            return Err(FieldError::new("port", "0 is no port"));
        }
        if self.statistics_seconds != 0 && !(10..=86400).contains(&self.statistics_seconds) {
            let why = format!("{}: want 0, or 10 to 86400", self.statistics_seconds);
            return Err(FieldError::new("statisticsSeconds", why));
        }
        if self.views.is_empty() {
            return Err(FieldError::new("views", "want prePolicy, postPolicy or both"));
        }
        Ok(())
    }
}

impl BgpPeer {
    fn check(&self, instance: &BgpInstance) -> Result<(), FieldError> {
        let ways = [
            self.address.is_some(),
            self.interface.is_some(),
            self.default_gateway.is_some(),
            self.node_mesh.is_some(),
            self.route_reflectors.is_some(),
        ];
        if ways.iter().filter(|way| **way).count() != 1 {
            let message =
                "want exactly one of address, interface, defaultGateway, nodeMesh and routeReflectors";
            return Err(FieldError::new("", message));
        }
        let between_nodes = self.node_mesh.is_some() || self.route_reflectors.is_some();
        match self.asn {
            None if !between_nodes => {
                return Err(FieldError::new("asn", "want a number, internal, external or any"));
            }
            Some(_) if between_nodes => {
                return Err(FieldError::new("asn", "nodes speak with each other in the AS of the instance"));
            }
            Some(BgpPeerAsn::Number(number)) => asn("asn", number)?,
            Some(BgpPeerAsn::Internal | BgpPeerAsn::External | BgpPeerAsn::Any) | None => {}
        }
        if between_nodes && instance.listen_port.is_none() {
            let message = "nodes that speak with each other need the listenPort of the instance";
            return Err(FieldError::new("", message));
        }
        if let Some(address) = self.address
            && let Some(why) = no_peer(address)
        {
            return Err(FieldError::new("address", format!("{address}: {why}")));
        }
        if let Some(gateways) = &self.default_gateway {
            let families: BTreeSet<Family> = gateways.families.iter().copied().collect();
            if families.is_empty() || families.len() < gateways.families.len() {
                return Err(FieldError::new("defaultGateway.families", "want ipv4, ipv6 or both, each once"));
            }
        }
        if let Some(reflectors) = &self.route_reflectors {
            at("routeReflectors.nodeSelector", || reflectors.node_selector.check())?;
        }
        match &self.peer_config {
            Some(name) => label(name).map_err(|error| FieldError { field: "peerConfig".into(), ..error }),
            None => Ok(()),
        }
    }
}

/// Why no router can be at this address.
fn no_peer(address: IpAddr) -> Option<&'static str> {
    match address {
        address if address.is_unspecified() => Some("is no address of a router"),
        address if address.is_multicast() => Some("is an address of many"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("is an address of many"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("is in use on every link: name the link as `interface`, or use defaultGateway")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
