// SPDX-License-Identifier: Apache-2.0

use rhumb_model::{Family, Prefix};

use crate::bits::ends;
use crate::intervals::Intervals;

/// A block of addresses that is assigned to this node.
///
/// The first and the last address are never leased (IPv4 network and broadcast address; IPv6 subnet-router anycast
/// address, RFC 4291 §2.6.1, and its counterpart at the other end), unless the block has two addresses or one
/// (RFC 3021, RFC 6164).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The block.
    pub prefix: Prefix,
    /// Addresses that are never leased, also where they reach beyond the block.
    pub reserved: Vec<Prefix>,
}

/// What the ranges of one family come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// How many ranges.
    pub(crate) ranges: u32,
    /// Every address of every range.
    pub(crate) covered: Intervals,
    /// Those that may be leased. What one range reserves, no other lends.
    pub(crate) usable: Intervals,
    /// How many may be leased; `u64::MAX` stands for more.
    pub(crate) capacity: u64,
}

impl Extent {
    pub(crate) fn of(family: Family, ranges: &[Range]) -> Self {
        let mut extent = Extent::default();
        let mut excluded = Intervals::default();
        for range in ranges.iter().filter(|range| range.prefix.family() == family) {
            let (first, last) = ends(range.prefix);
            extent.ranges = extent.ranges.saturating_add(1);
            extent.covered.insert(first, last);
            if last - first > 1 {
                excluded.insert(first, first);
                excluded.insert(last, last);
            }
            for reserved in range.reserved.iter().filter(|reserved| reserved.family() == family) {
                let (first, last) = ends(*reserved);
                excluded.insert(first, last);
            }
        }
        extent.usable = extent.covered.clone();
        extent.usable.subtract(&excluded);
        extent.capacity = extent.usable.count();
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::from_bits;

    fn usable(ranges: &[(&str, &[&str])]) -> Vec<String> {
        let ranges: Vec<Range> = ranges
            .iter()
            .map(|(prefix, reserved)| Range {
                prefix: prefix.parse().expect("valid"),
                reserved: reserved.iter().map(|r| r.parse().expect("valid")).collect(),
            })
            .collect();
        let family = ranges[0].prefix.family();
        let extent = Extent::of(family, &ranges);
        let all: Vec<String> = extent
            .usable
            .iter()
            .flat_map(|(first, last)| first..=last)
            .map(|bits| from_bits(family, bits).to_string())
            .collect();
        assert_eq!(extent.capacity, all.len() as u64);
        all
    }

    #[test]
    fn first_and_last_address_are_left_out() {
        assert_eq!(usable(&[("10.0.0.8/30", &[])]), ["10.0.0.9", "10.0.0.10"]);
        assert_eq!(usable(&[("fd00::/126", &[])]), ["fd00::1", "fd00::2"]);
    }

    #[test]
    fn blocks_of_two_and_one_are_used_whole() {
        assert_eq!(usable(&[("10.0.0.8/31", &[])]), ["10.0.0.8", "10.0.0.9"]);
        assert_eq!(usable(&[("10.0.0.8/32", &[])]), ["10.0.0.8"]);
        assert_eq!(usable(&[("fd00::/127", &[])]), ["fd00::", "fd00::1"]);
        assert_eq!(usable(&[("fd00::7/128", &[])]), ["fd00::7"]);
    }

    #[test]
    fn what_is_reserved_is_left_out_in_every_range() {
        assert_eq!(usable(&[("10.0.0.0/29", &["10.0.0.0/30", "10.0.0.5/32"])]), ["10.0.0.4", "10.0.0.6"]);
        assert_eq!(usable(&[("10.0.0.0/30", &["10.0.0.5/32"]), ("10.0.0.4/30", &["::/0"])]).len(), 3);
        assert_eq!(usable(&[("10.0.0.0/29", &["10.0.0.0/8"])]), [""; 0]);
    }

    #[test]
    fn a_range_within_another_lends_no_address_twice() {
        assert_eq!(usable(&[("10.0.0.0/29", &[]), ("10.0.0.0/30", &[])]).len(), 5);
    }

    #[test]
    fn a_large_block_costs_nothing() {
        let range = Range { prefix: "fd00::/64".parse().expect("valid"), reserved: Vec::new() };
        let extent = Extent::of(Family::V6, &[range]);
        assert_eq!((extent.capacity, extent.usable.iter().count()), (u64::MAX - 1, 1));
    }
}
