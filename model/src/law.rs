// SPDX-License-Identifier: Apache-2.0
//! The law that every [`Target`] obeys, as a test to be run on its fake and on the real kernel:
//! from any actual state it converges, one more pass does nothing, any single failed call is repaired by the next
//! pass, and foreign objects survive (the caller compares those, as only it can see them).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::{Outcome, Reconciler, Target};

/// How many passes a target may take to reach the desired state.
const PASSES: usize = 3;

/// A sentence of the law that did not hold.
#[derive(Debug, thiserror::Error)]
#[error("target {kind}, state {state}: {sentence}")]
pub struct Broken {
    kind: &'static str,
    state: usize,
    sentence: String,
}

/// Drives `target` through `states` one after the other; each must be reached, and then hold still.
///
/// # Errors
/// [`Broken`] names the state and what did not hold.
pub async fn converges<T: Target>(
    target: T,
    states: &[BTreeMap<T::Key, T::Value>],
    now: Instant,
) -> Result<T, Broken> {
    let mut reconciler = Reconciler::new(target);
    for (state, desired) in states.iter().enumerate() {
        reach(&mut reconciler, state, desired, now).await?;
    }
    Ok(reconciler.into_target())
}

/// Drives `target` through `states` once for every call it makes, with that call failing: first without effect,
/// then after it took effect. Between rounds the target is brought back to the empty state.
///
/// # Errors
/// [`Broken`] names the state and what did not hold.
pub async fn survives_any_single_failure<T: Target>(
    target: T,
    states: &[BTreeMap<T::Key, T::Value>],
    now: Instant,
) -> Result<T, Broken> {
    let mut flaky = Flaky::new(target);
    for effect in [Effect::None, Effect::Done] {
        for call in 1.. {
            flaky.failure = Some((call, effect));
            flaky.calls = 0;
            flaky = converges(flaky, states, now).await?;
            let reached = flaky.failure.take().is_none();
            flaky = converges(flaky, &[BTreeMap::new()], now).await?;
            if !reached {
                break;
            }
        }
    }
    Ok(flaky.target)
}

async fn reach<T: Target>(
    reconciler: &mut Reconciler<T>,
    state: usize,
    desired: &BTreeMap<T::Key, T::Value>,
    mut now: Instant,
) -> Result<(), Broken> {
    let kind = reconciler.kind();
    let broken = |sentence: String| Broken { kind, state, sentence };
    for _ in 0..PASSES {
        now += Duration::from_secs(60);
        reconciler.remove_stale(desired, now).await;
        reconciler.put_missing(desired, now).await;
        reconciler.invalidate();
    }
    if let Some(failure) = reconciler.observe_failure().or(reconciler.failing().values().next()) {
        return Err(broken(format!("still fails after {PASSES} passes: {}", failure.error)));
    }
    let seen = reconciler.target_mut().observe().await.map_err(|error| broken(error.to_string()))?;
    if seen != *desired {
        return Err(broken(format!("after {PASSES} passes it is {seen:?}, not {desired:?}")));
    }
    let removed = reconciler.remove_stale(desired, now).await;
    let put = reconciler.put_missing(desired, now).await;
    if (removed, put) != (Outcome::default(), Outcome::default()) {
        return Err(broken(format!("one more pass still changes it: {removed:?}, {put:?}")));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    None,
    Done,
}

/// A target of which one call fails, with or without having taken effect.
#[derive(Debug)]
pub struct Flaky<T> {
    target: T,
    calls: usize,
    failure: Option<(usize, Effect)>,
}

/// The error of a [`Flaky`] target.
#[derive(Debug, thiserror::Error)]
pub enum FlakyError<E: std::error::Error> {
    /// The failure that the test asked for.
    #[error("failed on purpose")]
    OnPurpose,
    /// The target's own error.
    #[error(transparent)]
    Target(E),
}

impl<T> Flaky<T> {
    /// Wraps a target; no call fails before [`Flaky::fail_call`].
    pub fn new(target: T) -> Self {
        Self { target, calls: 0, failure: None }
    }

    /// Lets the `number`-th call from now (1 is the next) to put or remove fail without effect.
    pub fn fail_call(&mut self, number: usize) {
        self.calls = 0;
        self.failure = Some((number, Effect::None));
    }

    fn due(&mut self) -> Option<Effect> {
        self.calls += 1;
        let (number, effect) = self.failure?;
        (number == self.calls).then(|| {
            self.failure = None;
            effect
        })
    }
}

impl<T: Target> Target for Flaky<T> {
    type Key = T::Key;
    type Value = T::Value;
    type Error = FlakyError<T::Error>;

    fn kind(&self) -> &'static str {
        self.target.kind()
    }

    fn is_retryable(error: &Self::Error) -> bool {
        match error {
            FlakyError::OnPurpose => true,
            FlakyError::Target(error) => T::is_retryable(error),
        }
    }

    async fn observe(&mut self) -> Result<BTreeMap<T::Key, T::Value>, Self::Error> {
        self.target.observe().await.map_err(FlakyError::Target)
    }

    async fn put(&mut self, key: &T::Key, value: &T::Value) -> Result<(), Self::Error> {
        let due = self.due();
        if due != Some(Effect::None) {
            self.target.put(key, value).await.map_err(FlakyError::Target)?;
        }
        if due.is_some() { Err(FlakyError::OnPurpose) } else { Ok(()) }
    }

    async fn remove(&mut self, key: &T::Key) -> Result<(), Self::Error> {
        let due = self.due();
        if due != Some(Effect::None) {
            self.target.remove(key).await.map_err(FlakyError::Target)?;
        }
        if due.is_some() { Err(FlakyError::OnPurpose) } else { Ok(()) }
    }
}

