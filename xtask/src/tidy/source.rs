// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::Path;

use anyhow::Context;

/// Folders of built or found things.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts"];

/// A text file of the tree.
pub(crate) struct Source {
    /// From the top folder, with `/` between the parts.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

impl Source {
    /// The file's name without its folder.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines up to the tests, which stand last in a file; none for a file of tests.
    pub(crate) fn lines_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.path.contains("/tests/") || self.name() == "tests.rs";
        let lines = self.text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        lines.filter(move |_| !tests)
    }
}

/// Reads every text file under `root`, in the order of their paths.
pub(crate) fn walk(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    enter(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn enter(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            enter(&entry.path(), &format!("{prefix}{name}/"), sources)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("read {prefix}{name}"))?;
            // What is not text is an input of a test or a fuzzer.
            if let Ok(text) = String::from_utf8(bytes) {
                sources.push(Source { path: format!("{prefix}{name}"), text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_are_left_out() {
        let both = source("model/src/a.rs", "one\n#[cfg(test)]\nmod tests {}\n");
        assert_eq!(both.lines_before_tests().collect::<Vec<_>>(), [(0, "one")]);
        assert_eq!(source("model/tests/a.rs", "one\n").lines_before_tests().count(), 0);
        assert_eq!(source("model/src/a/tests.rs", "one\n").lines_before_tests().count(), 0);
    }
}
