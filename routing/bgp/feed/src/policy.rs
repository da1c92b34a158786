// SPDX-License-Identifier: Apache-2.0
//! What is taken from a peer, and what it is told.

use rhumb_model::Prefix;
use serde::{Deserialize, Serialize};

use crate::{PeerKey, RouteKind};

/// Ordered rules: the first that matches a route decides; a route that none matches is rejected (RFC 8212).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is called where a decision is explained.
    pub name: String,
    /// Which routes it is about.
    #[serde(rename = "match")]
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
}

/// Which routes a rule is about: those that pass every list that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The prefix is in one of these.
    pub prefixes: Vec<PrefixRange>,
    /// The route has one of these communities (RFC 1997).
    pub communities: Vec<u32>,
    /// The route has one of these large communities (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// The route is of one of these kinds.
    pub kinds: Vec<RouteKind>,
    /// The route was learned from one of these peers.
    pub neighbours: Vec<PeerKey>,
}

/// Prefixes inside of a block, by length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixRange {
    /// The block.
    pub prefix: Prefix,
    /// Shortest length; at least that of the block.
    pub ge: u8,
    /// Longest length; at most that of an address.
    pub le: u8,
}

impl PrefixRange {
    /// Exactly this prefix.
    pub fn exact(prefix: Prefix) -> Self {
        Self { prefix, ge: prefix.len(), le: prefix.len() }
    }

    /// This prefix and all inside of it.
    pub fn within(prefix: Prefix) -> Self {
        Self { prefix, ge: prefix.len(), le: prefix.family().bits() }
    }

    /// Whether `prefix` is one of those meant.
    pub fn contains(&self, prefix: Prefix) -> bool {
        (self.ge..=self.le).contains(&prefix.len())
            && prefix.len() >= self.prefix.len()
            && self.prefix.contains(prefix.addr())
    }
}

/// What becomes of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is not taken, or not told.
    Reject,
    /// It is, with these changes.
    Accept(Changes),
}

/// Changes of a route's attributes: first what goes, then what comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Local preference to set.
    pub local_pref: Option<u32>,
    /// Metric to set (MULTI_EXIT_DISC).
    pub med: Option<u32>,
    /// Communities to remove.
    pub remove_communities: Vec<u32>,
    /// Communities to add.
    pub add_communities: Vec<u32>,
    /// Large communities to remove.
    pub remove_large_communities: Vec<[u32; 3]>,
    /// Large communities to add.
    pub add_large_communities: Vec<[u32; 3]>,
    /// How many times more our AS is put before the path.
    pub prepend: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("valid")
    }

    #[test]
    fn a_range_is_of_block_and_lengths() {
        let range = PrefixRange { prefix: prefix("10.0.0.0/8"), ge: 16, le: 24 };
        for (text, inside) in [
            ("10.1.0.0/16", true),
            ("10.1.2.0/24", true),
            ("10.0.0.0/8", false),
            ("10.1.2.0/25", false),
            ("11.1.0.0/16", false),
            ("fd00::/16", false),
        ] {
            assert_eq!(range.contains(prefix(text)), inside, "{text}");
        }
        let default = prefix("0.0.0.0/0");
        assert!(PrefixRange::exact(default).contains(default));
        assert!(!PrefixRange::exact(default).contains(prefix("10.0.0.0/8")));
        assert!(PrefixRange::within(default).contains(prefix("10.0.0.0/8")));
    }
}
