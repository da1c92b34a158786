// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Tells the user side of single packets.

use aya_ebpf::bindings::__sk_buff;
use rhumb_ebpf_common::event::{Event, Rate};
use rhumb_ebpf_common::{Direction, Reason, Verdict};

use crate::lookup;
use crate::packet::{Inside, Skb};

/// Tells of a dropped packet, or of another one that somebody watches for.
#[inline(always)]
pub(crate) fn packet(skb: Skb, reason: Reason, direction: Direction, bytes: u32) {
    let numbers =
        u32::from(reason as u8) | u32::from(direction as u8) << 8 | u32::from(reason.verdict() as u8) << 16;
    report(skb.ctx, numbers, bytes);
}

/// A global function: the verifier walks through it once, and not once for each way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report(ctx: *mut __sk_buff, numbers: u32, bytes: u32) -> u32 {
    let skb = Skb { ctx };
    let [reason, direction, verdict, _] = numbers.to_le_bytes();
    let now = lookup::boot_time();
    let Some(limit) = lookup::limit(reason) else { return 0 };
    let dropped = verdict == Verdict::Drop as u8;
    // In a flood of drops most end here; whoever watches pays for looking at what is not for him.
    if dropped && !limit.take(Rate::DROPS, now) {
        return 0;
    }
    let watch = lookup::watch();
    if !dropped && !watch.wants(reason, now) {
        return 0;
    }
    let mut event = Event::new(now, reason, direction, verdict);
    event.length = bytes;
    event.ifindex = skb.ifindex();
    // What was wrapped is told as the pod sent it.
    let wrapped = reason == Reason::ForwardedTunnel as u8;
    event.look(&Inside { skb, at: if wrapped { skb.len() - bytes } else { 0 } });
    if !dropped && (!watch.concerns(&event) || !limit.take(Rate::TRACES, now)) {
        return 0;
    }
    if !lookup::tell(&event) {
        limit.full += 1;
    }
    0
}
