// SPDX-License-Identifier: Apache-2.0
//! What the datapath needs of the kernel, looked at one by one.

use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported};

/// Something that the kernel has or lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
    /// What does not work without it.
    pub lost: &'static str,
    /// What stands in for it; where nothing does, the kernel cannot carry the datapath.
    pub instead: Option<&'static str>,
    /// Whether this kernel has it.
    pub present: bool,
}

/// Looks at what this kernel has; needs the right to load programs. What cannot be found out counts as present: the
/// load of the programs then says what is wrong.
pub fn features() -> Vec<Feature> {
    let helper = |helper| is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true);
    vec![
        Feature {
            name: "tcx",
            since: "6.6",
            lost: "whoever removes the clsact qdisc of an uplink removes our programs there until the agent looks again, \
                   and a filter of others before ours may keep packets from it",
            instead: Some("filters of clsact on uplinks and on the tunnel"),
            present: has_tcx(),
        },
        Feature {
            name: "bpf_redirect_peer",
            since: "5.10",
            lost: "packets cannot be delivered into a pod",
            instead: None,
            present: helper(BpfHelper::BPF_FUNC_redirect_peer),
        },
        Feature {
            name: "bpf_redirect_neigh",
            since: "5.10",
            lost: "packets to a neighbour that is not resolved yet cannot be sent",
            instead: None,
            present: helper(BpfHelper::BPF_FUNC_redirect_neigh),
        },
        Feature {
            name: "bpf_fib_lookup",
            since: "4.18",
            lost: "the host's routes cannot be asked, so other nodes cannot be reached",
            instead: None,
            present: helper(BpfHelper::BPF_FUNC_fib_lookup),
        },
        Feature {
            name: "bpf_skb_set_tunnel_key",
            since: "5.19",
            lost: "packets to nodes without another way cannot be encapsulated",
            instead: None,
            present: helper(BpfHelper::BPF_FUNC_skb_set_tunnel_key),
        },
        Feature {
            name: "bpf_csum_diff",
            since: "4.6",
            lost: "host ports cannot be translated for IPv6",
            instead: None,
            present: helper(BpfHelper::BPF_FUNC_csum_diff),
        },
    ]
}

/// Whether programs can be attached as tcx links, which [`Attachments`](crate::Attachments) are.
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}
