// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use rhumb_bgp_feed::PrefixRange;
use rhumb_model::Prefix;

/// A list of blocks with the lengths that are meant inside of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefixes {
    /// By length of the block, so that a look costs as many steps as there are different lengths.
    blocks: BTreeMap<u8, BTreeMap<Prefix, Vec<(u8, u8)>>>,
}

impl Prefixes {
    pub(super) fn new(ranges: &[PrefixRange]) -> Self {
        let mut blocks: BTreeMap<u8, BTreeMap<Prefix, Vec<(u8, u8)>>> = BTreeMap::new();
        for range in ranges {
            let of_length = blocks.entry(range.prefix.len()).or_default();
            of_length.entry(range.prefix).or_default().push((range.ge, range.le));
        }
        Self { blocks }
    }

    /// Whether the prefix is in a block of the list and of a length that is meant there.
    pub(super) fn contain(&self, prefix: Prefix) -> bool {
        self.blocks.range(..=prefix.len()).any(|(length, blocks)| {
            let block = Prefix::containing(prefix.addr(), *length);
            let lengths = blocks.get(&block).map(Vec::as_slice).unwrap_or_default();
            lengths.iter().any(|(ge, le)| (*ge..=*le).contains(&prefix.len()))
        })
    }
}
