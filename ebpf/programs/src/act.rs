// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The only writers: what changes a packet or sends it somewhere.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX,
    bpf_redir_neigh as Neighbour, bpf_tunnel_key as TunnelKey,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail,
    bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use rhumb_ebpf_common::ethernet::HEADER;
use rhumb_ebpf_common::icmp_error::{self, Addressee};
use rhumb_ebpf_common::layout::{self, Address, Config, Endpoint};
use rhumb_ebpf_common::vxlan::{self, Outer};
use rhumb_ebpf_common::{Bytes as _, Family, Ip, Ports, Quote, Reason, V4, V6};

use crate::call::{Calls, given};
use crate::lookup::Route;
use crate::packet::{Head, Skb};

/// What `to_pod` reads in `tc_index` for a packet that a program of ours sent to the host end: not the host stack's.
pub(crate) const REDIRECTED: u32 = 0x7268;
/// As [`REDIRECTED`], and the source is to stay what it is.
pub(crate) const REDIRECTED_KEEP: u32 = 0x7269;

/// What packets in the tunnel are addressed by.
const TUNNEL: [u32; 3] = layout::ethernet(layout::TUNNEL_MAC, layout::TUNNEL_SENDER);
/// Hops that the outer packet may take.
const OUTER_HOPS: u8 = 64;

/// The room that a packet is wrapped in: the kernel then knows where the packet inside begins, and network cards cut up
/// segments and sum as they do for its own devices.
///
/// The inner link's header is the Ethernet header alone: what is before it, back to the UDP header, is the tunnel's own
/// (`skb_udp_tunnel_segment`, `vxlan_features_check`).
const ROOM: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
    | (HEADER as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

const PSEUDO_HEADER: u64 = 0x10;
const MANGLED_ZERO: u64 = 0x20;
/// From kernel 6.16 on; without it a checksum over the whole packet that the device gave goes wrong for IPv6.
const IPV6: u64 = 0x80;
const V4_CHECKSUM: usize = HEADER + 10;
/// All headers of a wrapped packet down to the IP header inside.
const WRAPPED: usize = HEADER + vxlan::ROOM as usize;

/// A family whose packets can take one more hop.
pub(crate) trait Hop: Family + Calls {
    /// Counts the hop in the header.
    fn hop(skb: Skb, head: Head);

    /// Replaces an address in the checksums of IP and transport; `transport` is where the latter is.
    fn checksum(
        skb: Skb,
        from: Self::Addr,
        to: Self::Addr,
        transport: Option<(u32, u64)>,
    ) -> Result<(), Reason>;

    /// Puts before the frame, of which the quote is left, the headers that tell `pod` how large packets may be.
    fn tell_mtu(skb: Skb, to: Addressee, pod: Self::Addr, mtu: u32, quote: u32) -> Result<(), Reason>;
}

impl Hop for V4 {
    #[inline(always)]
    fn hop(_: Skb, head: Head) {
        let hops = (head.data + HEADER + 8) as *mut u8;
        // SAFETY: `forward` checked that the whole header is there.
        let left = unsafe { hops.read() };
        // SAFETY: as above.
        unsafe { hops.write(left.wrapping_sub(1)) };
        let checksum = (head.data + V4_CHECKSUM) as *mut u16;
        // SAFETY: as above.
        let old = unsafe { checksum.read() };
        // SAFETY: as above.
        unsafe { checksum.write(V4::checksum_after_hop(old)) };
    }

    #[inline(always)]
    fn checksum(skb: Skb, from: u32, to: u32, transport: Option<(u32, u64)>) -> Result<(), Reason> {
        let (from, to) = (u64::from(from), u64::from(to));
        if let Some((at, flags)) = transport {
            // SAFETY: a helper call on the program's own context.
            done(unsafe { bpf_l4_csum_replace(skb.ctx, at, from, to, flags | PSEUDO_HEADER | 4) })?;
        }
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_l3_csum_replace(skb.ctx, V4_CHECKSUM as u32, from, to, 4) })
    }

    #[inline(always)]
    fn tell_mtu(skb: Skb, to: Addressee, pod: u32, mtu: u32, quote: u32) -> Result<(), Reason> {
        let mtu = if mtu > 0xffff { 0xffff } else { mtu as u16 };
        put_before(skb, &icmp_error::fragmentation_needed(to, pod, mtu, quote))
    }
}

