// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

/// A set of numbers, kept as the intervals that make it up.
///
/// Invariant: intervals neither overlap nor touch, so that the set has one form only and its memory follows the
/// number of gaps, not of members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// First to last, both included.
    last_by_first: BTreeMap<u128, u128>,
}

impl Intervals {
    pub(crate) fn insert(&mut self, first: u128, last: u128) {
        debug_assert!(first <= last);
        let (mut first, mut last) = (first, last);
        if let Some((&start, &end)) = self.last_by_first.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            first = start;
            last = last.max(end);
        }
        while let Some((&start, &end)) = self.last_by_first.range(first..=last.saturating_add(1)).next_back()
        {
            last = last.max(end);
            self.last_by_first.remove(&start);
        }
        self.last_by_first.insert(first, last);
    }

    pub(crate) fn remove(&mut self, first: u128, last: u128) {
        debug_assert!(first <= last);
        while let Some((start, end)) = self.overlapping(first, last) {
            self.last_by_first.remove(&start);
            if start < first {
                self.last_by_first.insert(start, first - 1);
            }
            if end > last {
                self.last_by_first.insert(last + 1, end);
            }
        }
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.overlapping(number, number).is_some()
    }

    pub(crate) fn min(&self) -> Option<u128> {
        self.last_by_first.keys().next().copied()
    }

    /// The least number that is not below `number`.
    pub(crate) fn first_from(&self, number: u128) -> Option<u128> {
        if self.contains(number) {
            return Some(number);
        }
        self.last_by_first.range(number..).next().map(|(&first, _)| first)
    }

    /// The last of the intervals that share a number with `first..=last`.
    pub(crate) fn overlapping(&self, first: u128, last: u128) -> Option<(u128, u128)> {
        let (&start, &end) = self.last_by_first.range(..=last).next_back()?;
        (end >= first).then_some((start, end))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.last_by_first.iter().map(|(&first, &last)| (first, last))
    }

    /// How many numbers; `u64::MAX` stands for more.
    pub(crate) fn count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (first, last)| {
            sum.saturating_add(u64::try_from(last - first).unwrap_or(u64::MAX)).saturating_add(1)
        })
    }

    /// Takes every number of `other` away.
    pub(crate) fn subtract(&mut self, other: &Intervals) {
        for (first, last) in other.iter() {
            self.remove(first, last);
        }
    }

    /// Leaves only the numbers that are in `other` as well.
    pub(crate) fn intersect(&mut self, other: &Intervals) {
        let mut outside = self.clone();
        outside.subtract(other);
        self.subtract(&outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn of(members: &BTreeSet<u128>) -> Intervals {
        let mut set = Intervals::default();
        members.iter().for_each(|&n| set.insert(n, n));
        set
    }

    fn members(set: &Intervals) -> BTreeSet<u128> {
        set.iter().flat_map(|(first, last)| first..=last).collect()
    }

    #[test]
    fn the_largest_numbers_are_members_like_others() {
        let mut set = Intervals::default();
        set.insert(0, u128::MAX);
        assert_eq!(set.count(), u64::MAX);
        set.remove(u128::MAX, u128::MAX);
        set.remove(0, 0);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, u128::MAX - 1)]);
        set.insert(u128::MAX, u128::MAX);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, u128::MAX)]);
    }

    proptest! {
        #[test]
        fn intervals_are_a_set_in_its_one_form(
            changes: Vec<(bool, u8, u8)>,
            other: BTreeSet<u8>,
            probe: (u8, u8),
        ) {
            let mut set = Intervals::default();
            let mut model = BTreeSet::new();
            for (add, a, b) in changes {
                let (first, last) = (u128::from(a.min(b)), u128::from(a.max(b)));
                if add {
                    set.insert(first, last);
                    model.extend(first..=last);
                } else {
                    set.remove(first, last);
                    model.retain(|n| !(first..=last).contains(n));
                }
            }
            prop_assert_eq!(&set, &of(&model));
            prop_assert_eq!(members(&set), model.clone());
            prop_assert_eq!(set.count(), model.len() as u64);
            prop_assert_eq!(set.min(), model.first().copied());
            let (a, b) = (u128::from(probe.0.min(probe.1)), u128::from(probe.0.max(probe.1)));
            prop_assert_eq!(set.contains(a), model.contains(&a));
            prop_assert_eq!(set.first_from(a), model.range(a..).next().copied());
            prop_assert_eq!(set.overlapping(a, b).is_some(), model.range(a..=b).next().is_some());

            let other: BTreeSet<u128> = other.into_iter().map(u128::from).collect();
            let mut less = set.clone();
            less.subtract(&of(&other));
            prop_assert_eq!(members(&less), model.difference(&other).copied().collect());
            set.intersect(&of(&other));
            prop_assert_eq!(members(&set), model.intersection(&other).copied().collect());
        }
    }
}
