// SPDX-License-Identifier: Apache-2.0
//! Which node gets which CIDR: the operator's plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::{Family, NodeName, PoolName, Prefix, Timestamp};

use crate::bits::{ends, from_bits};
use crate::intervals::Intervals;
use crate::{Block, BlockFault, ClusterPool};

/// When nodes get more, and when gone nodes lose what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarvePolicy {
    /// For how long a gone node keeps its CIDRs, 5 min unless told otherwise. Longer than the cool-down of its
    /// addresses, so that a new owner cannot meet the traffic of an old one.
    pub grace: Duration,
    /// A node in use that reports fewer free addresses gets another CIDR, 8 unless told otherwise.
    pub min_free: u32,
}

impl Default for CarvePolicy {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5 * 60), min_free: 8 }
    }
}

/// What is known of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInput {
    /// The CIDRs it has.
    pub assigned: Vec<(PoolName, Prefix)>,
    /// What its agent reports, one for each pool and family.
    pub demand: Vec<NodeUse>,
    /// Since when it is gone; `None` while it is there.
    pub gone_since: Option<Timestamp>,
}

/// How full a pool is on a node, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUse {
    /// The pool.
    pub pool: PoolName,
    /// The family.
    pub family: Family,
    /// How many CIDRs the report counts. While it is fewer than the node has, the report is older than the last
    /// assignment, and the node gets no other.
    pub ranges: u32,
    /// Addresses that pods have.
    pub in_use: u32,
    /// Addresses that may be leased at once.
    pub free: u32,
}

/// What is to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carving {
    /// CIDRs that nodes get.
    pub assign: Vec<(NodeName, PoolName, Prefix)>,
    /// CIDRs that gone nodes lose, and with them their reports. Nobody gets them before the next call.
    pub release: Vec<(NodeName, PoolName, Prefix)>,
    /// What a person should know.
    pub problems: Vec<Problem>,
    /// When the next grace period ends.
    pub wake_at: Option<Timestamp>,
}

/// What is not as it should be, and was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A block is not used.
    #[error(transparent)]
    Block(BlockFault),
    /// Two pools have the same addresses. No CIDR is assigned from both.
    #[error("pool {pool}: {cidr} overlaps {other_cidr} of pool {other}")]
    PoolsOverlap {
        /// The one pool.
        pool: PoolName,
        /// Its block.
        cidr: Prefix,
        /// The other pool.
        other: PoolName,
        /// Its block.
        other_cidr: Prefix,
    },
    /// A node has a CIDR that its pool does not have, or no longer.
    #[error("node {node}: {prefix} is in no block of pool {pool}")]
    Outside {
        /// The node.
        node: NodeName,
        /// The pool.
        pool: PoolName,
        /// The CIDR.
        prefix: Prefix,
    },
    /// Two CIDRs that are assigned have the same addresses.
    #[error("node {node}: {prefix} overlaps {other_prefix} of node {other}")]
    Overlap {
        /// The one node.
        node: NodeName,
        /// Its CIDR.
        prefix: Prefix,
        /// The other node, which may be the same.
        other: NodeName,
        /// Its CIDR.
        other_prefix: Prefix,
    },
    /// A pool has no CIDR left.
    #[error(
        "pool {pool}: no {family} CIDR is left; {} nodes have none, {} want another",
        without.len(), short.len()
    )]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// The family.
        family: Family,
        /// Nodes that have none.
        without: Vec<NodeName>,
        /// Nodes that have some, and want another.
        short: Vec<NodeName>,
    },
}

