// SPDX-License-Identifier: Apache-2.0
//! Policies of people as the speaker's.

use rhumb_api::{BgpCommunity, BgpPolicy, BgpPolicyAction, BgpRouteKind};
use rhumb_bgp_feed::{Action, Changes, Match, Policy, PrefixRange, RouteKind, Rule};

use crate::bgp::inputs::Inputs;

/// Routes of ours.
const LOCAL: [RouteKind; 5] =
    [RouteKind::PodCidr, RouteKind::Pool, RouteKind::Pod, RouteKind::Interface, RouteKind::Service];

/// Who a policy is about, where people say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usual {
    /// A router: nothing is taken (RFC 8212), what advertisements say is told.
    Router,
    /// Another node: blocks of the pools are taken, what advertisements say is told.
    Node,
    /// Another node, and this one reflects: the same, and what was learned is told as well.
    Reflected,
}

pub(super) fn import(wanted: &BgpPolicy, usual: Usual, inputs: &Inputs) -> Policy {
    if !wanted.rules.is_empty() || usual == Usual::Router {
        return policy(wanted);
    }
    let blocks = inputs.pools.values().flat_map(|pool| &pool.cidrs);
    let matches =
        Match { prefixes: blocks.map(|block| PrefixRange::within(*block)).collect(), ..Match::default() };
    if matches.prefixes.is_empty() {
        return Policy::default();
    }
    Policy { rules: vec![Rule { name: "pools".into(), matches, action: Action::Accept(Changes::default()) }] }
}

pub(super) fn export(wanted: &BgpPolicy, usual: Usual) -> Policy {
    if !wanted.rules.is_empty() {
        return policy(wanted);
    }
    let learned = (usual == Usual::Reflected).then_some(RouteKind::Learned);
    let matches = Match { kinds: LOCAL.into_iter().chain(learned).collect(), ..Match::default() };
    let rule = Rule { name: "advertisements".into(), matches, action: Action::Accept(Changes::default()) };
    Policy { rules: vec![rule] }
}

fn policy(wanted: &BgpPolicy) -> Policy {
    let rules = wanted.rules.iter().map(|rule| {
        let (communities, large_communities) = split(&rule.matches.communities);
        let prefixes = rule.matches.prefixes.iter().map(|range| {
            let (ge, le) = range.lengths();
            PrefixRange { prefix: range.prefix, ge, le }
        });
        let matches = Match {
            prefixes: prefixes.collect(),
            communities,
            large_communities,
            kinds: rule.matches.kinds.iter().map(|kind| route_kind(*kind)).collect(),
            neighbours: Vec::new(),
        };
        let (add_communities, add_large_communities) = split(&rule.set.add_communities);
        let (remove_communities, remove_large_communities) = split(&rule.set.remove_communities);
        let action = match rule.action {
            BgpPolicyAction::Reject => Action::Reject,
            BgpPolicyAction::Accept => Action::Accept(Changes {
                local_pref: rule.set.local_preference,
                med: rule.set.med,
                remove_communities,
                add_communities,
                remove_large_communities,
                add_large_communities,
                prepend: rule.set.prepend.unwrap_or(0),
            }),
        };
        Rule { name: rule.name.clone(), matches, action }
    });
    Policy { rules: rules.collect() }
}

/// Standard communities and large ones.
pub(super) fn split(communities: &[BgpCommunity]) -> (Vec<u32>, Vec<[u32; 3]>) {
    let (mut standard, mut large) = (Vec::new(), Vec::new());
    for community in communities {
        match community {
            BgpCommunity::Standard(value) => standard.push(*value),
            BgpCommunity::Large(value) => large.push(*value),
        }
    }
    (standard, large)
}

fn route_kind(kind: BgpRouteKind) -> RouteKind {
    match kind {
        BgpRouteKind::PodCIDR => RouteKind::PodCidr,
        BgpRouteKind::PodPool => RouteKind::Pool,
        BgpRouteKind::Pod => RouteKind::Pod,
        BgpRouteKind::Interface => RouteKind::Interface,
        BgpRouteKind::Service => RouteKind::Service,
        BgpRouteKind::Learned => RouteKind::Learned,
    }
}
