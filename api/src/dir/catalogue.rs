// SPDX-License-Identifier: Apache-2.0
//! What stands in which file, and which of it is in force.
//!
//! An object is in force as its owner has it, the file that it came from. While the owner is missing for a moment, or
//! cannot be read, or holds a document that may be the object, the last good version stays. Another file with a good
//! version of an object whose owner has none takes over at once, so that moving an object is no removal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant, SystemTime};

use super::document::{self, Document, ObjectId, Stored};
use super::place::{Contents, Entered, Stamp};
use super::text;
use super::yaml::Fault;
use crate::Problem;

/// How long a file may be missing or empty before its objects are removed: editors rename or truncate before they
/// write, and a directory may be removed file by file.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// What a look at the files changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) put: Vec<(ObjectId, Stored)>,
    pub(super) gone: Vec<ObjectId>,
}

/// Where an object stands on disk.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nowhere.
    Absent,
    /// In the document of this number in this file.
    At { file: String, section: usize },
    /// In a file that must be mended first.
    Broken(Problem),
}

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    files: BTreeMap<String, FileState>,
    /// Files that name an object, in a good document or a broken one.
    named_in: BTreeMap<ObjectId, BTreeSet<String>>,
    owner: BTreeMap<ObjectId, String>,
    /// Objects with more than one good document.
    double: BTreeSet<ObjectId>,
    /// Files that could not be read as a whole, or not all of it.
    faulty: BTreeSet<String>,
    /// Objects to be decided anew.
    touched: BTreeSet<ObjectId>,
}

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    settled: bool,
    digest: u64,
    /// The documents in order, each with the lines before it.
    sections: Vec<(usize, Document)>,
    /// Why the file as a whole could not be read.
    fault: Option<Fault>,
    /// When the file is missing or empty: when this is believed.
    gone_at: Option<Instant>,
    /// Objects in force that come from this file.
    owns: BTreeSet<ObjectId>,
}

impl Catalogue {
    /// Whether any object is in force.
    pub(super) fn is_empty(&self) -> bool {
        self.owner.is_empty()
    }

