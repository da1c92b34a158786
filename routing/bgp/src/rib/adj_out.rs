// SPDX-License-Identifier: Apache-2.0
//! What a peer was told, what it is to be told, and the messages in between.
//!
//! ```text
//!   best route changes ─► dirty ─► compared with what was told ─► groups of equal attributes ─► next_update
//!                           ▲                                          │ changed again meanwhile: left out
//!                           ╰──────────────────────────────────────────╯
//! ```
//! A peer that reads slowly has no queue of messages: a prefix that changes ten times before the peer reads on is
//! told once, as it is then.
//!
//! A peer that takes several paths to a destination (RFC 7911) is told the best few. Each has a number that is its own for
//! as long as the peer is told of it, whatever becomes of its attributes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::Rib;
use super::advertise::{Exporter, Out};
use super::decision::{Contender, decide};
use super::peer::PeerId;
use super::table::{Candidate, Dirty, Slot, SlotId, Table};
use crate::wire::{Attributes, NextHop, Nlri};

/// How many changed prefixes are compared at once: enough to find those of equal attributes, and done within a few
/// milliseconds, so that nothing else waits for long.
const BATCH: usize = 1 << 14;

/// What a peer is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// These can be reached; what was told of them before does not hold any more.
    Announce {
        /// Family of the destinations.
        family: Family,
        /// Their attributes.
        attributes: Arc<Attributes>,
        /// Their next hop.
        next_hop: NextHop,
        /// The destinations; never empty.
        nlri: Vec<Nlri>,
    },
    /// These can no longer be reached; the peer was told before that they can.
    Withdraw {
        /// Family of the destinations.
        family: Family,
        /// The destinations; never empty.
        nlri: Vec<Nlri>,
    },
    /// All there is was told (RFC 4724 §2).
    EndOfRib(Family),
    /// All there is follows once more (RFC 7313 §4); for peers that know the mark.
    BeginOfRefresh(Family),
    /// It was told once more (RFC 7313 §4); for peers that know the mark.
    EndOfRefresh(Family),
}

/// One peer's part of one family.
#[derive(Debug, Default)]
pub(super) struct AdjOut {
    /// What the peer was told, by slot, where it is told one path.
    told: Vec<Option<Arc<Out>>>,
    /// The same where it is told several.
    several: Option<Several>,
    advertised: u32,
    dirty: Dirty,
    /// Slots to be told even if nothing changed.
    again: BTreeSet<SlotId>,
    withdraw: Vec<Place>,
    groups: VecDeque<Group>,
    end_owed: bool,
    refresh: Refresh,
}

#[derive(Debug)]
struct Group {
    out: Arc<Out>,
    places: Vec<Place>,
}

/// A path that is told: of which slot, from whom, and by which number. Where one is told, all but the slot is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    slot: SlotId,
    from: PeerId,
    path_id: u32,
    number: u32,
}

impl Place {
    fn only(slot: SlotId) -> Self {
        Place { slot, from: PeerId::OWN, path_id: 0, number: 0 }
    }

    fn is_path(&self, from: PeerId, path_id: u32) -> bool {
        (self.from, self.path_id) == (from, path_id)
    }
}

/// Paths that a peer was told, by slot.
#[derive(Debug)]
struct Several {
    /// How many at most of each slot.
    most: usize,
    told: BTreeMap<SlotId, Vec<(Place, Arc<Out>)>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    #[default]
    None,
    Asked,
    Begun,
}

impl AdjOut {
    /// For a new session: everything is to be told, then the end. `most` is how many paths of each destination are told to
    /// a peer that takes several.
    pub(super) fn new(table: &Table, most: Option<usize>) -> Self {
        let several = most.map(|most| Several { most, told: BTreeMap::new() });
        let mut adj_out = Self { end_owed: true, several, ..Self::default() };
        for id in table.ids().filter(|id| table.slot(*id).best.is_some()) {
            adj_out.dirty.insert(id);
        }
        adj_out
    }

    /// Lets the slot be looked at; says whether nothing else was waiting.
    pub(super) fn mark(&mut self, id: SlotId) -> bool {
        let idle = self.dirty.is_empty();
        self.dirty.insert(id);
        idle
    }

    /// How many routes the peer was told.
    pub(super) fn advertised(&self) -> u32 {
        self.advertised
    }

    /// What the peer was told of the slot first.
    pub(super) fn told(&self, id: SlotId) -> Option<&Arc<Out>> {
        self.paths_told(id).next().map(|(_, out)| out)
    }

