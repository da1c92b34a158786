// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which port of the node stands for a pod's, and how its answers are found.

use crate::Family;
use crate::layout::{Address, CtKey, Nat, NatKey};
use crate::{Ports, SCTP};

/// The lowest port that is given; those below belong to services of the node.
pub const LOWEST: u16 = 1_024;
/// How many ports there are to give, for each address of the node, other side and protocol.
pub const PORTS: u32 = 65_536 - LOWEST as u32;
/// How many ports are tried. With 60,000 of the ports taken, one flow in 500,000 finds none of so many free.
pub const PROBES: u32 = 192;

/// The ports that a flow may take, in the order in which they are tried: its own, then a series without a pattern, so
/// that pods that count up from one port do not meet again; the same whenever the flow asks, and another for each flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The pod's port.
    source: [u8; 2],
    /// Whether it may be given.
    keeps: bool,
    /// What the series is made from.
    hash: u32,
}

impl Probe {
    /// The series of the flow that is to get the mapping `nat` under `key`, whatever port the key has so far.
    #[inline(always)]
    pub fn new(key: &NatKey, nat: &Nat) -> Self {
        let [a, b] = nat.pod_port;
        let [c, d] = key.peer_port(nat);
        let mut hash = mix(0x9e37_79b9 ^ u32::from(key.protocol), u32::from_be_bytes([a, b, c, d]));
        let mut at = 0;
        while at < 4 {
            hash = mix(mix(hash, nat.pod[at]), key.remote[at]);
            at += 1;
        }
        Self { source: nat.pod_port, keeps: may_be_given(key.protocol, nat.pod_port), hash }
    }

    /// The port to try at `attempt`, in wire order.
    #[inline(always)]
    pub fn port(&self, attempt: u32) -> [u8; 2] {
        if attempt == 0 && self.keeps {
            return self.source;
        }
        let at = mix(self.hash, attempt) % PORTS;
        let [_, _, high, low] = (at + LOWEST as u32).to_be_bytes();
        [high, low]
    }
}

/// Whether a flow may be given the port: those of SCTP cannot be changed, so it keeps a low one too.
#[inline(always)]
pub const fn may_be_given(protocol: u8, port: [u8; 2]) -> bool {
    protocol == SCTP || u16::from_be_bytes(port) >= LOWEST
}

/// How many ports a flow may try: the checksum of SCTP covers its ports, and no helper of the kernel computes it.
#[inline(always)]
pub const fn probes(protocol: u8) -> u32 {
    if protocol == SCTP { 1 } else { PROBES }
}

/// One step of a hash (the finalizer of `MurmurHash3`).
#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let mut h = hash.rotate_left(5) ^ word;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

impl NatKey {
    /// What the answer to a packet to `remote` looks like, when the packet left as `node` with `port`.
    ///
    /// The answer to an echo has the number of the question as both its ports.
    #[inline(always)]
    pub fn of_sent<F: Family>(remote: F::Addr, node: F::Addr, ports: &Ports, port: [u8; 2]) -> Self {
        let remote_port = if ports.is_echo() { port } else { ports.dst };
        Self {
            remote: F::key(remote),
            node: F::key(node),
            remote_port,
            node_port: port,
            protocol: ports.protocol,
            padding: [0; 3],
        }
    }

    /// Another port of the node.
    #[inline(always)]
    pub fn set_port(&mut self, port: [u8; 2]) {
        self.node_port = port;
        if self.is_echo() {
            self.remote_port = port;
        }
    }

    /// The key of a packet that came from the wire.
    #[inline(always)]
    pub fn of_received<F: Family>(remote: F::Addr, node: F::Addr, ports: &Ports) -> Self {
        Self {
            remote: F::key(remote),
            node: F::key(node),
            remote_port: ports.src,
            node_port: ports.dst,
            protocol: ports.protocol,
            padding: [0; 3],
        }
    }

    /// The other side's port as the flow of the pod behind `nat` has it.
    #[inline(always)]
    pub const fn peer_port(&self, nat: &Nat) -> [u8; 2] {
        if self.is_echo() { nat.pod_port } else { self.remote_port }
    }

    #[inline(always)]
    const fn is_echo(&self) -> bool {
        matches!(self.protocol, crate::transport::ICMP | crate::ip::ICMPV6)
    }

    /// The key of the flow of the pod behind `nat`.
    pub fn flow(&self, nat: &Nat) -> CtKey {
        let (pod, peer) = ((nat.pod, nat.pod_port), (self.remote, self.peer_port(nat)));
        CtKey::of_sides(pod, peer, self.protocol).0
    }
}

impl Nat {
    /// The mapping of a pod's port.
    #[inline(always)]
    pub const fn new(pod: Address, pod_port: [u8; 2], expires: u32) -> Self {
        Self { pod, pod_port, padding: [0; 2], expires, reserved: [0; 8] }
    }

    /// Whether it belongs to the pod with this address and port.
    #[inline(always)]
    pub fn is_of(&self, pod: &Address, port: [u8; 2]) -> bool {
        crate::layout::same(&self.pod, pod) && self.pod_port == port
    }
}

#[cfg(test)]
mod tests;
