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

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rhumb_model::{Family, Prefix};

use super::Rib;
use super::advertise::{Exporter, Out};
use super::peer::PeerId;
use super::table::{Dirty, SlotId, Table};
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
    /// What the peer was told, by slot.
    told: Vec<Option<Arc<Out>>>,
    advertised: u32,
    dirty: Dirty,
    /// Slots to be told even if nothing changed.
    again: BTreeSet<SlotId>,
    withdraw: Vec<SlotId>,
    groups: VecDeque<Group>,
    end_owed: bool,
    refresh: Refresh,
}

#[derive(Debug)]
struct Group {
    out: Arc<Out>,
    slots: Vec<SlotId>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    #[default]
    None,
    Asked,
    Begun,
}

impl AdjOut {
    /// For a new session: everything is to be told, then the end.
    pub(super) fn new(table: &Table) -> Self {
        let mut adj_out = Self { end_owed: true, ..Self::default() };
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

    /// What the peer was told of the slot.
    pub(super) fn told(&self, id: SlotId) -> Option<&Arc<Out>> {
        self.told.get(id as usize)?.as_ref()
    }

    /// Whether no slot is waiting: none of its numbers is held but those that were told.
    pub(super) fn is_idle(&self) -> bool {
        self.dirty.is_empty() && self.groups.is_empty() && self.withdraw.is_empty()
    }

    /// Tells everything once more.
    fn refresh(&mut self) {
        for id in 0..SlotId::try_from(self.told.len()).expect("as many as slots") {
            if self.told(id).is_some() {
                self.again.insert(id);
                self.dirty.insert(id);
            }
        }
        self.refresh = Refresh::Asked;
    }

    fn set(&mut self, id: SlotId, out: Option<Arc<Out>>) {
        if self.told.len() <= id as usize {
            self.told.resize(id as usize + 1, None);
        }
        let told = &mut self.told[id as usize];
        self.advertised += u32::from(out.is_some());
        self.advertised -= u32::from(told.is_some());
        *told = out;
        if !self.again.is_empty() {
            self.again.remove(&id);
        }
    }

    /// The next message of what was compared. What changed since waits for the next comparison.
    fn pop(&mut self, family: Family, table: &Table) -> Option<Outgoing> {
        let nlri = |id: SlotId| Nlri::from(table.slot(id).prefix);
        let mut gone = std::mem::take(&mut self.withdraw);
        gone.retain(|id| !self.dirty.contains(*id));
        if !gone.is_empty() {
            for id in &gone {
                self.set(*id, None);
            }
            return Some(Outgoing::Withdraw { family, nlri: gone.into_iter().map(nlri).collect() });
        }
        while let Some(Group { out, mut slots }) = self.groups.pop_front() {
            slots.retain(|id| !self.dirty.contains(*id));
            if slots.is_empty() {
                continue;
            }
            for id in &slots {
                self.set(*id, Some(out.clone()));
            }
            let (attributes, next_hop) = (out.attributes.clone(), out.next_hop);
            let nlri = slots.into_iter().map(nlri).collect();
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
        let mut slots: Vec<Vec<SlotId>> = Vec::new();
        for _ in 0..BATCH {
            let Some(id) = out.dirty.pop() else { break };
            let slot = table.slot(id);
            let wanted = slot
                .best()
                .and_then(|best| exporter.export(slot.prefix, best, &mut self.attributes).ok())
                .map(|number| (number, exporter.out(number)));
            match (out.told(id), wanted) {
                (Some(_), None) => out.withdraw.push(id),
                (Some(told), Some((_, wanted))) if told.same(wanted) && !out.again.contains(&id) => {}
                (Some(_) | None, Some((number, _))) => {
                    if slots.len() <= number {
                        slots.resize_with(number + 1, Vec::new);
                    }
                    slots[number].push(id);
                }
                (None, None) => {}
            }
        }
        let groups = exporter.outs().into_iter().zip(slots).filter(|(_, slots)| !slots.is_empty());
        out.groups.extend(groups.map(|(out, slots)| Group { out, slots }));
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
