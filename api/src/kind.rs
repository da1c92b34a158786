// SPDX-License-Identifier: Apache-2.0

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ObjectKey, ResourceVersion};

/// Whether a kind's objects live in namespaces; implemented for the two scopes of k8s-openapi.
pub trait KindScope {
    /// `true` when they do.
    const NAMESPACED: bool;
}

impl KindScope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl KindScope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

/// A type of object that a store holds: one of the table in `kinds.rs`.
///
/// `GROUP`, `VERSION`, `API_VERSION`, `KIND` and the plural (`URL_PATH_SEGMENT`) come from k8s-openapi's [`Resource`],
/// which rhumb's own kinds implement as well; kube-rs builds its own `Resource` on top of just these two traits.
pub trait Kind:
    Resource<Scope: KindScope>
    + Metadata<Ty = ObjectMeta>
    + Clone
    + PartialEq
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Plural name in lower case, as in a URL: `podpools`.
    const PLURAL: &'static str = Self::URL_PATH_SEGMENT;
    /// Whether objects live in namespaces.
    const NAMESPACED: bool = <Self::Scope as KindScope>::NAMESPACED;
    /// Whether the status is written apart from the rest, by [`crate::Store::patch_status`].
    const HAS_STATUS: bool;

    /// Checks what the types of the fields alone cannot say.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong.
    fn validate(&self) -> Result<(), FieldError>;

    /// Namespace and name. An object of a namespaced kind that names no namespace is in `default`.
    fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey {
            namespace: Self::NAMESPACED
                .then(|| metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The version of the object that this is, if it came from a store.
    fn resource_version(&self) -> Option<ResourceVersion> {
        self.metadata().resource_version.as_ref().map(ResourceVersion::new)
    }

    /// The value of an annotation.
    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The value of a label.
    fn label(&self, name: &str) -> Option<&str> {
        self.metadata().labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// The namespace of objects that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A kind whose status is written apart from the rest.
pub trait HasStatus: Kind {
    /// What stands under `status`.
    type Status: Serialize + Clone + Send + Sync + 'static;
}

/// A field that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// Path of the field, for example `spec.ipv4.cidrs[0]`.
    pub field: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

impl FieldError {
    /// Says that the field at this path is wrong.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Checks name and namespace, for objects of every kind.
pub(crate) fn check_metadata<K: Kind>(object: &K) -> Result<(), FieldError> {
    let metadata = object.metadata();
    match metadata.name.as_deref() {
        None | Some("") => return Err(FieldError::new("metadata.name", "every object has a name")),
        Some(name) if rhumb_model::NodeName::new(name).is_err() => {
            return Err(FieldError::new(
                "metadata.name",
                format!("{name:?}: want lower-case letters, digits, '-' and '.', at most 253 characters"),
            ));
        }
        Some(_) => {}
    }
    match metadata.namespace.as_deref() {
        None => Ok(()),
        Some(_) if !K::NAMESPACED => Err(FieldError::new(
            "metadata.namespace",
            format!("a {} belongs to the whole cluster: leave the namespace out", K::KIND),
        )),
        Some(name) if name.len() > 63 || name.contains('.') || rhumb_model::NodeName::new(name).is_err() => {
            Err(FieldError::new(
                "metadata.namespace",
                format!("{name:?}: want lower-case letters, digits and '-', at most 63 characters"),
            ))
        }
        Some(_) => Ok(()),
    }
}
