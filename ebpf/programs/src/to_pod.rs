// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the host sends to a pod: egress of its host end.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::{Direction, Ports, Reason, V4, V6, ethernet};

use crate::act::{self, Hop};
use crate::packet::{IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish};

#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    finish(skb, either(run(skb)), Direction::ToPod, skb.len())
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    // What a program of ours redirected here, for the queue of the host end, never was in the host stack.
    if act::take_mark(skb) {
        return Ok(Reason::Delivered);
    }
    match skb.protocol() {
        IPV4 => note::<V4>(skb),
        IPV6 => note::<V6>(skb),
        _ => Ok(Reason::Delivered),
    }
}

/// Takes note of the flow. Packets of one that the host stack forwarded, and perhaps translated, are to return the same
/// way.
#[inline(always)]
fn note<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    if skb.ingress_ifindex() == 0 {
        let mut ports = Ports::NONE;
        let _course = track::follow::<F>(skb, head, &ip, &mut ports);
        return Ok(Reason::Delivered);
    }
    match track::divert::<F>(skb, head, &ip) {
        Course::Unknown | Course::Malformed => Ok(Reason::Delivered),
        Course::Straight | Course::Stack | Course::HostPort => Ok(Reason::DeliveredTracked),
    }
}
