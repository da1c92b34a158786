// SPDX-License-Identifier: Apache-2.0
//! Watching, resuming, and following.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt};
use rhumb_api::{
    Kind, Namespace, ObjectKey, PodPool, ResourceVersion, Store, Update, WatchError, WatchEvent, follow,
};

use crate::room::{Room, event, key, namespace, short, soon, update, watch};

fn labelled(name: &str, value: &str) -> Namespace {
    let mut object = Namespace::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.labels = Some([("value".to_owned(), value.to_owned())].into());
    object
}

#[tokio::test]
async fn a_watch_tells_of_every_change_in_order() {
    let room = Room::new();
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    store.create(&labelled("a", "1")).await.expect("created");
    let relabel = |namespace: &mut Namespace| namespace.metadata.labels = labelled("a", "2").metadata.labels;
    store.modify(&key("a"), relabel).await.expect("updated");
    store.delete::<Namespace>(&key("a"), None).await.expect("deleted");
    store.create(&labelled("a", "3")).await.expect("created");
    for wanted in ["+a 1", "~a 2", "-a 2", "+a 3"] {
        assert_eq!(short(&mut events).await, wanted);
    }
}

#[tokio::test]
async fn a_watch_resumes_from_a_bookmark() {
    let room = Room::new();
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    store.create(&labelled("a", "1")).await.expect("created");
    let bookmark = loop {
        if let Ok(WatchEvent::Bookmark(version)) = soon(events.next()).await.expect("goes on") {
            break version;
        }
    };
    drop(events);
    store.create(&labelled("b", "2")).await.expect("created");
    let mut events = store.watch::<Namespace>(&bookmark).await.expect("watched");
    assert_eq!(short(&mut events).await, "+b 2");
}

#[tokio::test]
async fn a_version_that_the_log_does_not_reach_is_too_old() {
    let room = Room::new();
    let store = room.open().await;
    let old = store.list::<PodPool>().await.expect("listed").revision;
    let other = room.open().await.list::<PodPool>().await.expect("listed").revision;
    let mut events = watch::<Namespace>(&store).await;
    let many: Vec<String> = (0..5000).map(|i| namespace(&format!("n{i}"), "x")).collect();
    room.write("many.yaml", many.join("---\n"));
    let lagging = soon(events.next()).await.expect("an answer");
    assert!(matches!(lagging, Err(WatchError::TooOld)), "{lagging:?}");
    assert!(events.next().await.is_none());
    for version in [&old, &other, &ResourceVersion::new("12345"), &ResourceVersion::new("0.1")] {
        let mut events = store.watch::<PodPool>(version).await.expect("watched");
        assert!(matches!(event(&mut events).await, Err(WatchError::TooOld)), "{version}");
    }
}

#[tokio::test]
async fn following_gives_a_snapshot_and_then_every_change() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "1"));
    let store = room.open().await;
    let mut table: BTreeMap<ObjectKey, Namespace> = BTreeMap::new();
    let mut updates = follow::<Namespace, _>(&store);
    let snapshot = update(&mut updates).await;
    assert!(matches!(&snapshot, Update::Snapshot(objects) if objects.len() == 1), "{snapshot:?}");
    snapshot.apply(&mut table);
    assert!(updates.next().now_or_never().is_none(), "nothing more happened");
    store.create(&labelled("b", "2")).await.expect("created");
    update(&mut updates).await.apply(&mut table);
    assert_eq!(table.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    store.delete::<Namespace>(&key("a"), None).await.expect("deleted");
    let gone = update(&mut updates).await;
    assert!(matches!(&gone, Update::Delete(object) if object.key() == key("a")), "{gone:?}");
    gone.apply(&mut table);
    assert_eq!(table.len(), 1);
}

#[tokio::test]
async fn a_follower_that_fell_behind_gets_a_new_snapshot() {
    let room = Room::new();
    let store = room.open().await;
    let mut updates = follow::<Namespace, _>(&store);
    assert!(matches!(update(&mut updates).await, Update::Snapshot(objects) if objects.is_empty()));
    let many: Vec<String> = (0..5000).map(|i| namespace(&format!("n{i}"), "x")).collect();
    room.write("many.yaml", many.join("---\n"));
    let next = update(&mut updates).await;
    assert!(matches!(&next, Update::Snapshot(objects) if objects.len() == 5000));
}

#[tokio::test]
async fn a_follower_that_is_polled_in_pieces_loses_nothing() {
    let room = Room::new();
    let store = room.open().await;
    let mut updates = follow::<Namespace, _>(&store);
    let mut table = BTreeMap::new();
    for i in 0..50 {
        // A poll that is given up in the middle, as select! does.
        if let Some(Some(update)) = updates.next().now_or_never() {
            update.apply(&mut table);
        }
        store.create(&labelled(&format!("n{i}"), "x")).await.expect("created");
    }
    while table.len() < 50 {
        update(&mut updates).await.apply(&mut table);
    }
}
