// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ICMP errors about masqueraded packets, translated with what they quote.

use rhumb_ebpf_common::layout::{Ct, CtKey, NatKey, same};
use rhumb_ebpf_common::{Ip, Reason, ethernet, quote};

use crate::act::{self, Hop, Known, Side};
use crate::packet::Skb;
use crate::{either, lookup};

/// Delivers an error about a masqueraded packet to the pod that sent the packet, or to the node; [`Reason::ToStack`] when
/// it is about something else.
#[inline(always)]
pub(crate) fn enter<F: Hop>(skb: Skb) -> Reason {
    either(deliver::<F>(skb))
}

/// Its steps are functions of their own, each of which reads the quote: the stacks of nested calls add up.
#[inline(always)]
fn deliver<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let ip = &F::parse(&skb, skb.len())?;
    let mut pod = Known::NONE;
    if !sender::<F>(skb, ip, &mut pod) {
        return Err(Reason::ToStack);
    }
    let Some(endpoint) = lookup::endpoint(&pod.addr) else {
        if !same(&pod.addr, &F::key(ip.dst)) {
            return Err(Reason::BackendAbsent);
        }
        return translate_in(skb, ip, &pod).map_or(Ok(Reason::HostReturn), Err);
    };
    ip.may_hop()?;
    translate_in(skb, ip, &pod).map_or(Ok(()), Err)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(Reason::MasqueradeReturn)
}

/// Finds the pod that sent the packet that an error is about.
#[inline(never)]
fn sender<F: Hop>(skb: Skb, ip: &Ip<F>, pod: &mut Known) -> bool {
    let Some(quote) = quote(&skb, ip) else { return false };
    let key = NatKey::of_sent::<F>(quote.dst, quote.src, &quote.ports, quote.ports.src);
    let Some(nat) = lookup::nat(&key) else { return false };
    if nat.is_of(&F::key(quote.src), quote.ports.src) {
        // The node's own, which left as it was.
        return false;
    }
    (pod.addr, pod.port) = (nat.pod, nat.pod_port);
    true
}

#[inline(never)]
fn translate_in<F: Hop>(skb: Skb, ip: &Ip<F>, pod: &Known) -> Option<Reason> {
    let quote = quote(&skb, ip)?;
    act::translate_error(skb, ip, &quote, Side::Destination, F::unkey(&pod.addr), pod.port).err()
}

/// Gives an error of a pod or of the node about a packet to it the source that the packet's sender knows.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb) -> Reason {
    let Ok(ip) = &F::parse(&skb, skb.len()) else { return Reason::Malformed };
    let mut node = Known::NONE;
    match source::<F>(skb, ip, &mut node) {
        Reason::Masqueraded => translate_out(skb, ip, &node).unwrap_or(Reason::Masqueraded),
        reason => reason,
    }
}

/// Finds what the sender of the packet that an error is about knows the pod by.
#[inline(never)]
fn source<F: Hop>(skb: Skb, ip: &Ip<F>, node: &mut Known) -> Reason {
    let Some(quote) = quote(&skb, ip) else { return Reason::NotMasqueradable };
    let (key, _) = CtKey::new::<F>(quote.src, quote.dst, &quote.ports);
    match lookup::ct(&key) {
        Some(flow)
            if flow.has(Ct::MASQUERADED)
                && !(flow.nat_port == quote.ports.dst && same(&flow.nat_addr, &F::key(quote.dst))) =>
        {
            (node.addr, node.port) = (flow.nat_addr, flow.nat_port);
            Reason::Masqueraded
        }
        Some(_) => Reason::SourceKept,
        None => Reason::NotMasqueradable,
    }
}

#[inline(never)]
fn translate_out<F: Hop>(skb: Skb, ip: &Ip<F>, node: &Known) -> Option<Reason> {
    let quote = quote(&skb, ip)?;
    act::translate_error(skb, ip, &quote, Side::Source, F::unkey(&node.addr), node.port).err()
}
