// SPDX-License-Identifier: Apache-2.0
//! The one trait through which agent and operator see objects.
//!
//! Versions and conflicts are those of the Kubernetes API, so that a form on kube-rs needs no rules of its own:
//!
//! | here | kube-rs, `Api<K>` | answers |
//! |---|---|---|
//! | `get` | `get_opt` | 404 is `None` |
//! | `list` | `list(&ListParams::default())` | `revision` is `metadata.resourceVersion` of the list |
//! | `watch` | `watch(&WatchParams::default(), from)` | a 410, as a status or as an event, is [`WatchError::TooOld`]; after each event a [`WatchEvent::Bookmark`] with the version of its object |
//! | `create` | `create` | 409 `AlreadyExists`, 422 `Invalid` |
//! | `update` | `replace` | 409 `Conflict`, 404 `NotFound`, 422 |
//! | `patch_status` | `patch_status(name, .., &Patch::Merge({"status": …}))` | 404, 422 |
//! | `delete` | `delete` with `preconditions.resource_version` | 404, 409 |
//! | `problems` | none: the API server refuses bad objects | an empty list that never changes |
//!
//! As there, `create` drops the status of a kind that has one, `update` leaves it alone, and `patch_status` changes
//! nothing else. Everything else that the API server or the connection answers is [`StoreError::Unavailable`].

use std::future::Future;
use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::sync::watch;

use crate::{HasStatus, Kind, ObjectKey, Problem, ResourceVersion, StoreError, WatchError};

/// The objects of a kind at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct List<K> {
    /// The objects, in no particular order.
    pub items: Vec<K>,
    /// Where to watch from so that nothing is missed.
    pub revision: ResourceVersion,
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K> {
    /// The object is new.
    Added(K),
    /// The object is not what it was.
    Modified(K),
    /// The object is gone; this is how it was last.
    Deleted(K),
    /// Everything up to this version was given: a later watch may begin here.
    Bookmark(ResourceVersion),
}

/// Changes of the objects of a kind. After an error nothing follows.
pub type WatchStream<K> = BoxStream<'static, Result<WatchEvent<K>, WatchError>>;

/// The problems known now ([`watch::Receiver::borrow`]), and notice of every change ([`watch::Receiver::changed`]).
pub type Problems = watch::Receiver<Arc<[Problem]>>;

/// A place where objects are.
///
/// Clones are the same store. Cancelling a call that writes leaves open whether it took effect.
pub trait Store: Clone + Send + Sync + 'static {
    /// The object with this key, or `None`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn get<K: Kind>(&self, key: &ObjectKey) -> impl Future<Output = Result<Option<K>, StoreError>> + Send;

    /// All objects of a kind.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn list<K: Kind>(&self) -> impl Future<Output = Result<List<K>, StoreError>> + Send;

    /// Every change since `from`, which a [`List`] or a [`WatchEvent::Bookmark`] gave.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; a version that is too old is told by the stream.
    fn watch<K: Kind>(
        &self,
        from: &ResourceVersion,
    ) -> impl Future<Output = Result<WatchStream<K>, StoreError>> + Send;

    /// Makes a new object, without its status if the kind has one, and returns it as it is stored.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::Invalid`], [`StoreError::Unavailable`].
    fn create<K: Kind>(&self, object: &K) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Puts the object, but not its status, in place of the version that it was read as.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it was changed since, [`StoreError::NotFound`], [`StoreError::Invalid`] (also
    /// for an object without `metadata.resourceVersion`), [`StoreError::Unavailable`].
    fn update<K: Kind>(&self, object: &K) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Merges this status into the object's, whatever version it has (RFC 7386: lists are replaced as a whole).
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`], [`StoreError::Unavailable`].
    fn patch_status<K: HasStatus>(
        &self,
        key: &ObjectKey,
        status: &K::Status,
    ) -> impl Future<Output = Result<K, StoreError>> + Send;

    /// Removes an object; with `expected` only if that is its version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::Unavailable`].
    fn delete<K: Kind>(
        &self,
        key: &ObjectKey,
        expected: Option<&ResourceVersion>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is wrong with the objects that people wrote.
    fn problems(&self) -> Problems;

    /// Reads, changes and updates an object, and begins again when somebody else was faster.
    ///
    /// # Errors
    /// Those of [`Store::get`] and [`Store::update`], but no conflict.
    fn modify<K, F>(
        &self,
        key: &ObjectKey,
        mut change: F,
    ) -> impl Future<Output = Result<K, StoreError>> + Send
    where
        K: Kind,
        F: FnMut(&mut K) + Send,
    {
        async move {
            loop {
                let found = self.get::<K>(key).await?;
                let mut object =
                    found.ok_or_else(|| StoreError::NotFound { kind: K::KIND, key: key.clone() })?;
                change(&mut object);
                match self.update(&object).await {
                    Err(StoreError::Conflict { .. }) => {}
                    result => return result,
                }
            }
        }
    }

    /// Sets the status of an object, which is created as `object` says when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Unavailable`].
    fn publish_status<K: HasStatus>(
        &self,
        object: &K,
        status: &K::Status,
    ) -> impl Future<Output = Result<K, StoreError>> + Send {
        async move {
            let key = object.key();
            loop {
                match self.patch_status::<K>(&key, status).await {
                    Err(StoreError::NotFound { .. }) => {}
                    result => return result,
                }
                match self.create(object).await {
                    Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
