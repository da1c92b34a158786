// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask gen`: documents that are made from sources; `cargo xtask tidy` finds those that are out of date.

mod metrics;
mod reasons;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// A document and how it is made.
struct Document {
    path: &'static str,
    source: &'static str,
    /// The text, or nothing when the source has no table.
    make: fn(&str) -> Option<String>,
}

const DOCUMENTS: [Document; 2] = [reasons::DOCUMENT, metrics::DOCUMENT];

/// Writes every generated document.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    for document in DOCUMENTS {
        let path = root.join(document.path);
        fs::create_dir_all(path.parent().context("the document is in a folder")?)?;
        fs::write(&path, document.text(root)?).with_context(|| format!("write {}", document.path))?;
        println!("wrote {}", document.path);
    }
    Ok(())
}

/// The generated documents that are not as they would be written now.
pub(crate) fn stale(root: &Path) -> anyhow::Result<Vec<&'static str>> {
    let mut stale = Vec::new();
    for document in DOCUMENTS {
        let written = fs::read_to_string(root.join(document.path)).unwrap_or_default();
        if written != document.text(root)? {
            stale.push(document.path);
        }
    }
    Ok(stale)
}

impl Document {
    fn text(&self, root: &Path) -> anyhow::Result<String> {
        let source =
            fs::read_to_string(root.join(self.source)).with_context(|| format!("read {}", self.source))?;
        let Some(text) = (self.make)(&source) else { bail!("{} has no table", self.source) };
        Ok(text)
    }
}

/// The lines of the macro call that begins with `head`, up to its end.
fn table<'a>(source: &'a str, head: &'a str) -> impl Iterator<Item = &'a str> {
    source.lines().skip_while(move |line| *line != head).take_while(|line| *line != "}")
}
