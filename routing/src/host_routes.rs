// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{IfName, Prefix, Target};

use crate::kernel::{Change, Kernel, KernelError, NextHop, PROTOCOL, Place, Route};
use crate::netlink::Netlink;
use crate::routes::{RouteError, exchange, usual_metric};

/// Metric of unreachable routes: any route of others to the same destination wins.
const LAST_METRIC: u32 = 0xffff_0000;

/// Metric of routes into a tunnel: any route of others to the same destination wins, and none is refused for it.
const TUNNEL_METRIC: u32 = 0xfffe_0000;

/// Where packets to a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRoute {
    /// Out of a link, to a neighbour there.
    Device {
        /// Name of the link.
        ifname: IfName,
    },
    /// Into a tunnel, which knows where each packet goes, unless another program has a route to the prefix.
    Tunnel {
        /// Name of the tunnel's link.
        ifname: IfName,
        /// MTU in bytes.
        mtu: u32,
        /// Source of what the host itself sends; `None` lets the kernel choose.
        source: Option<IpAddr>,
    },
    /// To a gateway.
    Via {
        /// The gateway.
        gateway: IpAddr,
        /// Name of the link to it; `None` lets the kernel find it.
        ifname: Option<IfName>,
    },
    /// Nowhere, unless there is a route to part of the prefix, or another route to all of it.
    Unreachable,
}

impl HostRoute {
    /// Stands for routes that rhumb never puts in this form, and so differs from everything desired.
    const STRANGE: HostRoute = HostRoute::Via { gateway: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ifname: None };
}

/// The routes of rhumb in the host's main table, known by their protocol number. Routes of others are never
/// touched; one with the same destination and metric is an error.
///
/// The kernel drops routes with the link they lead to, and says so only for IPv6: look again when links went.
#[derive(Debug)]
pub struct HostRoutes<K = Netlink> {
    kernel: K,
    seen: BTreeMap<Prefix, Vec<Route>>,
    /// Routes that were put without a link of their gateway.
    unbound: BTreeSet<Prefix>,
}

impl<K: Kernel> HostRoutes<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, seen: BTreeMap::new(), unbound: BTreeSet::new() }
    }

    async fn look(&mut self) -> Result<(), KernelError> {
        let routes = self.kernel.host_routes().await?;
        self.seen.clear();
        for route in routes {
            self.seen.entry(route.dst).or_default().push(route);
        }
        self.unbound.retain(|prefix| self.seen.contains_key(prefix));
        Ok(())
    }

    fn value(&self, prefix: Prefix, routes: &[Route]) -> HostRoute {
        let [route] = routes else { return HostRoute::STRANGE };
        let usual = route.metric == usual_metric(prefix.family());
        match &route.next_hop {
            NextHop::Link { ifname: Some(ifname), gateway: None, .. } => match route.mtu {
                Some(mtu) if route.metric == TUNNEL_METRIC => {
                    HostRoute::Tunnel { ifname: ifname.clone(), mtu, source: route.source }
                }
                None if usual => HostRoute::Device { ifname: ifname.clone() },
                Some(_) | None => HostRoute::STRANGE,
            },
            NextHop::Link { ifname: Some(ifname), gateway: Some(gateway), .. } if usual => HostRoute::Via {
                gateway: *gateway,
                ifname: (!self.unbound.contains(&prefix)).then(|| ifname.clone()),
            },
            NextHop::Unreachable if route.metric == LAST_METRIC => HostRoute::Unreachable,
            NextHop::Link { .. } | NextHop::Unreachable | NextHop::Other => HostRoute::STRANGE,
        }
    }

    /// Puts a route in place of those that were seen just now.
    async fn exchange(&mut self, prefix: Prefix, value: &HostRoute) -> Result<(), RouteError> {
        let wanted = route(prefix, value);
        let ours = self.seen.get(&prefix).map(Vec::as_slice).unwrap_or_default();
        exchange(&self.kernel, &Place::Host, &wanted, ours).await?;
        self.put_done(&wanted);
        Ok(())
    }

    fn put_done(&mut self, wanted: &Route) {
        self.seen.insert(wanted.dst, vec![wanted.clone()]);
        match wanted.next_hop {
            NextHop::Link { ifname: None, .. } => self.unbound.insert(wanted.dst),
            NextHop::Link { .. } | NextHop::Unreachable | NextHop::Other => self.unbound.remove(&wanted.dst),
        };
    }
}

