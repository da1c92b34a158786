// SPDX-License-Identifier: Apache-2.0
//! One pass: look, plan, remove from root to leaf, put from leaf to root, and answer those whose objects are there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_cni::failpoint;
use rhumb_cni::protocol::{RefusalKind, Reply};
use rhumb_ebpf::Hook;
use rhumb_model::{AttachmentKey, Failure, IfName, MacAddr, Outcome, Prefix, Revision};
use rhumb_routing::host::{self, Uplink};
use rhumb_routing::kernel::{KernelError, Link};
use rhumb_routing::{Hook as Side, HostRoute};
use tracing::{debug, info, warn};

use super::add::{on_purpose, refusal};
use super::{NOTICES_SETTLE, Node, Pending};
use crate::args::MetadataService;
use crate::desired::{Desired, chained_ifindex};
use crate::eni;
use crate::metrics::RECONCILE_COUNT;
use crate::tunnel;

/// An ADD whose object failed this often in a row is given up and undone.
const ADD_ATTEMPTS: u32 = 3;

/// A look at the node's links that failed is repeated after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The node's own links and addresses.
struct HostSeen {
    uplinks: Vec<Uplink>,
    addresses: Vec<IpAddr>,
    /// Host ends of chained endpoints that are there.
    chained: BTreeMap<AttachmentKey, u32>,
    /// Links by the Ethernet address that they came with.
    hardware: BTreeMap<MacAddr, Link>,
    /// Indices of others, whose names udev may still change.
    unsettled: BTreeSet<u32>,
}

impl Node {
    pub(super) async fn pass(&mut self) {
        let now = Instant::now();
        if self.look_due.is_some_and(|due| due <= now) {
            self.look_due = None;
            self.kernel.invalidate_links();
            self.kernel.invalidate_routes();
            self.look_at_host().await;
        }
        if !self.host_seen {
            // Nothing is put or removed before the node's own links were seen once.
            return;
        }
        let mut outcome = self.set_up_interfaces(now).await;
        self.choose_ways().await;
        let revision = self.tables.revision();
        self.plan_interfaces(revision);
        self.kernel.links.look(now).await;
        self.kernel.look_at_ways(now).await;
        let desired = self.plan();
        add(&mut outcome, self.kernel.put_tunnelled(&desired, now).await);
        add(&mut outcome, self.kernel.remove(&desired, now).await);
        self.removal_point("agent.del.after_endpoint");
        add(&mut outcome, self.kernel.remove_links(&desired, now).await);
        self.removal_point("agent.del.after_link");
        add(&mut outcome, self.kernel.put_links(&desired, now).await);
        self.adding_point("agent.add.after_link");
        // Now the index of every new link is known.
        let desired = self.plan();
        add(&mut outcome, self.kernel.put_addresses(&desired, now).await);
        self.adding_point("agent.add.after_address");
        add(&mut outcome, self.kernel.put_pod_routes(&desired, now).await);
        self.adding_point("agent.add.after_route");
        add(&mut outcome, self.kernel.put_datapath(&desired, now).await);
        self.ways.tell_followers();
        self.adding_point("agent.add.after_attachment");
        if outcome != Outcome::default() {
            debug!(rev = %revision, changed = outcome.changed, failed = outcome.failed, waiting = outcome.waiting, "pass");
        }
        for (word, number) in [("changed", outcome.changed), ("failed", outcome.failed)] {
            let more = u64::try_from(number).unwrap_or(u64::MAX);
            self.registry.add(&RECONCILE_COUNT, &[word], more);
        }
        if outcome.failed + outcome.waiting == 0 {
            self.reached = revision;
            self.finish_migration();
        }
        if self.settings.tunnel_port.is_none() && !desired.tunnels.is_empty() {
            self.look_due.get_or_insert(Instant::now() + NOTICES_SETTLE);
        }
        self.note_ready_interfaces();
        self.settle_adds();
        self.settle_removals();
        self.announce().await;
        self.tell_bgp();
        self.probe_gateways().await;
    }

    /// Switches interfaces of a cloud on and gives them their addresses, before anything is planned that depends on these.
    /// The kernel tells of no change that this process made.
    async fn set_up_interfaces(&mut self, now: Instant) -> Outcome {
        self.plan_interfaces(self.tables.revision());
        let mut desired = Desired::default();
        desired.add_interfaces(self.eni.plan(), |ifindex| self.eni.mark(ifindex));
        let outcome = self.kernel.put_interfaces(&desired, now).await;
        if outcome.changed > 0 {
            self.look_at_host().await;
        }
        outcome
    }

