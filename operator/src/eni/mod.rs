// SPDX-License-Identifier: Apache-2.0
//! Network interfaces of EC2 for the nodes that an ENIPool chooses.
//!
//! ```text
//!   Node, NodeState, NodeConfig, ENIPool, Pod ─► Objects ─┐
//!   EC2, once per period for all nodes ─► Look ─► Memory ─┼─► rhumb_ipam::eni::plan ─► NodeConfig, written first
//!                                           ▲             │             └────► calls, in parallel, as the pacer admits
//!                                           └── finish ◄──┴── call: Result<Reply, Fault> ◄──┘
//! ```
//!
//! The plan is pure and elsewhere; here is what it stands on and what carries it out. Nothing here repeats a call: a call
//! that failed is planned anew, or not.

pub(crate) mod call;
pub(crate) mod facts;
pub(crate) mod figures;
pub(crate) mod look;
pub(crate) mod objects;
pub(crate) mod offer;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod why;
