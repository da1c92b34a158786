// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rhumb_model::Prefix;
use serde_json::Value;

use super::Process;

/// The ways of one node to the pods of others, followed as they change.
#[derive(Debug)]
pub struct Ways {
    node: String,
    teller: Process,
    now: BTreeMap<Prefix, String>,
    turns: Vec<Turn>,
}

/// A change of way, as the agent told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// When it was heard.
    pub heard: Instant,
    /// To which pods.
    pub prefix: Prefix,
    /// The words for the way before and after, and for the reason.
    pub words: [String; 3],
}

impl Ways {
    pub(super) fn new(node: String, teller: Process) -> Self {
        Self { node, teller, now: BTreeMap::new(), turns: Vec::new() }
    }

    /// Waits until the ways to all these prefixes are `word`: `direct`, `fabric`, `tunnel` or `none`.
    ///
    /// # Errors
    /// When `patience` is over before.
    pub fn until(&mut self, prefixes: &[Prefix], word: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !prefixes.iter().all(|prefix| self.now.get(prefix).is_some_and(|way| way == word)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.hear(left)?;
            ensure!(heard, "{} has no {word} to {prefixes:?} after {patience:?}: {:?}", self.node, self.now);
        }
        Ok(())
    }

    /// The way to a prefix, as far as was heard.
    pub fn to(&self, prefix: &Prefix) -> Option<&str> {
        self.now.get(prefix).map(String::as_str)
    }

    /// All changes that were told until now.
    ///
    /// # Errors
    /// When the agent tells no more.
    pub fn turns(&mut self) -> Result<&[Turn]> {
        while self.hear(Duration::ZERO)? {}
        Ok(&self.turns)
    }

    /// Hears the next change, if it comes in time.
    fn hear(&mut self, patience: Duration) -> Result<bool> {
        let Some(line) = self.teller.line(patience)? else { return Ok(false) };
        let told: Value = serde_json::from_str(&line).with_context(|| format!("read {line}"))?;
        let word = |key: &str| told[key].as_str().map(str::to_owned).with_context(|| format!("read {line}"));
        let prefix: Prefix = word("prefix")?.parse()?;
        let words = [word("from_kind")?, word("to_kind")?, word("why")?];
        self.now.insert(prefix, words[1].clone());
        self.turns.push(Turn { heard: Instant::now(), prefix, words });
        Ok(true)
    }
}
