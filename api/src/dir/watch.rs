// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use tokio::sync::watch;

use super::scanner::Scanner;
use super::view::{Events, LOG_DEPTH};
use crate::{Kind, ResourceVersion, WatchError, WatchEvent, WatchStream};

/// A watch gets a bookmark at the latest after this many events of other kinds, so that it can be resumed.
const BOOKMARK_EVERY: u64 = LOG_DEPTH as u64 / 4;

struct Watch<K> {
    scanner: Arc<Scanner>,
    news: watch::Receiver<u64>,
    /// Events of all kinds that were passed.
    place: u64,
    bookmarked: u64,
    ready: VecDeque<WatchEvent<K>>,
}

/// Reads the log of a store from a version on. It keeps the store alive.
pub(super) fn watch<K: Kind>(scanner: Arc<Scanner>, from: &ResourceVersion) -> WatchStream<K> {
    let view = scanner.view();
    let news = view.subscribe();
    let Some(place) = view.place_of(from) else {
        return stream::once(async { Err(WatchError::TooOld) }).boxed();
    };
    let watch = Watch { scanner, news, place, bookmarked: place, ready: VecDeque::new() };
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(event) => Some((Ok(event), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl<K: Kind> Watch<K> {
    async fn next(&mut self) -> Result<WatchEvent<K>, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.news.mark_unchanged();
            match self.scanner.view().events(self.place) {
                Events::TooOld => return Err(WatchError::TooOld),
                Events::UpTo(place, events) => {
                    self.place = place;
                    if !events.is_empty() || place - self.bookmarked >= BOOKMARK_EVERY {
                        self.bookmarked = place;
                        self.ready = events.into();
                        let revision = self.scanner.view().revision(place);
                        self.ready.push_back(WatchEvent::Bookmark(revision));
                        continue;
                    }
                }
            }
            // The sender lives in the store, which this watch keeps alive.
            self.news.changed().await.expect("the store outlives its watches");
        }
    }
}
