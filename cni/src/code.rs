// SPDX-License-Identifier: Apache-2.0
//! The error code of every failure; no other file chooses one (CNI specification 1.1.0, section 2, Error).

use crate::call::CallError;
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::delegate::DelegateError;
use crate::plugin::Error;
use crate::protocol::RefusalKind;

/// The plugin does not speak the version, or the version does not have the operation.
pub const VERSION: u32 = 1;
/// The configuration asks for what is not supported.
pub const UNSUPPORTED: u32 = 2;
/// The container is unknown.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// An environment variable is missing or bad.
pub const ENVIRONMENT: u32 = 4;
/// Something could not be read, written or made.
pub const IO: u32 = 5;
/// JSON could not be decoded.
pub const DECODE: u32 = 6;
/// The configuration is bad.
pub const CONFIG: u32 = 7;
/// Later it may work.
pub const TRY_AGAIN: u32 = 11;
/// STATUS: ADD cannot be served.
pub const NOT_AVAILABLE: u32 = 50;
/// STATUS: ADD cannot be served, and running containers may be affected.
pub const LIMITED_CONNECTIVITY: u32 = 51;
/// Own: the interface name is taken by somebody else's interface.
pub const INTERFACE_EXISTS: u32 = 101;
/// Own: the attachment is not as its result says.
pub const DIFFERS: u32 = 102;
/// Own: the requested address cannot be had.
pub const ADDRESS_UNAVAILABLE: u32 = 103;
/// Own: some attachments could not be removed.
pub const INCOMPLETE: u32 = 104;

/// The code of a failure.
pub(crate) fn of(error: &Error) -> u32 {
    match error {
        Error::Call(error) => of_call(error),
        Error::Socket { .. } => ENVIRONMENT,
        Error::Config(error) => of_config(error),
        Error::Previous(_) | Error::NoContainer { .. } => CONFIG,
        Error::Stdin(_) | Error::Netns(_) | Error::Unexpected | Error::Failpoint(_) => IO,
        Error::Agent(error) => of_client(error),
        Error::NoStatus(_) => NOT_AVAILABLE,
        Error::Refused(refusal) => of_refusal(refusal.kind),
        Error::NotReady(refusal) => match refusal.kind {
            RefusalKind::LimitedConnectivity => LIMITED_CONNECTIVITY,
            RefusalKind::UnknownContainer
            | RefusalKind::Io
            | RefusalKind::InvalidConfig
            | RefusalKind::TryAgain
            | RefusalKind::NotAvailable
            | RefusalKind::InterfaceExists
            | RefusalKind::Differs
            | RefusalKind::AddressUnavailable
            | RefusalKind::Incomplete => NOT_AVAILABLE,
        },
        // Nothing was done: the runtime asks again, and finds the agent back or the disk repaired.
        Error::Queue(_) => TRY_AGAIN,
        Error::Delegate(error) => of_delegate(error),
        Error::DelegateNotReady(DelegateError::Refused(refused)) => refused.code,
        Error::DelegateNotReady(_) => NOT_AVAILABLE,
    }
}

/// The code of a refusal of the agent.
pub fn of_refusal(kind: RefusalKind) -> u32 {
    match kind {
        RefusalKind::UnknownContainer => UNKNOWN_CONTAINER,
        RefusalKind::Io => IO,
        RefusalKind::InvalidConfig => CONFIG,
        RefusalKind::TryAgain => TRY_AGAIN,
        RefusalKind::NotAvailable => NOT_AVAILABLE,
        RefusalKind::LimitedConnectivity => LIMITED_CONNECTIVITY,
        RefusalKind::InterfaceExists => INTERFACE_EXISTS,
        RefusalKind::Differs => DIFFERS,
        RefusalKind::AddressUnavailable => ADDRESS_UNAVAILABLE,
        RefusalKind::Incomplete => INCOMPLETE,
    }
}

fn of_call(error: &CallError) -> u32 {
    match error {
        CallError::Missing { .. }
        | CallError::NotText { .. }
        | CallError::Command { .. }
        | CallError::Name { .. }
        | CallError::Args(_) => ENVIRONMENT,
    }
}

fn of_config(error: &ConfigError) -> u32 {
    match error {
        ConfigError::Decode(_) => DECODE,
        ConfigError::Field(_) => CONFIG,
        ConfigError::Unsupported { .. } => UNSUPPORTED,
        ConfigError::Version(_) | ConfigError::Verb { .. } => VERSION,
    }
}

fn of_client(error: &ClientError) -> u32 {
    match error {
        ClientError::NotThere(_) | ClientError::Lost | ClientError::TimedOut => TRY_AGAIN,
        ClientError::Connect(_) | ClientError::Frame(_) => IO,
    }
}

fn of_delegate(error: &DelegateError) -> u32 {
    match error {
        DelegateError::NoPath { .. } => ENVIRONMENT,
        DelegateError::NotFound { .. } => CONFIG,
        DelegateError::Run { .. } | DelegateError::Died { .. } | DelegateError::NoAddress { .. } => IO,
        DelegateError::TimedOut { .. } => TRY_AGAIN,
        DelegateError::Refused(refused) => refused.code,
        DelegateError::Result { .. } | DelegateError::Decode { .. } => DECODE,
    }
}
