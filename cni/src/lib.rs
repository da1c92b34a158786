// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin, its types and its protocol with the agent.

pub mod args;
pub mod call;
mod client;
pub mod code;
pub mod config;
mod delegate;
pub mod failpoint;
mod frame;
mod log;
mod netns;
mod object;
pub mod plugin;
mod previous;
pub mod protocol;
pub mod queue;
mod result;
pub mod server;
mod version;
mod wishes;

pub use frame::FrameError;
pub use version::{Version, VersionError};