impl Hop for V6 {
    #[inline(always)]
    fn hop(skb: Skb, head: Head) {
        let hops = (head.data + HEADER + 7) as *mut u8;
        // SAFETY: `forward` checked that the whole header is there.
        let left = unsafe { hops.read() };
        // SAFETY: as above.
        unsafe { hops.write(left.wrapping_sub(1)) };
        // IPv4's own checksum balances its hop; IPv6 has none, so a sum that the device took over the packet changes.
        // Where there is no such sum the helper refuses, and nothing is to be done.
        let less = !u32::from(u16::from_ne_bytes([0, 1]));
        // SAFETY: a helper call on the program's own context.
        let _none = unsafe { bpf_csum_update(skb.ctx, less) };
    }

    #[inline(always)]
    fn checksum(skb: Skb, from: [u32; 4], to: [u32; 4], transport: Option<(u32, u64)>) -> Result<(), Reason> {
        let Some((at, flags)) = transport else { return Ok(()) };
        let mut from = from;
        let mut to = to;
        // SAFETY: both buffers are on our stack and 16 bytes long.
        let diff = unsafe { bpf_csum_diff(from.as_mut_ptr(), 16, to.as_mut_ptr(), 16, 0) };
        let flags = flags | PSEUDO_HEADER;
        // SAFETY: a helper call on the program's own context.
        if unsafe { bpf_l4_csum_replace(skb.ctx, at, 0, diff as u64, flags | IPV6) } == 0 {
            return Ok(());
        }
        // SAFETY: a helper call on the program's own context.
        done(unsafe { bpf_l4_csum_replace(skb.ctx, at, 0, diff as u64, flags) })
    }

    #[inline(always)]
    fn tell_mtu(skb: Skb, to: Addressee, pod: [u32; 4], mtu: u32, quote: u32) -> Result<(), Reason> {
        put_before(skb, &icmp_error::packet_too_big(to, pod, mtu, quote))
    }
}

/// Delivers to a pod of this node; the packet's head is the one read before.
#[inline(always)]
pub(crate) fn deliver<F: Hop>(skb: Skb, head: Head, endpoint: &Endpoint) -> Result<Reason, Reason> {
    enter::<F>(skb, head, endpoint.ethernet, endpoint.ifindex, endpoint.flags & Endpoint::SHAPED != 0)
}

/// As [`deliver`], to the pod behind `ifindex`, whose rate a queue limits if it is `shaped`.
#[inline(always)]
pub(crate) fn enter<F: Hop>(
    skb: Skb,
    head: Head,
    ethernet: [u32; 3],
    ifindex: u32,
    shaped: bool,
) -> Result<Reason, Reason> {
    forward::<F>(skb, head, ethernet)?;
    if shaped {
        redirect(skb, ifindex, REDIRECTED);
        return Ok(Reason::ForwardedShaped);
    }
    // SAFETY: a helper call; the kernel checks the interface.
    unsafe { bpf_redirect_peer(ifindex, 0) };
    Ok(Reason::ForwardedLocal)
}

/// Sends out of an interface, to a neighbour that is known.
#[inline(always)]
pub(crate) fn send<F: Hop>(
    skb: Skb,
    head: Head,
    ethernet: [u32; 3],
    ifindex: u32,
    mark: u32,
) -> Result<Reason, Reason> {
    forward::<F>(skb, head, ethernet)?;
    redirect(skb, ifindex, mark);
    Ok(Reason::ForwardedRemote)
}

