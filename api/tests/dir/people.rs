// SPDX-License-Identifier: Apache-2.0
//! What people and their editors do to files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use rhumb_api::{Kind, Namespace, ObjectKey, Pod, Store, StoreError};

use crate::room::{Room, event, key, namespace, problems, short, value, watch};

#[tokio::test]
async fn an_edit_is_seen_as_a_change_and_makes_older_versions_stale() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "1"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    let before = store.get::<Namespace>(&key("a")).await.expect("read").expect("is there");
    room.write("a.yaml", namespace("a", "2"));
    // The writer takes in the edit by itself, whether or not the watch told of it.
    let error = store.update(&before).await.expect_err("stale");
    assert!(error.is_conflict(), "{error}");
    assert_eq!(short(&mut events).await, "~a 2");
    room.write("a.yaml", "# a comment is no change\n".to_owned() + &namespace("a", "2"));
    room.write("b.yaml", namespace("b", "1"));
    assert_eq!(short(&mut events).await, "+b 1");
}

#[tokio::test]
async fn an_edit_of_an_object_that_we_wrote_is_a_new_version() {
    let room = Room::new();
    let store = room.open().await;
    let mut object = Namespace::default();
    object.metadata.name = Some("a".to_owned());
    let created = store.create(&object).await.expect("created");
    let mut events = watch::<Namespace>(&store).await;
    let text = room.read("namespace-a.yaml").replace("  name: a\n", "  name: a\n  labels: {value: hand}\n");
    room.write("namespace-a.yaml", text);
    assert_eq!(short(&mut events).await, "~a hand");
    let edited = store.get::<Namespace>(&key("a")).await.expect("read").expect("is there");
    assert_ne!(edited.resource_version(), created.resource_version());
    assert_eq!(edited.metadata.uid, created.metadata.uid);
}

