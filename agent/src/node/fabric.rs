// SPDX-License-Identifier: Apache-2.0
//! Looks at what the network around the node offers, and chooses the ways to other nodes' pods.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rhumb_routing::fabric;
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::PlanInput;
use tracing::warn;

use super::Node;
use crate::tunnel;
use crate::ways::Watched;

/// Between two looks at the fabric there is at least this time, and ten times what a look takes: a notice is acted on
/// at once, and a storm of them costs a tenth of a CPU at most.
const REST: Duration = Duration::from_millis(20);
const REST_FACTOR: u32 = 10;

/// Neighbours on which a choice depends are asked this often, where the kernel does not know that they answer.
const PROBE: Duration = Duration::from_secs(5);

/// When the fabric is looked at and its neighbours are asked.
#[derive(Debug)]
pub(super) struct FabricTimes {
    /// A notice waits for a look.
    pub(super) look: Option<Instant>,
    /// No look before.
    rest: Instant,
    probe: Instant,
}

impl FabricTimes {
    pub(super) fn new(now: Instant) -> Self {
        Self { look: Some(now), rest: now, probe: now }
    }

    /// Something changed: a look as soon as may be.
    pub(super) fn changed(&mut self, now: Instant) {
        self.look.get_or_insert(now.max(self.rest));
    }
}

impl Node {
    /// Looks at the fabric when that is due or something else is to be looked for, and chooses the ways.
    pub(super) async fn choose_ways(&mut self) {
        if !self.tables.synced() {
            return;
        }
        let watched = Watched {
            prefixes: self.tables.remote_prefixes(&self.settings.node),
            addresses: self.tables.remote_addresses(&self.settings.node),
        };
        let due = self.fabric_times.look.is_some_and(|due| due <= Instant::now());
        if due || watched != self.ways.watched {
            self.look_at_fabric(watched).await;
        }
        let (settings, tables) = (&self.settings, &self.tables);
        let input = |fabric| PlanInput {
            own_pod_cidrs: tables.pod_cidrs_of(&settings.node),
            uplinks: tables.uplinks.iter().map(Uplink::reach).collect(),
            nodes: tables.remote_nodes(&settings.node),
            policies: tables.policies(),
            fabric,
            tunnel: settings.tunnel_port.map(|_| tunnel::name()),
            hold_down: settings.hold_down,
            keep_source: tables.keep_source(&settings.pool),
        };
        self.ways.choose(input, self.tables.revision(), Instant::now());
        self.probe_gateways().await;
    }

    async fn look_at_fabric(&mut self, watched: Watched) {
        let start = Instant::now();
        self.host.watch(watched.prefixes.clone(), watched.addresses.clone());
        let looked = fabric::look(&self.host).await;
        let end = Instant::now();
        self.fabric_times.look = None;
        self.fabric_times.rest = end + REST.max((end - start) * REST_FACTOR);
        match looked {
            Ok(fabric) => {
                self.ways.watched = watched;
                if self.ways.fabric != fabric {
                    self.ways.fabric = fabric;
                    self.tables.touch();
                }
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "routes and neighbours of the node not read");
                self.fabric_times.changed(end + PROBE);
            }
        }
    }

    /// Lets the kernel find out whether the neighbours of direct ways answer.
    async fn probe_gateways(&mut self) {
        let now = Instant::now();
        let gateways: BTreeSet<_> = self.ways.plan().gateways.clone();
        if gateways.is_empty() || now < self.fabric_times.probe {
            return;
        }
        self.fabric_times.probe = now + PROBE;
        if let Err(error) = fabric::probe(&self.host, gateways).await {
            warn!(error = &error as &dyn std::error::Error, "neighbours not asked whether they answer");
        }
    }

    /// When the loop has to look or choose again.
    pub(super) fn ways_wake(&self) -> Option<Instant> {
        let probe = (!self.ways.plan().gateways.is_empty()).then_some(self.fabric_times.probe);
        self.fabric_times.look.into_iter().chain(self.ways.next()).chain(probe).min()
    }
}
