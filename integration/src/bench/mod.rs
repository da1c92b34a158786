// SPDX-License-Identifier: Apache-2.0
//! Benches: every figure beside a peer's of the same run, or beside its budget; missed aims are told like met ones.

mod bgp;
mod bpf;
mod cost;
mod eni;
mod frame;
mod path;
mod pods;
mod report;
mod traffic;
mod trial;
mod twin;

pub use bgp::bgp;
pub use eni::eni;
pub use path::{Part, path};
pub use pods::pods;
pub use report::{Aim, Measure, Report, median, percentile};
