// SPDX-License-Identifier: Apache-2.0
//! Store changes on their way into the tables.

use std::collections::BTreeMap;

use futures::StreamExt;
use rhumb_api::{Kind, ObjectKey, Store, Update, follow};
use rhumb_model::NameError;
use tokio::sync::mpsc;
use tracing::warn;

/// Passes every change of the objects of a kind on, until nobody listens.
pub(crate) async fn run<K: Kind, S: Store, M>(
    store: S,
    message: impl Fn(Update<K>) -> M,
    inbox: mpsc::Sender<M>,
) {
    let mut updates = follow::<K, S>(&store);
    while let Some(update) = updates.next().await {
        if inbox.send(message(update)).await.is_err() {
            return;
        }
    }
}

/// Brings a table up to date; `row` says what the table keeps of an object.
///
/// Objects have passed the store's checks. One whose name is still not of the right kind is left out: no node and no
/// pool of ours can be meant by it.
pub(crate) fn fold<K: Kind, N: Ord + TryFrom<String, Error = NameError>, V>(
    update: Update<K>,
    table: &mut Option<BTreeMap<N, V>>,
    row: impl Fn(&K) -> V,
) {
    let named = |key: ObjectKey| match N::try_from(key.name) {
        Ok(name) => Some(name),
        Err(error) => {
            warn!(%error, "object left out");
            None
        }
    };
    match update {
        Update::Snapshot(objects) => {
            let rows = objects.iter().filter_map(|object| Some((named(object.key())?, row(object))));
            *table = Some(rows.collect());
        }
        Update::Put(object) => {
            if let (Some(table), Some(name)) = (table.as_mut(), named(object.key())) {
                table.insert(name, row(&object));
            }
        }
        Update::Delete(object) => {
            if let (Some(table), Some(name)) = (table.as_mut(), named(object.key())) {
                table.remove(&name);
            }
        }
        Update::Stalled(error) => {
            warn!(kind = K::KIND, error = &error as &dyn std::error::Error, "store not readable")
        }
    }
}
