// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

/// What separates the actual state from the desired one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff<K, V> {
    /// Desired, and absent or different: to be put, smallest key first.
    pub put: Vec<(K, V)>,
    /// Actual and not desired: to be removed, largest key first.
    pub remove: Vec<K>,
}

impl<K, V> Diff<K, V> {
    /// Whether nothing separates the two.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Compares desired with actual.
pub fn diff<K, V>(desired: &BTreeMap<K, V>, actual: &BTreeMap<K, V>) -> Diff<K, V>
where
    K: Ord + Clone,
    V: PartialEq + Clone,
{
    let put = desired
        .iter()
        .filter(|(key, value)| actual.get(key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let remove = actual.keys().rev().filter(|key| !desired.contains_key(key)).cloned().collect();
    Diff { put, remove }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn applying_a_diff_reaches_the_desired_state(
            desired: BTreeMap<u8, u8>,
            mut actual: BTreeMap<u8, u8>,
        ) {
            let changes = diff(&desired, &actual);
            for key in &changes.remove {
                prop_assert!(actual.remove(key).is_some());
            }
            for (key, value) in changes.put {
                prop_assert_ne!(actual.insert(key, value), Some(value));
            }
            prop_assert_eq!(&actual, &desired);
            prop_assert!(diff(&desired, &actual).is_empty());
        }
    }
}
