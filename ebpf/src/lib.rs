// SPDX-License-Identifier: Apache-2.0
//! Loader, attachments and typed maps of the datapath.
//!
//! ```text
//!  <bpffs>/v1/maps/{pods,links,host_ports,flows,ipcache,counters}   written by the targets, read by the programs
//!  <bpffs>/v1/maps/{events,event_limits,watch}                      what programs tell of packets, and who wants to hear
//!  <bpffs>/v1/programs/{from_pod,to_pod,from_wire}                  loaded once, attached many times
//!  <bpffs>/v1/links/<hook>:<interface>                              one tcx link per uplink
//! ```
//! [`Datapath::open`] loads the programs once, takes over the maps that are pinned, and lets every pinned link run the
//! new programs, each in one step. On the links of pods the programs stand as filters, which the agent puts: see
//! [`Datapath::programs`]. Starting a pod loads nothing.
#![warn(missing_docs)]

mod attachments;
mod bpffs;
mod counters;
mod datapath;
mod endpoints;
mod entries;
mod events;
mod features;
mod host_ports;
mod ipcache;
mod object;
mod pod_links;
mod pressure;
mod trial;

pub use attachments::{AttachError, AttachPoint, Attached, Attachments, Hook};
pub use bpffs::BpffsError;
pub use counters::{Counter, CounterError};
pub use datapath::{Config, Datapath, OpenError, Program, PurgeError, Targets};
pub use endpoints::{Endpoint, EndpointAddr, Endpoints};
pub use entries::EntryError;
pub use events::{EventError, Events, PacketEvent, Transport, Untold, Wish, boot_clock};
pub use features::{Feature, features};
pub use host_ports::{HostPort, HostPortBackend, HostPortError, HostPorts};
pub use ipcache::{Ipcache, Remote, RemotePrefix};
pub use object::LoadError;
pub use pod_links::{IfIndex, PodLink, PodLinks};
pub use pressure::{MapUse, Pressure};
pub use rhumb_ebpf_common::{Direction, Reason, Verdict};
pub use trial::{Code, Ran, Trial, TrialError};
