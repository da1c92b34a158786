// SPDX-License-Identifier: Apache-2.0
//! What an object is, and what it was for those who are behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rhumb_model::Timestamp;

/// The versions of one object that somebody may still see; the last one is the truth.
#[derive(Debug, Clone)]
pub(crate) struct History<T> {
    versions: VecDeque<Version<T>>,
}

#[derive(Debug, Clone)]
struct Version<T> {
    made: Timestamp,
    /// When describes begin to show it: never before an earlier version.
    shown: Timestamp,
    value: Option<Arc<T>>,
}

impl<T> History<T> {
    /// An object that there was not before `now`.
    pub(crate) fn new(now: Timestamp, lag: Duration, value: T) -> Self {
        let absent = Version { made: Timestamp(0), shown: Timestamp(0), value: None };
        let first = Version { made: now, shown: now.after(lag), value: Some(Arc::new(value)) };
        Self { versions: VecDeque::from([absent, first]) }
    }

    /// The object as it is.
    pub(crate) fn truth(&self) -> Option<&Arc<T>> {
        self.versions.back().and_then(|version| version.value.as_ref())
    }

    /// The object as describes show it.
    pub(crate) fn shown(&self, now: Timestamp) -> Option<&Arc<T>> {
        self.versions.iter().rev().find(|version| version.shown <= now)?.value.as_ref()
    }

    /// The object as it was `lag` ago.
    pub(crate) fn behind(&self, now: Timestamp, lag: Duration) -> Option<&Arc<T>> {
        self.versions.iter().rev().find(|version| version.made.after(lag) <= now)?.value.as_ref()
    }

    /// Changes the object. What nobody sees any more is forgotten, `memory` being the longest lag of [`Self::behind`].
    pub(crate) fn put(&mut self, now: Timestamp, lag: Duration, memory: Duration, value: Option<T>) {
        let shown = self.versions.back().map_or(now, |last| last.shown.max(now.after(lag)));
        self.versions.push_back(Version { made: now, shown, value: value.map(Arc::new) });
        let old = |version: &Version<T>| version.shown <= now && version.made.after(memory) <= now;
        while self.versions.get(1).is_some_and(old) {
            self.versions.pop_front();
        }
    }

    /// From when on everybody sees the last version.
    pub(crate) fn settled(&self, memory: Duration) -> Timestamp {
        let last = self.versions.back().expect("a history has a version from its beginning");
        last.shown.max(last.made.after(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn describes_see_a_change_after_its_lag_and_never_out_of_order() {
        let mut history = History::new(Timestamp(0), SECOND * 5, 1);
        assert_eq!(history.shown(Timestamp(4_999)), None);
        assert_eq!(history.truth().map(|value| **value), Some(1));
        history.put(Timestamp(1_000), Duration::ZERO, Duration::ZERO, Some(2));
        assert_eq!(history.shown(Timestamp(4_999)), None, "a later change does not overtake");
        assert_eq!(history.shown(Timestamp(5_000)).map(|value| **value), Some(2));
    }

    #[test]
    fn the_past_is_kept_as_long_as_it_may_be_asked_for() {
        let mut history = History::new(Timestamp(0), Duration::ZERO, 1);
        for step in 2..6 {
            history.put(Timestamp(step * 1_000), Duration::ZERO, SECOND * 2, Some(step));
        }
        assert_eq!(history.behind(Timestamp(5_000), SECOND * 2).map(|value| **value), Some(3));
        assert_eq!(history.behind(Timestamp(5_000), Duration::ZERO).map(|value| **value), Some(5));
        assert!(history.versions.len() <= 4, "{}", history.versions.len());
    }

    #[test]
    fn a_removed_object_is_shown_until_the_lag_is_over() {
        let mut history = History::new(Timestamp(0), Duration::ZERO, 1);
        history.put(Timestamp(10), SECOND, Duration::ZERO, None);
        assert!(history.truth().is_none() && history.shown(Timestamp(1_009)).is_some());
        assert_eq!(history.shown(Timestamp(1_010)), None);
        assert_eq!(history.settled(Duration::ZERO), Timestamp(1_010));
    }
}
