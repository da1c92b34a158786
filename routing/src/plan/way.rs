// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;

use rhumb_model::{Family, IfName, Prefix};

/// A way to the pods of another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The node's address is a neighbour on a link.
    Neighbour(Gateway),
    /// Another program, or the network itself, has put a route.
    Fabric {
        /// Destination of that route; it covers the pods' prefix.
        route: Prefix,
        /// Its gateway, where it has exactly one.
        gateway: Option<Gateway>,
    },
    /// Encapsulated, to an address of the node.
    Tunnel {
        /// That address.
        endpoint: IpAddr,
    },
}

/// A neighbour that takes packets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Its address.
    pub addr: IpAddr,
    /// The link to it.
    pub ifname: IfName,
}

/// Which ways a pool's policy allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The direct way while it is there and answers, else the tunnel.
    #[default]
    Auto,
    /// Only the direct way.
    Direct,
    /// Only the tunnel.
    Tunnel,
}

/// The policy of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What holds without an exception.
    pub mode: Mode,
    /// What holds within a block; the longest that covers a prefix counts.
    pub exceptions: Vec<(Prefix, Mode)>,
}

impl Policy {
    /// What holds for a prefix.
    pub fn mode_of(&self, prefix: Prefix) -> Mode {
        let covering = self.exceptions.iter().filter(|(block, _)| block.covers(prefix));
        covering.max_by_key(|(block, _)| block.len()).map_or(self.mode, |(_, mode)| *mode)
    }
}

/// Why a way was chosen, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The policy allows nothing else.
    Policy,
    /// The node is a neighbour.
    Neighbour,
    /// There is a route of others.
    FabricRoute,
    /// There is no direct way, and was none.
    NoDirectWay,
    /// The direct way is gone.
    DirectGone,
    /// The neighbour of the direct way does not answer.
    NoAnswer,
    /// The node at the end of the direct way has fallen silent.
    ProbeLost,
    /// The direct way does not answer, and there is no better one.
    NothingBetter,
    /// The direct way is back, and has still to prove itself.
    HoldDown,
    /// The direct way was back for long enough.
    HoldDownOver,
    /// The node at the end of the direct way answers again, for long enough.
    ProbeAnswered,
    /// There is no way at all.
    NoWay,
    /// The prefix belongs to no other node any more.
    Unclaimed,
}

impl Why {
    /// One word for programs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Why::Policy => "policy",
            Why::Neighbour => "neighbour",
            Why::FabricRoute => "fabric_route",
            Why::NoDirectWay => "no_direct_way",
            Why::DirectGone => "direct_gone",
            Why::NoAnswer => "no_answer",
            Why::ProbeLost => "probe_lost",
            Why::NothingBetter => "nothing_better",
            Why::HoldDown => "hold_down",
            Why::HoldDownOver => "hold_down_over",
            Why::ProbeAnswered => "probe_answered",
            Why::NoWay => "no_way",
            Why::Unclaimed => "unclaimed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Policy => "the pool's policy",
            Why::Neighbour => "the node is a neighbour",
            Why::FabricRoute => "the host has a route to it",
            Why::NoDirectWay => "no direct way",
            Why::DirectGone => "the direct way is gone",
            Why::NoAnswer => "the neighbour of the direct way does not answer",
            Why::ProbeLost => "the node does not answer the probe by the direct way",
            Why::NothingBetter => "does not answer, and nothing better is there",
            Why::HoldDown => "the direct way is back and has to prove itself",
            Why::HoldDownOver => "the direct way was back for long enough",
            Why::ProbeAnswered => "the node has answered by the direct way for long enough",
            Why::NoWay => "no way",
            Why::Unclaimed => "no other node holds it any more",
        })
    }
}

impl Way {
    /// One word for people and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Way::Neighbour(_) => "direct",
            Way::Fabric { .. } => "fabric",
            Way::Tunnel { .. } => "tunnel",
        }
    }

    /// Whether packets go as they are.
    pub fn is_direct(&self) -> bool {
        match self {
            Way::Neighbour(_) | Way::Fabric { .. } => true,
            Way::Tunnel { .. } => false,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Neighbour(gateway) => write!(f, "direct via {gateway}"),
            Way::Fabric { route, gateway: Some(gateway) } => write!(f, "fabric by {route} via {gateway}"),
            Way::Fabric { route, gateway: None } => write!(f, "fabric by {route}"),
            Way::Tunnel { endpoint } => write!(f, "tunnel to {endpoint}"),
        }
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.addr, self.ifname)
    }
}

/// Bytes that the tunnel adds over an underlay of this family: outer IP, UDP and VXLAN headers, and the inner
/// Ethernet header (RFC 7348 §5).
pub fn tunnel_overhead(underlay: Family) -> u32 {
    match underlay {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}