/// Sends out of the interface that the routes name, to a neighbour that the kernel finds out.
#[inline(always)]
pub(crate) fn resolve<F: Hop>(skb: Skb, head: Head, route: &Route, mark: u32) -> Result<Reason, Reason> {
    forward::<F>(skb, head, route.ethernet())?;
    let mut neighbour = route.neighbour();
    set_mark(skb, mark);
    // SAFETY: the parameters are on our stack and as long as said; the kernel checks the interface.
    unsafe { bpf_redirect_neigh(route.ifindex(), &raw mut neighbour, size_of_val(&neighbour) as i32, 0) };
    Ok(Reason::ForwardedUnresolved)
}

/// Sends `frame` back to the pod in place of the packet.
#[inline(always)]
pub(crate) fn answer<const N: usize>(skb: Skb, frame: &[u8; N], reason: Reason) -> Result<Reason, Reason> {
    cut(skb, N)?;
    store(skb, 0, frame)?;
    return_to_pod(skb);
    Ok(reason)
}

/// Sends the frame, which became an answer, out of the interface that it came by.
#[inline(always)]
pub(crate) fn return_to_pod(skb: Skb) {
    redirect(skb, skb.ifindex(), REDIRECTED);
}

/// Makes the frame `length` bytes long.
#[inline(always)]
pub(crate) fn cut(skb: Skb, length: usize) -> Result<(), Reason> {
    if skb.len() == length as u32 {
        return Ok(());
    }
    // SAFETY: a helper call on the program's own context.
    done(unsafe { bpf_skb_change_tail(skb.ctx, length as u32, 0) })
}

/// Puts headers in the place of the Ethernet header.
#[inline(always)]
fn put_before<const N: usize>(skb: Skb, headers: &[u8; N]) -> Result<(), Reason> {
    // SAFETY: a helper call on the program's own context.
    done(unsafe { bpf_skb_change_head(skb.ctx, (N - HEADER) as u32, 0) })?;
    store(skb, 0, headers)
}

/// Says which node the tunnel takes the packet to.
#[inline(always)]
pub(crate) fn set_tunnel_key(skb: Skb, to: &Address, config: &Config, identity: u32) -> Result<(), Reason> {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut key: TunnelKey = unsafe { core::mem::zeroed() };
    key.tunnel_id = identity & 0x00ff_ffff;
    key.tunnel_ttl = OUTER_HOPS;
    let flags = if layout::is_v4(to) {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(to[3]);
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(config.outer_v4);
        // The packet inside has its own checksum; the one outside is optional for IPv4 alone (RFC 7348, section 5).
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = *to;
        key.__bindgen_anon_3.local_ipv6 = config.outer_v6;
        BPF_F_TUNINFO_IPV6
    };
    let size = size_of::<TunnelKey>() as u32;
    // SAFETY: the key is on our stack and as long as said.
    done(unsafe { bpf_skb_set_tunnel_key(skb.ctx, &raw mut key, size, u64::from(flags)) })
}

/// Counts the hop into the tunnel, and writes the addresses that packets in it have.
#[inline(always)]
pub(crate) fn forward_tunnel<F: Hop>(skb: Skb, head: Head) -> Result<(), Reason> {
    forward::<F>(skb, head, TUNNEL)
}

/// Sends a packet that has its tunnel key into the tunnel's device.
#[inline(always)]
pub(crate) fn enter_tunnel(skb: Skb, ifindex: u32) {
    redirect(skb, ifindex, REDIRECTED_KEEP);
}

/// Writes the outer headers around a packet; false when the kernel has no room for them, and the packet is what it was.
///
/// The outer Ethernet addresses are written by whoever sends the packet out. There is no sum of the device over the whole
/// packet that would change: none is left on what a pod's stack sends, nor on what it forwards (`skb_forward_csum`).
#[inline(always)]
pub(crate) fn wrap(skb: Skb, outer: &Outer) -> Result<bool, Reason> {
    // SAFETY: a helper call on the program's own context.
    if unsafe { bpf_skb_adjust_room(skb.ctx, vxlan::ROOM as i32, BPF_ADJ_ROOM_MAC, ROOM) } != 0 {
        return Ok(false);
    }
    let head = skb.head(WRAPPED)?;
    if head.data + WRAPPED > head.end {
        return Err(Reason::RewriteFailed);
    }
    let pairs = (head.data + vxlan::AT) as *mut u16;
    for (at, pair) in vxlan::headers(outer).into_iter().enumerate() {
        // SAFETY: the headers end where the check right above ends; the verifier checks again.
        unsafe { pairs.wrapping_add(at).write(pair) };
    }
    Ok(true)
}