fn route(dst: Prefix, value: &HostRoute) -> Route {
    let (mtu, source) = match value {
        HostRoute::Tunnel { mtu, source, .. } => (Some(*mtu), *source),
        HostRoute::Device { .. } | HostRoute::Via { .. } | HostRoute::Unreachable => (None, None),
    };
    let (metric, next_hop) = match value {
        HostRoute::Device { ifname } => (
            usual_metric(dst.family()),
            NextHop::Link { ifname: Some(ifname.clone()), gateway: None, onlink: false },
        ),
        HostRoute::Tunnel { ifname, .. } => {
            (TUNNEL_METRIC, NextHop::Link { ifname: Some(ifname.clone()), gateway: None, onlink: false })
        }
        HostRoute::Via { gateway, ifname } => (
            usual_metric(dst.family()),
            NextHop::Link { ifname: ifname.clone(), gateway: Some(*gateway), onlink: false },
        ),
        HostRoute::Unreachable => (LAST_METRIC, NextHop::Unreachable),
    };
    Route { dst, metric, next_hop, mtu, source, protocol: PROTOCOL }
}

impl<K: Kernel> Target for HostRoutes<K> {
    type Key = Prefix;
    type Value = HostRoute;
    type Error = RouteError;

    fn kind(&self) -> &'static str {
        "host route"
    }

    fn is_retryable(error: &RouteError) -> bool {
        error.is_retryable()
    }

    async fn observe(&mut self) -> Result<BTreeMap<Prefix, HostRoute>, RouteError> {
        self.look().await.map_err(|cause| RouteError::Observe { cause })?;
        Ok(self.seen.iter().map(|(prefix, routes)| (*prefix, self.value(*prefix, routes))).collect())
    }

    async fn put(&mut self, key: &Prefix, value: &HostRoute) -> Result<(), RouteError> {
        self.look().await.map_err(|cause| RouteError::Observe { cause })?;
        self.exchange(*key, value).await
    }

    async fn remove(&mut self, key: &Prefix) -> Result<(), RouteError> {
        self.remove_all(std::slice::from_ref(key)).await.pop().expect("one result per key")
    }

    async fn put_all(&mut self, batch: &[(Prefix, HostRoute)]) -> Vec<Result<(), RouteError>> {
        let fresh: Vec<Route> = batch
            .iter()
            .filter(|(prefix, _)| !self.seen.contains_key(prefix))
            .map(|(prefix, value)| route(*prefix, value))
            .collect();
        let changes = fresh.iter().cloned().map(Change::AddRoute).collect();
        let applied = self.kernel.apply(Place::Host, changes).await;
        let mut done = BTreeSet::new();
        for (route, result) in fresh.iter().zip(applied) {
            if result.is_ok() {
                self.put_done(route);
                done.insert(route.dst);
            }
        }
        let looked = if done.len() < batch.len() { self.look().await } else { Ok(()) };
        let mut results = Vec::with_capacity(batch.len());
        for (prefix, value) in batch {
            results.push(match &looked {
                _ if done.contains(prefix) => Ok(()),
                Ok(()) => self.exchange(*prefix, value).await,
                Err(cause) => Err(RouteError::Observe { cause: cause.again() }),
            });
        }
        results
    }

    async fn remove_all(&mut self, batch: &[Prefix]) -> Vec<Result<(), RouteError>> {
        let unknown = batch.iter().any(|prefix| !self.seen.contains_key(prefix));
        if unknown && let Err(cause) = self.look().await {
            return batch.iter().map(|_| Err(RouteError::Observe { cause: cause.again() })).collect();
        }
        let of = |prefix: &Prefix| self.seen.get(prefix).map(Vec::as_slice).unwrap_or_default();
        let changes = batch.iter().flat_map(of).cloned().map(Change::RemoveRoute).collect();
        let mut applied = self.kernel.apply(Place::Host, changes).await.into_iter();
        let mut results = Vec::with_capacity(batch.len());
        for prefix in batch {
            let removed: Vec<_> = applied.by_ref().take(of(prefix).len()).collect();
            let failed = removed.into_iter().filter_map(Result::err).find(|error| !error.is_absent());
            results.push(match failed {
                Some(cause) => Err(RouteError::Kernel { dst: *prefix, place: Place::Host, cause }),
                None => Ok(()),
            });
        }
        for (prefix, _) in batch.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
            self.seen.remove(prefix);
            self.unbound.remove(prefix);
        }
        results
    }
}
