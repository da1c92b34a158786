// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::Namespace;

/// A plugin that has not ended by then is killed, which no case expects.
const LIMIT: Duration = Duration::from_secs(60);

/// How a plugin ended and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Exit status; the negative signal number where a signal ended it.
    pub(crate) status: i32,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it logged.
    pub(crate) stderr: String,
    /// From start to end.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// What it printed, as one JSON value.
    ///
    /// # Errors
    /// When it is not JSON, or more than one value.
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.stdout).map_err(|error| format!("{:?} ({error})", self.stdout.trim()))
    }

    /// Whether it ended with status 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = text.trim();
            if !text.is_empty() {
                write!(f, ", {name} {}", text.chars().take(400).collect::<String>())?;
            }
        }
        Ok(())
    }
}

/// Runs `program` inside of `namespace` with `env` and nothing else in its environment.
///
/// # Errors
/// When it cannot be started; a plugin that fails is an outcome.
pub(crate) fn execute(
    program: &Path,
    namespace: &Namespace,
    env: &BTreeMap<String, String>,
    stdin: &str,
) -> Result<Outcome> {
    let mut command = Command::new(program);
    command.arg0(program).env_clear().envs(env);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child =
        namespace.run(|| command.spawn().with_context(|| format!("run {}", program.display())))?;
    let pipe = child.stdin.take();
    if let Some(mut pipe) = pipe {
        // A plugin may end without having read its input.
        pipe.write_all(stdin.as_bytes())
            .or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
    }
    let output = wait(child)?;
    Ok(Outcome {
        status: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: started.elapsed(),
    })
}

fn wait(child: Child) -> Result<Output> {
    let pid = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(child.wait_with_output()).ok());
        match receiver.recv_timeout(LIMIT) {
            Ok(output) => Ok(output?),
            Err(_) => {
                kill_process(pid, Signal::KILL)?;
                Ok(receiver.recv()??)
            }
        }
    })
}
