// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;

use rhumb_model::{Family, InstanceId, NodeName, PoolName, Prefix, SubnetId, VpcId, Zone};
use serde::{Deserialize, Serialize};

use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta};

/// Condition type that says whether the node's agent does its work.
pub const READY: &str = "Ready";

/// Condition type that says whether other programs of the node leave the interfaces alone that the cloud gave it; there
/// where it has some.
pub const INTERFACES_LEFT_ALONE: &str = "InterfacesLeftAlone";

/// What a node's agent says about itself. Written by that agent only; its name is the node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeState {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What the agent says; empty before it spoke.
    pub status: NodeStateStatus,
}

own_kind!(NodeState, "nodestates", status: NodeStateStatus, default);

/// What a node's agent says about itself.
///
/// Every field is always written, so that a status put in place of an older one leaves nothing of it. Fields that are not
/// known are passed over: agents and the operator of an older version read it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStateStatus {
    /// Addresses of the node; the first of each family is its primary one.
    pub addresses: Vec<IpAddr>,
    /// How full each pool is on this node.
    pub pools: Vec<PoolUsage>,
    /// Conditions, one per type.
    pub conditions: Vec<Condition>,
    /// How it stands with the peers of the node's BGP speaker, as the agent heard last.
    pub bgp_peers: Vec<BgpPeerStatus>,
    /// Version of the agent.
    pub agent_version: String,
    /// The instance that the node is, where it is one of EC2.
    pub instance: Option<InstanceIdentity>,
    /// How many pods were refused an address, or wait for one, in the last minute.
    pub pending: u32,
    /// The [`crate::EniConfig::generation`] of the NodeConfig that all of this is about.
    pub observed_generation: u64,
    /// Blocks that the operator wanted back and that the agent let go: no address of them is leased or rests, and none
    /// will be leased. A word stays until its block is gone from the NodeConfig, or stands there anew.
    pub released: Vec<BlockWord>,
    /// Blocks that the operator wanted back and that pods have addresses of.
    pub declined: Vec<BlockWord>,
}

/// The instance of EC2 that a node is, as its metadata service says (IMDSv2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceIdentity {
    /// The instance.
    pub id: InstanceId,
    /// Its type: `m5.large`.
    pub kind: String,
    /// Its zone.
    pub zone: Zone,
    /// The subnet of its primary interface.
    pub subnet: SubnetId,
    /// The VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<VpcId>,
}

/// The agent's answer to [`crate::PodCidr::releasing`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockWord {
    /// The block.
    pub cidr: Prefix,
    /// The number that is answered.
    pub generation: u64,
}

/// How it stands with a BGP peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPeerStatus {
    /// The instance.
    pub instance: String,
    /// The peer: instance, name in the [`crate::BGPClusterConfig`], and where that is a rule, whom it found.
    pub peer: String,
    /// Where it is.
    pub address: String,
    /// Its AS, once it was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// State of the session (RFC 4271 §8.2.2): `established`, or how far it is.
    pub session: String,
}

/// How many addresses of a pool's blocks on one node are in which state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUsage {
    /// The pool.
    pub pool: PoolName,
    /// The family.
    pub family: Family,
    /// The blocks that these numbers count: the agent may not have seen the newest yet.
    #[serde(default, rename = "podCIDRs")]
    pub pod_cidrs: Vec<Prefix>,
    /// Those of these blocks of which no address is leased or rests: the ones that could be handed back.
    #[serde(default)]
    pub idle: Vec<Prefix>,
    /// Addresses that can be leased at all.
    pub capacity: u64,
    /// Leased.
    pub used: u64,
    /// Released, and not yet leased again.
    pub cooling: u64,
    /// Ready to be leased.
    pub free: u64,
}

/// One condition, in the manner of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, for example [`READY`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in one word for programs.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl NodeState {
    /// The state of this node before its agent spoke.
    pub fn new(node: &NodeName) -> Self {
        Self { metadata: named(node.as_str()), status: NodeStateStatus::default() }
    }

    /// The node's primary address of one family: the first in the list.
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        self.status.addresses.iter().copied().find(|addr| Family::of(*addr) == family)
    }

    /// Whether the condition of this type is `True`.
    pub fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == ConditionStatus::True)
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let conditions = &self.status.conditions;
        for (i, condition) in conditions.iter().enumerate() {
            if conditions[..i].iter().any(|other| other.kind == condition.kind) {
                let message = format!("{:?} is there already: one condition per type", condition.kind);
                return Err(FieldError::new(format!("status.conditions[{i}].type"), message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn the_first_address_of_a_family_is_its_primary() {
        let mut state = NodeState::new(&NodeName::new("node-1").expect("valid"));
        let addresses = ["192.168.100.1", "192.168.100.2", "fd00::1"].map(|a| a.parse().expect("valid"));
        state.status.addresses = addresses.to_vec();
        assert_eq!(state.primary(Family::V4), Some(addresses[0]));
        assert_eq!(state.primary(Family::V6), Some(addresses[2]));
    }

    #[test]
    fn what_a_newer_agent_says_is_read_by_an_older_one() {
        let state: NodeState = serde_json::from_value(serde_json::json!({
            "apiVersion": "rhumb.io/v1alpha1", "kind": "NodeState", "metadata": {"name": "node-1"},
            "status": {
                "addresses": ["192.0.2.1"], "colours": ["green"],
                "conditions": [{"type": "Ready", "status": "True", "since": "today"}],
                "bgpPeers": [{
                    "instance": "main", "peer": "main/tor", "address": "192.0.2.2", "session": "established",
                    "mood": "good",
                }],
            },
        }))
        .expect("read");
        assert!(state.is_true(READY) && state.primary(Family::V4).is_some());
        assert_eq!(state.status.bgp_peers[0].peer, "main/tor");
    }

    #[test]
    fn a_condition_stands_once() {
        let ready = Condition {
            kind: READY.into(),
            status: ConditionStatus::True,
            reason: String::new(),
            message: String::new(),
        };
        let mut state = NodeState::new(&NodeName::new("node-1").expect("valid"));
        state.status.conditions = vec![ready.clone()];
        assert!(state.is_true(READY) && state.validate().is_ok());
        state.status.conditions.push(ready);
        assert_eq!(state.validate().expect_err("twice").field, "status.conditions[1].type");
    }
}
