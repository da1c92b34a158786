// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What other nodes send through the tunnel: ingress of its device.
//!
//! The tunnel is no way through this node: what is neither for its pods nor for itself ends here.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rhumb_ebpf_common::layout::{Address, NextHop, Remote, is_v4, same};
use rhumb_ebpf_common::{Direction, Fib, Ip, Ports, Reason, V4, V6, ethernet};

use crate::act::{self, Hop};
use crate::call::reason;
use crate::lookup::Route;
use crate::packet::{IPV4, IPV6, Skb};
use crate::{either, finish, kept, lookup, track};

#[classifier]
pub fn from_tunnel(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    let bytes = skb.len();
    finish(skb, either(run(skb)), Direction::FromTunnel, bytes)
}

#[inline(always)]
fn run(skb: Skb) -> Result<Reason, Reason> {
    act::forget_mark(skb);
    match skb.protocol() {
        IPV4 => Ok(arrive::<V4>(skb)),
        IPV6 => Ok(arrive::<V6>(skb)),
        _ => Err(Reason::TunnelNotIp),
    }
}

/// What is for the node may be for a host port.
#[inline(always)]
fn arrive<F: Hop>(skb: Skb) -> Reason {
    if let Some(decided) = again::<F>(skb) {
        return decided;
    }
    match ip::<F>(skb) {
        Reason::ToStack => {}
        decided => return decided,
    }
    let mut ports = Ports::NONE;
    let _course = F::any_ports(skb, &raw mut ports);
    reason(if ports.protocol == 0 { F::error_in(skb) } else { F::host_port(skb, &raw const ports) })
}

/// The short way, for what the same node sent a moment ago.
#[inline(never)]
fn again<F: Hop>(skb: Skb) -> Option<Reason> {
    kept::again_from::<F>(skb, &lookup::tunnel_sender(skb)?)
}

/// A function of its own for each family: the stacks of nested calls add up, and what is called in the end need not bear
/// that of either.
#[inline(never)]
fn ip<F: Hop>(skb: Skb) -> Reason {
    either(judge::<F>(skb))
}

#[inline(always)]
fn judge<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let sender = lookup::tunnel_sender(skb).ok_or(Reason::TunnelKey)?;
    let at = lookup::moment();
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    let ip = F::parse(&head, skb.len())?;
    if !sends_for(&sender, &F::key(ip.src)) {
        return Err(Reason::TunnelSource);
    }
    if let Some(endpoint) = lookup::endpoint(&F::key(ip.dst)) {
        if ip.options {
            return Err(Reason::IpOptions);
        }
        ip.may_hop()?;
        let [.., v4] = sender;
        let mut next = NextHop::NONE;
        if is_v4(&sender) {
            next = NextHop::local(at, 0, endpoint).sent_by(v4);
        }
        // What the flow asks for is for the pod's own packets.
        let mut ports = Ports::NONE;
        let _course = track::follow_to::<F>(skb, head, &ip, &mut ports, &raw mut next);
        return act::deliver::<F>(skb, head, endpoint);
    }
    Err(if is_for_node::<F>(skb, &ip) { Reason::ToStack } else { Reason::TunnelDestination })
}

/// Whether the host's rules and routes say that a packet is at its end.
///
/// A function of its own: the stacks of nested calls add up, and older kernels round each of them up to 32 bytes (6.1:
/// "combined stack size of 5 calls is 544. Too large").
#[inline(never)]
fn is_for_node<F: Hop>(skb: Skb, ip: &Ip<F>) -> bool {
    lookup::route(skb, ip, &mut Route::unknown()) == Fib::Here
}

/// Whether the node that encapsulated a packet may do so for its source: it is the end of the tunnel back, or it has the
/// source, by whatever way that is reached and whatever family the packet outside is of.
///
/// An agent of before did not say who has what. Then another address of the tunnel's end may send, and where the way back
/// is no tunnel, any node, but not for a pod of this one.
#[inline(never)]
fn sends_for(sender: &Address, source: &Address) -> bool {
    let Some(from) = lookup::remote(source) else { return false };
    let tunnelled = from.has(Remote::TUNNEL);
    if tunnelled && same(&from.tunnel, sender) {
        return true;
    }
    let Some(node) = lookup::remote(sender).filter(|node| node.has(Remote::NODE)) else { return false };
    if node.is_owned() {
        from.is_of_owner_of(node)
    } else if tunnelled {
        same(&from.tunnel, &node.tunnel)
    } else {
        lookup::endpoint(source).is_none()
    }
}
