// SPDX-License-Identifier: Apache-2.0
//! Bidirectional Forwarding Detection (RFC 5880): is the other end still there, answered within milliseconds.
//!
//! Asynchronous mode over one hop (RFC 5881) and several (RFC 5883). There is no echo function and no authentication;
//! another end in demand mode is served.
#![warn(missing_docs)]

mod config;
pub mod fsm;
pub mod packet;
mod priority;
mod socket;
mod table;
mod thread;

pub use config::{Change, Config, ConfigError, Event, Fate, Hops, Report, SessionKey};
pub use packet::{Diagnostic, Packet, State};
pub use thread::{Bfd, StartError};
