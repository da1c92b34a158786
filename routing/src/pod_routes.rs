// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{AttachmentKey, Prefix, Target};

use crate::kernel::{Kernel, KernelError, PROTOCOL, Place, Route, Way};
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
}

impl<K: Kernel> PodRoutes<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel }
    }

    /// Our routes to the destination of `key`.
    async fn ours(&self, key: &PodRoute) -> Result<Vec<Route>, RouteError> {
        let observed = self.kernel.pod_routes(Some(&key.attachment)).await;
        let mut observed = observed.map_err(|cause| RouteError::Observe { cause })?;
        let routes = observed.remove(&key.attachment).unwrap_or_default();
        Ok(routes.into_iter().filter(|route| route.dst == key.dst).collect())
    }
}

fn next_hop(routes: &[Route]) -> PodNextHop {
    let [Route { way: Way::Link { gateway, onlink, .. }, mtu, .. }] = routes else {
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

    async fn observe(&mut self) -> Result<BTreeMap<PodRoute, PodNextHop>, RouteError> {
        let observed = self.kernel.pod_routes(None).await.map_err(|cause| RouteError::Observe { cause })?;
        let mut ours: BTreeMap<PodRoute, Vec<Route>> = BTreeMap::new();
        for (attachment, routes) in observed {
            for route in routes {
                let key = PodRoute { attachment: attachment.clone(), dst: route.dst };
                ours.entry(key).or_default().push(route);
            }
        }
        Ok(ours.into_iter().map(|(key, routes)| (key, next_hop(&routes))).collect())
    }

    async fn put(&mut self, key: &PodRoute, value: &PodNextHop) -> Result<(), RouteError> {
        let place = Place::Pod(key.attachment.clone());
        let ours = self.ours(key).await?;
        let PodNextHop { gateway, mtu, onlink } = *value;
        let ifname = Some(key.attachment.ifname.clone());
        let first = ours.iter().map(|route| route.metric).min().unwrap_or(usual_metric(key.dst.family()));
        let way = Way::Link { ifname, gateway, onlink };
        let mut wanted = Route { dst: key.dst, metric: first, way, mtu, protocol: PROTOCOL };
        loop {
            match exchange(&self.kernel, &place, &wanted, &ours).await {
                Err(RouteError::Occupied { metric, .. }) if metric < first + RIVALS => wanted.metric += 1,
                result => return result,
            }
        }
    }

    async fn remove(&mut self, key: &PodRoute) -> Result<(), RouteError> {
        let place = Place::Pod(key.attachment.clone());
        let ours = self.ours(key).await?;
        let failed = |cause: KernelError| RouteError::Kernel { dst: key.dst, place: place.clone(), cause };
        remove(&self.kernel, &place, ours).await.map_err(failed)
    }
}
