// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The maps, behind one function per question.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_TUNINFO_IPV6, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP,
    bpf_fib_lookup as FibParams, bpf_redir_neigh as Neighbour, bpf_sock_tuple as Sockets,
    bpf_tunnel_key as TunnelKey,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_hash_recalc, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns,
    bpf_ktime_get_coarse_ns, bpf_loop, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_get_tunnel_key,
    bpf_skc_lookup_tcp,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use rhumb_ebpf_common::ct::{Side, TICK_SHIFT};
use rhumb_ebpf_common::event::{Event, Limit, RING, WAKE, Watch};
use rhumb_ebpf_common::layout::{
    self, Address, COUNTERS, Churn, Config, Count, Ct, CtKey, ENTRIES, Endpoint, Epoch, FLOWS, FRAGMENTS,
    Fragment, FragmentKey, HostPortKey, HostPortValue, Link, NO_PREALLOC, Nat, NatKey, NextHop, PREFIXES,
    PrefixKey, Remote, UPLINKS, Uplink,
};
use rhumb_ebpf_common::nat::{Probe, probes};
use rhumb_ebpf_common::vxlan::source_port;
use rhumb_ebpf_common::{
    Bytes as _, Direction, Family, Fib, Ip, Ports, Reason, TCP, UDP, V4, ethernet, segment_length,
};

use crate::call::given;
use crate::packet::Skb;

#[map(name = "pods")]
static PODS: HashMap<Address, Endpoint> = HashMap::with_max_entries(ENTRIES, NO_PREALLOC);
#[map(name = "links")]
static LINKS: HashMap<u32, Link> = HashMap::with_max_entries(ENTRIES, NO_PREALLOC);
#[map(name = "host_ports")]
static HOST_PORTS: HashMap<HostPortKey, HostPortValue> = HashMap::with_max_entries(ENTRIES, NO_PREALLOC);
#[map(name = "ct")]
static CT_TABLE: LruHashMap<CtKey, Ct> = LruHashMap::with_max_entries(FLOWS, 0);
#[map(name = "nat")]
static NAT_TABLE: LruHashMap<NatKey, Nat> = LruHashMap::with_max_entries(FLOWS, 0);
#[map(name = "uplinks")]
static UPLINK_TABLE: HashMap<u32, Uplink> = HashMap::with_max_entries(UPLINKS, NO_PREALLOC);
#[map(name = "fragments")]
static FRAGMENT_TABLE: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(FRAGMENTS, 0);
#[map(name = "ipcache")]
static IPCACHE: LpmTrie<Address, Remote> = LpmTrie::with_max_entries(PREFIXES, NO_PREALLOC);
#[map(name = "config")]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map(name = "counters")]
static COUNTER_TABLE: PerCpuArray<Count> = PerCpuArray::with_max_entries(COUNTERS, 0);
#[map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "churn")]
static CHURN: PerCpuArray<Churn> = PerCpuArray::with_max_entries(Churn::MAPS, 0);
#[map(name = "events")]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING, 0);
#[map(name = "event_limits")]
static EVENT_LIMITS: PerCpuArray<Limit> = PerCpuArray::with_max_entries(Reason::ROOM, 0);

/// Written by the user side alone. A section of its own is a map of its own, whose value programs read without a
/// lookup: packets that nobody watches pay one load.
#[unsafe(link_section = ".bss.watch")]
#[unsafe(no_mangle)]
static mut WATCH: Watch = Watch::NOBODY;

/// Written by the user side alone, as above.
#[unsafe(link_section = ".bss.epoch")]
#[unsafe(no_mangle)]
static mut EPOCH: Epoch = Epoch { number: 0, shift: 0 };

/// `BPF_NOEXIST`.
const IF_ABSENT: u64 = 1;
/// `BPF_EXIST`.
const IF_PRESENT: u64 = 2;
/// Index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;
/// `BPF_F_CURRENT_NETNS`.
const OWN_NAMESPACE: u64 = u64::MAX;

/// The local pod with this address.
#[inline(always)]
pub(crate) fn endpoint(addr: &Address) -> Option<&'static Endpoint> {
    // SAFETY: without preallocation an element is freed only after a grace period, which the program is within.
    unsafe { PODS.get(addr) }
}

