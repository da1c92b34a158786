// SPDX-License-Identifier: Apache-2.0
//! Every target of this node with its reconciler, and the order in which they are brought to their desired state.
//!
//! ```text
//!   remove:  pods → host ports → masquerade → ipcache → host routes → rules → table routes → tunnel links
//!            → attachments → filters → pod links → qdiscs → pod addresses → pod routes → links, host addresses,
//!            interfaces, tunnels                                                                 (root to leaf)
//!   put:     interfaces → host addresses → sysctls → tunnels → links → qdiscs → pod addresses → pod routes
//!            → pod links → filters → attachments → tunnel links → table routes → rules → host routes → ipcache → masquerade → pods → host ports (leaf to root)
//! ```

use std::time::Instant;

use rhumb_ebpf::{Attachments, Endpoints, Hook, HostPorts, Ipcache, PodLinks, TunnelLinks, Uplinks};
use rhumb_model::{AttachmentKey, Failure, Outcome, Reconciler, Target};
use rhumb_routing::Filters;
use rhumb_routing::{
    Direction, HostAddresses, HostRoute, HostRoutes, Interfaces, LinkFacts, Links, PodAddresses, PodRoutes,
    Qdiscs, Rules, Sysctls, TableRoutes, Tunnels,
};

use crate::conf_file::ConfFiles;
use crate::desired::{Desired, Programs};

/// The reconcilers of all targets.
pub(crate) struct Kernel {
    pub(crate) sysctls: Reconciler<Sysctls>,
    /// The device through which packets are encapsulated.
    pub(crate) tunnels: Reconciler<Tunnels>,
    pub(crate) links: Reconciler<Links>,
    pub(crate) addresses: Reconciler<PodAddresses>,
    pub(crate) routes: Reconciler<PodRoutes>,
    pub(crate) qdiscs: Reconciler<Qdiscs>,
    pub(crate) pod_links: Reconciler<PodLinks>,
    /// Programs on the host's ends of pods' links, and on the uplinks where the kernel has no tcx.
    pub(crate) filters: Reconciler<Filters>,
    /// Programs on the uplinks where the kernel has tcx.
    pub(crate) attachments: Reconciler<Attachments>,
    /// What the datapath knows of the tunnel.
    pub(crate) tunnel_links: Reconciler<TunnelLinks>,
    pub(crate) host_routes: Reconciler<HostRoutes>,
    /// What is behind addresses elsewhere.
    pub(crate) ipcache: Reconciler<Ipcache>,
    /// Addresses that pods' packets leave with.
    pub(crate) masquerade: Reconciler<Uplinks>,
    pub(crate) pods: Reconciler<Endpoints>,
    /// Interfaces of a cloud: switched on, with their own addresses.
    pub(crate) interfaces: Reconciler<Interfaces>,
    pub(crate) host_addresses: Reconciler<HostAddresses>,
    /// Routes of their tables, and the rules that lead there.
    pub(crate) table_routes: Reconciler<TableRoutes>,
    pub(crate) rules: Reconciler<Rules>,
    pub(crate) host_ports: Reconciler<HostPorts>,
    /// Put by readiness, never removed by the agent: without it the runtime takes the node for not ready.
    pub(crate) conf_files: Reconciler<ConfFiles>,
}

/// State of one target, for people and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct TargetStatus {
    pub(crate) kind: &'static str,
    pub(crate) objects: usize,
    pub(crate) failing: Vec<FailingObject>,
}

/// An object that is not in its desired state.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct FailingObject {
    pub(crate) key: String,
    pub(crate) error: String,
    pub(crate) attempts: u32,
}

/// Calls `$body` with each reconciler and the desired map that belongs to it, in the order of putting.
macro_rules! each {
    ($kernel:expr, $desired:expr, |$reconciler:ident, $map:ident| $body:expr) => {{
        macro_rules! one {
            ($field:ident) => {{
                let $reconciler = &$kernel.$field;
                let $map = &$desired.$field;
                $body
            }};
        }
        one!(sysctls);
        one!(tunnels);
        one!(interfaces);
        one!(host_addresses);
        one!(links);
        one!(qdiscs);
        one!(addresses);
        one!(routes);
        one!(pod_links);
        one!(filters);
        one!(attachments);
        one!(tunnel_links);
        one!(table_routes);
        one!(rules);
        one!(host_routes);
        one!(ipcache);
        one!(masquerade);
        one!(pods);
        one!(host_ports);
    }};
}

