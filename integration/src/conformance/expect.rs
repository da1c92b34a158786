// SPDX-License-Identifier: Apache-2.0
//! What the plugin's exit status and output must be: judged from them alone, without a look at the machine.

use serde_json::Value;

use super::call::Outcome;
use super::schema::{Code, Exit, Expect};

/// Something that is not as the case says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Miss {
    /// Which expectation.
    pub(crate) what: String,
    /// What it says.
    pub(crate) expected: String,
    /// What was found.
    pub(crate) got: String,
}

impl Miss {
    /// Puts one together.
    pub(crate) fn new(what: impl Into<String>, expected: impl ToString, got: impl ToString) -> Self {
        Self { what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }
}

/// What a judgement needs to know beside the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The configuration as it was written to standard input, where it was JSON.
    pub(crate) config: Option<&'a Value>,
    /// Versions that the plugin supports, lowest first.
    pub(crate) supported: &'a [String],
}

/// Judges the exit status, the error object and the plain output; variables in `expect` are replaced already.
pub(crate) fn judge(expect: &Expect, outcome: &Outcome, facts: Facts<'_>) -> Vec<Miss> {
    let mut misses = Vec::new();
    if expect.or_about_on_stderr == Some(true) && told_about_itself(outcome) {
        return misses;
    }
    exit(expect, outcome, &mut misses);
    error_object(expect, outcome, &mut misses);
    plain_output(expect, outcome, facts, &mut misses);
    if let Some(limit) = expect.within_seconds
        && outcome.elapsed.as_secs_f64() > limit
    {
        misses.push(Miss::new(
            "within_seconds",
            format!("{limit} s"),
            format!("{:.1} s", outcome.elapsed.as_secs_f64()),
        ));
    }
    misses
}

fn told_about_itself(outcome: &Outcome) -> bool {
    outcome.status == 0 && outcome.stdout.trim().is_empty() && outcome.stderr.to_lowercase().contains("cni")
}

fn exit(expect: &Expect, outcome: &Outcome, misses: &mut Vec<Miss>) {
    let right = match expect.exit {
        None => return,
        Some(Exit::Status(status)) => outcome.status == status,
        Some(Exit::Nonzero) => outcome.status > 0,
    };
    if !right {
        let expected = match expect.exit {
            Some(Exit::Status(status)) => status.to_string(),
            Some(Exit::Nonzero) | None => "nonzero".to_owned(),
        };
        misses.push(Miss::new("exit", expected, outcome));
    }
}

fn error_object(expect: &Expect, outcome: &Outcome, misses: &mut Vec<Miss>) {
    let wanted =
        expect.code.is_some() || !expect.msg_contains.is_empty() || !expect.details_contains.is_empty();
    if !wanted {
        return;
    }
    let object = match outcome.json() {
        Ok(object) if object.is_object() => object,
        Ok(other) => return misses.push(Miss::new("error", "an error object on stdout", other)),
        Err(error) => return misses.push(Miss::new("error", "an error object on stdout", error)),
    };
    if let Some(codes) = &expect.code {
        let code = object["code"].as_i64();
        let accepted = code.is_some_and(|code| codes.iter().any(|accepted| accepted.admits(code)));
        if !accepted {
            let list = codes.iter().map(Code::to_string).collect::<Vec<_>>().join(" or ");
            misses.push(Miss::new("code", list, outcome));
        }
    }
    for (field, parts) in [("msg", &expect.msg_contains), ("details", &expect.details_contains)] {
        let text = object[field].as_str().unwrap_or_default();
        for part in parts.iter().filter(|part| !text.contains(part.as_str())) {
            misses.push(Miss::new(format!("{field}_contains"), part, format!("{text:?}")));
        }
    }
}

impl Code {
    fn admits(self, code: i64) -> bool {
        match self {
            Self::Exactly(wanted) => code == wanted,
            Self::AtLeast(least) => code >= least,
            Self::Any => code > 0,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(code) => write!(f, "{code}"),
            Self::AtLeast(code) => write!(f, "{code}+"),
            Self::Any => f.write_str("any"),
        }
    }
}

fn plain_output(expect: &Expect, outcome: &Outcome, facts: Facts<'_>, misses: &mut Vec<Miss>) {
    let printed = outcome.stdout.trim();
    if let Some(empty) = expect.stdout_empty
        && empty != printed.is_empty()
    {
        misses.push(Miss::new("stdout_empty", empty, format!("{printed:?}")));
    }
    if let Some(single) = expect.stdout_single_json
        && single != outcome.json().is_ok_and(|value| value.is_object())
    {
        misses.push(Miss::new("stdout_single_json", single, format!("{printed:?}")));
    }
    if let Some(template) = &expect.stdout {
        match outcome.json() {
            Ok(value) => compare("stdout", template, &value, facts, misses),
            Err(error) => misses.push(Miss::new("stdout", template, error)),
        }
    }
    if expect.stdout_keys.is_some() || expect.stdout_optional_keys.is_some() {
        keys(expect, outcome, misses);
    }
}

fn keys(expect: &Expect, outcome: &Outcome, misses: &mut Vec<Miss>) {
    let object = match outcome.json() {
        Ok(Value::Object(object)) => object,
        Ok(other) => return misses.push(Miss::new("stdout_keys", "an object", other)),
        Err(error) => return misses.push(Miss::new("stdout_keys", "an object", error)),
    };
    let required = expect.stdout_keys.as_deref().unwrap_or_default();
    for key in required.iter().filter(|key| !object.contains_key(*key)) {
        misses.push(Miss::new("stdout_keys", key, outcome.stdout.trim()));
    }
    if let Some(optional) = &expect.stdout_optional_keys {
        for key in object.keys().filter(|key| !required.contains(key) && !optional.contains(key)) {
            misses.push(Miss::new("stdout_optional_keys", optional.join(", "), format!("key {key}")));
        }
    }
}

