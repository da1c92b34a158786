// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Path MTU discovery: what tells a pod that its packet was too large.

use rhumb_ebpf_common::icmp_error::{Addressee, QUOTE};
use rhumb_ebpf_common::layout::{Link, Remote};
use rhumb_ebpf_common::{Bytes as _, Fib, Ip, Ports, Reason, ethernet, mtu};

use crate::act::{self, Hop, Known, Side};
use crate::call::given;
use crate::lookup::Route;
use crate::packet::Skb;
use crate::{either, lookup};

/// Answers a packet that does not fit; [`Reason::TooBig`] leaves it to the stack. `ports` are those that the pod sent it
/// with.
#[inline(always)]
pub(crate) fn answer<F: Hop>(skb: Skb, link: *const Link, ports: *const Ports) -> Reason {
    let (Some(link), Some(ports)) = (given(link), given(ports)) else { return Reason::TooBig };
    either(tell::<F>(skb, link, ports))
}

#[inline(always)]
fn tell<F: Hop>(skb: Skb, link: &Link, ports: &Ports) -> Result<Reason, Reason> {
    let ip = F::parse(&skb, skb.len())?;
    if !mtu::is_answered(&skb, &ip) || (skb.len() as usize) < ethernet::HEADER + QUOTE {
        return Err(Reason::TooBig);
    }
    let mtu = mtu_of::<F>(skb, &ip);
    if mtu == 0 {
        return Err(Reason::TooBig);
    }
    let pod = F::own(link);
    if ip.src != pod {
        // The pod knows the packet by the source that it gave it.
        let src = skb.read(ports.offset).ok_or(Reason::Malformed)?;
        let known = Known::new(F::key(pod), ports.src);
        act::translate::<F>(skb, &Ports { src, ..*ports }, Side::Source, &known)?;
    }
    let mac = skb.read(ethernet::SOURCE).ok_or(Reason::Malformed)?;
    let to = Addressee { mac, host_mac: link.host_mac };
    act::cut(skb, ethernet::HEADER + QUOTE)?;
    let quote = skb.head(ethernet::HEADER + QUOTE)?.sum::<QUOTE>(ethernet::HEADER);
    F::tell_mtu(skb, to, pod, mtu::reported::<F>(mtu), quote)?;
    act::return_to_pod(skb);
    Ok(Reason::AnsweredTooBig)
}

/// The MTU of the way that a packet takes; 0 when nobody says.
#[inline(never)]
fn mtu_of<F: Hop>(skb: Skb, ip: &Ip<F>) -> u32 {
    match lookup::remote(&F::key(ip.dst)) {
        Some(remote) if remote.has(Remote::TUNNEL) => u32::from(remote.mtu),
        _ => {
            let mut route = Route::unknown();
            match lookup::route(skb, ip, &mut route) {
                Fib::Stack(Reason::TooBig) => route.mtu(),
                Fib::Forward | Fib::Resolve | Fib::Here | Fib::Stack(_) => 0,
            }
        }
    }
}
