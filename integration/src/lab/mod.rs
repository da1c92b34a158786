// SPDX-License-Identifier: Apache-2.0
//! A cluster in network namespaces of one machine: the real programs, one agent per node, a router, a client.
//!
//! ```text
//!   client 203.0.113.10            node n1 192.168.100.1          node n2 192.168.100.2
//!   2001:db8:cc::10                fd00:192::1                    fd00:192::2
//!        │ eth0                         │ eth0                         │ eth0
//!        │                              │                              │
//!        │ client                       │ n1                           │ n2
//!   ┌────┴──────────────────────────────┴──────────────────────────────┴────┐
//!   │ router   203.0.113.1 ─ forwards ─ br0 192.168.100.254, fd00:192::fe   │
//!   └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! With several segments, each has a bridge of the router, `br0`, `br1` and so on, and addresses 192.168.101.0/24,
//! fd00:192:0:1::/64 and so on; nodes are seated on them in turns.
//!
//! Invariant: whatever a lab makes is named after the process that made it, and is gone when the [`Lab`] is dropped;
//! when that process dies, a reaper removes it, and [`down_all`] removes what even the reaper left.

mod binaries;
mod call;
mod changes;
mod footprint;
mod home;
mod namespace;
mod node;
mod pod;
mod probe;
mod process;
mod spec;
mod store;
mod topology;
mod ways;

pub use binaries::Binaries;
pub(crate) use binaries::DOUBLE;
pub use call::{CniCall, CniOutput};
pub use changes::Changes;
pub use footprint::Footprint;
pub use home::{down_all, gone_within, reap};
pub use namespace::{Namespace, ip};
pub use node::{AgentOptions, Node, Wait};
pub use pod::Pod;
pub use probe::{
    Capture, DatagramReport, Datagrams, HttpServer, PingReport, Pinger, Reply, Seen, Slow, Stream,
    StreamReport, http_post, ping, ping_as, tcp_reaches,
};
pub use process::Process;
pub use spec::Spec;
pub use store::Store;
pub use topology::{Lab, ProgramOptions};
pub use ways::{Turn, Ways};