#[tokio::test]
async fn the_last_good_version_stays_until_the_file_is_mended() {
    let room = Room::new();
    let good = namespace("a", "1") + "---\n" + &namespace("b", "1");
    room.write("all.yaml", &good);
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    room.write("all.yaml", "metadata: [\n---\n".to_owned() + &namespace("b", "2"));
    assert_eq!(short(&mut events).await, "~b 2");
    let found = problems(&store, |problems| !problems.is_empty()).await;
    assert_eq!((found.len(), found[0].file.as_str(), found[0].line), (1, "all.yaml", Some(2)));
    let a = store.get::<Namespace>(&key("a")).await.expect("read").expect("still in force");
    assert_eq!(value(&a), "1");
    for result in [store.update(&a).await.map(|_| ()), store.delete::<Namespace>(&key("a"), None).await] {
        let error = result.expect_err("cannot be written while broken");
        assert!(matches!(&error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error}");
    }
    room.write("all.yaml", namespace("b", "2") + "---\n" + &namespace("a", "3"));
    assert_eq!(short(&mut events).await, "~a 3");
    problems(&store, <[_]>::is_empty).await;
    room.write("all.yaml", namespace("b", "2"));
    assert_eq!(short(&mut events).await, "-a 3");
}

#[tokio::test]
async fn an_object_that_would_stay_in_force_is_not_deleted() {
    let room = Room::new();
    room.write("all.yaml", namespace("a", "1") + "---\nkind: [\n");
    room.write("twice.yaml", namespace("b", "1") + "---\n" + &namespace("b", "2"));
    let store = room.open().await;
    for name in ["a", "b"] {
        let error = store.delete::<Namespace>(&key(name), None).await.expect_err("hindered");
        assert!(error.is_retryable(), "{error}");
        assert!(store.get::<Namespace>(&key(name)).await.expect("read").is_some());
    }
    room.write("all.yaml", namespace("a", "1"));
    room.write("twice.yaml", namespace("b", "2"));
    for name in ["a", "b"] {
        store.delete::<Namespace>(&key(name), None).await.expect("deleted");
        assert!(store.get::<Namespace>(&key(name)).await.expect("read").is_none());
    }
}

#[tokio::test]
async fn a_bad_field_keeps_only_its_own_object() {
    let room = Room::new();
    room.write("all.yaml", namespace("a", "1") + "---\n" + &namespace("b", "1"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    room.write("all.yaml", namespace("a", "1") + "  annotations: 7\n");
    assert_eq!(short(&mut events).await, "-b 1");
    let found = problems(&store, |problems| !problems.is_empty()).await;
    assert_eq!(found[0].object.as_deref(), Some("Namespace a"));
    assert_eq!(found[0].field.as_deref(), Some("metadata.annotations"));
    assert!(store.get::<Namespace>(&key("a")).await.expect("read").is_some());
}

#[tokio::test]
async fn a_second_file_with_the_same_object_does_not_count() {
    let room = Room::new();
    room.write("m.yaml", namespace("a", "1"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    room.write("b.yaml", namespace("a", "2"));
    let found = problems(&store, |problems| !problems.is_empty()).await;
    assert_eq!(
        found[0].to_string(),
        "b.yaml:1: Namespace a: stands already in m.yaml, line 1, which is in force"
    );
    room.remove("m.yaml");
    assert_eq!(short(&mut events).await, "~a 2");
    problems(&store, <[_]>::is_empty).await;
}

#[tokio::test]
async fn a_file_that_disappears_takes_its_objects_along() {
    let room = Room::new();
    room.write("all.yaml", namespace("a", "1") + "---\n" + &namespace("b", "1"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    room.remove("all.yaml");
    assert_eq!([short(&mut events).await, short(&mut events).await], ["-a 1", "-b 1"]);
    room.write("all.yaml", namespace("a", "1"));
    assert_eq!(short(&mut events).await, "+a 1");
}

#[tokio::test]
async fn no_way_of_saving_looks_like_a_removal() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "0"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    let path = room.objects().join("a.yaml");
    let beside = |name: &str| room.objects().join(name);

    // Write beside, rename over.
    fs::write(beside(".a.yaml.swp"), namespace("a", "1")).expect("written");
    fs::rename(beside(".a.yaml.swp"), &path).expect("renamed");
    assert_eq!(short(&mut events).await, "~a 1");
    // Rename away as backup, write anew, remove the backup.
    fs::rename(&path, beside("a.yaml~")).expect("renamed");
    fs::write(&path, namespace("a", "2")).expect("written");
    fs::remove_file(beside("a.yaml~")).expect("removed");
    assert_eq!(short(&mut events).await, "~a 2");
    // Truncate, close, and write in pieces later.
    fs::File::create(&path).expect("truncated");
    let text = namespace("a", "3");
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opened");
    file.write_all(&text.as_bytes()[..20]).expect("written");
    file.write_all(&text.as_bytes()[20..]).expect("written");
    drop(file);
    assert_eq!(short(&mut events).await, "~a 3");
    // Hard link into place, and a symbolic link.
    fs::write(room.path().join("outside"), namespace("b", "1")).expect("written");
    fs::hard_link(room.path().join("outside"), beside("b.yaml")).expect("linked");
    assert_eq!(short(&mut events).await, "+b 1");
    fs::write(room.path().join("elsewhere"), namespace("c", "1")).expect("written");
    symlink(room.path().join("elsewhere"), beside("c.yml")).expect("linked");
    assert_eq!(short(&mut events).await, "+c 1");
    // Move to another name.
    fs::rename(&path, beside("z.yaml")).expect("renamed");
    room.write("z.yaml", namespace("a", "4"));
    assert_eq!(short(&mut events).await, "~a 4");
}

#[tokio::test]
async fn an_object_behind_a_symbolic_link_is_not_written() {
    let room = Room::new();
    let target = room.path().join("elsewhere");
    fs::write(&target, namespace("a", "1")).expect("written");
    symlink(&target, room.objects().join("a.yaml")).expect("linked");
    let store = room.open().await;
    let error = store.delete::<Namespace>(&key("a"), None).await.expect_err("a link");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(fs::read_to_string(&target).expect("read"), namespace("a", "1"));
}

#[tokio::test]
async fn a_mounted_config_map_changes_as_a_whole() {
    let room = Room::new();
    let objects = room.objects();
    for (version, value) in [("..1", "1"), ("..2", "2")] {
        fs::create_dir(objects.join(version)).expect("made");
        fs::write(objects.join(version).join("a.yaml"), namespace("a", value)).expect("written");
    }
    symlink("..1", objects.join("..data")).expect("linked");
    symlink("..data/a.yaml", objects.join("a.yaml")).expect("linked");
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    symlink("..2", objects.join("..data_tmp")).expect("linked");
    fs::rename(objects.join("..data_tmp"), objects.join("..data")).expect("renamed");
    assert_eq!(short(&mut events).await, "~a 2");
}

#[tokio::test]
async fn editors_own_files_and_foreign_kinds_are_left_alone() {
    let room = Room::new();
    for name in [".a.yaml.swp", "a.yaml~", "#a.yaml#", ".#a.yaml", "4913", "a.yaml.bak", "notes.txt", ".yaml"]
    {
        room.write(name, "not: [an object");
    }
    fs::create_dir(room.objects().join("sub.d")).expect("made");
    room.write("sub.d/b.yaml", namespace("b", "1"));
    room.write(
        "foreign.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n# nothing\n",
    );
    room.write("pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web-0}\n");
    let store = room.open().await;
    assert_eq!(problems(&store, |_| true).await, []);
    assert!(store.list::<Namespace>().await.expect("listed").items.is_empty());
    let pod = store.get::<Pod>(&ObjectKey::namespaced("default", "web-0")).await.expect("read");
    assert_eq!(pod.expect("is there").metadata.namespace.as_deref(), Some("default"));
}

#[tokio::test]
async fn what_is_no_file_is_a_problem_and_its_mode_is_kept_otherwise() {
    let room = Room::new();
    fs::create_dir(room.objects().join("folder.yaml")).expect("made");
    room.write("a.yaml", namespace("a", "1"));
    let path = room.objects().join("a.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    let store = room.open().await;
    let found = problems(&store, |problems| !problems.is_empty()).await;
    assert_eq!(found[0].to_string(), "folder.yaml: the file cannot be read: no regular file");
    let note = |namespace: &mut Namespace| {
        namespace.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
    };
    store.modify(&key("a"), note).await.expect("updated");
    assert_eq!(fs::metadata(&path).expect("read").permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn an_edit_while_we_write_is_never_lost() {
    let room = Room::new();
    room.write("all.yaml", namespace("a", "0"));
    let store = room.open().await;
    let mut events = watch::<Namespace>(&store).await;
    for round in 1..=50 {
        // A person adds a document; at the same time the store writes to another one of the same file.
        let text = room.read("all.yaml") + "---\n" + &namespace(&format!("n{round}"), "x");
        room.write("all.yaml", text);
        let note = |namespace: &mut Namespace| {
            namespace.metadata.annotations = Some([("round".to_owned(), round.to_string())].into());
        };
        store.modify(&key("a"), note).await.expect("updated");
    }
    assert_eq!(room.read("all.yaml").matches("value: x").count(), 50);
    assert_eq!(store.list::<Namespace>().await.expect("listed").items.len(), 51);
    drop(event(&mut events).await);
}
