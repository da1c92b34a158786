// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way into the tunnel, for pods' packets.

use rhumb_ebpf_common::layout::{Address, Link, NextHop, Remote, same};
use rhumb_ebpf_common::{Bytes as _, Family as _, Ip, Ports, Reason, UDP, V4, ethernet, mtu, plain_ports};

use crate::act::{self, Hop};
use crate::packet::{Head, Skb};
use crate::{either, lookup};

/// Encapsulates a packet for the node that has its destination; [`Reason::TooBig`] when it does not fit.
#[inline(never)]
pub(crate) fn send<F: Hop>(skb: Skb, link: &Link, remote: &Remote, next: &mut NextHop) -> Reason {
    either(encapsulate::<F>(skb, link, remote, next))
}

/// Encapsulates a packet that fits for the node at `to`.
#[inline(never)]
pub(crate) fn again<F: Hop>(skb: Skb, head: Head, link: &Link, to: &Address) -> Reason {
    either(enter::<F>(skb, head, link, to))
}

#[inline(always)]
fn enter<F: Hop>(skb: Skb, head: Head, link: &Link, to: &Address) -> Result<Reason, Reason> {
    let config = lookup::config();
    if config.tunnel == 0 {
        return Err(Reason::TunnelAbsent);
    }
    act::set_tunnel_key(skb, to, config, link.identity)?;
    act::enter_tunnel::<F>(skb, head, config.tunnel)
}

#[inline(always)]
fn encapsulate<F: Hop>(skb: Skb, link: &Link, remote: &Remote, next: &mut NextHop) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    ip.may_hop()?;
    let headers = lookup::headers::<F>(skb, &ip);
    if mtu::exceeds(&ip, skb.gso_size(), headers, u32::from(remote.mtu)) {
        return Err(Reason::TooBig);
    }
    (next.kind, next.mtu, next.to) = (NextHop::TUNNEL, remote.mtu, remote.tunnel);
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    enter::<F>(skb, head, link, &remote.tunnel)
}

/// Whether a pod encapsulated the packet itself: whether these are the ports of one to the tunnel.
#[inline(always)]
pub(crate) fn is_spoofed(ports: &Ports) -> bool {
    ports.protocol == UDP && ports.dst == lookup::config().tunnel_port && ports.dst != [0; 2]
}

/// Whether the tunnel of this node takes the packet: no pod's answer and no host port has that address and port.
#[inline(always)]
pub(crate) fn takes<F: Hop>(head: Head, ip: &Ip<F>) -> bool {
    let config = lookup::config();
    let outer = if F::ADDRESS == 4 { V4::key(config.outer_v4) } else { config.outer_v6 };
    config.tunnel != 0
        && same(&outer, &F::key(ip.dst))
        && plain_ports(&head, ip).is_some_and(|ports| ports.dst == config.tunnel_port)
}

/// Refuses what goes behind IPv4 options to a service that is kept from pods, and what a pod encapsulated itself: a packet
/// to the tunnel port. [`Reason::ToStack`] when it is neither.
///
/// Later fragments say no port; without their first one they come to nothing.
#[inline(never)]
pub(crate) fn check(skb: Skb) -> Reason {
    either(refuse(skb))
}

#[inline(always)]
fn refuse(skb: Skb) -> Result<Reason, Reason> {
    let ip = V4::parse(&skb, skb.len())?;
    if lookup::remote(&V4::key(ip.dst)).is_some_and(|remote| remote.has(Remote::DENIED)) {
        return Err(Reason::MetadataService);
    }
    let tunnel_port = lookup::config().tunnel_port;
    if tunnel_port == [0; 2] {
        return Ok(Reason::ToStack);
    }
    if ip.protocol != UDP || ip.later_fragment {
        return Ok(Reason::ToStack);
    }
    let [first] = skb.read(ethernet::HEADER).ok_or(Reason::Malformed)?;
    let header = usize::from(first & 0x0f) * 4;
    let port: [u8; 2] = skb.read(ethernet::HEADER + header + 2).ok_or(Reason::Malformed)?;
    if port == tunnel_port { Err(Reason::SpoofedTunnel) } else { Ok(Reason::ToStack) }
}
