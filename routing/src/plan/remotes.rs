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
    /// Whether only the host's stack finds the way: its rules say more than a program can ask.
    pub stack: bool,
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
///
/// The kernel passes over `suppress_prefixlength` of IPv6 rules when a program asks for a route: the program would be
/// told the default route of a table that is there for all others. Where the host has such a rule, everything of
/// IPv6 goes by its stack but what the first table is sure to have: neighbours, and our own routes to pods by them.
pub(super) fn remotes(input: &PlanInput, chosen: &Memory) -> BTreeMap<Prefix, Remote> {
    let keeping = Remote { keep_source: true, ..Remote::default() };
    let by_stack = |family| family == Family::V6 && input.fabric.suppresses(family);
    let mut remotes = BTreeMap::new();
    if by_stack(Family::V6) {
        remotes.insert(Family::V6.default_route(), Remote { stack: true, ..Remote::default() });
    }
    for prefix in &input.keep_source {
        remotes.insert(*prefix, Remote { stack: by_stack(prefix.family()), ..keeping });
    }
    for (prefix, choice) in &chosen.0 {
        let (endpoint, stack) = match choice.way {
            Some(Way::Tunnel { endpoint }) => (Some(endpoint), false),
            Some(Way::Neighbour(_)) => (None, false),
            Some(Way::Fabric { .. }) | None => (None, by_stack(prefix.family())),
        };
        let mtu = endpoint.map_or(0, |endpoint| tunnel_mtu(endpoint, &input.uplinks));
        let owner = number(&choice.node);
        remotes.insert(*prefix, Remote { tunnel: endpoint, mtu, stack, owner, ..keeping });
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
            let on_link =
                || input.uplinks.iter().flat_map(|reach| &reach.on_link).any(|subnet| subnet.contains(*addr));
            let stack = way.is_none() && by_stack(Family::of(*addr)) && !on_link();
            let remote = Remote { node: true, stack, owner, ..way.copied().unwrap_or(keeping) };
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
