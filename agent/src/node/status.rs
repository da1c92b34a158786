// SPDX-License-Identifier: Apache-2.0
//! Readiness: whether ADD can be served, and if not, why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_api::NodeStateStatus;
use rhumb_cni::protocol::{Refusal, RefusalKind};
use rhumb_ipam::State;
use rhumb_ipam::eni::agent::{Held, Share};
use rhumb_model::{Family, PodKey, Prefix, Timestamp};
use rhumb_routing::host::Uplink;
use tracing::info;

use super::add::{families, refusal};
use super::{Node, wall_clock};
use crate::desired::Desired;
use crate::{bgp, eni, publish};

/// Addresses that have rested within this time are told of together.
const RESTED_TOGETHER: Duration = Duration::from_millis(250);

/// Why ADD cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotReady {
    /// Objects of the cluster not yet seen.
    NotSynced,
    /// No interface leads out of the node.
    NoUplink,
    /// The operator has given this node no pod CIDR.
    NoPodCidr(rhumb_model::PoolName),
    /// No address is free.
    Exhausted(Family),
    /// A program is not attached to an uplink: running pods are affected too.
    Detached(rhumb_model::IfName),
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotReady::NotSynced => f.write_str("waiting for the objects of the cluster"),
            NotReady::NoUplink => {
                f.write_str("no uplink: no interface has a default route, and none is named")
            }
            NotReady::NoPodCidr(pool) => {
                write!(f, "waiting for the operator to assign pod CIDRs to this node from pool {pool}")
            }
            NotReady::Exhausted(family) => write!(f, "no free {family} address in the pool of this node"),
            NotReady::Detached(ifname) => write!(f, "the datapath is not attached to uplink {ifname}"),
        }
    }
}

