// SPDX-License-Identifier: Apache-2.0
//! Every metric with its name, its labels and what it says. `cargo xtask gen` makes a document of this table.

use rhumb_ebpf::{Reason, Verdict};

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, as long as what is counted lives.
    Counter,
    /// Comes and goes.
    Gauge,
}

/// What a value is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Names of its labels, separated by spaces.
    pub(crate) labels: &'static str,
    /// A sentence for people.
    pub(crate) help: &'static str,
}

impl Metric {
    /// The sentence, and for packets what each reason means.
    pub(crate) fn describe(&self) -> String {
        let dropped = if std::ptr::eq(self, &raw const DROP_COUNT) {
            true
        } else if std::ptr::eq(self, &raw const FORWARD_COUNT) {
            false
        } else {
            return self.help.to_owned();
        };
        let reasons = Reason::ALL.iter().filter(|reason| (reason.verdict() == Verdict::Drop) == dropped);
        let meanings = reasons.map(|reason| format!(" {}: {}", reason.text(), reason.describe()));
        self.help.to_owned() + &meanings.collect::<String>()
    }
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $labels:literal $help:literal)*) => {
        $(pub(crate) static $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help };)*

        /// Every metric, in the order of the output.
        pub(crate) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    DROP_COUNT Counter "rhumb_drop_count_total" "reason direction" "Packets that the datapath dropped."
    DROP_BYTES Counter "rhumb_drop_bytes_total" "reason direction" "Bytes of dropped packets, with the Ethernet header."
    FORWARD_COUNT Counter "rhumb_forward_count_total" "reason direction" "Packets that the datapath forwarded, answered or passed on to the host's stack."
    FORWARD_BYTES Counter "rhumb_forward_bytes_total" "reason direction" "Bytes of packets that were not dropped, with the Ethernet header."
    EVENT_LOST Counter "rhumb_event_lost_total" "reason cause" "Packets that `rhumb monitor` was not told of: too many at a time (rate), or nobody read (full)."
    MAP_ENTRIES Gauge "rhumb_bpf_map_entries" "map" "Entries of a map of the datapath; counted at most every 10 seconds, large maps more seldom."
    MAP_CAPACITY Gauge "rhumb_bpf_map_capacity" "map" "Entries that the map can have."
    MAP_PRESSURE Gauge "rhumb_bpf_map_pressure" "map" "Share of the map that is in use, 0 to 1. A map that forgets its oldest entry when full stays near 1 without harm to the rest."
    MAP_EVICTED Counter "rhumb_bpf_map_evicted_total" "map" "Entries of ct and nat that had to make room for others before their time, at least so many: put in, less taken out, less present, as of the last sweep and since the first one after the agent's start. A masqueraded flow that is evicted is found again by its next packet, unless its port went to another."
    SWEEP_SEEN Counter "rhumb_sweep_seen_total" "map" "Entries that the sweep looked at."
    SWEEP_REMOVED Counter "rhumb_sweep_removed_total" "map" "Entries that the sweep removed as their time was over."
    SWEEP_MILLISECONDS Counter "rhumb_sweep_milliseconds_total" "" "Time that rounds of the sweep took, most of it in pauses."
    RECONCILE_OBJECTS Gauge "rhumb_reconcile_objects" "target" "Objects of this kind that are there, in the kernel or as files."
    RECONCILE_FAILING Gauge "rhumb_reconcile_failing" "target" "Objects of this kind that are not as desired; `rhumb status` names them with their error."
    RECONCILE_COUNT Counter "rhumb_reconcile_count_total" "outcome" "Objects that were put or removed (changed), and tries that did not succeed (failed)."
    ROUTE_PREFIXES Gauge "rhumb_route_prefixes" "way" "Pod prefixes of other nodes by the way that their packets take; `rhumb route list` names them."
    ROUTE_CHANGES Counter "rhumb_route_changes_total" "from to reason" "Times that a prefix changed its way; `rhumb route changes` shows the last."
    PROBE_ADDRESSES Gauge "rhumb_probe_addresses" "state" "Addresses of other nodes by what the probe between agents says: never heard of (unheard), answering, answered by the kernel only (away), silent; `rhumb route probes` names them."
    PROBE_COUNT Counter "rhumb_probe_count_total" "what" "Datagrams of the probe between agents by what they were or what became of them."
    IPAM_ADDRESSES Gauge "rhumb_ipam_addresses" "pool family state" "Addresses of the node's pool: held, cooling down, kept for a pod to return, free, and in prefixes that are being given up (draining)."
    ATTACHMENTS Gauge "rhumb_attachments" "" "Interfaces of containers that rhumb looks after."
    BGP_SPEAKER Gauge "rhumb_bgp_speaker_up" "" "1 while the BGP speaker of the node answers the agent, else 0."
    BGP_SESSION Gauge "rhumb_bgp_session_up" "instance peer" "1 while the session with the peer is established, else 0; `rhumb bgp peers` says how far it is."
    BGP_ESTABLISHED Counter "rhumb_bgp_session_established_total" "instance peer" "Times that the session with the peer was established since the speaker's start."
    BGP_MESSAGES Counter "rhumb_bgp_messages_total" "instance peer direction type" "BGP messages received (in) and sent (out) since the speaker's start."
    BGP_ROUTES Gauge "rhumb_bgp_routes" "instance peer family table" "Routes that the peer told (received), those of them that the import policy took (accepted) or keeps from before a restart (stale), and those that it was told (advertised)."
    BGP_LOCAL_ROUTES Gauge "rhumb_bgp_local_routes" "instance kind" "Routes of this node that advertisements choose."
    BGP_LEARNED Gauge "rhumb_bgp_learned_prefixes" "instance" "Prefixes to which peers told a way that is in use."
    AGENT_READY Gauge "rhumb_agent_ready" "" "1 when ADD can be served, else 0; `rhumb status` says why."
    AGENT_INFO Gauge "rhumb_agent_info" "node version" "Always 1."
    CPU_SECONDS Counter "process_cpu_seconds_total" "" "Processor time that the agent used."
    OPEN_FDS Gauge "process_open_fds" "" "Open descriptors of the agent."
    RESIDENT Gauge "process_resident_memory_bytes" "" "Memory of the agent that is in use."
    VIRTUAL Gauge "process_virtual_memory_bytes" "" "Memory of the agent that is reserved."
    START_TIME Gauge "process_start_time_seconds" "" "When the agent started, in seconds since 1970."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_what_they_are() {
        for (number, metric) in ALL.iter().enumerate() {
            assert!(ALL[..number].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn packets_are_described_by_all_their_reasons() {
        let (drops, others) = (DROP_COUNT.describe(), FORWARD_COUNT.describe());
        for reason in Reason::ALL {
            let own = if reason.verdict() == Verdict::Drop { &drops } else { &others };
            assert!(own.contains(&format!(" {}: {}", reason.text(), reason.describe())));
        }
        assert_eq!(ATTACHMENTS.describe(), ATTACHMENTS.help);
    }
}
