// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{AttachmentKey, Prefix, Target};

use crate::kernel::{Change, Kernel, KernelError, NextHop, PROTOCOL, Place, Route};
use crate::netlink::Netlink;
use crate::routes::{RouteError, exchange, remove, usual_metric};

/// How many interfaces of one pod may have a route to the same destination; those that came first win.
const RIVALS: u32 = 16;

/// A route inside of a pod, through the attachment's interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRoute {
    /// Which interface of which container.
    pub attachment: AttachmentKey,
    /// Destination.
    pub dst: Prefix,
}

impl fmt::Display for PodRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through {}", self.dst, self.attachment)
    }
}

/// Where a pod's packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNextHop {
    /// Next hop; without one the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// MTU in bytes, where it differs from the interface's.
    pub mtu: Option<u32>,
    /// Whether the gateway is taken to be a neighbour without a route to it.
    pub onlink: bool,
}

impl PodNextHop {
    /// Stands for routes that rhumb never puts in this form, and so differs from everything desired.
    const STRANGE: PodNextHop =
        PodNextHop { gateway: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), mtu: Some(0), onlink: true };
}

/// The routes of rhumb inside of pods, known by their protocol number. Routes of others are never touched. Where
/// another route has the same destination and metric (a second interface of the pod, say), ours takes the next higher
/// metric that is free: the one that came first wins. Only open namespaces are looked at; in one that is not open, a
/// removal finds nothing to do.
#[derive(Debug)]
pub struct PodRoutes<K = Netlink> {
    kernel: K,
    /// Keys that have a route of ours, as far as is known.
    seen: BTreeSet<PodRoute>,
}

impl<K: Kernel> PodRoutes<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, seen: BTreeSet::new() }
    }

    /// Forgets what is known of an attachment whose routes are left to the pod, or went with its link.
    pub fn forget(&mut self, attachment: &AttachmentKey) {
        self.seen.retain(|key| key.attachment != *attachment);
    }

    /// Our routes through the attachment's interface.
    async fn ours(&self, attachment: &AttachmentKey) -> Result<Vec<Route>, KernelError> {
        Ok(self.kernel.pod_routes(Some(attachment)).await?.remove(attachment).unwrap_or_default())
    }

    /// Adds those of a group for one attachment that nothing of ours is known to be in the way of; says which.
    async fn add(&mut self, group: &[(PodRoute, PodNextHop)]) -> BTreeSet<PodRoute> {
        let fresh: Vec<_> = group.iter().filter(|(key, _)| !self.seen.contains(key)).collect();
        let route = |(key, value): &&(PodRoute, PodNextHop)| {
            Change::AddRoute(route(key, value, usual_metric(key.dst.family())))
        };
        let changes = fresh.iter().map(route).collect();
        let added = self.kernel.apply(Place::Pod(group[0].0.attachment.clone()), changes).await;
        let added = fresh.into_iter().zip(added).filter(|(_, result)| result.is_ok());
        let added: BTreeSet<PodRoute> = added.map(|((key, _), _)| key.clone()).collect();
        self.seen.extend(added.iter().cloned());
        added
    }
}

fn route(key: &PodRoute, value: &PodNextHop, metric: u32) -> Route {
    let PodNextHop { gateway, mtu, onlink } = *value;
    let next_hop = NextHop::Link { ifname: Some(key.attachment.ifname.clone()), gateway, onlink };
    Route { dst: key.dst, metric, next_hop, mtu, source: None, protocol: PROTOCOL }
}

fn next_hop(routes: &[Route]) -> PodNextHop {
    let [Route { next_hop: NextHop::Link { gateway, onlink, .. }, mtu, .. }] = routes else {
        return PodNextHop::STRANGE;
    };
    PodNextHop { gateway: *gateway, mtu: *mtu, onlink: *onlink }
}

impl<K: Kernel> Target for PodRoutes<K> {
    type Key = PodRoute;
    type Value = PodNextHop;
    type Error = RouteError;

    fn kind(&self) -> &'static str {
        "pod route"
    }

    fn is_retryable(error: &RouteError) -> bool {
        error.is_retryable()
    }

    async fn observe(&mut self) -> Result<BTreeMap<PodRoute, PodNextHop>, RouteError> {
        let observed = self.kernel.pod_routes(None).await.map_err(|cause| RouteError::Observe { cause })?;
        let mut ours: BTreeMap<PodRoute, Vec<Route>> = BTreeMap::new();
        for (attachment, routes) in observed {
            for route in routes {
                let key = PodRoute { attachment: attachment.clone(), dst: route.dst };
                ours.entry(key).or_default().push(route);
            }
        }
        self.seen = ours.keys().cloned().collect();
        Ok(ours.into_iter().map(|(key, routes)| (key, next_hop(&routes))).collect())
    }

    async fn put(&mut self, key: &PodRoute, value: &PodNextHop) -> Result<(), RouteError> {
        let place = Place::Pod(key.attachment.clone());
        let mut ours = self.ours(&key.attachment).await.map_err(|cause| RouteError::Observe { cause })?;
        ours.retain(|route| route.dst == key.dst);
        let first = ours.iter().map(|route| route.metric).min().unwrap_or(usual_metric(key.dst.family()));
        let mut wanted = route(key, value, first);
        self.seen.insert(key.clone());
        loop {
            match exchange(&self.kernel, &place, &wanted, &ours).await {
                Err(RouteError::Occupied { metric, .. }) if metric < first + RIVALS => wanted.metric += 1,
                result => return result,
            }
        }
    }

    async fn remove(&mut self, key: &PodRoute) -> Result<(), RouteError> {
        self.remove_all(std::slice::from_ref(key)).await.pop().expect("one result per key")
    }

    async fn put_all(&mut self, batch: &[(PodRoute, PodNextHop)]) -> Vec<Result<(), RouteError>> {
        let mut results = Vec::with_capacity(batch.len());
        for group in batch.chunk_by(|(one, _), (next, _)| one.attachment == next.attachment) {
            let added = self.add(group).await;
            for (key, value) in group {
                results.push(if added.contains(key) { Ok(()) } else { self.put(key, value).await });
            }
        }
        results
    }

    async fn remove_all(&mut self, batch: &[PodRoute]) -> Vec<Result<(), RouteError>> {
        let mut results = Vec::with_capacity(batch.len());
        for group in batch.chunk_by(|one, next| one.attachment == next.attachment) {
            let attachment = &group[0].attachment;
            let ours = match self.ours(attachment).await {
                Ok(ours) => ours,
                Err(cause) => {
                    results.extend(group.iter().map(|_| Err(RouteError::Observe { cause: cause.again() })));
                    continue;
                }
            };
            let place = Place::Pod(attachment.clone());
            for key in group {
                let routes = ours.iter().filter(|route| route.dst == key.dst).cloned().collect();
                let removed = remove(&self.kernel, &place, routes).await;
                if removed.is_ok() {
                    self.seen.remove(key);
                }
                results.push(removed.map_err(|cause| RouteError::Kernel {
                    dst: key.dst,
                    place: place.clone(),
                    cause,
                }));
            }
        }
        results
    }
}
