// SPDX-License-Identifier: Apache-2.0
//! Objects as YAML files in one directory: the store for one machine, labs, demos and tests.
//!
//! # Files
//! `*.yaml`, `*.yml` and `*.json`, directly in the directory, each with any number of documents separated by `---`.
//! Dot files, editors' back-up and swap files and sub-directories are not read. Documents of foreign kinds are
//! ignored; unknown kinds of `rhumb.io` are a [`crate::Problem`]. An object of a namespaced kind without a namespace
//! is in `default`. An object that is created gets a file of its own, `<kind>-<name>.yaml` or
//! `<kind>-<namespace>.<name>.yaml`; one that a person wrote is changed where it stands, and the other documents of
//! the file stay as they are, byte for byte. Comments inside a document that is changed are lost, those above and
//! below it stay.
//!
//! # Versions
//! An object's version is the number of its writes through a store, which stands in the file, and a digest of its
//! content. So all processes agree without talking, and an edit by hand is a new version. The version of a list
//! belongs to one opened store and its clones: with another, or after [a long absence](WatchError::TooOld), a watch
//! begins with a new list.
//!
//! # Several processes
//! Writers take turns by the lock of the file `.lock`; a file appears whole or not at all, and on disk before the call
//! returns. Readers need no lock. An editor knows nothing of locks: it is noticed when it saves a file between our
//! reading and our renaming, except within the few microseconds before the rename. Keep the directory on a local file
//! system: the kernel does not tell of changes that other machines make.
//!
//! # When something is wrong
//! A document that cannot be read is a [`crate::Problem`], and the last good version of its object stays in force; so
//! does a missing file's for a moment. After a restart there is no last good version. When the directory itself is gone, all calls
//! answer [`StoreError::Unavailable`], watches are silent, nothing is removed, and all goes on when it is back.

mod catalogue;
mod document;
#[cfg(test)]
mod fuzz;
mod loader;
mod lock;
mod merge;
mod place;
mod scanner;
mod text;
mod view;
mod watch;
mod write;
mod yaml;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use document::read_kind;
pub(crate) use yaml::Fault;

use crate::{
    FieldError, HasStatus, Kind, List, ObjectKey, Problems, ResourceVersion, Store, StoreError, WatchStream,
};
use document::{ObjectId, Stored};
use scanner::Scanner;
use write::Edit;

/// A store in a directory of YAML files. Clones are the same store; the last one ends its thread.
#[derive(Debug, Clone)]
pub struct DirStore {
    scanner: Arc<Scanner>,
}

impl DirStore {
    /// Opens the directory and reads what is in it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no such directory or it cannot be read.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let opened = tokio::task::spawn_blocking(move || {
            let scanner = Scanner::start(&path, random()?)?;
            lock::clean_up(scanner.shared());
            Ok(Self { scanner: Arc::new(scanner) })
        });
        let result = opened.await.map_err(std::io::Error::other).and_then(|result| result);
        result.map_err(|error| StoreError::Unavailable {
            doing: "open the object directory",
            source: Box::new(error),
        })
    }

    async fn edit<K, F>(&self, key: &ObjectKey, decide: F) -> Result<K, StoreError>
    where
        K: Kind,
        F: Fn(&Value, &Stored, &K) -> Result<Edit, StoreError> + Send + 'static,
    {
        let id = ObjectId::of::<K>(key);
        lock::write(Arc::clone(self.scanner.shared()), move |session| {
            let decide = |value: &Value, stored: &Stored| decide(value, stored, &typed::<K>(stored));
            session.edit(&id, decide).map(|stored| typed(&stored))
        })
        .await
    }
}

impl Store for DirStore {
    async fn get<K: Kind>(&self, key: &ObjectKey) -> Result<Option<K>, StoreError> {
        self.scanner.view().get(key)
    }

    async fn list<K: Kind>(&self) -> Result<List<K>, StoreError> {
        self.scanner.view().list()
    }

    async fn watch<K: Kind>(&self, from: &ResourceVersion) -> Result<WatchStream<K>, StoreError> {
        self.scanner.view().check()?;
        Ok(watch::watch(Arc::clone(&self.scanner), from))
    }

    async fn create<K: Kind>(&self, object: &K) -> Result<K, StoreError> {
        if object.resource_version().is_some() {
            let error =
                FieldError::new("metadata.resourceVersion", "must not be set on an object to be created");
            return Err(invalid::<K>(object.key(), error));
        }
        let mut object = object.clone();
        object.metadata_mut().uid = Some(new_uid().map_err(write::not_written)?);
        let mut value = to_value(&object)?;
        drop_status::<K>(&mut value);
        check::<K>(&object.key(), &value)?;
        let id = ObjectId::of::<K>(&object.key());
        lock::write(Arc::clone(self.scanner.shared()), move |session| {
            session.create(&id, value).map(|stored| typed(&stored))
        })
        .await
    }

