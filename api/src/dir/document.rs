// SPDX-License-Identifier: Apache-2.0
//! One document into an object, and back.

use std::sync::Arc;

use serde_json::Value;

use super::yaml::{self, Fault};
use crate::kinds::{self, AnyObject, KindId, KindInfo};
use crate::own;
use crate::{FieldError, Kind, ObjectKey};

/// What identifies an object among all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) kind: KindId,
    pub(super) key: ObjectKey,
}

impl ObjectId {
    pub(super) fn of<K: Kind>(key: &ObjectKey) -> Self {
        Self { kind: KindId::of::<K>(), key: key.clone() }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.info().kind, self.key)
    }
}

/// An object as it is in force.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// What `metadata.resourceVersion` says.
    pub(super) version: String,
    pub(super) uid: Option<String>,
    pub(super) object: AnyObject,
}

impl Stored {
    /// The object as the type that its identity names.
    pub(super) fn typed<K: Kind>(&self) -> Option<K> {
        self.object.downcast_ref::<K>().cloned()
    }
}

/// What a document turned out to be.
#[derive(Debug)]
pub(super) enum Document {
    /// A good object.
    Object(ObjectId, Stored),
    /// Nothing for us.
    Foreign,
    /// Something for us that is not good, and whose it is, if that could be read.
    Broken(Option<ObjectId>, Fault),
}

/// Reads a document. `text` may begin with its `---` line.
pub(super) fn read(text: &str) -> Document {
    match yaml::read_value(text) {
        Ok(Value::Null) => Document::Foreign,
        Ok(value) => read_object(text, &value),
        Err(fault) => Document::Broken(None, fault),
    }
}

fn read_object(text: &str, value: &Value) -> Document {
    let broken = |id, field: &str, message: &str| {
        Document::Broken(id, yaml::fault_at(text, FieldError::new(field, message)))
    };
    let Some(kind) = value["kind"].as_str() else {
        return broken(None, "kind", "every object names its kind");
    };
    let Some(api_version) = value["apiVersion"].as_str() else {
        return broken(None, "apiVersion", "every object names its apiVersion");
    };
    let Some(id) = KindId::find(api_version, kind) else {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if group == own::GROUP {
            let message = format!("{api_version} {kind} is no kind of rhumb; known are {}", own_kinds());
            return broken(None, "kind", &message);
        }
        if kind == "List" {
            return broken(None, "kind", "a List is not read: write its items as documents of their own");
        }
        tracing::debug!(api_version, kind, "document of a foreign kind is left alone");
        return Document::Foreign;
    };
    let Some(key) = key_of(id.info(), value) else {
        return broken(None, "metadata.name", "every object has a name");
    };
    let id = ObjectId { kind: id, key };
    let version = version_of(value);
    match (id.kind.info().read)(text, &version) {
        Ok(object) => {
            let uid = value["metadata"]["uid"].as_str().map(str::to_owned);
            Document::Object(id, Stored { version, uid, object })
        }
        Err(fault) => Document::Broken(Some(id), fault),
    }
}

fn own_kinds() -> String {
    let own = kinds::ALL.iter().filter(|info| info.api_version.starts_with(own::GROUP));
    own.map(|info| info.kind).collect::<Vec<_>>().join(", ")
}

fn key_of(info: &KindInfo, value: &Value) -> Option<ObjectKey> {
    let name = value["metadata"]["name"].as_str()?;
    let namespace = info.namespaced.then(|| {
        let namespace = value["metadata"]["namespace"].as_str();
        namespace.unwrap_or(crate::kind::DEFAULT_NAMESPACE).to_owned()
    });
    Some(ObjectKey { namespace, name: name.to_owned() })
}

/// Reads a document as an object of one kind; stands in the table of kinds.
pub(crate) fn read_kind<K: Kind>(text: &str, version: &str) -> Result<AnyObject, Fault> {
    let mut object: K = yaml::read_typed(text).map_err(|fault| conceal::<K>(fault))?;
    object.validate().map_err(|error| yaml::fault_at(text, error))?;
    complete(&mut object);
    object.metadata_mut().resource_version = Some(version.to_owned());
    Ok(Arc::new(object))
}

/// Messages go into logs, and one about a value quotes it: not so for what a Secret holds.
fn conceal<K: Kind>(fault: Fault) -> Fault {
    let held = |field: &String| field.starts_with("data") || field.starts_with("stringData");
    if K::KIND == "Secret" && fault.field.as_ref().is_some_and(held) {
        return Fault { message: "want text, in data as base64; the value is not shown".to_owned(), ..fault };
    }
    fault
}

/// Puts in the namespace that a person may leave out.
fn complete<K: Kind>(object: &mut K) {
    object.metadata_mut().namespace = object.key().namespace;
}

/// The version of an object: how often it was written through a store, and a digest of its content.
///
/// The count comes from the file, where the last writer put it; the digest is computed anew. So every process that
/// reads the same bytes finds the same version, and an edit by hand changes it though a person leaves the count alone.
pub(super) fn version_of(value: &Value) -> String {
    format!("{}-{:016x}", writes(value), digest_of(value))
}

fn writes(value: &Value) -> u64 {
    let version = value["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    version.split('-').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn digest_of(value: &Value) -> u64 {
    let mut value = value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    digest(value.to_string().as_bytes())
}

/// FNV-1a, 64 bits: the same in every build, as processes of different builds share a directory.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Yaml,
    Json,
}

/// The text of an object that was written once more than `before` says; ends with a line end.
pub(super) fn write(mut value: Value, before: Option<&Value>, form: Form) -> String {
    let writes = before.map_or(0, writes) + 1;
    let version = format!("{writes}-{:016x}", digest_of(&value));
    value["metadata"]["resourceVersion"] = Value::String(version);
    match form {
        Form::Yaml => serde_yaml_ng::to_string(&value).expect("a JSON value is always YAML"),
        Form::Json => format!("{value:#}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_carries_its_own_version() {
        let value = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "a"}});
        let first: Value = yaml::read_value(&write(value.clone(), None, Form::Yaml)).expect("valid");
        assert_eq!(first["metadata"]["resourceVersion"], version_of(&first));
        assert!(version_of(&first).starts_with("1-"));
        let second: Value = yaml::read_value(&write(value, Some(&first), Form::Json)).expect("valid");
        assert!(version_of(&second).starts_with("2-"));
    }

    #[test]
    fn an_edit_by_hand_is_another_version() {
        let mut value = json!({"metadata": {"name": "a", "resourceVersion": "3-00"}, "spec": 1});
        let before = version_of(&value);
        value["spec"] = 2.into();
        assert_ne!(version_of(&value), before);
        assert!(version_of(&value).starts_with("3-"));
    }
}
