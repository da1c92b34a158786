// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use super::{Change, Way};

/// Changes that are kept for people to look at.
const KEPT: usize = 256;

/// A change of way, and when it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// What.
    pub change: Change,
}

/// The last changes, and how many of each sort there were.
#[derive(Debug, Clone, Default)]
pub struct History {
    last: VecDeque<Event>,
    counts: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

impl History {
    /// Notes a change.
    pub fn note(&mut self, event: Event) {
        let change = &event.change;
        let key = (word(change.from.as_ref()), word(change.to.as_ref()), change.why.word());
        *self.counts.entry(key).or_default() += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// The last changes, the oldest first.
    pub fn last(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.last.iter()
    }

    /// How many changes there were, by the words for the way before, the way after, and the reason.
    pub fn counts(&self) -> impl Iterator<Item = ([&'static str; 3], u64)> {
        self.counts.iter().map(|((from, to, why), count)| ([*from, *to, *why], *count))
    }
}

fn word(way: Option<&Way>) -> &'static str {
    way.map_or("none", Way::word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Why;

    #[test]
    fn the_last_changes_are_kept_and_all_are_counted() {
        let mut history = History::default();
        let mut change = Change {
            prefix: "10.1.0.0/24".parse().expect("valid"),
            node: "b".parse().expect("valid"),
            from: None,
            to: Some(Way::Tunnel { endpoint: "192.0.2.1".parse().expect("valid") }),
            why: Why::NoDirectWay,
        };
        for _ in 0..=KEPT {
            history.note(Event { at: SystemTime::UNIX_EPOCH, change: change.clone() });
        }
        (change.from, change.to, change.why) = (change.to, None, Why::Unclaimed);
        history.note(Event { at: SystemTime::UNIX_EPOCH, change });
        assert_eq!(history.last().count(), KEPT);
        assert_eq!(history.last().next_back().map(|event| event.change.why), Some(Why::Unclaimed));
        let counts: Vec<_> = history.counts().collect();
        let more = u64::try_from(KEPT).expect("small") + 1;
        assert_eq!(
            counts,
            [(["none", "tunnel", "no_direct_way"], more), (["tunnel", "none", "unclaimed"], 1)]
        );
    }
}
