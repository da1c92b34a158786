// SPDX-License-Identifier: Apache-2.0
//! A BGP-4 speaker: its codec, state machine, tables, policy and sessions.
#![warn(missing_docs)]

mod bmp;
pub mod fsm;
pub mod kernel;
pub mod policy;
pub mod rib;
mod session;
pub mod speaker;
pub mod wire;
