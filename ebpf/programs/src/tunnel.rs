// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way into the tunnel, for pods' packets.

use rhumb_ebpf_common::layout::{Config, Link, NextHop, Remote, is_v4, same};
use rhumb_ebpf_common::vxlan::{self, Outer};
use rhumb_ebpf_common::{
    Bytes as _, Family as _, Fib, Ip, Ports, Reason, UDP, V4, ethernet, mtu, plain_ports, segment_length,
};

use crate::act::{self, Hop};
use crate::lookup::Route;
use crate::packet::{Head, Skb};
use crate::{either, lookup};

/// Encapsulates a packet for the node that has its destination; [`Reason::TooBig`] when it does not fit.
#[inline(never)]
pub(crate) fn send<F: Hop>(skb: Skb, link: &Link, remote: &Remote, next: &mut NextHop) -> Reason {
    match find::<F>(skb, remote, next) {
        Reason::ForwardedTunnel => {}
        refused => return refused,
    }
    match skb.head(ethernet::HEADER + F::HEADER) {
        Ok(head) => again::<F>(skb, head, link, next),
        Err(reason) => reason,
    }
}

/// Encapsulates a packet that fits for where `next` says.
#[inline(never)]
pub(crate) fn again<F: Hop>(skb: Skb, head: Head, link: &Link, next: &NextHop) -> Reason {
    either(enter::<F>(skb, head, link, next))
}

#[inline(always)]
fn enter<F: Hop>(skb: Skb, head: Head, link: &Link, next: &NextHop) -> Result<Reason, Reason> {
    let config = lookup::config();
    if config.tunnel == 0 {
        return Err(Reason::TunnelAbsent);
    }
    act::forward_tunnel::<F>(skb, head)?;
    let mut to = next.to;
    if next.kind & NextHop::OUTER != 0 {
        let [dst, gateway, _, ifindex] = next.to;
        if wrap::<F>(skb, config, link, dst, next.class)? {
            act::send_wrapped(skb, ifindex, gateway);
            return Ok(Reason::ForwardedTunnel);
        }
        to = V4::key(dst);
    }
    act::set_tunnel_key(skb, &to, config, link.identity)?;
    act::enter_tunnel(skb, config.tunnel);
    Ok(Reason::ForwardedTunnel)
}

/// Writes the outer packet, as the tunnel's device would; false leaves that to the device.
#[inline(always)]
fn wrap<F: Hop>(skb: Skb, config: &Config, link: &Link, dst: u32, class: u8) -> Result<bool, Reason> {
    let length = skb.len();
    if length > vxlan::LONGEST {
        return Ok(false);
    }
    let outer = Outer {
        src: config.outer_v4,
        dst,
        id: lookup::number(skb.gso_segs()),
        src_port: vxlan::source_port(lookup::hash(skb)),
        dst_port: config.tunnel_port,
        identity: link.identity,
        class,
        length: length as u16,
        kind: if F::ADDRESS == 4 { ethernet::IPV4 } else { ethernet::IPV6 },
    };
    act::wrap(skb, &outer)
}

/// Finds the way of a packet into the tunnel; [`Reason::ForwardedTunnel`] when there is one.
#[inline(never)]
fn find<F: Hop>(skb: Skb, remote: &Remote, next: &mut NextHop) -> Reason {
    match fit::<F>(skb, remote) {
        Ok(length) => {
            (next.kind, next.mtu, next.to) = (NextHop::TUNNEL, remote.mtu, remote.tunnel);
            pass_device(skb, length, next);
            Reason::ForwardedTunnel
        }
        Err(reason) => reason,
    }
}

/// The length of the packets that this one becomes on the wire; 0 when that is not known.
#[inline(always)]
fn fit<F: Hop>(skb: Skb, remote: &Remote) -> Result<u16, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    ip.may_hop()?;
    let headers = lookup::headers::<F>(skb, &ip);
    if mtu::exceeds(&ip, skb.gso_size(), headers, u32::from(remote.mtu)) {
        return Err(Reason::TooBig);
    }
    Ok(segment_length(ip.length, skb.gso_size(), headers))
}

/// Adds the way of the outer packet where the host's rules, routes and neighbours know it. Where they do not, or it would
/// have to be cut up, or is one of IPv6, whose checksum covers all of it, the tunnel's device sends it.
#[inline(always)]
fn pass_device(skb: Skb, length: u16, next: &mut NextHop) {
    let config = lookup::config();
    let room = vxlan::ROOM as u16;
    if config.outer_v4 == 0 || !is_v4(&next.to) || length == 0 || length > u16::MAX - room {
        return;
    }
    let [.., dst] = next.to;
    let mut route = Route::unknown();
    match lookup::outer_route(skb, config, dst, length + room, &mut route) {
        Fib::Forward => {}
        Fib::Resolve => {
            // The device makes the kernel look for the neighbour; the next packet may find it.
            next.kind = 0;
            return;
        }
        Fib::Here | Fib::Stack(_) => return,
    }
    let Some(gateway) = route.gateway_v4() else { return };
    let mtu = (route.mtu() as u16).saturating_sub(room);
    next.kind |= NextHop::OUTER;
    next.to = [dst, gateway, 0, route.ifindex()];
    if next.mtu == 0 || mtu < next.mtu {
        next.mtu = mtu;
    }
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
