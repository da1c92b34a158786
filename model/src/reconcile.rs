// SPDX-License-Identifier: Apache-2.0
//! Brings one target to its desired state, level-triggered.
//!
//! ```text
//!   desired ──► diff ◄── actual (remembered; observed anew at start, after a failure, and when invalidated)
//!                │
//!     remove_stale, then put_missing ──► target ──► actual
//!                │
//!          a key that failed waits 100 ms × 2ⁿ (at most 30 s); the others go on
//! ```
//! Removal and putting are separate calls because the loop orders them across targets: removals run from root to
//! leaf, puts from leaf to root.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use crate::{Target, diff};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Why a key is not in its desired state, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How many times in a row it failed.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Instant,
    /// Whether waiting can help, as the target says.
    pub retryable: bool,
    /// The error with its causes, as text for people.
    pub error: String,
}

/// What one call changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Objects put or removed.
    pub changed: usize,
    /// Objects that failed now.
    pub failed: usize,
    /// Objects left for their retry time.
    pub waiting: usize,
}

/// A target with what is known about its state.
#[derive(Debug)]
pub struct Reconciler<T: Target> {
    target: T,
    actual: Option<BTreeMap<T::Key, T::Value>>,
    failing: BTreeMap<T::Key, Failure>,
    observe_failure: Option<Failure>,
}

impl<T: Target> Reconciler<T> {
    /// Takes a target; nothing is observed before the first pass.
    pub fn new(target: T) -> Self {
        Self { target, actual: None, failing: BTreeMap::new(), observe_failure: None }
    }

    /// The target itself.
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The target itself, to be changed.
    pub fn target_mut(&mut self) -> &mut T {
        &mut self.target
    }

    /// Gives the target back.
    pub fn into_target(self) -> T {
        self.target
    }

    /// Name of the object type.
    pub fn kind(&self) -> &'static str {
        self.target.kind()
    }

    /// Forgets what was observed, so that the next pass looks again.
    pub fn invalidate(&mut self) {
        self.actual = None;
    }

    /// Forgets single objects without touching them: from now on they are nobody's to keep or remove.
    pub fn forget(&mut self, gone: impl Fn(&T::Key) -> bool) {
        if let Some(actual) = &mut self.actual {
            actual.retain(|key, _| !gone(key));
        }
        self.failing.retain(|key, _| !gone(key));
    }

    /// What was last observed or written, if anything was.
    pub fn actual(&self) -> Option<&BTreeMap<T::Key, T::Value>> {
        self.actual.as_ref()
    }

    /// Whether `key` is known to have `value`.
    pub fn holds(&self, key: &T::Key, value: &T::Value) -> bool {
        self.actual.as_ref().is_some_and(|actual| actual.get(key) == Some(value))
    }

    /// Whether `key` is known to be absent.
    pub fn lacks(&self, key: &T::Key) -> bool {
        self.actual.as_ref().is_some_and(|actual| !actual.contains_key(key))
    }

    /// Keys that failed last time they were tried.
    pub fn failing(&self) -> &BTreeMap<T::Key, Failure> {
        &self.failing
    }

    /// The last failure to observe, if the last attempt failed.
    pub fn observe_failure(&self) -> Option<&Failure> {
        self.observe_failure.as_ref()
    }

    /// When the next retry is due.
    pub fn next_retry(&self) -> Option<Instant> {
        self.failing.values().chain(&self.observe_failure).map(|failure| failure.retry_at).min()
    }

    /// Lets every failed key be tried at once, for example because what it waited for has changed.
    pub fn retry_now(&mut self, now: Instant) {
        for failure in self.failing.values_mut().chain(&mut self.observe_failure) {
            failure.retry_at = failure.retry_at.min(now);
        }
    }

    /// Removes what is ours and not desired.
    pub async fn remove_stale(&mut self, desired: &BTreeMap<T::Key, T::Value>, now: Instant) -> Outcome {
        let Some(actual) = self.look(now).await else { return Outcome { failed: 1, ..Outcome::default() } };
        let stale = diff(desired, actual).remove;
        self.forgive(desired);
        let (batch, waiting) = self.due(stale, |key| key, now);
        let results = self.target.remove_all(&batch).await;
        let mut outcome = Outcome { waiting, ..Outcome::default() };
        for (key, result) in batch.iter().zip(results) {
            self.settle(key, result.map(|()| None), now, &mut outcome);
        }
        self.forget_after(outcome)
    }

    /// Puts what is desired and absent or different.
    pub async fn put_missing(&mut self, desired: &BTreeMap<T::Key, T::Value>, now: Instant) -> Outcome {
        let Some(actual) = self.look(now).await else { return Outcome { failed: 1, ..Outcome::default() } };
        let missing = diff(desired, actual).put;
        self.forgive(desired);
        let (batch, waiting) = self.due(missing, |(key, _)| key, now);
        let results = self.target.put_all(&batch).await;
        let mut outcome = Outcome { waiting, ..Outcome::default() };
        for ((key, value), result) in batch.iter().zip(results) {
            self.settle(key, result.map(|()| Some(value.clone())), now, &mut outcome);
        }
        self.forget_after(outcome)
    }

    /// Observes if nothing is known, and says what is known; `None` when observing failed or waits for its retry.
    pub async fn look(&mut self, now: Instant) -> Option<&BTreeMap<T::Key, T::Value>> {
        if self.actual.is_none()
            && self.observe_failure.as_ref().is_none_or(|failure| failure.retry_at <= now)
        {
            match self.target.observe().await {
                Ok(actual) => {
                    self.actual = Some(actual);
                    self.observe_failure = None;
                }
                Err(error) => {
                    let attempts = self.observe_failure.as_ref().map_or(0, |failure| failure.attempts);
                    self.observe_failure = Some(failed_again::<T>(attempts, &error, now));
                }
            }
        }
        self.actual.as_ref()
    }

    /// A key that is as desired fails no longer: its last call took effect after all, or nobody wants it now.
    fn forgive(&mut self, desired: &BTreeMap<T::Key, T::Value>) {
        let Some(actual) = &self.actual else { return };
        self.failing.retain(|key, _| desired.get(key) != actual.get(key));
    }

    /// Splits off what waits for its retry time.
    fn due<I>(&self, items: Vec<I>, key: impl Fn(&I) -> &T::Key, now: Instant) -> (Vec<I>, usize) {
        let all = items.len();
        let due: Vec<I> = items
            .into_iter()
            .filter(|item| self.failing.get(key(item)).is_none_or(|failure| failure.retry_at <= now))
            .collect();
        let waiting = all - due.len();
        (due, waiting)
    }

    fn settle(
        &mut self,
        key: &T::Key,
        result: Result<Option<T::Value>, T::Error>,
        now: Instant,
        outcome: &mut Outcome,
    ) {
        match result {
            Ok(value) => {
                outcome.changed += 1;
                self.failing.remove(key);
                if let Some(actual) = &mut self.actual {
                    match value {
                        Some(value) => drop(actual.insert(key.clone(), value)),
                        None => drop(actual.remove(key)),
                    }
                }
            }
            Err(error) => {
                outcome.failed += 1;
                let attempts = self.failing.get(key).map_or(0, |failure| failure.attempts);
                self.failing.insert(key.clone(), failed_again::<T>(attempts, &error, now));
            }
        }
    }

    /// A failed call may have taken effect in part: look again before the next diff.
    fn forget_after(&mut self, outcome: Outcome) -> Outcome {
        if outcome.failed > 0 {
            self.actual = None;
        }
        outcome
    }
}