impl Node {
    /// Everything that keeps ADD from being served, as far as is known.
    pub(super) fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        if !self.tables.synced() {
            return vec![NotReady::NotSynced];
        }
        if self.tables.uplinks.is_empty() {
            reasons.push(NotReady::NoUplink);
        }
        let ranges = self.tables.ranges(&self.settings.node, &self.settings.pool);
        if ranges.is_empty() {
            reasons.push(NotReady::NoPodCidr(self.settings.pool.clone()));
        }
        for family in families(&ranges) {
            let usage = self.ledger.pool().usage(family, wall_clock());
            if usage.free == 0 && usage.kept == 0 {
                reasons.push(NotReady::Exhausted(family));
            }
        }
        for uplink in &self.tables.uplinks {
            let mut objects = Desired::default();
            objects.add_uplink(uplink, &self.settings.programs);
            if !self.kernel.holds(&objects) {
                reasons.push(NotReady::Detached(uplink.ifname.clone()));
            }
        }
        reasons
    }

    /// Whether ADD can be served.
    pub(crate) fn is_ready(&self) -> bool {
        self.not_ready().is_empty()
    }

    /// STATUS: looks at the datapath anew.
    pub(super) async fn status(&mut self) -> Result<(), Refusal> {
        self.kernel.look_at_uplinks(&self.settings.programs, Instant::now()).await;
        let reasons = self.not_ready();
        if reasons.is_empty() {
            return Ok(());
        }
        let affected = reasons.iter().any(|reason| matches!(reason, NotReady::Detached(_)));
        let kind = if affected { RefusalKind::LimitedConnectivity } else { RefusalKind::NotAvailable };
        let text: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        Err(refusal(kind, text.join("; ")))
    }

    /// Tells the runtime, the waiting starter and the store how this node is.
    pub(super) async fn announce(&mut self) {
        let reasons = self.not_ready();
        // A full pool is no reason to take the node away from the runtime; but where addresses come from interfaces, the
        // first has to be there before the node is offered. What pods have already was there before.
        let pool = self.ledger.pool();
        let has_served = Family::BOTH.iter().any(|family| pool.usage(*family, wall_clock()).held > 0);
        let may_be_full =
            self.announced_ready || has_served || self.tables.eni(&self.settings.node).is_none();
        let able = reasons.iter().all(|reason| may_be_full && matches!(reason, NotReady::Exhausted(_)));
        if able && !self.announced_ready {
            // Written only once ADD can be served: the runtime takes the node for ready when it sees the file.
            if self.kernel.conf_files.put_missing(&self.conf_files, Instant::now()).await.failed > 0 {
                return;
            }
            self.announced_ready = true;
            self.ready.say("ready");
            info!(node = %self.settings.node, "ready");
        }
        let state = self.state(&reasons);
        self.publication.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    fn state(&self, reasons: &[NotReady]) -> NodeStateStatus {
        let now = wall_clock();
        let blocks = self.tables.blocks(&self.settings.node, &self.settings.pool);
        let own = |family: &Family| blocks.iter().any(|block| block.family() == *family);
        let published: Vec<Family> = Family::BOTH.into_iter().filter(own).collect();
        let share = self.share(now);
        let idle: Vec<Prefix> = share.idle.iter().copied().collect();
        let usage = |family| {
            let usage = self.ledger.pool().usage(family, now);
            publish::pool_usage(&self.settings.pool, family, &blocks, &idle, usage)
        };
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let bgp = self.bgp_summary.clone();
        let eni = self.tables.eni(&self.settings.node).is_some();
        let left_alone = eni.then(|| publish::left_alone_condition(&self.dangers));
        let conditions = [publish::ready_condition(&reasons)].into_iter().chain(left_alone);
        NodeStateStatus {
            addresses: self.node_addresses(),
            pools: published.into_iter().map(usage).collect(),
            conditions: conditions.chain(bgp.conditions).collect(),
            bgp_peers: bgp.peers,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            pending: self.shortage.count(Instant::now()),
            observed_generation: share.observed,
            released: eni::words(&share.released),
            declined: eni::words(&share.declined),
        }
    }

    /// What is answered about blocks of interfaces. It is said after [`Node::set_ranges`] took them out of the pool.
    fn share(&self, now: Timestamp) -> Share {
        let Some(row) = self.tables.eni(&self.settings.node) else { return Share::default() };
        let (mut leased, mut cooling) = (BTreeSet::new(), BTreeSet::new());
        for (addr, state, _, _) in self.ledger.pool().entries(now) {
            match state {
                State::Held => leased.insert(addr),
                State::Cooling { .. } | State::Kept { .. } => cooling.insert(addr),
            };
        }
        row.share(&Held { leased: &leased, cooling: &cooling, ready: &self.tables.ready_enis })
    }

    /// When the next address of the interfaces' blocks has rested, and those that do so together with it: the operator
    /// hears then what it may want back, and what is wanted back may go.
    pub(super) fn rested_wake(&self) -> Option<Instant> {
        let row = self.tables.eni(&self.settings.node)?;
        let now = wall_clock();
        let resting = self.ledger.pool().entries(now).filter_map(|(addr, state, _, _)| match state {
            State::Held => None,
            State::Cooling { until } | State::Kept { until } => {
                row.blocks().any(|(_, block)| block.contains(addr)).then_some(until)
            }
        });
        Some(Instant::now() + resting.min()?.since(now) + RESTED_TOGETHER)
    }

    /// Tells BGP of the node's pods, and whether the datapath forwards: it stands on every uplink, and the pods that were
    /// there before have been put.
    pub(super) fn tell_bgp(&mut self) {
        let settled = self.ledger.endpoints().iter().filter(|(key, _)| !self.pending.contains_key(key));
        let mut pods = BTreeMap::<PodKey, Vec<IpAddr>>::new();
        for (_, endpoint) in settled {
            let Some(pod) = &endpoint.pod else { continue };
            let addresses = endpoint.addresses.iter().map(|address| address.address.ip());
            pods.entry(pod.clone()).or_default().extend(addresses);
        }
        let local = bgp::Local {
            ready: self.announced_ready,
            addresses: self.node_addresses(),
            pods,
            looks: self.host_looks,
        };
        self.bgp.local.send_if_modified(|current| {
            let changed = *current != local;
            *current = local;
            changed
        });
    }

    /// Addresses at which other nodes reach this one: those of the flag, else those of the uplinks.
    pub(super) fn node_addresses(&self) -> Vec<IpAddr> {
        if !self.settings.node_addresses.is_empty() {
            return self.settings.node_addresses.clone();
        }
        let global = |addr: &IpAddr| match addr {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        // An address of an interface that the cloud gave later is not one by which the node is known.
        let known = |uplink: &&Uplink| !self.eni.is_later(&uplink.ifname);
        let uplinks = self.tables.uplinks.iter().filter(known).flat_map(|uplink| &uplink.addresses);
        uplinks.map(|network| network.ip()).filter(global).collect()
    }
}
