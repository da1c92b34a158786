// SPDX-License-Identifier: Apache-2.0
//! The blocks from which a cluster's nodes get their CIDRs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rhumb_model::{Family, PoolName, Prefix};

/// Addresses of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPool {
    /// Its name.
    pub name: PoolName,
    /// Where nodes get their CIDRs from, in this order. Both families, any number of each.
    pub blocks: Vec<Block>,
}

/// A part of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// All of its addresses.
    pub cidr: Prefix,
    /// Length in bits of the CIDRs that nodes get.
    pub node_len: u8,
}

/// A block that cannot be used; the others of its pool can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pool {pool}, {}: {problem}", self.field())]
pub struct BlockFault {
    /// The pool.
    pub pool: PoolName,
    /// Its place among the pool's blocks, from 0.
    pub index: usize,
    /// What is wrong.
    pub problem: BlockProblem,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockProblem {
    /// The length is longer than an address of the family.
    #[error("{node_len} is longer than an {family} address, {} bits", family.bits())]
    NodeLenTooLong {
        /// The length in bits.
        node_len: u8,
        /// The family of the block.
        family: Family,
    },
    /// A node's CIDR would be larger than the block.
    #[error("{node_len} is shorter than the length of the block, {cidr}")]
    NodeLenTooShort {
        /// The length in bits.
        node_len: u8,
        /// The block.
        cidr: Prefix,
    },
    /// The block holds addresses that no pod can have: loopback, link-local, multicast and the like.
    #[error("{cidr} reaches into {special}, which pods cannot use")]
    Special {
        /// The block.
        cidr: Prefix,
        /// The addresses that pods cannot have.
        special: Prefix,
    },
    /// An earlier block has some of the addresses.
    #[error("{cidr} overlaps {earlier} of the same pool")]
    Overlap {
        /// The block.
        cidr: Prefix,
        /// The earlier block.
        earlier: Prefix,
    },
}

impl BlockFault {
    /// The field that is wrong, for example `blocks[1].nodeLen`.
    pub fn field(&self) -> String {
        let field = match self.problem {
            BlockProblem::NodeLenTooLong { .. } | BlockProblem::NodeLenTooShort { .. } => "nodeLen",
            BlockProblem::Special { .. } | BlockProblem::Overlap { .. } => "cidr",
        };
        format!("blocks[{}].{field}", self.index)
    }
}

impl ClusterPool {
    /// Checks every block.
    ///
    /// # Errors
    /// One [`BlockFault`] for each block that cannot be used.
    pub fn validate(&self) -> Result<(), Vec<BlockFault>> {
        let faults: Vec<BlockFault> = (0..self.blocks.len())
            .filter_map(|index| {
                let problem = self.problem(index)?;
                Some(BlockFault { pool: self.name.clone(), index, problem })
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// What is wrong with the block at `index`, if anything is.
    pub(crate) fn problem(&self, index: usize) -> Option<BlockProblem> {
        let Block { cidr, node_len } = *self.blocks.get(index)?;
        let family = cidr.family();
        if node_len > family.bits() {
            return Some(BlockProblem::NodeLenTooLong { node_len, family });
        }
        if node_len < cidr.len() {
            return Some(BlockProblem::NodeLenTooShort { node_len, cidr });
        }
        if let Some(special) = special().into_iter().find(|special| special.overlaps(cidr)) {
            return Some(BlockProblem::Special { cidr, special });
        }
        let earlier =
            self.blocks[..index].iter().map(|block| block.cidr).find(|other| other.overlaps(cidr))?;
        Some(BlockProblem::Overlap { cidr, earlier })
    }
}

/// Addresses that are no unicast address of a pod (RFC 6890; RFC 4291 §2.4).
fn special() -> [Prefix; 7] {
    let v4 = |a, b, len| Prefix::containing(IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), len);
    let v6 = |a, len| Prefix::containing(IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0)), len);
    [
        v4(0, 0, 8),
        v4(127, 0, 8),
        v4(169, 254, 16),
        // Multicast and the reserved addresses behind it.
        v4(224, 0, 3),
        // Unspecified, loopback, IPv4-mapped.
        v6(0, 8),
        v6(0xfe80, 10),
        v6(0xff00, 8),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(blocks: &[(&str, u8)]) -> Vec<String> {
        let blocks = blocks
            .iter()
            .map(|&(cidr, node_len)| Block { cidr: cidr.parse().expect("valid"), node_len })
            .collect();
        let pool = ClusterPool { name: PoolName::new("default").expect("valid"), blocks };
        let faults = pool.validate().err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn blocks_of_both_families_are_fine() {
        assert_eq!(fault(&[("10.0.0.0/8", 24), ("fd00::/48", 64), ("192.168.0.0/24", 24)]), [""; 0]);
    }

    #[test]
    fn a_fault_names_the_field() {
        assert_eq!(
            fault(&[("10.0.0.0/8", 24), ("10.1.0.0/16", 12), ("172.16.0.0/12", 64)]),
            [
                "pool default, blocks[1].nodeLen: 12 is shorter than the length of the block, 10.1.0.0/16",
                "pool default, blocks[2].nodeLen: 64 is longer than an ipv4 address, 32 bits",
            ]
        );
    }

    #[test]
    fn overlapping_and_special_blocks_are_refused() {
        assert_eq!(
            fault(&[("10.0.0.0/8", 24), ("10.1.0.0/16", 24), ("fe80::/64", 80), ("0.0.0.0/0", 8)]),
            [
                "pool default, blocks[1].cidr: 10.1.0.0/16 overlaps 10.0.0.0/8 of the same pool",
                "pool default, blocks[2].cidr: fe80::/64 reaches into fe80::/10, which pods cannot use",
                "pool default, blocks[3].cidr: 0.0.0.0/0 reaches into 0.0.0.0/8, which pods cannot use",
            ]
        );
    }
}