/// Who is behind the host end `ifindex`.
#[inline(always)]
pub(crate) fn link(ifindex: u32) -> Option<&'static Link> {
    // SAFETY: without preallocation an element is freed only after a grace period, which the program is within.
    unsafe { LINKS.get(ifindex) }
}

/// The pod behind a host port.
#[inline(always)]
pub(crate) fn host_port(key: &HostPortKey) -> Option<&'static HostPortValue> {
    // SAFETY: without preallocation an element is freed only after a grace period, which the program is within.
    unsafe { HOST_PORTS.get(key) }
}

/// The tick that it is now, by the clock that flows live by.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: a helper call without arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
}

/// What next hops are compared by that are asked for now; before they are.
#[inline(always)]
pub(crate) fn moment() -> u64 {
    // SAFETY: an aligned value of a static that lives as long as the programs; volatile, as the user side writes it.
    let epoch = unsafe { (&raw const EPOCH).read_volatile() };
    // SAFETY: a helper call without arguments, of which the kernel makes one load.
    epoch.at(unsafe { bpf_jiffies64() })
}

/// What is remembered of a flow.
#[inline(always)]
pub(crate) fn ct(key: &CtKey) -> Option<&'static mut Ct> {
    let flow = CT_TABLE.get_ptr_mut(key)?;
    // SAFETY: the map's memory stays, and holds integers only. Two CPUs may write one flow at a time: each field is
    // written whole, and what is lost is a count. Should the element be given to another flow meanwhile, that one
    // may have a wrong time.
    Some(unsafe { &mut *flow })
}

/// What is put together before a map takes it: too large for the stack of the functions that lead there.
///
/// Nor could a global function hand on what it was given (6.1: "R2 type=mem expected=fp, pkt, pkt_meta, map_key,
/// map_value").
#[repr(C)]
pub(crate) struct Scratch {
    /// A flow.
    pub(crate) flow: Ct,
    /// The mapping that a flow is to get, whose port [`take_port`] finds.
    pub(crate) key: NatKey,
    /// Whose the mapping is to be.
    pub(crate) nat: Nat,
    /// How many packets this CPU put into the tunnel, as far as they need numbers.
    numbered: u32,
}

/// The place of this CPU for what is put together.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the element belongs to this CPU, and the program is not preempted by another of its kind.
    Some(unsafe { &mut *scratch })
}

/// Remembers a flow in the place of the one that had its key; when that is gone, as a new one.
#[inline(always)]
pub(crate) fn replace_ct(key: &CtKey, flow: &Ct) {
    if CT_TABLE.insert(key, flow, IF_PRESENT).is_err() {
        put_ct(key, flow);
    }
}

/// How far apart CPUs begin to number packets: the golden section of all numbers, which leaves each the most room.
const APART: u32 = 40_503;

/// A number for a packet that may be cut up on its way, and for as many after it as it is a segment of.
#[inline(always)]
pub(crate) fn number(segments: u32) -> u16 {
    let Some(scratch) = scratch() else { return 0 };
    let number = scratch.numbered;
    scratch.numbered = number.wrapping_add(if segments == 0 { 1 } else { segments });
    // SAFETY: a helper call without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    number.wrapping_add(cpu.wrapping_mul(APART)) as u16
}

/// A number that the packets of a flow have in common.
#[inline(always)]
pub(crate) fn hash(skb: Skb) -> u32 {
    // SAFETY: a helper call on the program's own context.
    unsafe { bpf_get_hash_recalc(skb.ctx) }
}

/// Remembers a flow; when the table cannot take it, the flow does without.
#[inline(always)]
pub(crate) fn put_ct(key: &CtKey, flow: &Ct) {
    if CT_TABLE.insert(key, flow, IF_ABSENT).is_ok() {
        churned(Churn::CT, |churn| churn.inserted += 1);
    } else {
        let _refused = CT_TABLE.insert(key, flow, 0);
    }
}

/// Counts what came into a map that forgets, or left it.
#[inline(always)]
fn churned(map: u32, count: impl FnOnce(&mut Churn)) {
    if let Some(churn) = CHURN.get_ptr_mut(map) {
        // SAFETY: the element belongs to this CPU, and the program is not preempted by another of its kind.
        count(unsafe { &mut *churn });
    }
}

