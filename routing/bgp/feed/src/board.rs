// SPDX-License-Identifier: Apache-2.0
//! What the speaker says of itself, for any number of readers. A slow reader is never given a queue: it is noted what it
//! has not seen, and it is told the newest of it when it can hear again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use rhumb_model::{IfName, Prefix};
use tokio::sync::watch;

use crate::protocol::StateChange;
use crate::{Learned, PeerKey, PeerState};

/// Changes that are told at once: some ten kilobytes.
const BATCH: usize = 256;

/// Where the speaker's owner writes. Clones are the same board.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    peers: BTreeMap<PeerKey, PeerState>,
    /// By instance and prefix. Of a full table most ways are the same few.
    learned: BTreeMap<String, BTreeMap<Prefix, Arc<Way>>>,
    readers: BTreeMap<u64, Unseen>,
    next_reader: u64,
}

/// What a reader has not seen.
#[derive(Debug, Default)]
struct Unseen {
    peers: BTreeSet<PeerKey>,
    learned: BTreeMap<String, BTreeSet<Prefix>>,
}

/// Where packets go, and who says so: what a [`Learned`] is without its prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// As in [`Learned`].
    pub gateways: Vec<(IpAddr, Option<IfName>)>,
    /// As in [`Learned`].
    pub peers: Vec<PeerKey>,
}

impl Default for Board {
    fn default() -> Self {
        Self { inner: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Board {
    /// So it stands with a peer now.
    pub fn put_peer(&self, state: PeerState) {
        let mut inner = self.lock();
        if inner.peers.get(&state.key) != Some(&state) {
            let key = state.key.clone();
            inner.peers.insert(key.clone(), state);
            inner.note(|unseen| {
                unseen.peers.insert(key.clone());
            });
            self.changed.send_replace(());
        }
    }

    /// A peer is none any more.
    pub fn remove_peer(&self, key: &PeerKey) {
        let mut inner = self.lock();
        if inner.peers.remove(key).is_some() {
            inner.note(|unseen| {
                unseen.peers.insert(key.clone());
            });
            self.changed.send_replace(());
        }
    }

    /// So a prefix is reached now. Prefixes that are reached alike share the way.
    pub fn put_learned(&self, instance: &str, prefix: Prefix, way: &Arc<Way>) {
        let mut inner = self.lock();
        let learned = match inner.learned.get_mut(instance) {
            Some(learned) => learned,
            None => inner.learned.entry(instance.to_owned()).or_default(),
        };
        let same = |known: &Arc<Way>| Arc::ptr_eq(known, way) || known == way;
        if !learned.get(&prefix).is_some_and(same) {
            learned.insert(prefix, way.clone());
            inner.note(|unseen| unseen.note_learned(instance, prefix));
            self.changed.send_replace(());
        }
    }

    /// A prefix is not reached any more.
    pub fn remove_learned(&self, instance: &str, prefix: Prefix) {
        let mut inner = self.lock();
        let Some(learned) = inner.learned.get_mut(instance) else { return };
        if learned.remove(&prefix).is_some() {
            if learned.is_empty() {
                inner.learned.remove(instance);
            }
            inner.note(|unseen| unseen.note_learned(instance, prefix));
            self.changed.send_replace(());
        }
    }

    /// All peers as they are now, by key.
    pub fn peers(&self) -> Vec<PeerState> {
        self.lock().peers.values().cloned().collect()
    }

    /// A reader that has not seen anything.
    pub(crate) fn reader(&self) -> Reader {
        let mut inner = self.lock();
        let number = inner.next_reader;
        inner.next_reader += 1;
        let unseen = Unseen {
            peers: inner.peers.keys().cloned().collect(),
            learned: inner
                .learned
                .iter()
                .map(|(instance, learned)| (instance.clone(), learned.keys().copied().collect()))
                .collect(),
        };
        inner.readers.insert(number, unseen);
        Reader { board: self.clone(), number, changed: self.changed.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the board")
    }
}

impl Inner {
    fn note(&mut self, note: impl Fn(&mut Unseen)) {
        for unseen in self.readers.values_mut() {
            note(unseen);
        }
    }
}

impl Unseen {
    fn note_learned(&mut self, instance: &str, prefix: Prefix) {
        match self.learned.get_mut(instance) {
            Some(prefixes) => prefixes.insert(prefix),
            None => self.learned.entry(instance.to_owned()).or_default().insert(prefix),
        };
    }

    fn pop_learned(&mut self) -> Option<(String, Prefix)> {
        let mut first = self.learned.first_entry()?;
        let prefix = first.get_mut().pop_first();
        let instance = first.key().clone();
        if first.get().is_empty() {
            first.remove();
        }
        Some((instance, prefix?))
    }
}

/// Reads a board.
#[derive(Debug)]
pub(crate) struct Reader {
    board: Board,
    number: u64,
    changed: watch::Receiver<()>,
}

impl Reader {
    /// Some of what this reader has not seen; empty when it has seen everything.
    pub(crate) fn take(&self) -> Vec<StateChange> {
        let mut inner = self.board.lock();
        let Inner { peers, learned, readers, .. } = &mut *inner;
        let Some(unseen) = readers.get_mut(&self.number) else { return Vec::new() };
        let mut changes = Vec::new();
        while changes.len() < BATCH
            && let Some(key) = unseen.peers.pop_first()
        {
            changes.push(match peers.get(&key) {
                Some(state) => StateChange::Peer(Box::new(state.clone())),
                None => StateChange::PeerGone(key),
            });
        }
        while changes.len() < BATCH
            && let Some((instance, prefix)) = unseen.pop_learned()
        {
            let way = learned.get(&instance).and_then(|learned| learned.get(&prefix));
            changes.push(match way.map(Arc::as_ref) {
                Some(Way { gateways, peers }) => {
                    let (gateways, peers) = (gateways.clone(), peers.clone());
                    StateChange::Learned(Learned { instance, prefix, gateways, peers })
                }
                None => StateChange::LearnedGone { instance, prefix },
            });
        }
        changes
    }

    /// Waits until there may be something new. Nothing is lost when this is not waited for to its end.
    pub(crate) async fn changed(&mut self) {
        // The board lives as long as this reader, so there always is a sender.
        drop(self.changed.changed().await);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.board.lock().readers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