fn failed_again<T: Target>(attempts: u32, error: &T::Error, now: Instant) -> Failure {
    let wait = FIRST_RETRY.saturating_mul(1 << attempts.min(16)).min(LAST_RETRY);
    Failure {
        attempts: attempts + 1,
        retry_at: now + wait,
        retryable: T::is_retryable(error),
        error: with_causes(error),
    }
}

/// The error and what caused it, separated by `: `.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Fake, Flaky, FlakyError};
    use futures::executor::block_on;

    fn state(pairs: &[(u8, u8)]) -> BTreeMap<u8, u8> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn a_failing_key_delays_only_itself() {
        let now = Instant::now();
        let mut flaky = Flaky::new(Fake::new(state(&[])));
        flaky.fail_call(1);
        let mut reconciler = Reconciler::new(flaky);
        let desired = state(&[(1, 1), (2, 2)]);
        let outcome = block_on(reconciler.put_missing(&desired, now));
        assert_eq!(outcome, Outcome { changed: 1, failed: 1, waiting: 0 });
        let outcome = block_on(reconciler.put_missing(&desired, now));
        assert_eq!(outcome, Outcome { changed: 0, failed: 0, waiting: 1 });
        let later = reconciler.next_retry().expect("a retry is due");
        let outcome = block_on(reconciler.put_missing(&desired, later));
        assert_eq!(outcome, Outcome { changed: 1, failed: 0, waiting: 0 });
        assert!(reconciler.holds(&1, &1) && reconciler.failing().is_empty());
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let now = Instant::now();
        let wait = |attempts| {
            failed_again::<Flaky<Fake<u8, u8>>>(attempts, &FlakyError::OnPurpose, now).retry_at - now
        };
        assert_eq!(wait(0), FIRST_RETRY);
        assert_eq!(wait(3), FIRST_RETRY * 8);
        assert_eq!(wait(1000), LAST_RETRY);
    }

    #[test]
    fn a_failure_of_an_object_no_longer_wished_for_is_forgotten() {
        let now = Instant::now();
        let mut flaky = Flaky::new(Fake::new(state(&[])));
        flaky.fail_call(1);
        let mut reconciler = Reconciler::new(flaky);
        block_on(reconciler.put_missing(&state(&[(1, 1)]), now));
        assert_eq!(reconciler.failing().len(), 1);
        block_on(reconciler.remove_stale(&state(&[]), now));
        assert!(reconciler.failing().is_empty());
    }
}
