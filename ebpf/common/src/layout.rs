// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Keys and values of the maps: wire order, explicit padding, sizes asserted.
//!
//! Invariant: within one layout version ([`VERSION`]) nothing here changes its meaning. Reserved bytes are zero; they
//! have room for the identity, policy set and tunnel of a later version.

use crate::event::{Event, Limit, Watch};
use crate::{Direction, Reason};

/// Version of the layouts, part of the directory that maps are pinned in.
pub const VERSION: u32 = 2;

/// How many pods, links and host ports one node can have.
pub const ENTRIES: u32 = 65_536;
/// How many flows are remembered, unless the loader is told otherwise: twice what one node address can carry to one
/// destination.
pub const FLOWS: u32 = 131_072;
/// How many datagrams in fragments are followed at a time.
pub const FRAGMENTS: u32 = 8_192;
/// How many interfaces packets can leave the node by.
pub const UPLINKS: u32 = 1_024;
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
    /// Not read; programs of layout version 1 wrote the first byte.
    pub padding: [u8; 3],
    /// The pod's IPv6 address.
    pub v6: Address,
    /// Address of the pod's interface.
    pub mac: [u8; 6],
    /// Address of the host end.
    pub host_mac: [u8; 6],
    /// Identity of the pod; 0 when unknown.
    pub identity: u32,
    /// Index of the interface that the IPv4 address is good on, in host order; 0 when it is good wherever routes lead.
    pub interface: u32,
    /// Zero.
    pub reserved: [u8; 4],
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

/// Key of `ct`: a flow, the same for the packets of both directions. The side with the lower address is first, or with
/// the lower port where both have one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct CtKey {
    /// Address of the low side.
    pub low: Address,
    /// Address of the high side.
    pub high: Address,
    /// Port of the low side in wire order; the identifier of an ICMP echo.
    pub low_port: [u8; 2],
    /// Port of the high side in wire order; the identifier of an ICMP echo.
    pub high_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Value of `ct`. Behind the key in its element, what every packet reads shares a cache line with the key's end, and what
/// each side's packets read and count has a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ct {
    /// The tick at which the flow is forgotten (`ct::TICK_SHIFT`).
    pub expires: u32,
    /// The tick from which on a packet moves `expires`.
    pub refresh: u32,
    /// A state of `ct::state`.
    pub state: u8,
    /// [`Ct::OPENER_HIGH`] and those after it.
    pub flags: u8,
    /// With an address in `nat_addr`: the port, in wire order.
    pub nat_port: [u8; 2],
    /// The address that the other side knows the pod by, when it is not the pod's.
    pub nat_addr: Address,
    /// Interface that the flow is masqueraded on, or came in by on its way through the host stack.
    pub uplink: u32,
    /// Identity of the peer; 0 is unknown.
    pub identity: u32,
    /// Revision of the policy that let the flow; 0 is none.
    pub policy: u32,
    /// The packets of the low side.
    pub low: Sent,
    /// The service that the opener called; 0 is none.
    pub service: u32,
    /// The tick of the first packet.
    pub created: u32,
    /// The packets of the high side.
    pub high: Sent,
    /// Zero.
    pub reserved: [u8; 8],
}

/// What one side of a flow sends; part of [`Ct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sent {
    /// Where the last of its packets went.
    pub next: NextHop,
    /// Packets. Counts of packets that two CPUs handle at once may get lost.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Value of `ct` before a flow kept the next hops of both sides: maps with it are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EarlierCt {
    /// As in [`Ct`].
    pub expires: u32,
    /// As in [`Ct`].
    pub refresh: u32,
    /// As in [`Ct`].
    pub state: u8,
    /// As in [`Ct`].
    pub flags: u8,
    /// As in [`Ct`].
    pub nat_port: [u8; 2],
    /// As in [`Ct`].
    pub nat_addr: Address,
    /// As in [`Ct`].
    pub uplink: u32,
    /// As in [`Ct`].
    pub identity: u32,
    /// As in [`Ct`].
    pub policy: u32,
    /// As in [`Ct`].
    pub service: u32,
    /// As in [`Ct`].
    pub created: u32,
    /// Packets from the opener, and to it.
    pub packets: [u64; 2],
    /// Bytes from the opener, and to it.
    pub bytes: [u64; 2],
    /// A next hop, which is not taken over.
    pub next: [u8; 24],
}

