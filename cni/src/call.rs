// SPDX-License-Identifier: Apache-2.0
//! What the runtime asks, read from the environment (CNI specification 1.1.0, section 2, Parameters).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use rhumb_model::{AttachmentKey, ContainerId, IfName, NameError};

use crate::args::{Args, ArgsError};

/// The environment variable that names the agent's socket, where the configuration does not.
pub const SOCKET_VARIABLE: &str = "RHUMB_AGENT_SOCKET";

/// The environment variables that the plugin reads.
#[derive(Debug, Clone, Default)]
pub struct Variables(BTreeMap<String, OsString>);

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// ADD
    Add,
    /// DEL
    Del,
    /// CHECK
    Check,
    /// GC
    Gc,
    /// STATUS
    Status,
    /// VERSION
    Version,
}

/// An operation with what the environment says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Make an attachment.
    Add {
        /// Which.
        key: AttachmentKey,
        /// `CNI_NETNS`.
        netns: String,
        /// `CNI_ARGS`.
        args: Args,
    },
    /// Remove an attachment.
    Del {
        /// Which.
        key: AttachmentKey,
    },
    /// Compare an attachment with its result.
    Check {
        /// Which.
        key: AttachmentKey,
        /// `CNI_NETNS`.
        netns: String,
    },
    /// Remove what the configuration does not list.
    Gc,
    /// Whether ADD can be served.
    Status,
    /// Which versions are spoken.
    Version,
}

/// Why the environment was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Variables that the operation needs are not set.
    #[error("environment variables missing: {}", names.join(", "))]
    Missing {
        /// Every one of them.
        names: Vec<&'static str>,
    },
    /// A value is not UTF-8.
    #[error("environment variable {name} is not UTF-8")]
    NotText {
        /// The variable.
        name: &'static str,
    },
    /// The operation is unknown.
    #[error("CNI_COMMAND {command:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION")]
    Command {
        /// The value.
        command: String,
    },
    /// A name is not allowed.
    #[error("environment variable {name}")]
    Name {
        /// The variable.
        name: &'static str,
        /// Which rule it breaks.
        #[source]
        source: NameError,
    },
    /// `CNI_ARGS` is not as it must be.
    #[error(transparent)]
    Args(#[from] ArgsError),
}

impl Variables {
    /// Takes those of the process that the plugin reads.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("CNI_") || name == SOCKET_VARIABLE)
            .collect()
    }

    /// The value of a variable that is set and not empty.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Every variable.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &OsString)> {
        self.0.iter()
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.value(SOCKET_VARIABLE).map(PathBuf::from)
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, CallError> {
        self.value(name).map(|v| v.to_str().ok_or(CallError::NotText { name })).transpose()
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Verb {
    const ALL: [Verb; 6] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status, Verb::Version];

    /// The value of `CNI_COMMAND`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }

    /// The variables without which the operation cannot be. `CNI_PATH` counts only where the specification says so:
    /// elsewhere its absence shows when an IPAM plugin is looked for.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Gc => &["CNI_PATH"],
            Verb::Status | Verb::Version => &[],
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Call {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`CallError`] on missing variables (all of them at once) and on values that are not allowed.
    pub fn parse(variables: &Variables) -> Result<Self, CallError> {
        let command =
            variables.text("CNI_COMMAND")?.ok_or(CallError::Missing { names: vec!["CNI_COMMAND"] })?;
        let verb = Verb::ALL
            .into_iter()
            .find(|verb| verb.as_str() == command)
            .ok_or_else(|| CallError::Command { command: command.to_owned() })?;
        let names: Vec<_> =
            verb.needs().iter().copied().filter(|name| variables.value(name).is_none()).collect();
        if !names.is_empty() {
            return Err(CallError::Missing { names });
        }
        let text = |name| Ok::<_, CallError>(variables.text(name)?.unwrap_or_default().to_owned());
        Ok(match verb {
            Verb::Add => Call::Add {
                key: key(variables)?,
                netns: text("CNI_NETNS")?,
                args: Args::parse(&text("CNI_ARGS")?)?,
            },
            // A DEL is never refused for what only an ADD reads.
            Verb::Del => Call::Del { key: key(variables)? },
            Verb::Check => Call::Check { key: key(variables)?, netns: text("CNI_NETNS")? },
            Verb::Gc => Call::Gc,
            Verb::Status => Call::Status,
            Verb::Version => Call::Version,
        })
    }

    /// The operation.
    pub fn verb(&self) -> Verb {
        match self {
            Call::Add { .. } => Verb::Add,
            Call::Del { .. } => Verb::Del,
            Call::Check { .. } => Verb::Check,
            Call::Gc => Verb::Gc,
            Call::Status => Verb::Status,
            Call::Version => Verb::Version,
        }
    }
}

fn key(variables: &Variables) -> Result<AttachmentKey, CallError> {
    let text = |name| Ok::<_, CallError>(variables.text(name)?.unwrap_or_default());
    let refused = |name| move |source| CallError::Name { name, source };
    Ok(AttachmentKey {
        container: ContainerId::new(text("CNI_CONTAINERID")?).map_err(refused("CNI_CONTAINERID"))?,
        ifname: IfName::new(text("CNI_IFNAME")?).map_err(refused("CNI_IFNAME"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn parse(pairs: &[(&str, &str)]) -> Result<Call, CallError> {
        Call::parse(&pairs.iter().copied().collect())
    }

    #[test]
    fn every_missing_variable_is_named() {
        let table: [(&str, &[&str]); 4] = [
            ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
            ("GC", &["CNI_PATH"]),
        ];
        for (command, names) in table {
            let error = parse(&[("CNI_COMMAND", command), ("CNI_ARGS", "")]).expect_err("missing");
            assert_eq!(error, CallError::Missing { names: names.to_vec() }, "{command}");
        }
        assert_eq!(parse(&[]), Err(CallError::Missing { names: vec!["CNI_COMMAND"] }));
    }

    #[test]
    fn an_empty_variable_is_missing() {
        let error = parse(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", ""), ("CNI_IFNAME", "eth0")]);
        assert_eq!(error, Err(CallError::Missing { names: vec!["CNI_CONTAINERID"] }));
    }

    #[test]
    fn status_and_version_need_nothing() {
        assert_eq!(parse(&[("CNI_COMMAND", "STATUS")]), Ok(Call::Status));
        assert_eq!(parse(&[("CNI_COMMAND", "VERSION")]), Ok(Call::Version));
    }

    #[test]
    fn del_reads_neither_namespace_nor_args() {
        let call = parse(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "FOO"),
        ]);
        assert_eq!(call.expect("valid").verb(), Verb::Del);
    }

    #[test]
    fn a_value_that_is_not_text_is_refused() {
        let variables: Variables = [("CNI_COMMAND", OsString::from_vec(vec![0xff]))].into_iter().collect();
        assert_eq!(Call::parse(&variables), Err(CallError::NotText { name: "CNI_COMMAND" }));
    }
}
