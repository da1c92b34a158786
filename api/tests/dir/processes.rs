// SPDX-License-Identifier: Apache-2.0
//! Several stores, threads and processes on one directory.

use std::process::{Child, Command, Stdio};

use rhumb_api::{DirStore, Kind, Namespace, Store, StoreError};

use crate::room::{Room, event, key, namespace, short, soon, watch};

/// Directory, name and number of updates for a child process.
const CHILD: &str = "RHAPI_CHILD";

/// The count that [`count_up`] raises.
fn count(object: &Namespace) -> usize {
    object.label("count").map_or(0, |count| count.parse().expect("a number"))
}

/// Raises the count of `shared` by one, many times; notes each success under the writer's own name.
async fn count_up(store: &DirStore, writer: &str, times: usize) {
    for time in 1..=times {
        let raise = |object: &mut Namespace| {
            let raised = count(object) + 1;
            let labels = object.metadata.labels.get_or_insert_default();
            labels.insert("count".to_owned(), raised.to_string());
            labels.insert(writer.to_owned(), time.to_string());
        };
        soon(store.modify(&key("shared"), raise)).await.expect("updated");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A child process, which ends when dropped.
struct Writer(Child);

impl Writer {
    fn has_succeeded(mut self) -> bool {
        self.0.wait().expect("waited").success()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that has ended is no error.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn child(room: &Room, writer: &str, times: usize) -> Writer {
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["processes::a_child_counts", "--exact", "--quiet"])
        .env(CHILD, format!("{}\n{writer}\n{times}", room.objects().display()))
        .stdout(Stdio::null())
        .spawn();
    Writer(child.expect("a child"))
}

/// What a child process does; in the parent, where nobody asks for it, nothing.
#[test]
fn a_child_counts() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let [path, writer, times] = task.split('\n').collect::<Vec<_>>()[..] else { unreachable!("three parts") };
    runtime().block_on(async {
        let store = DirStore::open(path).await.expect("opened");
        count_up(&store, writer, times.parse().expect("a number")).await;
    });
}

/// Every update of four writers takes effect exactly once: two threads with stores of their own, two processes.
#[test]
fn every_update_of_four_writers_takes_effect_exactly_once() {
    let room = Room::new();
    room.write(
        "all.yaml",
        "# by hand\n".to_owned() + &namespace("shared", "x") + "---\n" + &namespace("other", "y"),
    );
    let children = [child(&room, "c", 100), child(&room, "d", 100)];
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let room = &room;
            scope
                .spawn(move || runtime().block_on(async { count_up(&room.open().await, writer, 100).await }));
        }
    });
    assert!(children.into_iter().all(Writer::has_succeeded));
    let object = runtime().block_on(async {
        let store = room.open().await;
        store.get::<Namespace>(&key("shared")).await.expect("read").expect("is there")
    });
    assert_eq!(count(&object), 400);
    assert!(["a", "b", "c", "d"].iter().all(|writer| object.label(writer) == Some("100")), "{object:?}");
    let version = object.resource_version().expect("stored");
    assert!(version.as_str().starts_with("400-"), "{version}");
    let text = room.read("all.yaml");
    assert!(text.starts_with("# by hand\n") && text.ends_with(&namespace("other", "y")), "{text}");
    assert_eq!(room.names(), [".lock", "all.yaml"]);
}

#[tokio::test]
async fn clones_of_one_store_take_turns_too() {
    let room = Room::new();
    room.write("all.yaml", namespace("shared", "x"));
    let store = room.open().await;
    tokio::join!(count_up(&store, "a", 20), count_up(&store, "b", 20), count_up(&store, "c", 20));
    let object = store.get::<Namespace>(&key("shared")).await.expect("read").expect("is there");
    assert_eq!(count(&object), 60);
}

#[tokio::test]
async fn a_watch_sees_every_change_of_another_process() {
    let room = Room::new();
    room.write("all.yaml", namespace("shared", "x"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    let child = child(&room, "c", 30);
    let mut seen = 0;
    while seen < 30 {
        // Changes in quick succession may be told as one.
        let rhumb_api::WatchEvent::Modified(object) = event(&mut events).await.expect("goes on") else {
            panic!("only changes");
        };
        assert!(count(&object) > seen, "never backwards");
        seen = count(&object);
    }
    assert!(child.has_succeeded());
}

#[tokio::test]
async fn a_removal_by_another_store_is_told_at_once_and_a_name_can_be_taken_again() {
    let room = Room::new();
    let (ours, theirs) = (room.open().await, room.open().await);
    let mut events = watch::<Namespace>(&theirs).await;
    let mut object: Namespace = Namespace::default();
    object.metadata.name = Some("a".to_owned());
    object.metadata.labels = Some([("value".to_owned(), "1".to_owned())].into());
    for _ in 0..20 {
        let created = ours.create(&object).await.expect("created");
        let error = theirs.create(&object).await.expect_err("is there, wherever it was made");
        assert!(error.is_already_exists(), "{error}");
        assert_eq!(short(&mut events).await, "+a 1");
        theirs.delete::<Namespace>(&key("a"), created.resource_version().as_ref()).await.expect("deleted");
        assert_eq!(short(&mut events).await, "-a 1");
        let gone = ours.delete::<Namespace>(&key("a"), None).await;
        assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    }
}

#[tokio::test]
async fn of_many_that_create_one_object_one_succeeds() {
    let room = Room::new();
    let mut object = Namespace::default();
    object.metadata.name = Some("a".to_owned());
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (path, object) = (room.objects(), object.clone());
        writers.spawn(async move { DirStore::open(path).await.expect("opened").create(&object).await });
    }
    let results = soon(writers.join_all()).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    assert!(refused.into_iter().all(StoreError::is_already_exists));
    assert_eq!(room.names(), [".lock", "namespace-a.yaml"]);
}

/// A child that is killed while it writes leaves a whole object and nothing that hinders others.
#[test]
fn a_killed_writer_leaves_the_old_object_or_the_new_one() {
    let room = Room::new();
    room.write("all.yaml", namespace("shared", "x") + "---\n" + &namespace("other", "y"));
    runtime().block_on(async {
        let store = room.open().await;
        let mut events = watch::<Namespace>(&store).await;
        let mut last = 0;
        for _ in 0..10 {
            let child = child(&room, "c", 1_000_000);
            for _ in 0..3 {
                drop(event(&mut events).await.expect("goes on"));
            }
            drop(child);
            count_up(&store, "a", 1).await;
            let object = store.get::<Namespace>(&key("shared")).await.expect("read").expect("is there");
            assert!(count(&object) > last, "never backwards");
            last = count(&object);
            assert!(store.problems().borrow().is_empty());
        }
        drop(room.open().await);
        assert_eq!(room.names(), [".lock", "all.yaml"]);
    });
}
