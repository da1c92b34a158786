// SPDX-License-Identifier: Apache-2.0
//! The plugin from outside, with an agent that a test scripts.

mod agent;
mod any_input;
mod binary;
mod calls;
