// SPDX-License-Identifier: Apache-2.0

use std::fmt;

/// A version of the CNI specification that the plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, the first with CHECK.
    V0_4_0,
    /// 1.0.0, the first whose addresses carry no family.
    V1_0_0,
    /// 1.1.0, the first with GC, STATUS and more than name and MAC of an interface.
    V1_1_0,
}

/// A version that the plugin does not speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {asked:?} is none of {}", Version::names().join(", "))]
pub struct VersionError {
    /// What was asked for.
    pub asked: String,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 4] = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

    /// The newest.
    pub const HIGHEST: Version = Version::V1_1_0;

    /// Finds the version with this name.
    ///
    /// # Errors
    /// [`VersionError`] when the plugin does not speak it.
    pub fn parse(name: &str) -> Result<Self, VersionError> {
        Self::ALL
            .into_iter()
            .find(|v| v.as_str() == name)
            .ok_or_else(|| VersionError { asked: name.to_owned() })
    }

    /// The name, for example `1.1.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The names of every version, oldest first.
    pub fn names() -> [&'static str; 4] {
        Self::ALL.map(Self::as_str)
    }

    /// Whether an address of a result says its family.
    pub(crate) fn names_family(self) -> bool {
        self < Version::V1_0_0
    }

    /// Whether interfaces and routes of a result say their MTU and more.
    pub(crate) fn has_details(self) -> bool {
        self >= Version::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_versions() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Ok(version));
        }
        for bad in ["", "0.1.0", "1.1", "1.1.0 ", "9.9.9", "v1.0.0", "0.3.0"] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_spoken() {
        let text = Version::parse("0.1.0").expect_err("refused").to_string();
        assert_eq!(text, "version \"0.1.0\" is none of 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
}
