// SPDX-License-Identifier: Apache-2.0
//! Typed access to the parts of a JSON object that remembers where it is, so that every refusal names its field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A field that is not as it must be.
#[derive(Debug, thiserror::Error)]
#[error("field {field}")]
pub struct FieldError {
    /// Path of the field, for example `runtimeConfig.portMappings[0].hostPort`.
    pub field: String,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// Its JSON has another shape.
    #[error(transparent)]
    Shape(serde_json::Error),
    /// Its value breaks a rule.
    #[error("{value}: {rule}")]
    Value {
        /// The value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

/// An object and the path that leads to it. Keys match as the reference library matches them: exactly, else without
/// regard to case (container runtimes send `HostPort` for `hostPort`).
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The object `map` found at `path`; the path of the outermost is empty.
    pub(crate) fn new(path: impl Into<String>, map: &'a Map<String, Value>) -> Self {
        Self { path: path.into(), map }
    }

    /// The value of `key`, where it is there and not null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map
            .get(key)
            .or_else(|| self.map.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v))
            .filter(|v| !v.is_null())
    }

    /// The value of `key` as a `T`, where it is there.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, FieldError> {
        self.value(key).map(|v| T::deserialize(v).map_err(|e| self.fault(key, Fault::Shape(e)))).transpose()
    }

    /// The text of `key`, where it is there and not empty.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, FieldError> {
        Ok(self.get::<String>(key)?.filter(|text| !text.is_empty()))
    }

    /// The object at `key`, where it is there.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Object<'a>>, FieldError> {
        self.value(key).map(|v| self.as_object(v, self.field(key))).transpose()
    }

    /// The objects in the list at `key`; none when it is not there.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Object<'a>>, FieldError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.fault(key, mismatch::<Vec<Value>>(value)))?;
        let field = self.field(key);
        list.iter().enumerate().map(|(i, v)| self.as_object(v, format!("{field}[{i}]"))).collect()
    }

    /// A refusal of `key` because its value breaks `rule`.
    pub(crate) fn refuse(&self, key: &str, value: impl ToString, rule: &'static str) -> FieldError {
        self.fault(key, Fault::Value { value: value.to_string(), rule })
    }

    /// A refusal of `key`.
    pub(crate) fn fault(&self, key: &str, fault: Fault) -> FieldError {
        FieldError { field: self.field(key), fault }
    }

    /// The path of `key`.
    pub(crate) fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn as_object(&self, value: &'a Value, path: String) -> Result<Object<'a>, FieldError> {
        match value.as_object() {
            Some(map) => Ok(Object { path, map }),
            None => Err(FieldError { field: path, fault: mismatch::<Map<String, Value>>(value) }),
        }
    }
}

fn mismatch<T: DeserializeOwned>(value: &Value) -> Fault {
    match T::deserialize(value) {
        Ok(_) => Fault::Missing,
        Err(error) => Fault::Shape(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_names_the_whole_path() {
        let value = json!({"a": {"list": [{}, {"port": "x"}]}});
        let outer = Object::new("", value.as_object().expect("object"));
        let list = outer.object("a").expect("object").expect("there").objects("list").expect("list");
        let error = list[1].get::<u16>("port").expect_err("no number");
        assert_eq!(error.field, "a.list[1].port");
    }

    #[test]
    fn lists_and_objects_of_another_shape_are_refused() {
        let value = json!({"list": {}, "object": [], "mixed": [1], "null": null});
        let outer = Object::new("", value.as_object().expect("object"));
        assert!(matches!(outer.objects("list").expect_err("object").fault, Fault::Shape(_)));
        assert!(matches!(outer.object("object").expect_err("list").fault, Fault::Shape(_)));
        assert_eq!(outer.objects("mixed").expect_err("number").field, "mixed[0]");
        assert!(outer.object("null").expect("absent").is_none());
    }

    #[test]
    fn the_exact_key_goes_before_the_similar_one() {
        let value = json!({"MTU": 1, "mtu": 2});
        let outer = Object::new("", value.as_object().expect("object"));
        assert_eq!(outer.get::<u32>("mtu").expect("number"), Some(2));
        assert_eq!(outer.get::<u32>("Mtu").expect("number"), Some(1));
    }
}