/// Remembers in a flow where the packets of a side go.
#[inline(always)]
pub(crate) fn put_next(flow: &mut Ct, side: Side, next: &NextHop) {
    let kept = &raw mut flow.sent_mut(side).next;
    // SAFETY: the aligned fields of a value in an element that stays, see `ct`. In this order, as another CPU may read
    // meanwhile: first that nothing is known, last the moment.
    unsafe { (&raw mut (*kept).at).write_volatile(0) };
    // SAFETY: as above.
    unsafe { (&raw mut (*kept).kind).write_volatile(next.kind) };
    // SAFETY: as above.
    unsafe { (&raw mut (*kept).class).write_volatile(next.class) };
    // SAFETY: as above.
    unsafe { (&raw mut (*kept).mtu).write_volatile(next.mtu) };
    // SAFETY: as above.
    unsafe { (&raw mut (*kept).from).write_volatile(next.from) };
    // SAFETY: as above.
    for (index, word) in next.to.into_iter().enumerate() {
        unsafe { (&raw mut (*kept).to).cast::<u32>().wrapping_add(index).write_volatile(word) };
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*kept).at).write_volatile(next.at) };
}

/// The next hop that a flow keeps for the packets of a side, if it is of `at` and for packets that come by `from`, an
/// interface, or with [`NextHop::SENDER`] as `way` a node. Read in an order that goes with that of [`put_next`].
#[inline(always)]
pub(crate) fn next(flow: &Ct, side: Side, at: u64, from: u32, way: u8) -> Option<&NextHop> {
    let next = &flow.sent(side).next;
    (next.at == at && next.from == from && next.kind & NextHop::SENDER == way).then_some(next)
}

/// The mapping under which an answer would come.
#[inline(always)]
pub(crate) fn nat(key: &NatKey) -> Option<&'static mut Nat> {
    let nat = NAT_TABLE.get_ptr_mut(key)?;
    // SAFETY: as in `ct`.
    Some(unsafe { &mut *nat })
}

/// Puts a mapping; false when the key has one.
#[inline(always)]
pub(crate) fn put_nat(key: &NatKey, nat: &Nat) -> bool {
    let put = NAT_TABLE.insert(key, nat, IF_ABSENT).is_ok();
    if put {
        churned(Churn::NAT, |churn| churn.inserted += 1);
    }
    put
}

/// How often another port is looked for when the node itself uses the one found.
const ROUNDS: u32 = 4;
/// No port is free.
const NONE: u32 = 0;
/// The flow had the port before.
const OWN: u32 = 1;

/// The search for a port.
struct Claim<'a> {
    /// The mapping with the port that was tried last, and whose it is to be.
    scratch: &'a mut Scratch,
    /// The ports in their order.
    probe: Probe,
    /// The tick that it is: who expired before gives his port away.
    now: u32,
    /// The one to begin with.
    start: u32,
    /// Set when a port was found: [`OWN`], else one more than the next attempt.
    next: u32,
}

impl Claim<'_> {
    /// Tries a port; 1 ends the search.
    extern "C" fn step(index: u32, context: *mut c_void) -> i64 {
        // SAFETY: `search` passes what it borrows, and ends before that does.
        let claim = unsafe { &mut *context.cast::<Self>() };
        let Scratch { key, nat, .. } = &mut *claim.scratch;
        // Not a counter of our own: the verifier would follow each of its values.
        let attempt = claim.start + index;
        key.set_port(claim.probe.port(attempt));
        if let Some(holder) = self::nat(key) {
            if holder.is_of(&nat.pod, nat.pod_port) {
                holder.expires = nat.expires;
                claim.next = OWN;
                return 1;
            }
            if holder.expires > claim.now {
                return 0;
            }
            remove_nat(key);
        }
        if put_nat(key, nat) {
            claim.next = attempt + 2;
            return 1;
        }
        0
    }
}

/// Removes a mapping.
#[inline(always)]
pub(crate) fn remove_nat(key: &NatKey) {
    if NAT_TABLE.remove(key).is_ok() {
        churned(Churn::NAT, |churn| churn.removed += 1);
    }
}

/// The addresses of the uplink with this index.
#[inline(always)]
pub(crate) fn uplink(ifindex: u32) -> Option<&'static Uplink> {
    // SAFETY: without preallocation an element is freed only after a grace period, which the program is within.
    unsafe { UPLINK_TABLE.get(ifindex) }
}

