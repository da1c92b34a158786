// SPDX-License-Identifier: Apache-2.0
//! What is counted of BGP.

use rhumb_bgp_feed::{MessageCounts, SessionState};

use super::catalogue::{
    BGP_ESTABLISHED, BGP_LEARNED, BGP_LOCAL_ROUTES, BGP_MESSAGES, BGP_ROUTES, BGP_SESSION, BGP_SPEAKER,
};
use super::registry::Sample;
use crate::bgp::Report;

/// Adds what is known of the speaker, metric by metric.
pub(super) fn add(samples: &mut Vec<Sample>, report: &Report) {
    samples.push(Sample::new(&BGP_SPEAKER, &[], u64::from(report.speaker.is_some())));
    let peers = || report.peers.iter().map(|(key, state)| (key.0.as_str(), state));
    for (peer, state) in peers() {
        let up = u64::from(state.session == SessionState::Established);
        samples.push(Sample::new(&BGP_SESSION, &[("instance", &state.instance), ("peer", peer)], up));
    }
    for (peer, state) in peers() {
        let labels = [("instance", state.instance.as_str()), ("peer", peer)];
        samples.push(Sample::new(&BGP_ESTABLISHED, &labels, state.established_count));
    }
    for (peer, state) in peers() {
        for (direction, counts) in [("in", state.received), ("out", state.sent)] {
            let MessageCounts { open, update, notification, keepalive, route_refresh } = counts;
            let types = [
                ("open", open),
                ("update", update),
                ("notification", notification),
                ("keepalive", keepalive),
                ("route_refresh", route_refresh),
            ];
            for (kind, value) in types {
                let labels = [
                    ("instance", state.instance.as_str()),
                    ("peer", peer),
                    ("direction", direction),
                    ("type", kind),
                ];
                samples.push(Sample::new(&BGP_MESSAGES, &labels, value));
            }
        }
    }
    for (peer, state) in peers() {
        for family in &state.families {
            let tables = [
                ("received", family.received),
                ("accepted", family.accepted),
                ("stale", family.stale),
                ("advertised", family.advertised),
            ];
            for (table, value) in tables {
                let name = family.family.to_string();
                let labels = [
                    ("instance", state.instance.as_str()),
                    ("peer", peer),
                    ("family", name.as_str()),
                    ("table", table),
                ];
                samples.push(Sample::new(&BGP_ROUTES, &labels, value));
            }
        }
    }
    for ((instance, kind), routes) in &report.routes {
        let labels = [("instance", instance.as_str()), ("kind", &kind.to_string())];
        samples.push(Sample::new(&BGP_LOCAL_ROUTES, &labels, *routes));
    }
    for (instance, prefixes) in report.learned() {
        samples.push(Sample::new(&BGP_LEARNED, &[("instance", instance)], prefixes));
    }
}