    async fn update<K: Kind>(&self, object: &K) -> Result<K, StoreError> {
        let key = object.key();
        let Some(expected) = object.resource_version() else {
            let error = FieldError::new("metadata.resourceVersion", "must be set for an update");
            return Err(invalid::<K>(key, error));
        };
        let mut new = to_value(object)?;
        drop_status::<K>(&mut new);
        check::<K>(&key, &new)?;
        self.edit(&key.clone(), move |value, stored, old: &K| {
            if stored.version != expected.as_str() {
                return Err(StoreError::Conflict { kind: K::KIND, key: key.clone() });
            }
            let old = to_value(old)?;
            let mut new = new.clone();
            if K::HAS_STATUS && !old["status"].is_null() {
                new["status"] = old["status"].clone();
            }
            keep_identity(&mut new, &old);
            Ok(change(value, &old, &new))
        })
        .await
    }

    async fn patch_status<K: HasStatus>(&self, key: &ObjectKey, status: &K::Status) -> Result<K, StoreError> {
        let status = serde_json::to_value(status)
            .map_err(|error| invalid::<K>(key.clone(), FieldError::new("status", error.to_string())))?;
        let owned = key.clone();
        self.edit(key, move |value, _, old: &K| {
            let old = to_value(old)?;
            let mut new = old.clone();
            merge::merge(&mut new, serde_json::json!({ "status": status.clone() }));
            check::<K>(&owned, &new)?;
            Ok(change(value, &old, &new))
        })
        .await
    }

    async fn delete<K: Kind>(
        &self,
        key: &ObjectKey,
        expected: Option<&ResourceVersion>,
    ) -> Result<(), StoreError> {
        let (owned, expected) = (key.clone(), expected.cloned());
        let deleted = self.edit(key, move |_, stored, _: &K| match &expected {
            Some(expected) if stored.version != expected.as_str() => {
                Err(StoreError::Conflict { kind: K::KIND, key: owned.clone() })
            }
            Some(_) | None => Ok(Edit::Remove),
        });
        deleted.await.map(|_| ())
    }

    fn problems(&self) -> Problems {
        self.scanner.view().problems()
    }
}

/// What is to be written when an object that reads as `old` is to read as `new`.
fn change(written: &Value, old: &Value, new: &Value) -> Edit {
    if old == new {
        return Edit::Keep;
    }
    let mut value = written.clone();
    merge::clarify(&mut value, old);
    let mut patch = merge::difference(old, new);
    merge::restore(&mut patch, old, &value);
    merge::merge(&mut value, patch);
    Edit::Replace(value)
}

/// What a store gave an object stays, whether or not a writer brings it back.
fn keep_identity(new: &mut Value, old: &Value) {
    for field in ["uid", "creationTimestamp", "resourceVersion", "namespace"] {
        let value = &old["metadata"][field];
        if !value.is_null() {
            new["metadata"][field] = value.clone();
        }
    }
}

fn typed<K: Kind>(stored: &Stored) -> K {
    stored.typed().expect("an object is of the kind that its identity names")
}

fn to_value<K: Kind>(object: &K) -> Result<Value, StoreError> {
    serde_json::to_value(object)
        .map_err(|error| invalid::<K>(object.key(), FieldError::new("", error.to_string())))
}

fn drop_status<K: Kind>(value: &mut Value) {
    if K::HAS_STATUS
        && let Some(object) = value.as_object_mut()
    {
        object.remove("status");
    }
}

/// Reads an object that is to be written as every reader will.
fn check<K: Kind>(key: &ObjectKey, value: &Value) -> Result<(), StoreError> {
    yaml::from_value::<K>(value.clone())
        .and_then(|object| object.validate())
        .map_err(|error| invalid::<K>(key.clone(), error))
}

fn invalid<K: Kind>(key: ObjectKey, error: FieldError) -> StoreError {
    StoreError::Invalid { kind: K::KIND, key, field: error.field, message: error.message }
}

fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> std::io::Result<String> {
    let (high, low) = (random()?, random()?);
    let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | (2 << 62));
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

/// A directory for one test, removed when dropped.
#[cfg(test)]
fn test_directory() -> tempfile::TempDir {
    let prefix = format!("rhapi{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory")
}
