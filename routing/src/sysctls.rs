// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

use rhumb_model::Target;

/// A kernel setting by its name, for example `net.ipv4.ip_forward`. A `/` stands for a `.` inside of one of its
/// parts, as in `net.ipv4.conf.eth0/100.rp_filter`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl(pub String);

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// No setting can have this name.
    #[error("{name:?} is no name of a kernel setting")]
    Name {
        /// The name.
        name: String,
    },
    /// Reading.
    #[error("read kernel setting {key}")]
    Read {
        /// Which.
        key: Sysctl,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Writing.
    #[error("set kernel setting {key} to {value:?}")]
    Write {
        /// Which.
        key: Sysctl,
        /// To what.
        value: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Kernel settings. Ours are those that were put since the start; one that is removed keeps its value, because
/// nobody knows who else relies on it by now.
#[derive(Debug)]
pub struct Sysctls {
    root: PathBuf,
    ours: BTreeSet<Sysctl>,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::under("/proc/sys".into())
    }
}

impl Sysctls {
    /// Takes the folder in which the settings are; [`Sysctls::default`] takes the kernel's.
    pub fn under(root: PathBuf) -> Self {
        Self { root, ours: BTreeSet::new() }
    }

    fn path(&self, key: &Sysctl) -> Result<PathBuf, SysctlError> {
        let mut path = self.root.clone();
        for part in key.0.split('.') {
            let part = part.replace('/', ".");
            if part.is_empty() || part == "." || part == ".." {
                return Err(SysctlError::Name { name: key.0.clone() });
            }
            path.push(part);
        }
        Ok(path)
    }

    fn read(&self, key: &Sysctl) -> Result<String, SysctlError> {
        let value = std::fs::read_to_string(self.path(key)?);
        value.map(|value| normal(&value)).map_err(|cause| SysctlError::Read { key: key.clone(), cause })
    }
}

/// The kernel separates the parts of a value by tabs and ends it with a line break.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Target for Sysctls {
    type Key = Sysctl;
    type Value = String;
    type Error = SysctlError;

    fn kind(&self) -> &'static str {
        "sysctl"
    }

    fn is_retryable(error: &SysctlError) -> bool {
        !matches!(error, SysctlError::Name { .. })
    }

    async fn observe(&mut self) -> Result<BTreeMap<Sysctl, String>, SysctlError> {
        let mut values = BTreeMap::new();
        for key in &self.ours {
            match self.read(key) {
                Ok(value) => drop(values.insert(key.clone(), value)),
                // The settings of an interface go with it.
                Err(SysctlError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(values)
    }

    async fn put(&mut self, key: &Sysctl, value: &String) -> Result<(), SysctlError> {
        // Some settings act when they are written, even with the value that they have.
        if self.read(key)? != normal(value) {
            std::fs::write(self.path(key)?, value).map_err(|cause| SysctlError::Write {
                key: key.clone(),
                value: value.clone(),
                cause,
            })?;
        }
        self.ours.insert(key.clone());
        Ok(())
    }

    async fn remove(&mut self, key: &Sysctl) -> Result<(), SysctlError> {
        self.ours.remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_below_the_root_only() {
        let sysctls = Sysctls::under("/root".into());
        let path = |name: &str| sysctls.path(&Sysctl(name.to_owned()));
        let good = path("net.ipv4.conf.eth0/100.rp_filter").expect("valid");
        assert_eq!(good.to_str(), Some("/root/net/ipv4/conf/eth0.100/rp_filter"));
        for bad in ["", ".", "net..ipv4", "net.//.//.etc", "/.net"] {
            assert!(matches!(path(bad), Err(SysctlError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn values_are_compared_without_their_spacing() {
        assert_eq!(normal("32768\t60999\n"), normal("32768 60999"));
    }
}
