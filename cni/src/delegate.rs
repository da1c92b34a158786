// SPDX-License-Identifier: Apache-2.0
//! Another plugin asked for addresses (CNI specification 1.1.0, section 4): same stdin, same environment.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;

use crate::call::{Variables, Verb};
use crate::frame::Deadline;

/// No more of the other plugin's answer is read than this many bytes.
const LONGEST_ANSWER: u64 = 4 << 20;
/// Pause before a program that somebody is still writing is started again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Why another plugin did not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DelegateError {
    /// `CNI_PATH` is not set, so it cannot be looked for.
    #[error("environment variables missing: CNI_PATH, to find the IPAM plugin {name}")]
    NoPath {
        /// Its name.
        name: String,
    },
    /// No directory of `CNI_PATH` has it.
    #[error("IPAM plugin {name} is not in CNI_PATH {path}")]
    NotFound {
        /// Its name.
        name: String,
        /// Where it was looked for.
        path: String,
    },
    /// It did not start, or its answer could not be read.
    #[error("run the IPAM plugin {name}")]
    Run {
        /// Its name.
        name: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("IPAM plugin {name} did not answer {verb} in time")]
    TimedOut {
        /// Its name.
        name: String,
        /// What it was asked.
        verb: Verb,
    },
    /// It refused, and said why.
    #[error("{}", .0.msg)]
    Refused(Refused),
    /// It ended badly without an error object.
    #[error("IPAM plugin {name} ended {verb} with {status} and said {output:?}")]
    Died {
        /// Its name.
        name: String,
        /// What it was asked.
        verb: Verb,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it printed.
        output: String,
    },
    /// Its result is none.
    #[error("result of the IPAM plugin {name}")]
    Result {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: crate::object::FieldError,
    },
    /// Its result is not JSON.
    #[error("decode the result of the IPAM plugin {name}")]
    Decode {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Its result has no address.
    #[error("IPAM plugin {name} gave no address")]
    NoAddress {
        /// Its name.
        name: String,
    },
}

/// The error object of another plugin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Refused {
    /// CNI code.
    pub(crate) code: u32,
    /// What happened.
    #[serde(default)]
    pub(crate) msg: String,
    /// More of it.
    #[serde(default)]
    pub(crate) details: String,
}

/// A plugin to ask on behalf of one call.
#[derive(Debug)]
pub(crate) struct Delegate<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    program: PathBuf,
    variables: &'a Variables,
    stdin: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// Finds the program `name` in `CNI_PATH`.
    pub(crate) fn find(
        name: &'a str,
        variables: &'a Variables,
        stdin: &'a [u8],
    ) -> Result<Self, DelegateError> {
        let path =
            variables.value("CNI_PATH").ok_or_else(|| DelegateError::NoPath { name: name.to_owned() })?;
        let program = find_in(path, name).ok_or_else(|| DelegateError::NotFound {
            name: name.to_owned(),
            path: path.to_string_lossy().into_owned(),
        })?;
        Ok(Self { name, program, variables, stdin })
    }

    /// Runs it with `CNI_COMMAND` set to `verb`, and gives back what it printed.
    pub(crate) fn run(&self, verb: Verb, deadline: Deadline) -> Result<Vec<u8>, DelegateError> {
        let failed = |source| DelegateError::Run { name: self.name.to_owned(), source };
        let late = || DelegateError::TimedOut { name: self.name.to_owned(), verb };
        let mut command = Command::new(&self.program);
        command
            .envs(self.variables.iter())
            .env("CNI_COMMAND", verb.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = loop {
            match command.spawn() {
                // An installer may be writing the program at this moment.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    deadline.remaining().map_err(|_| late())?;
                    std::thread::sleep(BUSY_PAUSE);
                }
                other => break other.map_err(failed)?,
            }
        };
        let answers = converse(&mut child, self.stdin.to_vec());
        let answer = deadline.remaining().ok().and_then(|left| answers.recv_timeout(left).ok());
        let Some(answer) = answer else {
            // Its failure to end changes nothing in the answer.
            drop(child.kill().and_then(|()| child.wait()));
            return Err(late());
        };
        let status = child.wait().map_err(failed)?;
        let output = answer.map_err(failed)?;
        if status.success() {
            return Ok(output);
        }
        Err(match serde_json::from_slice::<Refused>(&output) {
            Ok(refused) => DelegateError::Refused(refused),
            Err(_) => DelegateError::Died {
                name: self.name.to_owned(),
                verb,
                status,
                output: String::from_utf8_lossy(&output).chars().take(200).collect(),
            },
        })
    }
}

