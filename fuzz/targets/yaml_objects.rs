// SPDX-License-Identifier: Apache-2.0
//! Whatever a person writes into a file of the directory, the store reads objects and problems out of it; and when one
//! object of the file is deleted, the others are what they were.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rhumb_api::{DirStore, Kind, NodeConfig, NodeState, ObjectKey, Pod, PodPool, Store};

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::Builder::new().prefix("rhumb-fuzz").tempdir_in("/dev/shm").expect("room");
    fs::write(folder.path().join("objects.yaml"), data).expect("written");
    runtime.block_on(look(folder.path()));
});

async fn look(folder: &Path) {
    let store = DirStore::open(folder).await.expect("the directory is there");
    for problem in store.problems().borrow().iter() {
        assert!(problem.file == "objects.yaml" && !problem.message.is_empty(), "{problem}");
    }
    let (configs, states) = (all::<NodeConfig>(&store).await, all::<NodeState>(&store).await);
    let (pods, mut pools) = (all::<Pod>(&store).await, all::<PodPool>(&store).await);
    let Some((key, _)) = pools.pop_first() else { return };
    // Where the text cannot be changed without harm, the store says so.
    if store.delete::<PodPool>(&key, None).await.is_err() {
        return;
    }
    let store = DirStore::open(folder).await.expect("the directory is there");
    let mut left = all::<PodPool>(&store).await;
    // The file may have had the object twice.
    left.remove(&key);
    assert_eq!(left, pools);
    assert_eq!(all::<Pod>(&store).await, pods);
    assert_eq!(all::<NodeConfig>(&store).await, configs);
    assert_eq!(all::<NodeState>(&store).await, states);
}

async fn all<K: Kind + PartialEq>(store: &DirStore) -> BTreeMap<ObjectKey, K> {
    let list = store.list::<K>().await.expect("readable");
    list.items.into_iter().map(|object| (object.key(), object)).collect()
}
