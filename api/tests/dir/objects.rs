// SPDX-License-Identifier: Apache-2.0
//! What one process does to objects.

use proptest::prelude::*;
use rhumb_api::{
    Condition, ConditionStatus, FamilyPool, Kind, Namespace, Node, NodeConfig, NodeState, NodeStateStatus,
    ObjectKey, Pod, PodPool, PodPoolSpec, READY, ResourceVersion, Store, StoreError,
};
use rhumb_model::{NodeName, Prefix};

use crate::room::{Room, key, namespace, node_config, value};

fn pool(name: &str) -> PodPool {
    let ipv4 = FamilyPool { cidrs: vec!["10.42.0.0/16".parse().expect("valid")], node_prefix_length: 24 };
    PodPool::new(name, PodPoolSpec { ipv4: Some(ipv4), ..PodPoolSpec::default() })
}

fn pod(namespace: &str, name: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.metadata.name = Some(name.to_owned());
    pod
}

fn ready() -> NodeStateStatus {
    let condition = Condition {
        kind: READY.to_owned(),
        status: ConditionStatus::True,
        reason: "Synced".to_owned(),
        message: String::new(),
    };
    let addresses = vec!["192.168.100.1".parse().expect("valid"), "fd00:192::1".parse().expect("valid")];
    NodeStateStatus { addresses, conditions: vec![condition], ..NodeStateStatus::default() }
}

#[tokio::test]
async fn what_is_created_is_found_again_also_by_another_store() {
    let room = Room::new();
    let store = room.open().await;
    let created = store.create(&pool("default")).await.expect("created");
    store.create(&pod("default", "web-0")).await.expect("created");
    assert_eq!(room.names(), [".lock", "pod-default.web-0.yaml", "podpool-default.yaml"]);
    assert_eq!(created.spec, pool("default").spec);
    for store in [&store, &room.open().await] {
        assert_eq!(store.get(&key("default")).await.expect("read"), Some(created.clone()));
        assert_eq!(store.list::<PodPool>().await.expect("listed").items, std::slice::from_ref(&created));
        let key = ObjectKey::namespaced("default", "web-0");
        assert!(store.get::<Pod>(&key).await.expect("read").is_some());
        assert_eq!(store.get::<Node>(&key).await.expect("read"), None);
    }
}

#[tokio::test]
async fn an_object_is_created_once() {
    let room = Room::new();
    let store = room.open().await;
    let created = store.create(&pool("default")).await.expect("created");
    let error = store.create(&pool("default")).await.expect_err("is there");
    assert!(error.is_already_exists(), "{error}");
    let error = store.create(&created).await.expect_err("has a version");
    assert!(error.to_string().contains("metadata.resourceVersion"), "{error}");
}

#[tokio::test]
async fn an_update_of_a_stale_version_is_a_conflict() {
    let room = Room::new();
    let store = room.open().await;
    let first = store.create(&node_config("node-1", &["10.42.0.0/24"])).await.expect("created");
    let mut second = first.clone();
    second.spec = node_config("node-1", &["10.42.0.0/24", "10.42.1.0/24"]).spec;
    let second = store.update(&second).await.expect("updated");
    assert_ne!(first.resource_version(), second.resource_version());
    let error = store.update(&first).await.expect_err("stale");
    assert!(error.is_conflict() && !error.is_retryable(), "{error}");
    let mut unversioned = second.clone();
    unversioned.metadata.resource_version = None;
    let error = store.update(&unversioned).await.expect_err("no version");
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let error = store.update(&node_config_at("node-2", &first)).await.expect_err("absent");
    assert!(error.is_not_found(), "{error}");
    assert_eq!(store.get(&key("node-1")).await.expect("read"), Some(second));
}

fn node_config_at(name: &str, like: &NodeConfig) -> NodeConfig {
    let mut other = node_config(name, &[]);
    other.metadata.resource_version = like.metadata.resource_version.clone();
    other
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let room = Room::new();
    let store = room.open().await;
    let first = store.create(&node_config("node-1", &["10.42.0.0/24"])).await.expect("created");
    assert_eq!(store.update(&first).await.expect("updated"), first);
}

