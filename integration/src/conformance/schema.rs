// SPDX-License-Identifier: Apache-2.0
//! The case file: what it may say. The head of a file explains it for people.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A case file.
#[derive(Debug)]
pub(crate) struct CaseFile {
    /// What the file supposes about the plugin.
    pub(crate) plugin: PluginFacts,
    /// The cases in the order of the file; one that does not follow the schema says so when it is run.
    pub(crate) cases: Vec<Result<Case, MalformedCase>>,
}

/// What a case file supposes about the plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PluginFacts {
    /// Versions of the specification, lowest first.
    pub(crate) supported_versions: Vec<String>,
    #[serde(default, rename = "mode")]
    _mode: Option<String>,
}

/// A case that does not follow the schema: its id, the field, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{field}: {reason}")]
pub(crate) struct MalformedCase {
    /// Its id, or its place in the file.
    pub(crate) id: String,
    /// Path of the field inside the case.
    pub(crate) field: String,
    /// What is wrong there.
    pub(crate) reason: String,
}

/// Why a file is no case file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    /// The text is not YAML.
    #[error("read the case file as YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// Its head does not follow the schema.
    #[error("field {field} of the case file")]
    Head {
        /// Path of the field.
        field: String,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
}

/// What backs a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Basis {
    /// The text of the specification.
    Spec,
    /// Behaviour of the reference library.
    Libcni,
    /// Behaviour of the reference plugins.
    Majority,
    /// Settled by nobody; decided for this project.
    LabChoice,
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spec => "the specification",
            Self::Libcni => "the reference library",
            Self::Majority => "the reference plugins",
            Self::LabChoice => "a choice of this project",
        })
    }
}

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its id, for example `CN001`.
    pub(crate) id: String,
    /// What it shows.
    pub(crate) name: String,
    /// Versions of the specification with each of which it is run.
    pub(crate) versions: Vec<String>,
    /// What backs it.
    pub(crate) basis: Basis,
    /// State that it begins with, in words.
    pub(crate) state: Vec<String>,
    /// What it does.
    pub(crate) steps: Vec<Step>,
}

/// One step of a case.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What comes first, in words.
    pub(crate) pre: Vec<String>,
    /// What is done and what must come of it.
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Runs the plugin.
    Call {
        /// The whole `CNI_*` environment.
        env: BTreeMap<String, String>,
        /// Standard input: a string is taken as it is, anything else as JSON.
        stdin: Value,
        /// What must come of it.
        expect: Box<Expect>,
    },
    /// Looks at a configuration file that the agent wrote.
    File {
        /// Pattern of its path.
        pattern: String,
        /// What it must be like.
        expect: Box<FileExpect>,
    },
    /// Lets a runtime work through a configuration list.
    Runtime {
        /// The list.
        conflist: Value,
        /// What it must do.
        expect: RuntimeExpect,
    },
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this status.
    Status(i32),
    /// With any other status than 0.
    Nonzero,
}

impl<'de> Deserialize<'de> for Exit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match OneOf::deserialize(deserializer)? {
            OneOf::Number(status) => Ok(Self::Status(status)),
            OneOf::Word(word) if word == "nonzero" => Ok(Self::Nonzero),
            OneOf::Word(word) => {
                Err(serde::de::Error::custom(format!("expected a status or nonzero, got {word:?}")))
            }
        }
    }
}

