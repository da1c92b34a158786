// SPDX-License-Identifier: Apache-2.0
//! Hashes for tables that are asked once for every route. Peers choose prefixes and attributes, so the seed is secret
//! and of this process; the order of a table is never seen.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An odd number with bits all over (of the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes hashers of one seed.
#[derive(Debug, Clone)]
pub(super) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(FACTOR))
    }
}

impl BuildHasher for Seed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Multiplies and folds the upper half of the product into the lower.
#[derive(Debug)]
pub(super) struct Folded(u64);

impl Folded {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        let (low, high) = (product & u128::from(u64::MAX), product >> 64);
        // Never zero again once it is: a word that cancels the state out must not end the mixing.
        self.0 = u64::try_from(low ^ high).expect("both halves are of 64 bits").wrapping_add(FACTOR);
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value.cast_unsigned() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use rhumb_model::Prefix;

    use super::*;

    #[test]
    fn prefixes_in_a_row_fall_all_over_a_table() {
        let seed = Seed(12345);
        for length in [16, 24, 32] {
            let step = 1u32 << (32 - length);
            let hashes: Vec<u64> = (0..65536u32)
                .map(|number| Prefix::containing(Ipv4Addr::from(number.wrapping_mul(step)).into(), length))
                .map(|prefix| seed.hash_one(prefix))
                .collect();
            // A table looks at the lower bits for the place and at the upper seven for the first comparison.
            let places: HashSet<u64> = hashes.iter().map(|hash| hash % 65536).collect();
            assert!(places.len() > 40_000, "{length}: {} places of 65536", places.len());
            let marks: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert_eq!(marks.len(), 128, "{length}");
        }
    }

    #[test]
    fn another_seed_gives_other_hashes() {
        assert_ne!(Seed(1).hash_one(7u32), Seed(2).hash_one(7u32));
        assert_ne!(Seed::default().hash_one(7u32), Seed::default().hash_one(7u32));
    }
}