#[tokio::test]
async fn an_object_that_breaks_a_rule_is_not_written() {
    let room = Room::new();
    let store = room.open().await;
    let mut bad = pool("default");
    bad.spec.reserved = vec!["10.43.0.0/28".parse().expect("valid")];
    let error = store.create(&bad).await.expect_err("bad");
    assert_eq!(
        error.to_string(),
        "PodPool default is not valid: spec.reserved[0]: 10.43.0.0/28 is in no block of the pool"
    );
    let error = store.create(&pool("../default")).await.expect_err("bad");
    assert!(error.to_string().contains("metadata.name"), "{error}");
    let good = store.create(&pool("default")).await.expect("created");
    let mut bad = good.clone();
    bad.spec.ipv4 = None;
    assert!(matches!(store.update(&bad).await, Err(StoreError::Invalid { field, .. }) if field == "spec"));
    assert_eq!(store.get(&key("default")).await.expect("read"), Some(good));
}

#[tokio::test]
async fn a_status_is_written_apart_from_the_rest() {
    let room = Room::new();
    let store = room.open().await;
    let mut state = NodeState::new(&NodeName::new("node-1").expect("valid"));
    let error = store.patch_status::<NodeState>(&state.key(), &ready()).await.expect_err("absent");
    assert!(error.is_not_found(), "{error}");
    state.status = ready();
    let created = store.create(&state).await.expect("created");
    assert_eq!(created.status, NodeStateStatus::default());
    let patched = store.patch_status::<NodeState>(&state.key(), &ready()).await.expect("patched");
    assert_eq!(patched.status, ready());
    assert!(patched.is_true(READY));
    let mut labelled = patched.clone();
    labelled.status = NodeStateStatus::default();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let updated = store.update(&labelled).await.expect("updated");
    assert_eq!((updated.label("a"), &updated.status), (Some("b"), &ready()));
    let cleared = store.patch_status::<NodeState>(&state.key(), &NodeStateStatus::default()).await;
    assert_eq!(cleared.expect("patched").status, NodeStateStatus::default());
}

#[tokio::test]
async fn publishing_a_status_creates_the_object() {
    let room = Room::new();
    let store = room.open().await;
    let state = NodeState::new(&NodeName::new("node-1").expect("valid"));
    for _ in 0..2 {
        let published = store.publish_status(&state, &ready()).await.expect("published");
        assert_eq!(published.status, ready());
    }
}

#[tokio::test]
async fn a_deleted_object_is_gone_with_its_file() {
    let room = Room::new();
    let store = room.open().await;
    let first = store.create(&pool("default")).await.expect("created");
    let stale = ResourceVersion::new("0-0");
    let error = store.delete::<PodPool>(&key("default"), Some(&stale)).await.expect_err("stale");
    assert!(error.is_conflict(), "{error}");
    let version = first.resource_version();
    store.delete::<PodPool>(&key("default"), version.as_ref()).await.expect("deleted");
    assert_eq!(room.names(), [".lock"]);
    let error = store.delete::<PodPool>(&key("default"), None).await.expect_err("gone");
    assert!(error.is_not_found(), "{error}");
    let again = store.create(&pool("default")).await.expect("created");
    assert_ne!(again.resource_version(), version);
}

#[tokio::test]
async fn one_object_of_a_file_changes_and_the_others_stay_byte_for_byte() {
    let room = Room::new();
    let head = "# written by hand\n---\n# the first\n".to_owned()
        + &namespace("a", "x")
        + "  # inside of a\n\n# about b\n";
    let middle = "--- # the second\n# above b\n".to_owned() + &namespace("b", "1.10") + "# below b\n";
    let tail = "---\n# foreign\napiVersion: apps/v1\nkind: Deployment\nmetadata:   {name: d}\n---\n"
        .to_owned()
        + &namespace("c", "z");
    room.write("all.yaml", format!("{head}{middle}{tail}"));
    let store = room.open().await;
    let change = |namespace: &mut Namespace| {
        namespace.metadata.annotations = Some([("note".to_owned(), "new".to_owned())].into());
    };
    let changed = store.modify(&key("b"), change).await.expect("updated");
    assert_eq!((value(&changed), changed.annotation("note")), ("1.10", Some("new")));
    let text = room.read("all.yaml");
    assert!(text.starts_with(&head) && text.ends_with(&tail), "{text}");
    let document = &text[head.len()..text.len() - tail.len()];
    assert!(
        document.starts_with("--- # the second\n# above b\n") && document.ends_with("# below b\n"),
        "{text}"
    );
    assert!(document.contains("value: '1.10'") && document.contains("note: new"), "{text}");
    store.delete::<Namespace>(&key("b"), None).await.expect("deleted");
    assert_eq!(room.read("all.yaml"), format!("{head}{tail}"));
}

