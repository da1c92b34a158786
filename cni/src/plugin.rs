// SPDX-License-Identifier: Apache-2.0
//! One call of the plugin, from the environment and stdin to what it prints.
//!
//! ```text
//!  environment ─► Call ─┐
//!  stdin ─► NetConf ────┴─► add · del · check · gc · status ─► agent (socket), IPAM plugin (program) ─► stdout
//! ```

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::call::{Call, CallError, Variables, Verb};
use crate::client::{ClientError, Connection};
use crate::code;
use crate::config::{ConfigError, NetConf};
use crate::delegate::{Delegate, DelegateError};
use crate::failpoint;
use crate::frame::Deadline;
use crate::log;
use crate::netns::NetnsError;
use crate::object::FieldError;
use crate::protocol::{DEFAULT_SOCKET, Refusal, Reply, Request};
use crate::queue::QueueError;
use crate::result::{ErrorResult, VersionResult};
use crate::version::Version;

mod add;
mod check;
mod del;
mod gc;
mod status;

/// No configuration is longer than this many bytes.
const LONGEST_STDIN: u64 = 4 << 20;

/// How long the plugin waits for others.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For everything that one call asks of the agent and of an IPAM plugin.
    pub call: Duration,
    /// The same for STATUS.
    pub status: Duration,
}

impl Default for Patience {
    /// Within the two minutes after which kubelet gives up on a sandbox, and quickly for STATUS.
    fn default() -> Self {
        Self { call: Duration::from_secs(90), status: Duration::from_secs(2) }
    }
}

/// What a call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What to print: one JSON object, or nothing when a call other than ADD and VERSION succeeded.
    pub stdout: Vec<u8>,
    /// Whether it succeeded.
    pub success: bool,
}

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("environment variable {}: {} is not an absolute path", crate::call::SOCKET_VARIABLE, path.display())]
    Socket { path: PathBuf },
    #[error("read the network configuration")]
    Stdin(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("network configuration, {}", .0.field)]
    Previous(#[source] FieldError),
    #[error("network configuration, prevResult: no interface {ifname} of the container in {netns}")]
    NoContainer { ifname: String, netns: String },
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Agent(#[from] ClientError),
    #[error("agent is not ready")]
    NoStatus(#[source] ClientError),
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    NotReady(Refusal),
    #[error("agent answered something else than was asked")]
    Unexpected,
    #[error("queue the removal, the agent is not there")]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Delegate(#[from] DelegateError),
    #[error(transparent)]
    DelegateNotReady(DelegateError),
    #[error(transparent)]
    Failpoint(#[from] failpoint::Hit),
}

/// One call with what it was given.
struct Plugin<'a> {
    conf: &'a NetConf,
    variables: &'a Variables,
    stdin: &'a [u8],
    socket: PathBuf,
    deadline: Deadline,
}

/// Carries out what the environment and stdin ask. Does not read stdin for VERSION.
pub fn run(variables: &Variables, stdin: &mut dyn Read, patience: Patience) -> Outcome {
    let mut version = Version::HIGHEST;
    match answer(variables, stdin, patience, &mut version) {
        Ok(stdout) => Outcome { stdout, success: true },
        Err(error) => Outcome { stdout: print(&error_result(&error, version)), success: false },
    }
}

fn answer(
    variables: &Variables,
    stdin: &mut dyn Read,
    patience: Patience,
    version: &mut Version,
) -> Result<Vec<u8>, Error> {
    let call = Call::parse(variables);
    if let Ok(Call::Version) = call {
        return Ok(print(&VersionResult::new()));
    }
    let mut bytes = Vec::new();
    let read = stdin.take(LONGEST_STDIN).read_to_end(&mut bytes);
    *version = NetConf::version_of(&bytes).unwrap_or(Version::HIGHEST);
    let call = call?;
    read.map_err(Error::Stdin)?;
    let conf = NetConf::parse(&bytes)?;
    conf.allow(call.verb())?;
    let patience = if call == Call::Status { patience.status } else { patience.call };
    let plugin = Plugin {
        conf: &conf,
        variables,
        stdin: &bytes,
        socket: socket(&conf, variables)?,
        deadline: Deadline::after(patience),
    };
    match call {
        Call::Add { key, netns, args } => return plugin.add(key, netns, args),
        Call::Del { key } => plugin.del(key)?,
        Call::Check { key, netns } => plugin.check(key, &netns)?,
        Call::Gc => plugin.gc()?,
        Call::Status => plugin.status()?,
        Call::Version => {}
    }
    Ok(Vec::new())
}

fn socket(conf: &NetConf, variables: &Variables) -> Result<PathBuf, Error> {
    if let Some(path) = &conf.socket {
        return Ok(path.clone());
    }
    match variables.socket() {
        None => Ok(DEFAULT_SOCKET.into()),
        Some(path) if path.is_absolute() => Ok(path),
        Some(path) => Err(Error::Socket { path }),
    }
}

fn error_result(error: &Error, version: Version) -> ErrorResult {
    let details = if let Error::Refused(refusal) | Error::NotReady(refusal) = error {
        refusal.details.clone()
    } else if let Error::Delegate(DelegateError::Refused(refused))
    | Error::DelegateNotReady(DelegateError::Refused(refused)) = error
    {
        refused.details.clone()
    } else {
        log::causes(error)
    };
    ErrorResult { cni_version: version.as_str(), code: code::of(error), msg: error.to_string(), details }
}

fn print(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("results have only text keys");
    bytes.push(b'\n');
    bytes
}

impl Plugin<'_> {
    /// The IPAM plugin, where the configuration names one that is not our own.
    fn delegate(&self) -> Result<Option<Delegate<'_>>, DelegateError> {
        let name = self.conf.delegate.as_deref();
        name.map(|name| Delegate::find(name, self.variables, self.stdin)).transpose()
    }

    /// Asks the IPAM plugin for an operation that has no result.
    fn delegate_if_any(&self, verb: Verb) -> Result<(), DelegateError> {
        match self.delegate()? {
            Some(delegate) => delegate.run(verb, self.deadline).map(drop),
            None => Ok(()),
        }
    }

    /// Asks the agent for an operation that has no result.
    fn ask(&self, request: &Request, netns: Option<&std::os::fd::OwnedFd>) -> Result<(), Error> {
        let connection = Connection::open(&self.socket, self.deadline)?;
        done(connection.ask(request, netns, self.deadline)?)
    }
}

fn done(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Done => Ok(()),
        Reply::Refused(refusal) => Err(Error::Refused(refusal)),
        Reply::Added(_) => Err(Error::Unexpected),
    }
}
