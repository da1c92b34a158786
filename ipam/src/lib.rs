// SPDX-License-Identifier: Apache-2.0
//! Who has which address.
//!
//! ```text
//!   operator                                    agent, one per node
//!   ClusterPool ─┐                              Range ──► Pool ──► Lease
//!   NodeInput ───┴─► carve ──► CIDR per node ──►          │ ▲
//!        ▲                                                ▼ │
//!        └────────── Usage: "few are free" ◄───────   Journal (on disk before anyone hears of a lease)
//! ```
//! Everything but [`Journal`] is pure: time is an argument, nothing is read from outside, and the same inputs give
//! the same answer.
//!
//! Invariant: no address is leased twice at a time, and none again within its cool-down, except to the pod that had
//! it. No block is assigned that overlaps an assigned one.

mod bits;
mod block;
mod carve;
pub mod eni;
mod error;
mod frame;
mod intervals;
mod journal;
mod lease;
mod pool;
mod queue;
mod range;
mod record;
mod space;
mod usage;

pub use block::{Block, BlockFault, BlockProblem, ClusterPool};
pub use carve::{CarvePolicy, Carving, NodeInput, NodeUse, Problem, carve};
pub use error::{AllocateError, RestoreError};
pub use journal::{AppendError, Corruption, Journal, OpenError, Opened, Repair};
pub use lease::{Lease, Owner, Request, State};
pub use pool::{Order, Policy, Pool};
pub use range::Range;
pub use record::Record;
pub use usage::Usage;
