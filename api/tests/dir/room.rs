// SPDX-License-Identifier: Apache-2.0
//! A directory for one test, and waiting for what is to happen.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use rhumb_api::{
    DirStore, Follow, Kind, Namespace, NodeConfig, NodeConfigSpec, ObjectKey, PodCidr, Problem, Store,
    Update, WatchError, WatchEvent, WatchStream,
};
use rhumb_model::NodeName;

/// Long enough for a busy machine; a test that waits this long fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a future, but not forever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("it happens before the deadline")
}

/// A directory of objects, removed when dropped.
pub(crate) struct Room(tempfile::TempDir);

impl Room {
    pub(crate) fn new() -> Self {
        let prefix = format!("rhapi{}-", std::process::id());
        Self(tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory"))
    }

    /// The directory of objects; it has a parent of its own.
    pub(crate) fn objects(&self) -> PathBuf {
        let path = self.0.path().join("objects");
        if !path.exists() {
            std::fs::create_dir(&path).expect("made");
        }
        path
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file as an editor does that saves in place.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.objects().join(name), text).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.objects().join(name)).expect("read")
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.objects().join(name)).expect("removed");
    }

    /// Names of all files, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.objects()).expect("read");
        let names = entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    pub(crate) async fn open(&self) -> DirStore {
        DirStore::open(self.objects()).await.expect("opened")
    }
}

/// The text of a Namespace with one label.
pub(crate) fn namespace(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{value: {value}}}\n")
}

/// The label of [`namespace`].
pub(crate) fn value(namespace: &Namespace) -> &str {
    namespace.label("value").expect("labelled")
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::cluster(name)
}

pub(crate) fn node_config(name: &str, cidrs: &[&str]) -> NodeConfig {
    let pool = rhumb_model::PoolName::new("default").expect("valid");
    let block = |cidr: &&str| PodCidr::new(pool.clone(), cidr.parse().expect("valid"));
    let spec = NodeConfigSpec { pod_cidrs: cidrs.iter().map(block).collect(), ..NodeConfigSpec::default() };
    NodeConfig::new(&NodeName::new(name).expect("valid"), spec)
}

/// Watches from now on.
pub(crate) async fn watch<K: Kind>(store: &DirStore) -> WatchStream<K> {
    let revision = store.list::<K>().await.expect("listed").revision;
    store.watch(&revision).await.expect("watched")
}

/// The next event that is no bookmark.
pub(crate) async fn event<K: Kind>(events: &mut WatchStream<K>) -> Result<WatchEvent<K>, WatchError> {
    loop {
        match soon(events.next()).await.expect("a watch does not end") {
            Ok(WatchEvent::Bookmark(_)) => {}
            other => return other,
        }
    }
}

/// The next event in short: `+name value`, `~name value`, `-name value`.
pub(crate) async fn short(events: &mut WatchStream<Namespace>) -> String {
    let (sign, object) = match event(events).await.expect("an event") {
        WatchEvent::Added(object) => ('+', object),
        WatchEvent::Modified(object) => ('~', object),
        WatchEvent::Deleted(object) => ('-', object),
        WatchEvent::Bookmark(_) => unreachable!("left out"),
    };
    format!("{sign}{} {}", object.key().name, value(&object))
}

/// The next update of a follower.
pub(crate) async fn update<K: Kind>(follow: &mut Follow<K>) -> Update<K> {
    soon(follow.next()).await.expect("a follower does not end")
}

/// Waits until the problems are such.
pub(crate) async fn problems(store: &DirStore, mut wanted: impl FnMut(&[Problem]) -> bool) -> Vec<Problem> {
    let mut problems = store.problems();
    soon(problems.wait_for(|problems| wanted(problems))).await.expect("the store is open").to_vec()
}
