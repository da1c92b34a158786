// SPDX-License-Identifier: Apache-2.0
//! Next hops in use, and whether packets get there.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Hop;

/// Number of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HopId(u32);

/// Next hops of routes. Those that are not in use any more are forgotten by [`Hops::retain`].
#[derive(Debug)]
pub(super) struct Hops {
    /// Whether packets are taken to get everywhere.
    assumed: bool,
    ids: BTreeMap<Hop, HopId>,
    entries: Vec<Entry>,
    free: Vec<HopId>,
    /// Whether one came since it was last asked.
    grown: bool,
    /// How many there were after the last look for unused ones.
    retained: usize,
}

#[derive(Debug)]
struct Entry {
    hop: Hop,
    metric: Option<u32>,
}

impl Hops {
    /// Next hops below which forgetting is not worth a look.
    const FEW: usize = 64;

    pub(super) fn new(assumed: bool) -> Self {
        let (ids, entries, free) = Default::default();
        Self { assumed, ids, entries, free, grown: false, retained: 0 }
    }

    pub(super) fn assume(&mut self, assumed: bool) {
        self.assumed = assumed;
    }

    /// The number of a next hop; a new one has no way until [`Hops::set`] says so.
    pub(super) fn id(&mut self, hop: Hop) -> HopId {
        if let Some(id) = self.ids.get(&hop) {
            return *id;
        }
        let entry = Entry { hop, metric: None };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                HopId(u32::try_from(self.entries.len() - 1).expect("fewer next hops than addresses of IPv4"))
            }
        };
        self.ids.insert(hop, id);
        self.grown = true;
        id
    }

    pub(super) fn hop(&self, id: HopId) -> Hop {
        self.entries[id.0 as usize].hop
    }

    /// The distance to a next hop; `None` when packets do not get there.
    pub(super) fn metric(&self, id: HopId) -> Option<u32> {
        if self.assumed { Some(0) } else { self.entries[id.0 as usize].metric }
    }

    /// Says which next hops packets get to, and how far each is; returns those of which that is new.
    pub(super) fn set(&mut self, metrics: &BTreeMap<Hop, u32>) -> BTreeSet<HopId> {
        let mut changed = BTreeSet::new();
        for id in self.ids.values() {
            let entry = &mut self.entries[id.0 as usize];
            let metric = metrics.get(&entry.hop).copied();
            if metric != entry.metric {
                changed.insert(*id);
            }
            entry.metric = metric;
        }
        changed
    }

    /// All of them, if one came since the last call.
    pub(super) fn grown(&mut self) -> Option<BTreeSet<Hop>> {
        std::mem::take(&mut self.grown).then(|| self.all())
    }

    pub(super) fn all(&self) -> BTreeSet<Hop> {
        self.ids.keys().copied().collect()
    }

    /// Whether there are so many more than at the last look that it is worth looking for unused ones.
    pub(super) fn are_many(&self) -> bool {
        self.ids.len() >= 2 * self.retained.max(Self::FEW)
    }

    /// Forgets all but these.
    pub(super) fn retain(&mut self, used: &BTreeSet<HopId>) {
        self.ids.retain(|_, id| {
            let kept = used.contains(id);
            if !kept {
                self.free.push(*id);
            }
            kept
        });
        self.retained = self.ids.len();
    }
}
