// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way into the tunnel, for pods' packets.

use rhumb_ebpf_common::layout::{Link, Remote};
use rhumb_ebpf_common::{Bytes as _, Reason, ethernet, mtu, ports};

use crate::act::{self, Hop};
use crate::packet::Skb;
use crate::{either, lookup};

const UDP: u8 = 17;

/// Encapsulates a packet for the node that has its destination; [`Reason::TooBig`] when it does not fit.
#[inline(never)]
pub(crate) fn send<F: Hop>(skb: Skb, link: &Link, remote: &Remote) -> Reason {
    either(encapsulate::<F>(skb, link, remote))
}

#[inline(always)]
fn encapsulate<F: Hop>(skb: Skb, link: &Link, remote: &Remote) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    ip.may_hop()?;
    let config = lookup::config();
    if config.tunnel == 0 {
        return Err(Reason::TunnelAbsent);
    }
    let headers = lookup::headers::<F>(skb, &ip);
    if mtu::exceeds(&ip, skb.gso_size(), headers, u32::from(remote.mtu)) {
        return Err(Reason::TooBig);
    }
    act::set_tunnel_key(skb, remote, config, link.identity)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::enter_tunnel::<F>(skb, head, config.tunnel)
}

/// Refuses what a pod encapsulated itself: a packet to the tunnel port. [`Reason::ToStack`] when it is none.
///
/// Later fragments say no port; without their first one they come to nothing.
#[inline(never)]
pub(crate) fn check<F: Hop>(skb: Skb) -> Reason {
    either(refuse::<F>(skb))
}

#[inline(always)]
fn refuse<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let tunnel_port = lookup::config().tunnel_port;
    if tunnel_port == [0; 2] {
        return Ok(Reason::ToStack);
    }
    let ip = F::parse(&skb, skb.len())?;
    let port = if F::HEADER == 20 {
        if ip.protocol != UDP || ip.later_fragment {
            return Ok(Reason::ToStack);
        }
        let [first] = skb.read(ethernet::HEADER).ok_or(Reason::Malformed)?;
        let header = usize::from(first & 0x0f) * 4;
        skb.read(ethernet::HEADER + header + 2).ok_or(Reason::Malformed)?
    } else {
        match ports(&skb, &ip) {
            Ok(Some(ports)) if ports.protocol == UDP => ports.dst,
            Ok(_) | Err(Reason::Fragment) => return Ok(Reason::ToStack),
            Err(reason) => return Err(reason),
        }
    };
    if port == tunnel_port { Err(Reason::SpoofedTunnel) } else { Ok(Reason::ToStack) }
}
