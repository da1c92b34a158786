// SPDX-License-Identifier: Apache-2.0
//! Where the source of pods' packets stays: the file of ip-masq-agent, in its format and with its defaults.
//!
//! | field | meaning | without it |
//! |---|---|---|
//! | `nonMasqueradeCIDRs` | blocks to which the source stays | the private and reserved blocks |
//! | `masqLinkLocal` | whether it is translated towards 169.254.0.0/16, too | `false` |
//! | `masqLinkLocalIPv6` | the same for fe80::/10 | `false` |
//! | `resyncInterval` | how often the file is read at least | `60s` |

use std::path::{Path, PathBuf};
use std::time::Duration;

use rhumb_model::{Family, Prefix};
use serde_yaml_ng::{Mapping, Value};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::node::Input;

/// The file is looked at this often, or as often as it says itself.
const LOOK: Duration = Duration::from_secs(2);

/// Where no file says otherwise: private (RFC 1918), shared (RFC 6598), for documentation and tests (RFC 5737,
/// RFC 2544), special (RFC 6890), relays of old (RFC 7526), reserved (RFC 1112), and unique local IPv6 (RFC 4193).
const USUAL: [&str; 12] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "fc00::/7",
];

const LINK_LOCAL: [&str; 2] = ["169.254.0.0/16", "fe80::/10"];

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Masquerade {
    /// Blocks to which the source of pods' packets stays.
    pub(crate) keep_source: Vec<Prefix>,
    resync: Duration,
}

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("read the file: {0}")]
    Read(String),
    /// It is neither YAML nor JSON.
    #[error("neither YAML nor JSON: {0}")]
    Syntax(String),
    /// A field is not as it has to be.
    #[error("{field}: {message}")]
    Field { field: String, message: String },
}

fn wrong(field: impl Into<String>, message: impl Into<String>) -> FileError {
    FileError::Field { field: field.into(), message: message.into() }
}

fn known(text: &str) -> Prefix {
    text.parse().expect("the constants are prefixes")
}

impl Default for Masquerade {
    fn default() -> Self {
        let keep_source = USUAL.into_iter().chain(LINK_LOCAL).map(known).collect();
        Self { keep_source, resync: Duration::from_secs(60) }
    }
}

impl Masquerade {
    /// Reads the text of a file; an empty one says nothing.
    pub(crate) fn parse(text: &str) -> Result<Self, FileError> {
        let document: Value =
            serde_yaml_ng::from_str(text).map_err(|error| FileError::Syntax(error.to_string()))?;
        let fields = match document {
            Value::Null => Mapping::new(),
            Value::Mapping(fields) => fields,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) | Value::Tagged(_) => {
                return Err(FileError::Syntax("want fields with values".to_owned()));
            }
        };
        let mut read = Self::default();
        let mut blocks: Option<Vec<Prefix>> = None;
        let mut link_local = [false; 2];
        for (name, value) in &fields {
            match name.as_str() {
                Some("nonMasqueradeCIDRs") => blocks = Some(cidrs(value)?),
                Some(name @ "masqLinkLocal") => link_local[0] = flag(name, value)?,
                Some(name @ "masqLinkLocalIPv6") => link_local[1] = flag(name, value)?,
                Some("resyncInterval") => read.resync = interval(value)?,
                Some(name) => return Err(wrong(name, "no field of this name is known")),
                None => return Err(FileError::Syntax("the name of a field is no text".to_owned())),
            }
        }
        read.keep_source = blocks.unwrap_or_else(|| USUAL.map(known).to_vec());
        for (block, translated) in LINK_LOCAL.map(known).into_iter().zip(link_local) {
            if !translated && !read.keep_source.contains(&block) {
                read.keep_source.push(block);
            }
        }
        Ok(read)
    }

    /// Reads the file; without one, what is usual holds.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(FileError::Read(error.to_string())),
        }
    }
}

fn cidrs(value: &Value) -> Result<Vec<Prefix>, FileError> {
    let field = "nonMasqueradeCIDRs";
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Sequence(items) => {
            let each = items.iter().enumerate().map(|(at, item)| {
                let field = format!("{field}[{at}]");
                let text = item.as_str().ok_or_else(|| wrong(&field, "want ADDRESS/LENGTH"))?;
                text.parse().map_err(|error: rhumb_model::PrefixError| wrong(&field, error.to_string()))
            });
            each.collect()
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err(wrong(field, "want a list of ADDRESS/LENGTH"))
        }
    }
}

fn flag(field: &str, value: &Value) -> Result<bool, FileError> {
    value.as_bool().ok_or_else(|| wrong(field, "want true or false"))
}

/// A length of time as Go writes it: numbers with units, one behind the other.
fn interval(value: &Value) -> Result<Duration, FileError> {
    let refuse = || wrong("resyncInterval", "want a length of time, for example 60s or 1m30s");
    let mut rest = value.as_str().filter(|text| !text.is_empty()).ok_or_else(refuse)?;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let number: u32 = rest[..digits].parse().map_err(|_| refuse())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let one = match &rest[digits..unit] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(60 * 60),
            _ => return Err(refuse()),
        };
        sum = one.checked_mul(number).and_then(|length| sum.checked_add(length)).ok_or_else(refuse)?;
        rest = &rest[unit..];
    }
    if sum.is_zero() { Err(refuse()) } else { Ok(sum) }
}