impl Kernel {
    /// What the kernel says of the link of an endpoint.
    pub(crate) fn link_facts(&self, key: &AttachmentKey) -> Option<LinkFacts> {
        self.links.target().facts(key)
    }

    /// Removes what is ours and not desired.
    pub(crate) async fn remove(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = Outcome::default();
        add(&mut sum, self.pods.remove_stale(&desired.pods, now).await);
        add(&mut sum, self.host_ports.remove_stale(&desired.host_ports, now).await);
        add(&mut sum, self.masquerade.remove_stale(&desired.masquerade, now).await);
        add(&mut sum, self.ipcache.remove_stale(&desired.ipcache, now).await);
        add(&mut sum, self.host_routes.remove_stale(&desired.host_routes, now).await);
        add(&mut sum, self.rules.remove_stale(&desired.rules, now).await);
        add(&mut sum, self.table_routes.remove_stale(&desired.table_routes, now).await);
        add(&mut sum, self.tunnel_links.remove_stale(&desired.tunnel_links, now).await);
        add(&mut sum, self.attachments.remove_stale(&desired.attachments, now).await);
        add(&mut sum, self.filters.remove_stale(&desired.filters, now).await);
        add(&mut sum, self.pod_links.remove_stale(&desired.pod_links, now).await);
        add(&mut sum, self.qdiscs.remove_stale(&desired.qdiscs, now).await);
        add(&mut sum, self.addresses.remove_stale(&desired.addresses, now).await);
        add(&mut sum, self.routes.remove_stale(&desired.routes, now).await);
        sum
    }

    /// Removes links that nobody wants; after everything that hangs on them.
    pub(crate) async fn remove_links(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = self.links.remove_stale(&desired.links, now).await;
        add(&mut sum, self.host_addresses.remove_stale(&desired.host_addresses, now).await);
        add(&mut sum, self.interfaces.remove_stale(&desired.interfaces, now).await);
        add(&mut sum, self.tunnels.remove_stale(&desired.tunnels, now).await);
        sum
    }

    /// Puts what everything else stands on.
    pub(crate) async fn put_links(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = self.sysctls.put_missing(&desired.sysctls, now).await;
        add(&mut sum, self.put_tunnels(desired, now).await);
        add(&mut sum, self.links.put_missing(&desired.links, now).await);
        sum
    }

    /// Switches interfaces of a cloud on and gives them their addresses.
    pub(crate) async fn put_interfaces(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = self.interfaces.put_missing(&desired.interfaces, now).await;
        add(&mut sum, self.host_addresses.put_missing(&desired.host_addresses, now).await);
        sum
    }

    /// A device that was made anew has lost its routes and programs.
    async fn put_tunnels(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let indices = |kernel: &Self| -> Vec<Option<u32>> {
            desired.tunnels.keys().map(|name| kernel.tunnels.target().ifindex(name)).collect()
        };
        let before = indices(self);
        let outcome = self.tunnels.put_missing(&desired.tunnels, now).await;
        if indices(self) != before {
            self.host_routes.invalidate();
            self.attachments.invalidate();
        }
        outcome
    }

    /// Puts what a pod sees: its limits, addresses and routes.
    pub(crate) async fn put_addresses(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = self.qdiscs.put_missing(&desired.qdiscs, now).await;
        add(&mut sum, self.addresses.put_missing(&desired.addresses, now).await);
        sum
    }

    /// Sends packets into the tunnel whose direct way is lost, before anything else is done. Where the tunnel is not
    /// there yet, that has its turn after it.
    pub(crate) async fn put_tunnelled(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let there = |(ifindex, link)| self.tunnel_links.holds(ifindex, link);
        if desired.tunnel_links.is_empty() || !desired.tunnel_links.iter().all(there) {
            return Outcome::default();
        }
        let tunnelled = desired.ipcache.iter().filter(|(_, remote)| remote.tunnel.is_some());
        let tunnelled = tunnelled.map(|(prefix, remote)| (*prefix, *remote)).collect();
        self.ipcache.put_missing(&tunnelled, now).await
    }

