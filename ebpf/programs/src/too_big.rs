// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Path MTU discovery: what tells a pod that its packet was too large.

use rhumb_ebpf_common::icmp_error::{Addressee, QUOTE};
use rhumb_ebpf_common::layout::Link;
use rhumb_ebpf_common::{Bytes as _, Ports, Reason, ethernet, mtu};

use crate::act::{self, Hop, Side};
use crate::packet::Skb;
use crate::{either, lookup};

/// Answers a packet that does not fit, which `mtu` says, or if that is 0, the route; [`Reason::TooBig`] leaves it to
/// the stack. `ports` are those that the pod sent it with.
#[inline(never)]
pub(crate) fn answer<F: Hop>(skb: Skb, link: &Link, ports: &Ports, mtu: u32) -> Reason {
    either(tell::<F>(skb, link, ports, mtu))
}

#[inline(always)]
fn tell<F: Hop>(skb: Skb, link: &Link, ports: &Ports, mtu: u32) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    if !mtu::is_answered(&skb, &ip) || (skb.len() as usize) < ethernet::HEADER + QUOTE {
        return Err(Reason::TooBig);
    }
    let mtu = if mtu == 0 { lookup::route(skb, &ip).1.mtu() } else { mtu };
    if mtu == 0 {
        return Err(Reason::TooBig);
    }
    let pod = F::own(link);
    if ip.src != pod {
        // The pod knows the packet by the source that it gave it.
        let src = skb.read(ports.offset).ok_or(Reason::Malformed)?;
        act::translate(skb, &ip, &Ports { src, ..*ports }, Side::Source, pod, ports.src)?;
    }
    let mac = skb.read(ethernet::SOURCE).ok_or(Reason::Malformed)?;
    let to = Addressee { mac, host_mac: link.host_mac };
    act::cut(skb, ethernet::HEADER + QUOTE)?;
    let quote = skb.head(ethernet::HEADER + QUOTE)?.sum::<QUOTE>(ethernet::HEADER);
    F::tell_mtu(skb, to, pod, mtu::reported::<F>(mtu), quote)?;
    act::return_to_pod(skb);
    Ok(Reason::AnsweredTooBig)
}
