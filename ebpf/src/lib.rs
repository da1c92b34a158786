// SPDX-License-Identifier: Apache-2.0
//! Loader, attachments and typed maps of the datapath.
//!
//! ```text
//!  <bpffs>/v2/maps/{pods,links,host_ports,ct,nat,fragments,uplinks,ipcache,config,churn,counters}  written by the targets, read by the programs
//!  <bpffs>/v2/maps/epoch                                                  moves when ways change: ends what flows keep of them
//!  <bpffs>/v2/maps/{events,event_limits,watch}                            what programs tell of packets, and who wants to hear
//!  <bpffs>/v2/programs/{from_pod,to_pod,from_wire,to_wire,from_tunnel,to_tunnel}  loaded once, attached many times
//!  <bpffs>/v2/links/<hook>:<interface>                                    tcx links of uplinks and of the tunnel, where there is tcx
//! ```
//! [`Datapath::open`] loads the programs once, takes over the maps that are pinned, and lets every pinned link run the
//! new programs, each in one step. On the links of pods, and everywhere where the kernel has no tcx
//! ([`has_tcx`]), the programs stand as filters, which the agent puts: see [`Datapath::programs`]. Starting a pod loads
//! nothing.
#![warn(missing_docs)]

mod attachments;
mod bpffs;
mod counters;
mod datapath;
mod endpoints;
mod entries;
mod epoch;
mod events;
mod features;
mod flows;
mod host_ports;
mod ipcache;
mod migrate;
mod object;
mod pod_links;
mod pressure;
mod sweep;
mod tick;
mod trial;
mod tunnel_links;
mod uplinks;

pub use attachments::{AttachError, AttachPoint, Attached, Attachments, Hook};
pub use bpffs::BpffsError;
pub use counters::{Counter, CounterError};
pub use datapath::{Config, Datapath, OpenError, Program, PurgeError, Targets};
pub use endpoints::{Endpoint, EndpointAddr, Endpoints};
pub use entries::EntryError;
pub use epoch::Epoch;
pub use events::{EventError, Events, PacketEvent, Transport, Untold, Wish, boot_clock};
pub use features::{Feature, features, has_tcx};
pub use flows::{Course, Flow, FlowTable, Mapping};
pub use host_ports::{HostPort, HostPortBackend, HostPortError, HostPorts};
pub use ipcache::{Ipcache, Remote, RemotePrefix};
pub use migrate::MigrateError;
pub use object::LoadError;
pub use pod_links::{IfIndex, PodLink, PodLinks};
pub use pressure::{MapUse, Pressure};
pub use rhumb_ebpf_common::layout::TUNNEL_MAC;
pub use rhumb_ebpf_common::{Direction, Reason, Verdict};
pub use sweep::{Evictions, Sweep, Swept};
pub use trial::{Code, Ran, Trial, TrialError};
pub use tunnel_links::{TunnelLink, TunnelLinks};
pub use uplinks::{Uplink, Uplinks};
