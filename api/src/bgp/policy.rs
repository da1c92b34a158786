// SPDX-License-Identifier: Apache-2.0

use rhumb_model::Prefix;
use serde::{Deserialize, Serialize};

use super::{BgpCommunity, at, once};
use crate::FieldError;

/// Ordered rules about routes: the first that matches decides, and a route that none matches is rejected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPolicy {
    /// The rules, with names that differ.
    pub rules: Vec<BgpPolicyRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPolicyRule {
    /// Its name.
    pub name: String,
    /// Which routes it is about: those that pass every list that is not empty.
    #[serde(default, rename = "match")]
    pub matches: BgpPolicyMatch,
    /// What becomes of them.
    pub action: BgpPolicyAction,
    /// What is changed of those that are accepted.
    #[serde(default, skip_serializing_if = "BgpSet::is_empty")]
    pub set: BgpSet,
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BgpPolicyAction {
    /// It is taken, or told.
    Accept,
    /// It is not.
    Reject,
}

/// Which routes a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpPolicyMatch {
    /// The prefix is in one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<BgpPrefixRange>,
    /// The route has one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<BgpCommunity>,
    /// The route is of one of these kinds; on export only, as what a peer tells is always learned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<BgpRouteKind>,
}

/// Prefixes inside of a block, by length; exactly the block when no length is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPrefixRange {
    /// The block.
    pub prefix: Prefix,
    /// Shortest length; the block's when only `le` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ge: Option<u8>,
    /// Longest length; an address's when only `ge` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub le: Option<u8>,
}

impl BgpPrefixRange {
    /// Shortest and longest length.
    pub fn lengths(&self) -> (u8, u8) {
        let (own, longest) = (self.prefix.len(), self.prefix.family().bits());
        match (self.ge, self.le) {
            (None, None) => (own, own),
            (ge, le) => (ge.unwrap_or(own), le.unwrap_or(longest)),
        }
    }
}

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BgpRouteKind {
    /// A block of pod addresses of a node.
    PodCIDR,
    /// A whole pool.
    PodPool,
    /// The address of one pod.
    Pod,
    /// An address of an interface.
    Interface,
    /// An address of a service.
    Service,
    /// Learned from a peer.
    Learned,
}

/// What is changed of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BgpSet {
    /// Local preference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// Metric (MULTI_EXIT_DISC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities that go, before others come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_communities: Vec<BgpCommunity>,
    /// Communities that come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_communities: Vec<BgpCommunity>,
    /// How many times more our AS is put before the path, at most 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepend: Option<u8>,
}

impl BgpSet {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl BgpPolicy {
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Checks it; `has_kinds` says whether routes of several kinds pass by it.
    pub(super) fn check(&self, has_kinds: bool) -> Result<(), FieldError> {
        for (i, rule) in self.rules.iter().enumerate() {
            at(&format!("rules[{i}]"), || {
                once(&rule.name, self.rules[..i].iter().map(|other| other.name.as_str()))?;
                for (i, range) in rule.matches.prefixes.iter().enumerate() {
                    at(&format!("match.prefixes[{i}]"), || range.check())?;
                }
                if !has_kinds && !rule.matches.kinds.is_empty() {
                    return Err(FieldError::new("match.kinds", "what a peer tells is always learned"));
                }
                if rule.action == BgpPolicyAction::Reject && !rule.set.is_empty() {
                    return Err(FieldError::new("set", "what is rejected is not changed"));
                }
                match rule.set.prepend {
                    Some(times @ 11..) => {
                        Err(FieldError::new("set.prepend", format!("{times}: want at most 10")))
                    }
                    Some(_) | None => Ok(()),
                }
            })?;
        }
        Ok(())
    }
}

impl BgpPrefixRange {
    fn check(&self) -> Result<(), FieldError> {
        let ((ge, le), bits) = (self.lengths(), self.prefix.family().bits());
        let outside = |length: u8| !(self.prefix.len()..=bits).contains(&length);
        let wrong = |field, length| {
            let message =
                format!("{length}: want {} (the length of {}) to {bits}", self.prefix.len(), self.prefix);
            Err(FieldError::new(field, message))
        };
        if outside(ge) {
            return wrong("ge", ge);
        }
        if outside(le) {
            return wrong("le", le);
        }
        if ge > le {
            return Err(FieldError::new("le", format!("{le} is less than ge, {ge}")));
        }
        Ok(())
    }
}
