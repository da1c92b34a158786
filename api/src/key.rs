// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use rhumb_model::{NodeName, PodKey};

/// What identifies an object among those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace; `None` for kinds that live in the cluster as a whole.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object that belongs to the cluster as a whole.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// The key of an object in a namespace.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl From<&NodeName> for ObjectKey {
    fn from(name: &NodeName) -> Self {
        Self::cluster(name.as_str())
    }
}

impl From<&PodKey> for ObjectKey {
    fn from(key: &PodKey) -> Self {
        Self::namespaced(&key.namespace, &key.name)
    }
}

/// A version of an object, or of a list of objects, as the store gave it out: text that only the store understands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceVersion(String);

impl ResourceVersion {
    /// Takes a version as it stands in an object's `metadata.resourceVersion`.
    pub fn new(version: impl Into<String>) -> Self {
        Self(version.into())
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