impl Ct {
    /// The high side sent the first packet.
    pub const OPENER_HIGH: u8 = 1;
    /// Packets of the low side came through the host stack and return through it.
    pub const STACK_LOW: u8 = 2;
    /// Packets of the high side came through the host stack and return through it.
    pub const STACK_HIGH: u8 = 4;
    /// The flow came to a host port: answers take `nat_addr` and `nat_port` as their source.
    pub const HOST_PORT: u8 = 8;
    /// The flow is masqueraded: the opener's packets take `nat_addr` and `nat_port` as their source.
    pub const MASQUERADED: u8 = 16;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Where packets of one side of a flow go, as maps, the host's rules, routes and neighbours said a moment ago; part of
/// [`Sent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NextHop {
    /// The moment and the epoch in which that was said ([`Epoch`]): it is good for no other.
    pub at: u64,
    /// [`NextHop::LOCAL`], [`NextHop::DIRECT`] or [`NextHop::TUNNEL`], with [`NextHop::KEEP_SOURCE`],
    /// [`NextHop::SHAPED`], [`NextHop::OUTER`] or [`NextHop::SENDER`]; 0 when nothing was said.
    pub kind: u8,
    /// Traffic class of the packet that it was said for: rules may ask for it.
    pub class: u8,
    /// Largest IP packet that the way takes; 0 when there is no limit.
    pub mtu: u16,
    /// Interface that the packets come by, in host order: by another one they may not come at all. With
    /// [`NextHop::SENDER`] the IPv4 address of the node that encapsulates them.
    pub from: u32,
    /// The first twelve bytes of a frame to the pod or neighbour, then the interface in host order; or the outer
    /// destination, with [`NextHop::OUTER`] IPv4's alone, then the outer packet's gateway, zero, and the interface.
    pub to: [u32; 4],
}

impl NextHop {
    /// Nothing is known.
    pub const NONE: Self = Self { at: 0, kind: 0, class: 0, mtu: 0, from: 0, to: [0; 4] };
    /// To a neighbour.
    pub const DIRECT: u8 = 1;
    /// Into the tunnel.
    pub const TUNNEL: u8 = 2;
    /// The source is not to be translated.
    pub const KEEP_SOURCE: u8 = 4;
    /// To a pod of this node.
    pub const LOCAL: u8 = 8;
    /// A queue limits the rate of the pod.
    pub const SHAPED: u8 = 16;
    /// Into the tunnel, past its device: the way of the outer packet is known.
    pub const OUTER: u8 = 32;
    /// Out of the tunnel, from one node.
    pub const SENDER: u8 = 64;

    /// To a pod of this node.
    #[inline(always)]
    pub const fn local(at: u64, from: u32, endpoint: &Endpoint) -> Self {
        let shaped = if endpoint.flags & Endpoint::SHAPED == 0 { 0 } else { Self::SHAPED };
        let [a, b, c] = endpoint.ethernet;
        Self { at, kind: Self::LOCAL | shaped, class: 0, mtu: 0, from, to: [a, b, c, endpoint.ifindex] }
    }

    /// The same for what the node with this IPv4 address encapsulated.
    #[inline(always)]
    pub const fn sent_by(self, sender: u32) -> Self {
        Self { kind: self.kind | Self::SENDER, from: sender, ..self }
    }
}

/// By what number kept next hops are compared; the value of `epoch`, which programs read without a lookup.
///
/// The number is that of the moment, a power of two of the clock's ticks, above that of the epoch, which moves whenever
/// something changes that a next hop may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Epoch {
    /// Moves with every change.
    pub number: u32,
    /// A moment is this power of two in ticks of the kernel (`jiffies`).
    pub shift: u32,
}

impl Epoch {
    /// What a next hop is compared by that is asked for at the tick `jiffies`.
    #[inline(always)]
    pub const fn at(self, jiffies: u64) -> u64 {
        (jiffies >> (self.shift & 63)) << 32 | self.number as u64
    }
}

/// Key of `nat`: what an answer to a translated packet looks like on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct NatKey {
    /// Address of the other side.
    pub remote: Address,
    /// Address of the node.
    pub node: Address,
    /// The other side's port in wire order; the node's port for an ICMP echo.
    pub remote_port: [u8; 2],
    /// The node's port in wire order.
    pub node_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Value of `nat`: who the answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Nat {
    /// Address of the pod.
    pub pod: Address,
    /// The pod's port in wire order.
    pub pod_port: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
    /// The tick at which the mapping is forgotten if its flow is.
    pub expires: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Key of `fragments`: a datagram in several packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender.
    pub src: Address,
    /// Receiver.
    pub dst: Address,
    /// The datagram's identification, as it is in the packet.
    pub id: u32,
    /// Number of what is in the datagram.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Value of `fragments`: what the first fragment said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Fragment {
    /// Sender's port in wire order.
    pub src_port: [u8; 2],
    /// Receiver's port in wire order.
    pub dst_port: [u8; 2],
    /// IP protocol number behind all extension headers.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// The tick at which the mark is forgotten.
    pub expires: u32,
}

