// SPDX-License-Identifier: Apache-2.0
//! Sessions that come and go, and what is kept of a peer's routes meanwhile (RFC 4724 §4.2, RFC 9494 §4.2).

use std::collections::BTreeSet;
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::adj_out::AdjOut;
use super::path::Path;
use super::peer::{Counts, Handling, Leave, PeerId, PeerInfo};
use super::receive::TooManyPrefixes;
use super::table::Candidate;
use super::{Rib, best_of, index};
use crate::wire::Community;

impl Rib {
    /// A session is established: the peer is to be told everything, and may tell. Routes of an earlier session that
    /// were kept stay until the peer tells them again or [`Rib::sweep_stale`]; those of families that are not
    /// negotiated any more go, and all of them when another router answers at the peer's place.
    pub fn peer_up(&mut self, peer: PeerId, info: PeerInfo) {
        let families = info.families.clone();
        let known = &mut self.peers[peer.0 as usize];
        known.out.clear();
        self.stations.forget_peer(peer);
        let known = &mut self.peers[peer.0 as usize];
        if known.info.as_ref().is_some_and(|before| !info.is_same_router(before)) {
            Family::BOTH.into_iter().for_each(|family| self.forget(peer, family, |_| true));
            self.peers[peer.0 as usize].long_lived.clear();
        }
        self.peers[peer.0 as usize].info = Some(info);
        for family in Family::BOTH {
            if families.contains(&family) {
                let most = self.peers[peer.0 as usize].info.as_ref();
                let most = most.and_then(|info| info.send_paths.get(&family).copied());
                let out = AdjOut::new(self.table(family), most);
                self.peers[peer.0 as usize].out.insert(family, out);
                self.mark_stale(peer, family);
            } else {
                self.forget(peer, family, |_| true);
                self.peers[peer.0 as usize].long_lived.remove(&family);
            }
        }
        // What is kept is judged by the session that is: our own addresses can be others now.
        self.import_again(peer);
        self.ready.insert(peer);
    }

    /// The session is gone. Routes of the families in `keep` stay in use as stale ones, until the peer is back and
    /// tells them again, or [`Rib::sweep_stale`]; all others go.
    pub fn peer_down(&mut self, peer: PeerId, keep: &BTreeSet<Family>) {
        let Some(known) = self.peers.get_mut(peer.0 as usize) else { return };
        known.out.clear();
        self.stations.forget_peer(peer);
        self.ready.remove(&peer);
        for family in Family::BOTH {
            let is_long_lived = self.peers[peer.0 as usize].long_lived.contains(&family);
            if !keep.contains(&family) {
                self.forget(peer, family, |_| true);
                self.peers[peer.0 as usize].long_lived.remove(&family);
            } else if is_long_lived {
                // All that was kept goes on being kept, for no longer than before (RFC 9494 §4.2).
                self.mark_stale(peer, family);
                self.keep_long(peer, family);
            } else {
                // Those that are stale already were not told again by the session that ended (RFC 4724 §4.2).
                let known = &self.peers[peer.0 as usize];
                if known.info.as_ref().is_none_or(|info| !info.long_lived.contains(&family)) {
                    self.forget(peer, family, |one| one.stale);
                }
                self.mark_stale(peer, family);
            }
        }
        let known = &mut self.peers[peer.0 as usize];
        if known.received.values().all(|received| *received == 0) {
            known.info = None;
        }
        self.reap();
    }

    /// Removes what the peer has not told again since its session went: at its End-of-RIB, or when its time is up.
    pub fn sweep_stale(&mut self, peer: PeerId, family: Family) {
        self.peers[peer.0 as usize].long_lived.remove(&family);
        self.forget(peer, family, |one| one.stale);
    }

    /// Keeps the peer's stale routes of a family as a last resort from now on: with LLGR_STALE, after all others, told
    /// only to peers that know what that is. Those with NO_LLGR go (RFC 9494 §4.2). [`Rib::sweep_stale`] ends it.
    pub fn keep_long(&mut self, peer: PeerId, family: Family) {
        self.peers[peer.0 as usize].long_lived.insert(family);
        let no_longer =
            |one: &Candidate| one.stale && one.received.attributes.has_community(Community::NO_LLGR);
        self.forget(peer, family, no_longer);
        // Routes of one message mostly follow each other, and stay routes of one path.
        let mut last: Option<(Arc<Path>, Arc<Path>)> = None;
        for id in self.table(family).ids() {
            let slot = self.tables[index(family)].slot_mut(id);
            for one in slot.candidates.iter_mut().filter(|one| one.peer == peer && one.stale) {
                if one.received.attributes.has_community(Community::LLGR_STALE) {
                    continue;
                }
                let (_, marked) = match &last {
                    Some(last) if Arc::ptr_eq(&last.0, &one.received) => last,
                    _ => last.insert((one.received.clone(), one.received.long_stale(&mut self.attributes))),
                };
                one.received = marked.clone();
            }
        }
        self.import_again(peer);
    }