/// The file, and what of it is in force.
#[derive(Debug)]
pub(crate) struct Followed {
    path: PathBuf,
    in_force: Masquerade,
    complained: Option<FileError>,
}

impl Followed {
    pub(crate) fn new(path: PathBuf, in_force: Masquerade) -> Self {
        Self { path, in_force, complained: None }
    }

    /// What the file says now, if that is something else than before. While it is bad, what it said before holds.
    fn reread(&mut self) -> Option<Masquerade> {
        let file = self.path.display();
        match Masquerade::read(&self.path) {
            Ok(read) => {
                self.complained = None;
                if read == self.in_force {
                    return None;
                }
                info!(%file, blocks = read.keep_source.len(), "masquerading as the file says now");
                self.in_force = read.clone();
                Some(read)
            }
            Err(error) => {
                if self.complained.as_ref() != Some(&error) {
                    warn!(%file, %error, "masquerading stays as it was");
                    self.complained = Some(error);
                }
                None
            }
        }
    }
}

/// Passes on what the file says, whenever that changes.
pub(crate) async fn follow(mut file: Followed, inbox: mpsc::Sender<Input>) {
    loop {
        tokio::time::sleep(file.in_force.resync.min(LOOK)).await;
        if let Some(read) = file.reread()
            && inbox.send(Input::Masquerade(read)).await.is_err()
        {
            return;
        }
    }
}

/// What stays untranslated when a pool is not masqueraded at all.
pub(crate) fn everywhere() -> [Prefix; 2] {
    Family::BOTH.map(Family::default_route)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keeps(text: &str) -> Vec<String> {
        Masquerade::parse(text).expect("a good file").keep_source.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_file_says_what_is_usual() {
        for text in ["", "{}", "# nothing\n", "resyncInterval: 60s\n"] {
            assert_eq!(Masquerade::parse(text), Ok(Masquerade::default()), "{text:?}");
        }
        assert!(
            keeps("").contains(&"100.64.0.0/10".to_owned()) && keeps("").contains(&"fc00::/7".to_owned())
        );
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "nonMasqueradeCIDRs:\n  - 10.0.0.0/14\n  - fd00::/48\nmasqLinkLocalIPv6: true\nresyncInterval: 1m30s\n";
        let json = r#"{"nonMasqueradeCIDRs": ["10.0.0.0/14", "fd00::/48"], "masqLinkLocalIPv6": true, "resyncInterval": "90s"}"#;
        assert_eq!(Masquerade::parse(yaml), Masquerade::parse(json));
        assert_eq!(keeps(yaml), ["10.0.0.0/14", "fd00::/48", "169.254.0.0/16"]);
    }

    #[test]
    fn a_list_replaces_the_usual_one_also_when_it_is_empty() {
        for text in ["nonMasqueradeCIDRs: []", "nonMasqueradeCIDRs:"] {
            assert_eq!(keeps(text), LINK_LOCAL);
        }
        assert_eq!(keeps("nonMasqueradeCIDRs: []\nmasqLinkLocal: true\nmasqLinkLocalIPv6: true"), [""; 0]);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let cases = [
            ("nonMasqueradeCIDRs: 10.0.0.0/8", "nonMasqueradeCIDRs: want a list of ADDRESS/LENGTH"),
            ("nonMasqueradeCIDRs: [10.0.0.0/8, 7]", "nonMasqueradeCIDRs[1]: want ADDRESS/LENGTH"),
            (
                "nonMasqueradeCIDRs: [10.0.0.1/8]",
                "nonMasqueradeCIDRs[0]: 10.0.0.1/8: address bits are set behind the length; the block is 10.0.0.0/8",
            ),
            ("masqLinkLocal: 1", "masqLinkLocal: want true or false"),
            ("resyncInterval: 60", "resyncInterval: want a length of time, for example 60s or 1m30s"),
            ("resyncInterval: 1x", "resyncInterval: want a length of time, for example 60s or 1m30s"),
            ("resyncInterval: s", "resyncInterval: want a length of time, for example 60s or 1m30s"),
            ("cidrs: []", "cidrs: no field of this name is known"),
            ("- 10.0.0.0/8", "neither YAML nor JSON: want fields with values"),
        ];
        for (text, error) in cases {
            assert_eq!(Masquerade::parse(text).expect_err(text).to_string(), error);
        }
        assert!(matches!(Masquerade::parse("{"), Err(FileError::Syntax(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text: String, tail in "[-a-zA-Z:\\[\\]{}, 0-9./\n]{0,60}") {
            for text in [text, format!("nonMasqueradeCIDRs: {tail}"), format!("resyncInterval: {tail}")] {
                drop(Masquerade::parse(&text));
            }
        }
    }

    #[test]
    fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        let mut file = Followed::new(path.clone(), Masquerade::default());
        assert_eq!(file.reread(), None, "no file says what is usual");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("nonMasqueradeCIDRs: [10.9.0.0/16]");
        let read = file.reread().expect("changed");
        assert_eq!(read.keep_source[0], known("10.9.0.0/16"));
        assert_eq!(file.reread(), None);
        write("nonMasqueradeCIDRs: [10.9.0.0]");
        assert_eq!((file.reread(), file.in_force.clone()), (None, read));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(file.reread(), Some(Masquerade::default()));
    }
}
