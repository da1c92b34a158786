// SPDX-License-Identifier: Apache-2.0
//! Named points at which a test makes a program fail or die.
//!
//! Without the environment variable [`ENV`] a point costs one branch. With it, the variable names a directory: a
//! point looks there for a file `NAME@SUBJECT`, then `NAME`, takes it away, and does what the file says: `error`
//! (the step fails), or `kill` (the process ends at once, by SIGKILL). So each file acts once.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The environment variable that names the directory.
pub const ENV: &str = "RHUMB_FAILPOINTS";

/// Every named point of ADD and DEL, in the order in which a call passes them. The crash test arms each of them.
pub const ALL: &[&str] = &[
    "plugin.add.before_send",
    "agent.add.before_lease",
    "agent.add.after_journal",
    "agent.add.after_link",
    "agent.add.after_address",
    "agent.add.after_route",
    "agent.add.after_attachment",
    "agent.add.before_reply",
    "plugin.add.after_reply",
    "plugin.del.before_send",
    "agent.del.before_remove",
    "agent.del.after_endpoint",
    "agent.del.after_link",
    "agent.del.before_journal",
    "agent.del.after_journal",
    "plugin.del.after_reply",
];

/// The step failed because a test asked for it.
#[derive(Debug, thiserror::Error)]
#[error("failpoint {name}")]
pub struct Hit {
    name: String,
}

fn directory() -> Option<&'static PathBuf> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIRECTORY.get_or_init(|| std::env::var_os(ENV).map(PathBuf::from)).as_ref()
}

/// Passes the point `name` on behalf of `subject`.
///
/// # Errors
/// [`Hit`] when a test armed the point with `error`.
pub fn pass(name: &str, subject: &str) -> Result<(), Hit> {
    let Some(directory) = directory() else { return Ok(()) };
    for file in [format!("{name}@{subject}"), name.to_owned()] {
        let path = directory.join(&file);
        let Ok(action) = std::fs::read_to_string(&path) else { continue };
        // Of several that pass at once, the one that removes the file acts.
        if std::fs::remove_file(&path).is_err() {
            continue;
        }
        if action.trim() == "kill" {
            die();
        }
        return Err(Hit { name: file });
    }
    Ok(())
}

/// Passes the point `name`, at which nothing can fail: whatever a test armed it with, the process dies.
pub fn pass_alive(name: &str) {
    if let Err(Hit { .. }) = pass(name, "") {
        die();
    }
}

/// Ends the process by SIGKILL, so that nothing runs that would run in a crash neither.
fn die() -> ! {
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    unreachable!("a process may always kill itself, and then runs no further: {killed:?}")
}
