// SPDX-License-Identifier: Apache-2.0
//! What becomes of routes that a peer tells: checks that no policy can lift, then the import policy.

use std::sync::Arc;

use rhumb_bgp_feed::RouteKind;
use rhumb_model::{Family, Prefix};

use super::path::{Hop, Interned, Path};
use super::peer::{Peer, PeerId, PeerInfo};
use super::table::Candidate;
use super::view::Rejection;
use super::{Rib, Settings};
use crate::policy::{Judgement, Matching, Policy, Subject};
use crate::wire::{Attributes, Community, NextHop, Reach, Update};

/// A peer told more routes than it may; its session is to end with Cease/1 (RFC 4486 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("take more than {limit} {family} routes from the peer")]
pub struct TooManyPrefixes {
    /// Of which family.
    pub family: Family,
    /// How many it may tell.
    pub limit: u32,
}

impl Rib {
    /// Takes what a peer tells. Families that were not negotiated, and peers without a session, tell nothing.
    ///
    /// # Errors
    /// [`TooManyPrefixes`] when the peer has told more routes than its limit; they are in the table all the same.
    pub fn update(&mut self, peer: PeerId, update: &Update) -> Result<(), TooManyPrefixes> {
        if self.peers.get(peer.0 as usize).is_none_or(|peer| peer.out.is_empty()) {
            return Ok(());
        }
        for family in update.disabled() {
            self.forget(peer, family, |_| true);
        }
        for withdrawn in &update.withdrawn {
            for nlri in &withdrawn.nlri {
                self.withdraw(peer, nlri.prefix, nlri.path_id);
            }
        }
        if let Some(attributes) = &update.attributes {
            for reach in &update.reach {
                self.reach(peer, attributes, reach);
            }
        }
        self.within_limits(peer)
    }

    pub(super) fn within_limits(&self, peer: PeerId) -> Result<(), TooManyPrefixes> {
        let peer = &self.peers[peer.0 as usize];
        let limits = peer.info.iter().flat_map(|info| &info.max_prefixes);
        for (family, limit) in limits {
            if peer.received.get(family).is_some_and(|received| received > limit) {
                return Err(TooManyPrefixes { family: *family, limit: *limit });
            }
        }
        Ok(())
    }

    fn reach(&mut self, peer: PeerId, attributes: &Arc<Attributes>, reach: &Reach) {
        let family = reach.family;
        let from = &self.peers[peer.0 as usize];
        let Some(info) = from.info.as_ref().filter(|_| from.out.contains_key(&family)) else { return };
        let attributes = as_received(attributes, info, &mut self.attributes);
        let hop = hop(reach.next_hop, info).map(|hop| self.hops.id(hop));
        let next_hop = Some(reach.next_hop);
        let path = Arc::new(Path { attributes, next_hop, hop, discard: false, local: None });
        let mut import = Import::new(&self.settings, from, peer, path.clone());
        let mut fresh = 0;
        for nlri in &reach.nlri {
            let id = self.tables[super::index(family)].find_or_insert(nlri.prefix);
            let slot = self.tables[super::index(family)].slot_mut(id);
            let known = slot.position(peer, nlri.path_id);
            if let Some(known) = known.map(|at| &mut slot.candidates[at])
                && *known.received == *path
            {
                if std::mem::take(&mut known.stale) {
                    self.stations.note(peer, id, nlri.prefix, nlri.path_id);
                }
                continue;
            }
            let before = super::best_of(slot);
            let accepted = import.judge(&self.settings, nlri.prefix, &mut self.attributes);
            let candidate =
                Candidate { peer, path_id: nlri.path_id, stale: false, received: path.clone(), accepted };
            match known {
                Some(at) => slot.candidates[at] = candidate,
                None => {
                    fresh += 1;
                    slot.candidates.reserve_exact(1);
                    slot.candidates.push(candidate);
                }
            }
            self.stations.note(peer, id, nlri.prefix, nlri.path_id);
            self.decide(family, id, before.as_ref());
        }
        *self.peers[peer.0 as usize].received.entry(family).or_default() += fresh;
        if self.hops.are_many() {
            self.forget_unused_hops();
        }
    }

    /// Asks the import policy about every route of the peer once more.
    pub(super) fn import_again(&mut self, peer: PeerId) {
        for family in Family::BOTH {
            for id in self.table(family).ids() {
                let slot = self.tables[super::index(family)].slot_mut(id);
                if slot.candidates.iter().all(|one| one.peer != peer) {
                    continue;
                }
                let before = super::best_of(slot);
                let prefix = slot.prefix;
                let mut changed = false;
                for candidate in slot.candidates.iter_mut().filter(|one| one.peer == peer) {
                    let from = &self.peers[peer.0 as usize];
                    // Routes of one message mostly follow each other, and share what the policy makes of them.
                    let import = match &mut self.import {
                        Some(import) if import.is_about(&candidate.received) => import,
                        _ => self.import.insert(Import::new(
                            &self.settings,
                            from,
                            peer,
                            candidate.received.clone(),
                        )),
                    };
                    let accepted = import.judge(&self.settings, prefix, &mut self.attributes);
                    if accepted != candidate.accepted {
                        changed = true;
                        candidate.accepted = accepted;
                        self.stations.note(peer, id, prefix, candidate.path_id);
                    }
                }
                if changed {
                    self.decide(family, id, before.as_ref());
                }
            }
        }
        self.import = None;
    }
}

/// What becomes of routes with common attributes. It holds as long as the peer's policy does.
#[derive(Debug)]
pub(super) struct Import {
    policy: Arc<Policy>,
    external: bool,
    asn: crate::wire::Asn,
    path: Arc<Path>,
    matching: Result<Matching, Rejection>,
    made: Vec<(u16, Arc<Path>)>,
}

