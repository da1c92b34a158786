// SPDX-License-Identifier: Apache-2.0
//! What the command line asks, answered as JSON.

use std::time::{Duration, Instant};

use rhumb_ebpf::MapUse;
use rhumb_ipam::State;
use rhumb_model::{Family, Prefix, Timestamp};
use rhumb_routing::HostRoute;
use rhumb_routing::plan::{Change, Event, Problem, Way};
use serde_json::{Value, json};
use tracing::warn;

use super::status::NotReady;
use super::{Node, Pending, wall_clock};
use crate::endpoint::Endpoint;
use crate::metrics::{self, Sample};
use crate::question::Show;
use crate::tunnel;

/// Says that the kernel did not give something, which is then empty.
fn not_read<T: Default>(error: &(dyn std::error::Error + 'static)) -> T {
    warn!(error, "the datapath cannot be looked at");
    T::default()
}

impl Node {
    pub(super) fn show(&self, what: Show) -> Value {
        match what {
            Show::Status => self.show_status(),
            Show::Pods => self.ledger.endpoints().values().map(|endpoint| self.show_pod(endpoint)).collect(),
            Show::Ips => self.show_ips(),
            Show::Routes => self.show_routes(),
            Show::RouteChanges => self.show_route_changes(),
            Show::Probes => self.neighbours.report.borrow().show(),
            Show::Endpoints => self.show_endpoints(),
            Show::Ipcache => self.show_ipcache(),
        }
    }

    /// All samples; what the kernel does not give is left out, which a scraper sees as missing.
    pub(super) fn samples(&self, maps: &[MapUse]) -> Vec<Sample> {
        let counters = self.datapath.counters().unwrap_or_else(|error| not_read(&error));
        let untold = self.datapath.untold().unwrap_or_else(|error| not_read(&error));
        metrics::collect(self, &counters, maps, &untold)
    }

    fn show_ipcache(&self) -> Value {
        let all = self.datapath.ipcache().unwrap_or_else(|error| not_read(&error));
        let entry = |(prefix, remote): (rhumb_ebpf::RemotePrefix, rhumb_ebpf::Remote)| {
            let flags = [
                (remote.keep_source, "keep-source"),
                (remote.node, "node"),
                (remote.denied, "denied"),
                (remote.stack, "stack"),
            ];
            let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
            json!({
                "prefix": prefix.0, "tunnel": remote.tunnel, "identity": remote.identity, "mtu": remote.mtu,
                "flags": flags,
            })
        };
        all.into_iter().map(entry).collect()
    }

    fn show_status(&self) -> Value {
        let reasons = self.not_ready();
        let now = wall_clock();
        let pool = |family: Family| {
            let usage = self.ledger.pool().usage(family, now);
            let prefixes: Vec<Prefix> =
                self.own_pod_cidrs().into_iter().filter(|prefix| prefix.family() == family).collect();
            (!prefixes.is_empty()).then(|| {
                json!({
                    "pool": self.settings.pool, "family": family, "prefixes": prefixes,
                    "capacity": usage.capacity, "used": usage.held, "cooling": usage.cooling + usage.kept,
                    "free": usage.free, "draining": usage.draining,
                })
            })
        };
        json!({
            "node": self.settings.node,
            "version": env!("CARGO_PKG_VERSION"),
            "ready": reasons.is_empty(),
            "reasons": reasons.iter().map(NotReady::to_string).collect::<Vec<_>>(),
            "dangers": self.dangers,
            "revision": {"desired": self.tables.revision(), "reached": self.reached},
            "pools": Family::BOTH.into_iter().filter_map(pool).collect::<Vec<_>>(),
            "uplinks": self.tables.uplinks.iter().map(|uplink| uplink.ifname.as_str()).collect::<Vec<_>>(),
            "targets": self.kernel.status(),
            "flows": self.sweeps.values().collect::<Vec<_>>(),
            "memory_kib": metrics::resident_kib(),
            "uptime_seconds": self.started.elapsed().as_secs(),
        })
    }

    fn show_pod(&self, endpoint: &Endpoint) -> Value {
        let state = match self.pending.get(&endpoint.key) {
            Some(Pending::Adding { .. }) => "adding",
            Some(Pending::Removing { .. }) => "removing",
            None if self.surroundings(endpoint).ifindex.is_none() => "no link",
            None => "ready",
        };
        json!({
            "attachment": endpoint.key.to_string(),
            "pod": endpoint.pod.as_ref().map(ToString::to_string),
            "network": endpoint.network,
            "addresses": endpoint.addresses.iter().map(|address| address.address.ip()).collect::<Vec<_>>(),
            "mac": endpoint.mac,
            "host_ifname": endpoint.host,
            "mtu": endpoint.mtu,
            "netns": endpoint.netns,
            "mode": if endpoint.is_chained() { "chained" } else { "primary" },
            "state": state,
            "settled": state == "ready" && self.kernel.holds(&self.objects_of(endpoint)),
        })
    }

    fn show_ips(&self) -> Value {
        let now = wall_clock();
        let entry = |(addr, state, owner, since): (std::net::IpAddr, State, &rhumb_ipam::Owner, _)| {
            let (state, until) = match state {
                State::Held => ("leased", None),
                State::Cooling { until } => ("cooling", Some(until)),
                State::Kept { until } => ("kept", Some(until)),
            };
            json!({
                "address": addr, "pool": self.settings.pool, "state": state, "since": since, "until": until,
                "attachment": owner.attachment.to_string(), "pod": owner.pod.as_ref().map(ToString::to_string),
            })
        };
        self.ledger.pool().entries(now).map(entry).collect()
    }

    /// The ways to other nodes' pods as they were chosen, then the other routes of ours.
    fn show_routes(&self) -> Value {
        let chosen = self.ways.choices().map(|(prefix, choice)| {
            let (gateway, dev) = match &choice.way {
                Some(Way::Neighbour(gateway) | Way::Fabric { gateway: Some(gateway), .. }) => {
                    (Some(gateway.addr), Some(gateway.ifname.as_str()))
                }
                Some(Way::Tunnel { endpoint }) => (Some(*endpoint), Some(tunnel::NAME)),
                Some(Way::Fabric { gateway: None, .. }) | None => (None, None),
            };
            let via = match &choice.way {
                Some(Way::Fabric { route, gateway: None }) => Some(format!("route {route}")),
                Some(_) | None => gateway.map(|gateway| gateway.to_string()),
            };
            json!({
                "prefix": prefix, "kind": word(choice.way.as_ref()), "gateway": gateway, "dev": dev, "via": via,
                "node": choice.node, "since_seconds": choice.since.elapsed().as_secs(),
                "since": ago(choice.since.elapsed()), "why": choice.why.word(), "reason": choice.why.to_string(),
                "returns_in_seconds": choice
                    .returns_at(self.settings.hold_down)
                    .map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64()),
            })
        });
        let others = self.kernel.host_routes.actual().into_iter().flatten().filter_map(|(prefix, route)| {
            let (kind, dev) = match route {
                HostRoute::Device { ifname } => ("local", Some(ifname.as_str())),
                HostRoute::Unreachable => ("unreachable", None),
                HostRoute::Via { .. } | HostRoute::Tunnel { .. } => return None,
            };
            Some(json!({
                "prefix": prefix, "kind": kind, "gateway": null, "dev": dev, "via": dev,
                "node": self.settings.node, "since": null, "reason": null,
            }))
        });
        let refused = self.ways.plan().problems.iter().filter_map(|problem| match problem {
            Problem::Overlap { node, prefix, .. } => Some(json!({
                "prefix": prefix, "kind": "none", "gateway": null, "dev": null, "via": null,
                "node": node, "since": null, "reason": problem.to_string(),
            })),
            Problem::NoWay { .. } => None,
        });
        chosen.chain(others).chain(refused).collect()
    }

    /// The last changes of ways, the newest first.
    fn show_route_changes(&self) -> Value {
        self.ways.history().last().rev().map(show_change).collect()
    }

    fn show_endpoints(&self) -> Value {
        let names: std::collections::BTreeMap<u32, &str> = self
            .ledger
            .endpoints()
            .values()
            .filter_map(|endpoint| Some((self.surroundings(endpoint).ifindex?, endpoint.host.as_str())))
            .collect();
        let links = self.kernel.pod_links.actual();
        let flags = |ifindex: u32, shaped: bool| {
            let link = links.and_then(|links| links.get(&rhumb_ebpf::IfIndex(ifindex)));
            let mut flags = Vec::new();
            if shaped {
                flags.push("shaped");
            }
            if link.is_some_and(|link| link.host_ports) {
                flags.push("host-ports");
            }
            flags
        };
        self.kernel
            .pods
            .actual()
            .into_iter()
            .flatten()
            .map(|(addr, entry)| {
                json!({
                    "address": addr.0, "ifindex": entry.ifindex, "ifname": names.get(&entry.ifindex),
                    "mac": entry.mac, "flags": flags(entry.ifindex, entry.shaped),
                })
            })
            .collect()
    }
}

/// A change of way.
pub(crate) fn show_change(event: &Event) -> Value {
    let Change { prefix, node, from, to, why } = &event.change;
    let way = |way: &Option<Way>| way.as_ref().map(ToString::to_string);
    json!({
        "at": Timestamp::from(event.at), "ago": ago(event.at.elapsed().unwrap_or_default()),
        "prefix": prefix, "node": node, "from": way(from), "to": way(to),
        "from_kind": word(from.as_ref()), "to_kind": word(to.as_ref()),
        "why": why.word(), "reason": why.to_string(),
    })
}

fn word(way: Option<&Way>) -> &'static str {
    way.map_or("none", Way::word)
}

/// A length of time as people say it.
fn ago(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7199 => format!("{}m", seconds / 60),
        seconds @ 7200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
