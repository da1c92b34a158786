// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way to everything that is not a pod of this node.

use rhumb_ebpf_common::layout::{Link, Remote};
use rhumb_ebpf_common::{Fib, Ports, Reason, ethernet};

use crate::act::{self, Hop};
use crate::call::given;
use crate::packet::Skb;
use crate::{either, lookup, tunnel};

/// Sends a packet of the pod behind `link`, which had `ports` when it came, to what is no pod of this node.
/// [`Reason::ToStack`] when it is at its end, [`Reason::TooBig`] when it does not fit.
#[inline(always)]
pub(crate) fn onward<F: Hop>(skb: Skb, link: *const Link, ports: *const Ports) -> Reason {
    match (given(link), given(ports)) {
        (Some(link), Some(ports)) => either(judge::<F>(skb, link, ports)),
        _ => Reason::ToStack,
    }
}

#[inline(always)]
fn judge<F: Hop>(skb: Skb, link: &Link, ports: &Ports) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let remote = lookup::remote(&F::key(ip.dst));
    if let Some(remote) = remote
        && remote.has(Remote::NODE)
    {
        not_encapsulated(ports)?;
    }
    Ok(match remote {
        Some(remote) if remote.has(Remote::TUNNEL) => tunnel::send::<F>(skb, link, remote),
        Some(remote) if remote.has(Remote::KEEP_SOURCE) => send::<F>(skb, act::REDIRECTED_KEEP),
        _ => send::<F>(skb, act::REDIRECTED),
    })
}

/// Lets a packet to a node pass unless the pod encapsulated it itself.
#[inline(always)]
pub(crate) fn not_encapsulated(ports: &Ports) -> Result<(), Reason> {
    if tunnel::is_spoofed(ports) { Err(Reason::SpoofedTunnel) } else { Ok(()) }
}

/// Sends the packet where the host's rules and routes say; [`Reason::ToStack`] when it is at its end,
/// [`Reason::TooBig`] when it does not fit. `mark` is what later hooks of ours read.
///
/// A function of its own, which reads the packet again: the short way between two pods then keeps everything in
/// registers, and the stack of 512 bytes holds each part.
#[inline(never)]
pub(crate) fn send<F: Hop>(skb: Skb, mark: u32) -> Reason {
    either(decide::<F>(skb, mark))
}

#[inline(always)]
fn decide<F: Hop>(skb: Skb, mark: u32) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    let (fib, route) = lookup::route(skb, &ip);
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    match fib {
        Fib::Forward => {
            ip.may_hop()?;
            act::send::<F>(skb, head, &route, mark)
        }
        Fib::Resolve => {
            ip.may_hop()?;
            act::resolve::<F>(skb, head, &route, mark)
        }
        Fib::Here => Err(Reason::ToStack),
        Fib::Stack(reason) => Err(reason),
    }
}
