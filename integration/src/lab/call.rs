// SPDX-License-Identifier: Apache-2.0

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Namespace;

/// One execution of a CNI plugin; what is absent is not in its environment.
#[derive(Debug, Clone, Default)]
pub struct CniCall {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub ifname: Option<String>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
    /// `CNI_PATH`.
    pub path: Option<String>,
    /// The network configuration.
    pub stdin: String,
    /// More of the environment.
    pub env: Vec<(String, String)>,
    /// Another plugin than `rhumb-cni`.
    pub program: Option<PathBuf>,
}

impl CniCall {
    /// A call with this command and configuration and nothing else.
    pub fn new(command: &str, stdin: impl Into<String>) -> Self {
        Self { command: Some(command.to_owned()), stdin: stdin.into(), ..Self::default() }
    }

    /// A call about an interface of a container.
    #[must_use]
    pub fn about(mut self, container: &str, netns: &str, ifname: &str) -> Self {
        self.container = Some(container.to_owned());
        self.netns = Some(netns.to_owned());
        self.ifname = Some(ifname.to_owned());
        self
    }

    /// Runs `program` in `namespace` and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started; a plugin that ends with an error is an output.
    pub fn run(&self, program: &std::path::Path, namespace: &Namespace) -> Result<CniOutput> {
        let mut command = Command::new(self.program.as_deref().unwrap_or(program));
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let words = [
            ("CNI_COMMAND", &self.command),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
            ("CNI_ARGS", &self.args),
            ("CNI_PATH", &self.path),
        ];
        for (name, value) in words {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        namespace.run(|| {
            let started = Instant::now();
            let mut child = command.spawn().with_context(|| format!("run {command:?}"))?;
            let written =
                child.stdin.take().context("the pipe was asked for")?.write_all(self.stdin.as_bytes());
            // A plugin may end without having read its input; that is its business.
            written
                .or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })?;
            let output = child.wait_with_output()?;
            Ok(CniOutput {
                status: output.status,
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                elapsed: started.elapsed(),
            })
        })
    }
}

/// What a plugin did.
#[derive(Debug, Clone)]
pub struct CniOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

impl CniOutput {
    /// What it printed, as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("the plugin printed {:?}, logged {:?}", self.stdout, self.stderr))
    }

    /// The output of a plugin that succeeded.
    ///
    /// # Errors
    /// With what it printed and logged.
    pub fn success(self) -> Result<Self> {
        anyhow::ensure!(
            self.status.success(),
            "the plugin ended with {}, printed {}, logged {}",
            self.status,
            self.stdout.trim(),
            self.stderr.trim()
        );
        Ok(self)
    }
}