    /// What the peer was told of the slot, with the number of each path.
    pub(super) fn paths_told(&self, id: SlotId) -> impl Iterator<Item = (u32, &Arc<Out>)> {
        let one = self.told.get(id as usize).and_then(Option::as_ref).map(|out| (0, out));
        let several = self.several.as_ref().and_then(|several| several.told.get(&id));
        one.into_iter().chain(several.into_iter().flatten().map(|(place, out)| (place.number, out)))
    }

    /// Whether other paths than the best concern the peer.
    pub(super) fn tells_several(&self) -> bool {
        self.several.is_some()
    }

    /// Whether no slot is waiting: none of its numbers is held but those that were told.
    pub(super) fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.groups.is_empty() && self.withdraw.is_empty()
    }

    /// Tells everything once more.
    fn refresh(&mut self) {
        let ids = 0..SlotId::try_from(self.told.len()).expect("as many as slots");
        let one = ids.filter(|id| self.told[*id as usize].is_some());
        let several = self.several.iter().flat_map(|several| several.told.keys().copied());
        for id in one.chain(several).collect::<Vec<_>>() {
            self.again.insert(id);
            self.dirty.insert(id);
        }
        self.refresh = Refresh::Asked;
    }

    fn set(&mut self, place: Place, out: Option<Arc<Out>>) {
        let id = place.slot;
        self.advertised += u32::from(out.is_some());
        if let Some(several) = &mut self.several {
            let told = several.told.entry(id).or_default();
            let before = told.len();
            told.retain(|(known, _)| known.number != place.number);
            self.advertised -= u32::from(told.len() != before);
            told.extend(out.map(|out| (place, out)));
            if told.is_empty() {
                several.told.remove(&id);
            }
        } else {
            if self.told.len() <= id as usize {
                self.told.resize(id as usize + 1, None);
            }
            let told = &mut self.told[id as usize];
            self.advertised -= u32::from(told.is_some());
            *told = out;
        }
        if !self.again.is_empty() {
            self.again.remove(&id);
        }
    }

    /// The next message of what was compared. What changed since waits for the next comparison.
    fn pop(&mut self, family: Family, table: &Table) -> Option<Outgoing> {
        let nlri = |place: Place| Nlri { prefix: table.slot(place.slot).prefix, path_id: place.number };
        let mut gone = std::mem::take(&mut self.withdraw);
        gone.retain(|place| !self.dirty.contains(place.slot));
        if !gone.is_empty() {
            for place in &gone {
                self.set(*place, None);
            }
            return Some(Outgoing::Withdraw { family, nlri: gone.into_iter().map(nlri).collect() });
        }
        while let Some(Group { out, mut places }) = self.groups.pop_front() {
            places.retain(|place| !self.dirty.contains(place.slot));
            if places.is_empty() {
                continue;
            }
            for place in &places {
                self.set(*place, Some(out.clone()));
            }
            let (attributes, next_hop) = (out.attributes.clone(), out.next_hop);
            let nlri = places.into_iter().map(nlri).collect();
            return Some(Outgoing::Announce { family, attributes, next_hop, nlri });
        }
        None
    }

    /// The mark that is due when everything was told; `synced` says whether there is nothing that has to be waited for.
    fn mark_due(&mut self, family: Family, synced: bool) -> Option<Outgoing> {
        if self.refresh == Refresh::Begun {
            self.refresh = Refresh::None;
            return Some(Outgoing::EndOfRefresh(family));
        }
        (synced && std::mem::take(&mut self.end_owed)).then_some(Outgoing::EndOfRib(family))
    }
}

impl Rib {
    /// What this peer is to be told next; `None` when it knows everything. Whatever is returned counts as told: it
    /// must reach the peer, or the session must end.
    pub fn next_update(&mut self, peer: PeerId) -> Option<Outgoing> {
        for family in Family::BOTH {
            let Some(mut out) = self.peers.get_mut(peer.0 as usize)?.out.remove(&family) else { continue };
            let next = self.next_of(peer, family, &mut out);
            self.peers[peer.0 as usize].out.insert(family, out);
            if next.is_some() {
                return next;
            }
        }
        self.reap();
        None
    }

