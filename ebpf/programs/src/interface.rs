// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Interfaces of a cloud and the host stack: what the stack is left with says in its firewall mark by which of them it
//! came, so that rules lead what answers it out there, however it was translated meanwhile.

use rhumb_ebpf_common::ct::Ends;
use rhumb_ebpf_common::layout::Uplink;
use rhumb_ebpf_common::{Ip, Ports};

use crate::act::{self, Hop};
use crate::lookup;
use crate::packet::Skb;

/// Marks a packet that the stack is left with by the interface that it came in by.
#[inline(always)]
pub(crate) fn arrived(skb: Skb) {
    mark(skb, skb.ifindex());
}

/// Remembers in its flow by which interface a packet came that the stack forwarded.
#[inline(always)]
pub(crate) fn forwarded(skb: Skb, ends: &Ends) {
    if skb.mark() & Uplink::MARK_MASK != 0 {
        remember(skb, ends);
    }
}

#[inline(never)]
fn remember(skb: Skb, ends: &Ends) {
    let ifindex = skb.ingress_ifindex();
    if lookup::uplink(ifindex).is_none_or(|uplink| uplink.mark == 0) {
        return;
    }
    let (key, _) = ends.key();
    if let Some(flow) = lookup::ct(&key)
        && flow.uplink != ifindex
    {
        flow.uplink = ifindex;
    }
}

/// Marks a packet of a pod that returns through the stack by the interface that its flow came in by.
#[inline(never)]
pub(crate) fn returns<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) {
    let (key, _) = Ends::new::<F>(ip.src, ip.dst, ports).key();
    if let Some(flow) = lookup::ct(&key) {
        mark(skb, flow.uplink);
    }
}

#[inline(always)]
fn mark(skb: Skb, ifindex: u32) {
    if let Some(uplink) = lookup::uplink(ifindex)
        && uplink.mark != 0
    {
        act::set_firewall_mark(skb, uplink.mark, Uplink::MARK_MASK);
    }
}