    /// Puts the routes inside of pods.
    pub(crate) async fn put_pod_routes(&mut self, desired: &Desired, now: Instant) -> Outcome {
        self.routes.put_missing(&desired.routes, now).await
    }

    /// Puts the datapath: first what checks a pod's packets, then what leads packets to it.
    pub(crate) async fn put_datapath(&mut self, desired: &Desired, now: Instant) -> Outcome {
        let mut sum = self.pod_links.put_missing(&desired.pod_links, now).await;
        add(&mut sum, self.filters.put_missing(&desired.filters, now).await);
        add(&mut sum, self.attachments.put_missing(&desired.attachments, now).await);
        add(&mut sum, self.tunnel_links.put_missing(&desired.tunnel_links, now).await);
        add(&mut sum, self.table_routes.put_missing(&desired.table_routes, now).await);
        add(&mut sum, self.rules.put_missing(&desired.rules, now).await);
        add(&mut sum, self.host_routes.put_missing(&desired.host_routes, now).await);
        add(&mut sum, self.ipcache.put_missing(&desired.ipcache, now).await);
        add(&mut sum, self.masquerade.put_missing(&desired.masquerade, now).await);
        add(&mut sum, self.pods.put_missing(&desired.pods, now).await);
        add(&mut sum, self.host_ports.put_missing(&desired.host_ports, now).await);
        sum
    }

    /// Whether every one of these objects is known to be as desired.
    pub(crate) fn holds(&self, desired: &Desired) -> bool {
        let mut all = true;
        each!(self, desired, |reconciler, map| {
            all = all && map.iter().all(|(key, value)| reconciler.holds(key, value));
        });
        all
    }

    /// Whether every one of these objects is known to be absent. What lives inside of a pod goes with its link.
    pub(crate) fn lacks(&self, objects: &Desired) -> bool {
        objects.links.keys().all(|key| self.links.lacks(key))
            && objects.pod_links.keys().all(|key| self.pod_links.lacks(key))
            && objects.filters.keys().all(|key| self.filters.lacks(key))
            && objects.host_routes.keys().all(|key| self.host_routes.lacks(key))
            && objects.table_routes.keys().all(|key| self.table_routes.lacks(key))
            && objects.pods.keys().all(|key| self.pods.lacks(key))
            && objects.host_ports.keys().all(|key| self.host_ports.lacks(key))
    }

    /// Whether the state of all these types of objects is known: none has to be observed first.
    pub(crate) fn knows(&self, objects: &Desired) -> bool {
        let mut all = true;
        each!(self, objects, |reconciler, map| all =
            all && (map.is_empty() || reconciler.actual().is_some()));
        all
    }

