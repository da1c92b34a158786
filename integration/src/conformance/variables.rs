// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Names that every case may use; what a step saves comes to them.
pub(crate) const NAMES: &[&str] = &[
    "CID",
    "FAILER",
    "FILE",
    "FREEIP",
    "HOSTIF",
    "MAC",
    "NEWMAC",
    "NODEIP",
    "NS",
    "PATH",
    "PLUGIN",
    "RECORDER",
    "SUPPORTED",
    "V",
    "i",
];

/// What the names in `${…}` stand for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, Value>,
}

/// Why a text with variables has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// The name stands for nothing.
    #[error("variable ${{{0}}} is not known")]
    Unknown(String),
    /// An edit names a place that the base does not have.
    #[error("edit: no {0} in the base")]
    NoPlace(String),
}

impl Variables {
    /// Lets `name` stand for `value`.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// What `name` stands for.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// What `name` stands for, where that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// `template` with every variable replaced, and every `{edit: base, path: value}` applied. A text that is one
    /// variable and nothing else becomes its value, whatever its type.
    ///
    /// # Errors
    /// When a name is not known, or an edit names a place that is not there.
    pub(crate) fn expand(&self, template: &Value) -> Result<Value, ExpandError> {
        match template {
            Value::String(text) => self.expand_text(text),
            Value::Array(items) => {
                items.iter().map(|item| self.expand(item)).collect::<Result<_, _>>().map(Value::Array)
            }
            Value::Object(object) if object.contains_key("edit") => self.edited(object),
            Value::Object(object) => {
                let pairs =
                    object.iter().map(|(key, value)| Ok((self.interpolate(key)?, self.expand(value)?)));
                pairs.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(template.clone()),
        }
    }

    fn expand_text(&self, text: &str) -> Result<Value, ExpandError> {
        if let Some(example) = self.get(text).filter(|_| text.starts_with("prev(")) {
            return Ok(example.clone());
        }
        let alone = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        match alone.filter(|name| !name.contains('}')) {
            Some(name) => self.get(name).cloned().ok_or_else(|| ExpandError::Unknown(name.to_owned())),
            None => self.interpolate(text).map(Value::String),
        }
    }

    /// `text` with every variable replaced by its text.
    ///
    /// # Errors
    /// When a name is not known.
    pub(crate) fn interpolate(&self, text: &str) -> Result<String, ExpandError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, tail)) = after.split_once('}') else { break };
            let value = self.get(name).ok_or_else(|| ExpandError::Unknown(name.to_owned()))?;
            out.push_str(before);
            match value.as_str() {
                Some(value) => out.push_str(value),
                None => out.push_str(&value.to_string()),
            }
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn edited(&self, edit: &Map<String, Value>) -> Result<Value, ExpandError> {
        let mut base = match &edit["edit"] {
            Value::String(name) if name.starts_with("prev(") && self.get(name).is_none() => {
                return Err(ExpandError::Unknown(name.clone()));
            }
            base @ (Value::String(_) | Value::Object(_)) => self.expand(base)?,
            base @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => base.clone(),
        };
        for (path, value) in edit.iter().filter(|(path, _)| *path != "edit") {
            let change = if value == "removed" { None } else { Some(self.expand(value)?) };
            put(&mut base, &segments(path), change).ok_or_else(|| ExpandError::NoPlace(path.clone()))?;
        }
        Ok(base)
    }
}

/// Names between `${` and `}` in a template.
pub(crate) fn names_in(template: &Value) -> Vec<String> {
    match template {
        Value::String(text) => {
            let ends = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
            ends.map(|(name, _)| name.to_owned()).collect()
        }
        Value::Array(items) => items.iter().flat_map(names_in).collect(),
        Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| [names_in(&Value::String(key.clone())), names_in(value)].concat())
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// `ips[0].address` as `ips`, `0`, `address`.
fn segments(path: &str) -> Vec<&str> {
    path.split(['.', '[', ']']).filter(|segment| !segment.is_empty()).collect()
}

fn put(base: &mut Value, path: &[&str], change: Option<Value>) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let mut place = base;
    for segment in parents {
        place = if place.is_array() {
            place.get_mut(segment.parse::<usize>().ok()?)?
        } else {
            place.get_mut(*segment)?
        };
    }
    match (place, change) {
        (Value::Object(object), Some(value)) => {
            object.insert((*last).to_owned(), value);
        }
        (Value::Object(object), None) => {
            object.remove(*last);
        }
        (Value::Array(items), change) => {
            let index = last.parse::<usize>().ok()?;
            match change {
                Some(value) if index == items.len() => items.push(value),
                Some(value) => *items.get_mut(index)? = value,
                None if index < items.len() => drop(items.remove(index)),
                None => return None,
            }
        }
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("CID", "c1");
        variables.set("i", "7");
        variables.set("SUPPORTED", json!(["1.0.0", "1.1.0"]));
        variables.set("PREV", json!({"ips": [{"address": "10.0.0.1/32", "interface": 1}]}));
        variables.set("prev(1.1.0)", json!({"ips": [{"address": "10.1.0.5/16", "interface": 2}]}));
        variables
    }

    #[test]
    fn a_lone_variable_keeps_its_type_and_others_become_text() {
        let expanded = variables().expand(&json!({"a": "${SUPPORTED}", "b": "${CID}-${i}", "c": [1, "$x"]}));
        assert_eq!(expanded, Ok(json!({"a": ["1.0.0", "1.1.0"], "b": "c1-7", "c": [1, "$x"]})));
    }

    #[test]
    fn an_unknown_variable_is_named() {
        assert_eq!(variables().expand(&json!("${NOPE}")), Err(ExpandError::Unknown("NOPE".to_owned())));
        assert_eq!(variables().interpolate("x ${NOPE}"), Err(ExpandError::Unknown("NOPE".to_owned())));
    }

    #[test]
    fn names_are_found_in_keys_and_values() {
        let template = json!({"${A}": ["x${B}-${C}", {"d": "${D}"}], "e": 1});
        assert_eq!(names_in(&template), ["A", "B", "C", "D"]);
    }

    #[test]
    fn an_edit_changes_its_base() {
        let edit = json!({"edit": "${PREV}", "ips[0].address": "203.0.113.77/32"});
        let expected = json!({"ips": [{"address": "203.0.113.77/32", "interface": 1}]});
        assert_eq!(variables().expand(&edit), Ok(expected));
    }

    #[test]
    fn an_edit_can_remove_and_can_start_from_an_example() {
        let edit = json!({"edit": "prev(1.1.0)", "ips[0].interface": "removed"});
        assert_eq!(variables().expand(&edit), Ok(json!({"ips": [{"address": "10.1.0.5/16"}]})));
    }

    #[test]
    fn an_edit_of_a_place_that_is_not_there_is_refused() {
        let edit = json!({"edit": "${PREV}", "routes[0].dst": "removed"});
        assert_eq!(variables().expand(&edit), Err(ExpandError::NoPlace("routes[0].dst".to_owned())));
    }
}
