// SPDX-License-Identifier: Apache-2.0
//! Routes of all peers and of this node, which of them are best, and what every peer is to be told.
//!
//! ```text
//!   peer ─ update ─► checks, import policy ─► candidates of a prefix ◄─ set_local ─ this node
//!                                                    │ decision
//!                            changes ◄───────────────┼──────────────► dirty sets, one per peer and family
//!                          (the kernel)                                  │ export policy
//!                                                                        ▼
//!                                                                    next_update ─► peer
//! ```
//! There is no clock and no I/O in here. Whoever owns a [`Rib`] calls [`Rib::changes`] and [`Rib::next_update`] until
//! they have nothing more to say; until then, numbers of prefixes that are gone are not used again.
//!
//! **Invariant:** applying everything that [`Rib::next_update`] returned for a session gives exactly what a new
//! session would be told, whatever happened in between; and nothing of it repeats what the peer knows.

mod adj_out;
mod advertise;
mod decision;
mod hash;
mod hops;
mod local;
mod monitor;
mod path;
mod peer;
mod receive;
#[cfg(test)]
mod sample;
mod session;
mod table;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhumb_bgp_feed::PeerKey;
use rhumb_model::{Family, Prefix};

use crate::policy::Policy;
use crate::wire::{Asn, Attributes, RouterId};
use decision::{Contender, Rules, Source, decide};
use hops::Hops;
use monitor::Stations;
use path::{Interned, Path};
use peer::Peer;
use receive::Import;
use table::{Slot, SlotId, Table};

pub use adj_out::Outgoing;
pub use decision::Step;
pub(crate) use monitor::{Monitored, StationId};
pub use path::{Forward, Hop};
pub use peer::{Counts, Handling, Leave, OwnAddresses, PeerId, PeerInfo};
pub use receive::TooManyPrefixes;

/// What holds for a speaker as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: RouterId,
    /// Our cluster, for routes that are reflected (RFC 4456 §7).
    pub cluster_id: RouterId,
    /// Whether some peer is a client: a route of our own cluster is a loop for a reflector alone (RFC 4456 §8).
    pub reflects: bool,
    /// How many equal routes packets are spread over; 0 counts as 1.
    pub multipath: u8,
    /// Whether MED is compared between routes of different neighbouring systems (RFC 4271 §9.1.2.2 c says no).
    pub always_compare_med: bool,
    /// Blocks of this node: nothing inside of them is accepted from a peer.
    pub own: Vec<Prefix>,
    /// Whether next hops have to be found by [`Rib::set_next_hops`] before routes by them are used. Without, packets
    /// are taken to get to every next hop: for speakers that put no routes into the kernel.
    pub track_next_hops: bool,
}

/// What the kernel is to do with a prefix from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: Prefix,
    /// `None`: nothing, by our doing.
    pub forward: Option<Arc<Forward>>,
}

/// The routes of a speaker.
#[derive(Debug)]
pub struct Rib {
    settings: Settings,
    keys: BTreeMap<PeerKey, PeerId>,
    peers: Vec<Peer>,
    tables: [Table; 2],
    hops: Hops,
    attributes: Interned<Attributes>,
    forwards: Interned<Forward>,
    /// The forward by one next hop alone, which most routes have.
    by_hop: BTreeMap<Hop, Arc<Forward>>,
    local: BTreeMap<Prefix, rhumb_bgp_feed::LocalRoute>,
    /// Peers that have something to be told since they were last asked for.
    ready: BTreeSet<PeerId>,
    /// Whether End-of-RIB may be told.
    synced: bool,
    stations: Stations,
    /// What was last made of a received path, during one call.
    import: Option<Import>,
}

/// What was best before.
type Before = (PeerId, u32, Arc<Path>);

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn best_of(slot: &Slot) -> Option<Before> {
    let best = slot.best()?;
    Some((best.peer, best.path_id, best.accepted.as_ref().ok()?.clone()))
}

impl Rib {
    /// Begins without routes and peers.
    pub fn new(settings: Settings) -> Self {
        Self {
            hops: Hops::new(!settings.track_next_hops),
            settings,
            keys: BTreeMap::new(),
            peers: Vec::new(),
            tables: [Table::default(), Table::default()],
            attributes: Interned::default(),
            forwards: Interned::default(),
            by_hop: BTreeMap::new(),
            local: BTreeMap::new(),
            ready: BTreeSet::new(),
            synced: false,
            stations: Stations::default(),
            import: None,
        }
    }

    /// The number of a peer; it is given on first use and stays.
    pub fn peer(&mut self, key: &PeerKey) -> PeerId {
        if let Some(id) = self.keys.get(key) {
            return *id;
        }
        let id = PeerId(u32::try_from(self.peers.len()).expect("fewer peers than numbers"));
        self.keys.insert(key.clone(), id);
        self.peers.push(Peer::new(key.clone()));
        id
    }