    /// After a pass without a failure, every pod's filter runs the programs of this version.
    fn finish_migration(&mut self) {
        if !self.migrated {
            match self.datapath.finish_migration() {
                Ok(()) => self.migrated = true,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "state of an earlier version not taken over"
                    );
                }
            }
        }
    }

    /// Reads the node's own links and addresses.
    async fn look_at_host(&mut self) {
        let seen = match self.observe_host().await {
            Ok(seen) => seen,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "node's links not read");
                self.look_due = Some(Instant::now() + LOOK_AGAIN);
                return;
            }
        };
        self.host_seen = true;
        self.host_looks += 1;
        let own: BTreeSet<IpAddr> =
            seen.addresses.into_iter().chain(self.settings.node_addresses.clone()).collect();
        let own: Vec<IpAddr> = own.into_iter().collect();
        let changed = self.tables.uplinks != seen.uplinks || self.tables.own_addresses != own;
        if changed || self.tables.hardware != seen.hardware {
            self.tables.uplinks = seen.uplinks;
            self.tables.own_addresses = own;
            self.tables.hardware = seen.hardware;
            self.tables.touch();
        }
        self.chained_links = seen.chained;
        self.unsettled = seen.unsettled;
        self.look_for_dangers();
    }

    /// Names of the links that lead out: those of the flag, else those that carry a default route, or did. A default
    /// route that goes for a moment takes no way to other nodes along.
    /// Interfaces that the cloud gave the node lead out as well.
    async fn uplink_names(&self, hardware: &BTreeMap<MacAddr, Link>) -> Result<Vec<IfName>, KernelError> {
        let mut names = BTreeSet::from_iter(self.settings.uplinks.clone());
        if names.is_empty() {
            let carriers = host::uplinks(&self.host).await?.into_iter().map(|uplink| uplink.ifname);
            let before = self.tables.uplinks.iter().map(|uplink| uplink.ifname.clone());
            names.extend(carriers.chain(before));
        }
        names.extend(eni::link_names(self.tables.eni(&self.settings.node), hardware));
        Ok(names.into_iter().collect())
    }

    /// Names of the links of interfaces that the cloud gave the node, as far as they are there.
    pub(super) fn eni_links(&self) -> Vec<IfName> {
        eni::link_names(self.tables.eni(&self.settings.node), &self.tables.hardware)
    }

    async fn observe_host(&self) -> Result<HostSeen, KernelError> {
        let mut hardware = rhumb_routing::eni::links(&self.host).await?;
        hardware.retain(|_, link| link.alias.is_none());
        let unsettled: BTreeSet<u32> = hardware
            .values()
            .map(|link| link.ifindex)
            .filter(|ifindex| !self.udev.is_settled(*ifindex))
            .collect();
        hardware.retain(|_, link| !unsettled.contains(&link.ifindex));
        let uplinks = host::uplinks_named(&self.host, &self.uplink_names(&hardware).await?).await?;
        let addresses = host::addresses(&self.host).await?;
        let mut chained = BTreeMap::new();
        for endpoint in self.ledger.endpoints().values() {
            let Some(ifindex) = chained_ifindex(endpoint) else { continue };
            let link = host::link(&self.host, &endpoint.host).await?;
            if link.is_some_and(|link| link.ifindex == ifindex) {
                chained.insert(endpoint.key.clone(), ifindex);
            }
        }
        let addresses = addresses.iter().map(|network| network.ip()).collect();
        Ok(HostSeen { uplinks, addresses, chained, hardware, unsettled })
    }

    /// Lets addresses be leased for interfaces that have all they need by now, and for no others.
    fn note_ready_interfaces(&mut self) {
        let Some(row) = self.tables.eni(&self.settings.node) else { return };
        let (uplinks, programs) = (&self.tables.uplinks, &self.settings.programs);
        let ready = self.eni.ready(row, uplinks, programs, |wanted| self.kernel.holds(wanted));
        if ready != self.tables.ready_enis {
            self.tables.ready_enis = ready;
            self.set_ranges();
        }
    }

    fn plan_interfaces(&mut self, rev: Revision) {
        let (tables, settings) = (&self.tables, &self.settings);
        let keep_source = tables.keep_source(&settings.node, &settings.pool);
        if self.eni.refresh(tables.eni(&settings.node), &tables.hardware, keep_source, settings.eni, rev) {
            self.look_for_dangers();
        }
    }

    /// Asks what other programs would do to interfaces of a cloud.
    fn look_for_dangers(&mut self) {
        let row = self.tables.eni(&self.settings.node);
        let given = row.map(|row| row.given(&self.tables.hardware)).unwrap_or_default();
        let dangers = self.link_managers.dangers(&given);
        if dangers != self.dangers {
            for danger in &dangers {
                warn!(danger, "another program would take away what interfaces of the cloud need");
            }
            self.dangers = dangers;
        }
    }

    fn plan(&self) -> Desired {
        let mut desired = Desired::default();
        for (key, endpoint) in self.ledger.endpoints() {
            if !matches!(self.pending.get(key), Some(Pending::Removing { .. })) {
                desired.add_endpoint(endpoint, self.surroundings(endpoint), self.shared());
            }
        }
        desired.add_node(&self.tables.uplinks, &self.settings.programs, self.ways.plan());
        desired.add_interfaces(self.eni.plan(), |ifindex| self.eni.mark(ifindex));
        self.plan_tunnel(&mut desired);
        if self.settings.metadata_service == MetadataService::Deny {
            desired.deny_metadata();
        }
        if !self.tables.synced() {
            self.keep_unknown_ways(&mut desired);
        }
        desired
    }

    /// A tunnel that nobody wants any more stays until no packet is sent into it.
    fn plan_tunnel(&self, desired: &mut Desired) {
        let ifindex = self.kernel.tunnels.target().ifindex(&tunnel::name());
        match self.settings.tunnel_port {
            Some(port) => {
                let own = self.node_addresses();
                desired.add_tunnel(port, &self.tables.uplinks, &own, ifindex, &self.settings.programs);
            }
            None if self.kernel.uses_tunnel() => self.keep_tunnel(desired),
            None => {}
        }
        if desired.tunnels.is_empty() && self.settings.tunnel_port.is_some() {
            self.keep_tunnel(desired);
        }
    }

    fn keep_tunnel(&self, desired: &mut Desired) {
        fn keep<K: Ord + Clone, V: Clone>(from: Option<&BTreeMap<K, V>>, to: &mut BTreeMap<K, V>) {
            for (key, value) in from.into_iter().flatten() {
                to.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        keep(self.kernel.tunnels.actual(), &mut desired.tunnels);
        keep(self.kernel.tunnel_links.actual(), &mut desired.tunnel_links);
        let name = tunnel::name();
        for (point, attached) in self.kernel.attachments.actual().into_iter().flatten() {
            if point.ifname == name {
                desired.attachments.insert(point.clone(), *attached);
            }
        }
        for (key, filter) in self.kernel.filters.actual().into_iter().flatten() {
            if key.ifname == name {
                let hook = if key.hook == Side::Ingress { Hook::FromTunnel } else { Hook::ToTunnel };
                desired.attach(&name, filter.ifindex, hook, &self.settings.programs);
            }
        }
    }

    /// Before every input was seen, the ways to other nodes and the routes for pod CIDRs stay as they are, and so does
    /// the masquerade of what goes elsewhere: what elsewhere is, is not known.
    fn keep_unknown_ways(&self, desired: &mut Desired) {
        desired.masquerade.clone_from(&self.kernel.masquerade.actual().cloned().unwrap_or_default());
        for (rule, ()) in self.kernel.rules.actual().into_iter().flatten() {
            desired.rules.insert(*rule, ());
        }
        for (key, route) in self.kernel.table_routes.actual().into_iter().flatten() {
            desired.table_routes.entry(*key).or_insert_with(|| route.clone());
        }
        for (address, ()) in self.kernel.host_addresses.actual().into_iter().flatten() {
            desired.host_addresses.insert(address.clone(), ());
        }
        for (ifindex, before) in self.kernel.pod_links.actual().into_iter().flatten() {
            if let Some(link) = desired.pod_links.get_mut(ifindex) {
                link.interface = before.interface;
            }
        }
        for (prefix, route) in self.kernel.host_routes.actual().into_iter().flatten() {
            let keep = match route {
                HostRoute::Device { .. } => false,
                HostRoute::Via { .. } | HostRoute::Tunnel { .. } | HostRoute::Unreachable => true,
            };
            if keep {
                desired.host_routes.entry(*prefix).or_insert_with(|| route.clone());
            }
        }
        for (prefix, remote) in self.kernel.ipcache.actual().into_iter().flatten() {
            desired.ipcache.entry(*prefix).or_insert(*remote);
        }
    }

    /// Answers every ADD whose objects are all there, and undoes those that cannot succeed.
    fn settle_adds(&mut self) {
        let adding: Vec<AttachmentKey> = self
            .pending
            .iter()
            .filter(|(_, pending)| matches!(pending, Pending::Adding { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        for key in adding {
            let Some(endpoint) = self.ledger.endpoints().get(&key).cloned() else { continue };
            let objects = self.objects_of(&endpoint);
            if self.surroundings(&endpoint).ifindex.is_some() && self.kernel.holds(&objects) {
                if let Err(hit) = failpoint::pass("agent.add.before_reply", key.container.as_str()) {
                    self.give_up(&key, Reply::Refused(on_purpose(hit)));
                    continue;
                }
                self.forget_namespace(&key);
                info!(container = %key.container, ifname = %key.ifname, "attachment ready");
                let Some(Pending::Adding { replies }) = self.pending.remove(&key) else { continue };
                for reply in replies {
                    drop(reply.send(Reply::Added(endpoint.attachment())));
                }
            } else if let Some((kind, failure)) = self.kernel.failure(&objects)
                && (!failure.retryable || failure.attempts >= ADD_ATTEMPTS)
            {
                warn!(container = %key.container, ifname = %key.ifname, error = failure.error, "add given up");
                self.give_up(&key, refused_object(kind, &failure));
            }
        }
    }

    fn give_up(&mut self, key: &AttachmentKey, outcome: Reply) {
        let Some(Pending::Adding { replies }) = self.pending.remove(key) else { return };
        self.begin_removal(key, outcome, replies);
    }

    /// Ends every removal whose objects are all gone; tells those who wait when an object does not go. After a failed
    /// call nothing is known of its kind of object: then the next pass, at once, tells.
    fn settle_removals(&mut self) {
        let mut gone = Vec::new();
        self.pass_again = false;
        for (key, pending) in &mut self.pending {
            let Pending::Removing { objects, replies } = pending else { continue };
            if self.kernel.lacks(objects) {
                gone.push(key.clone());
            } else if !self.kernel.knows(objects) {
                self.pass_again = true;
            } else if let Some((kind, failure)) = self.kernel.failure(objects) {
                for (reply, _) in replies.drain(..) {
                    drop(reply.send(refused_object(kind, &failure)));
                }
            }
        }
        self.finish_removals(gone);
    }

    fn adding_point(&mut self, name: &str) {
        for key in self.keys_at(|pending| matches!(pending, Pending::Adding { .. })) {
            if let Err(hit) = failpoint::pass(name, key.container.as_str()) {
                self.give_up(&key, Reply::Refused(on_purpose(hit)));
            }
        }
    }

    /// A removal that a test stops here answers with the error; the removal itself goes on.
    fn removal_point(&mut self, name: &str) {
        for key in self.keys_at(|pending| matches!(pending, Pending::Removing { .. })) {
            let Err(hit) = failpoint::pass(name, key.container.as_str()) else { continue };
            let refused = on_purpose(hit);
            if let Some(Pending::Removing { replies, .. }) = self.pending.get_mut(&key) {
                for (reply, _) in replies.drain(..) {
                    drop(reply.send(Reply::Refused(refused.clone())));
                }
            }
        }
    }

    fn keys_at(&self, wanted: impl Fn(&Pending) -> bool) -> Vec<AttachmentKey> {
        self.pending.iter().filter(|(_, pending)| wanted(pending)).map(|(key, _)| key.clone()).collect()
    }

    /// Own pod CIDRs, for the CLI and the published state.
    pub(super) fn own_pod_cidrs(&self) -> Vec<Prefix> {
        self.tables.pod_cidrs_of(&self.settings.node)
    }
}

fn refused_object(kind: &str, failure: &Failure) -> Reply {
    let reason = if failure.retryable { RefusalKind::Io } else { RefusalKind::InterfaceExists };
    Reply::Refused(refusal(reason, format!("{kind}: {}", failure.error)))
}

fn add(sum: &mut Outcome, more: Outcome) {
    sum.changed += more.changed;
    sum.failed += more.failed;
    sum.waiting += more.waiting;
}
