// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::{
    Eni, EniId, Instance, InstanceLimits, NodeName, PoolName, Prefix, SecurityGroupId, Subnet, SubnetId,
    SubnetReservation, Timestamp,
};

use super::EniPolicy;

/// Everything that a plan is made of, but for the [`super::Memory`].
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The cluster's id: the value of [`super::TAG_CLUSTER`]. No two clusters of an account have the same.
    pub cluster: String,
    /// The ENIPools.
    pub pools: BTreeMap<PoolName, EniPolicy>,
    /// The nodes that an ENIPool chooses and whose instance is known.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// For how long an interface that nobody has is seen to be so before it is deleted: its maker may be about to attach
    /// it. Never less than [`super::LAG`] is waited.
    pub orphan_age: Duration,
}

impl Default for Inputs {
    fn default() -> Self {
        let (cluster, pools, nodes) = Default::default();
        Self { cluster, pools, nodes, orphan_age: Duration::from_secs(300) }
    }
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The first ENIPool by name that chooses it.
    pub pool: PoolName,
    /// Its instance as EC2 shows it.
    pub instance: Instance,
    /// What the instance's type allows; `None`: nobody knows the type.
    pub limits: Option<InstanceLimits>,
    /// How many pods its kubelet takes (`Node.status.allocatable.pods`).
    pub kubelet_pods: Option<u32>,
    /// Whether it is drained, or about to go: it gets nothing, and nothing is taken from it.
    pub leaving: bool,
    /// Pods that are bound to it and want an address of their own, where that is known.
    pub scheduled: u32,
    /// Its NodeConfig, as read.
    pub record: Record,
    /// What its agent says; `None` before it spoke.
    pub report: Option<Report>,
}

impl NodeFacts {
    /// Whether anything is given to it or taken from it: not while it is drained, or its instance is on its way out.
    pub(super) fn is_served(&self) -> bool {
        !self.leaving && self.instance.state.takes_interfaces()
    }
}

/// The part of a NodeConfig that the plan writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Grows by one with every change; the first is the time, in milliseconds since 1970. 0: there is no NodeConfig.
    pub generation: u64,
    /// The blocks of interfaces.
    pub blocks: Vec<EniBlock>,
    /// The interfaces.
    pub interfaces: Vec<EniId>,
}

/// A block of an interface, as the NodeConfig has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EniBlock {
    /// The block: /32, /28 or /80.
    pub cidr: Prefix,
    /// The interface that has it.
    pub interface: EniId,
    /// The generation under which the operator wants it back.
    pub releasing: Option<u64>,
    /// The agent let it go, and EC2 is asked to take it.
    pub unassigning: bool,
}

/// What a node's agent says (NodeState).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The generation of the NodeConfig that this is about.
    pub observed: u64,
    /// IPv4 addresses that pods have.
    pub used: u32,
    /// IPv4 addresses that rest.
    pub cooling: u32,
    /// Pods that were refused an address, or wait for one, in the last minute.
    pub pending: u32,
    /// Blocks of which no address is leased or rests.
    pub idle: BTreeSet<Prefix>,
    /// Blocks that the agent let go.
    pub released: Vec<Word>,
    /// Blocks that it cannot let go.
    pub declined: Vec<Word>,
}

/// The agent's answer about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// The block.
    pub cidr: Prefix,
    /// The [`EniBlock::releasing`] that it answers.
    pub generation: u64,
}

/// EC2 as it was last looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// When the look began.
    pub at: Timestamp,
    /// Every interface of the VPCs in question, other people's as well: addresses are chosen between theirs.
    pub enis: BTreeMap<EniId, Eni>,
    /// Every subnet of these VPCs.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// Every security group of these VPCs, with its tags.
    pub groups: BTreeMap<SecurityGroupId, BTreeMap<String, String>>,
    /// The reservations in subnets.
    pub reservations: Vec<SubnetReservation>,
}
