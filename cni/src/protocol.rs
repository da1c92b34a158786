// SPDX-License-Identifier: Apache-2.0
//! What the plugin and the agent say to each other.
//!
//! One Unix stream connection carries one request and one reply, each a frame: length in bytes (u32, big-endian),
//! then that many bytes of JSON. With a request that names a network namespace, the plugin passes the open
//! namespace as a descriptor (SCM_RIGHTS) beside the first byte of the frame, so that the agent need not see the path.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhumb_model::{AttachmentKey, IfName, MacAddr, PodKey, Prefix};
use serde::{Deserialize, Serialize};

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/rhumb/agent.sock";

/// Folder beside the socket in which the plugin queues what it could not tell the agent.
pub const QUEUE_DIR: &str = "queue";

/// No frame is longer than this many bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE", deny_unknown_fields)]
pub enum Request {
    /// Make an attachment; comes with the namespace's descriptor.
    Add(Box<AddRequest>),
    /// Remove an attachment; its absence is success.
    Del(DelRequest),
    /// Compare an attachment with its result; comes with the namespace's descriptor when it could be opened.
    Check(CheckRequest),
    /// Remove every attachment of the network that is not listed.
    Gc(GcRequest),
    /// Whether the agent can serve ADD.
    Status,
}

/// ADD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// Which interface of which container.
    pub key: AttachmentKey,
    /// Name of the network in the configuration.
    pub network: String,
    /// `CNI_NETNS` as the runtime gave it, for the result and for finding the namespace again after a restart.
    pub netns: String,
    /// The pod, from `CNI_ARGS` (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`).
    pub pod: Option<PodKey>,
    /// Where the addresses come from.
    pub addresses: AddressSource,
    /// Wanted MAC address of the container interface.
    pub mac: Option<MacAddr>,
    /// Wanted MTU in bytes.
    pub mtu: Option<u32>,
    /// Ports of the node that lead to the container.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Limits of the container's rate.
    pub bandwidth: Option<Bandwidth>,
}

/// Where the addresses of an attachment come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase", deny_unknown_fields)]
pub enum AddressSource {
    /// From the node's pool, these if any are named (at most one per family).
    Pool {
        /// Wanted addresses.
        #[serde(default)]
        requested: Vec<IpAddr>,
    },
    /// From another IPAM plugin, which the plugin has asked already.
    Delegated {
        /// Addresses with the length of their subnet.
        addresses: Vec<IpNetwork>,
        /// Routes that the IPAM plugin wants beside the default ones.
        #[serde(default)]
        routes: Vec<Route>,
    },
    /// Chained: another plugin made the interface and gave it these.
    Chained {
        /// Addresses of the container interface with the length of their subnet.
        addresses: Vec<IpNetwork>,
        /// The host's end of the pair, where the result of the other plugin names it.
        host_ifname: Option<IfName>,
    },
}

/// Transport protocol of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the node that leads to the container (CNI CONVENTIONS, portMappings). Ports are never 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortMapping {
    /// Port on the node.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the node; every one of its addresses when absent.
    pub host_ip: Option<IpAddr>,
}

/// Limits of a container's rate (CNI CONVENTIONS, bandwidth). Rates in bit/s, bursts in bits; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Towards the container.
    pub ingress: Option<Limit>,
    /// From the container.
    pub egress: Option<Limit>,
}

/// One token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Rate in bit/s, not 0.
    pub rate: u64,
    /// Burst in bits, not 0.
    pub burst: u64,
}

/// DEL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelRequest {
    /// Which interface of which container.
    pub key: AttachmentKey,
    /// Name of the network in the configuration.
    pub network: String,
}

/// CHECK.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// Which interface of which container.
    pub key: AttachmentKey,
    /// Name of the network in the configuration.
    pub network: String,
    /// Addresses that the result gave to the container interface.
    pub addresses: Vec<IpNetwork>,
    /// Routes that the result gave to the container.
    pub routes: Vec<Route>,
    /// Host interfaces of the result that are ours to check: those of the result without a sandbox.
    pub host_interfaces: Vec<IfName>,
}

/// GC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Name of the network in the configuration.
    pub network: String,
    /// Attachments that stay.
    pub keep: Vec<AttachmentKey>,
}

/// A route inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination.
    pub dst: Prefix,
    /// Gateway, where there is one.
    pub gw: Option<IpAddr>,
    /// MTU in bytes, where it differs from the interface's.
    pub mtu: Option<u32>,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase", deny_unknown_fields)]
pub enum Reply {
    /// ADD is done.
    Added(Attachment),
    /// DEL, CHECK, GC or STATUS is done.
    Done,
    /// The request is not done.
    Refused(Refusal),
}

/// Why the agent did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Refusal {
    /// Which kind of refusal; the plugin turns it into a CNI code.
    pub kind: RefusalKind,
    /// What happened, for people.
    pub message: String,
    /// More of it, or empty.
    #[serde(default)]
    pub details: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// CHECK of a container that the agent does not know (CNI code 3).
    UnknownContainer,
    /// A kernel or disk operation did not succeed (CNI code 5).
    Io,
    /// The configuration asks for what cannot be (CNI code 7).
    InvalidConfig,
    /// Later it may work: not ready, pool empty (CNI code 11).
    TryAgain,
    /// STATUS: ADD cannot be served (CNI code 50).
    NotAvailable,
    /// STATUS: ADD cannot be served, and running containers may be affected (CNI code 51).
    LimitedConnectivity,
    /// The interface name is taken by somebody else's interface (own code 101).
    InterfaceExists,
    /// CHECK: the attachment is not as its result says (own code 102).
    Differs,
    /// The requested address cannot be had (own code 103).
    AddressUnavailable,
    /// Removal of some attachments did not succeed (own code 104).
    Incomplete,
}

/// What ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The host's end.
    pub host: Interface,
    /// The container's end.
    pub container: Interface,
    /// Addresses of the container interface, IPv4 first.
    pub addresses: Vec<Address>,
    /// Routes in the container.
    pub routes: Vec<Route>,
}

/// One end of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Name.
    pub name: IfName,
    /// MAC address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
}

/// An address of the container interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Address with the length of its subnet.
    pub address: IpNetwork,
    /// Gateway, where there is one.
    pub gateway: Option<IpAddr>,
}
