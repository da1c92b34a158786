// SPDX-License-Identifier: Apache-2.0
//! Which of several routes to a prefix is best (RFC 4271 §9.1.2.2, RFC 4456 §9).
//!
//! ```text
//!   own  ► local preference ► path length ► origin ► MED per neighbouring AS ► external ► distance of next hop
//!     ╰─ what is left here is equal enough for packets to be spread over it (multipath)
//!   ► router or originator id ► cluster list length ► peer address ► path id
//! ```
//! Routes that are stale for long come last of all (RFC 9494 §4.3). The result does not depend on the order in which
//! routes came.

use std::net::IpAddr;

use crate::wire::{Asn, Attributes, Community, Origin, RouterId};

/// Local preference of a route that has none (no value is given by the RFC; this one is everybody's).
pub(super) const LOCAL_PREFERENCE: u32 = 100;

/// A route that can be used, as the decision sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contender<'a> {
    /// Whose place in the list of candidates this is.
    pub(super) index: usize,
    pub(super) attributes: &'a Attributes,
    pub(super) origin: Source,
    /// Distance of the next hop.
    pub(super) metric: u32,
    pub(super) path_id: u32,
}

/// Where a route is from, as far as the decision cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This node.
    Own,
    /// A peer.
    Peer { external: bool, router_id: RouterId, address: IpAddr },
}

/// The step at which a route was left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The route is kept only because its peer is away for long (RFC 9494 §4.3).
    LongLivedStale,
    /// A route of this node is there.
    Own,
    /// Lower local preference (RFC 4271 §9.1.1).
    LocalPreference,
    /// Longer AS path (§9.1.2.2 a).
    PathLength,
    /// Higher origin (§9.1.2.2 b).
    Origin,
    /// Higher MED from the same neighbouring AS (§9.1.2.2 c).
    Med,
    /// Internal, and an external one is there (§9.1.2.2 d).
    External,
    /// Farther next hop (§9.1.2.2 e).
    Distance,
    /// Higher router or originator id (§9.1.2.2 f, RFC 4456 §9).
    RouterId,
    /// Longer cluster list (RFC 4456 §9).
    ClusterList,
    /// Higher address of the peer (§9.1.2.2 g).
    PeerAddress,
    /// Higher path identifier of the same peer.
    PathId,
}

/// What holds for all decisions of a speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) asn: Asn,
    /// Whether MED is compared whatever the neighbouring AS.
    pub(super) always_compare_med: bool,
}

type Tie = (RouterId, usize, Option<IpAddr>, u32);

impl Contender<'_> {
    fn local_pref(&self) -> u32 {
        self.attributes.local_pref.unwrap_or(LOCAL_PREFERENCE)
    }

    fn med(&self) -> u32 {
        // RFC 4271 §9.1.2.2 c: without a value, the lowest.
        self.attributes.med.unwrap_or(0)
    }

    fn is_external(&self) -> bool {
        matches!(self.origin, Source::Peer { external: true, .. })
    }

    fn tie(&self) -> Tie {
        let (router_id, address) = match self.origin {
            Source::Own => (RouterId(0), None),
            Source::Peer { router_id, address, .. } => (router_id, Some(address)),
        };
        let router_id = self.attributes.originator_id.unwrap_or(router_id);
        (router_id, self.attributes.cluster_list.len(), address, self.path_id)
    }
}

/// Ranks routes: those that are left at the end, the best first. `lost` hears at which step each of the others was
/// left behind.
pub(super) fn decide<'a>(
    contenders: impl IntoIterator<Item = Contender<'a>>,
    rules: Rules,
    mut lost: impl FnMut(usize, Step),
) -> Vec<Contender<'a>> {
    let mut left: Vec<Contender<'a>> = contenders.into_iter().collect();
    if left.len() < 2 {
        return left;
    }
    let stale = |one: &Contender<'_>| one.attributes.has_community(Community::LLGR_STALE);
    keep(&mut left, stale, Step::LongLivedStale, &mut lost);
    keep(&mut left, |one| one.origin != Source::Own, Step::Own, &mut lost);
    keep(&mut left, |one| u32::MAX - one.local_pref(), Step::LocalPreference, &mut lost);
    keep(&mut left, |one| one.attributes.as_path.len(), Step::PathLength, &mut lost);
    keep(&mut left, |one| -> Origin { one.attributes.origin }, Step::Origin, &mut lost);
    keep_lowest_med(&mut left, rules, &mut lost);
    keep(&mut left, |one| !one.is_external(), Step::External, &mut lost);
    keep(&mut left, |one| one.metric, Step::Distance, &mut lost);
    left.sort_by_key(Contender::tie);
    left
}

/// At which step the second of two routes that are left at the end stands back behind the first.
pub(super) fn last_step(best: &Contender<'_>, other: &Contender<'_>) -> Step {
    let (best, other) = (best.tie(), other.tie());
    match (best.0 == other.0, best.1 == other.1, best.2 == other.2) {
        (false, _, _) => Step::RouterId,
        (true, false, _) => Step::ClusterList,
        (true, true, false) => Step::PeerAddress,
        (true, true, true) => Step::PathId,
    }
}

/// Keeps those for which `key` is lowest.
fn keep<'a, K: Ord>(
    left: &mut Vec<Contender<'a>>,
    key: impl Fn(&Contender<'a>) -> K,
    step: Step,
    lost: &mut impl FnMut(usize, Step),
) {
    if left.len() < 2 {
        return;
    }
    let Some(lowest) = left.iter().map(&key).min() else { return };
    left.retain(|one| {
        let kept = key(one) == lowest;
        if !kept {
            lost(one.index, step);
        }
        kept
    });
}

/// Leaves a route behind when another of the same neighbouring AS has a lower MED; all are looked at before any is
/// removed, as §9.1.2.2 c wants.
fn keep_lowest_med(left: &mut Vec<Contender<'_>>, rules: Rules, lost: &mut impl FnMut(usize, Step)) {
    if left.len() < 2 {
        return;
    }
    let group = |one: &Contender<'_>| {
        if rules.always_compare_med { rules.asn } else { one.attributes.as_path.neighbour(rules.asn) }
    };
    let all: Vec<(Asn, u32)> = left.iter().map(|one| (group(one), one.med())).collect();
    left.retain(|one| {
        let (own, med) = (group(one), one.med());
        let kept = all.iter().all(|(other, theirs)| *other != own || *theirs >= med);
        if !kept {
            lost(one.index, Step::Med);
        }
        kept
    });
}

#[cfg(test)]
mod tests;