    /// The name of a peer.
    pub fn key(&self, peer: PeerId) -> Option<&PeerKey> {
        self.peers.get(peer.0 as usize).map(|peer| &peer.key)
    }

    /// Changes what holds for the speaker as a whole; every route is judged once more. (With another AS or identifier
    /// sessions must be begun anew, which is the caller's to do.)
    pub fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        self.settings = settings;
        self.hops.assume(!self.settings.track_next_hops);
        for peer in self.ids() {
            self.import_again(peer);
            self.export_again(peer);
        }
        self.decide_all(|_| true);
    }

    /// Changes a peer's policies; what it means for routes that were received is found without asking the peer, and
    /// what it means for those that it was told is told.
    pub fn set_policy(
        &mut self,
        peer: PeerId,
        import: &rhumb_bgp_feed::Policy,
        export: &rhumb_bgp_feed::Policy,
    ) {
        let mut number = |key: &PeerKey| self.peer(key);
        let (import, export) = (Policy::new(import, &mut number), Policy::new(export, &mut number));
        let known = &mut self.peers[peer.0 as usize];
        if *known.import != import {
            known.import = Arc::new(import);
            self.import_again(peer);
        }
        if *self.peers[peer.0 as usize].export != export {
            self.peers[peer.0 as usize].export = Arc::new(export);
            self.export_again(peer);
        }
    }

    /// Says that nothing has to be waited for any more: peers may be told the end of what there is (RFC 4724 §4.1).
    pub fn set_synced(&mut self) {
        if !std::mem::replace(&mut self.synced, true) {
            self.ready.extend(self.ids().filter(|peer| !self.peers[peer.0 as usize].out.is_empty()));
        }
    }

    /// Peers with something to be told, each once: those for which [`Rib::next_update`] is to be called, when their
    /// sockets take more.
    pub fn ready(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.ready)
    }

    /// The next hops in use, if there are others than at the last call; each is to be looked up and told to
    /// [`Rib::set_next_hops`], now and whenever the kernel's links or routes change.
    pub fn next_hops(&mut self) -> Option<BTreeSet<Hop>> {
        self.hops.grown()
    }

    /// The next hops in use.
    pub fn all_next_hops(&self) -> BTreeSet<Hop> {
        self.hops.all()
    }

    /// Says which next hops packets get to, and how far each is. Routes by all others are not used.
    pub fn set_next_hops(&mut self, metrics: &BTreeMap<Hop, u32>) {
        let changed = self.hops.set(metrics);
        if !changed.is_empty() {
            self.decide_all(|path| path.hop.is_some_and(|hop| changed.contains(&hop)));
        }
    }

    /// What the kernel is to do otherwise than it was told by earlier calls, in the order in which it came.
    pub fn changes(&mut self) -> Vec<Change> {
        self.changes_up_to(usize::MAX)
    }

    /// The first of [`Rib::changes`], after a look at no more than so many prefixes; [`Rib::has_changes`] says whether
    /// there may be more.
    pub fn changes_up_to(&mut self, most: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut left = most;
        for family in Family::BOTH {
            while left > 0
                && let Some(id) = self.tables[index(family)].moved.pop()
            {
                left -= 1;
                let forward = self.forward_of(family, id);
                let slot = self.tables[index(family)].slot_mut(id);
                if slot.forward != forward {
                    changes.push(Change { prefix: slot.prefix, forward: forward.clone() });
                    slot.forward = forward;
                }
            }
        }
        self.reap();
        changes
    }

    /// Whether [`Rib::changes`] would look at anything.
    pub fn has_changes(&self) -> bool {
        self.tables.iter().any(|table| !table.moved.is_empty())
    }

    /// Everything that the kernel was told by [`Rib::changes`] and is still to do.
    pub fn forwards(&self) -> impl Iterator<Item = (Prefix, &Arc<Forward>)> {
        let slots = self.tables.iter().flat_map(Table::slots);
        slots.filter_map(|slot| Some((slot.prefix, slot.forward.as_ref()?)))
    }

    fn table(&self, family: Family) -> &Table {
        &self.tables[index(family)]
    }

    fn ids(&self) -> impl Iterator<Item = PeerId> + use<> {
        (0..u32::try_from(self.peers.len()).expect("as found by their insertion")).map(PeerId)
    }

    fn rules(&self) -> Rules {
        Rules { asn: self.settings.asn, always_compare_med: self.settings.always_compare_med }
    }

    /// The candidates of a slot that can be used.
    fn contenders<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = Contender<'a>> {
        slot.candidates.iter().enumerate().filter_map(|(index, one)| {
            let path = one.accepted.as_ref().ok()?;
            let metric = path.hop.map_or(Some(0), |hop| self.hops.metric(hop))?;
            let origin = match self.peers.get(one.peer.0 as usize).and_then(|peer| peer.info.as_ref()) {
                Some(info) => Source::Peer {
                    external: info.is_external(),
                    router_id: info.router_id,
                    address: info.address,
                },
                None => Source::Own,
            };
            Some(Contender { index, attributes: &path.attributes, origin, metric, path_id: one.path_id })
        })
    }

    /// Decides about a slot anew, and lets everybody know whom it concerns.
    fn decide(&mut self, family: Family, id: SlotId, before: Option<&Before>) {
        let slot = self.table(family).slot(id);
        let best = match slot.candidates.len() {
            0 => None,
            1 => self.contenders(slot).next().map(|one| one.index),
            _ => decide(self.contenders(slot), self.rules(), |_, _| {}).first().map(|one| one.index),
        };
        let table = &mut self.tables[index(family)];
        let slot = table.slot_mut(id);
        slot.best = best.map(|best| u32::try_from(best).expect("fewer candidates than numbers"));
        let after = slot.best().map(|best| (best.peer, best.path_id, best.accepted.as_ref().ok()));
        let same = match (before, after) {
            (None, None) => true,
            (Some(before), Some((peer, path_id, Some(path)))) => {
                (before.0, before.1) == (peer, path_id) && Arc::ptr_eq(&before.2, path)
            }
            (None, Some(_)) | (Some(_), None | Some((_, _, None))) => false,
        };
        let is_empty = slot.candidates.is_empty();
        table.moved.insert(id);
        if is_empty {
            table.emptied(id);
        }
        for (number, peer) in self.peers.iter_mut().enumerate() {
            if let Some(out) = peer.out.get_mut(&family)
                && (!same || out.tells_several())
                && out.mark(id)
            {
                self.ready.insert(PeerId(u32::try_from(number).expect("as found by their insertion")));
            }
        }
    }

    /// Decides anew about all slots that have a candidate by a path like this.
    fn decide_all(&mut self, wanted: impl Fn(&Path) -> bool) {
        for family in Family::BOTH {
            for id in self.table(family).ids() {
                let slot = self.table(family).slot(id);
                if slot.candidates.iter().any(|one| wanted(&one.received)) {
                    let before = best_of(slot);
                    self.decide(family, id, before.as_ref());
                }
            }
        }
    }

    /// The one copy of what the kernel is to do with packets to a slot's prefix.
    fn forward_of(&mut self, family: Family, id: SlotId) -> Option<Arc<Forward>> {
        let slot = self.tables[index(family)].slot(id);
        if let [only] = slot.candidates.as_slice()
            && let Ok(path) = &only.accepted
            && let Some(hop) = path.hop.filter(|_| !path.discard)
        {
            self.hops.metric(hop)?;
            let (hop, forwards) = (self.hops.hop(hop), &mut self.forwards);
            let forward = self.by_hop.entry(hop).or_insert_with(|| forwards.get(Forward::Via(vec![hop])));
            return Some(forward.clone());
        }
        let forward = self.forward(slot)?;
        Some(self.forwards.get(forward))
    }

    /// What the kernel is to do with packets to a slot's prefix.
    fn forward(&self, slot: &Slot) -> Option<Forward> {
        let left = decide(self.contenders(slot), self.rules(), |_, _| {});
        let path = |one: &Contender<'_>| slot.candidates[one.index].accepted.as_ref().ok();
        let best = path(left.first()?)?;
        if best.discard {
            return Some(Forward::Discard);
        }
        let mut hops = Vec::new();
        for hop in left.iter().filter_map(|one| path(one)?.hop).map(|hop| self.hops.hop(hop)) {
            if hops.len() < usize::from(self.settings.multipath.max(1)) && !hops.contains(&hop) {
                hops.push(hop);
            }
        }
        hops.sort_unstable();
        (!hops.is_empty()).then_some(Forward::Via(hops))
    }

    /// Gives back numbers of prefixes that nobody holds.
    fn reap(&mut self) {
        for family in Family::BOTH {
            let table = &mut self.tables[index(family)];
            let mut outs = self.peers.iter().filter_map(|peer| peer.out.get(&family));
            if table.has_emptied() && table.moved.is_empty() && outs.all(|out| out.is_idle()) {
                table.reap();
            }
        }
    }

    fn forget_unused_hops(&mut self) {
        let slots = self.tables.iter().flat_map(Table::slots).flat_map(|slot| &slot.candidates);
        let used = slots.filter_map(|one| one.received.hop).collect();
        self.hops.retain(&used);
        self.by_hop.clear();
    }
}

#[cfg(test)]
mod tests;
