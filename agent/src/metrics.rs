// SPDX-License-Identifier: Apache-2.0
//! Counters and gauges of the node.

use rhumb_ebpf::Counter;
use rhumb_model::Family;
use rhumb_routing::plan::Way;
use serde::Serialize;

use crate::kernel::TargetStatus;
use crate::node::Node;

/// One sample, in the terms of the Prometheus text format.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: u64,
}

/// Everything there is to count.
pub(crate) fn collect(node: &Node, counters: &[Counter]) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name, labels, value| samples.push(Sample { name, labels, value });
    let counted: Vec<&Counter> = counters.iter().filter(|counter| counter.packets > 0).collect();
    let labels = |counter: &Counter| {
        vec![("reason", counter.reason.text().to_owned()), ("direction", counter.direction.text().to_owned())]
    };
    for counter in &counted {
        add("rhumb_datapath_packets_total", labels(counter), counter.packets);
    }
    for counter in &counted {
        add("rhumb_datapath_bytes_total", labels(counter), counter.bytes);
    }
    let now = std::time::SystemTime::now().into();
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
            let labels = vec![
                ("pool", node.settings.pool.to_string()),
                ("family", family.to_string()),
                ("state", state.to_owned()),
            ];
            add("rhumb_ipam_addresses", labels, value);
        }
    }
    let targets = node.kernel.status();
    let kind = |target: &TargetStatus| vec![("kind", target.kind.to_owned())];
    for target in &targets {
        add("rhumb_target_objects", kind(target), count(target.objects));
    }
    for target in &targets {
        add("rhumb_target_failing_objects", kind(target), count(target.failing.len()));
    }
    let mut ways = std::collections::BTreeMap::new();
    for (_, choice) in node.ways.choices() {
        *ways.entry(choice.way.as_ref().map_or("none", Way::word)).or_insert(0_u64) += 1;
    }
    for (way, prefixes) in ways {
        add("rhumb_route_prefixes", vec![("way", way.to_owned())], prefixes);
    }
    for ([from, to, why], changes) in node.ways.history().counts() {
        let labels = vec![("from", from.to_owned()), ("to", to.to_owned()), ("reason", why.to_owned())];
        add("rhumb_route_changes_total", labels, changes);
    }
    add("rhumb_attachments", Vec::new(), count(node.ledger.endpoints().len()));
    add("rhumb_agent_resident_bytes", Vec::new(), resident_kib() * 1024);
    samples
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Resident memory of this process in KiB, as the kernel counts it; 0 where it does not say.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