    fn next_of(&mut self, peer: PeerId, family: Family, out: &mut AdjOut) -> Option<Outgoing> {
        if out.refresh == Refresh::Asked {
            out.refresh = Refresh::Begun;
            return Some(Outgoing::BeginOfRefresh(family));
        }
        loop {
            if let Some(next) = out.pop(family, self.table(family)) {
                return Some(next);
            }
            if out.dirty.is_empty() {
                return out.mark_due(family, self.synced);
            }
            self.compare(peer, family, out);
        }
    }

    /// Compares a batch of slots with what the peer was told of them.
    fn compare(&mut self, peer: PeerId, family: Family, out: &mut AdjOut) {
        let Some(mut exporter) = Exporter::new(&self.settings, &self.peers, peer, family) else { return };
        let table = &self.tables[super::index(family)];
        let mut places: Vec<Vec<Place>> = Vec::new();
        let mut put = |number: usize, place: Place| {
            if places.len() <= number {
                places.resize_with(number + 1, Vec::new);
            }
            places[number].push(place);
        };
        for _ in 0..BATCH {
            let Some(id) = out.dirty.pop() else { break };
            let slot = table.slot(id);
            let again = out.again.contains(&id);
            if let Some(several) = &out.several {
                let told = several.told.get(&id).map(Vec::as_slice).unwrap_or_default();
                let mut wanted: Vec<(&Candidate, usize)> = Vec::new();
                for one in self.ranked(slot) {
                    if wanted.len() == several.most {
                        break;
                    }
                    let number = exporter.export(slot.prefix, one, &mut self.attributes).ok();
                    wanted.extend(number.map(|number| (one, number)));
                }
                let is_wanted =
                    |place: &Place| wanted.iter().any(|(one, _)| place.is_path(one.peer, one.path_id));
                out.withdraw.extend(told.iter().map(|(place, _)| *place).filter(|place| !is_wanted(place)));
                let mut used: BTreeSet<u32> = told.iter().map(|(place, _)| place.number).collect();
                for (one, number) in wanted {
                    match told.iter().find(|(place, _)| place.is_path(one.peer, one.path_id)) {
                        Some((_, known)) if known.same(exporter.out(number)) && !again => {}
                        Some((place, _)) => put(number, *place),
                        None => {
                            let fresh = (1..).find(|number| used.insert(*number)).expect("fewer paths");
                            let place =
                                Place { slot: id, from: one.peer, path_id: one.path_id, number: fresh };
                            put(number, place);
                        }
                    }
                }
                continue;
            }
            let wanted = slot
                .best()
                .and_then(|best| exporter.export(slot.prefix, best, &mut self.attributes).ok())
                .map(|number| (number, exporter.out(number)));
            match (out.told(id), wanted) {
                (Some(_), None) => out.withdraw.push(Place::only(id)),
                (Some(told), Some((_, wanted))) if told.same(wanted) && !again => {}
                (Some(_) | None, Some((number, _))) => put(number, Place::only(id)),
                (None, None) => {}
            }
        }
        let groups = exporter.outs().into_iter().zip(places).filter(|(_, places)| !places.is_empty());
        out.groups.extend(groups.map(|(out, places)| Group { out, places }));
    }

    /// The candidates of a slot that can be used, the best first, then the best of the others, and so on.
    fn ranked<'a>(&self, slot: &'a Slot) -> Vec<&'a Candidate> {
        let mut rest: Vec<Contender<'_>> = self.contenders(slot).collect();
        let mut ranked = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let left = decide(rest.iter().copied(), self.rules(), |_, _| {});
            rest.retain(|one| left.iter().all(|ranked| ranked.index != one.index));
            ranked.extend(left.iter().map(|one| &slot.candidates[one.index]));
        }
        ranked
    }

    /// Tells a peer everything of a family once more (RFC 2918 §4). Without a session nothing happens.
    pub fn refresh(&mut self, peer: PeerId, family: Family) {
        let Some(out) = self.peers.get_mut(peer.0 as usize).and_then(|peer| peer.out.get_mut(&family)) else {
            return;
        };
        out.refresh();
        self.ready.insert(peer);
    }

    /// What the peer was told of a prefix: attributes and next hop.
    pub fn told(&self, peer: PeerId, prefix: Prefix) -> Option<(&Arc<Attributes>, NextHop)> {
        let family = prefix.family();
        let out = self.peers.get(peer.0 as usize)?.out.get(&family)?;
        let told = out.told(self.table(family).find(prefix)?)?;
        Some((&told.attributes, told.next_hop))
    }
}
