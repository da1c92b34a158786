// SPDX-License-Identifier: Apache-2.0
//! The calls of one plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Key, Memory, Planned, Priority};

/// How many calls of one kind are under way or planned at a time, as many as the greatest of EC2's buckets holds. More
/// would only grow old in the line, and what they ask for would be chosen by what was known then.
const LINE: usize = 100;

/// The calls of one plan: none twice, none whose key is taken, and of each kind no more than a line holds.
pub(super) struct Calls<'a> {
    memory: &'a Memory,
    planned: Vec<Planned>,
    keys: BTreeSet<Key>,
    lines: BTreeMap<&'static str, usize>,
}

impl<'a> Calls<'a> {
    pub(super) fn of(memory: &'a Memory) -> Self {
        let mut lines = BTreeMap::new();
        for action in memory.flying.values() {
            *lines.entry(action.call()).or_default() += 1;
        }
        Self { memory, planned: Vec::new(), keys: BTreeSet::new(), lines }
    }

    /// Whether one more call of this kind can be planned.
    pub(super) fn has_room(&self, call: &str) -> bool {
        self.lines.get(call).is_none_or(|length| *length < LINE)
    }

    /// Plans a call, if it can be.
    pub(super) fn push(&mut self, priority: Priority, action: Action) {
        let (key, call) = (action.key(), action.call());
        if self.has_room(call) && !self.memory.is_taken(&key) && self.keys.insert(key) {
            *self.lines.entry(call).or_default() += 1;
            self.planned.push(Planned { priority, action });
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Action> {
        self.planned.iter().map(|planned| &planned.action)
    }

    /// All of them, the most urgent first.
    pub(super) fn in_order(mut self) -> Vec<Planned> {
        self.planned.sort_by_key(|planned| planned.priority);
        self.planned
    }
}