/// Whether the node itself would take what comes under `key`: by a socket or a host port of its own; 1 if so, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_taken(ctx: *mut __sk_buff, key: *const NatKey) -> u32 {
    let Some(key) = given(key) else { return 0 };
    let NatKey { protocol, node_port: port, .. } = *key;
    if host_port(&HostPortKey { addr: key.node, port, protocol, padding: 0 }).is_some() {
        return 1;
    }
    // SAFETY: a union of structures of integers, for which zero is valid.
    let mut tuple: Sockets = unsafe { core::mem::zeroed() };
    let size = if layout::is_v4(&key.node) {
        // SAFETY: every bit pattern is valid for either member of the union.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        (v4.saddr, v4.daddr) = (key.remote[3], key.node[3]);
        v4.sport = u16::from_ne_bytes(key.remote_port);
        v4.dport = u16::from_ne_bytes(port);
        size_of_val(v4) as u32
    } else {
        // SAFETY: as above.
        let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        (v6.saddr, v6.daddr) = (key.remote, key.node);
        v6.sport = u16::from_ne_bytes(key.remote_port);
        v6.dport = u16::from_ne_bytes(port);
        size_of_val(v6) as u32
    };
    let ctx = ctx.cast();
    let socket: *mut c_void = match protocol {
        // SAFETY: the tuple is on our stack and as long as said.
        TCP => unsafe { bpf_skc_lookup_tcp(ctx, &raw mut tuple, size, OWN_NAMESPACE, 0).cast() },
        // SAFETY: as above.
        UDP => unsafe { bpf_sk_lookup_udp(ctx, &raw mut tuple, size, OWN_NAMESPACE, 0).cast() },
        _ => core::ptr::null_mut(),
    };
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the socket was just found, and is not used any more.
    unsafe { bpf_sk_release(socket) };
    1
}

/// Takes a port for the flow whose mapping is in [`Scratch`]. 0 when none is free.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_port(ctx: *mut __sk_buff) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    let mut start = 0;
    for _ in 0..ROUNDS {
        match search(start) {
            NONE => return 0,
            OWN => return 1,
            // The node's own port is its own also where it uses it.
            _ if scratch.nat.is_of(&scratch.key.node, scratch.key.node_port) => return 1,
            next if is_taken(ctx, &raw const scratch.key) != 0 => {
                remove_nat(&scratch.key);
                start = next - 1;
            }
            _ => return 1,
        }
    }
    0
}

/// Takes a port from the attempt `start` on; [`NONE`], [`OWN`], or one more than the next attempt.
///
/// By the kernel's loop (5.17): the verifier goes through its body once, and not once for each port.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search(start: u32) -> u32 {
    let Some(scratch) = scratch() else { return NONE };
    let (left, probe) =
        (probes(scratch.key.protocol).saturating_sub(start), Probe::new(&scratch.key, &scratch.nat));
    let mut claim = Claim { scratch, probe, now: now(), start, next: NONE };
    let step = Claim::step as *mut c_void;
    // SAFETY: the function has the form that the helper asks for, and what it borrows outlives the call.
    unsafe { bpf_loop(left, step, (&raw mut claim).cast(), 0) };
    claim.next
}

/// Whether a socket of the node sent the packet, as it is: [`is_taken`] finds that one.
#[inline(always)]
pub(crate) fn is_sent_by_socket<F: Family>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> bool {
    if ports.protocol != TCP && ports.protocol != UDP {
        return false;
    }
    // SAFETY: the kernel passes a valid context for as long as the program runs; every bit pattern is a pointer.
    let socket = unsafe { (*skb.ctx).__bindgen_anon_2.sk };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket holds on to the packet, or the packet to it; the kernel lets these fields be read.
    let port = unsafe { (&raw const (*socket).src_port).read_volatile() };
    if port != u32::from(u16::from_be_bytes(ports.src)) {
        return false;
    }
    if F::ADDRESS == 4 {
        // SAFETY: as above.
        let addr = unsafe { (&raw const (*socket).src_ip4).read_volatile() };
        return addr == 0 || addr == F::key(ip.src)[3];
    }
    let source = F::key(ip.src);
    let mut addr = [0; 4];
    for (at, word) in addr.iter_mut().enumerate() {
        // SAFETY: as above.
        *word = unsafe { (&raw const (*socket).src_ip6[at]).read_volatile() };
    }
    layout::same(&addr, &[0; 4]) || layout::same(&addr, &source)
}

