// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the host sends to a pod: egress of its host end.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::{Flow, FlowKey};
use rhumb_ebpf_common::{Direction, Family, Reason, V4, V6, ports};

use crate::packet::{IPV4, IPV6, Skb};
use crate::{act, either, finish, lookup};

#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    finish(skb, either(run(skb)), Direction::ToPod, skb.len())
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    // What a program of ours redirected here, for the queue of the host end, never was in the host stack.
    if act::take_mark(skb) || skb.ingress_ifindex() == 0 {
        return Ok(Reason::Delivered);
    }
    match skb.protocol() {
        IPV4 => track::<V4>(skb),
        IPV6 => track::<V6>(skb),
        _ => Ok(Reason::Delivered),
    }
}

/// Remembers a flow that the host stack forwarded, and perhaps translated, so that its answers return the same way.
#[inline(always)]
fn track<F: Family>(skb: Skb) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let Ok(Some(ports)) = ports(&skb, &ip) else {
        return Ok(Reason::Delivered);
    };
    let key = FlowKey {
        pod: F::key(ip.dst),
        peer: F::key(ip.src),
        pod_port: ports.dst,
        peer_port: ports.src,
        protocol: ports.protocol,
        padding: [0; 3],
    };
    lookup::remember(&key, &Flow::stack());
    lookup::set_tracked(skb.ifindex());
    Ok(Reason::DeliveredTracked)
}
