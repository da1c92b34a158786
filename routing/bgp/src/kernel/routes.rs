// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rhumb_model::Prefix;
use rhumb_routing::learned::{LearnedRoute, Reached, Via, Write, WriteAction};

use crate::rib::{Change, Forward, Hop};

/// What the kernel is to have, what it has, and what has to be written so that the two are the same.
///
/// Routes of an earlier life of the speaker are in use until they are swept; one that turns out to be wanted as it is
/// costs no write.
#[derive(Debug, Default)]
pub(super) struct Routes {
    entries: BTreeMap<Prefix, Entry>,
    /// Prefixes to be compared; one that is the same after all costs a look.
    waiting: VecDeque<Prefix>,
    reached: BTreeMap<Hop, Reached>,
    /// What was made of each wish since a next hop last changed.
    made: BTreeMap<Arc<Forward>, Option<Arc<LearnedRoute>>>,
    refused: BTreeMap<Prefix, Refusal>,
    /// Whether routes of an earlier life are gone.
    swept: bool,
}

#[derive(Debug, Default)]
struct Entry {
    wanted: Option<Arc<Forward>>,
    installed: Installed,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Installed {
    /// Nothing of ours is there.
    #[default]
    Nothing,
    /// This is there.
    This(Arc<LearnedRoute>),
    /// Perhaps something of ours is there.
    Unknown,
}

/// Why the kernel did not take a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// Whether the same can be taken later without a change of links.
    pub(super) retryable: bool,
    /// Whether a route of others is in its place.
    pub(super) present: bool,
}

impl Routes {
    /// Takes note of what is there.
    pub(super) fn found(&mut self, found: BTreeMap<Prefix, Option<LearnedRoute>>) {
        for entry in self.entries.values_mut() {
            entry.installed = Installed::Nothing;
        }
        for (prefix, route) in found {
            let installed = route.map_or(Installed::Unknown, |route| Installed::This(Arc::new(route)));
            self.entries.entry(prefix).or_default().installed = installed;
        }
        let (swept, entries) = (self.swept, self.entries.iter());
        self.waiting
            .extend(entries.filter(|(_, one)| swept || one.wanted.is_some()).map(|(prefix, _)| *prefix));
    }

    /// Takes what is wanted otherwise from now on.
    pub(super) fn want(&mut self, changes: Vec<Change>) {
        for Change { prefix, forward } in changes {
            self.entries.entry(prefix).or_default().wanted = forward;
            self.refused.remove(&prefix);
            self.waiting.push_back(prefix);
        }
    }

    /// Wants nothing any more.
    pub(super) fn want_nothing(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.wanted = None);
        self.sweep();
    }

    /// Ends the use of routes that nobody has wanted since the speaker's start; gives how many there are.
    pub(super) fn sweep(&mut self) -> usize {
        self.swept = true;
        let before = self.waiting.len();
        let unwanted = self.entries.iter().filter(|(_, entry)| entry.wanted.is_none());
        self.waiting.extend(unwanted.map(|(prefix, _)| *prefix));
        self.waiting.len() - before
    }

    /// Takes how next hops are reached now. The kernel has silently removed routes by links that carry nothing any
    /// more; `carries` says which do.
    pub(super) fn reach(&mut self, reached: BTreeMap<Hop, Reached>, carries: impl Fn(u32) -> bool) {
        for (prefix, entry) in &mut self.entries {
            let changed = match entry.wanted.as_deref() {
                Some(Forward::Via(hops)) => hops.iter().any(|hop| self.reached.get(hop) != reached.get(hop)),
                Some(Forward::Discard) | None => false,
            };
            let lost = match &entry.installed {
                Installed::This(route) => leads_over(route, |via| !carries(via.ifindex)),
                Installed::Nothing | Installed::Unknown => false,
            };
            if lost {
                entry.installed = Installed::Unknown;
            }
            if changed || (lost && entry.wanted.is_some()) {
                self.waiting.push_back(*prefix);
            }
        }
        self.reached = reached;
        self.made.clear();
        // What was refused for a link or a gateway that was missing can be taken now.
        self.retry(|_| true);
    }

    /// Lets what was refused be tried again.
    pub(super) fn retry(&mut self, wanted: impl Fn(&Refusal) -> bool) {
        let again = self.refused.iter().filter(|(_, refusal)| wanted(refusal)).map(|(prefix, _)| *prefix);
        self.waiting.extend(again);
    }

    /// The next writes, at most `most`; they count as done until [`Routes::refuse`] says otherwise.
    pub(super) fn writes(&mut self, most: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        while writes.len() < most
            && let Some(prefix) = self.waiting.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&prefix) else { continue };
            let Some(wanted) = &entry.wanted else {
                let entry = self.entries.remove(&prefix).expect("just found");
                self.refused.remove(&prefix);
                if entry.installed != Installed::Nothing {
                    writes.push(Write { prefix, action: WriteAction::Remove });
                }
                continue;
            };
            let reached = &self.reached;
            let made = self.made.entry(wanted.clone()).or_insert_with(|| make(wanted, reached).map(Arc::new));
            // Without a neighbour to send to, what is there stays until the decision about the prefix is another.
            let Some(route) = made else { continue };
            let installed = Installed::This(route.clone());
            if entry.installed == installed {
                continue;
            }
            let action = match entry.installed {
                Installed::Nothing => WriteAction::Add(route.clone()),
                Installed::This(_) | Installed::Unknown => WriteAction::Replace(route.clone()),
            };
            entry.installed = installed;
            self.refused.remove(&prefix);
            writes.push(Write { prefix, action });
        }
        writes
    }

    /// Takes note of what the kernel did not take.
    pub(super) fn refuse(&mut self, prefix: Prefix, refusal: Refusal) {
        let entry = self.entries.entry(prefix).or_default();
        entry.installed = if refusal.present { Installed::Nothing } else { Installed::Unknown };
        self.refused.insert(prefix, refusal);
    }

    /// What was refused and is still wanted.
    pub(super) fn refused(&self) -> &BTreeMap<Prefix, Refusal> {
        &self.refused
    }

    /// How many routes of ours are there, as far as is known.
    pub(super) fn installed(&self) -> usize {
        let there = |entry: &&Entry| matches!(entry.installed, Installed::This(_));
        self.entries.values().filter(there).count()
    }
}

fn leads_over(route: &LearnedRoute, link: impl Fn(&Via) -> bool) -> bool {
    match route {
        LearnedRoute::Via(via) => via.iter().any(link),
        LearnedRoute::Discard => false,
    }
}

/// The kernel's form of a wish; `None` when packets get to none of its next hops.
fn make(forward: &Forward, reached: &BTreeMap<Hop, Reached>) -> Option<LearnedRoute> {
    match forward {
        Forward::Discard => Some(LearnedRoute::Discard),
        Forward::Via(hops) => {
            let mut via: Vec<Via> =
                hops.iter().filter_map(|hop| reached.get(hop)).flat_map(|one| one.via.clone()).collect();
            via.sort_unstable();
            via.dedup();
            (!via.is_empty()).then_some(LearnedRoute::Via(via))
        }
    }
}

#[cfg(test)]
mod tests;
