// SPDX-License-Identifier: Apache-2.0
//! What the agent knows from outside, with the revision at which it knew it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rhumb_ipam::Range;
use rhumb_model::{NodeName, PoolName, Prefix, Revision};
use rhumb_routing::host::Uplink;
use rhumb_routing::plan::RemoteNode;

/// Inputs of the plan. `None` means: not yet seen in full.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    revision: Revision,
    /// Pod CIDRs of every node, from the NodeConfig objects.
    pub(crate) pod_cidrs: Option<BTreeMap<NodeName, Vec<(PoolName, Prefix)>>>,
    /// Addresses of every node, from the NodeState objects.
    pub(crate) node_addresses: Option<BTreeMap<NodeName, Vec<IpAddr>>>,
    /// Addresses that are never leased, from the PodPool objects.
    pub(crate) reserved: Option<BTreeMap<PoolName, Vec<Prefix>>>,
    /// Interfaces that lead out of this node.
    pub(crate) uplinks: Vec<Uplink>,
    /// Addresses of this node, on whatever interface.
    pub(crate) own_addresses: Vec<IpAddr>,
}

impl Tables {
    /// Notes that an input has changed.
    pub(crate) fn touch(&mut self) {
        self.revision = self.revision.next();
    }

    /// The revision of the inputs.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether every input from the store was seen in full.
    pub(crate) fn synced(&self) -> bool {
        self.pod_cidrs.is_some() && self.node_addresses.is_some() && self.reserved.is_some()
    }

    /// Pod CIDRs of one node, over all pools.
    pub(crate) fn pod_cidrs_of(&self, node: &NodeName) -> Vec<Prefix> {
        let assigned = self.pod_cidrs.as_ref().and_then(|nodes| nodes.get(node));
        assigned.into_iter().flatten().map(|(_, prefix)| *prefix).collect()
    }

    /// What `node` may lease from `pool`.
    pub(crate) fn ranges(&self, node: &NodeName, pool: &PoolName) -> Vec<Range> {
        let assigned = self.pod_cidrs.as_ref().and_then(|nodes| nodes.get(node));
        let reserved =
            self.reserved.as_ref().and_then(|pools| pools.get(pool)).map_or(&[][..], Vec::as_slice);
        assigned
            .into_iter()
            .flatten()
            .filter(|(name, _)| name == pool)
            .map(|(_, prefix)| Range {
                prefix: *prefix,
                reserved: reserved.iter().copied().filter(|other| other.overlaps(*prefix)).collect(),
            })
            .collect()
    }

    /// Every other node with its addresses and pod CIDRs.
    pub(crate) fn remote_nodes(&self, own: &NodeName) -> Vec<RemoteNode> {
        let Some(addresses) = &self.node_addresses else { return Vec::new() };
        addresses
            .iter()
            .filter(|(name, _)| *name != own)
            .map(|(name, addresses)| RemoteNode {
                name: name.clone(),
                addresses: addresses.clone(),
                pod_cidrs: self.pod_cidrs_of(name),
            })
            .collect()
    }

    /// The smallest MTU of the uplinks, in bytes.
    pub(crate) fn uplink_mtu(&self) -> Option<u32> {
        self.uplinks.iter().map(|uplink| uplink.mtu).min()
    }
}
