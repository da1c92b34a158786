// SPDX-License-Identifier: Apache-2.0
//! What a configuration list must be like, judged from its text.

use serde_json::Value;

use super::expect::Miss;
use super::pattern;
use super::schema::FileExpect;

/// How a configuration list comes about: the phrase that the runner can watch for.
pub(crate) const WRITTEN_ATOMICALLY: &str =
    "atomically (rename), readable only after the agent can serve ADD";

/// Phrases in the expectation that have no meaning here.
pub(crate) fn unknown_phrases(expect: &FileExpect) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Some(written) = &expect.written
        && written != WRITTEN_ATOMICALLY
    {
        unknown.push(written.clone());
    }
    if let Some(version) = &expect.cni_version
        && version.contains(' ')
        && version != "one of ${SUPPORTED}"
    {
        unknown.push(version.clone());
    }
    let rules = expect.each_plugin.iter().flatten().map(|(_, rule)| rule);
    unknown.extend(rules.filter(|rule| rule.contains(' ') && *rule != "no slash").cloned());
    unknown
}

/// Judges the text of a configuration list.
pub(crate) fn judge(expect: &FileExpect, text: &str, supported: &[String]) -> Vec<Miss> {
    let list: Value = match serde_json::from_str(text) {
        Ok(list) => list,
        Err(_) if expect.json == Some(false) => return Vec::new(),
        Err(error) => return vec![Miss::new("json", "a JSON object", error)],
    };
    let mut misses = Vec::new();
    for key in expect.keys.iter().filter(|key| list.get(key.as_str()).is_none()) {
        misses.push(Miss::new("keys", key, &list));
    }
    let name = list["name"].as_str().unwrap_or_default();
    if let Some(form) = expect.name_pattern.as_ref().filter(|form| !pattern::matches(form, name)) {
        misses.push(Miss::new("name_pattern", form, &list["name"]));
    }
    if let Some(wanted) = &expect.cni_version {
        let version = list["cniVersion"].as_str().unwrap_or_default();
        let right = match wanted.as_str() {
            "one of ${SUPPORTED}" => supported.iter().any(|known| known == version),
            literal => literal == version,
        };
        if !right {
            misses.push(Miss::new("cniVersion", wanted, &list["cniVersion"]));
        }
    }
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    if plugins.len() < expect.plugins_min.unwrap_or(0) {
        misses.push(Miss::new("plugins_min", expect.plugins_min.unwrap_or(0), plugins.len()));
    }
    for plugin in plugins {
        each_plugin(expect, plugin, &mut misses);
    }
    misses
}

fn each_plugin(expect: &FileExpect, plugin: &Value, misses: &mut Vec<Miss>) {
    for (key, rule) in expect.each_plugin.iter().flatten() {
        let value = plugin[key].as_str().unwrap_or_default();
        let right = match rule.as_str() {
            "no slash" => !value.is_empty() && !value.contains('/'),
            literal => value == literal,
        };
        if !right {
            misses.push(Miss::new(format!("each_plugin.{key}"), rule, &plugin[key]));
        }
    }
    for key in plugin.as_object().into_iter().flat_map(|object| object.keys()) {
        if expect.forbidden_keys_in_plugins.iter().any(|forbidden| pattern::glob(forbidden, key)) {
            misses.push(Miss::new("forbidden_keys_in_plugins", "absent", key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect() -> FileExpect {
        serde_json::from_str(
            r#"{"json": true, "keys": ["cniVersion", "name", "plugins"], "name_pattern": "^[a-z]*$",
                "plugins_min": 1, "each_plugin": {"type": "no slash"},
                "forbidden_keys_in_plugins": ["args", "cni.dev/*"], "cniVersion": "one of ${SUPPORTED}",
                "written": "atomically (rename), readable only after the agent can serve ADD"}"#,
        )
        .expect("an expectation")
    }

    fn misses(text: &str) -> Vec<String> {
        judge(&expect(), text, &["1.1.0".to_owned()]).into_iter().map(|miss| miss.what).collect()
    }

    #[test]
    fn a_list_as_expected_passes() {
        let none: [&str; 0] = [];
        assert_eq!(misses(r#"{"cniVersion":"1.1.0","name":"rhumb","plugins":[{"type":"rhumb-cni"}]}"#), none);
        assert!(unknown_phrases(&expect()).is_empty());
    }

    #[test]
    fn each_difference_is_named() {
        assert_eq!(misses("{"), ["json"]);
        assert_eq!(
            misses(r#"{"cniVersion":"0.1.0","name":"R","plugins":[]}"#),
            ["name_pattern", "cniVersion", "plugins_min"]
        );
        assert_eq!(
            misses(r#"{"cniVersion":"1.1.0","name":"r","plugins":[{"type":"a/b","cni.dev/x":1}]}"#),
            ["each_plugin.type", "forbidden_keys_in_plugins"]
        );
    }

    #[test]
    fn a_phrase_without_meaning_here_is_told() {
        let expect = FileExpect { written: Some("by hand at night".to_owned()), ..expect() };
        assert_eq!(unknown_phrases(&expect), ["by hand at night"]);
    }
}
