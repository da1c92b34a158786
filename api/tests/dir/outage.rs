// SPDX-License-Identifier: Apache-2.0
//! The directory is away, or a writer died.

use std::fs;

use futures::{FutureExt, StreamExt};
use rhumb_api::{DirStore, Namespace, Store, StoreError, Update, follow};

use crate::room::{Room, key, namespace, problems, short, soon, update, value, watch};

#[tokio::test]
async fn a_directory_that_is_not_there_cannot_be_opened() {
    let room = Room::new();
    let error = DirStore::open(room.path().join("absent")).await.expect_err("absent");
    assert!(error.is_retryable(), "{error}");
    assert_eq!(error.to_string(), "open the object directory");
}

#[tokio::test]
async fn a_directory_that_goes_and_returns_removes_nothing() {
    let room = Room::new();
    for i in 0..20 {
        room.write(&format!("n{i}.yaml"), namespace(&format!("n{i}"), "1"));
    }
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    fs::remove_dir_all(room.path().join("objects")).expect("removed");
    let found = problems(&store, |problems| !problems.is_empty()).await;
    assert!(found[0].message.contains("the directory is not there"), "{found:?}");
    let note = |_: &mut Namespace| {};
    for result in [
        store.list::<Namespace>().await.map(|_| ()),
        store.get::<Namespace>(&key("n1")).await.map(|_| ()),
        store.modify(&key("n1"), note).await.map(|_: Namespace| ()),
        store.delete::<Namespace>(&key("n1"), None).await,
    ] {
        assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
    }
    // It is filled file by file, and one object is another.
    for i in (1..20).rev() {
        room.write(&format!("n{i}.yaml"), namespace(&format!("n{i}"), if i == 7 { "2" } else { "1" }));
    }
    problems(&store, <[_]>::is_empty).await;
    // Changed is told, then what is really gone; of all others nothing.
    assert_eq!(short(&mut events).await, "~n7 2");
    assert_eq!(short(&mut events).await, "-n0 1");
    assert_eq!(store.list::<Namespace>().await.expect("listed").items.len(), 19);
    assert!(soon(events.next()).await.is_some_and(|event| event.is_ok()), "a bookmark");
    assert!(events.next().now_or_never().is_none());
}

#[tokio::test]
async fn an_empty_directory_in_place_of_a_full_one_is_not_believed() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "1"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    fs::rename(room.path().join("objects"), room.path().join("aside")).expect("renamed");
    fs::create_dir(room.path().join("objects")).expect("made");
    problems(&store, |problems| !problems.is_empty()).await;
    let mut object = Namespace::default();
    object.metadata.name = Some("b".to_owned());
    let error = store.create(&object).await.expect_err("not the directory");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    fs::remove_dir(room.path().join("objects")).expect("empty");
    fs::rename(room.path().join("aside"), room.path().join("objects")).expect("renamed");
    problems(&store, <[_]>::is_empty).await;
    room.write("b.yaml", namespace("b", "2"));
    assert_eq!(short(&mut events).await, "+b 2");
}

#[tokio::test]
async fn what_a_dead_writer_left_is_not_read_and_is_cleaned_up() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "old"));
    room.write(".rhumb-new-1-0", namespace("a", "new"));
    room.write(".rhumb-deleted-1-1", namespace("b", "gone"));
    let store = room.open().await;
    assert_eq!(room.names(), [".lock", "a.yaml"]);
    let items = store.list::<Namespace>().await.expect("listed").items;
    assert_eq!(items.iter().map(value).collect::<Vec<_>>(), ["old"]);
}

#[tokio::test]
async fn a_follower_says_that_it_is_stalled_and_goes_on_where_it_was() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "1"));
    let store = room.open().await;
    let (objects, aside) = (room.objects(), room.path().join("aside"));
    let mut early = follow::<Namespace, _>(&store);
    assert!(matches!(update(&mut early).await, Update::Snapshot(objects) if objects.len() == 1));
    fs::rename(&objects, &aside).expect("renamed");
    problems(&store, |problems| !problems.is_empty()).await;
    let mut late = follow::<Namespace, _>(&store);
    assert!(matches!(update(&mut early).await, Update::Stalled(_)));
    assert!(matches!(update(&mut late).await, Update::Stalled(_)));
    fs::write(aside.join("b.yaml"), namespace("b", "2")).expect("written");
    fs::rename(&aside, &objects).expect("renamed");
    problems(&store, <[_]>::is_empty).await;
    let put = update(&mut early).await;
    assert!(matches!(&put, Update::Put(object) if value(object) == "2"), "{put:?}");
    assert!(matches!(update(&mut late).await, Update::Snapshot(objects) if objects.len() == 2));
}
