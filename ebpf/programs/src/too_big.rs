// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Path MTU discovery: what tells a pod that its packet was too large.

use rhumb_ebpf_common::icmp_error::{Addressee, QUOTE};
use rhumb_ebpf_common::layout::Link;
use rhumb_ebpf_common::{Bytes as _, Reason, Source, ethernet, mtu};

use crate::act::{self, Hop};
use crate::packet::Skb;
use crate::{either, lookup};

/// Answers a packet that does not fit, which `mtu` says, or if that is 0, the route; [`Reason::TooBig`] leaves it to
/// the stack.
#[inline(never)]
pub(crate) fn answer<F: Hop>(skb: Skb, link: &Link, mtu: u32) -> Reason {
    either(tell::<F>(skb, link, mtu))
}

#[inline(always)]
fn tell<F: Hop>(skb: Skb, link: &Link, mtu: u32) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    // A source that was translated is not what the pod sent, and it would not know what the error is about.
    let own = matches!(F::source(ip.src, link), Source::Own);
    if !own || !mtu::is_answered(&skb, &ip) || (skb.len() as usize) < ethernet::HEADER + QUOTE {
        return Err(Reason::TooBig);
    }
    let mtu = if mtu == 0 { lookup::route(skb, &ip).1.mtu() } else { mtu };
    if mtu == 0 {
        return Err(Reason::TooBig);
    }
    let mac = skb.read(ethernet::SOURCE).ok_or(Reason::Malformed)?;
    let to = Addressee { mac, host_mac: link.host_mac };
    act::cut(skb, ethernet::HEADER + QUOTE)?;
    let quote = skb.head(ethernet::HEADER + QUOTE)?.sum::<QUOTE>(ethernet::HEADER);
    F::tell_mtu(skb, to, ip.src, mtu::reported::<F>(mtu), quote)?;
    act::return_to_pod(skb);
    Ok(Reason::AnsweredTooBig)
}