/// Sends a wrapped packet out of an interface, to the neighbour with this IPv4 address.
#[inline(always)]
pub(crate) fn send_wrapped(skb: Skb, ifindex: u32, gateway: u32) {
    // SAFETY: a structure of integers, for which zero is valid.
    let mut neighbour: Neighbour = unsafe { core::mem::zeroed() };
    neighbour.nh_family = u32::from(V4::AF);
    neighbour.__bindgen_anon_1.ipv4_nh = gateway;
    set_mark(skb, REDIRECTED_KEEP);
    // SAFETY: the parameters are on our stack and as long as said; the kernel checks the interface.
    unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, size_of_val(&neighbour) as i32, 0) };
}

/// Writes the addresses that packets in the tunnel have.
#[inline(always)]
pub(crate) fn address_tunnel<F: Hop>(head: Head) -> Result<(), Reason> {
    address::<F>(head, TUNNEL)
}

/// Which side of a packet is translated.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub(crate) enum Side {
    /// Source address and port.
    Source = 0,
    /// Destination address and port.
    Destination = 1,
}

/// The address and port that one side of a packet gets.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Known {
    pub(crate) addr: Address,
    pub(crate) port: [u8; 2],
    padding: [u8; 2],
}

impl Known {
    pub(crate) const NONE: Self = Self::new([0; 4], [0; 2]);

    pub(crate) const fn new(addr: Address, port: [u8; 2]) -> Self {
        Self { addr, port, padding: [0; 2] }
    }
}

/// Replaces address and port of one side, and says so in the checksums. A later fragment has no port to replace, and
/// its datagram's checksum is in the first one.
#[inline(always)]
pub(crate) fn translate<F: Hop>(skb: Skb, ports: &Ports, side: Side, known: &Known) -> Result<(), Reason> {
    if F::translate(skb, ports, known, side as u32) == 0 { Ok(()) } else { Err(Reason::RewriteFailed) }
}

/// The global function behind [`translate`].
#[inline(always)]
pub(crate) fn rewrite<F: Hop>(skb: Skb, ports: *const Ports, known: *const Known, side: u32) -> bool {
    let (Some(ports), Some(known)) = (given(ports), given(known)) else { return true };
    let side = if side == Side::Source as u32 { Side::Source } else { Side::Destination };
    replace::<F>(skb, ports, side, F::unkey(&known.addr), known.port).is_err()
}

#[inline(always)]
fn replace<F: Hop>(skb: Skb, ports: &Ports, side: Side, addr: F::Addr, port: [u8; 2]) -> Result<(), Reason> {
    let ip = F::parse(&skb.head(HEADER + F::HEADER)?, skb.len())?;
    let (old, old_port, addr_at, port_at) = match side {
        Side::Source => (ip.src, ports.src, F::SOURCE, 0),
        Side::Destination => (ip.dst, ports.dst, F::SOURCE + F::ADDRESS, 2),
    };
    if ports.is_later_fragment() {
        F::checksum(skb, old, addr, None)?;
        return store(skb, addr_at, &addr);
    }
    let transport = match ports.checksum() {
        Some(at) => {
            let flags = if ports.zero_is_none() { MANGLED_ZERO } else { 0 };
            let at = (ports.offset + at) as u32;
            let (from, to) = (u64::from(u16::from_ne_bytes(old_port)), u64::from(u16::from_ne_bytes(port)));
            // SAFETY: a helper call on the program's own context.
            done(unsafe { bpf_l4_csum_replace(skb.ctx, at, from, to, flags | 2) })?;
            ports.covers_addresses().then_some((at, flags))
        }
        None => None,
    };
    F::checksum(skb, old, addr, transport)?;
    store(skb, addr_at, &addr)?;
    store(skb, ports.offset + if ports.is_echo() { 4 } else { port_at }, &port)
}

