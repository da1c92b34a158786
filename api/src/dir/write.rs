// SPDX-License-Identifier: Apache-2.0
//! Create, update, patch and delete: read, decide and write under the lock that all processes share.
//!
//! ```text
//!   lock ─► take in all news ─► read the file again ─► decide ─► temporary file, fsync ─► still as read? ─► rename
//! ```
//! Whoever has the lock has seen every write of its predecessors, as the kernel tells of a rename before it returns.

use std::io;
use std::time::Instant;

use serde_json::Value;

use super::catalogue::Standing;
use super::document::{self, Document, ObjectId, Stored};
use super::loader::Loader;
use super::place::{Contents, Entered, Held};
use super::scanner::Shared;
use super::text::{self, Section};
use super::yaml;
use crate::{Problem, StoreError};

/// How often a write begins again because a person saves the same file at the same time.
const ATTEMPTS: usize = 16;

/// What is to become of an object.
pub(super) enum Edit {
    Keep,
    Replace(Value),
    Remove,
}

/// Why a write is not possible now.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error("the file must be mended first: {0}")]
    Broken(Problem),
    #[error("the file changes all the time")]
    Restless,
    #[error("the file would not read afterwards as it should")]
    Unreadable,
}

/// The right to write, for as long as it lives.
pub(super) struct Session<'a> {
    pub(super) shared: &'a Shared,
    pub(super) loader: &'a mut Loader,
    pub(super) entered: Entered,
    pub(super) held: Held,
}

/// A document as it is on disk.
struct Found {
    id: ObjectId,
    file: String,
    /// Which of the documents of the file.
    number: usize,
    contents: Contents,
    section: Section,
    is_alone: bool,
    value: Value,
    stored: Stored,
}

impl Session<'_> {
    /// Writes a new object into a file of its own.
    pub(super) fn create(&mut self, id: &ObjectId, value: Value) -> Result<Stored, StoreError> {
        match self.loader.catalogue().standing(id) {
            Standing::Absent => {}
            Standing::At { .. } => {
                return Err(StoreError::AlreadyExists { kind: id.kind.info().kind, key: id.key.clone() });
            }
            Standing::Broken(problem) => return Err(hindered(Hindrance::Broken(problem))),
        }
        let document = document::write(value, None, document::Form::Yaml);
        let stored = readable(id, &document)?;
        for number in 1..=ATTEMPTS {
            let name = file_name(id, number);
            if self.entered.create(&name, document.as_bytes(), &self.held).map_err(not_written)? {
                self.refresh();
                return Ok(stored);
            }
        }
        Err(hindered(Hindrance::Restless))
    }

    /// Decides what is to become of an object, and does it. Returns the object as it was or became.
    pub(super) fn edit(
        &mut self,
        id: &ObjectId,
        decide: impl Fn(&Value, &Stored) -> Result<Edit, StoreError>,
    ) -> Result<Stored, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(found) = self.find(id)? else { continue };
            let (done, stored) = match decide(&found.value, &found.stored)? {
                Edit::Keep => return Ok(found.stored),
                Edit::Replace(value) => self.replace(id, &found, value)?,
                Edit::Remove => self.remove(&found)?,
            };
            self.refresh();
            if done {
                return Ok(stored);
            }
        }
        Err(hindered(Hindrance::Restless))
    }

    /// Brings the view up to date with what was written, which the kernel has told of already.
    fn refresh(&mut self) {
        self.loader.refresh(&self.shared.view, Instant::now());
    }

    /// Reads the document of an object. `None` when its file was other than known, and was read again.
    fn find(&mut self, id: &ObjectId) -> Result<Option<Found>, StoreError> {
        let (file, number) = match self.loader.catalogue().standing(id) {
            Standing::At { file, section } => (file, section),
            Standing::Broken(problem) => return Err(hindered(Hindrance::Broken(problem))),
            Standing::Absent => {
                return Err(StoreError::NotFound { kind: id.kind.info().kind, key: id.key.clone() });
            }
        };
        let contents = self.entered.read(&file).map_err(not_written)?;
        let unchanged = contents.filter(|contents| {
            self.loader.catalogue().digest(&file) == Some(document::digest(&contents.bytes))
        });
        let Some(contents) = unchanged else {
            self.loader.read_again(&file, &self.shared.view);
            return Ok(None);
        };
        let text = text_of(&contents);
        let mut sections = text::sections(text);
        let is_alone = sections.len() == 1;
        let section = sections.swap_remove(number);
        let document = &text[section.range.clone()];
        let stored = readable(id, document)?;
        let value = yaml::read_value(document).map_err(|_| hindered(Hindrance::Unreadable))?;
        Ok(Some(Found { id: id.clone(), file, number, section, is_alone, value, stored, contents }))
    }

    fn replace(&self, id: &ObjectId, found: &Found, value: Value) -> Result<(bool, Stored), StoreError> {
        let form = if found.file.ends_with(".json") { document::Form::Json } else { document::Form::Yaml };
        let document = document::write(value, Some(&found.value), form);
        let stored = readable(id, &document)?;
        let text = text::replace(text_of(&found.contents), &found.section, &document);
        found.check(&text, Some(&stored))?;
        let done = self.entered.replace(&found.file, &found.contents, text.as_bytes(), &self.held);
        Ok((done.map_err(not_written)?, stored))
    }

    fn remove(&self, found: &Found) -> Result<(bool, Stored), StoreError> {
        if let Some(problem) = self.loader.catalogue().hinders_removal(&found.file, &found.id) {
            return Err(hindered(Hindrance::Broken(problem)));
        }
        let done = if found.is_alone {
            self.entered.delete(&found.file, &found.contents, &self.held)
        } else {
            let text = text::remove(text_of(&found.contents), &found.section);
            found.check(&text, None)?;
            self.entered.replace(&found.file, &found.contents, text.as_bytes(), &self.held)
        };
        Ok((done.map_err(not_written)?, found.stored.clone()))
    }
}