/// Compares what was printed with a template: objects by the template's keys, lists as sets, and a list in the place
/// of a single value as alternatives, of which `input` is the configuration's value and `highest` the newest version.
fn compare(place: &str, template: &Value, actual: &Value, facts: Facts<'_>, misses: &mut Vec<Miss>) {
    match (template, actual) {
        (Value::Object(fields), Value::Object(_)) => {
            for (key, field) in fields {
                compare(&format!("{place}.{key}"), field, &actual[key], facts, misses);
            }
        }
        (Value::Array(wanted), Value::Array(found)) => {
            let same = wanted.len() == found.len() && wanted.iter().all(|item| found.contains(item));
            if !same {
                misses.push(Miss::new(place, template, actual));
            }
        }
        (Value::Array(alternatives), single) => {
            let key = place.rsplit('.').next().unwrap_or_default();
            if !alternatives.iter().any(|alternative| means(alternative, key, single, facts)) {
                misses.push(Miss::new(place, template, single));
            }
        }
        (wanted, found) => {
            let key = place.rsplit('.').next().unwrap_or_default();
            if !means(wanted, key, found, facts) {
                misses.push(Miss::new(place, wanted, found));
            }
        }
    }
}

fn means(alternative: &Value, key: &str, actual: &Value, facts: Facts<'_>) -> bool {
    match alternative.as_str() {
        Some("input") => facts.config.and_then(|config| config.get(key)).is_some_and(|input| input == actual),
        Some("highest") => facts.supported.last().is_some_and(|highest| actual == highest.as_str()),
        Some(_) | None => alternative == actual,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn outcome(status: i32, stdout: &str) -> Outcome {
        Outcome {
            status,
            stdout: stdout.to_owned(),
            stderr: String::new(),
            elapsed: Duration::from_millis(20),
        }
    }

    fn misses(expect: Value, outcome: &Outcome) -> Vec<String> {
        let expect: Expect = serde_json::from_value(expect).expect("an expectation");
        let supported = ["1.0.0".to_owned(), "1.1.0".to_owned()];
        let config = json!({"cniVersion": "1.0.0"});
        let facts = Facts { config: Some(&config), supported: &supported };
        judge(&expect, outcome, facts).into_iter().map(|miss| miss.what).collect()
    }

    #[test]
    fn status_and_code_are_compared() {
        let failed = outcome(1, r#"{"cniVersion": "1.1.0", "code": 4, "msg": "CNI_IFNAME is missing"}"#);
        let none: [&str; 0] = [];
        assert_eq!(misses(json!({"exit": "nonzero", "code": [4]}), &failed), none);
        assert_eq!(misses(json!({"exit": 0}), &failed), ["exit"]);
        assert_eq!(misses(json!({"code": ["100+", 7]}), &failed), ["code"]);
        assert_eq!(
            misses(json!({"code": ["any"], "msg_contains": ["CNI_IFNAME", "CNI_NETNS"]}), &failed),
            ["msg_contains"]
        );
    }

    #[test]
    fn an_error_code_needs_an_error_object() {
        assert_eq!(misses(json!({"exit": "nonzero", "code": ["any"]}), &outcome(1, "oops")), ["error"]);
    }

    #[test]
    fn a_plugin_killed_by_a_signal_did_not_exit_nonzero() {
        assert_eq!(misses(json!({"exit": "nonzero"}), &outcome(-9, "")), ["exit"]);
    }

    #[test]
    fn alternatives_of_the_output_are_the_input_or_the_highest_version() {
        let template = json!({"stdout": {"cniVersion": ["input", "highest"], "list": ["b", "a"]}});
        let none: [&str; 0] = [];
        for version in ["1.0.0", "1.1.0"] {
            let stdout = json!({"cniVersion": version, "list": ["a", "b"]}).to_string();
            assert_eq!(misses(template.clone(), &outcome(0, &stdout)), none);
        }
        let stdout = json!({"cniVersion": "0.4.0", "list": ["a"]}).to_string();
        assert_eq!(misses(template, &outcome(0, &stdout)), ["stdout.cniVersion", "stdout.list"]);
    }

    #[test]
    fn one_json_object_and_nothing_else() {
        let expect = json!({"stdout_single_json": true});
        assert!(misses(expect.clone(), &outcome(0, "{}\n")).is_empty());
        assert_eq!(misses(expect.clone(), &outcome(0, "{}{}")), ["stdout_single_json"]);
        assert_eq!(misses(expect, &outcome(0, "log\n{}")), ["stdout_single_json"]);
        assert_eq!(misses(json!({"stdout_empty": true}), &outcome(0, "{}")), ["stdout_empty"]);
    }

    #[test]
    fn keys_beyond_the_listed_ones_are_a_miss() {
        let expect = json!({"stdout_keys": ["code", "msg"], "stdout_optional_keys": ["details"]});
        assert!(misses(expect.clone(), &outcome(1, r#"{"code":1,"msg":"","details":""}"#)).is_empty());
        assert_eq!(
            misses(expect, &outcome(1, r#"{"code":1,"more":""}"#)),
            ["stdout_keys", "stdout_optional_keys"]
        );
    }

    #[test]
    fn a_word_about_itself_is_enough_where_the_case_says_so() {
        let expect = json!({"exit": "nonzero", "code": [4], "or_about_on_stderr": true});
        let mut about = outcome(0, "");
        about.stderr = "CNI plugin rhumb, versions 1.1.0".to_owned();
        assert!(misses(expect.clone(), &about).is_empty());
        assert!(!misses(expect, &outcome(0, "")).is_empty());
    }
}
