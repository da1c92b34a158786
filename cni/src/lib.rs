// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin, its types and its protocol with the agent.

pub mod failpoint;
pub mod protocol;
