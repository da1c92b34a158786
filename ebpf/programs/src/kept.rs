// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The short way: what goes where another packet of its flow went a moment ago, found by one lookup.
//!
//! Whether the packet may come by this interface, whose it is and where it goes was asked for the other packet, and
//! nothing that the answers depend on has changed since: see [`Epoch`](rhumb_ebpf_common::layout::Epoch). Everything
//! that is not plain takes the long way: other protocols, fragments, options, the first packets of flows and of moments,
//! and flows whose packets are translated or go through the host's stack.

use rhumb_ebpf_common::ct::Signal;
use rhumb_ebpf_common::layout::{Address, Ct, CtKey, NextHop, is_v4};
use rhumb_ebpf_common::{Reason, V4, V6, plain_ports};

use crate::act::{self, Hop};
use crate::packet::{IPV4, IPV6, Skb};
use crate::{either, lookup, remote, tunnel};

/// Sends a packet the short way; nothing when it is to take the long one, and is what it was.
#[inline(always)]
pub(crate) fn again(skb: Skb) -> Option<Reason> {
    match skb.protocol() {
        IPV4 => ip::<V4>(skb, skb.ifindex(), 0),
        IPV6 => ip::<V6>(skb, skb.ifindex(), 0),
        _ => None,
    }
}

/// As [`again`], for what `sender` encapsulated; over IPv6 nothing is kept.
#[inline(always)]
pub(crate) fn again_from<F: Hop>(skb: Skb, sender: &Address) -> Option<Reason> {
    let [.., v4] = *sender;
    if is_v4(sender) { ip::<F>(skb, v4, NextHop::SENDER) } else { None }
}

#[inline(never)]
fn ip<F: Hop>(skb: Skb, from: u32, way: u8) -> Option<Reason> {
    if skb.vlan_present() != 0 {
        return None;
    }
    let head = skb.linear();
    let ip = F::parse(&head, skb.len()).ok()?;
    let ports = plain_ports(&head, &ip)?;
    if ports.signal == Signal::OPEN || ip.may_hop().is_err() {
        return None;
    }
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, &ports);
    let flow = lookup::ct(&key)?;
    let next = *lookup::next(flow, side, lookup::moment(), from, way)?;
    let NextHop { kind, class, mtu, to, .. } = next;
    if kind & (NextHop::LOCAL | NextHop::DIRECT | NextHop::TUNNEL) == 0 {
        return None;
    }
    if flow.flags & (Ct::STACK_LOW | Ct::STACK_HIGH | Ct::HOST_PORT) != 0 {
        return None;
    }
    if kind & NextHop::LOCAL == 0 && !remote::takes::<F>(skb, &ip, class, mtu) {
        return None;
    }
    // Whether its time is over was looked at in this moment.
    if !flow.is_left_by(ports.signal) && !flow.note(flow.from(side), ports.signal, lookup::now()) {
        return None;
    }
    flow.count(side, skb.len());
    let [a, b, c, ifindex] = to;
    let exit = if kind & NextHop::LOCAL != 0 {
        act::enter::<F>(skb, head, [a, b, c], ifindex, kind & NextHop::SHAPED != 0)
    } else if kind & NextHop::DIRECT != 0 {
        act::send::<F>(skb, head, [a, b, c], ifindex, remote::mark(kind))
    } else {
        return Some(tunnel::again::<F>(skb, head, lookup::link(skb.ifindex())?, &next));
    };
    Some(either(exit))
}