/// Plans the CIDRs of all nodes.
///
/// Every node that is there has at least one CIDR of every pool and family; nodes that have none come first. One that
/// runs short gets another, at most one of a pool and family in a call. No CIDR is assigned that overlaps one that is
/// assigned, whoever has it and wherever it came from. Applied, and called again with the same reports, nothing is
/// assigned any more, unless something was released.
pub fn carve(
    pools: &[ClusterPool],
    nodes: &BTreeMap<NodeName, NodeInput>,
    policy: &CarvePolicy,
    now: Timestamp,
) -> Carving {
    let mut carving = Carving::default();
    check_pools(pools, &mut carving.problems);
    release_gone(nodes, policy, now, &mut carving);
    check_assigned(pools, nodes, &carving.release, &mut carving.problems);

    let mut taken = [Intervals::default(), Intervals::default()];
    for (_, prefix) in nodes.values().flat_map(|node| &node.assigned) {
        let (first, last) = ends(*prefix);
        taken[index(prefix.family())].insert(first, last);
    }
    let live = || nodes.iter().filter(|(_, node)| node.gone_since.is_none());
    for mut source in pools.iter().flat_map(Source::of) {
        let (pool, family) = (source.pool, source.family);
        let (served, unserved): (Vec<_>, Vec<_>) = live().partition(|(_, node)| pool.serves(node, family));
        let in_need = served.into_iter().filter(|(_, node)| is_short(node, &pool.name, family, policy));
        let mut give = |name: &NodeName| {
            let prefix = source.next(&mut taken[index(family)]);
            carving.assign.extend(prefix.map(|prefix| (name.clone(), pool.name.clone(), prefix)));
            prefix.is_none().then(|| name.clone())
        };
        let without: Vec<NodeName> = unserved.into_iter().filter_map(|(name, _)| give(name)).collect();
        let short: Vec<NodeName> = in_need.filter_map(|(name, _)| give(name)).collect();
        if !without.is_empty() || !short.is_empty() {
            let pool = pool.name.clone();
            carving.problems.push(Problem::Exhausted { pool, family, without, short });
        }
    }
    carving
}

impl ClusterPool {
    /// Whether the node has a CIDR of one of the blocks.
    fn serves(&self, node: &NodeInput, family: Family) -> bool {
        node.assigned
            .iter()
            .any(|(pool, prefix)| *pool == self.name && prefix.family() == family && self.has(*prefix))
    }

    fn has(&self, prefix: Prefix) -> bool {
        self.cidrs().any(|cidr| cidr.covers(prefix))
    }

    fn cidrs(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.blocks.iter().map(|block| block.cidr)
    }
}

fn is_short(node: &NodeInput, pool: &PoolName, family: Family, policy: &CarvePolicy) -> bool {
    let Some(report) = node.demand.iter().find(|use_| use_.pool == *pool && use_.family == family) else {
        return false;
    };
    let assigned =
        node.assigned.iter().filter(|(name, prefix)| name == pool && prefix.family() == family).count();
    let is_current = usize::try_from(report.ranges).is_ok_and(|ranges| ranges >= assigned);
    // An idle node of small CIDRs need not reach the minimum.
    let is_used = report.in_use > 0 || report.free == 0;
    is_current && is_used && report.free < policy.min_free
}

/// The blocks of one pool and family, and how far each is known to be taken.
struct Source<'a> {
    pool: &'a ClusterPool,
    family: Family,
    blocks: Vec<Cursor>,
}

impl<'a> Source<'a> {
    /// One for every family of which the pool has a block that can be used.
    fn of(pool: &'a ClusterPool) -> impl Iterator<Item = Self> {
        Family::BOTH.into_iter().filter_map(move |family| {
            let usable = |(index, block): (usize, &Block)| {
                (block.cidr.family() == family && pool.problem(index).is_none()).then(|| Cursor::new(*block))
            };
            let blocks: Vec<Cursor> = pool.blocks.iter().enumerate().filter_map(usable).collect();
            (!blocks.is_empty()).then_some(Self { pool, family, blocks })
        })
    }

    /// The first CIDR that overlaps nothing taken; it is taken then.
    fn next(&mut self, taken: &mut Intervals) -> Option<Prefix> {
        self.blocks.iter_mut().find_map(|block| block.next(taken))
    }
}

