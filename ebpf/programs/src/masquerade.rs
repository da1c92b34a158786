// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Masquerade: packets of pods leave with the address of the uplink, and their answers find the way back.
//!
//! Two entries belong to a masqueraded flow, and each brings the other back: the one in `ct` has address and port that
//! were chosen, the one in `nat` is what answers are translated by. Every packet looks at both.

use rhumb_ebpf_common::ct::{self, From, Signal};
use rhumb_ebpf_common::layout::{Address, Ct, CtKey, Nat, NatKey, same};
use rhumb_ebpf_common::nat::{Probe, probes};
use rhumb_ebpf_common::{Ip, Ports, Reason, SCTP, ethernet};

use crate::act::{self, Hop};
use crate::packet::Skb;
use crate::lookup::{self, Claim};

/// How often another port is looked for when the node itself uses the one found.
const ROUNDS: u32 = 4;

/// Gives a packet of a pod the address `addr` of the uplink as its source.
///
/// Its steps are functions of their own and it is none: the stacks of nested calls add up.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, addr: F::Addr) -> Result<Reason, Reason> {
    let mut source = Known { addr: F::key(addr), port: [0; 2] };
    match held::<F>(skb, ip, ports, &mut source) {
        REPLY => return Ok(Reason::SourceKept),
        HELD => {}
        expires => {
            choose::<F>(skb, ip, ports, &mut source, expires)?;
            remember::<F>(skb, ip, ports, &source);
        }
    }
    rewrite::<F>(skb, ip, ports, &source).map_or(Ok(Reason::Masqueraded), Err)
}

/// Takes a port for a flow, which is forgotten at `expires`.
#[inline(always)]
fn choose<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &mut Known, expires: u32) -> Result<(), Reason> {
    let mut start = 0;
    for _ in 0..ROUNDS {
        match claim::<F>(ip, ports, source, start, expires) {
            NONE => break,
            OWN => return Ok(()),
            next if lookup::is_taken::<F>(skb, ip, ports, source.port, &source.addr) => {
                release::<F>(ip, ports, source);
                start = next - 1;
            }
            _ => return Ok(()),
        }
    }
    Err(if ports.protocol == SCTP { Reason::SctpPort } else { Reason::NatExhausted })
}

/// The address and port that one side of a packet gets.
pub(crate) struct Known {
    pub(crate) addr: Address,
    pub(crate) port: [u8; 2],
}

impl Known {
    pub(crate) const NONE: Self = Self { addr: [0; 4], port: [0; 2] };
}

#[inline(never)]
fn rewrite<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &Known) -> Option<Reason> {
    act::translate(skb, ip, ports, act::Side::Source, F::unkey(&source.addr), source.port).err()
}

/// The packet answers who called the pod.
const REPLY: u32 = 0;
/// The flow has its source already.
const HELD: u32 = 1;

/// Finds the source that a flow has; [`REPLY`], [`HELD`], or the tick at which the flow is forgotten if it has none.
/// `source` has the address of the uplink before.
#[inline(never)]
fn held<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, source: &mut Known) -> u32 {
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, ports);
    // `from_pod` noted the packet, unless the entry had to make room meanwhile.
    let Some(flow) = lookup::ct(&key) else { return lookup::now() + ct::lifetime(ct::state::PICKED_UP) };
    if flow.from(side) == From::Replier {
        return REPLY;
    }
    let moved = flow.uplink != skb.ifindex() || same(&flow.nat_addr, &source.addr);
    if flow.has(Ct::MASQUERADED) && moved && hold::<F>(ip, ports, flow) {
        (source.addr, source.port) = (flow.nat_addr, flow.nat_port);
        return HELD;
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
#[inline(never)]
fn hold<F: Hop>(ip: &Ip<F>, ports: &Ports, flow: &Ct) -> bool {
    let key = NatKey::of_sent::<F>(ip.dst, F::unkey(&flow.nat_addr), ports, flow.nat_port);
    let pod = F::key(ip.src);
    if let Some(nat) = lookup::nat(&key) {
        if !nat.is_of(&pod, ports.src) {
            return false;
        }
        if nat.expires != flow.expires {
            nat.expires = flow.expires;
        }
        return true;
    }
    lookup::put_nat(&key, &Nat::new(pod, ports.src, flow.expires))
}

/// No port is free.
const NONE: u32 = 0;
/// The flow had the port before.
const OWN: u32 = 1;

/// Takes a port from the attempt `start` on; [`NONE`], [`OWN`], or one more than the next attempt.
#[inline(never)]
fn claim<F: Hop>(ip: &Ip<F>, ports: &Ports, source: &mut Known, start: u32, expires: u32) -> u32 {
    let pod = F::key(ip.src);
    let mut claim = Claim {
        key: NatKey::of_sent::<F>(ip.dst, F::unkey(&source.addr), ports, [0; 2]),
        nat: Nat::new(pod, ports.src, expires),
        probe: Probe::new(&pod, &F::key(ip.dst), ports),
        now: lookup::now(),
        start,
        next: NONE,
    };
    lookup::claim(&mut claim, probes(ports.protocol));
    source.port = claim.key.node_port;
    claim.next
}

/// Gives a port back that was just taken.
#[inline(never)]
fn release<F: Hop>(ip: &Ip<F>, ports: &Ports, source: &Known) {
    lookup::remove_nat(&NatKey::of_sent::<F>(ip.dst, F::unkey(&source.addr), ports, source.port));
}

/// Delivers an answer to a masqueraded packet to its pod; [`Reason::ToStack`] when it is none.
#[inline(always)]
pub(crate) fn enter<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Result<Reason, Reason> {
    let mut receiver = Known::NONE;
    let expires = receive::<F>(ip, ports, &mut receiver);
    if expires == 0 {
        return Err(Reason::ToStack);
    }
    let endpoint = lookup::endpoint(&receiver.addr).ok_or(Reason::BackendAbsent)?;
    ip.may_hop()?;
    let lives = note_answer::<F>(skb, ip, ports, &receiver);
    if lives != expires {
        refresh::<F>(ip, ports, lives);
    }
    deliver_to::<F>(skb, ip, ports, &receiver).map_or(Ok(()), Err)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::MasqueradeReturn)
}

#[inline(never)]
fn deliver_to<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, receiver: &Known) -> Option<Reason> {
    let addr = F::unkey(&receiver.addr);
    act::translate(skb, ip, ports, act::Side::Destination, addr, receiver.port).err()
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

/// Takes note of an answer in the flow of its pod, or remembers the flow again.
#[inline(never)]
fn note_answer<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports, pod: &Known) -> u32 {
    let now = lookup::now();
    let inside = (F::unkey(&pod.addr), pod.port);
    let remote_port = if ports.is_echo() { pod.port } else { ports.src };
    let (key, side) = CtKey::between::<F>(ports.protocol, inside, (ip.src, remote_port));
    if let Some(flow) = lookup::ct(&key)
        && !flow.is_expired(now)
        && flow.has(Ct::MASQUERADED)
    {
        let from = flow.from(side.other());
        // What begins another flow is not an answer, and the pod will say so.
        let _answer = flow.note(from, ports.signal, now);
        flow.count(from, skb.len());
        return flow.expires;
    }
    let mut flow = Ct::first(key.protocol, side, Signal::DATA, now);
    let _answer = flow.note(From::Replier, ports.signal, now);
    flow.count(From::Replier, skb.len());
    flow.translate(Ct::MASQUERADED, F::key(ip.dst), ports.dst);
    flow.uplink = skb.ifindex();
    lookup::put_ct(&key, &flow);
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
