// SPDX-License-Identifier: Apache-2.0
//! Every call that came, and how often each action was called.

use std::collections::{BTreeMap, VecDeque};

use rhumb_model::Timestamp;
use serde::Serialize;

/// The latest calls that are kept one by one.
const KEPT: usize = 50_000;

/// A call and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number, from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// The name of the action.
    pub action: &'static str,
    /// The objects that it named or made.
    pub subjects: Vec<String>,
    /// `ok`, the code of an error, or what went wrong with the reply.
    pub outcome: String,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} #{} {} {} -> {}",
            self.at,
            self.number,
            self.action,
            self.subjects.join(" "),
            self.outcome
        )
    }
}

/// The calls so far.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    calls: u64,
    counts: BTreeMap<&'static str, Count>,
}

/// How often an action was called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// All calls.
    pub calls: u64,
    /// Those that EC2 refused because there were too many.
    pub throttled: u64,
    /// Those that were refused for another reason, or whose reply was lost.
    pub failed: u64,
    /// Most calls in one second of the virtual clock.
    pub most_in_a_second: u32,
    #[serde(skip)]
    second: u64,
    #[serde(skip)]
    in_second: u32,
}

impl Ledger {
    /// Writes a call down; returns how often its action was called in the same second.
    pub(crate) fn note(
        &mut self,
        at: Timestamp,
        action: &'static str,
        subjects: Vec<String>,
        outcome: String,
    ) -> u32 {
        self.calls += 1;
        let count = self.counts.entry(action).or_default();
        count.calls += 1;
        match outcome.as_str() {
            "ok" => {}
            "RequestLimitExceeded" => count.throttled += 1,
            _ => count.failed += 1,
        }
        let second = at.0 / 1000;
        count.in_second = if count.second == second { count.in_second + 1 } else { 1 };
        count.second = second;
        count.most_in_a_second = count.most_in_a_second.max(count.in_second);
        let in_second = count.in_second;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { number: self.calls, at, action, subjects, outcome });
        in_second
    }

    /// The latest calls, the oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// By action.
    pub fn counts(&self) -> &BTreeMap<&'static str, Count> {
        &self.counts
    }

    /// All calls together.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The latest `most` calls that named one of `subjects`, the latest last.
    pub(crate) fn about(&self, subjects: &[&str], most: usize) -> impl Iterator<Item = &Entry> {
        let about =
            |entry: &&Entry| entry.subjects.iter().any(|subject| subjects.contains(&subject.as_str()));
        let mut found: Vec<&Entry> = self.entries.iter().rev().filter(about).take(most).collect();
        found.reverse();
        found.into_iter()
    }
}
