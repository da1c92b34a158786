// SPDX-License-Identifier: Apache-2.0
//! Named points at which a test makes the operator die.
//!
//! With the environment variable [`ENV`], which names a directory, a point looks there for a file of its name and takes it
//! away; the process then ends at once, by SIGKILL. So each file acts once. Without the variable a point costs one branch.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The environment variable that names the directory; the other programs have the same.
const ENV: &str = "RHUMB_FAILPOINTS";

/// Passes the point `name`.
pub(crate) fn pass(name: &str) {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| std::env::var_os(ENV).map(PathBuf::from));
    let Some(directory) = directory else { return };
    if std::fs::remove_file(directory.join(name)).is_ok() {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        unreachable!("a process may always kill itself, and then runs no further: {killed:?}")
    }
}
