// SPDX-License-Identifier: Apache-2.0
//! Counters and gauges of the node.
//!
//! ```text
//!   Prometheus ── GET /metrics ─► server ─┐             ┌─ loop: counters, targets, leases, registry
//!   rhumb metrics ─► local socket ────────┴─► scraper ──┤
//!                                                       └─ how full maps are, counted at most every 10 s
//! ```

mod bgp;
mod catalogue;
mod process;
mod registry;
mod scraper;
mod server;
mod text;

use std::time::SystemTime;

use rhumb_ebpf::{Counter, MapUse, Untold, Verdict};
use rhumb_model::Family;
use rhumb_routing::plan::Way;
use rhumb_routing::probe::State;

use crate::kernel::TargetStatus;
use crate::node::Node;
use crate::probe::Report;
pub(crate) use catalogue::{
    Kind, MAP_EVICTED, Metric, RECONCILE_COUNT, SWEEP_MILLISECONDS, SWEEP_REMOVED, SWEEP_SEEN,
};
pub(crate) use process::resident_kib;
pub(crate) use registry::{Registry, Sample};
pub(crate) use scraper::Scraper;
pub(crate) use server::{Address, serve};

use catalogue::*;

/// Everything there is to count.
pub(crate) fn collect(node: &Node, counters: &[Counter], maps: &[MapUse], untold: &[Untold]) -> Vec<Sample> {
    let mut samples = Vec::new();
    add_packets(&mut samples, counters);
    for Untold { reason, limited, full } in untold {
        for (cause, value) in [("rate", limited), ("full", full)] {
            let labels = [("reason", reason.text()), ("cause", cause)];
            samples.push(Sample::new(&EVENT_LOST, &labels, *value));
        }
    }
    add_maps(&mut samples, maps);
    let now = SystemTime::now().into();
    for family in Family::BOTH {
        let usage = node.ledger.pool().usage(family, now);
        let states = [
            ("held", usage.held),
            ("cooling", usage.cooling),
            ("kept", usage.kept),
            ("free", usage.free),
            ("draining", usage.draining),
        ];
        for (state, value) in states {
            let (pool, family) = (node.settings.pool.to_string(), family.to_string());
            let labels = [("pool", pool.as_str()), ("family", &family), ("state", state)];
            samples.push(Sample::new(&IPAM_ADDRESSES, &labels, value));
        }
    }
    let targets = node.kernel.status();
    let label = |target: &TargetStatus| [("target", target.kind)];
    samples.extend(
        targets.iter().map(|target| Sample::new(&RECONCILE_OBJECTS, &label(target), count(target.objects))),
    );
    samples.extend(
        targets
            .iter()
            .map(|target| Sample::new(&RECONCILE_FAILING, &label(target), count(target.failing.len()))),
    );
    let mut ways = std::collections::BTreeMap::new();
    for (_, choice) in node.ways.choices() {
        *ways.entry(choice.way.as_ref().map_or("none", Way::word)).or_insert(0_u64) += 1;
    }
    samples.extend(
        ways.into_iter().map(|(way, prefixes)| Sample::new(&ROUTE_PREFIXES, &[("way", way)], prefixes)),
    );
    for ([from, to, why], changes) in node.ways.history().counts() {
        samples.push(Sample::new(&ROUTE_CHANGES, &[("from", from), ("to", to), ("reason", why)], changes));
    }
    add_probes(&mut samples, &node.neighbours.report.borrow());
    samples.push(Sample::new(&ATTACHMENTS, &[], count(node.ledger.endpoints().len())));
    bgp::add(&mut samples, &node.bgp.report.borrow());
    samples.push(Sample::new(&AGENT_READY, &[], u64::from(node.is_ready())));
    let name = node.settings.node.to_string();
    let info = [("node", name.as_str()), ("version", env!("CARGO_PKG_VERSION"))];
    samples.push(Sample::new(&AGENT_INFO, &info, 1));
    samples.extend(node.registry.samples());
    samples.extend(process::samples());
    samples
}

fn add_packets(samples: &mut Vec<Sample>, counters: &[Counter]) {
    let labels =
        |counter: &Counter| [("reason", counter.reason.text()), ("direction", counter.direction.text())];
    for (packets, bytes, dropped) in
        [(&DROP_COUNT, &DROP_BYTES, true), (&FORWARD_COUNT, &FORWARD_BYTES, false)]
    {
        let own = || counters.iter().filter(|counter| (counter.reason.verdict() == Verdict::Drop) == dropped);
        samples.extend(own().map(|counter| Sample::new(packets, &labels(counter), counter.packets)));
        samples.extend(own().map(|counter| Sample::new(bytes, &labels(counter), counter.bytes)));
    }
}

fn add_probes(samples: &mut Vec<Sample>, report: &Report) {
    if !report.rows.is_empty() {
        for state in State::ALL {
            let addresses = report.rows.iter().filter(|row| row.state == state).count();
            samples.push(Sample::new(&PROBE_ADDRESSES, &[("state", state.word())], count(addresses)));
        }
    }
    samples.extend(
        report.counts.iter().map(|(what, count)| Sample::new(&PROBE_COUNT, &[("what", what)], *count)),
    );
}

fn add_maps(samples: &mut Vec<Sample>, maps: &[MapUse]) {
    let label = |map: &MapUse| [("map", map.map)];
    samples.extend(maps.iter().map(|map| Sample::new(&MAP_ENTRIES, &label(map), u64::from(map.entries))));
    samples.extend(maps.iter().map(|map| Sample::new(&MAP_CAPACITY, &label(map), u64::from(map.capacity))));
    samples.extend(maps.iter().map(|map| {
        let pressure = f64::from(map.entries) / f64::from(map.capacity.max(1));
        Sample::new(&MAP_PRESSURE, &label(map), pressure)
    }));
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
