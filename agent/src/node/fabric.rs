// SPDX-License-Identifier: Apache-2.0
//! Looks at what the network around the node offers, and chooses the ways to other nodes' pods.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rhumb_routing::fabric;
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::{Gateway, PlanInput};
use tracing::warn;

use super::Node;
use crate::tunnel;
use crate::ways::Watched;

/// Between two looks at the fabric there is at least this time, and as long as a look takes; twice as long after each
/// look that others waited for, up to this factor. The first notices are acted on at once, and a storm of them costs a
/// tenth of a CPU.
const REST: Duration = Duration::from_millis(1);
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
    /// How many times the length of a look there is to the next.
    factor: u32,
    probe: Instant,
    /// Who was asked the last time.
    probed: BTreeSet<Gateway>,
}

impl FabricTimes {
    pub(super) fn new(now: Instant) -> Self {
        Self { look: Some(now), rest: now, factor: 1, probe: now, probed: BTreeSet::new() }
    }

    /// Something changed: a look as soon as may be.
    pub(super) fn changed(&mut self, now: Instant) {
        self.look.get_or_insert(now.max(self.rest));
    }

    fn looked(&mut self, start: Instant, end: Instant) {
        let stormy = self.look.is_some() && start < self.rest + REST;
        self.factor = if stormy { (self.factor * 2).min(REST_FACTOR) } else { 1 };
        self.look = None;
        self.rest = end + REST.max(end - start) * self.factor;
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
        let whom = self.tables.probe_targets(&self.settings.node);
        self.neighbours.whom.send_if_modified(|known| {
            let changed = *known != whom;
            *known = whom;
            changed
        });
        let (settings, tables) = (&self.settings, &self.tables);
        let silent = self.ways.silent.clone();
        let input = |fabric| PlanInput {
            // A block of one address has no place beside the route to its pod.
            own_pod_cidrs: {
                let all = tables.pod_cidrs_of(&settings.node).into_iter();
                all.filter(|block| block.len() < block.family().bits()).collect()
            },
            uplinks: tables.uplinks.iter().map(Uplink::reach).collect(),
            nodes: tables.remote_nodes(&settings.node),
            policies: tables.policies(),
            fabric,
            silent,
            tunnel: settings.tunnel_port.map(|_| tunnel::name()),
            hold_down: settings.hold_down,
            keep_source: tables.keep_source(&settings.node, &settings.pool),
        };
        self.ways.choose(input, self.tables.revision(), Instant::now());
    }

    async fn look_at_fabric(&mut self, watched: Watched) {
        let start = Instant::now();
        self.host.watch(watched.prefixes.clone(), watched.addresses.clone());
        let looked = fabric::look(&self.host).await;
        let end = Instant::now();
        self.fabric_times.looked(start, end);
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

    /// Lets the kernel find out whether the neighbours of direct ways answer; a new one at once.
    pub(super) async fn probe_gateways(&mut self) {
        let now = Instant::now();
        let gateways = &self.ways.plan().gateways;
        let times = &mut self.fabric_times;
        if gateways.is_empty() || (gateways.is_subset(&times.probed) && now < times.probe) {
            return;
        }
        times.probe = now + PROBE;
        times.probed = gateways.clone();
        if let Err(error) = fabric::probe(&self.host, gateways.clone()).await {
            warn!(error = &error as &dyn std::error::Error, "neighbours not asked whether they answer");
        }
    }

    /// When the loop has to look or choose again.
    pub(super) fn ways_wake(&self) -> Option<Instant> {
        let probe = (!self.ways.plan().gateways.is_empty()).then_some(self.fabric_times.probe);
        self.fabric_times.look.into_iter().chain(self.ways.next()).chain(probe).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(5);

    #[test]
    fn the_first_notice_is_acted_on_at_once_and_a_storm_costs_a_tenth() {
        let start = Instant::now();
        let mut times = FabricTimes::new(start);
        times.looked(start, start + LOOK);
        let calm = start + Duration::from_secs(1);
        times.changed(calm);
        assert_eq!(times.look, Some(calm));
        let mut now = calm;
        let mut waits = Vec::new();
        for _ in 0..6 {
            times.looked(now, now + LOOK);
            now += LOOK;
            times.changed(now);
            let due = times.look.expect("a notice waits");
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [5, 10, 20, 40, 50, 50]);
        times.looked(now, now + LOOK);
        let calm = now + Duration::from_secs(1);
        times.changed(calm);
        times.looked(calm, calm + LOOK);
        times.changed(calm + LOOK);
        assert_eq!(times.look, Some(calm + LOOK * 2));
    }
}
