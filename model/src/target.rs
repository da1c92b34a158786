// SPDX-License-Identifier: Apache-2.0

use std::fmt::{Debug, Display};
use std::future::Future;

/// One type of kernel or network object that rhumb keeps in a desired state.
///
/// Invariant: `observe` returns only objects that are ours, and `put` and `remove` touch nothing else. Absence on
/// `remove` and presence on `put` are success. A `put` or `remove` that failed may have taken effect in part; the
/// reconciler observes again before it goes on. [`crate::law`] tests these sentences for every target.
pub trait Target {
    /// What identifies an object.
    type Key: Ord + Clone + Debug + Display;
    /// What the object is to be; equal values mean that nothing is to be done.
    type Value: Clone + PartialEq + Debug;
    /// Why a call did not succeed.
    type Error: std::error::Error;

    /// The name of the object type in logs, metrics and `rhumb status`, for example `link`.
    fn kind(&self) -> &'static str;

    /// All objects of this type that are ours, as they are now.
    fn observe(
        &mut self,
    ) -> impl Future<Output = Result<std::collections::BTreeMap<Self::Key, Self::Value>, Self::Error>>;

    /// Makes the object exist with this value, whatever was there before of ours.
    fn put(&mut self, key: &Self::Key, value: &Self::Value) -> impl Future<Output = Result<(), Self::Error>>;

    /// Makes the object absent.
    fn remove(&mut self, key: &Self::Key) -> impl Future<Output = Result<(), Self::Error>>;

    /// Whether trying the same call again later can succeed without anyone changing what is desired.
    fn is_retryable(_error: &Self::Error) -> bool {
        true
    }

    /// Puts a batch, one result per item in order. A target whose medium can pipeline overrides this.
    fn put_all(
        &mut self,
        batch: &[(Self::Key, Self::Value)],
    ) -> impl Future<Output = Vec<Result<(), Self::Error>>> {
        async move {
            let mut results = Vec::with_capacity(batch.len());
            for (key, value) in batch {
                results.push(self.put(key, value).await);
            }
            results
        }
    }

    /// Removes a batch, one result per key in order. A target whose medium can pipeline overrides this.
    fn remove_all(&mut self, batch: &[Self::Key]) -> impl Future<Output = Vec<Result<(), Self::Error>>> {
        async move {
            let mut results = Vec::with_capacity(batch.len());
            for key in batch {
                results.push(self.remove(key).await);
            }
            results
        }
    }
}
