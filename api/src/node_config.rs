// SPDX-License-Identifier: Apache-2.0

use rhumb_model::{NodeName, PoolName, Prefix};
use serde::{Deserialize, Serialize};

use crate::own::{named, own_kind};
use crate::pod_pool::overlap;
use crate::{FieldError, ObjectMeta};

/// What the operator decided for a node. Written by the operator only; its name is the node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeConfig {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What was decided.
    pub spec: NodeConfigSpec,
}

own_kind!(NodeConfig, "nodeconfigs", spec: NodeConfigSpec);

/// What the operator decided for a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfigSpec {
    /// Blocks from which the node's agent leases addresses; they do not overlap.
    #[serde(default, rename = "podCIDRs")]
    pub pod_cidrs: Vec<PodCidr>,
}

/// A block of pod addresses that belongs to a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodCidr {
    /// The pool that it was carved from.
    pub pool: PoolName,
    /// The block.
    pub cidr: Prefix,
}

impl NodeConfig {
    /// What is decided for this node.
    pub fn new(node: &NodeName, spec: NodeConfigSpec) -> Self {
        Self { metadata: named(node.as_str()), spec }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let blocks = &self.spec.pod_cidrs;
        for (i, block) in blocks.iter().enumerate() {
            if let Some(other) = blocks[..i].iter().find(|other| overlap(other.cidr, block.cidr)) {
                let message = format!("{} overlaps {}", block.cidr, other.cidr);
                return Err(FieldError::new(format!("spec.podCIDRs[{i}].cidr"), message));
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
    fn blocks_of_a_node_do_not_overlap() {
        let block = |cidr: &str| PodCidr {
            pool: PoolName::new("default").expect("valid"),
            cidr: cidr.parse().expect("valid"),
        };
        let node = NodeName::new("node-1").expect("valid");
        let good = NodeConfigSpec { pod_cidrs: vec![block("10.42.1.0/24"), block("fd00::/120")] };
        assert_eq!(NodeConfig::new(&node, good.clone()).validate(), Ok(()));
        let mut bad = good;
        bad.pod_cidrs.push(block("10.42.0.0/16"));
        let error = NodeConfig::new(&node, bad).validate().expect_err("overlap");
        assert_eq!(error.to_string(), "spec.podCIDRs[2].cidr: 10.42.0.0/16 overlaps 10.42.1.0/24");
    }
}
