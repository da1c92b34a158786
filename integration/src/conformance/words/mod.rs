// SPDX-License-Identifier: Apache-2.0
//! The words of case files, each with the code that it stands for. A word is the text of the file as it stands
//! there, with its variables unexpanded.

mod addresses;
mod chaining;
mod effects;
mod interfaces;
mod pre;
mod state;
mod traffic;

pub(crate) use state::POOL_WITH_BOTH_FAMILIES;

use anyhow::Result;
use serde_json::Value;

use super::conflist;
use super::expect::Miss;
use super::result;
use super::scene::Scene;
use super::schema::{Action, Case, Expect, Repeat};
use super::variables::{NAMES, names_in};

/// What a word stands for: something to do, or something to look at which fails when it is not so.
pub(crate) type Deed = fn(&mut Scene<'_>) -> Result<()>;

/// How often a step runs, in words.
pub(crate) const UNTIL_EMPTY: &str = "until the pool of a /29 is empty";

/// What the result of a chained ADD equals, in words that begin with this one.
pub(crate) const PREVIOUS: &str = "prevResult";

/// The preparation that a word names.
pub(crate) fn preparation(word: &str) -> Option<Deed> {
    look_up(pre::WORDS, word)
}

/// The effect that a word names.
pub(crate) fn effect(word: &str) -> Option<Deed> {
    look_up(effects::WORDS, word)
}

fn look_up(words: &[(&str, Deed)], word: &str) -> Option<Deed> {
    let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
    words.iter().find(|(known, _)| *known == word).map(|(_, deed)| *deed)
}

/// Every word and phrase of a case that has no meaning here.
pub(crate) fn unknown(case: &Case) -> Vec<String> {
    let mut unknown: Vec<String> =
        case.state.iter().filter(|word| !state::WORDS.contains(&word.as_str())).cloned().collect();
    unknown.extend(unknown_variables(case));
    for step in &case.steps {
        unknown.extend(step.pre.iter().filter(|word| preparation(word).is_none()).cloned());
        match &step.action {
            Action::Call { expect, .. } => unknown.extend(unknown_in(expect)),
            Action::File { expect, .. } => unknown.extend(conflist::unknown_phrases(expect)),
            Action::Runtime { .. } => {}
        }
    }
    unknown
}

/// Variables that nothing gives a value.
fn unknown_variables(case: &Case) -> Vec<String> {
    let mut known: Vec<&str> = NAMES.to_vec();
    let mut unknown = Vec::new();
    for step in &case.steps {
        let used = match &step.action {
            Action::Call { env, stdin, expect } => {
                known.extend(expect.save.as_deref());
                let texts = env.values().chain(&expect.msg_contains).chain(&expect.details_contains);
                let mut used = names_in(stdin);
                used.extend(texts.flat_map(|text| names_in(&Value::String(text.clone()))));
                used.extend([&expect.stdout, &expect.result].into_iter().flatten().flat_map(names_in));
                used
            }
            Action::Runtime { conflist, .. } => names_in(conflist),
            Action::File { .. } => Vec::new(),
        };
        let missing = used.into_iter().filter(|name| !known.contains(&name.as_str()));
        unknown.extend(missing.map(|name| format!("${{{name}}}")));
    }
    unknown
}

fn unknown_in(expect: &Expect) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    unknown.extend(expect.effects.iter().filter(|word| effect(word).is_none()).cloned());
    if let Some(shape) = &expect.result {
        unknown.extend(result::unknown_phrases(shape));
    }
    if let Some(Repeat::Words(words)) = &expect.repeat
        && words != UNTIL_EMPTY
    {
        unknown.push(words.clone());
    }
    if let Some(phrase) = &expect.result_equals
        && !phrase.starts_with(PREVIOUS)
        && !phrase.starts_with("${")
    {
        unknown.push(phrase.clone());
    }
    unknown.extend(expect.any_of.iter().chain(expect.each.as_deref()).flat_map(unknown_in));
    unknown
}

/// Looks whether an effect is there.
pub(crate) fn look(word: &str, scene: &mut Scene<'_>) -> Option<Miss> {
    let deed = effect(word)?;
    deed(scene).err().map(|error| Miss::new("effect", word, format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::schema::CaseFile;

    const CASES: &str = include_str!("../../../cases/cni.yaml");
    const MORE: &str = include_str!("../../../cases/cni-more.yaml");
    const LIST: &str = include_str!("../../../cases/cni-words.md");

    fn listed(heading: &str) -> Vec<&'static str> {
        let section = LIST.split("\n## ").find(|section| section.starts_with(heading)).expect("a section");
        section.lines().filter_map(|line| line.strip_prefix("- ")).collect()
    }

    #[test]
    fn every_listed_word_has_its_code() {
        assert_eq!(listed("state"), state::WORDS);
        let (pre, effects) = (listed("pre"), listed("effects"));
        assert!(pre.len() > 20 && effects.len() > 60);
        let missing: Vec<_> = pre.into_iter().filter(|word| preparation(word).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let missing: Vec<_> = effects.into_iter().filter(|word| effect(word).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_case_is_understood() {
        for text in [CASES, MORE] {
            for case in CaseFile::parse(text).expect("a case file").cases {
                let case = case.expect("a case of the schema");
                assert!(unknown(&case).is_empty(), "{}: {:?}", case.id, unknown(&case));
            }
        }
    }

    #[test]
    fn every_listed_word_is_used_by_a_case() {
        let unused = |word: &&str| !CASES.contains(*word) && !MORE.contains(*word);
        let unused: Vec<_> =
            ["state", "pre", "effects"].into_iter().flat_map(listed).filter(|word| unused(word)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn an_unknown_word_is_found_wherever_it_is() {
        let text = "
plugin: {supportedVersions: [1.1.0]}
cases:
- id: X
  name: x
  versions: [1.1.0]
  basis: spec
  state: pool of the moon
  steps:
  - pre: [stop the agent, dance]
    env: {CNI_COMMAND: ADD, CNI_NETNS: '${NS}-${MOON}'}
    expect: {any_of: [{effects: [eth0 still works, eth0 sings]}], repeat: until it rains}
";
        let file = CaseFile::parse(text).expect("a case file");
        let case = file.cases[0].as_ref().expect("a case");
        assert_eq!(unknown(case), ["pool of the moon", "${MOON}", "dance", "until it rains", "eth0 sings"]);
    }
}
