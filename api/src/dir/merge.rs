// SPDX-License-Identifier: Apache-2.0
//! JSON merge patches (RFC 7386), and what keeps a person's own words through them.

use serde_json::{Map, Value};

/// Brings a patch in: null removes, objects merge, everything else replaces.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The patch that makes `new` out of `old`.
pub(super) fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), difference(before, value));
            }
            Some(_) | None => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

/// Makes every value that is in both `written` and `meant` what is meant.
///
/// A label `1.10` without quotes is a number to YAML and the text `1.10` to its type; written back as the number it
/// would be `1.1`. What only the person wrote stays, as a newer Kubernetes may know fields that we do not.
pub(super) fn clarify(written: &mut Value, meant: &Value) {
    match (written, meant) {
        (Value::Object(written), Value::Object(meant)) => {
            for (key, value) in written {
                if let Some(meant) = meant.get(key) {
                    clarify(value, meant);
                }
            }
        }
        (Value::Array(written), Value::Array(meant)) if written.len() == meant.len() => {
            written.iter_mut().zip(meant).for_each(|(value, meant)| clarify(value, meant));
        }
        (written, meant) => *written = meant.clone(),
    }
}

/// Puts the written form of list items that stay in place of their meant form in a patch: an item may have fields that
/// only the person knows, and a list is replaced as a whole.
pub(super) fn restore(patch: &mut Value, meant: &Value, written: &Value) {
    match (patch, meant, written) {
        (Value::Object(patch), Value::Object(meant), Value::Object(written)) => {
            for (key, value) in patch {
                if let (Some(meant), Some(written)) = (meant.get(key), written.get(key)) {
                    restore(value, meant, written);
                }
            }
        }
        (Value::Array(patch), Value::Array(meant), Value::Array(written)) if meant.len() == written.len() => {
            for item in patch {
                if let Some(stays) = meant.iter().position(|before| before == item) {
                    item.clone_from(&written[stays]);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Values without null, which a merge patch cannot set.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), "[ab]?".prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_merged_gives_the_new_value(old in value(), new in value()) {
            let mut merged = old.clone();
            merge(&mut merged, difference(&old, &new));
            prop_assert_eq!(merged, new);
        }
    }

    #[test]
    fn items_of_a_list_that_stay_are_written_as_they_were() {
        let meant = json!({"spec": {"taints": [{"key": "a"}, {"key": "b"}]}});
        let written = json!({"spec": {"taints": [{"key": "a", "new": 1}, {"key": "b"}]}});
        let mut patch = json!({"spec": {"taints": [{"key": "c"}, {"key": "a"}]}});
        restore(&mut patch, &meant, &written);
        assert_eq!(patch, json!({"spec": {"taints": [{"key": "c"}, {"key": "a", "new": 1}]}}));
    }

    #[test]
    fn what_is_meant_goes_over_what_is_written() {
        let mut written = json!({"labels": {"v": 1.1}, "new": {"x": 1}, "list": [{"n": 1, "o": 2}]});
        clarify(&mut written, &json!({"labels": {"v": "1.10", "w": "x"}, "list": [{"n": "1"}]}));
        assert_eq!(written, json!({"labels": {"v": "1.10"}, "new": {"x": 1}, "list": [{"n": "1", "o": 2}]}));
    }
}
