// SPDX-License-Identifier: Apache-2.0
//! What the agent and the BGP speaker say to each other over a Unix socket.
#![warn(missing_docs)]
