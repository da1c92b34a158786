// SPDX-License-Identifier: Apache-2.0
//! The walk through all states.

use std::collections::{BTreeSet, VecDeque};

use super::fair::Fair;
use super::key::{Keys, keys};
use super::state::State;
use super::steps::Step;

/// What was found.
pub(super) struct Found {
    /// How many states there are, and steps between them.
    pub(super) states: usize,
    pub(super) steps: usize,
    /// How many states come to a good end, those that are only on the way there counted.
    pub(super) fair: usize,
    /// Whether all of them were seen: nothing was left to look at.
    pub(super) is_whole: bool,
    /// The way to the first that must not be.
    pub(super) wrong: Option<String>,
}

/// Walks through all states, those after fewer events first. More than `most` are not awaited.
pub(super) fn explore(first: State, most: usize) -> Found {
    let mut fair = Fair::default();
    let mut seen = Seen::default();
    let mut taken = 0;
    // Who came from where, for the way.
    let mut ways: Vec<(usize, Option<Step>)> = Vec::new();
    let mut later = vec![(0, None, first)];
    let mut is_whole = false;
    let mut wrong = None;
    'all: while !is_whole {
        // All that so many events lead to was seen.
        let mut heads = std::mem::take(&mut later).into_iter();
        let mut heads_of_later = BTreeSet::new();
        let mut queue = VecDeque::new();
        loop {
            let mut found = Vec::new();
            if let Some((from, state)) = queue.pop_front() {
                let state: State = state;
                for step in state.steps() {
                    let Some(next) = state.after(&step) else { continue };
                    taken += 1;
                    if next.left == state.left {
                        found.push((from, Some(step), next));
                    } else if let Some(key) = seen.new_key(&next)
                        && heads_of_later.insert(key)
                    {
                        later.push((from, Some(step), next));
                    }
                }
            } else if let Some(head) = heads.next() {
                found.push(head);
            } else {
                break;
            }
            for (from, step, state) in found {
                if !seen.insert(&state) {
                    continue;
                }
                let number = ways.len();
                ways.push((from, step));
                if let Err(found) = state.check().and_then(|()| fair.ends_well(&state)) {
                    wrong = Some(format!("{found}\n{}", way(&ways, number)));
                    break 'all;
                }
                if number >= most {
                    break 'all;
                }
                queue.push_back((number, state));
            }
        }
        is_whole = later.is_empty();
    }
    Found { states: ways.len(), steps: taken, fair: fair.states(), is_whole, wrong }
}

/// The states that were seen. One that comes again has no more events left than when it was seen.
#[derive(Default)]
struct Seen {
    newest: BTreeSet<u128>,
    whole: BTreeSet<u128>,
}

impl Seen {
    /// By what it would be known, if it is not.
    fn new_key(&self, state: &State) -> Option<u128> {
        let Keys { newest, whole } = keys(state);
        let (among, key) = if state.may_be_stale() { (&self.whole, whole) } else { (&self.newest, newest) };
        (!among.contains(&key)).then_some(key)
    }

    fn insert(&mut self, state: &State) -> bool {
        let Keys { newest, whole } = keys(state);
        let is_first = self.newest.insert(newest);
        if state.may_be_stale() { self.whole.insert(whole) } else { is_first }
    }
}

fn way(ways: &[(usize, Option<Step>)], mut at: usize) -> String {
    let mut steps = Vec::new();
    while let (from, Some(step)) = &ways[at] {
        steps.push(format!("  {step:?}"));
        at = *from;
    }
    steps.reverse();
    steps.join("\n")
}
