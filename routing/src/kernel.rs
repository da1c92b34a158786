// SPDX-License-Identifier: Apache-2.0
//! What the targets need of a kernel, as a trait: the real one over netlink ([`crate::Netlink`]), one in memory
//! for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use rhumb_model::{AttachmentKey, Family, IfName, MacAddr, Prefix};

/// Number by which routes and addresses of rhumb are known (`RTA_PROTOCOL`, `IFA_PROTO`).
pub const PROTOCOL: u8 = 0x72;

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The one that the agent works for.
    Host,
    /// The one of this attachment.
    Pod(AttachmentKey),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Host => f.write_str("the host"),
            Place::Pod(key) => key.fmt(f),
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub name: IfName,
    /// Alias, which carries the owner.
    pub alias: Option<String>,
    /// Ethernet address, where it has one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// The other end of a pair: its index, and where it is.
    pub peer: Option<Peer>,
}

/// The other end of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Index in its own namespace.
    pub ifindex: u32,
    /// Its namespace as seen from this end's; `None` is the same namespace.
    pub netns: Option<i32>,
}

/// The links of the host, and the numbers that it gave to the namespaces of pods.
#[derive(Debug, Clone, Default)]
pub struct HostLinks {
    /// All links.
    pub links: Vec<Link>,
    /// Names of links with `fe80::1/64`.
    pub gateways: Vec<IfName>,
    /// Numbers of the open namespaces that a link leads to.
    pub namespaces: BTreeMap<AttachmentKey, i32>,
}

/// A pair to be made: one end on the host, one in a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Name of the host's end.
    pub host: IfName,
    /// Alias of the host's end.
    pub alias: String,
    /// Address of the host's end.
    pub host_mac: MacAddr,
    /// The pod's namespace, and the name of the end there.
    pub key: AttachmentKey,
    /// Address of the pod's end.
    pub mac: MacAddr,
    /// MTU of both ends in bytes.
    pub mtu: u32,
}

/// A VXLAN device to be made: one whose packets carry their destination with them, that learns nothing and resolves no
/// neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTunnel {
    /// Name.
    pub name: IfName,
    /// Alias, which carries the owner.
    pub alias: String,
    /// Ethernet address.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u32,
    /// UDP port.
    pub port: u16,
}

/// A VXLAN device that is there, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// Index.
    pub ifindex: u32,
    /// Name.
    pub name: IfName,
    /// Alias, which carries the owner.
    pub alias: Option<String>,
    /// Ethernet address, where it has one.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it resolves neighbours.
    pub arp: bool,
    /// UDP port.
    pub port: u16,
    /// Whether its packets carry their destination with them.
    pub external: bool,
    /// Whether it learns destinations from what comes in.
    pub learning: bool,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Name of the link.
    pub ifname: IfName,
    /// Address with the length of its subnet.
    pub address: IpNetwork,
    /// Who added it (`IFA_PROTO`), 0 when nobody said.
    pub protocol: u8,
    /// Whether it is valid beyond the link.
    pub global: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub dst: Prefix,
    /// Metric; among routes to the same destination the lowest wins.
    pub metric: u32,
    /// Where it leads.
    pub next_hop: NextHop,
    /// MTU in bytes, where the route sets one.
    pub mtu: Option<u32>,
    /// Source of what this host sends along it, where the route sets one.
    pub source: Option<IpAddr>,
    /// Who added it (`RTA_PROTOCOL`).
    pub protocol: u8,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NextHop {
    /// Out of a link, to a gateway where there is one.
    Link {
        /// Name of the link; when a route is put, `None` lets the kernel find it.
        ifname: Option<IfName>,
        /// Next hop.
        gateway: Option<IpAddr>,
        /// Whether the gateway is taken to be a neighbour without a route to it.
        onlink: bool,
    },
    /// Nowhere: packets are answered with "unreachable".
    Unreachable,
    /// Anything else: several next hops, black holes and the like. Never put.
    Other,
}

/// A rule of rhumb that chooses the table in which the kernel looks for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRule {
    /// Which packets it is asked for.
    pub family: Family,
    /// Its turn: the lowest is asked first.
    pub priority: u32,
    /// Packets from here; `None` is from anywhere.
    pub from: Option<Prefix>,
    /// Packets whose firewall mark is the first number where the second has ones.
    pub mark: Option<(u32, u32)>,
    /// The table.
    pub table: u32,
    /// Routes of the table that are no longer than this many bits do not count.
    pub suppress: Option<u8>,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        match (self.from, self.family) {
            (Some(from), _) => write!(f, " from {from}")?,
            (None, Family::V4) => f.write_str(" from 0.0.0.0/0")?,
            (None, Family::V6) => f.write_str(" from ::/0")?,
        }
        if let Some((mark, mask)) = self.mark {
            write!(f, " fwmark {mark:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", self.table)?;
        self.suppress.map_or(Ok(()), |length| write!(f, " suppress_prefixlength {length}"))
    }
}

