// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Keys and values of the maps: wire order, explicit padding, sizes asserted.
//!
//! Invariant: within one layout version ([`VERSION`]) nothing here changes its meaning. Reserved bytes are zero; they
//! have room for the identity, policy set and tunnel of a later version.

use crate::{Direction, Reason};

/// Version of the layouts, part of the directory that maps are pinned in.
pub const VERSION: u32 = 1;

/// How many pods, links and host ports one node can have.
pub const ENTRIES: u32 = 65_536;
/// How many translated or stack-bound flows are remembered.
pub const FLOWS: u32 = 65_536;
/// How many prefixes the `ipcache` has room for.
pub const PREFIXES: u32 = 65_536;
/// How many counters there are.
pub const COUNTERS: u32 = Reason::ROOM * Direction::ROOM;
/// `BPF_F_NO_PREALLOC`: memory is taken when an entry is made.
pub const NO_PREALLOC: u32 = 1;

/// An address in 16 bytes, IPv4 as `::ffff:a.b.c.d`: four words, the bytes of each in wire order.
pub type Address = [u32; 4];

/// Whether two addresses are the same; word by word, as comparing memory is a call in a program.
#[inline(always)]
pub const fn same(a: &Address, b: &Address) -> bool {
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// Whether the address is one of IPv4.
#[inline(always)]
pub const fn is_v4(addr: &Address) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == u32::from_ne_bytes([0, 0, 0xff, 0xff])
}

/// Value of `pods`: where a local pod is reached; the key is its [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Endpoint {
    /// Interface index of the host end, in host order.
    pub ifindex: u32,
    /// [`Endpoint::SHAPED`].
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// The first twelve bytes of a frame to the pod: address of the pod's interface, then that of the host end.
    pub ethernet: [u32; 3],
    /// Zero.
    pub reserved: [u8; 12],
}

impl Endpoint {
    /// A queue on the host end limits the rate of the pod, so packets must pass it.
    pub const SHAPED: u8 = 1;

    /// Address of the pod's interface.
    pub const fn mac(&self) -> [u8; 6] {
        let [a, b, _] = self.ethernet;
        let (a, b) = (a.to_ne_bytes(), b.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1]]
    }

    /// Address of the host end.
    pub const fn host_mac(&self) -> [u8; 6] {
        let [_, b, c] = self.ethernet;
        let (b, c) = (b.to_ne_bytes(), c.to_ne_bytes());
        [b[2], b[3], c[0], c[1], c[2], c[3]]
    }
}

/// Ethernet address of the tunnel on every node.
pub const TUNNEL_MAC: [u8; 6] = [0x02, b'r', b'h', b'u', b'm', b'b'];
/// Ethernet sender of every packet in the tunnel: a tunnel takes packets with its own address for its own.
pub const TUNNEL_SENDER: [u8; 6] = [0x06, b'r', b'h', b'u', b'm', b'b'];

/// The first twelve bytes of a frame.
#[inline(always)]
pub const fn ethernet(to: [u8; 6], from: [u8; 6]) -> [u32; 3] {
    [
        u32::from_ne_bytes([to[0], to[1], to[2], to[3]]),
        u32::from_ne_bytes([to[4], to[5], from[0], from[1]]),
        u32::from_ne_bytes([from[2], from[3], from[4], from[5]]),
    ]
}

/// Value of `links`: who is behind a host end; the key is its interface index in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Link {
    /// The pod's IPv4 address, its bytes in wire order.
    pub v4: u32,
    /// [`Link::HAS_V4`], [`Link::HAS_V6`], [`Link::CHAINED`], [`Link::HOST_PORTS`].
    pub flags: u8,
    /// 1 when flows came through the host stack; written by `to_pod` alone.
    pub tracked: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// The pod's IPv6 address.
    pub v6: Address,
    /// Address of the pod's interface.
    pub mac: [u8; 6],
    /// Address of the host end.
    pub host_mac: [u8; 6],
    /// Identity of the pod; 0 when unknown.
    pub identity: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

impl Link {
    /// `v4` is set.
    pub const HAS_V4: u8 = 1;
    /// `v6` is set.
    pub const HAS_V6: u8 = 2;
    /// Another plugin forwards: only the source is checked.
    pub const CHAINED: u8 = 4;
    /// Host ports lead to this pod: its packets may be answers to be translated.
    pub const HOST_PORTS: u8 = 8;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether a packet of the pod may belong to a remembered flow.
    #[inline(always)]
    pub const fn has_flows(&self) -> bool {
        self.flags & Self::HOST_PORTS != 0 || self.tracked != 0
    }
}

/// Key of `host_ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct HostPortKey {
    /// Address of the node.
    pub addr: Address,
    /// Port in wire order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}

/// Value of `host_ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct HostPortValue {
    /// Address of the pod, of the same family as the key's.
    pub addr: Address,
    /// Port in wire order.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 6],
}

