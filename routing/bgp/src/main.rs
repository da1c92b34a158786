// SPDX-License-Identifier: Apache-2.0
//! `rhumb-bgp`: one per node, holds the BGP and BFD sessions and outlives the agent.

fn main() {}