/// Translates an ICMP error: its own address, and in the packet that it quotes the address and port that say the same.
#[inline(always)]
pub(crate) fn translate_error<F: Hop>(
    skb: Skb,
    ip: &Ip<F>,
    quote: &Quote<F>,
    side: Side,
    addr: F::Addr,
    port: [u8; 2],
) -> Result<(), Reason> {
    let (old, addr_at) = match side {
        Side::Source => (ip.src, F::SOURCE),
        Side::Destination => (ip.dst, F::SOURCE + F::ADDRESS),
    };
    // A packet to the pod is quoted in an error from it, and the other way round.
    let (quoted, quoted_port, quoted_at, port_at) = match side {
        Side::Source => (quote.dst, quote.ports.dst, F::SOURCE + F::ADDRESS, 2),
        Side::Destination => (quote.src, quote.ports.src, F::SOURCE, 0),
    };
    let inner = quote.ip - HEADER;
    let ports = &quote.ports;
    let port_at = ports.offset + if ports.is_echo() { 4 } else { port_at };
    let change = Change::default().address::<F>(quoted, addr);

    // The quoted headers' own checksums, as far as they are quoted.
    let mut all = change;
    if F::ADDRESS == 4 {
        all = all.adjust(skb, inner + V4_CHECKSUM, &change, false)?;
    }
    let transport = Change::default().port(quoted_port, port);
    let transport = if ports.covers_addresses() { transport.address::<F>(quoted, addr) } else { transport };
    all = all.port(quoted_port, port);
    if let Some(at) = ports.checksum() {
        all = all.adjust(skb, ports.offset + at, &transport, ports.zero_is_none())?;
    }
    store(skb, inner + quoted_at, &addr)?;
    store(skb, port_at, &port)?;

    // SAFETY: a helper call on the program's own context.
    done(unsafe { bpf_l4_csum_replace(skb.ctx, (quote.at + 2) as u32, 0, u64::from(all.0), 0) })?;
    let covered = if F::ADDRESS == 4 { None } else { Some(((quote.at + 2) as u32, 0)) };
    F::checksum(skb, old, addr, covered)?;
    store(skb, addr_at, &addr)
}

/// The difference that a change of some words makes to an internet checksum over them, in their order in memory.
#[derive(Clone, Copy, Default)]
struct Change(u32);

impl Change {
    #[inline(always)]
    fn address<F: Hop>(self, from: F::Addr, to: F::Addr) -> Self {
        let (from, to) = (F::key(from), F::key(to));
        // The constant words of an IPv4 address cancel each other.
        let mut sum = u64::from(self.0);
        for at in 0..4 {
            sum += u64::from(!from[at]) + u64::from(to[at]);
        }
        Self(fold(sum))
    }

    #[inline(always)]
    fn port(self, from: [u8; 2], to: [u8; 2]) -> Self {
        let (from, to) = (u32::from(u16::from_ne_bytes(from)), u32::from(u16::from_ne_bytes(to)));
        Self(fold(u64::from(self.0) + u64::from(!from) + u64::from(to)))
    }

    /// Applies `change` to the checksum at `at`, and adds what that changes; nothing when the packet ends before.
    #[inline(always)]
    fn adjust(self, skb: Skb, at: usize, change: &Self, zero_is_none: bool) -> Result<Self, Reason> {
        let Some(old) = skb.read::<2>(at) else { return Ok(self) };
        if zero_is_none && old == [0; 2] {
            return Ok(self);
        }
        let sum = fold(u64::from(!u16::from_ne_bytes(old)) + u64::from(change.0));
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let mut new = (!(sum as u16)).to_ne_bytes();
        if zero_is_none && new == [0; 2] {
            new = [0xff; 2];
        }
        store(skb, at, &new)?;
        Ok(self.port(old, new))
    }
}