/// A token bucket at the root of a link, as the kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

/// A token bucket of rhumb that is there. The kernel tells the burst only as a time, so it is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaped {
    /// Name of the link.
    pub ifname: IfName,
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may wait.
    pub limit: u32,
}

/// Which packets of a link a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Those that come in through the link.
    Ingress,
    /// Those that go out through the link.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// A program that is to see packets of a link of the host.
#[derive(Debug, Clone)]
pub struct NewFilter {
    /// Name of the link.
    pub ifname: IfName,
    /// Index that the link of this name must have.
    pub ifindex: u32,
    /// Which packets.
    pub hook: Hook,
    /// The kernel's number of the program.
    pub program: u32,
    /// The program.
    pub fd: Arc<OwnedFd>,
}

/// A program that sees packets of a link of the host because rhumb put it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterFound {
    /// Name of the link.
    pub ifname: IfName,
    /// Index of the link.
    pub ifindex: u32,
    /// Which packets.
    pub hook: Hook,
    /// The kernel's number of the program.
    pub program: u32,
}

/// One thing to be done in a namespace. Links are meant by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Changes what is `Some` of a link, and switches it on.
    SetLink {
        /// Name of the link.
        ifname: IfName,
        /// Ethernet address.
        mac: Option<MacAddr>,
        /// MTU in bytes.
        mtu: Option<u32>,
    },
    /// Gives the host's end of a pair its `fe80::1/64`.
    AddGateway(IfName),
    /// Adds an address that is usable at once and brings no route with it; present is an error.
    AddAddress(IfName, IpNetwork),
    /// Removes an address; absent is an error.
    RemoveAddress(IfName, IpNetwork),
    /// Adds a route; a route with its destination and metric is an error.
    AddRoute(Route),
    /// Puts a route in place of the one with its destination and metric, in one step.
    ReplaceRoute(Route),
    /// Removes a route; absent is an error.
    RemoveRoute(Route),
    /// As `AddRoute`, in a table of the host other than the main one.
    AddTableRoute(u32, Route),
    /// As `ReplaceRoute`, in a table of the host other than the main one.
    ReplaceTableRoute(u32, Route),
    /// As `RemoveRoute`, in a table of the host other than the main one.
    RemoveTableRoute(u32, Route),
    /// Adds a rule; present is an error. That another program has one that does the same is none.
    AddRule(PolicyRule),
    /// Removes a rule of rhumb; absent is an error.
    RemoveRule(PolicyRule),
    /// Makes or changes our token bucket; another queueing discipline at the root is an error.
    PutBucket(IfName, Bucket),
    /// Removes our token bucket; absent is an error.
    RemoveBucket(IfName),
}

/// Why the kernel did not do something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The namespace of the attachment is not registered.
    #[error("no namespace is open for {key}")]
    NotOpen {
        /// Which attachment.
        key: AttachmentKey,
    },
    /// There is no link of this name.
    #[error("no interface {ifname} in {place}")]
    NoLink {
        /// Name of the link.
        ifname: IfName,
        /// Where it was looked for.
        place: Place,
    },
    /// The kernel refused the change.
    #[error("the kernel refuses{}", words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Refused {
        /// The kernel's own words, where it has any.
        words: Option<String>,
        /// Its error number.
        #[source]
        cause: io::Error,
    },
    /// The conversation with the kernel broke off.
    #[error("talk to the kernel in {place}")]
    Socket {
        /// In which namespace.
        place: Place,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl KernelError {
    /// The same error once more, for another item of the batch that it ended.
    pub(crate) fn again(&self) -> Self {
        let same = |cause: &io::Error| {
            cause.raw_os_error().map_or_else(|| cause.kind().into(), io::Error::from_raw_os_error)
        };
        match self {
            KernelError::NotOpen { key } => KernelError::NotOpen { key: key.clone() },
            KernelError::NoLink { ifname, place } => {
                KernelError::NoLink { ifname: ifname.clone(), place: place.clone() }
            }
            KernelError::Refused { words, cause } => {
                KernelError::Refused { words: words.clone(), cause: same(cause) }
            }
            KernelError::Socket { place, cause } => {
                KernelError::Socket { place: place.clone(), cause: same(cause) }
            }
        }
    }

    fn errno(&self) -> Option<rustix::io::Errno> {
        let KernelError::Refused { cause, .. } = self else { return None };
        cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error)
    }

    /// Whether the same call can succeed later without anyone changing what is desired.
    pub fn is_retryable(&self) -> bool {
        use rustix::io::Errno;
        !matches!(
            self.errno(),
            Some(
                Errno::INVAL
                    | Errno::RANGE
                    | Errno::OPNOTSUPP
                    | Errno::AFNOSUPPORT
                    | Errno::PERM
                    | Errno::ACCESS
            )
        )
    }

    /// Whether the object is there already.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::EXIST)
    }

    /// Whether somebody else listens there already.
    pub fn is_address_taken(&self) -> bool {
        self.errno() == Some(rustix::io::Errno::ADDRINUSE)
    }

    /// Whether the object, or what it is part of, is not there.
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        matches!(self, KernelError::NotOpen { .. } | KernelError::NoLink { .. })
            || matches!(self.errno(), Some(Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::ADDRNOTAVAIL))
    }
}

