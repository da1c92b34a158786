// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Masquerade: packets of pods leave with the address of the uplink, and their answers find the way back.
//!
//! Two entries belong to a masqueraded flow, and each brings the other back: the one in `ct` has address and port that
//! were chosen, the one in `nat` is what answers are translated by. Every packet looks at both.

use aya_ebpf::bindings::__sk_buff;
use rhumb_ebpf_common::ct::{self, Ends, From, Signal};
use rhumb_ebpf_common::layout::{Ct, CtKey, Nat, NatKey, Remote, same};
use rhumb_ebpf_common::{Ip, Ports, Reason, SCTP, ethernet};

use crate::act::{self, Hop, Known, Side};
use crate::call::given;
use crate::lookup::{self, Scratch};
use crate::packet::Skb;

/// Gives a packet the address `addr` as its source: one of a pod that of the uplink, one of the node its own, which it
/// then perhaps leaves with as it is.
///
/// Its steps are functions of their own and it is none: the stacks of nested calls add up.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, addr: F::Addr) -> Result<Reason, Reason> {
    let mut source = Known::new(F::key(addr), [0; 2]);
    let expires = held::<F>(skb, ip, ports, &mut source);
    if expires == REPLY {
        return Ok(Reason::SourceKept);
    }
    if source.port == [0; 2] || !hold::<F>(ip, ports, &source, expires) {
        source = Known::new(F::key(addr), [0; 2]);
        if !choose::<F>(skb, ip, ports, &mut source, expires) {
            return Err(if ports.protocol == SCTP { Reason::SctpPort } else { Reason::NatExhausted });
        }
        remember::<F>(skb, ip, ports, &source);
    }
    if source.port == ports.src && same(&source.addr, &F::key(ip.src)) {
        return Ok(Reason::SourceKept);
    }
    act::translate::<F>(skb, ports, Side::Source, &source)?;
    Ok(Reason::Masqueraded)
}

/// Whether pods are known by their own addresses where the packet goes.
#[inline(always)]
pub(crate) fn keeps_source<F: Hop>(ip: &Ip<F>) -> bool {
    lookup::remote(&F::key(ip.dst)).is_some_and(|remote| remote.has(Remote::KEEP_SOURCE))
}

/// Takes a port for a flow, which is forgotten at `expires`; false when none is free.
#[inline(never)]
fn choose<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &mut Known, expires: u32) -> bool {
    let Some(scratch) = lookup::scratch() else { return false };
    scratch.key = NatKey::of_sent::<F>(ip.dst, F::unkey(&source.addr), ports, [0; 2]);
    scratch.nat = Nat::new(F::key(ip.src), ports.src, expires);
    let taken = lookup::take_port(skb.ctx) != 0;
    source.port = scratch.key.node_port;
    taken
}

/// The packet answers who called.
const REPLY: u32 = 0;

/// Finds the source that a flow has: `source`, which has the address of the uplink before, gets a port when there is one.
/// [`REPLY`], or the tick at which the flow is forgotten.
#[inline(never)]
fn held<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &mut Known) -> u32 {
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, ports);
    // `from_pod` noted the packet, unless the entry had to make room meanwhile.
    let Some(flow) = lookup::ct(&key) else { return lookup::now() + ct::lifetime(ct::state::PICKED_UP) };
    if flow.from(side) == From::Replier {
        return REPLY;
    }
    let moved = flow.uplink != skb.ifindex() || same(&flow.nat_addr, &source.addr);
    if flow.has(Ct::MASQUERADED) && moved {
        (source.addr, source.port) = (flow.nat_addr, flow.nat_port);
    }
    flow.expires
}

/// Remembers the source of a flow.
#[inline(never)]
fn remember<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &Known) {
    let (key, _) = CtKey::new::<F>(ip.src, ip.dst, ports);
    if let Some(flow) = lookup::ct(&key) {
        flow.translate(Ct::MASQUERADED, source.addr, source.port);
        flow.uplink = skb.ifindex();
    }
}