    /// When the next missing file is given up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.files.values().filter_map(|file| file.gone_at).min()
    }

    /// The files that may be other than they were when they were read: new, missing, or of another stamp.
    pub(super) fn suspects(&self, entered: &Entered) -> io::Result<BTreeSet<String>> {
        let mut names: BTreeSet<String> = entered.names()?.into_iter().collect();
        names.retain(|name| {
            let known = self.files.get(name).filter(|file| file.settled && file.gone_at.is_none());
            known.is_none_or(|file| entered.stamp(name).ok().flatten() != file.stamp)
        });
        let missing = self.files.keys().filter(|name| !matches!(entered.stamp(name), Ok(Some(_))));
        names.extend(missing.cloned());
        Ok(names)
    }

    /// Takes a file as it was read. If it is missing or empty, its objects stay until `gone_at`.
    pub(super) fn take(&mut self, name: &str, read: io::Result<Option<Contents>>, gone_at: Instant) {
        match read {
            Ok(Some(contents)) => self.take_contents(name, &contents, gone_at),
            Ok(None) => self.miss(name, gone_at),
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                let fault = Fault { position: None, field: None, message };
                self.set(name, FileState { fault: Some(fault), ..FileState::default() });
            }
        }
    }

    fn take_contents(&mut self, name: &str, contents: &Contents, gone_at: Instant) {
        let digest = document::digest(&contents.bytes);
        let (stamp, settled) = (Some(contents.stamp), contents.stamp.is_settled(SystemTime::now()));
        if let Some(known) = self.files.get_mut(name)
            && known.stamp.is_some()
            && known.digest == digest
        {
            (known.stamp, known.settled) = (stamp, settled);
            if known.gone_at.take().is_some() {
                self.touch(name);
            }
            return;
        }
        if contents.bytes.iter().all(u8::is_ascii_whitespace) && self.files.contains_key(name) {
            return self.miss(name, gone_at);
        }
        let (sections, fault) = match std::str::from_utf8(&contents.bytes) {
            Ok(text) => (read_sections(text), None),
            Err(error) => (Vec::new(), Some(no_utf8(&contents.bytes[..error.valid_up_to()]))),
        };
        self.set(name, FileState { stamp, settled, digest, sections, fault, ..FileState::default() });
    }

    fn miss(&mut self, name: &str, gone_at: Instant) {
        if let Some(file) = self.files.get_mut(name)
            && file.gone_at.is_none()
        {
            file.gone_at = Some(gone_at);
            self.touch(name);
        }
    }

    /// Believes that a file is gone, without waiting.
    pub(super) fn believe_gone(&mut self, name: &str, now: Instant) {
        if let Some(file) = self.files.get_mut(name).filter(|file| file.gone_at.is_some()) {
            file.gone_at = Some(now);
        }
    }

    /// Gives up the files whose time has come.
    pub(super) fn give_up_missing(&mut self, now: Instant) {
        let gone: Vec<String> = self
            .files
            .iter()
            .filter(|(_, file)| file.gone_at.is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.set(&name, FileState::default());
            self.files.remove(&name);
        }
    }

    /// Counts the time of every missing file anew, as the directory was away.
    pub(super) fn postpone_missing(&mut self, gone_at: Instant) {
        self.files.values_mut().filter_map(|file| file.gone_at.as_mut()).for_each(|at| *at = gone_at);
    }

    fn set(&mut self, name: &str, mut state: FileState) {
        self.touch(name);
        if let Some(old) = self.files.remove(name) {
            for id in old.ids() {
                if let Some(names) = self.named_in.get_mut(id) {
                    names.remove(name);
                    if names.is_empty() {
                        self.named_in.remove(id);
                    }
                }
            }
            state.owns = old.owns;
        }
        for id in state.ids() {
            self.named_in.entry(id.clone()).or_default().insert(name.to_owned());
        }
        if state.fault.is_some() || state.broken(|_| true).is_some() {
            self.faulty.insert(name.to_owned());
        } else {
            self.faulty.remove(name);
        }
        self.files.insert(name.to_owned(), state);
        self.touch(name);
    }

    fn touch(&mut self, name: &str) {
        if let Some(file) = self.files.get(name) {
            self.touched.extend(file.ids().chain(&file.owns).cloned());
        }
    }

    /// Decides every touched object anew.
    pub(super) fn decide(&mut self) -> Changes {
        let mut changes = Changes::default();
        for id in std::mem::take(&mut self.touched) {
            let good: Vec<(&String, usize)> = self
                .named_in
                .get(&id)
                .into_iter()
                .flatten()
                .filter_map(|name| Some((name, self.files.get(name)?.good(&id).count())))
                .filter(|(_, documents)| *documents > 0)
                .collect();
            let owner = self.owner.get(&id);
            let is_double = good.iter().map(|(_, documents)| documents).sum::<usize>() > 1;
            let chosen = good.iter().map(|(name, _)| *name).find(|name| Some(*name) == owner);
            let chosen = chosen.or(good.first().map(|(name, _)| *name)).cloned();
            if is_double {
                self.double.insert(id.clone());
            } else {
                self.double.remove(&id);
            }
            match chosen {
                Some(name) => {
                    self.own(&id, Some(&name));
                    let stored = self.files[&name].good(&id).next().map(|(_, stored)| stored.clone());
                    changes.put.extend(stored.map(|stored| (id, stored)));
                }
                None if self.holder(&id).is_some() => {}
                None => {
                    self.own(&id, None);
                    changes.gone.push(id);
                }
            }
        }
        changes
    }

    /// The owner of an object, if the last good version stays in force because of it.
    fn holder(&self, id: &ObjectId) -> Option<(&String, &FileState)> {
        let name = self.owner.get(id)?;
        let file = self.files.get(name)?;
        let holds = file.gone_at.is_some() || file.fault.is_some() || file.may_hide(id).is_some();
        holds.then_some((name, file))
    }

    fn own(&mut self, id: &ObjectId, new: Option<&String>) {
        let old = match new {
            Some(name) => self.owner.insert(id.clone(), name.clone()),
            None => self.owner.remove(id),
        };
        if let Some(file) = old.and_then(|name| self.files.get_mut(&name)) {
            file.owns.remove(id);
        }
        if let Some(file) = new.and_then(|name| self.files.get_mut(name)) {
            file.owns.insert(id.clone());
        }
    }

    /// Where an object stands now.
    pub(super) fn standing(&self, id: &ObjectId) -> Standing {
        let names = || self.named_in.get(id).into_iter().flatten();
        let owner = self.owner.get(id);
        for name in owner.into_iter().chain(names()) {
            if let Some((section, _)) = self.files.get(name).and_then(|file| file.good(id).next()) {
                return Standing::At { file: name.clone(), section };
            }
        }
        for (name, file) in owner.into_iter().chain(names()).filter_map(|name| self.files.get_key_value(name))
        {
            let line = file.sections.first().map_or(0, |(line, _)| *line);
            match (&file.fault, file.may_hide(id)) {
                _ if file.gone_at.is_some() => {}
                (Some(fault), _) => return Standing::Broken(problem(name, line, None, fault)),
                (None, Some((line, fault))) => return Standing::Broken(problem(name, line, Some(id), fault)),
                (None, None) => {}
            }
        }
        Standing::Absent
    }

    /// Why an object cannot be removed from this file: it would stay in force, because of a document that may be
    /// the object, or because of another that is.
    pub(super) fn hinders_removal(&self, name: &str, id: &ObjectId) -> Option<Problem> {
        if self.double.contains(id) {
            let object = id.to_string();
            return self.problems().into_iter().find(|problem| problem.object.as_ref() == Some(&object));
        }
        let (line, fault) = self.files.get(name)?.may_hide(id)?;
        Some(problem(name, line, None, fault))
    }

    /// Whether a file could not be read at all.
    pub(super) fn is_unreadable(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|file| file.stamp.is_none() && file.fault.is_some())
    }

    /// The digest of a file as it was last read.
    pub(super) fn digest(&self, name: &str) -> Option<u64> {
        self.files.get(name).map(|file| file.digest)
    }

    /// What people should mend, in order.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, file) in self.faulty.iter().filter_map(|name| self.files.get_key_value(name)) {
            if let Some(fault) = &file.fault {
                problems.push(problem(name, 0, None, fault));
            }
            for (line, document) in &file.sections {
                if let Document::Broken(id, fault) = document {
                    problems.push(problem(name, *line, id.as_ref(), fault));
                }
            }
        }
        for id in &self.double {
            let Some(owner) = self.owner.get(id) else { continue };
            let claims =
                self.named_in.get(id).into_iter().flatten().filter_map(|name| self.files.get_key_value(name));
            let mut documents: Vec<(&String, usize)> = claims
                .flat_map(|(name, file)| {
                    file.good(id).map(move |(section, _)| (name, file.sections[section].0))
                })
                .collect();
            let first = documents.iter().position(|(name, _)| *name == owner).map(|i| documents.remove(i));
            let Some((_, in_force)) = first else { continue };
            problems.extend(documents.into_iter().map(|(name, line)| Problem {
                file: name.clone(),
                line: Some(line + 1),
                column: None,
                object: Some(id.to_string()),
                field: None,
                message: format!("stands already in {owner}, line {}, which is in force", in_force + 1),
            }));
        }
        problems.sort();
        problems
    }
}

