// SPDX-License-Identifier: Apache-2.0
//! What a node's NodeConfig is to say of its blocks: each goes its way, one step at a time.

use rhumb_model::{EniId, NodeName, Prefix, Timestamp};

use super::fleet::{Fleet, blocks, size_v4};
use super::{EniBlock, EniPolicy, Memory, NodeFacts, Record, Report, Word};

/// The next record of a node, and what was noticed on the way.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) record: Record,
    /// A block that the node has and EC2 no longer holds.
    pub(super) lost: Option<Prefix>,
    /// Whether the node has more than it wants by a whole block at least, idle or not.
    pub(super) excess: bool,
    pub(super) wake_at: Option<Timestamp>,
}

/// Everything about one node that decides its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) name: &'a NodeName,
    pub(super) node: &'a NodeFacts,
    pub(super) policy: &'a EniPolicy,
    pub(super) fleet: &'a Fleet<'a>,
    pub(super) memory: &'a Memory,
    /// IPv4 addresses that the node should have.
    pub(super) wanted: u32,
    pub(super) now: Timestamp,
}

impl Case<'_> {
    pub(super) fn next(&self) -> Next {
        let mut next = Next { record: self.node.record.clone(), ..Next::default() };
        // A NodeConfig that is made anew is newer than any that the node ever had.
        let is_new = next.record.generation == 0;
        let number = if is_new { self.now.0.max(1) } else { next.record.generation + 1 };
        if self.node.is_served() {
            self.step_blocks(&mut next, number);
            self.publish(&mut next.record);
            self.take_back(&mut next.record);
            self.ask_back(&mut next, number);
        }
        next.record.interfaces = self.interfaces(&next.record);
        if is_new || next.record != self.node.record {
            next.record.generation = number;
        }
        next
    }

    /// Each block that is on its way back goes one step, by what the agent and EC2 say.
    fn step_blocks(&self, next: &mut Next, number: u64) {
        let report = self.node.report.as_ref();
        let memory = self.memory;
        next.record.blocks.retain(|block| !(block.unassigning && self.is_away(block)));
        for block in &mut next.record.blocks {
            let Some(generation) = block.releasing else {
                if self.is_away(block) {
                    // The agent stops leasing from it. Pods that have an address of a block that is lost are cut off
                    // already, those of an interface that is left alone keep theirs.
                    block.releasing = Some(number);
                    next.lost = next.lost.or(self.is_lost(block).then_some(block.cidr));
                }
                continue;
            };
            if self.is_lost(block) && !block.unassigning {
                next.lost = next.lost.or(Some(block.cidr));
            }
            let word = Word { cidr: block.cidr, generation };
            let said = |words: fn(&Report) -> &Vec<Word>| report.is_some_and(|it| words(it).contains(&word));
            if block.unassigning {
                continue;
            }
            if said(|report| &report.released) {
                let since = memory.acked_since(self.name, block.cidr, generation).unwrap_or(self.now);
                let end = since.after(self.policy.release_delay);
                if end <= self.now {
                    block.unassigning = true;
                } else {
                    next.wake_at = Some(next.wake_at.map_or(end, |at| at.min(end)));
                }
            } else if said(|report| &report.declined) && !self.is_away(block) {
                block.releasing = None;
            }
        }
    }

    /// Adds the blocks that EC2 shows on interfaces that are there or coming: the agent waits for the link.
    fn publish(&self, record: &mut Record) {
        let mut known: Vec<Prefix> = record.blocks.iter().map(|block| block.cidr).collect();
        known.sort_unstable();
        for eni in &self.fleet.pods {
            let new = blocks(eni).filter(|cidr| known.binary_search(cidr).is_err());
            record.blocks.extend(new.map(|cidr| EniBlock {
                cidr,
                interface: eni.id.clone(),
                releasing: None,
                unassigning: false,
            }));
        }
    }

    /// What is wanted again is not given back, as long as the agent has not let it go.
    fn take_back(&self, record: &mut Record) {
        let mut has = kept(record);
        for block in &mut record.blocks {
            let Some(generation) = block.releasing else { continue };
            let word = Word { cidr: block.cidr, generation };
            let let_go = self.node.report.as_ref().is_some_and(|report| report.released.contains(&word));
            let is_v4 = size_v4(block.cidr) > 0;
            if has < self.wanted && is_v4 && !let_go && !self.is_away(block) && !block.unassigning {
                block.releasing = None;
                has += size_v4(block.cidr);
            }
        }
    }

    /// Asks for what is more than wanted: whole interfaces first, then the blocks of the last ones.
    fn ask_back(&self, next: &mut Next, number: u64) {
        let has = kept(&next.record);
        let Some(mut excess) = has.checked_sub(self.wanted + self.policy.max_above_watermark) else { return };
        let Some(report) = &self.node.report else { return };
        let idle = |block: &EniBlock| block.releasing.is_none() && report.idle.contains(&block.cidr);
        let fits = |block: &EniBlock, excess: u32| (1..=excess).contains(&size_v4(block.cidr));
        let mut surplus =
            next.record.blocks.iter().filter(|block| block.releasing.is_none() && fits(block, excess));
        next.excess = surplus.clone().next().is_some();
        if !surplus.any(idle) {
            return;
        }
        let end = self.memory.excess_since(self.name).unwrap_or(self.now).after(self.policy.settle);
        if end > self.now || report.observed != self.node.record.generation {
            next.wake_at = Some(next.wake_at.map_or(end, |at| at.min(end)));
            return;
        }
        let last_first: Vec<&EniId> = self.fleet.pods.iter().rev().map(|eni| &eni.id).collect();
        for whole in [true, false] {
            for id in &last_first {
                let of = |block: &&mut EniBlock| block.interface == **id && block.releasing.is_none();
                let mut mine: Vec<&mut EniBlock> = next.record.blocks.iter_mut().filter(of).collect();
                let size: u32 = mine.iter().map(|block| size_v4(block.cidr)).sum();
                let is_whole = size <= excess && mine.iter().all(|block| idle(block));
                if whole && (!is_whole || self.is_primary(id)) {
                    continue;
                }
                // From the end, so that what stays is together.
                mine.sort_by_key(|block| std::cmp::Reverse(block.cidr));
                for block in mine {
                    if idle(block) && fits(block, excess) {
                        block.releasing = Some(number);
                        excess -= size_v4(block.cidr);
                    }
                }
            }
        }
    }

    /// Whether EC2 no longer holds it for the node.
    fn is_lost(&self, block: &EniBlock) -> bool {
        self.memory.is_gone(&block.interface, block.cidr)
    }

    /// Whether it is not to be had any more: lost, or on an interface that is now left alone.
    fn is_away(&self, block: &EniBlock) -> bool {
        self.is_lost(block) || self.fleet.excluded.contains(&block.interface)
    }

    fn is_primary(&self, id: &EniId) -> bool {
        self.fleet.primary.is_some_and(|primary| primary.id == *id)
    }

    /// Those that are attached, in their order, and those of which a block is still there.
    fn interfaces(&self, record: &Record) -> Vec<EniId> {
        let attached = self.fleet.spare.into_iter().chain(self.fleet.pods.iter().copied());
        let mut interfaces: Vec<EniId> = attached.map(|eni| eni.id.clone()).collect();
        for block in &record.blocks {
            if !interfaces.contains(&block.interface) {
                interfaces.push(block.interface.clone());
            }
        }
        interfaces
    }
}

/// IPv4 addresses of the blocks that are not wanted back.
pub(super) fn kept(record: &Record) -> u32 {
    let kept = record.blocks.iter().filter(|block| block.releasing.is_none());
    kept.map(|block| size_v4(block.cidr)).sum()
}
