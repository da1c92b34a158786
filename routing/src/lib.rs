// SPDX-License-Identifier: Apache-2.0
//! Kernel links, addresses, routes and queueing disciplines over netlink, and the next hop per prefix.
//!
//! ```text
//!   plan (pure): pod CIDRs of other nodes, what the fabric offers ──► routes, entries of the datapath
//!   targets: Links, PodAddresses, PodRoutes, HostRoutes, Sysctls, Qdiscs, Filters, Tunnels,
//!            and for interfaces of a cloud Interfaces, HostAddresses, TableRoutes, Rules
//!      └─► trait Kernel ──► Netlink (this machine) or FakeKernel (in memory)
//! ```

pub mod eni;
pub mod fabric;
#[cfg(any(test, feature = "fake"))]
mod fake;
mod filters;
pub mod host;
mod host_routes;
pub mod inspect;
mod interfaces;
pub mod kernel;
pub mod learned;
mod links;
mod namespaces;
mod netlink;
pub mod plan;
mod pod_addresses;
mod pod_routes;
pub mod probe;
mod qdiscs;
mod routes;
mod rules;
mod sysctls;
mod table_routes;
mod tunnels;

#[cfg(any(test, feature = "fake"))]
pub use fake::{FakeClassifier, FakeKernel, FakeNamespace, FakeRoot, FakeTunnel};
pub use filters::{Filter, FilterError, FilterKey, Filters};
pub use host_routes::{HostRoute, HostRoutes};
pub use interfaces::{HostAddress, HostAddresses, InterfaceError, InterfaceSpec, Interfaces};
pub use kernel::{Hook, PolicyRule};
pub use links::{LinkError, LinkFacts, LinkSpec, Links};
pub use namespaces::{Namespaces, OpenError};
pub use netlink::{Events, Netlink, Notices};
pub use pod_addresses::{AddressError, PodAddress, PodAddresses};
pub use pod_routes::{PodNextHop, PodRoute, PodRoutes};
pub use qdiscs::{Direction, QdiscError, QdiscKey, Qdiscs, TokenBucket};
pub use routes::RouteError;
pub use rules::{RuleError, Rules};
pub use sysctls::{Sysctl, SysctlError, Sysctls};
pub use table_routes::{TableKey, TableRoute, TableRoutes};
pub use tunnels::{TunnelError, TunnelSpec, Tunnels};