#[tokio::test]
async fn fields_that_only_a_person_knows_survive_a_write() {
    let room = Room::new();
    room.write("a.yaml", namespace("a", "x") + "spec:\n  brandNew: {deep: [1, 2]}\n");
    let store = room.open().await;
    let label = |namespace: &mut Namespace| {
        namespace.metadata.labels = Some([("value".to_owned(), "y".to_owned())].into());
    };
    store.modify(&key("a"), label).await.expect("updated");
    let text = room.read("a.yaml");
    assert!(text.contains("brandNew:\n    deep:\n    - 1\n    - 2"), "{text}");
    assert!(text.contains("value: y"), "{text}");
}

#[tokio::test]
async fn a_json_file_stays_json() {
    let room = Room::new();
    room.write("a.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}"#);
    let store = room.open().await;
    let label = |namespace: &mut Namespace| {
        namespace.metadata.labels = Some([("value".to_owned(), "y".to_owned())].into());
    };
    store.modify(&key("a"), label).await.expect("updated");
    let read: serde_json::Value = serde_json::from_str(&room.read("a.json")).expect("JSON");
    assert_eq!(read["metadata"]["labels"]["value"], "y");
}

#[tokio::test]
async fn long_names_and_taken_file_names_find_a_file() {
    let room = Room::new();
    room.write("namespace-b.yaml", namespace("a", "x"));
    let store = room.open().await;
    let mut b = Namespace::default();
    b.metadata.name = Some("b".to_owned());
    store.create(&b).await.expect("created");
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    store.create(&pod(&"n".repeat(63), &long)).await.expect("created");
    assert_eq!(room.names().len(), 4);
    assert!(room.names().contains(&"namespace-b-2.yaml".to_owned()));
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<u32>(), 8u8..=24)
        .prop_map(|(addr, len)| Prefix::containing(std::net::Ipv4Addr::from(addr).into(), len))
}

/// Any text that YAML can carry and a person can think of.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,12}",
        prop::sample::select(vec![
            "true", "null", "1.10", "~", "---", "...", "# x", "a: b", "|", "'", "\"", "0x1f", " a ", "a\n",
            "\n\n", "!t", "&a", "*a", "%", "@", "1_000", "yes", "1e3", ".inf", "\t", "\u{85}", "\u{2028}",
            "\u{feff}", "\r\n"
        ])
        .prop_map(str::to_owned),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_object_survives_being_written_and_read(
        annotations in prop::collection::btree_map("[a-z]{1,8}", text(), 0..6),
        cidr in prefix(),
        reason in text(),
    ) {
        let room = Room::new();
        runtime().block_on(async {
            let store = room.open().await;
            let mut pool = pool("default");
            pool.metadata.annotations = Some(annotations).filter(|map| !map.is_empty());
            pool.spec.ipv4 = Some(FamilyPool { cidrs: vec![cidr], node_prefix_length: 30 });
            let created = store.create(&pool).await.expect("created");
            let mut status = ready();
            status.conditions[0].message = reason;
            let state = NodeState::new(&NodeName::new("node-1").expect("valid"));
            let published = store.publish_status(&state, &status).await.expect("published");
            let other = room.open().await;
            let read = other.get::<PodPool>(&key("default")).await.expect("read").expect("is there");
            let state = other.get::<NodeState>(&key("node-1")).await.expect("read").expect("is there");
            assert_eq!((&read, &state), (&created, &published));
            assert_eq!((&read.spec, &read.metadata.annotations), (&pool.spec, &pool.metadata.annotations));
            assert_eq!(state.status, status);
        });
    }
}
