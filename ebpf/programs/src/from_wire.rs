// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What other machines send: ingress of the uplinks.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::NextHop;
use rhumb_ebpf_common::{Direction, Ports, Reason, UDP, V4, V6, ethernet};

use crate::act::{self, Hop};
use crate::call::{given_mut, reason};
use crate::packet::{IPV4, IPV6, Skb};
use crate::track::{self, Course};
use crate::{either, finish, interface, kept, lookup, masquerade, tunnel};

#[classifier]
pub fn from_wire(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    finish(skb, either(run(skb)), Direction::FromWire, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    act::forget_mark(skb);
    if !skb.is_for_host() {
        return Err(Reason::OtherHost);
    }
    if let Some(decided) = kept::again(skb) {
        return Ok(decided);
    }
    // A tagged frame belongs to another interface, stacked on this one.
    if skb.vlan_present() != 0 {
        return Err(Reason::NotIpWire);
    }
    match skb.protocol() {
        IPV4 => Ok(ip::<V4>(skb)),
        IPV6 => Ok(ip::<V6>(skb)),
        _ => Err(Reason::NotIpWire),
    }
}

/// What is called is called from here, one after the other: the stacks of nested calls add up.
#[inline(always)]
fn ip<F: Hop>(skb: Skb) -> Reason {
    if let Some(decided) = to_pod::<F>(skb) {
        return decided;
    }
    let mut ports = Ports::NONE;
    let decided = match reason(F::arrive(skb, &raw mut ports)) {
        // Without ports it may be an error about what was translated.
        Reason::ToStack if ports.protocol == 0 => reason(F::error_in(skb)),
        Reason::ToStack => reason(F::host_port(skb, &raw const ports)),
        decided => decided,
    };
    if decided == Reason::ToStack {
        interface::arrived(skb);
    }
    decided
}

/// Delivers what is for the address of a pod, and leaves what is for the tunnel to the stack; nothing for everything else.
#[inline(never)]
fn to_pod<F: Hop>(skb: Skb) -> Option<Reason> {
    deliver::<F>(skb).unwrap_or_else(Some)
}

#[inline(always)]
fn deliver<F: Hop>(skb: Skb) -> Result<Option<Reason>, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    if ip.options {
        return Err(Reason::IpOptions);
    }
    if ip.protocol == UDP && tunnel::takes::<F>(head, &ip) {
        return Err(Reason::ToStack);
    }
    let at = lookup::moment();
    let Some(endpoint) = lookup::endpoint(&F::key(ip.dst)) else { return Ok(None) };
    ip.may_hop()?;
    let mut next = NextHop::local(at, skb.ifindex(), endpoint);
    // What the flow asks for is for the pod's own packets.
    let mut ports = Ports::NONE;
    let _course = track::follow_to::<F>(skb, head, &ip, &mut ports, &raw mut next);
    act::deliver::<F>(skb, head, endpoint).map(Some)
}

/// What is for no address of a pod: answers to masqueraded packets of pods and to remembered ones of the node.
/// [`Reason::ToStack`] for everything else, of which `ports` then has what there is.
#[inline(always)]
pub(crate) fn arrive<F: Hop>(skb: Skb, ports: *mut Ports) -> Reason {
    given_mut(ports).map_or(Reason::ToStack, |ports| either(enter::<F>(skb, ports)))
}

#[inline(always)]
fn enter<F: Hop>(skb: Skb, ports: &mut Ports) -> Result<Reason, Reason> {
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    match track::find_ports::<F>(skb, head, &ip, ports) {
        // Who asks the node for an echo does not answer a pod.
        Course::Straight if ports.is_echo_request() => Err(Reason::ToStack),
        Course::Straight => masquerade::enter::<F>(skb, &ip, ports),
        _ => Err(Reason::ToStack),
    }
}
