// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The way to everything that is not a pod of this node.

use rhumb_ebpf_common::{Fib, Reason, ethernet};

use crate::act::{self, Hop};
use crate::packet::Skb;
use crate::{either, lookup};

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
