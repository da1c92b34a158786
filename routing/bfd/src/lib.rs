// SPDX-License-Identifier: Apache-2.0
//! Bidirectional Forwarding Detection (RFC 5880): is the other end still there, answered within milliseconds.
#![warn(missing_docs)]
