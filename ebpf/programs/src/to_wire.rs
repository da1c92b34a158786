// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What leaves the node: egress of the uplinks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::{Direction, Ports, Reason, V4, V6, ethernet};

use crate::act::{self, Hop};
use crate::call::reason;
use crate::packet::{IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish, host, lookup, masquerade};

#[classifier]
pub fn to_wire(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    finish(skb, either(run(skb)), Direction::ToWire, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    if act::take_marks(skb) == act::REDIRECTED_KEEP {
        return Ok(Reason::SourceKept);
    }
    match skb.protocol() {
        IPV4 => Ok(settle::<V4>(skb)),
        IPV6 => Ok(settle::<V6>(skb)),
        _ => Ok(Reason::HostSent),
    }
}

/// What is called is called from here, one after the other: the stacks of nested calls add up.
#[inline(always)]
fn settle<F: Hop>(skb: Skb) -> Reason {
    match reason(F::leave(skb)) {
        Reason::HostSent => {}
        // Without ports it may be an error about what came for a pod.
        Reason::NotMasqueradable => return reason(F::error_out(skb)),
        decided => return decided,
    }
    match reason(F::leave_host(skb)) {
        // Perhaps about a packet that came for another port than the node knows.
        Reason::NotMasqueradable => host::judge(reason(F::error_out(skb))),
        decided => decided,
    }
}

/// What is no other program's of ours.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb) -> Reason {
    either(ip::<F>(skb))
}

#[inline(always)]
fn ip<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    // The node may send what it likes: only what is known to be a pod's is judged.
    let Ok(head) = skb.head(ethernet::HEADER + F::HEADER) else { return Ok(Reason::HostSent) };
    let Ok(ip) = F::parse(&head, skb.len()) else { return Ok(Reason::HostSent) };
    if lookup::endpoint(&F::key(ip.src)).is_none() {
        return Ok(Reason::HostSent);
    }
    if masquerade::keeps_source::<F>(&ip) {
        return Ok(Reason::SourceKept);
    }
    let Some(uplink) = lookup::uplink(skb.ifindex()) else { return Ok(Reason::NoAddress) };
    let Some(addr) = F::masquerade(uplink) else { return Ok(Reason::NoAddress) };
    let mut ports = Ports::NONE;
    match track::find_ports::<F>(skb, head, &ip, &mut ports) {
        Course::Malformed => Err(Reason::Malformed),
        Course::Unknown if ports.is_later_fragment() => Err(Reason::FragmentUnknown),
        Course::Unknown => Err(Reason::NotMasqueradable),
        _ => masquerade::leave::<F>(skb, &ip, &ports, addr),
    }
}