/// Walks through the CIDRs of a block once, in big steps over what is taken: nothing is released meanwhile.
struct Cursor {
    block: Block,
    /// First address of the next CIDR; `None` at the end.
    next: Option<u128>,
}

impl Cursor {
    fn new(block: Block) -> Self {
        Self { block, next: Some(ends(block.cidr).0) }
    }

    fn next(&mut self, taken: &mut Intervals) -> Option<Prefix> {
        let (_, end) = ends(self.block.cidr);
        loop {
            let first = self.next.filter(|first| *first <= end)?;
            let prefix = self.node_cidr(first);
            let (first, last) = ends(prefix);
            let Some((_, taken_to)) = taken.overlapping(first, last) else {
                taken.insert(first, last);
                self.next = last.checked_add(1);
                return Some(prefix);
            };
            self.next = ends(self.node_cidr(taken_to.min(end))).1.checked_add(1);
        }
    }

    /// The node's CIDR that holds the address.
    fn node_cidr(&self, bits: u128) -> Prefix {
        Prefix::containing(from_bits(self.block.cidr.family(), bits), self.block.node_len)
    }
}

fn release_gone(
    nodes: &BTreeMap<NodeName, NodeInput>,
    policy: &CarvePolicy,
    now: Timestamp,
    carving: &mut Carving,
) {
    for (name, node) in nodes {
        let Some(since) = node.gone_since else { continue };
        let end = since.after(policy.grace);
        if end <= now {
            let all = node.assigned.iter().map(|(pool, prefix)| (name.clone(), pool.clone(), *prefix));
            carving.release.extend(all);
        } else if !node.assigned.is_empty() {
            carving.wake_at = Some(carving.wake_at.map_or(end, |other| other.min(end)));
        }
    }
}

fn check_pools(pools: &[ClusterPool], problems: &mut Vec<Problem>) {
    for pool in pools {
        problems.extend(pool.validate().err().into_iter().flatten().map(Problem::Block));
    }
    let blocks = |pool| ClusterPool::cidrs(pool).map(move |cidr| (pool, cidr));
    for (place, pool) in pools.iter().enumerate() {
        let earlier: Vec<_> = pools[..place].iter().flat_map(blocks).collect();
        for cidr in pool.cidrs() {
            let overlapping = earlier.iter().filter(|(_, other_cidr)| other_cidr.overlaps(cidr));
            problems.extend(overlapping.map(|&(other, other_cidr)| Problem::PoolsOverlap {
                pool: pool.name.clone(),
                cidr,
                other: other.name.clone(),
                other_cidr,
            }));
        }
    }
}

fn check_assigned(
    pools: &[ClusterPool],
    nodes: &BTreeMap<NodeName, NodeInput>,
    released: &[(NodeName, PoolName, Prefix)],
    problems: &mut Vec<Problem>,
) {
    let pools: BTreeMap<&PoolName, &ClusterPool> = pools.iter().map(|pool| (&pool.name, pool)).collect();
    let leaving: BTreeSet<&NodeName> = released.iter().map(|(node, ..)| node).collect();
    let mut all = Vec::new();
    for (name, node) in nodes.iter().filter(|(name, _)| !leaving.contains(name)) {
        for (pool, prefix) in &node.assigned {
            if !pools.get(pool).is_some_and(|pool| pool.has(*prefix)) {
                let (node, pool) = (name.clone(), pool.clone());
                problems.push(Problem::Outside { node, pool, prefix: *prefix });
            }
            all.push((*prefix, name));
        }
    }
    // A prefix sorts before those within it, and those within it follow without a gap.
    all.sort();
    let mut widest: Option<(Prefix, &NodeName)> = None;
    for (prefix, name) in all {
        match widest {
            Some((other_prefix, other)) if other_prefix.overlaps(prefix) => {
                let (node, other) = (name.clone(), other.clone());
                problems.push(Problem::Overlap { node, prefix, other, other_prefix });
            }
            Some(_) | None => widest = Some((prefix, name)),
        }
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

#[cfg(test)]
mod tests;
