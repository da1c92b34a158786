// SPDX-License-Identifier: Apache-2.0
//! What a peer is told of a route: whether at all, with what attributes, by which next hop.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::Settings;
use super::decision::LOCAL_PREFERENCE;
use super::hash::Seed;
use super::path::{Interned, Path};
use super::peer::{Leave, Peer, PeerId, PeerInfo};
use super::table::Candidate;
use super::view::Withheld;
use crate::policy::{Changes, Judgement, Matching, Policy, Subject};
use crate::wire::{Attributes, Community, NextHop};

/// Bit of an unknown attribute's flags: a speaker on the way did not know it (RFC 4271 §4.3).
const PARTIAL: u8 = 0x20;
/// Bit of an extended community's type: not for other systems (RFC 4360 §2).
const NON_TRANSITIVE: u8 = 0x40;

/// A route as a peer is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) attributes: Arc<Attributes>,
    pub(super) next_hop: NextHop,
}

impl Out {
    pub(super) fn same(&self, other: &Out) -> bool {
        self.next_hop == other.next_hop
            && (Arc::ptr_eq(&self.attributes, &other.attributes) || self.attributes == other.attributes)
    }
}

/// Number of an [`Out`] among those that one run of an exporter made.
pub(super) type OutId = usize;

/// Decides what one peer is told of routes of one family. It remembers what it made of routes with common
/// attributes, so it must not outlive a change of any of them.
pub(super) struct Exporter<'a> {
    settings: &'a Settings,
    peers: &'a [Peer],
    to: PeerId,
    info: &'a PeerInfo,
    policy: &'a Policy,
    leave: Leave,
    family: Family,
    /// The last route's path, and what rules are about it.
    last: Option<(usize, Result<Matching, Withheld>)>,
    made: HashMap<(usize, u16), Result<OutId, Withheld>, Seed>,
    outs: Vec<Arc<Out>>,
    numbers: HashMap<(usize, NextHop), OutId, Seed>,
}

impl<'a> Exporter<'a> {
    /// For a peer with a session; without one there is nobody to tell.
    pub(super) fn new(settings: &'a Settings, peers: &'a [Peer], to: PeerId, family: Family) -> Option<Self> {
        let peer = &peers[to.0 as usize];
        Some(Self {
            settings,
            peers,
            to,
            info: peer.info.as_ref()?,
            policy: &peer.export,
            leave: peer.leave,
            family,
            last: None,
            made: HashMap::default(),
            outs: Vec::new(),
            numbers: HashMap::default(),
        })
    }

    pub(super) fn out(&self, number: OutId) -> &Arc<Out> {
        &self.outs[number]
    }

    /// All that was made, by number.
    pub(super) fn outs(self) -> Vec<Arc<Out>> {
        self.outs
    }

    /// What the peer is told of this route.
    pub(super) fn export(
        &mut self,
        prefix: Prefix,
        candidate: &Candidate,
        attributes: &mut Interned<Attributes>,
    ) -> Result<OutId, Withheld> {
        let Ok(path) = &candidate.accepted else { return Err(Withheld::NotAccepted) };
        let key = Arc::as_ptr(path) as usize;
        if self.last.as_ref().is_none_or(|(last, _)| *last != key) {
            self.last = Some((key, self.matching(candidate.peer, path)));
        }
        let Some((_, matching)) = &self.last else { return Err(Withheld::NotAccepted) };
        let rule = match self.policy.judge(matching.as_ref().map_err(|withheld| *withheld)?, prefix) {
            Judgement::Accept(rule) => rule,
            Judgement::Reject(rule) => return Err(Withheld::Rule(rule)),
            Judgement::NoRule => return Err(Withheld::NoRule),
        };
        if let Some(made) = self.made.get(&(key, rule)) {
            return *made;
        }
        let made = self.make(candidate.peer, path, rule, attributes);
        self.made.insert((key, rule), made);
        made
    }

    /// The rules about a path, unless no prefix of it may be told.
    fn matching(&self, from: PeerId, path: &Path) -> Result<Matching, Withheld> {
        if self.leave == Leave::Withdraw {
            return Err(Withheld::Leaving);
        }
        if from == self.to {
            return Err(Withheld::Sender);
        }
        if let Some(source) = self.info_of(from) {
            let internal = !source.is_external() && !self.info.is_external();
            if internal && !source.client && !self.info.client {
                return Err(Withheld::NotReflected);
            }
            if internal && path.attributes.originator_id == Some(self.info.router_id) {
                return Err(Withheld::Sender);
            }
            let has = |community| path.attributes.has_community(community);
            if has(Community::NO_ADVERTISE) {
                return Err(Withheld::Community(Community::NO_ADVERTISE));
            }
            if has(Community::LLGR_STALE) && !self.info.knows_long_lived {
                return Err(Withheld::LongLivedStale);
            }
            let outside = [Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
            if let Some(named) = outside.into_iter().find(|one| self.info.is_external() && has(*one)) {
                return Err(Withheld::Community(named));
            }
        }
        let attributes = path.attributes_for(self.to).ok_or(Withheld::NotRecipient)?;
        let from = (from != PeerId::OWN).then_some(from);
        Ok(self.policy.matching(Subject { attributes, kind: path.kind(), from }))
    }

    fn info_of(&self, peer: PeerId) -> Option<&'a PeerInfo> {
        self.peers.get(peer.0 as usize)?.info.as_ref()
    }

