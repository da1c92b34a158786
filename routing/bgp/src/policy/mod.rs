// SPDX-License-Identifier: Apache-2.0
//! What is taken from a peer and what it is told: ordered rules, the first that matches decides.
//!
//! A route that no rule matches is rejected, from and to external peers (RFC 8212 §2) and internal ones alike.
//! Judging a route costs its rules and the lengths of their prefixes; how many routes there are does not matter.

mod change;
mod prefixes;

use std::collections::BTreeSet;

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::RouteKind;
use rhumb_model::Prefix;

use crate::rib::PeerId;
use crate::wire::{Asn, Attributes, Community, LargeCommunity};
pub(crate) use change::Changes;
use prefixes::Prefixes;

/// Rules in the order in which they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    prefixes: Option<Prefixes>,
    communities: BTreeSet<Community>,
    large_communities: BTreeSet<LargeCommunity>,
    kinds: BTreeSet<RouteKind>,
    /// `None` is everybody.
    neighbours: Option<BTreeSet<PeerId>>,
    /// `None` rejects.
    changes: Option<Changes>,
}

/// A route as rules see it, without its prefix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) attributes: &'a Attributes,
    pub(crate) kind: RouteKind,
    /// Who it was learned from.
    pub(crate) from: Option<PeerId>,
}

/// The rules that match a route whatever its prefix is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matching(Vec<u16>);

/// What a policy says about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Accepted by the rule of this number.
    Accept(u16),
    /// Rejected by the rule of this number.
    Reject(u16),
    /// No rule is about it, so it is rejected.
    NoRule,
}

impl Policy {
    /// Reads the feed's form; `peer` finds the number of a neighbour that a rule names.
    pub fn new(policy: &feed::Policy, mut peer: impl FnMut(&feed::PeerKey) -> PeerId) -> Self {
        let rule = |rule: &feed::Rule| {
            let feed::Match { prefixes, communities, large_communities, kinds, neighbours } = &rule.matches;
            Rule {
                name: rule.name.clone(),
                prefixes: (!prefixes.is_empty()).then(|| Prefixes::new(prefixes)),
                communities: communities.iter().copied().map(Community).collect(),
                large_communities: large_communities.iter().copied().map(large).collect(),
                kinds: kinds.iter().copied().collect(),
                neighbours: (!neighbours.is_empty()).then(|| neighbours.iter().map(&mut peer).collect()),
                changes: match &rule.action {
                    feed::Action::Reject => None,
                    feed::Action::Accept(changes) => Some(Changes::new(changes)),
                },
            }
        };
        // No policy that a person or the agent writes comes near this many rules.
        Self { rules: policy.rules.iter().take(usize::from(u16::MAX)).map(rule).collect() }
    }

    /// The rules that can decide about routes of these attributes.
    pub(crate) fn matching(&self, subject: Subject<'_>) -> Matching {
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.matches(subject));
        Matching(rules.map(|(number, _)| u16::try_from(number).expect("cut when it was read")).collect())
    }

    /// What the first of these rules that is about `prefix` says.
    pub(crate) fn judge(&self, matching: &Matching, prefix: Prefix) -> Judgement {
        for number in &matching.0 {
            let rule = &self.rules[usize::from(*number)];
            if rule.prefixes.as_ref().is_none_or(|prefixes| prefixes.contain(prefix)) {
                return match rule.changes {
                    Some(_) => Judgement::Accept(*number),
                    None => Judgement::Reject(*number),
                };
            }
        }
        Judgement::NoRule
    }

    /// What the rule of this number changes; nothing where it rejects.
    pub(crate) fn changes(&self, number: u16) -> &Changes {
        const NONE: &Changes = &Changes::NONE;
        self.rules.get(usize::from(number)).and_then(|rule| rule.changes.as_ref()).unwrap_or(NONE)
    }

    /// Whether the rule of this number asks for the community by name.
    pub(crate) fn names(&self, number: u16, community: Community) -> bool {
        self.rules.get(usize::from(number)).is_some_and(|rule| rule.communities.contains(&community))
    }

    /// Name of the rule of this number.
    pub(crate) fn name(&self, number: u16) -> &str {
        self.rules.get(usize::from(number)).map_or("", |rule| &rule.name)
    }
}

impl Rule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let any = |wanted: bool, found: bool| !wanted || found;
        let attributes = subject.attributes;
        any(!self.kinds.is_empty(), self.kinds.contains(&subject.kind))
            && any(
                !self.communities.is_empty(),
                attributes.communities.iter().any(|one| self.communities.contains(one)),
            )
            && any(
                !self.large_communities.is_empty(),
                attributes.large_communities.iter().any(|one| self.large_communities.contains(one)),
            )
            && self
                .neighbours
                .as_ref()
                .is_none_or(|peers| subject.from.is_some_and(|from| peers.contains(&from)))
    }
}

/// A large community of the feed.
pub(crate) fn large([global, local1, local2]: [u32; 3]) -> LargeCommunity {
    LargeCommunity { global, local1, local2 }
}

/// By whose number, and how often, a path is made longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepend {
    pub(crate) asn: Asn,
    pub(crate) times: u8,
}

#[cfg(test)]
mod tests;
