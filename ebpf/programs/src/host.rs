// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the node itself sends, beside the masqueraded packets of pods: no answer may be taken for another's.
//!
//! A flow of the node whose port towards the other side belongs to a pod's flow leaves with another port, and its answers
//! get theirs back. A flow that no later claim of a port would notice, as it has no socket here (ICMP, SCTP, what the
//! node's own iptables translated), is remembered as if it were a pod's: pods then take other ports. Flows of sockets
//! are not remembered, as a claim asks for the socket.

use rhumb_ebpf_common::ct::{Ends, Signal};
use rhumb_ebpf_common::layout::{CtKey, NatKey};
use rhumb_ebpf_common::nat::may_be_given;
use rhumb_ebpf_common::{Ip, Ports, Reason, SCTP, TCP, ethernet};

use crate::act::Hop;
use crate::packet::Skb;
use crate::track::{self, Course, Word};
use crate::{either, lookup, masquerade};

/// Lets a packet of the node leave; [`Reason::NotMasqueradable`] when it has no ports.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb) -> Reason {
    match either(look::<F>(skb)) {
        Reason::NotMasqueradable => Reason::NotMasqueradable,
        reason => judge(reason),
    }
}

/// What became of a packet of the node, which pods' packets say otherwise.
#[inline(always)]
pub(crate) fn judge(reason: Reason) -> Reason {
    match reason {
        Reason::Masqueraded => Reason::HostTranslated,
        failed @ (Reason::NatExhausted | Reason::SctpPort | Reason::RewriteFailed) => failed,
        _ => Reason::HostSent,
    }
}

#[inline(always)]
fn look<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    let mut ports = Ports::NONE;
    match track::find_ports::<F>(skb, head, &ip, &mut ports) {
        Course::Straight => {}
        Course::Unknown => return Err(Reason::NotMasqueradable),
        Course::Malformed | Course::Stack | Course::HostPort => {
            return Ok(Reason::HostSent);
        }
    }
    // No pod has the port, or none is masqueraded on this way.
    if !may_be_given(ports.protocol, ports.src) || masquerade::keeps_source::<F>(&ip) {
        return Ok(Reason::HostSent);
    }
    match known::<F>(skb, &ip, &ports) {
        OPENER => {}
        REPLIER => return Ok(Reason::HostSent),
        UNKNOWN if !is_needed::<F>(skb, &ip, &ports) => return Ok(Reason::HostSent),
        _ => _ = track::note(skb, &Ends::new::<F>(ip.src, ip.dst, &ports), Word::new(ports.signal)),
    }
    masquerade::leave::<F>(skb, &ip, &ports, ip.src)
}

/// The flow has an entry, and its opener sent the packet.
const OPENER: u32 = 0;
/// It has one, and the other side did.
const REPLIER: u32 = 1;
/// It has one, which the packet ends by beginning another flow.
const OTHER: u32 = 2;
/// It has none.
const UNKNOWN: u32 = 3;

/// Takes note of a packet whose flow has an entry.
#[inline(never)]
fn known<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> u32 {
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, ports);
    let now = lookup::now();
    let Some(flow) = lookup::ct(&key) else { return UNKNOWN };
    if flow.is_expired(now) {
        return UNKNOWN;
    }
    let from = flow.from(side);
    if !flow.note(from, ports.signal, now) {
        return OTHER;
    }
    flow.count(side, skb.len());
    from as u32
}

/// Whether a flow without an entry needs one: its port is somebody's, or nothing else would keep it from becoming that.
#[inline(never)]
fn is_needed<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> bool {
    // What answers has the port that it was asked at.
    if ports.signal == Signal::OPEN_ACK {
        return false;
    }
    let key = NatKey::of_sent::<F>(ip.dst, ip.src, ports, ports.src);
    if lookup::nat(&key).is_some_and(|nat| nat.expires > lookup::now()) {
        return true;
    }
    // In the middle of a stream nobody knows who opened it: one that was opened from outside has a port of a service.
    if (ports.protocol == TCP || ports.protocol == SCTP) && ports.signal != Signal::OPEN {
        return false;
    }
    !lookup::is_sent_by_socket::<F>(skb, ip, ports) && is_masquerade::<F>(skb, ip)
}

/// Whether pods' packets leave with the same address.
#[inline(always)]
fn is_masquerade<F: Hop>(skb: Skb, ip: &Ip<F>) -> bool {
    let Some(uplink) = lookup::uplink(skb.ifindex()) else { return false };
    F::masquerade(uplink).is_some_and(|addr| addr == ip.src)
}
