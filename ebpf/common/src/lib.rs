// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel and the user side of the datapath share: the layouts of the maps, the reasons, and every decision
//! about a packet that needs no map.
//!
//! Nothing here touches a map, a clock or a socket. A program reads a packet through [`Bytes`], asks these functions,
//! and only then writes; the host tests ask the same functions about packets in memory.
#![no_std]
#![warn(missing_docs, clippy::cast_possible_truncation)]

mod bytes;
mod checksum;
pub mod ct;
pub mod event;
mod icmp;
pub mod icmp_error;
mod ip;
pub mod layout;
pub mod mtu;
pub mod nat;
mod neighbour;
mod reason;
mod route;
mod transport;
pub mod vxlan;

pub use bytes::{Bytes, ethernet};
pub use checksum::fold;
pub use icmp::{Quote, is_error, quote};
pub use ip::{Family, Ip, Source, V4, V6};
pub use neighbour::{Arp, ArpFrame, NdFrame, Solicitation, arp, is_discovery, neighbour_discovery};
pub use reason::{Direction, Reason, Verdict};
pub use route::{Fib, segment_length};
pub use transport::{Part, Ports, SCTP, TCP, UDP, plain_ports, ports};