/// Brings a sum of words to one word.
#[inline(always)]
fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

/// Takes the mark of a program of ours off, and says which it was.
#[inline(always)]
pub(crate) fn take_marks(skb: Skb) -> u32 {
    let mark = skb.tc_index();
    if mark == REDIRECTED || mark == REDIRECTED_KEEP {
        // SAFETY: the kernel passes a valid context for as long as the program runs.
        unsafe { (*skb.ctx).tc_index = 0 };
    }
    mark
}

/// Takes the mark of [`REDIRECTED`] off and says whether it was there.
#[inline(always)]
pub(crate) fn take_mark(skb: Skb) -> bool {
    let marked = skb.tc_index() == REDIRECTED;
    if marked {
        // SAFETY: the kernel passes a valid context for as long as the program runs.
        unsafe { (*skb.ctx).tc_index = 0 };
    }
    marked
}

/// Puts `mark` into these bits of the packet's firewall mark.
#[inline(always)]
pub(crate) fn set_firewall_mark(skb: Skb, mark: u32, bits: u32) {
    let mark = (skb.mark() & !bits) | (mark & bits);
    // SAFETY: the kernel passes a valid context for as long as the program runs. Volatile, as the compiler writes half of
    // the word otherwise (6.18: "invalid bpf_context access off=10 size=2").
    unsafe { (&raw mut (*skb.ctx).mark).write_volatile(mark) };
}

/// Takes off what the programs of another node left: between network namespaces of one machine, as where nodes are
/// containers, the kernel lets the index pass.
#[inline(always)]
pub(crate) fn forget_mark(skb: Skb) {
    if skb.tc_index() != 0 {
        // SAFETY: the kernel passes a valid context for as long as the program runs.
        unsafe { (*skb.ctx).tc_index = 0 };
    }
}

/// Whether a program of ours sent the packet here.
#[inline(always)]
pub(crate) fn is_marked(skb: Skb) -> bool {
    matches!(skb.tc_index(), REDIRECTED | REDIRECTED_KEEP)
}

#[inline(always)]
fn set_mark(skb: Skb, mark: u32) {
    // SAFETY: the kernel passes a valid context for as long as the program runs.
    unsafe { (*skb.ctx).tc_index = mark };
}

#[inline(always)]
fn redirect(skb: Skb, ifindex: u32, mark: u32) {
    set_mark(skb, mark);
    // SAFETY: a helper call; the kernel checks the interface.
    unsafe { bpf_redirect(ifindex, 0) };
}

/// Counts the hop and writes the addresses of the next link.
#[inline(always)]
fn forward<F: Hop>(skb: Skb, head: Head, ethernet: [u32; 3]) -> Result<(), Reason> {
    address::<F>(head, ethernet)?;
    F::hop(skb, head);
    Ok(())
}

/// Writes the addresses of the next link.
#[inline(always)]
fn address<F: Hop>(head: Head, ethernet: [u32; 3]) -> Result<(), Reason> {
    if head.data + HEADER + F::HEADER > head.end {
        return Err(Reason::Malformed);
    }
    // Word by word: an aggregate would be copied by a call.
    let [to, between, from] = ethernet;
    let words = head.data as *mut u32;
    // SAFETY: the whole IP header is there, so the Ethernet header is too; the verifier checks again.
    unsafe { words.write(to) };
    // SAFETY: as above.
    unsafe { words.byte_add(4).write(between) };
    // SAFETY: as above.
    unsafe { words.byte_add(8).write(from) };
    Ok(())
}

#[inline(always)]
fn store<T>(skb: Skb, at: usize, value: &T) -> Result<(), Reason> {
    let from = core::ptr::from_ref(value);
    // SAFETY: the value is as long as said, and made of bytes.
    done(unsafe { bpf_skb_store_bytes(skb.ctx, at as u32, from.cast(), size_of::<T>() as u32, 0) })
}

#[inline(always)]
fn done(code: i64) -> Result<(), Reason> {
    if code == 0 { Ok(()) } else { Err(Reason::RewriteFailed) }
}
