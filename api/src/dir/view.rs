// SPDX-License-Identifier: Apache-2.0
//! The objects in force, the log of what happened to them, and the watches that read the log.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::catalogue::Changes;
use super::document::{ObjectId, Stored};
use crate::kinds::KindId;
use crate::{Kind, List, ObjectKey, Problem, Problems, ResourceVersion, StoreError, WatchEvent};

/// How many events a store remembers, with their objects. A watch that is further behind lists again: copies of what
/// is in memory anyway.
pub(super) const LOG_DEPTH: usize = 256;

#[derive(Debug)]
pub(super) struct View {
    state: Mutex<State>,
    /// Number of the last event.
    head: watch::Sender<u64>,
    problems: watch::Sender<Arc<[Problem]>>,
    /// Distinguishes the revisions of this store from those of any other.
    epoch: u64,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectId, Stored>,
    log: VecDeque<Logged>,
    /// Number of the last event; the log ends with it.
    head: u64,
    lost: Option<Arc<io::Error>>,
}

#[derive(Debug)]
struct Logged {
    kind: KindId,
    change: Change,
    stored: Stored,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Added,
    Modified,
    Deleted,
}

/// What a watch finds in the log.
pub(super) enum Events<K> {
    /// The events after its place, up to this one.
    UpTo(u64, Vec<WatchEvent<K>>),
    /// The log begins behind its place.
    TooOld,
}

impl View {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            state: Mutex::default(),
            head: watch::Sender::new(0),
            problems: watch::Sender::new(Arc::from([])),
            epoch,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings in what a look at the files changed.
    pub(super) fn apply(&self, changes: Changes) {
        let mut state = self.state();
        let before = state.head;
        for id in changes.gone {
            if let Some(old) = state.objects.remove(&id) {
                state.log(id.kind, Change::Deleted, old);
            }
        }
        for (id, stored) in changes.put {
            let old = state.objects.insert(id.clone(), stored.clone());
            match old {
                None => state.log(id.kind, Change::Added, stored),
                Some(old) if old.version == stored.version => {}
                Some(old) if old.uid.is_some() && stored.uid.is_some() && old.uid != stored.uid => {
                    state.log(id.kind, Change::Deleted, old);
                    state.log(id.kind, Change::Added, stored);
                }
                Some(_) => state.log(id.kind, Change::Modified, stored),
            }
        }
        let head = state.head;
        drop(state);
        if head != before {
            self.head.send_replace(head);
        }
    }

    pub(super) fn set_problems(&self, problems: Vec<Problem>) {
        self.problems.send_if_modified(|known| {
            let is_new = **known != *problems;
            if is_new {
                problems.iter().filter(|problem| !known.contains(problem)).for_each(|problem| {
                    tracing::warn!(%problem, "object is not as it should be");
                });
                *known = problems.into();
            }
            is_new
        });
    }

    pub(super) fn problems(&self) -> Problems {
        self.problems.subscribe()
    }

    /// Says whether the directory is there.
    pub(super) fn set_lost(&self, lost: Option<Arc<io::Error>>) {
        self.state().lost = lost;
    }

    pub(super) fn get<K: Kind>(&self, key: &ObjectKey) -> Result<Option<K>, StoreError> {
        let state = self.state();
        state.check()?;
        Ok(state.objects.get(&ObjectId::of::<K>(key)).and_then(Stored::typed))
    }

    pub(super) fn list<K: Kind>(&self) -> Result<List<K>, StoreError> {
        let state = self.state();
        state.check()?;
        let kind = KindId::of::<K>();
        let first = ObjectId { kind, key: ObjectKey::cluster("") };
        let items = state.objects.range(first..).take_while(|(id, _)| id.kind == kind);
        let items = items.filter_map(|(_, stored)| stored.typed()).collect();
        Ok(List { items, revision: self.revision(state.head) })
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.state().check()
    }

    /// The version of the list of objects after this many events.
    pub(super) fn revision(&self, events: u64) -> ResourceVersion {
        ResourceVersion::new(format!("{:016x}.{events}", self.epoch))
    }

    /// How many events there were at a version that this store gave out.
    pub(super) fn place_of(&self, revision: &ResourceVersion) -> Option<u64> {
        let (epoch, events) = revision.as_str().split_once('.')?;
        let events = events.parse().ok()?;
        (u64::from_str_radix(epoch, 16) == Ok(self.epoch) && events <= self.state().head).then_some(events)
    }

    /// Tells of every new event.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The events of a kind after the first `place` ones.
    pub(super) fn events<K: Kind>(&self, place: u64) -> Events<K> {
        let state = self.state();
        let behind = usize::try_from(state.head - place).unwrap_or(usize::MAX);
        let Some(start) = state.log.len().checked_sub(behind) else { return Events::TooOld };
        let kind = KindId::of::<K>();
        let news = state.log.range(start..).filter(|logged| logged.kind == kind);
        let events = news.filter_map(|logged| {
            let object = logged.stored.typed()?;
            Some(match logged.change {
                Change::Added => WatchEvent::Added(object),
                Change::Modified => WatchEvent::Modified(object),
                Change::Deleted => WatchEvent::Deleted(object),
            })
        });
        Events::UpTo(state.head, events.collect())
    }
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        match &self.lost {
            None => Ok(()),
            Some(error) => Err(StoreError::Unavailable {
                doing: "read the object directory",
                source: Box::new(Arc::clone(error)),
            }),
        }
    }

    fn log(&mut self, kind: KindId, change: Change, stored: Stored) {
        if self.log.len() == LOG_DEPTH {
            self.log.pop_front();
        }
        self.log.push_back(Logged { kind, change, stored });
        self.head += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    fn put(view: &View, version: &str, uid: &str) {
        let id = ObjectId::of::<Namespace>(&ObjectKey::cluster("a"));
        let object = Arc::new(Namespace::default());
        let stored = Stored { version: version.to_owned(), uid: Some(uid.to_owned()), object };
        view.apply(Changes { put: vec![(id, stored)], gone: Vec::new() });
    }

    #[test]
    fn an_object_made_anew_under_the_same_name_is_another() {
        let view = View::new(1);
        put(&view, "1-0", "x");
        put(&view, "1-0", "x");
        put(&view, "2-0", "x");
        put(&view, "1-1", "y");
        let Events::UpTo(4, events) = view.events::<Namespace>(0) else { panic!("four events") };
        let object = Namespace::default;
        assert_eq!(
            events,
            [
                WatchEvent::Added(object()),
                WatchEvent::Modified(object()),
                WatchEvent::Deleted(object()),
                WatchEvent::Added(object()),
            ]
        );
    }
}
