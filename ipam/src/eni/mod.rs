// SPDX-License-Identifier: Apache-2.0
//! Addresses of the VPC for pods: what the operator does with a cluster's network interfaces (ENIs), and what an agent
//! does with the blocks of its own.
//!
//! ```text
//!   DescribeNetworkInterfaces, … ──► Memory::see ─► View ─┐
//!   Node, NodeState, NodeConfig, ENIPool ─► NodeFacts ────┴─► plan ─► NodePlan: the node's NodeConfig, and why it waits
//!                                             ▲                └────► Planned: calls to EC2, the most urgent first
//!                                    Memory ──┘                            │
//!                                       ▲  start ◄── one at a time per key ┘
//!                                       └─ finish ◄── what became of it
//! ```
//! The operator drives it so: after every change, and at [`Plan::wake_at`], it calls [`plan()`], writes each
//! [`NodePlan`] whose record differs from the NodeConfig that it read (and only over that version of it), then begins as many of
//! the [`Planned`] as its pace allows, in their order. It tells the [`Memory`] of each before it calls
//! ([`Memory::start`]) and afterwards ([`Memory::finish`]); an [`Action`] whose [`Action::key`] is under way is not
//! planned again. What is lost with the memory is asked of EC2 anew: interfaces of ours are known by their tags.
//!
//! A block has one life, and the NodeConfig shows where in it it is:
//!
//! ```text
//!   on the interface ─► published ─► releasing N ─► released N ─► unassigning ─► gone from EC2, twice ─► gone
//!                           ▲            │ declined N, or wanted again
//!                           └────────────┘
//! ```
//!
//! Invariant: no block is unassigned of which an agent may hold or lease an address, whichever side dies in whichever
//! state, as long as EC2's views lag by less than [`LAG`]. The explorer in `protocol.rs` looks for the opposite.

mod action;
pub mod agent;
mod calls;
mod demand;
mod effects;
mod facts;
mod fleet;
mod grow;
mod memory;
mod obstacle;
mod plan;
mod policy;
#[cfg(test)]
mod protocol;
mod record;
mod reserve;
mod room;
mod shape;
mod sweep;
mod tags;
#[cfg(test)]
mod testing;
mod trouble;
mod verdict;

pub use action::{Action, Addresses, Fault, Key, Planned, Priority, Reply};
pub use facts::{EniBlock, Inputs, NodeFacts, Record, Report, View, Word};
pub use memory::{LAG, Memory};
pub use plan::plan;
pub use policy::{EniPolicy, Groups, Subnets, Unit, Warm};
pub use tags::{TAG_CLUSTER, TAG_CREATED, TAG_INSTANCE, TAG_NODE, TAG_TOKEN};
pub use verdict::{Code, NodePlan, Plan, Verdict};