    /// The worst failure among these objects: one that waiting does not help comes first.
    pub(crate) fn failure(&self, objects: &Desired) -> Option<(&'static str, Failure)> {
        let mut worst: Option<(&'static str, Failure)> = None;
        each!(self, objects, |reconciler, map| {
            let own = reconciler
                .failing()
                .iter()
                .filter(|(key, _)| map.contains_key(key))
                .map(|(_, failure)| failure);
            let whole = reconciler.observe_failure().filter(|_| !map.is_empty());
            for failure in own.chain(whole) {
                if worst.as_ref().is_none_or(|(_, known)| known.retryable && !failure.retryable) {
                    worst = Some((reconciler.kind(), failure.clone()));
                }
            }
        });
        worst
    }

    /// Forgets what is inside of a pod whose namespace is closed again: it is the pod's own from now on.
    pub(crate) fn forget_pod(&mut self, key: &AttachmentKey) {
        self.addresses.forget(|address| address.attachment == *key);
        self.routes.forget(|route| route.attachment == *key);
        self.routes.target_mut().forget(key);
        self.qdiscs.forget(|qdisc| qdisc.attachment == *key && qdisc.direction == Direction::Egress);
    }

    /// The first of these objects that is not as desired, in words.
    pub(crate) fn first_difference(&self, objects: &Desired) -> Option<String> {
        let mut first = None;
        each!(self, objects, |reconciler, map| {
            let differs = map.iter().find(|(key, value)| !reconciler.holds(key, value));
            first = first.or_else(|| {
                differs.map(|(key, _)| format!("{} {key} is missing or changed", reconciler.kind()))
            });
        });
        first
    }

    /// Observes anew which programs stand on uplinks.
    pub(crate) async fn look_at_uplinks(&mut self, programs: &Programs, now: Instant) {
        if programs.filters.contains_key(&Hook::FromWire) {
            self.filters.invalidate();
            self.filters.look(now).await;
        } else {
            self.attachments.invalidate();
            self.attachments.look(now).await;
        }
    }

    /// Observes what an endpoint needs on the host, where nothing is known.
    pub(crate) async fn look(&mut self, now: Instant) {
        self.links.look(now).await;
        self.qdiscs.look(now).await;
        self.pod_links.look(now).await;
        self.filters.look(now).await;
        self.attachments.look(now).await;
        self.look_at_ways(now).await;
        self.pods.look(now).await;
        self.host_ports.look(now).await;
    }

    /// Observes the ways to other nodes, where nothing is known.
    pub(crate) async fn look_at_ways(&mut self, now: Instant) {
        self.tunnels.look(now).await;
        self.tunnel_links.look(now).await;
        self.attachments.look(now).await;
        self.table_routes.look(now).await;
        self.rules.look(now).await;
        self.host_routes.look(now).await;
        self.ipcache.look(now).await;
        self.masquerade.look(now).await;
    }

    /// Whether a packet can still be sent into the tunnel.
    pub(crate) fn uses_tunnel(&self) -> bool {
        let routes = self.host_routes.actual().into_iter().flatten();
        let remotes = self.ipcache.actual().into_iter().flatten();
        let into = |route: &HostRoute| match route {
            HostRoute::Tunnel { .. } => true,
            HostRoute::Device { .. } | HostRoute::Via { .. } | HostRoute::Unreachable => false,
        };
        routes.map(|(_, route)| route).any(into)
            || remotes.map(|(_, remote)| remote).any(|remote| remote.tunnel.is_some())
    }

    /// Looks at everything anew at the next pass.
    pub(crate) fn invalidate(&mut self) {
        self.sysctls.invalidate();
        self.invalidate_routes();
        self.ipcache.invalidate();
        self.masquerade.invalidate();
        self.pods.invalidate();
        self.host_ports.invalidate();
        self.invalidate_links();
    }

    /// Looks anew at routes and rules.
    pub(crate) fn invalidate_routes(&mut self) {
        self.table_routes.invalidate();
        self.rules.invalidate();
        self.host_routes.invalidate();
    }

    /// Looks anew at links and what hangs on them.
    pub(crate) fn invalidate_links(&mut self) {
        self.tunnels.invalidate();
        self.tunnel_links.invalidate();
        self.interfaces.invalidate();
        self.host_addresses.invalidate();
        self.links.invalidate();
        self.qdiscs.invalidate();
        self.pod_links.invalidate();
        self.filters.invalidate();
        self.attachments.invalidate();
    }

    /// When the next failed object is tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let nothing = Desired::default();
        each!(self, nothing, |reconciler, _map| {
            next = next.into_iter().chain(reconciler.next_retry()).min();
        });
        next
    }

    /// State of every target.
    pub(crate) fn status(&self) -> Vec<TargetStatus> {
        let mut status = Vec::new();
        let nothing = Desired::default();
        each!(self, nothing, |reconciler, _map| status.push(status_of(reconciler)));
        status.push(status_of(&self.conf_files));
        status
    }
}

fn status_of<T: Target>(reconciler: &Reconciler<T>) -> TargetStatus {
    let failing = reconciler.failing().iter().map(|(key, failure)| (key.to_string(), failure));
    let whole = reconciler.observe_failure().map(|failure| ("observe".to_owned(), failure));
    TargetStatus {
        kind: reconciler.kind(),
        objects: reconciler.actual().map_or(0, std::collections::BTreeMap::len),
        failing: failing
            .chain(whole)
            .map(|(key, failure)| FailingObject {
                key,
                error: failure.error.clone(),
                attempts: failure.attempts,
            })
            .collect(),
    }
}

fn add(sum: &mut Outcome, more: Outcome) {
    sum.changed += more.changed;
    sum.failed += more.failed;
    sum.waiting += more.waiting;
}