/// Value of `uplinks`: the addresses that packets of pods take when they leave by an interface; the key is its index in
/// host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Uplink {
    /// The node's IPv4 address there, its bytes in wire order.
    pub v4: u32,
    /// [`Uplink::HAS_V4`], [`Uplink::HAS_V6`].
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// The node's IPv6 address there.
    pub v6: Address,
    /// What the firewall mark of packets says that came in there and pass the host stack, in the bits of
    /// [`Uplink::MARK_MASK`]; 0 where nothing is said.
    pub mark: u32,
    /// Zero.
    pub reserved: [u8; 4],
}

impl Uplink {
    /// `v4` is set.
    pub const HAS_V4: u8 = 1;
    /// `v6` is set.
    pub const HAS_V6: u8 = 2;
    /// The bits of a firewall mark that say by which interface a packet came; the others are others'.
    pub const MARK_MASK: u32 = 0xffff_0000;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Key of `flows`, which version 1 had in the place of `ct`: a flow as the pod's own packets show it.
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

/// Value of `flows` of version 1: what the pod's answers need.
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
    /// [`Remote::TUNNEL`], [`Remote::KEEP_SOURCE`], [`Remote::NODE`], [`Remote::V6_ONLY`], [`Remote::DENIED`],
    /// [`Remote::STACK`].
    pub flags: u8,
    /// Zero.
    pub padding: u8,
    /// Which node has the addresses, as a number of 64 bits in host order; zero when nobody said.
    pub owner: [u32; 2],
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
    /// A service of the cloud's that the node keeps from pods.
    pub const DENIED: u8 = 16;
    /// The way is by rules of the host that programs cannot ask.
    pub const STACK: u8 = 32;

    /// Whether all of `flags` are set.
    #[inline(always)]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether somebody said which node has the addresses.
    #[inline(always)]
    pub const fn is_owned(&self) -> bool {
        self.owner[0] | self.owner[1] != 0
    }

    /// Whether one node has the addresses of both.
    #[inline(always)]
    pub const fn is_of_owner_of(&self, other: &Self) -> bool {
        self.owner[0] == other.owner[0] && self.owner[1] == other.owner[1]
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

/// Value of `churn`, one per CPU: what programs put into a map that forgets, and took out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Churn {
    /// Entries that were not there before.
    pub inserted: u64,
    /// Entries that were there.
    pub removed: u64,
}

impl Churn {
    /// The key of what is said of `ct`.
    pub const CT: u32 = 0;
    /// The key of what is said of `nat`.
    pub const NAT: u32 = 1;
    /// How many keys there are.
    pub const MAPS: u32 = 2;
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
    Link, 48, 4, flags at 4, v6 at 8, mac at 24, host_mac at 30, identity at 36, interface at 40, reserved at 44;
    HostPortKey, 20, 4, port at 16, protocol at 18;
    HostPortValue, 24, 4, port at 16;
    CtKey, 40, 4, high at 16, low_port at 32, high_port at 34, protocol at 36;
    Ct, 168, 8, state at 8, flags at 9, nat_port at 10, nat_addr at 12, uplink at 28, policy at 36, low at 40, service at 96, high at 104, reserved at 160;
    Sent, 56, 8, packets at 32, bytes at 40, reserved at 48;
    EarlierCt, 104, 8, state at 8, flags at 9, nat_port at 10, nat_addr at 12, uplink at 28, policy at 36, service at 40, packets at 48, bytes at 64, next at 80;
    NextHop, 32, 8, kind at 8, class at 9, mtu at 10, from at 12, to at 16;
    Epoch, 8, 4, shift at 4;
    NatKey, 40, 4, node at 16, remote_port at 32, node_port at 34, protocol at 36;
    Nat, 32, 4, pod_port at 16, expires at 20, reserved at 24;
    FragmentKey, 40, 4, dst at 16, id at 32, protocol at 36;
    Fragment, 12, 4, dst_port at 2, protocol at 4, expires at 8;
    Uplink, 32, 4, flags at 4, v6 at 8, mark at 24, reserved at 28;
    FlowKey, 40, 4, peer at 16, pod_port at 32, peer_port at 34, protocol at 36;
    Flow, 32, 4, port at 16, kind at 18;
    PrefixKey, 20, 4, addr at 4;
    Remote, 32, 4, identity at 16, mtu at 20, flags at 22, owner at 24;
    Config, 64, 4, tunnel_port at 4, outer_v4 at 8, outer_v6 at 12, reserved at 28;
    Churn, 16, 8, removed at 8;
    Count, 16, 8, bytes at 8;
    Event, 64, 8, src at 8, dst at 24, length at 40, ifindex at 44, ethertype at 48,
        src_port at 50, dst_port at 52, reason at 54, direction at 55, verdict at 56, protocol at 57, tcp_flags at 58;
    Watch, 48, 8, addrs at 8, reason at 40;
    Limit, 24, 8, limited at 8, full at 16;
}