/// An error code that a case accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// This one.
    Exactly(i64),
    /// This one or a higher one.
    AtLeast(i64),
    /// Whichever.
    Any,
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match OneOf::deserialize(deserializer)? {
            OneOf::Number(code) => Ok(Self::Exactly(code.into())),
            OneOf::Word(word) if word == "any" => Ok(Self::Any),
            OneOf::Word(word) => {
                word.strip_suffix('+').and_then(|code| code.parse().ok()).map(Self::AtLeast).ok_or_else(
                    || serde::de::Error::custom(format!("expected a code, 100+ or any, got {word:?}")),
                )
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOf {
    Number(i32),
    Word(String),
}

/// What must come of running the plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// How it ends.
    pub(crate) exit: Option<Exit>,
    /// Error codes, one of which it gives.
    pub(crate) code: Option<Vec<Code>>,
    /// Parts of the error's `msg`.
    #[serde(default)]
    pub(crate) msg_contains: Vec<String>,
    /// Parts of the error's `details`.
    #[serde(default)]
    pub(crate) details_contains: Vec<String>,
    /// What it prints: a list for a single value names alternatives.
    pub(crate) stdout: Option<Value>,
    /// Whether it prints nothing.
    pub(crate) stdout_empty: Option<bool>,
    /// Whether it prints one JSON object and nothing else.
    pub(crate) stdout_single_json: Option<bool>,
    /// Keys that the printed object has.
    pub(crate) stdout_keys: Option<Vec<String>>,
    /// Keys that it may have beside those.
    pub(crate) stdout_optional_keys: Option<Vec<String>>,
    /// Shape of the ADD result.
    pub(crate) result: Option<Value>,
    /// What the result equals, in words.
    pub(crate) result_equals: Option<String>,
    /// Whether the result carries the `dns` of the configuration.
    pub(crate) result_dns_equals_config: Option<bool>,
    /// Whether the order of the interfaces is the same every time.
    pub(crate) same_order_as_check: Option<bool>,
    /// Whether a word about itself on stderr and status 0 will do as well.
    pub(crate) or_about_on_stderr: Option<bool>,
    /// Under which name what it printed is remembered.
    pub(crate) save: Option<String>,
    /// State to find afterwards, in words.
    #[serde(default)]
    pub(crate) effects: Vec<String>,
    /// Alternatives.
    #[serde(default)]
    pub(crate) any_of: Vec<Expect>,
    /// How many run at once, with `${i}` from 1 on.
    pub(crate) parallel: Option<usize>,
    /// What each of several runs must do.
    pub(crate) each: Option<Box<Expect>>,
    /// How often it runs, one after the other.
    pub(crate) repeat: Option<Repeat>,
    /// Within which time it ends.
    pub(crate) within_seconds: Option<f64>,
}

/// How often a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Repeat {
    /// So many times.
    Times(usize),
    /// In words.
    Words(String),
}

/// What a configuration file must be like.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileExpect {
    /// Whether it is JSON.
    pub(crate) json: Option<bool>,
    /// Keys that it has.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    /// Pattern of its `name`.
    pub(crate) name_pattern: Option<String>,
    /// How many plugins it lists at least.
    pub(crate) plugins_min: Option<usize>,
    /// What each plugin is like.
    pub(crate) each_plugin: Option<BTreeMap<String, String>>,
    /// Keys that no plugin has; a `*` at the end stands for anything.
    #[serde(default)]
    pub(crate) forbidden_keys_in_plugins: Vec<String>,
    /// How it comes about, in words.
    pub(crate) written: Option<String>,
    /// Its version, in words.
    #[serde(rename = "cniVersion")]
    pub(crate) cni_version: Option<String>,
}

/// What a runtime must do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuntimeExpect {
    /// Commands that reach the plugin.
    #[serde(default)]
    pub(crate) runtime_calls: Vec<String>,
    /// Commands that do not.
    #[serde(default)]
    pub(crate) runtime_does_not_call: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    plugin: PluginFacts,
    cases: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    id: String,
    name: String,
    #[serde(default, rename = "source")]
    _source: Vec<String>,
    #[serde(default, rename = "tags")]
    _tags: Vec<String>,
    versions: Vec<String>,
    basis: Basis,
    #[serde(default)]
    state: Words,
    #[serde(default, rename = "note")]
    _note: Option<String>,
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    #[serde(default)]
    pre: Words,
    env: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    stdin: Value,
    file: Option<Value>,
    expect: Value,
    #[serde(default, rename = "decided_by")]
    _decided_by: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Words {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Words {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        }
    }
}

