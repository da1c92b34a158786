// SPDX-License-Identifier: Apache-2.0
//! Labs of network namespaces, and what runs in them: the demo, the conformance runner, the benches, the proofs.

pub mod bench;
pub mod conformance;
pub mod demo;
pub mod ec2;
pub mod lab;
pub mod print;