/// Whether the mapping of a flow is there, or could be put again, as nobody else has its port.
///
/// Not called by [`held`]: the stacks of nested calls add up (6.1: "combined stack size of 4 calls is 544. Too large").
#[inline(never)]
fn hold<F: Hop>(ip: &Ip<F>, ports: &Ports, source: &Known, expires: u32) -> bool {
    let key = NatKey::of_sent::<F>(ip.dst, F::unkey(&source.addr), ports, source.port);
    let pod = F::key(ip.src);
    if let Some(nat) = lookup::nat(&key) {
        if !nat.is_of(&pod, ports.src) {
            return false;
        }
        if nat.expires != expires {
            nat.expires = expires;
        }
        return true;
    }
    lookup::put_nat(&key, &Nat::new(pod, ports.src, expires))
}

/// Delivers an answer to a masqueraded packet to its pod, or to the node itself; [`Reason::ToStack`] when it is none.
#[inline(always)]
pub(crate) fn enter<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Result<Reason, Reason> {
    let mut receiver = Known::NONE;
    let expires = receive::<F>(ip, ports, &mut receiver);
    if expires == 0 {
        return Err(Reason::ToStack);
    }
    let endpoint = lookup::endpoint(&receiver.addr);
    if endpoint.is_some() {
        ip.may_hop()?;
    } else if !same(&receiver.addr, &F::key(ip.dst)) {
        return Err(Reason::BackendAbsent);
    }
    let lives = note_answer::<F>(skb, ip, ports, &receiver);
    if lives != expires {
        refresh::<F>(ip, ports, lives);
    }
    if receiver.port != ports.dst || endpoint.is_some() {
        act::translate::<F>(skb, ports, Side::Destination, &receiver)?;
    }
    let Some(endpoint) = endpoint else { return Ok(Reason::HostReturn) };
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::MasqueradeReturn)
}

/// Finds whom an answer is for; the tick at which that is forgotten, 0 when there is nobody.
#[inline(never)]
fn receive<F: Hop>(ip: &Ip<F>, ports: &Ports, receiver: &mut Known) -> u32 {
    let wire = NatKey::of_received::<F>(ip.src, ip.dst, ports);
    let Some(nat) = lookup::nat(&wire) else { return 0 };
    if nat.expires <= lookup::now() {
        return 0;
    }
    (receiver.addr, receiver.port) = (nat.pod, nat.pod_port);
    nat.expires
}

/// Takes note of an answer in the flow of its pod, or remembers the flow again; the tick at which that is forgotten.
#[inline(never)]
fn note_answer<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, pod: &Known) -> u32 {
    let mut ends = Ends::new::<F>(F::unkey(&pod.addr), ip.src, ports);
    ends.src_port = pod.port;
    ends.dst_port = if ports.is_echo() { pod.port } else { ports.src };
    let node = Known::new(F::key(ip.dst), ports.dst);
    answered(skb.ctx, &raw const ends, u32::from(ports.signal.number()), &raw const node)
}

/// Takes note of an answer to `ends`, of which the other side knows the sender as `node`; the tick at which the flow is
/// forgotten.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answered(ctx: *mut __sk_buff, ends: *const Ends, signal: u32, node: *const Known) -> u32 {
    let skb = Skb { ctx };
    let (Some(ends), Some(node)) = (given(ends), given(node)) else { return 0 };
    let ((key, side), now, signal) = (ends.key(), lookup::now(), Signal::of_number(signal as u8));
    if let Some(flow) = lookup::ct(&key)
        && !flow.is_expired(now)
        && flow.has(Ct::MASQUERADED)
    {
        let sender = side.other();
        // What begins another flow is not an answer, and the pod will say so.
        let _answer = flow.note(flow.from(sender), signal, now);
        flow.count(sender, skb.len());
        return flow.expires;
    }
    let Some(Scratch { flow, .. }) = lookup::scratch() else { return 0 };
    *flow = Ct::answered(key.protocol, side, signal, now);
    flow.count(side.other(), skb.len());
    flow.translate(Ct::MASQUERADED, node.addr, node.port);
    flow.uplink = skb.ifindex();
    lookup::put_ct(&key, flow);
    flow.expires
}

/// Lets the mapping of an answer live as long as its flow.
#[inline(never)]
fn refresh<F: Hop>(ip: &Ip<F>, ports: &Ports, expires: u32) {
    let wire = NatKey::of_received::<F>(ip.src, ip.dst, ports);
    if let Some(nat) = lookup::nat(&wire) {
        nat.expires = expires;
    }
}