    /// The peer begins to tell all its routes once more (RFC 7313 §4): those that it does not tell until its end of the
    /// refresh, which is [`Rib::sweep_stale`], go.
    pub fn begin_refresh(&mut self, peer: PeerId, family: Family) {
        self.mark_stale(peer, family);
    }

    /// Changes how routes of a peer and for it are handled. The session goes on: what was received is kept, and peers
    /// are told what is otherwise by it.
    ///
    /// # Errors
    /// [`TooManyPrefixes`] when the peer has told more routes than are allowed now.
    pub fn set_handling(&mut self, peer: PeerId, handling: Handling) -> Result<(), TooManyPrefixes> {
        let Some(info) = self.peers.get_mut(peer.0 as usize).and_then(|peer| peer.info.as_mut()) else {
            return Ok(());
        };
        let Handling { client, next_hop_self, max_prefixes } = handling;
        let other_client = std::mem::replace(&mut info.client, client) != client;
        let other_hop = info.next_hop_self != next_hop_self;
        (info.next_hop_self, info.max_prefixes) = (next_hop_self, max_prefixes);
        if other_client {
            // Who hears of its routes is another question for all others, too (RFC 4456 §6).
            self.ids().for_each(|peer| self.export_again(peer));
        } else if other_hop {
            self.export_again(peer);
        }
        self.within_limits(peer)
    }

    /// Lets a peer know that this node is about to leave, or that it stays.
    pub fn set_leave(&mut self, peer: PeerId, leave: Leave) {
        let Some(known) = self.peers.get_mut(peer.0 as usize) else { return };
        if std::mem::replace(&mut known.leave, leave) != leave {
            self.export_again(peer);
        }
    }

    /// How many routes there are of a peer, and for it.
    pub fn counts(&self, peer: PeerId, family: Family) -> Counts {
        let candidates = self.table(family).slots().flat_map(|slot| &slot.candidates);
        let mut counts = Counts::default();
        for one in candidates.filter(|one| one.peer == peer) {
            counts.received += 1;
            counts.accepted += u32::from(one.accepted.is_ok());
            counts.stale += u32::from(one.stale);
        }
        let out = self.peers.get(peer.0 as usize).and_then(|peer| peer.out.get(&family));
        counts.advertised = out.map_or(0, AdjOut::advertised);
        counts
    }

    /// Compares everything with what the peer was told.
    pub(super) fn export_again(&mut self, peer: PeerId) {
        for (family, out) in &mut self.peers[peer.0 as usize].out {
            let table = &self.tables[index(*family)];
            for id in table.ids() {
                if table.slot(id).best.is_some() || out.told(id).is_some() {
                    out.mark(id);
                }
            }
            if !out.is_idle() {
                self.ready.insert(peer);
            }
        }
    }

    fn mark_stale(&mut self, peer: PeerId, family: Family) {
        for id in self.table(family).ids() {
            let slot = self.tables[index(family)].slot_mut(id);
            for candidate in slot.candidates.iter_mut().filter(|one| one.peer == peer) {
                candidate.stale = true;
            }
        }
    }

    /// Removes a route that the peer takes back.
    pub(super) fn withdraw(&mut self, peer: PeerId, prefix: Prefix, path_id: u32) {
        let family = prefix.family();
        let table = &mut self.tables[index(family)];
        let Some(id) = table.find(prefix) else { return };
        let slot = table.slot_mut(id);
        let Some(at) = slot.position(peer, path_id) else { return };
        let before = best_of(slot);
        slot.candidates.remove(at);
        self.stations.note(peer, id, prefix, path_id);
        if let Some(received) =
            self.peers.get_mut(peer.0 as usize).and_then(|peer| peer.received.get_mut(&family))
        {
            *received -= 1;
        }
        self.decide(family, id, before.as_ref());
    }

    /// Removes all routes of a peer that are `unwanted`.
    pub(super) fn forget(&mut self, peer: PeerId, family: Family, unwanted: impl Fn(&Candidate) -> bool) {
        let mut gone = 0;
        for id in self.table(family).ids() {
            let slot = self.tables[index(family)].slot_mut(id);
            let goes = |one: &Candidate| one.peer == peer && unwanted(one);
            if !slot.candidates.iter().any(goes) {
                continue;
            }
            if !self.stations.is_empty() {
                for one in slot.candidates.iter().filter(|one| goes(one)) {
                    self.stations.note(peer, id, slot.prefix, one.path_id);
                }
            }
            let (before, had) = (best_of(slot), slot.candidates.len());
            slot.candidates.retain(|one| !goes(one));
            gone += had - slot.candidates.len();
            self.decide(family, id, before.as_ref());
        }
        if let Some(received) = self.peers[peer.0 as usize].received.get_mut(&family) {
            *received -= u32::try_from(gone).expect("counted before as such a number");
        }
    }
}
