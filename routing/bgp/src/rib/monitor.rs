// SPDX-License-Identifier: Apache-2.0
//! What monitoring stations are to be told of what peers told (RFC 7854 §5): all there is once, then what changes.
//!
//! A station has no queue either. It walks through the table once, behind it only the names of routes that changed wait,
//! and what is told of one is what it is then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::peer::PeerId;
use super::table::{Candidate, SlotId};
use super::{Rib, index};
use crate::bmp::View;
use crate::wire::{Attributes, NextHop, Nlri};

/// Slots that are looked at, and changed routes that are told, in one go.
const BATCH: usize = 1 << 12;

/// Number of a station.
pub(crate) type StationId = u64;

/// What a station is to be told of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Monitored {
    /// These routes are there.
    Announce {
        /// As they came, or as they were accepted.
        view: View,
        /// Family of the destinations.
        family: Family,
        /// Their attributes.
        attributes: Arc<Attributes>,
        /// Their next hop.
        next_hop: NextHop,
        /// The destinations; never empty.
        nlri: Vec<Nlri>,
    },
    /// These are not, or not any more.
    Withdraw {
        /// As they came, or as they were accepted.
        view: View,
        /// Family of the destinations.
        family: Family,
        /// The destinations; never empty.
        nlri: Vec<Nlri>,
    },
    /// All that was there when the station came was told.
    EndOfRib(View, Family),
}

/// What one station has not heard of one family of a peer.
#[derive(Debug, Default)]
struct Unheard {
    /// The slots from here on; `None` when all were walked through.
    from: Option<SlotId>,
    changed: BTreeSet<(Prefix, u32)>,
}

/// Stations, each with the peers whose session it was told of.
#[derive(Debug, Default)]
pub(super) struct Stations(BTreeMap<(StationId, PeerId), (BTreeSet<View>, [Unheard; 2])>);

impl Stations {
    /// A route is another now, or gone.
    pub(super) fn note(&mut self, peer: PeerId, id: SlotId, prefix: Prefix, path_id: u32) {
        for ((_, of), (_, unheard)) in &mut self.0 {
            let unheard = &mut unheard[index(prefix.family())];
            if *of == peer && unheard.from.is_none_or(|from| id < from) {
                unheard.changed.insert((prefix, path_id));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The peer's session is over, or a new one begins.
    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.0.retain(|(_, of), _| *of != peer);
    }
}

/// Routes of one family in one view, by what they have in common.
#[derive(Default)]
struct Groups {
    there: Vec<(Arc<Attributes>, NextHop, Vec<Nlri>)>,
    known: BTreeMap<(usize, NextHop), usize>,
    gone: Vec<Nlri>,
}

impl Groups {
    fn put(&mut self, view: View, candidate: Option<&Candidate>, nlri: Nlri) {
        let path = match (candidate, view) {
            (Some(candidate), View::PrePolicy) => Some(&candidate.received),
            (Some(candidate), View::PostPolicy) => candidate.accepted.as_ref().ok(),
            (None, _) => None,
        };
        let Some((path, next_hop)) = path.and_then(|path| Some((path, path.next_hop?))) else {
            self.gone.push(nlri);
            return;
        };
        let key = (Arc::as_ptr(&path.attributes) as usize, next_hop);
        let there = &mut self.there;
        let at = *self.known.entry(key).or_insert_with(|| {
            there.push((path.attributes.clone(), next_hop, Vec::new()));
            there.len() - 1
        });
        there[at].2.push(nlri);
    }

    fn into_messages(self, view: View, family: Family) -> impl Iterator<Item = Monitored> {
        let gone = (!self.gone.is_empty()).then_some(Monitored::Withdraw { view, family, nlri: self.gone });
        let there = self.there.into_iter().map(move |(attributes, next_hop, nlri)| Monitored::Announce {
            view,
            family,
            attributes,
            next_hop,
            nlri,
        });
        gone.into_iter().chain(there)
    }
}

impl Rib {
    /// A station was told that the peer's session is established, and is to hear of its routes.
    pub(crate) fn monitor(&mut self, station: StationId, peer: PeerId, views: BTreeSet<View>) {
        let begin = || Unheard { from: Some(0), changed: BTreeSet::new() };
        self.stations.0.insert((station, peer), (views, [begin(), begin()]));
    }

    /// A station is gone.
    pub(crate) fn unmonitor(&mut self, station: StationId) {
        self.stations.0.retain(|(of, _), _| *of != station);
    }

    /// What a station is to be told next, a batch about one peer; `None` when it knows everything.
    pub(crate) fn next_monitored(&mut self, station: StationId) -> Option<(PeerId, Vec<Monitored>)> {
        let all = self.stations.0.range((station, PeerId::FIRST)..=(station, PeerId::OWN));
        let peers: Vec<PeerId> = all.map(|((_, peer), _)| *peer).collect();
        for peer in peers {
            let (views, mut unheard) = self.stations.0.remove(&(station, peer))?;
            let mut told = Vec::new();
            for family in Family::BOTH {
                self.hear(peer, family, &views, &mut unheard[index(family)], &mut told);
            }
            self.stations.0.insert((station, peer), (views, unheard));
            if !told.is_empty() {
                return Some((peer, told));
            }
        }
        None
    }

    fn hear(
        &self,
        peer: PeerId,
        family: Family,
        views: &BTreeSet<View>,
        unheard: &mut Unheard,
        told: &mut Vec<Monitored>,
    ) {
        let table = self.table(family);
        let known = self.peers.get(peer.0 as usize);
        if known.is_none_or(|known| !known.out.contains_key(&family)) {
            unheard.from = None;
            return;
        }
        let mut groups: BTreeMap<View, Groups> =
            views.iter().map(|view| (*view, Groups::default())).collect();
        for _ in 0..BATCH {
            let Some((prefix, path_id)) = unheard.changed.pop_first() else { break };
            let slot = table.find(prefix).map(|id| table.slot(id));
            let candidate = slot.and_then(|slot| Some(&slot.candidates[slot.position(peer, path_id)?]));
            let candidate = candidate.filter(|one| !one.stale);
            for (view, groups) in &mut groups {
                groups.put(*view, candidate, Nlri { prefix, path_id });
            }
        }
        let mut is_end = false;
        // Until something is found: a table of others' routes is not walked through in empty batches.
        while let Some(from) = unheard.from
            && groups.values().all(|groups| groups.there.is_empty())
        {
            let ids = table.ids().skip(from as usize).take(BATCH);
            let mut next = None;
            for id in ids {
                next = Some(id + 1);
                let slot = table.slot(id);
                // What a peer has not told in this session is none of it.
                for one in slot.candidates.iter().filter(|one| one.peer == peer && !one.stale) {
                    let nlri = Nlri { prefix: slot.prefix, path_id: one.path_id };
                    for (view, groups) in &mut groups {
                        if *view == View::PrePolicy || one.accepted.is_ok() {
                            groups.put(*view, Some(one), nlri);
                        }
                    }
                }
            }
            unheard.from = next;
            is_end = next.is_none();
        }
        for (view, groups) in groups {
            told.extend(groups.into_messages(view, family));
        }
        if is_end {
            told.extend(views.iter().map(|view| Monitored::EndOfRib(*view, family)));
        }
    }
}

#[cfg(test)]
mod tests;