impl Import {
    fn new(settings: &Settings, from: &Peer, peer: PeerId, path: Arc<Path>) -> Self {
        let policy = from.import.clone();
        let matching = match &from.info {
            None => Err(Rejection::NoSession),
            Some(info) => check(settings, info, &path).map(|()| {
                policy.matching(Subject {
                    attributes: &path.attributes,
                    kind: RouteKind::Learned,
                    from: Some(peer),
                })
            }),
        };
        let info = from.info.as_ref();
        let external = info.is_some_and(PeerInfo::is_external);
        let asn = info.map_or(settings.asn, |info| info.asn);
        Self { policy, external, asn, path, matching, made: Vec::new() }
    }

    fn is_about(&self, path: &Arc<Path>) -> bool {
        Arc::ptr_eq(&self.path, path)
    }

    fn judge(
        &mut self,
        settings: &Settings,
        prefix: Prefix,
        interned: &mut Interned<Attributes>,
    ) -> Result<Arc<Path>, Rejection> {
        let matching = self.matching.as_ref().map_err(|rejection| *rejection)?;
        if settings.own.iter().any(|own| own.covers(prefix)) {
            return Err(Rejection::OwnPrefix);
        }
        match self.policy.judge(matching, prefix) {
            Judgement::Accept(rule) => Ok(self.make(rule, interned)),
            Judgement::Reject(rule) => Err(Rejection::Rule(rule)),
            Judgement::NoRule => Err(Rejection::NoRule),
        }
    }

    /// The path after the changes of a rule.
    fn make(&mut self, rule: u16, interned: &mut Interned<Attributes>) -> Arc<Path> {
        if let Some((_, made)) = self.made.iter().find(|(made, _)| *made == rule) {
            return made.clone();
        }
        let has = |community| self.path.attributes.has_community(community);
        let changes = self.policy.changes(rule);
        // RFC 8326 §4.1: whoever is about to leave is preferred least.
        let leaving = self.external && has(Community::GRACEFUL_SHUTDOWN);
        // RFC 7999 §3.3 wants an explicit wish to drop packets: a rule that names the community.
        let discard = has(Community::BLACKHOLE) && self.policy.names(rule, Community::BLACKHOLE);
        let made = if changes.is_none() && !leaving && !discard {
            self.path.clone()
        } else {
            let mut attributes = Attributes::clone(&self.path.attributes);
            changes.apply(&mut attributes);
            // The peer's AS: our own in a path would be a loop to internal peers.
            let prepend = changes.prepend(self.asn);
            if prepend.times > 0 {
                attributes.as_path = attributes.as_path.prepend(prepend.asn, prepend.times.into());
            }
            if leaving {
                attributes.local_pref = Some(0);
            }
            let Path { next_hop, hop, .. } = *self.path;
            Arc::new(Path { attributes: interned.get(attributes), next_hop, hop, discard, local: None })
        };
        self.made.push((rule, made.clone()));
        made
    }
}

/// The attributes without what an external peer must not decide (RFC 4271 §5.1.5, RFC 4456 §8).
fn as_received(
    attributes: &Arc<Attributes>,
    info: &PeerInfo,
    interned: &mut Interned<Attributes>,
) -> Arc<Attributes> {
    let inner = attributes.local_pref.is_some()
        || attributes.originator_id.is_some()
        || !attributes.cluster_list.is_empty();
    if !info.is_external() || !inner {
        return interned.shared(attributes);
    }
    let mut attributes = Attributes::clone(attributes);
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    interned.get(attributes)
}

/// What no policy can lift.
fn check(settings: &Settings, info: &PeerInfo, path: &Path) -> Result<(), Rejection> {
    let attributes = &path.attributes;
    if attributes.as_path.contains(info.own_asn) || attributes.as_path.contains(settings.asn) {
        return Err(Rejection::PathLoop);
    }
    if info.is_external() {
        if attributes.as_path.first() != Some(info.asn) {
            return Err(Rejection::FirstSystem);
        }
    } else if attributes.originator_id == Some(settings.router_id) {
        return Err(Rejection::OriginatorLoop);
    } else if settings.reflects && attributes.cluster_list.contains(&settings.cluster_id) {
        return Err(Rejection::ClusterLoop);
    }
    let own = |address| info.own.has(address);
    let is_own = match path.next_hop {
        None => false,
        Some(NextHop::V6 { global, link_local }) => {
            own(global.into()) || link_local.is_some_and(|address| own(address.into()))
        }
        Some(NextHop::V4(address)) => own(address.into()),
    };
    if is_own {
        return Err(Rejection::OwnNextHop);
    }
    if path.hop.is_none() {
        return Err(Rejection::NoNextHop);
    }
    Ok(())
}

/// Where packets are to be sent: to the link-local address where there is one and the link is ours, too
/// (RFC 2545 §3). Some speakers on unnumbered links send a link-local address alone.
fn hop(next_hop: NextHop, info: &PeerInfo) -> Option<Hop> {
    match next_hop {
        NextHop::V4(address) if address.is_unspecified() => None,
        NextHop::V4(address) => Some(Hop { address: address.into(), scope: None }),
        NextHop::V6 { global, link_local } => {
            let on_link = Some(global).filter(|global| global.is_unicast_link_local());
            match (link_local.or(on_link), info.interface) {
                (Some(address), Some(interface)) => {
                    Some(Hop { address: address.into(), scope: Some(interface) })
                }
                (Some(_) | None, _) if on_link.is_some() || global.is_unspecified() => None,
                (Some(_) | None, _) => Some(Hop { address: global.into(), scope: None }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