/// What came back from each of several namespaces.
pub type ByPod<T> = BTreeMap<AttachmentKey, T>;

/// The part of a kernel that rhumb uses. Whatever is awaited here happens to its end also when it is cancelled.
pub trait Kernel {
    /// Whether the attachment's namespace is open.
    fn is_open(&self, key: &AttachmentKey) -> bool;

    /// Links of the host.
    fn host_links(&self) -> impl Future<Output = Result<HostLinks, KernelError>>;

    /// Addresses of the link of each open attachment in its pod's namespace, or of one attachment.
    fn pod_addresses(
        &self,
        only: Option<&AttachmentKey>,
    ) -> impl Future<Output = Result<ByPod<Vec<Address>>, KernelError>>;

    /// Routes of rhumb through the link of each open attachment, or of one.
    fn pod_routes(
        &self,
        only: Option<&AttachmentKey>,
    ) -> impl Future<Output = Result<ByPod<Vec<Route>>, KernelError>>;

    /// Token buckets of rhumb at the link of each open attachment.
    fn pod_buckets(&self) -> impl Future<Output = Result<ByPod<Shaped>, KernelError>>;

    /// Routes of rhumb on the host.
    fn host_routes(&self) -> impl Future<Output = Result<Vec<Route>, KernelError>>;

    /// Routes of rhumb on the host in all tables but the main one, with the number of the table.
    fn table_routes(&self) -> impl Future<Output = Result<Vec<(u32, Route)>, KernelError>>;

    /// Rules of rhumb.
    fn rules(&self) -> impl Future<Output = Result<Vec<PolicyRule>, KernelError>>;

    /// Addresses of the host that are valid beyond their link, whoever put them.
    fn host_addresses(&self) -> impl Future<Output = Result<Vec<Address>, KernelError>>;

    /// Token buckets of rhumb on the host.
    fn host_buckets(&self) -> impl Future<Output = Result<Vec<Shaped>, KernelError>>;

    /// Programs that see packets of the host's links because rhumb put them there.
    fn filters(&self) -> impl Future<Output = Result<Vec<FilterFound>, KernelError>>;

    /// Lets programs see packets of the host's links, one result each; one of rhumb that is at the same hook is
    /// replaced in one step. No link of that name and index is [`KernelError::NoLink`]; a queueing discipline of
    /// others that leaves no room for the hook is present.
    fn put_filters(&self, filters: Vec<NewFilter>) -> impl Future<Output = Vec<Result<(), KernelError>>>;

    /// Removes programs of rhumb from hooks of the host's links, one result each; absent is an error.
    fn remove_filters(
        &self,
        hooks: Vec<(IfName, Hook)>,
    ) -> impl Future<Output = Vec<Result<(), KernelError>>>;

    /// Makes changes in one namespace in order, one result each; one that is refused does not keep the others back.
    fn apply(&self, place: Place, changes: Vec<Change>)
    -> impl Future<Output = Vec<Result<(), KernelError>>>;

    /// Makes pairs, one result each: the index of the host's end. Both ends and the pod's loopback are up then, and
    /// the host's end has `fe80::1/64`. A taken name at either end is an error that leaves nothing behind.
    fn create_pairs(&self, pairs: Vec<Pair>) -> impl Future<Output = Vec<Result<u32, KernelError>>>;

    /// VXLAN devices of the host, whoever made them.
    fn tunnels(&self) -> impl Future<Output = Result<Vec<Tunnel>, KernelError>>;

    /// Makes a VXLAN device on the host that is up then; its index. A taken name or port is an error that leaves
    /// nothing behind; a port that a device of the same kind has is told like a name.
    fn create_tunnel(&self, tunnel: NewTunnel) -> impl Future<Output = Result<u32, KernelError>>;

    /// Deletes links of the host by index, one result each; absent is an error. Done means that nobody sees them
    /// any more, neither end.
    fn delete_links(&self, links: Vec<u32>) -> impl Future<Output = Vec<Result<(), KernelError>>>;
}