/// Key of `flows`: a flow as the pod's own packets show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the pod.
    pub pod: Address,
    /// Address of the other side.
    pub peer: Address,
    /// The pod's port in wire order.
    pub pod_port: [u8; 2],
    /// The other side's port in wire order.
    pub peer_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Value of `flows`: what the pod's answers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Flow {
    /// Address that the other side knows the pod by; zero when the host stack knows.
    pub addr: Address,
    /// Port that the other side knows the pod by, in wire order.
    pub port: [u8; 2],
    /// [`Flow::STACK`] or [`Flow::HOST_PORT`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 13],
}

impl Flow {
    /// Came through the host stack, and returns through it.
    pub const STACK: u8 = 1;
    /// Came to a host port; `addr` and `port` become the source of the answers.
    pub const HOST_PORT: u8 = 2;

    /// A flow that the host stack forwarded.
    pub const fn stack() -> Self {
        Self { addr: [0; 4], port: [0; 2], kind: Self::STACK, reserved: [0; 13] }
    }

    /// A flow to the host port `port` at `addr`.
    #[inline(always)]
    pub const fn host_port(addr: Address, port: [u8; 2]) -> Self {
        Self { addr, port, kind: Self::HOST_PORT, reserved: [0; 13] }
    }
}

/// Key of `ipcache`: a prefix, of which the longest that holds an address counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct PrefixKey {
    /// Length in bits of the 128, in host order: 96 more than an IPv4 prefix says.
    pub length: u32,
    /// The address; what is behind `length` bits does not count.
    pub addr: Address,
}

impl PrefixKey {
    /// The key that finds the longest prefix with `addr`.
    #[inline(always)]
    pub const fn host(addr: Address) -> Self {
        Self { length: 128, addr }
    }
}

/// Value of `ipcache`: what is where the prefix is, and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Remote {
    /// Outer destination, of either family; zero when there is none.
    pub tunnel: Address,
    /// Identity of whoever has the addresses; 0 when unknown.
    pub identity: u32,
    /// Largest IP packet that the way takes; 0 when the route says.
    pub mtu: u16,
    /// [`Remote::TUNNEL`], [`Remote::KEEP_SOURCE`], [`Remote::NODE`], [`Remote::V6_ONLY`].
    pub flags: u8,
    /// Zero.
    pub padding: u8,
    /// Zero.
    pub reserved: [u8; 8],
}

impl Remote {
    /// Packets are encapsulated and sent to `tunnel`.
    pub const TUNNEL: u8 = 1;
    /// The source is never translated towards it.
    pub const KEEP_SOURCE: u8 = 2;
    /// An address of a node, not of a pod.
    pub const NODE: u8 = 4;
    /// The prefix is one of IPv6 that would hold all IPv4 addresses in their IPv6 form, for example `::/0`.
    pub const V6_ONLY: u8 = 8;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Value of `config`, which has one entry: what the programs have to know about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Interface index of the tunnel in host order; 0 when there is none.
    pub tunnel: u32,
    /// UDP port of the tunnel in wire order; 0 when there is none.
    pub tunnel_port: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
    /// Outer source towards IPv4 nodes, its bytes in wire order; 0 when the route says.
    pub outer_v4: u32,
    /// Outer source towards IPv6 nodes; zero when the route says.
    pub outer_v6: Address,
    /// Zero.
    pub reserved: [u8; 36],
}

impl Config {
    /// Without a tunnel.
    pub const NONE: Self = Self {
        tunnel: 0,
        tunnel_port: [0; 2],
        padding: [0; 2],
        outer_v4: 0,
        outer_v6: [0; 4],
        reserved: [0; 36],
    };
}

/// Value of `counters`, one per CPU; the key is [`Count::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Count {
    /// Packets; a segment to be cut up by the device counts once.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
}

impl Count {
    /// Where the counter of `reason` and `direction` is.
    #[inline(always)]
    pub const fn index(reason: Reason, direction: Direction) -> u32 {
        reason as u32 * Direction::ROOM + direction as u32
    }
}

macro_rules! laid_out {
    ($($type:ty, $size:literal, $align:literal $(, $field:ident at $offset:literal)*;)*) => {
        $(const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };)*

        $(
            #[cfg(feature = "user")]
            #[expect(unsafe_code, reason = "aya copies keys and values as bytes")]
            // SAFETY: repr(C), integers and arrays of integers only, sizes asserted above to leave no implicit padding.
            unsafe impl aya::Pod for $type {}
        )*
    };
}

laid_out! {
    Endpoint, 32, 4, flags at 4, ethernet at 8, reserved at 20;
    Link, 48, 4, flags at 4, tracked at 5, v6 at 8, mac at 24, host_mac at 30, identity at 36, reserved at 40;
    HostPortKey, 20, 4, port at 16, protocol at 18;
    HostPortValue, 24, 4, port at 16;
    FlowKey, 40, 4, peer at 16, pod_port at 32, peer_port at 34, protocol at 36;
    Flow, 32, 4, port at 16, kind at 18;
    PrefixKey, 20, 4, addr at 4;
    Remote, 32, 4, identity at 16, mtu at 20, flags at 22, reserved at 24;
    Config, 64, 4, tunnel_port at 4, outer_v4 at 8, outer_v6 at 12, reserved at 28;
    Count, 16, 8, bytes at 8;
}