/// What the first fragment of a datagram said.
#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<Fragment> {
    // SAFETY: the element may be reused for another datagram while it is copied; one packet is taken wrongly then.
    unsafe { FRAGMENT_TABLE.get(key) }.copied()
}

/// Remembers what the first fragment of a datagram says.
#[inline(always)]
pub(crate) fn put_fragment(key: &FragmentKey, fragment: &Fragment) {
    let _refused = FRAGMENT_TABLE.insert(key, fragment, 0);
}

/// What is at `addr`, by the longest prefix that holds it.
#[inline(always)]
pub(crate) fn remote(addr: &Address) -> Option<&'static Remote> {
    let key = PrefixKey::host(*addr);
    // SAFETY: both are a word and four more, without padding; the key asks for less alignment than ours has.
    let key = unsafe { &*core::ptr::from_ref(&key).cast::<Key<Address>>() };
    let remote = IPCACHE.get(key)?;
    if remote.has(Remote::V6_ONLY) && layout::is_v4(addr) { None } else { Some(remote) }
}

/// What there is to know about the node.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    const NONE: &Config = &Config::NONE;
    CONFIG.get(0).unwrap_or(NONE)
}

/// Who encapsulated the packet that came out of a tunnel.
#[inline(always)]
pub(crate) fn tunnel_sender(skb: Skb) -> Option<Address> {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut key: TunnelKey = unsafe { core::mem::zeroed() };
    let size = size_of::<TunnelKey>() as u32;
    // SAFETY: the key is on our stack and as long as said.
    if unsafe { bpf_skb_get_tunnel_key(skb.ctx, &raw mut key, size, 0) } == 0 {
        // SAFETY: every bit pattern is valid for either member of the union.
        let v4 = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        return Some(V4::key(v4.to_be()));
    }
    // SAFETY: as above.
    if unsafe { bpf_skb_get_tunnel_key(skb.ctx, &raw mut key, size, u64::from(BPF_F_TUNINFO_IPV6)) } == 0 {
        // SAFETY: every bit pattern is valid for either member of the union.
        return Some(unsafe { key.__bindgen_anon_1.remote_ipv6 });
    }
    None
}

/// Counts a packet.
#[inline(always)]
pub(crate) fn count(reason: Reason, direction: Direction, bytes: u32) {
    if let Some(count) = COUNTER_TABLE.get_ptr_mut(Count::index(reason, direction)) {
        // SAFETY: the element belongs to this CPU, and the program is not preempted by another of its kind.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(bytes);
    }
}

/// Whether somebody may want to hear of other packets than dropped ones.
#[inline(always)]
pub(crate) fn is_watched() -> bool {
    // SAFETY: an aligned word of a static that lives as long as the programs; volatile, as the user side writes it.
    unsafe { (&raw const WATCH.until).read_volatile() != 0 }
}

/// What somebody wants to hear.
#[inline(always)]
pub(crate) fn watch() -> Watch {
    // SAFETY: as above; a value that is written meanwhile serves one packet wrongly.
    unsafe { (&raw const WATCH).read_volatile() }
}

/// Nanoseconds since boot.
#[inline(always)]
pub(crate) fn boot_time() -> u64 {
    // SAFETY: a helper call without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// How many more events of this reason may be told on this CPU.
#[inline(always)]
pub(crate) fn limit(reason: u8) -> Option<&'static mut Limit> {
    let limit = EVENT_LIMITS.get_ptr_mut(u32::from(reason))?;
    // SAFETY: the element belongs to this CPU, and the program is not preempted by another of its kind.
    Some(unsafe { &mut *limit })
}

/// Puts an event into the ring; whether it had room.
#[inline(always)]
pub(crate) fn tell(event: &Event) -> bool {
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let flags = if waiting < WAKE { BPF_RB_NO_WAKEUP } else { BPF_RB_FORCE_WAKEUP };
    EVENTS.output::<Event>(event, u64::from(flags)).is_ok()
}

/// What the kernel's routing said.
pub(crate) struct Route {
    params: FibParams,
}

impl Route {
    /// Before it was asked.
    #[inline(always)]
    pub(crate) fn unknown() -> Self {
        // SAFETY: a structure of integers, for which zero is valid.
        Self { params: unsafe { core::mem::zeroed() } }
    }