/// A target in memory.
#[derive(Debug, Clone)]
pub struct Fake<K, V> {
    /// What is there.
    pub objects: BTreeMap<K, V>,
}

impl<K, V> Fake<K, V> {
    /// Starts with these objects.
    pub fn new(objects: BTreeMap<K, V>) -> Self {
        Self { objects }
    }
}

impl<K, V> Target for Fake<K, V>
where
    K: Ord + Clone + fmt::Debug + fmt::Display,
    V: Clone + PartialEq + fmt::Debug,
{
    type Key = K;
    type Value = V;
    type Error = std::convert::Infallible;

    fn kind(&self) -> &'static str {
        "fake"
    }

    async fn observe(&mut self) -> Result<BTreeMap<K, V>, Self::Error> {
        Ok(self.objects.clone())
    }

    async fn put(&mut self, key: &K, value: &V) -> Result<(), Self::Error> {
        self.objects.insert(key.clone(), value.clone());
        Ok(())
    }

    async fn remove(&mut self, key: &K) -> Result<(), Self::Error> {
        self.objects.remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    fn states() -> Vec<BTreeMap<u8, u8>> {
        vec![[(1, 1), (2, 2)].into(), [(2, 3), (4, 4)].into(), BTreeMap::new()]
    }

    /// Forgets every second put: the law must notice.
    struct Forgetful(Fake<u8, u8>, usize);

    impl Target for Forgetful {
        type Key = u8;
        type Value = u8;
        type Error = std::convert::Infallible;

        fn kind(&self) -> &'static str {
            "forgetful"
        }

        async fn observe(&mut self) -> Result<BTreeMap<u8, u8>, Self::Error> {
            self.0.observe().await
        }

        async fn put(&mut self, key: &u8, value: &u8) -> Result<(), Self::Error> {
            self.1 += 1;
            if *key == 2 { Ok(()) } else { self.0.put(key, value).await }
        }

        async fn remove(&mut self, key: &u8) -> Result<(), Self::Error> {
            self.0.remove(key).await
        }
    }

    #[test]
    fn a_lawful_target_passes() {
        let fake = Fake::new([(9, 9)].into());
        let fake = block_on(converges(fake, &states(), Instant::now())).expect("lawful");
        block_on(survives_any_single_failure(fake, &states(), Instant::now())).expect("lawful");
    }

    #[test]
    fn a_target_that_forgets_a_put_is_found_out() {
        let target = Forgetful(Fake::new(BTreeMap::new()), 0);
        let broken = block_on(converges(target, &states(), Instant::now())).err().expect("found out");
        assert!(broken.to_string().contains("after 3 passes it is"), "{broken}");
    }
}
