// SPDX-License-Identifier: Apache-2.0
//! What the datapath has to know of addresses elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rhumb_model::{Family, NodeName, Prefix};

use super::way::{Way, tunnel_overhead};
use super::{Memory, PlanInput, Reach};

/// What is behind a prefix, for the datapath.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remote {
    /// Where encapsulated packets are sent; without it the host's routes say the way.
    pub tunnel: Option<IpAddr>,
    /// Largest IP packet that the way takes; 0 when the route says.
    pub mtu: u16,
    /// Whether the source of pods' packets to it stays.
    pub keep_source: bool,
    /// Whether the addresses are those of a node.
    pub node: bool,
    /// The number of the node that has the addresses; 0 when none has.
    pub owner: u64,
}

/// The number of a node: a hash of its name (FNV-1a), the same on every node and after every start.
fn number(node: &NodeName) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in node.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.max(1)
}

/// The entries for pods and nodes, and for where else the source stays. Pods and nodes reach each other without
/// translation, as Kubernetes wants it. Packets to a node's address go as those to its pods of that family, because
/// its answers do.
pub(super) fn remotes(input: &PlanInput, chosen: &Memory) -> BTreeMap<Prefix, Remote> {
    let keeping = Remote { keep_source: true, ..Remote::default() };
    let mut remotes: BTreeMap<Prefix, Remote> =
        input.keep_source.iter().map(|prefix| (*prefix, keeping)).collect();
    for (prefix, choice) in &chosen.0 {
        let endpoint = match choice.way {
            Some(Way::Tunnel { endpoint }) => Some(endpoint),
            Some(Way::Neighbour(_) | Way::Fabric { .. }) | None => None,
        };
        let mtu = endpoint.map_or(0, |endpoint| tunnel_mtu(endpoint, &input.uplinks));
        let owner = number(&choice.node);
        remotes.insert(*prefix, Remote { tunnel: endpoint, mtu, owner, ..keeping });
    }
    for node in &input.nodes {
        for addr in &node.addresses {
            let pods = node.pod_cidrs.iter().map(|(_, prefix)| prefix);
            let same = pods.filter(|prefix| prefix.family() == Family::of(*addr));
            let tunnelled =
                same.filter(|prefix| chosen.0.get(prefix).is_some_and(|choice| choice.node == node.name));
            let way =
                tunnelled.filter_map(|prefix| remotes.get(prefix)).find(|remote| remote.tunnel.is_some());
            let owner = number(&node.name);
            let remote = Remote { node: true, owner, ..way.copied().unwrap_or(keeping) };
            remotes.insert(Prefix::host(*addr), remote);
        }
    }
    remotes
}

/// The largest IP packet that fits into the tunnel to `endpoint`: by the link on which that is a neighbour, else by
/// the narrowest one.
pub(super) fn tunnel_mtu(endpoint: IpAddr, uplinks: &[Reach]) -> u16 {
    let on_link = uplinks.iter().find(|reach| reach.on_link.iter().any(|subnet| subnet.contains(endpoint)));
    let narrowest = || uplinks.iter().map(|reach| reach.mtu).min();
    let mtu = on_link.map(|reach| reach.mtu).or_else(narrowest).unwrap_or_default();
    let inner = mtu.saturating_sub(tunnel_overhead(Family::of(endpoint)));
    u16::try_from(inner).unwrap_or(u16::MAX)
}