    fn make(
        &mut self,
        from: PeerId,
        path: &Path,
        rule: u16,
        interned: &mut Interned<Attributes>,
    ) -> Result<OutId, Withheld> {
        let source = self.info_of(from);
        let next_hop = next_hop(path.next_hop, source, self.info, self.family).ok_or(Withheld::NoNextHop)?;
        let attributes = path.attributes_for(self.to).ok_or(Withheld::NotRecipient)?;
        let mut attributes = Attributes::clone(attributes);
        let changes = self.policy.changes(rule);
        if self.info.is_external() {
            to_external(&mut attributes, source.is_some(), changes, self.info);
        } else {
            self.to_internal(&mut attributes, source, changes);
        }
        if self.leave == Leave::Shutdown {
            let at = attributes.communities.binary_search(&Community::GRACEFUL_SHUTDOWN);
            if let Err(at) = at {
                attributes.communities.insert(at, Community::GRACEFUL_SHUTDOWN);
            }
            // RFC 8326 §4.2 leaves external peers to lower it; internal ones are told.
            attributes.local_pref = attributes.local_pref.map(|_| 0);
        }
        let attributes = interned.get(attributes);
        let outs = &mut self.outs;
        let number = self.numbers.entry((Arc::as_ptr(&attributes) as usize, next_hop)).or_insert_with(|| {
            outs.push(Arc::new(Out { attributes, next_hop }));
            outs.len() - 1
        });
        Ok(*number)
    }

    fn to_internal(&self, attributes: &mut Attributes, source: Option<&PeerInfo>, changes: &Changes) {
        attributes.local_pref = attributes.local_pref.or(Some(LOCAL_PREFERENCE));
        if let Some(source) = source.filter(|source| !source.is_external()) {
            // RFC 4456 §8.
            attributes.originator_id = attributes.originator_id.or(Some(source.router_id));
            attributes.cluster_list.insert(0, self.settings.cluster_id);
        }
        if source.is_some() {
            mark_partial(attributes);
        }
        // Our own AS in front of a path would be a loop to internal peers.
        changes.apply(attributes);
    }
}

fn to_external(attributes: &mut Attributes, learned: bool, changes: &Changes, info: &PeerInfo) {
    if learned {
        // The metric of one neighbour says nothing to another (RFC 4271 §5.1.4).
        attributes.med = None;
        mark_partial(attributes);
        attributes.extended_communities.retain(|community| community[0] & NON_TRANSITIVE == 0);
    }
    changes.apply(attributes);
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    let prepend = changes.prepend(info.own_asn);
    attributes.as_path = attributes.as_path.prepend(prepend.asn, 1 + usize::from(prepend.times));
}

fn mark_partial(attributes: &mut Attributes) {
    for unknown in &mut attributes.unknown {
        unknown.flags |= PARTIAL;
    }
}

/// The next hop that a peer is told (RFC 4271 §5.1.3, RFC 2545 §3, RFC 8950 §4).
///
/// External peers are told ourselves, unless a route of ours has another. Internal peers are told what we were told,
/// unless they cannot use it or are to be told ourselves; what is reflected keeps its next hop (RFC 4456 §10).
fn next_hop(
    next_hop: Option<NextHop>,
    source: Option<&PeerInfo>,
    to: &PeerInfo,
    family: Family,
) -> Option<NextHop> {
    let ourselves = own_next_hop(to, family);
    let Some(next_hop) = next_hop else { return ourselves };
    let by_setting = to.next_hop_self.contains(&family);
    let replaced = source.is_some_and(|source| to.is_external() || (source.is_external() && by_setting));
    let usable = match next_hop {
        NextHop::V4(_) => family == Family::V4,
        NextHop::V6 { global, .. } => {
            let speaks = family == Family::V6 || to.extended_next_hop.contains(&family);
            speaks && !global.is_unicast_link_local() && !global.is_unspecified()
        }
    };
    // A peer is never told its own address (RFC 4271 §5.1.3).
    if replaced || !usable || next_hop.addr() == to.address {
        return ourselves;
    }
    Some(next_hop.addr().into())
}

/// This node as a next hop.
fn own_next_hop(to: &PeerInfo, family: Family) -> Option<NextHop> {
    let own = to.own;
    let v6 = || {
        let link_local = own.link_local.filter(|_| to.interface.is_some());
        let global: Ipv6Addr = own.v6.or(link_local)?;
        Some(NextHop::V6 { global, link_local })
    };
    match family {
        Family::V6 => v6(),
        Family::V4 => {
            let v4 = own.v4.map(NextHop::V4);
            let extended = || to.extended_next_hop.contains(&Family::V4).then(v6).flatten();
            if to.address.is_ipv6() { extended().or(v4) } else { v4.or_else(extended) }
        }
    }
}

#[cfg(test)]
mod tests;