    /// The interface to leave by.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.params.ifindex
    }

    /// The MTU of the way, unless the packet had no length.
    #[inline(always)]
    pub(crate) fn mtu(&self) -> u32 {
        // SAFETY: every bit pattern is valid for either member of the union.
        u32::from(unsafe { self.params.__bindgen_anon_1.mtu_result })
    }

    /// The first twelve bytes of a frame to the neighbour.
    #[inline(always)]
    pub(crate) fn ethernet(&self) -> [u32; 3] {
        layout::ethernet(self.params.dmac, self.params.smac)
    }

    /// The next hop if it has an IPv4 address, its bytes in wire order.
    #[inline(always)]
    pub(crate) fn gateway_v4(&self) -> Option<u32> {
        // SAFETY: every bit pattern is valid for either member of the union.
        let gateway = unsafe { self.params.__bindgen_anon_4.ipv4_dst };
        (self.params.family == V4::AF).then_some(gateway)
    }

    /// The next hop, which may be of the other family than the packet.
    #[inline(always)]
    pub(crate) fn neighbour(&self) -> Neighbour {
        // SAFETY: a structure of integers, for which zero is valid.
        let mut neighbour: Neighbour = unsafe { core::mem::zeroed() };
        neighbour.nh_family = u32::from(self.params.family);
        // SAFETY: every bit pattern is valid for either member of the union.
        neighbour.__bindgen_anon_1.ipv6_nh = unsafe { self.params.__bindgen_anon_4.ipv6_dst };
        neighbour
    }
}

/// Asks the host's own rules and routes where the packet goes.
#[inline(always)]
pub(crate) fn route<F: Family>(skb: Skb, ip: &Ip<F>, route: &mut Route) -> Fib {
    let params = &mut route.params;
    params.family = F::AF;
    params.l4_protocol = ip.protocol;
    params.ifindex = skb.ifindex();
    params.__bindgen_anon_1.tot_len = segment_length(ip.length, skb.gso_size(), headers::<F>(skb, ip));
    params.__bindgen_anon_2.flowinfo = ip.class;
    if F::ADDRESS == 4 {
        params.__bindgen_anon_3.ipv4_src = F::key(ip.src)[3];
        params.__bindgen_anon_4.ipv4_dst = F::key(ip.dst)[3];
    } else {
        params.__bindgen_anon_3.ipv6_src = F::key(ip.src);
        params.__bindgen_anon_4.ipv6_dst = F::key(ip.dst);
    }
    let size = size_of::<FibParams>() as i32;
    // SAFETY: the parameters are on our stack and as long as said.
    let code = unsafe { bpf_fib_lookup(skb.ctx.cast(), params, size, 0) };
    Fib::from_code(code)
}

/// Asks the host's own rules and routes where a packet of `length` bytes goes that this node sends to the tunnel of another.
#[inline(always)]
pub(crate) fn outer_route(skb: Skb, config: &Config, dst: u32, length: u16, route: &mut Route) -> Fib {
    let params = &mut route.params;
    params.family = V4::AF;
    params.l4_protocol = UDP;
    // What a node sends itself has the loopback interface as the one that it came by: rules may ask for it.
    params.ifindex = LOOPBACK;
    params.__bindgen_anon_1.tot_len = length;
    // Where there is more than one way, ports choose.
    params.sport = source_port(hash(skb)).to_be();
    params.dport = u16::from_ne_bytes(config.tunnel_port);
    params.__bindgen_anon_3.ipv4_src = config.outer_v4;
    params.__bindgen_anon_4.ipv4_dst = dst;
    let size = size_of::<FibParams>() as i32;
    // SAFETY: the parameters are on our stack and as long as said.
    let code = unsafe { bpf_fib_lookup(skb.ctx.cast(), params, size, 0) };
    Fib::from_code(code)
}

/// Length of the headers that each packet of a segment will carry.
#[inline(always)]
pub(crate) fn headers<F: Family>(skb: Skb, ip: &Ip<F>) -> u32 {
    const TCP: u8 = 6;
    if skb.gso_size() == 0 {
        return 0;
    }
    let transport = if ip.protocol == TCP {
        let offset = skb.read::<1>(ethernet::HEADER + F::HEADER + 12).unwrap_or([0x50]);
        u32::from(offset[0] >> 4) * 4
    } else {
        8
    };
    F::HEADER as u32 + transport
}
