// SPDX-License-Identifier: Apache-2.0
//! How the long-lived programs begin and end: where their memory comes from, where they log, whom they tell that they are
//! ready, and what they stop at.

mod end;
pub mod heap;
mod log;
mod ready;

pub use end::{exit_code, stop_signal};
pub use log::log_to_stderr;
pub use ready::Ready;
