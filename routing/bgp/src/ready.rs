// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::Write;

use tracing::warn;

/// Tells whoever started the speaker how far it is, a line each, on a descriptor that was passed on.
#[derive(Debug)]
pub(crate) struct Ready(Option<File>);

impl Ready {
    /// Opens descriptor `fd` of this process anew, so that its owner stays what it was.
    pub(crate) fn open(fd: Option<i32>) -> std::io::Result<Self> {
        let open = |fd| File::options().append(true).open(format!("/proc/self/fd/{fd}"));
        Ok(Self(fd.map(open).transpose()?))
    }

    /// Writes a line; one who no longer listens is no error.
    pub(crate) fn say(&mut self, word: &str) {
        if let Some(file) = &mut self.0
            && let Err(error) = writeln!(file, "{word}")
        {
            warn!(%error, "nobody listens for readiness");
            self.0 = None;
        }
    }
}