/// Feeds and reads the child on threads of their own, which end when the child does.
fn converse(child: &mut Child, stdin: Vec<u8>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = child.stdin.take() {
        // A plugin need not read what it is told.
        std::thread::spawn(move || drop(pipe.write_all(&stdin)));
    }
    if let Some(pipe) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut output = Vec::new();
            let read = pipe.take(LONGEST_ANSWER).read_to_end(&mut output).map(|_| output);
            drop(sender.send(read));
        });
    }
    receiver
}

fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|d| !d.as_os_str().is_empty())
        .map(|d| d.join(name))
        .find(|program| program.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(directory: &std::path::Path, name: &str, script: &str) {
        let path = directory.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("mode");
    }

    fn run(script: &str, stdin: &[u8], patience: Duration) -> Result<Vec<u8>, DelegateError> {
        let room = tempfile::tempdir().expect("dir");
        plugin(room.path(), "ipam", script);
        let variables: Variables = [("CNI_PATH", room.path())].into_iter().collect();
        Delegate::find("ipam", &variables, stdin)?.run(Verb::Del, Deadline::after(patience))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_first_executable_file_of_the_path_is_taken() {
        let (one, two) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        std::fs::write(one.path().join("ipam"), "not executable").expect("file");
        std::fs::create_dir(one.path().join("dir")).expect("dir");
        plugin(two.path(), "ipam", "");
        let path = std::env::join_paths([one.path(), two.path()]).expect("path");
        assert_eq!(find_in(&path, "ipam"), Some(two.path().join("ipam")));
        assert_eq!(find_in(&path, "dir"), None);
        assert_eq!(find_in(OsStr::new("::"), "ipam"), None);
    }

    #[test]
    fn stdin_and_command_reach_the_plugin() {
        let output = run("echo $CNI_COMMAND; cat", b"{\"x\":1}", LONG).expect("success");
        assert_eq!(output, b"DEL\n{\"x\":1}");
    }

    #[test]
    fn a_plugin_that_does_not_read_is_no_failure() {
        assert!(run("exec <&-; true", &vec![b' '; 1 << 20], LONG).is_ok());
    }

    #[test]
    fn an_error_object_is_passed_on_and_other_noise_is_told() {
        let script = "echo '{\"code\": 101, \"msg\": \"full\", \"details\": \"very\"}'; exit 1";
        let error = run(script, b"", LONG).expect_err("refused");
        let refused = Refused { code: 101, msg: "full".into(), details: "very".into() };
        assert!(matches!(error, DelegateError::Refused(r) if r == refused));
        let text = run("echo oops; exit 3", b"", LONG).expect_err("died").to_string();
        assert!(text.contains("ipam") && text.contains("oops") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_plugin_that_hangs_is_ended() {
        let error = run("exec sleep 1000", b"", Duration::from_millis(300)).expect_err("late");
        assert!(matches!(error, DelegateError::TimedOut { .. }));
    }

    #[test]
    fn an_absent_plugin_says_where_it_was_looked_for() {
        let variables: Variables = [("CNI_PATH", "/nowhere")].into_iter().collect();
        let text = Delegate::find("ipam", &variables, b"").expect_err("absent").to_string();
        assert!(text.contains("ipam") && text.contains("/nowhere"), "{text}");
        let none = Variables::default();
        assert!(matches!(Delegate::find("ipam", &none, b""), Err(DelegateError::NoPath { .. })));
    }
}
