// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use rhumb_model::{Family, IfName, Prefix, Target};

use crate::kernel::{Change, Kernel, NextHop, PROTOCOL, Place, Route};
use crate::netlink::Netlink;
use crate::routes::{RouteError, usual_metric};

/// A destination in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// Number of the table; not the main one.
    pub table: u32,
    /// Destination.
    pub dst: Prefix,
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in table {}", self.dst, self.table)
    }
}

/// Where packets to a destination go, by the rule that leads to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableRoute {
    /// Out of a link.
    Link {
        /// Name of the link.
        ifname: IfName,
        /// A router on it; `None` is that the destination is on the link.
        gateway: Option<IpAddr>,
    },
    /// Nowhere: the sender hears of it.
    Unreachable,
}

impl TableRoute {
    /// Stands for routes that rhumb never puts in this form, and so differs from everything desired.
    fn strange() -> TableRoute {
        TableRoute::Link { ifname: IfName::new("lo").expect("a valid name"), gateway: None }
    }
}

/// The routes of rhumb in tables other than the main one, known by their protocol number. Routes of others in the same
/// tables are never touched; one with the same destination and metric is an error.
///
/// The kernel drops routes with the link they lead to, and says so only for IPv6: look again when links went.
#[derive(Debug)]
pub struct TableRoutes<K = Netlink> {
    kernel: K,
    seen: BTreeMap<TableKey, Vec<Route>>,
}

impl<K: Kernel> TableRoutes<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, seen: BTreeMap::new() }
    }

    async fn look(&mut self) -> Result<(), RouteError> {
        let routes = self.kernel.table_routes().await.map_err(|cause| RouteError::Observe { cause })?;
        self.seen.clear();
        for (table, route) in routes {
            self.seen.entry(TableKey { table, dst: route.dst }).or_default().push(route);
        }
        Ok(())
    }

    async fn apply(&self, key: &TableKey, change: Change) -> Result<(), RouteError> {
        let result = self.kernel.apply(Place::Host, vec![change]).await.pop().expect("one result per change");
        let metric = usual_metric(key.dst.family());
        result.map_err(|cause| {
            if cause.is_present() {
                RouteError::Occupied { dst: key.dst, metric, place: Place::Host }
            } else {
                RouteError::Kernel { dst: key.dst, place: Place::Host, cause }
            }
        })
    }

    async fn drop_all(&self, key: &TableKey, routes: Vec<Route>) -> Result<(), RouteError> {
        for route in routes {
            match self.apply(key, Change::RemoveTableRoute(key.table, route)).await {
                Err(RouteError::Kernel { cause, .. }) if cause.is_absent() => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn route(dst: Prefix, value: &TableRoute) -> Route {
    let next_hop = match value {
        TableRoute::Link { ifname, gateway } => NextHop::Link {
            ifname: Some(ifname.clone()),
            gateway: *gateway,
            // IPv6 finds link-local neighbours without a route; an IPv4 gateway has one in the same table, which the
            // kernel does not look at when it checks the next hop.
            onlink: gateway.is_some_and(|gateway| Family::of(gateway) == Family::V4),
        },
        TableRoute::Unreachable => NextHop::Unreachable,
    };
    Route { dst, metric: usual_metric(dst.family()), next_hop, mtu: None, source: None, protocol: PROTOCOL }
}

fn value(routes: &[Route]) -> TableRoute {
    let [route] = routes else { return TableRoute::strange() };
    if route.metric != usual_metric(route.dst.family()) || route.mtu.is_some() || route.source.is_some() {
        return TableRoute::strange();
    }
    match &route.next_hop {
        NextHop::Link { ifname: Some(ifname), gateway, .. } => {
            TableRoute::Link { ifname: ifname.clone(), gateway: *gateway }
        }
        NextHop::Unreachable => TableRoute::Unreachable,
        NextHop::Link { ifname: None, .. } | NextHop::Other => TableRoute::strange(),
    }
}

impl<K: Kernel> Target for TableRoutes<K> {
    type Key = TableKey;
    type Value = TableRoute;
    type Error = RouteError;

    fn kind(&self) -> &'static str {
        "table route"
    }

    fn is_retryable(error: &RouteError) -> bool {
        error.is_retryable()
    }

    async fn observe(&mut self) -> Result<BTreeMap<TableKey, TableRoute>, RouteError> {
        self.look().await?;
        Ok(self.seen.iter().map(|(key, routes)| (*key, value(routes))).collect())
    }

    async fn put(&mut self, key: &TableKey, value: &TableRoute) -> Result<(), RouteError> {
        let wanted = route(key.dst, value);
        if !self.seen.contains_key(key) {
            match self.apply(key, Change::AddTableRoute(key.table, wanted.clone())).await {
                Ok(()) => {
                    self.seen.insert(*key, vec![wanted]);
                    return Ok(());
                }
                Err(RouteError::Occupied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.look().await?;
        let ours = self.seen.get(key).cloned().unwrap_or_default();
        let (same, others): (Vec<Route>, Vec<Route>) =
            ours.into_iter().partition(|route| route.metric == wanted.metric);
        // Only where ours is there may it be replaced: the kernel would put it in place of a foreign one as well.
        let change = if same.is_empty() { Change::AddTableRoute } else { Change::ReplaceTableRoute };
        self.apply(key, change(key.table, wanted.clone())).await?;
        self.drop_all(key, others).await?;
        self.seen.insert(*key, vec![wanted]);
        Ok(())
    }

    async fn remove(&mut self, key: &TableKey) -> Result<(), RouteError> {
        if !self.seen.contains_key(key) {
            self.look().await?;
        }
        let ours = self.seen.get(key).cloned().unwrap_or_default();
        self.drop_all(key, ours).await?;
        self.seen.remove(key);
        Ok(())
    }
}