impl CaseFile {
    /// Reads the text of a case file.
    ///
    /// # Errors
    /// When it is not YAML, or its head is not as the schema says. A single case that is not comes as an element.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let value: Value = serde_yaml_ng::from_str(text)?;
        let head: Head = serde_path_to_error::deserialize(value).map_err(|error| ParseError::Head {
            field: error.path().to_string(),
            source: error.into_inner(),
        })?;
        let cases = head.cases.into_iter().enumerate().map(|(index, case)| read_case(index, case)).collect();
        Ok(Self { plugin: head.plugin, cases })
    }
}

fn read_case(index: usize, value: Value) -> Result<Case, MalformedCase> {
    let id = value["id"].as_str().map_or_else(|| format!("case {}", index + 1), str::to_owned);
    let raw: RawCase = read(value, "").map_err(|error| error.of(&id))?;
    let steps = raw.steps.into_iter().enumerate();
    let steps = steps.map(|(index, step)| read_step(index, step).map_err(|error| error.of(&id)));
    Ok(Case {
        steps: steps.collect::<Result<_, _>>()?,
        id: raw.id,
        name: raw.name,
        versions: raw.versions,
        basis: raw.basis,
        state: raw.state.into_list(),
    })
}

fn read_step(index: usize, raw: RawStep) -> Result<Step, Wrong> {
    let prefix = format!("steps[{index}].expect.");
    let action = match (raw.env, raw.file) {
        (Some(env), None) => Action::Call {
            env: env.into_iter().map(|(name, value)| (name, text_of(&value))).collect(),
            stdin: raw.stdin,
            expect: read(raw.expect, &prefix)?,
        },
        (None, Some(Value::String(pattern))) => Action::File { pattern, expect: read(raw.expect, &prefix)? },
        (None, Some(conflist)) => Action::Runtime { conflist, expect: read(raw.expect, &prefix)? },
        (None, None) | (Some(_), Some(_)) => {
            return Err(Wrong {
                field: format!("steps[{index}]"),
                reason: "has either env or file, and not both".to_owned(),
            });
        }
    };
    Ok(Step { pre: raw.pre.into_list(), action })
}

struct Wrong {
    field: String,
    reason: String,
}

impl Wrong {
    fn of(self, id: &str) -> MalformedCase {
        MalformedCase { id: id.to_owned(), field: self.field, reason: self.reason }
    }
}

fn read<T: DeserializeOwned>(value: Value, prefix: &str) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(value).map_err(|error| Wrong {
        field: format!("{prefix}{}", error.path()),
        reason: error.into_inner().to_string(),
    })
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../cases/cni.yaml");

    #[test]
    fn every_case_of_the_file_follows_the_schema() {
        let file = CaseFile::parse(FILE).expect("a case file");
        assert_eq!(file.cases.len(), 86);
        for case in &file.cases {
            if let Err(error) = case {
                panic!("{}: {error}", error.id);
            }
        }
        assert_eq!(file.plugin.supported_versions, ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    }

    #[test]
    fn an_unknown_field_is_named_with_its_case_and_the_rest_is_read() {
        let text = "
plugin: {supportedVersions: [1.1.0]}
cases:
- {id: X1, name: a, versions: [1.1.0], basis: spec, steps: [{env: {}, expect: {exit: 0, colour: red}}]}
- {id: X2, name: b, versions: [1.1.0], basis: spec, steps: [{env: {}, expect: {exit: 0}}]}
";
        let file = CaseFile::parse(text).expect("a case file");
        let wrong = file.cases[0].as_ref().expect_err("an unknown field");
        assert_eq!(wrong.id, "X1");
        assert!(wrong.field.contains("steps[0].expect") && wrong.to_string().contains("colour"), "{wrong}");
        assert!(file.cases[1].is_ok());
    }

    #[test]
    fn codes_and_exits_are_numbers_or_words() {
        let expect: Expect = serde_json::from_str(r#"{"exit": "nonzero", "code": [11, "100+", "any"]}"#)
            .expect("an expectation");
        assert_eq!(expect.exit, Some(Exit::Nonzero));
        assert_eq!(expect.code, Some(vec![Code::Exactly(11), Code::AtLeast(100), Code::Any]));
        assert!(serde_json::from_str::<Expect>(r#"{"exit": "maybe"}"#).is_err());
    }
}
