// SPDX-License-Identifier: Apache-2.0
//! List, watch, and list again when the watch lost its place: one stream that never misses a change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tracing::{debug, warn};

use crate::{Kind, ObjectKey, ResourceVersion, Store, StoreError, WatchError, WatchEvent, WatchStream};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What became known of the objects of a kind.
#[derive(Debug)]
pub enum Update<K> {
    /// These are all objects. Comes first, and again whenever changes may have been missed.
    Snapshot(Vec<K>),
    /// The object is new or changed.
    Put(K),
    /// The object is gone; this is how it was last.
    Delete(K),
    /// The store cannot be read now. What was told stays true as far as anyone knows; more follows when it is back.
    Stalled(StoreError),
}

impl<K: Kind> Update<K> {
    /// Brings a table up to date.
    pub fn apply(self, table: &mut BTreeMap<ObjectKey, K>) {
        match self {
            Update::Snapshot(objects) => {
                *table = objects.into_iter().map(|object| (object.key(), object)).collect();
            }
            Update::Put(object) => drop(table.insert(object.key(), object)),
            Update::Delete(object) => drop(table.remove(&object.key())),
            Update::Stalled(_) => {}
        }
    }
}

/// The objects of a kind, from now on; ends only by being dropped. There is no task behind it: it works when polled.
pub struct Follow<K> {
    updates: BoxStream<'static, Update<K>>,
}

impl<K> Stream for Follow<K> {
    type Item = Update<K>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update<K>>> {
        self.updates.poll_next_unpin(context)
    }
}

impl<K> std::fmt::Debug for Follow<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

/// Follows the objects of a kind: a snapshot first, then every change.
pub fn follow<K: Kind, S: Store>(store: &S) -> Follow<K> {
    let follower = Follower { store: store.clone(), place: Place::Lost, retry: FIRST_RETRY };
    let updates = stream::unfold(follower, |mut follower| async move {
        let update = follower.next().await;
        Some((update, follower))
    });
    Follow { updates: updates.boxed() }
}

/// Where in the history of the objects the follower is.
enum Place<K> {
    Lost,
    At(ResourceVersion),
    Watching(WatchStream<K>, ResourceVersion),
    Waiting(Box<Place<K>>),
}

struct Follower<K, S> {
    store: S,
    place: Place<K>,
    retry: Duration,
}

impl<K: Kind, S: Store> Follower<K, S> {
    /// Goes on to the next update. `place` is whole before every await, so that a dropped call loses nothing.
    async fn next(&mut self) -> Update<K> {
        loop {
            match &mut self.place {
                Place::Lost => match self.store.list::<K>().await {
                    Ok(list) => {
                        self.retry = FIRST_RETRY;
                        self.place = Place::At(list.revision);
                        return Update::Snapshot(list.items);
                    }
                    Err(error) => return self.stall(error, Place::Lost),
                },
                Place::At(revision) => match self.store.watch::<K>(revision).await {
                    Ok(events) => self.place = Place::Watching(events, revision.clone()),
                    Err(error) => {
                        let place = Place::At(revision.clone());
                        return self.stall(error, place);
                    }
                },
                Place::Watching(events, reached) => match events.next().await {
                    Some(Ok(event)) => {
                        self.retry = FIRST_RETRY;
                        match event {
                            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                                return Update::Put(object);
                            }
                            WatchEvent::Deleted(object) => return Update::Delete(object),
                            WatchEvent::Bookmark(revision) => *reached = revision,
                        }
                    }
                    Some(Err(WatchError::TooOld)) => {
                        debug!(kind = K::KIND, "watch fell behind, listing again");
                        self.place = Place::Lost;
                    }
                    Some(Err(WatchError::Ended(error))) => {
                        let place = Place::At(reached.clone());
                        return self.stall(error, place);
                    }
                    None => self.place = Place::Waiting(Box::new(Place::At(reached.clone()))),
                },
                Place::Waiting(then) => {
                    tokio::time::sleep(self.retry).await;
                    self.retry = (self.retry * 2).min(LAST_RETRY);
                    self.place = std::mem::replace(then, Place::Lost);
                }
            }
        }
    }

    fn stall(&mut self, error: StoreError, then: Place<K>) -> Update<K> {
        warn!(kind = K::KIND, error = &error as &dyn std::error::Error, "objects cannot be read");
        self.place = Place::Waiting(Box::new(then));
        Update::Stalled(error)
    }
}
