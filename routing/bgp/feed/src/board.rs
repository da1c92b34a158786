// SPDX-License-Identifier: Apache-2.0
//! What the speaker says of itself, for any number of readers. A slow reader is never given a queue: it is noted what it
//! has not seen, and it is told the newest of it when it can hear again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use rhumb_model::Prefix;
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
    learned: BTreeMap<(String, Prefix), Learned>,
    readers: BTreeMap<u64, Unseen>,
    next_reader: u64,
}

/// What a reader has not seen.
#[derive(Debug, Default)]
struct Unseen {
    peers: BTreeSet<PeerKey>,
    learned: BTreeSet<(String, Prefix)>,
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
            inner.note(|unseen| unseen.peers.insert(key.clone()));
            self.changed.send_replace(());
        }
    }

    /// A peer is none any more.
    pub fn remove_peer(&self, key: &PeerKey) {
        let mut inner = self.lock();
        if inner.peers.remove(key).is_some() {
            inner.note(|unseen| unseen.peers.insert(key.clone()));
            self.changed.send_replace(());
        }
    }

    /// So a prefix is reached now.
    pub fn put_learned(&self, learned: Learned) {
        let mut inner = self.lock();
        let key = (learned.instance.clone(), learned.prefix);
        if inner.learned.get(&key) != Some(&learned) {
            inner.learned.insert(key.clone(), learned);
            inner.note(|unseen| unseen.learned.insert(key.clone()));
            self.changed.send_replace(());
        }
    }

    /// A prefix is not reached any more.
    pub fn remove_learned(&self, instance: &str, prefix: Prefix) {
        let mut inner = self.lock();
        let key = (instance.to_owned(), prefix);
        if inner.learned.remove(&key).is_some() {
            inner.note(|unseen| unseen.learned.insert(key.clone()));
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
            learned: inner.learned.keys().cloned().collect(),
        };
        inner.readers.insert(number, unseen);
        Reader { board: self.clone(), number, changed: self.changed.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the board")
    }
}

impl Inner {
    fn note(&mut self, note: impl Fn(&mut Unseen) -> bool) {
        for unseen in self.readers.values_mut() {
            note(unseen);
        }
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
            && let Some(key) = unseen.learned.pop_first()
        {
            changes.push(match learned.get(&key) {
                Some(learned) => StateChange::Learned(learned.clone()),
                None => StateChange::LearnedGone { instance: key.0, prefix: key.1 },
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
