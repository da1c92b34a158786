// SPDX-License-Identifier: Apache-2.0
//! Runs files of conformance cases against the real plugin and the real agent, in labs of network namespaces.
//!
//! ```text
//!   case file ──schema──► cases ──words──► lab of the right kind (site) ──► scene: containers, variables, snapshots
//!                                                                             │ per step
//!        preparations (words) ─► plugin (call) ─► status, output (expect), result (result), effects (words) ─► report
//! ```
//!
//! Invariant: a case with a word that has no code here is never counted as passed.

mod attached;
mod attachment;
mod call;
mod conflist;
mod expect;
mod observe;
mod pattern;
mod recorder;
mod report;
mod result;
mod runner;
mod runtime;
mod scene;
mod schema;
mod site;
mod stage;
mod step;
mod traffic;
mod variables;
mod view;
mod words;

pub use recorder::act_by_name;
pub use runner::{AfterFailure, Options, Tally, run};
