// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way to everything that is not a pod of this node.

use rhumb_ebpf_common::layout::{Link, NextHop, Remote};
use rhumb_ebpf_common::{Fib, Ip, Ports, Reason, ethernet, mtu};

use crate::act::{self, Hop};
use crate::call::given;
use crate::lookup::Route;
use crate::packet::{Head, Skb};
use crate::{either, lookup, track, tunnel};

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
    let (at, from) = (lookup::moment(), skb.ifindex());
    let remote = lookup::remote(&F::key(ip.dst));
    if let Some(remote) = remote
        && remote.has(Remote::NODE)
    {
        not_encapsulated(ports)?;
    }
    if let Some(remote) = remote
        && remote.has(Remote::DENIED)
    {
        return Err(Reason::MetadataService);
    }
    if let Some(remote) = remote
        && remote.has(Remote::STACK)
    {
        return Err(Reason::HostRules);
    }
    let mut next = NextHop { at, from, class: ip.traffic_class(), ..NextHop::NONE };
    let reason = match remote {
        Some(remote) if remote.has(Remote::TUNNEL) => tunnel::send::<F>(skb, link, remote, &mut next),
        Some(remote) if remote.has(Remote::KEEP_SOURCE) => {
            next.kind = NextHop::KEEP_SOURCE;
            send::<F>(skb, act::REDIRECTED_KEEP, 0, &mut next)
        }
        _ => send::<F>(skb, act::REDIRECTED, own_interface::<F>(link, &ip, ports), &mut next),
    };
    let known = next.kind & (NextHop::DIRECT | NextHop::TUNNEL) != 0;
    if known && matches!(reason, Reason::ForwardedRemote | Reason::ForwardedTunnel) {
        track::keep::<F>(&ip, ports, &next);
    }
    Ok(reason)
}

/// The interface by which a packet leaves because it keeps a source that is good there alone: one that answers who called
/// from where pods are not known by their own addresses otherwise. 0 when routes say.
#[inline(always)]
fn own_interface<F: Hop>(link: &Link, ip: &Ip<F>, ports: &Ports) -> u32 {
    if F::ADDRESS == 4 && link.interface != 0 && track::answers::<F>(ip, ports) { link.interface } else { 0 }
}

/// Sends a packet where one of its flow went in this moment; nothing when that is no way for it.
#[inline(always)]
pub(crate) fn again<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>, link: &Link, next: &NextHop) -> Option<Reason> {
    if ip.may_hop().is_err() || !takes::<F>(skb, ip, next.class, next.mtu) {
        return None;
    }
    if next.kind & NextHop::TUNNEL != 0 {
        return Some(tunnel::again::<F>(skb, head, link, next));
    }
    let [a, b, c, ifindex] = next.to;
    Some(either(act::send::<F>(skb, head, [a, b, c], ifindex, mark(next.kind))))
}

/// Whether the next hop of another packet, of this traffic class and MTU, takes this one too.
#[inline(always)]
pub(crate) fn takes<F: Hop>(skb: Skb, ip: &Ip<F>, class: u8, mtu: u16) -> bool {
    let segment = skb.gso_size();
    let headers = if segment == 0 { 0 } else { lookup::headers::<F>(skb, ip) };
    !mtu::exceeds(ip, segment, headers, u32::from(mtu)) && ip.traffic_class() == class
}

/// What later hooks of ours read of packets to a next hop.
#[inline(always)]
pub(crate) const fn mark(kind: u8) -> u32 {
    if kind & NextHop::KEEP_SOURCE == 0 { act::REDIRECTED } else { act::REDIRECTED_KEEP }
}

/// Lets a packet to a node pass unless the pod encapsulated it itself.
#[inline(always)]
pub(crate) fn not_encapsulated(ports: &Ports) -> Result<(), Reason> {
    if tunnel::is_spoofed(ports) { Err(Reason::SpoofedTunnel) } else { Ok(()) }
}

/// Sends the packet where the host's rules and routes say, for the address of `interface` where that is not 0; [`Reason::ToStack`] when it is at its end,
/// [`Reason::TooBig`] when it does not fit. `mark` is what later hooks of ours read; `next` becomes the way.
///
/// A function of its own, which reads the packet again: the short way between two pods then keeps everything in
/// registers, and the stack of 512 bytes holds each part.
#[inline(never)]
fn send<F: Hop>(skb: Skb, mark: u32, interface: u32, next: &mut NextHop) -> Reason {
    either(decide::<F>(skb, mark, interface, next))
}

#[inline(always)]
fn decide<F: Hop>(skb: Skb, mark: u32, interface: u32, next: &mut NextHop) -> Result<Reason, Reason> {
    let mut ip = F::parse(&skb, skb.len())?;
    // Rules lead what has the interface's own address as its source out of it, wherever it goes.
    if interface != 0
        && let Some(uplink) = lookup::uplink(interface)
        && let Some(addr) = F::masquerade(uplink)
    {
        ip.src = addr;
    }
    let mut route = Route::unknown();
    let fib = lookup::route(skb, &ip, &mut route);
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    match fib {
        Fib::Forward => {
            ip.may_hop()?;
            let ([a, b, c], ifindex, mtu) = (route.ethernet(), route.ifindex(), route.mtu());
            // A packet without a length was not compared with the MTU, which is then that of nothing.
            if mtu != 0 {
                next.kind |= NextHop::DIRECT;
                next.mtu = mtu as u16;
                next.to = [a, b, c, ifindex];
            }
            act::send::<F>(skb, head, [a, b, c], ifindex, mark)
        }
        Fib::Resolve => {
            ip.may_hop()?;
            act::resolve::<F>(skb, head, &route, mark)
        }
        Fib::Here => Err(Reason::ToStack),
        Fib::Stack(reason) => Err(reason),
    }
}
