// SPDX-License-Identifier: Apache-2.0
//! Tags of our interfaces: given in the call that makes them, so that no interface is ever without.

use std::collections::BTreeMap;

/// The cluster whose operator made the interface.
pub const TAG_CLUSTER: &str = "rhumb.io/cluster";
/// The node for which it was made.
pub const TAG_NODE: &str = "rhumb.io/node";
/// The instance that this node was then: names of nodes come again.
pub const TAG_INSTANCE: &str = "rhumb.io/instance";
/// The token of the call that made it.
pub const TAG_TOKEN: &str = "rhumb.io/token";
/// When it was made, in milliseconds since 1970.
pub const TAG_CREATED: &str = "rhumb.io/created";

/// Whether all of `wanted` are there. Nothing wanted chooses nothing: a selection by tags names at least one.
pub(crate) fn has_all(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    !wanted.is_empty() && wanted.iter().all(|(key, value)| tags.get(key) == Some(value))
}

/// A token that is the same for the same parts, and in all likelihood another for others (FNV-1a, 64 bits, twice).
pub(crate) fn token(parts: &[&str]) -> String {
    let hash = |seed: u64| {
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
        bytes.fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("rhumb-{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_depends_on_every_part_and_on_where_it_ends() {
        let one = token(&["a", "bc"]);
        assert_eq!(one, token(&["a", "bc"]));
        assert!(one != token(&["ab", "c"]) && one != token(&["a", "bd"]));
        // EC2 takes tokens of up to 64 characters of ASCII.
        assert!(one.len() <= 64 && one.is_ascii());
    }

    #[test]
    fn no_tags_choose_nothing() {
        let tags = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(has_all(&tags, &tags) && !has_all(&tags, &BTreeMap::new()));
        assert!(!has_all(&BTreeMap::new(), &tags));
    }
}
