// SPDX-License-Identifier: Apache-2.0
//! Objects of the store as the plan's inputs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_api::{
    BGPAdvertisement, BGPClusterConfig, BGPNodeOverride, BGPPeerConfig, EndpointSlice, Kind, Node,
    NodeConfig, NodeState, ObjectKey, Pod, PodPool, Service, ServiceAddress, Update,
};
use rhumb_model::{Family, NodeName, PodKey, PoolName, Prefix};

use super::inputs::{Inputs, Labels, PodFacts, PoolFacts, ServiceFacts};

/// Label by which an EndpointSlice names its service.
const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// A change in the store.
#[derive(Debug)]
pub(crate) enum Change {
    ClusterConfigs(Update<BGPClusterConfig>),
    PeerConfigs(Update<BGPPeerConfig>),
    Advertisements(Update<BGPAdvertisement>),
    Overrides(Update<BGPNodeOverride>),
    Nodes(Box<Update<Node>>),
    NodeConfigs(Update<NodeConfig>),
    NodeStates(Update<NodeState>),
    Pools(Update<PodPool>),
    Pods(Box<Update<Pod>>),
    Services(Box<Update<Service>>),
    Slices(Update<EndpointSlice>),
}

/// What is kept of the objects of a kind; `None` before they were seen in full.
type Table<V> = Option<BTreeMap<ObjectKey, V>>;

/// What is kept of the objects.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    cluster_configs: Table<BGPClusterConfig>,
    peer_configs: Table<BGPPeerConfig>,
    advertisements: Table<BGPAdvertisement>,
    overrides: Table<BGPNodeOverride>,
    nodes: Table<Labels>,
    pod_cidrs: Table<Blocks>,
    node_addresses: Table<Vec<IpAddr>>,
    pools: Table<PoolFacts>,
    pod_labels: Table<Labels>,
    services: Table<ServiceFacts>,
    slices: Table<SliceRow>,
}

/// Blocks of a node.
#[derive(Debug, Clone, Default)]
struct Blocks {
    all: Vec<(PoolName, Prefix)>,
    /// Those of them that a cloud interface has.
    of_interfaces: BTreeSet<Prefix>,
}

/// Endpoints of a service that take packets.
#[derive(Debug)]
struct SliceRow {
    service: Option<ObjectKey>,
    anywhere: bool,
    nodes: Vec<String>,
}

impl Objects {
    /// Brings the tables up to date.
    pub(crate) fn take(&mut self, change: Change) {
        match change {
            Change::ClusterConfigs(update) => fold(update, &mut self.cluster_configs, Clone::clone),
            Change::PeerConfigs(update) => fold(update, &mut self.peer_configs, Clone::clone),
            Change::Advertisements(update) => fold(update, &mut self.advertisements, Clone::clone),
            Change::Overrides(update) => fold(update, &mut self.overrides, Clone::clone),
            Change::Nodes(update) => fold(*update, &mut self.nodes, labels),
            Change::NodeConfigs(update) => fold(update, &mut self.pod_cidrs, blocks),
            Change::NodeStates(update) => {
                fold(update, &mut self.node_addresses, |state| state.status.addresses.clone());
            }
            Change::Pools(update) => fold(update, &mut self.pools, pool),
            Change::Pods(update) => fold(*update, &mut self.pod_labels, labels),
            Change::Services(update) => fold(*update, &mut self.services, service),
            Change::Slices(update) => fold(update, &mut self.slices, slice),
        }
    }

    /// Whether every kind was seen in full.
    pub(crate) fn synced(&self) -> bool {
        self.cluster_configs.is_some() && (!self.wants_any() || self.rest_synced())
    }

    /// Whether every kind that matters only where somebody wants BGP was seen in full.
    fn rest_synced(&self) -> bool {
        self.peer_configs.is_some()
            && self.advertisements.is_some()
            && self.overrides.is_some()
            && self.nodes.is_some()
            && self.pod_cidrs.is_some()
            && self.node_addresses.is_some()
            && self.pools.is_some()
            && self.pod_labels.is_some()
            && self.services.is_some()
            && self.slices.is_some()
    }

    /// Whether anybody wants BGP of any node.
    pub(crate) fn wants_any(&self) -> bool {
        self.cluster_configs.as_ref().is_some_and(|configs| !configs.is_empty())
    }

    /// The BGPPeerConfig objects.
    pub(crate) fn peer_configs(&self) -> impl Iterator<Item = &BGPPeerConfig> {
        self.peer_configs.iter().flatten().map(|(_, config)| config)
    }

