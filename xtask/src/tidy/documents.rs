// SPDX-License-Identifier: Apache-2.0
//! Paths in documents: a document that names a file names one that exists, so that a reader can follow it.

use std::path::Path;

use super::Finding;
use super::source::Source;

/// Ends of names that are files of this tree.
const ENDS: &[&str] = &[".rs", ".md", ".toml", ".yaml", "/"];

/// Finds paths between backticks that lead nowhere, from the top folder or from the document's own.
pub(crate) fn check(source: &Source, root: &Path) -> Vec<Finding> {
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
    findings
}

/// Words between backticks that are paths of this tree, with their line; fenced blocks are commands or pictures.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let quoted = line.split('`').skip(1).step_by(2);
            found.extend(quoted.filter(|word| is_path(word)).map(|word| (number, word)));
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
    fn paths_are_told_from_other_words() {
        let text = "see `ipam/src/pool.rs` and `docs/adr/`\nnot `/run/rhumb/agent.sock`, `a b/c.rs`, `x/y`\n\
                    ```\n`no/such.rs`\n```\n";
        assert_eq!(paths(text), [(0, "ipam/src/pool.rs"), (0, "docs/adr/")]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(check(&source("A.md", "`src/main.rs`\n"), root), []);
        assert_eq!(check(&source("A.md", "\n`src/absent.rs`\n"), root)[0].place, "A.md:2");
        assert_eq!(check(&source("src/A.rs", "`src/absent.rs`\n"), root), []);
    }
}