impl FileState {
    /// Every object that is named.
    fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.sections.iter().filter_map(|(_, document)| match document {
            Document::Object(id, _) | Document::Broken(Some(id), _) => Some(id),
            Document::Foreign | Document::Broken(None, _) => None,
        })
    }

    /// The good documents of an object, with their numbers.
    fn good(&self, id: &ObjectId) -> impl Iterator<Item = (usize, &Stored)> {
        let sections = if self.gone_at.is_none() { self.sections.as_slice() } else { &[] };
        sections.iter().enumerate().filter_map(move |(section, (_, document))| match document {
            Document::Object(found, stored) if found == id => Some((section, stored)),
            Document::Object(..) | Document::Foreign | Document::Broken(..) => None,
        })
    }

    fn broken(&self, mut wanted: impl FnMut(Option<&ObjectId>) -> bool) -> Option<(usize, &Fault)> {
        self.sections.iter().find_map(|(line, document)| match document {
            Document::Broken(id, fault) if wanted(id.as_ref()) => Some((*line, fault)),
            Document::Broken(..) | Document::Object(..) | Document::Foreign => None,
        })
    }

    /// A broken document that is, or may be, the object.
    fn may_hide(&self, id: &ObjectId) -> Option<(usize, &Fault)> {
        self.broken(|found| found.is_none_or(|found| found == id))
    }
}

fn read_sections(text: &str) -> Vec<(usize, Document)> {
    let sections = text::sections(text).into_iter();
    sections.map(|section| (section.line, document::read(&text[section.range]))).collect()
}

fn no_utf8(valid: &[u8]) -> Fault {
    let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    Fault { position: Some((line, column)), field: None, message: "the text is not UTF-8".to_owned() }
}

fn problem(file: &str, lines_before: usize, id: Option<&ObjectId>, fault: &Fault) -> Problem {
    Problem {
        file: file.to_owned(),
        line: fault.position.map(|(line, _)| line + lines_before),
        column: fault.position.map(|(_, column)| column),
        object: id.map(ObjectId::to_string),
        field: fault.field.clone(),
        message: fault.message.clone(),
    }
}