    /// All that the store says for the plan of `node`, whose pods have these addresses.
    pub(crate) fn inputs(&self, node: &NodeName, pods: &BTreeMap<PodKey, Vec<IpAddr>>) -> Inputs {
        let key = ObjectKey::from(node);
        let own = self.pod_cidrs.as_ref().and_then(|table| table.get(&key).cloned()).unwrap_or_default();
        let specs = |(key, config): (&ObjectKey, &BGPClusterConfig)| (key.name.clone(), config.spec.clone());
        let said = |(key, object): (&ObjectKey, &BGPAdvertisement)| {
            (key.name.clone(), (labels(object), object.spec.clone()))
        };
        let pod = |(key, addresses): (&PodKey, &Vec<IpAddr>)| {
            let labels = self.pod_labels.as_ref().and_then(|pods| pods.get(&ObjectKey::from(key)));
            let labels = labels.cloned().unwrap_or_default();
            (key.clone(), PodFacts { labels, addresses: addresses.clone() })
        };
        Inputs {
            nodes: by_name(&self.nodes),
            node_addresses: by_name(&self.node_addresses),
            pod_cidrs: own.all,
            eni_blocks: own.of_interfaces,
            pools: by_name(&self.pools),
            cluster_configs: self.cluster_configs.iter().flatten().map(specs).collect(),
            peer_configs: self
                .peer_configs
                .iter()
                .flatten()
                .map(|(key, it)| (key.name.clone(), it.spec.clone()))
                .collect(),
            advertisements: self.advertisements.iter().flatten().map(said).collect(),
            node_override: self.overrides.as_ref().and_then(|overrides| overrides.get(&key)).cloned(),
            pods: pods.iter().map(pod).collect(),
            services: self.services(node),
            ..Inputs::default()
        }
    }

    /// Services with what their endpoints say.
    fn services(&self, node: &NodeName) -> BTreeMap<ObjectKey, ServiceFacts> {
        let mut services = self.services.clone().unwrap_or_default();
        for (_, row) in self.slices.iter().flatten() {
            if let Some(facts) = row.service.as_ref().and_then(|key| services.get_mut(key)) {
                facts.ready_anywhere |= row.anywhere;
                facts.ready_here |= row.nodes.iter().any(|other| other == node.as_str());
            }
        }
        services
    }
}

/// A table of objects of the cluster by their names. One whose name is not of the right kind is left out: no node and no
/// pool of ours can be meant by it.
fn by_name<N: Ord + TryFrom<String>, V: Clone>(table: &Table<V>) -> BTreeMap<N, V> {
    let rows = table.iter().flatten();
    rows.filter_map(|(key, row)| Some((N::try_from(key.name.clone()).ok()?, row.clone()))).collect()
}

/// Brings a table up to date; `row` says what it keeps of an object.
fn fold<K: Kind, V>(update: Update<K>, table: &mut Table<V>, row: impl Fn(&K) -> V) {
    match update {
        Update::Snapshot(objects) => {
            *table = Some(objects.iter().map(|object| (object.key(), row(object))).collect());
        }
        Update::Put(object) => {
            if let Some(table) = table {
                table.insert(object.key(), row(&object));
            }
        }
        Update::Delete(object) => {
            if let Some(table) = table {
                table.remove(&object.key());
            }
        }
        // Said in the log by those who follow the same store for the node's loop.
        Update::Stalled(_) => {}
    }
}

fn labels<K: Kind>(object: &K) -> Labels {
    object.metadata().labels.clone().unwrap_or_default()
}

fn blocks(config: &NodeConfig) -> Blocks {
    let blocks = &config.spec.pod_cidrs;
    Blocks {
        all: blocks.iter().map(|block| (block.pool.clone(), block.cidr)).collect(),
        of_interfaces: blocks.iter().filter(|block| block.interface.is_some()).map(|it| it.cidr).collect(),
    }
}

fn pool(pool: &PodPool) -> PoolFacts {
    let parts = Family::BOTH.into_iter().filter_map(|family| pool.family(family));
    PoolFacts { labels: labels(pool), cidrs: parts.flat_map(|part| part.cidrs.iter().copied()).collect() }
}

fn service(service: &Service) -> ServiceFacts {
    let Some(spec) = &service.spec else { return ServiceFacts::default() };
    let balanced = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let balanced = balanced.into_iter().flatten().filter_map(|ingress| ingress.ip.as_ref());
    let cluster: Vec<&String> = match &spec.cluster_ips {
        Some(all) => all.iter().collect(),
        None => spec.cluster_ip.iter().collect(),
    };
    let of = |kind| move |text: &String| Some((kind, text.parse().ok()?));
    // A headless service has the word None there.
    let cluster = cluster.into_iter().filter_map(of(ServiceAddress::ClusterIP));
    let external = spec.external_ips.iter().flatten().filter_map(of(ServiceAddress::ExternalIP));
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    ServiceFacts {
        labels: labels(service),
        addresses: cluster
            .chain(external)
            .chain(balanced.filter_map(of(ServiceAddress::LoadBalancerIP)))
            .collect(),
        external_local: is_local(&spec.external_traffic_policy),
        internal_local: is_local(&spec.internal_traffic_policy),
        ready_anywhere: false,
        ready_here: false,
    }
}

/// An endpoint takes packets when it is ready, or when it still serves while it ends: that is the last resort, and where
/// others are ready the service's packets do not go there.
fn slice(slice: &EndpointSlice) -> SliceRow {
    let usable = slice.endpoints.iter().filter(|endpoint| {
        let Some(conditions) = &endpoint.conditions else { return true };
        let ready = conditions.ready.unwrap_or(true);
        let last = conditions.terminating.unwrap_or(false) && conditions.serving.unwrap_or(ready);
        ready || last
    });
    let nodes: Vec<Option<String>> = usable.map(|endpoint| endpoint.node_name.clone()).collect();
    SliceRow {
        service: slice.label(SERVICE_OF_SLICE).map(|name| ObjectKey { name: name.to_owned(), ..slice.key() }),
        anywhere: !nodes.is_empty(),
        nodes: nodes.into_iter().flatten().collect(),
    }
}

#[cfg(test)]
mod tests;
