// SPDX-License-Identifier: Apache-2.0
//! Prefixes of one family with their candidates, by number.
//!
//! Everything else knows a prefix by its number: what was told to a peer is a row of the peer's own, and what is to
//! be looked at is a set of bits. A number is used again only when nobody holds it any more.

use std::collections::HashMap;
use std::sync::Arc;

use rhumb_model::Prefix;

use super::PeerId;
use super::hash::Seed;
use super::path::{Forward, Path};
use super::view::Rejection;

/// Number of a prefix within its table.
pub(super) type SlotId = u32;

/// A route as it came from a peer, or one of ours.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    pub(super) path_id: u32,
    /// The peer's session is gone, and it is kept until the peer is back (RFC 4724 §4.2).
    pub(super) stale: bool,
    /// Before policy, so that another policy can be asked without asking the peer.
    pub(super) received: Arc<Path>,
    /// After policy.
    pub(super) accepted: Result<Arc<Path>, Rejection>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) prefix: Prefix,
    pub(super) candidates: Vec<Candidate>,
    /// Which of the candidates is best.
    pub(super) best: Option<u32>,
    /// What the kernel was told.
    pub(super) forward: Option<Arc<Forward>>,
}

impl Slot {
    pub(super) fn best(&self) -> Option<&Candidate> {
        self.candidates.get(self.best? as usize)
    }

    pub(super) fn position(&self, peer: PeerId, path_id: u32) -> Option<usize> {
        self.candidates.iter().position(|one| (one.peer, one.path_id) == (peer, path_id))
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    // Only asked for one prefix at a time: its order is never seen.
    index: HashMap<Prefix, SlotId, Seed>,
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    /// Slots that had no candidate when they were put here.
    empty: Vec<SlotId>,
    /// Slots in which the kernel's part may be another now.
    pub(super) moved: Dirty,
}

impl Table {
    pub(super) fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id as usize]
    }

    pub(super) fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id as usize]
    }

    pub(super) fn find(&self, prefix: Prefix) -> Option<SlotId> {
        self.index.get(&prefix).copied()
    }

    pub(super) fn find_or_insert(&mut self, prefix: Prefix) -> SlotId {
        *self.index.entry(prefix).or_insert_with(|| {
            let slot = Slot { prefix, candidates: Vec::new(), best: None, forward: None };
            if let Some(id) = self.free.pop() {
                self.slots[id as usize] = slot;
                return id;
            }
            self.slots.push(slot);
            SlotId::try_from(self.slots.len() - 1).expect("fewer prefixes than numbers: memory ends before")
        })
    }

    /// All numbers, those that are not in use among them: their slots have no candidates.
    pub(super) fn ids(&self) -> impl Iterator<Item = SlotId> + use<> {
        0..SlotId::try_from(self.slots.len()).expect("as found by its insertion")
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.candidates.is_empty())
    }

    /// Remembers a slot that lost its last candidate.
    pub(super) fn emptied(&mut self, id: SlotId) {
        self.empty.push(id);
    }

    pub(super) fn has_emptied(&self) -> bool {
        !self.empty.is_empty()
    }

    /// Gives back the numbers of slots that are still without candidates. Nobody may hold one.
    pub(super) fn reap(&mut self) {
        for id in std::mem::take(&mut self.empty) {
            let slot = &self.slots[id as usize];
            // A slot that came back and went again is here twice.
            if slot.candidates.is_empty() && self.index.get(&slot.prefix) == Some(&id) {
                self.index.remove(&slot.prefix);
                self.free.push(id);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Numbers that are waiting, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    bits: Vec<u64>,
    queue: Vec<SlotId>,
    taken: usize,
}

impl Dirty {
    /// How many may be gone from the front of the queue before the others move up.
    const MANY: usize = 1 << 14;

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.queue.len()
    }

    pub(super) fn contains(&self, id: SlotId) -> bool {
        self.bits.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    pub(super) fn insert(&mut self, id: SlotId) {
        let word = id as usize / 64;
        if self.bits.len() <= word {
            self.bits.resize((word + 1).next_power_of_two(), 0);
        }
        if self.bits[word] >> (id % 64) & 1 == 0 {
            self.bits[word] |= 1 << (id % 64);
            self.queue.push(id);
        }
    }

    /// The one that waits longest.
    pub(super) fn pop(&mut self) -> Option<SlotId> {
        let id = *self.queue.get(self.taken)?;
        self.taken += 1;
        self.bits[id as usize / 64] &= !(1 << (id % 64));
        if self.taken >= Self::MANY || self.is_empty() {
            self.queue.drain(..self.taken);
            // What a full table left behind is not kept for ever.
            self.queue.shrink_to(Self::MANY);
            self.taken = 0;
        }
        Some(id)
    }
}
