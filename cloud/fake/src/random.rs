// SPDX-License-Identifier: Apache-2.0
//! Chance that is the same in every run: the splitmix64 sequence of a seed.

use std::time::Duration;

use crate::settings::Span;

/// A sequence of numbers that its seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number under `end`; 0 when `end` is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// A time within `span`, its ends included.
    pub(crate) fn within(&mut self, span: Span) -> Duration {
        let (from, to) = (span.0.min(span.1), span.0.max(span.1));
        Duration::from_millis(if from == to { from } else { from + self.below(to - from + 1) })
    }

    /// True in `share` of all cases, 0.0 to 1.0.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        // 53 bits fill the fraction of a double exactly.
        ((self.next() >> 11) as f64) < share * (1u64 << 53) as f64
    }
}

/// The finishing step of splitmix64: a different number for every number.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_span_is_kept_and_its_ends_are_reached() {
        let mut random = Random::new(1);
        let seen: std::collections::BTreeSet<u128> =
            (0..200).map(|_| random.within(Span(3, 6)).as_millis()).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
    }

    #[test]
    fn chance_is_about_its_share() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
