// SPDX-License-Identifier: Apache-2.0

use std::fmt;

/// Something wrong with what a person wrote. The last good version of the object stays in force until it is mended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Line in the file, from 1; `None` when the problem is with the file as a whole.
    pub line: Option<usize>,
    /// Column in the line, from 1.
    pub column: Option<usize>,
    /// Kind and key of the object, as far as they could be read: `Pod default/web-0`.
    pub object: Option<String>,
    /// Path of the field: `spec.ipv4.cidrs[0]`.
    pub field: Option<String>,
    /// What is wrong, for a person.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for position in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{position}")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        write!(f, ": {}", self.message)
    }
}