impl Found {
    /// Refuses a text in which another document is not what it was, or the new one not what it is to be.
    fn check(&self, text: &str, new: Option<&Stored>) -> Result<(), StoreError> {
        let mut before = documents(text_of(&self.contents));
        let mut after = documents(text);
        before.remove(self.number);
        let mut is_good = true;
        if let Some(new) = new {
            let document = if self.number < after.len() { after.remove(self.number) } else { "" };
            is_good = readable(&self.id, document)?.version == new.version;
        }
        if is_good && before == after { Ok(()) } else { Err(hindered(Hindrance::Unreadable)) }
    }
}

fn documents(text: &str) -> Vec<&str> {
    text::sections(text).into_iter().map(|section| &text[section.range]).collect()
}

fn text_of(contents: &Contents) -> &str {
    std::str::from_utf8(&contents.bytes).expect("a file with a good document is UTF-8")
}

/// Reads what is to be written as others will read it.
fn readable(id: &ObjectId, document: &str) -> Result<Stored, StoreError> {
    match document::read(document) {
        Document::Object(found, stored) if found == *id => Ok(stored),
        Document::Object(..) | Document::Foreign | Document::Broken(..) => {
            Err(hindered(Hindrance::Unreadable))
        }
    }
}

/// The name of the file for an object, with a number behind it when the plain name is taken.
fn file_name(id: &ObjectId, number: usize) -> String {
    let mut name = id.kind.info().kind.to_ascii_lowercase();
    name.push('-');
    // A namespace has no dot, so two keys never make one name.
    if let Some(namespace) = &id.key.namespace {
        name.push_str(namespace);
        name.push('.');
    }
    name.push_str(&id.key.name);
    if name.len() > 200 {
        let digest = document::digest(name.as_bytes());
        name.truncate(180);
        name.push_str(&format!("-{digest:016x}"));
    }
    if number > 1 {
        name.push_str(&format!("-{number}"));
    }
    name.push_str(".yaml");
    name
}

fn hindered(hindrance: Hindrance) -> StoreError {
    StoreError::Unavailable { doing: WRITE, source: Box::new(hindrance) }
}

pub(super) fn not_written(error: io::Error) -> StoreError {
    StoreError::Unavailable { doing: WRITE, source: Box::new(error) }
}

const WRITE: &str = "write to the object directory";
