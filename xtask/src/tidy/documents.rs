// SPDX-License-Identifier: Apache-2.0
//! Paths and tests in documents: a document that names a file, a test file or, as `file.rs::function`, a function names
//! one that exists, so that a reader can follow it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Finding;
use super::source::Source;

/// Ends of names that are files of this tree.
const ENDS: &[&str] = &[".rs", ".md", ".toml", ".yaml", "/"];

/// The test files of all crates, by the names that cargo knows them by.
pub(crate) fn tests(sources: &[Source]) -> BTreeSet<&str> {
    let files = sources.iter().filter_map(|source| source.path.strip_suffix(".rs"));
    let names = files.filter_map(|path| path.split_once("/tests/")).map(|(_, name)| name);
    // A folder with a main file is one test, too.
    names.map(|name| name.strip_suffix("/main").unwrap_or(name)).collect()
}

/// Finds paths between backticks that lead nowhere, from the top folder or from the document's own, and commands that
/// run tests that there are not.
pub(crate) fn check(source: &Source, root: &Path, tests: &BTreeSet<&str>) -> Vec<Finding> {
    if !source.path.ends_with(".md") {
        return Vec::new();
    }
    let folder = root.join(&source.path);
    let exists = |path: &str| root.join(path).exists() || folder.with_file_name(path).exists();
    let mut findings = Vec::new();
    for (number, path) in paths(&source.text) {
        if !exists(path) {
            findings.push(Finding::at(source, number, format!("`{path}` does not exist")));
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        for name in run_by(line).filter(|name| !tests.contains(name)) {
            findings.push(Finding::at(source, number, format!("there is no test file {name}")));
        }
    }
    for (number, word) in quoted(&source.text) {
        if let Some((path, function)) = function(word)
            && !has_function(&root.join(path), function)
        {
            findings.push(Finding::at(source, number, format!("`{path}` has no function `{function}`")));
        }
    }
    findings
}

/// Names of the test files that the commands of a line run.
fn run_by(line: &str) -> impl Iterator<Item = &str> {
    let commands = line.split("--test ").skip(1);
    commands.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next())
}

/// File and function of a word of the form `file.rs::function`.
fn function(word: &str) -> Option<(&str, &str)> {
    let (path, function) = word.split_once("::")?;
    let is_name = function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_path(path) && path.ends_with(".rs") && is_name).then_some((path, function))
}

fn has_function(path: &Path, function: &str) -> bool {
    let head = format!("fn {function}(");
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with(&head)))
}

/// Words between backticks that are paths of this tree, with their line.
fn paths(text: &str) -> Vec<(usize, &str)> {
    quoted(text).into_iter().filter(|(_, word)| is_path(word)).collect()
}

/// Words between backticks, with their line; fenced blocks are commands or pictures.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|word| (number, word)));
        }
    }
    found
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    word.contains('/')
        && !word.starts_with('/')
        // What is built is not there before it is built.
        && !word.starts_with("target/")
        && word.chars().all(plain)
        && ENDS.iter().any(|end| word.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::super::source::source;
    use super::*;

    #[test]
    fn a_test_that_is_run_is_there() {
        let sources = [
            source("a/tests/root_a.rs", ""),
            source("a/tests/c/main.rs", ""),
            source("a/tests/lab/mod.rs", ""),
        ];
        let text = "| `cargo test -p a --test root_a --test c --test root_b -- --test-threads=1` |\n";
        let found = check(&source("README.md", text), Path::new("/"), &tests(&sources));
        assert_eq!(found, [Finding::new("README.md:1", "there is no test file root_b")]);
    }

    #[test]
    fn paths_are_told_from_other_words() {
        let text = "see `ipam/src/pool.rs` and `docs/adr/`\nnot `/run/rhumb/agent.sock`, `a b/c.rs`, `x/y`\n\
                    ```\n`no/such.rs`\n```\n";
        assert_eq!(paths(text), [(0, "ipam/src/pool.rs"), (0, "docs/adr/")]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(check(&source("A.md", "`src/main.rs`\n"), root, &BTreeSet::new()), []);
        assert_eq!(check(&source("A.md", "\n`src/absent.rs`\n"), root, &BTreeSet::new())[0].place, "A.md:2");
        assert_eq!(check(&source("src/A.rs", "`src/absent.rs`\n"), root, &BTreeSet::new()), []);
    }

    #[test]
    fn a_function_that_is_not_in_its_file_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = |word: &str| check(&source("A.md", &format!("`{word}`\n")), root, &BTreeSet::new()).len();
        assert_eq!(found("src/tidy/documents.rs::has_function"), 0);
        assert_eq!(found("src/tidy/documents.rs::has_funct"), 1);
        assert_eq!(found("src/absent.rs::has_function"), 1);
        assert_eq!(found("tracing::info"), 0, "no file");
    }
}
