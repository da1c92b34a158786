// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! ICMP errors about translated packets, translated with what they quote.

use rhumb_ebpf_common::layout::{Ct, CtKey, HostPortKey, NatKey, same};
use rhumb_ebpf_common::{Ip, Ports, Reason, ethernet, quote};

use crate::act::{self, Hop, Known, Side};
use crate::call::given;
use crate::packet::Skb;
use crate::{either, lookup};

/// Delivers an error about a masqueraded packet, or about one from behind a host port, to the pod that sent the packet, or
/// to the node; [`Reason::ToStack`] when it is about something else.
#[inline(always)]
pub(crate) fn enter<F: Hop>(skb: Skb) -> Reason {
    either(deliver::<F>(skb))
}

/// Its steps are functions of their own, each of which reads the quote: the stacks of nested calls add up.
#[inline(always)]
fn deliver<F: Hop>(skb: Skb) -> Result<Reason, Reason> {
    let ip = &F::parse(&skb, skb.len())?;
    let mut pod = Known::NONE;
    let is_masqueraded = sender::<F>(skb, ip, &mut pod);
    if !is_masqueraded && !behind_port::<F>(skb, ip, &mut pod) {
        return Err(Reason::ToStack);
    }
    let Some(endpoint) = lookup::endpoint(&pod.addr) else {
        if !same(&pod.addr, &F::key(ip.dst)) {
            return Err(Reason::BackendAbsent);
        }
        translate::<F>(skb, Side::Destination, &pod)?;
        return Ok(Reason::HostReturn);
    };
    ip.may_hop()?;
    translate::<F>(skb, Side::Destination, &pod)?;
    let head = skb.head(ethernet::HEADER + F::HEADER)?;
    act::deliver::<F>(skb, head, endpoint)?;
    Ok(if is_masqueraded { Reason::MasqueradeReturn } else { Reason::HostPortIn })
}

/// Finds the pod that sent the packet that an error is about.
#[inline(never)]
fn sender<F: Hop>(skb: Skb, ip: &Ip<F>, pod: &mut Known) -> bool {
    let Some(quote) = quote(&skb, ip) else { return false };
    let key = NatKey::of_sent::<F>(quote.dst, quote.src, &quote.ports, quote.ports.src);
    let Some(nat) = lookup::nat(&key) else { return false };
    if nat.is_of(&F::key(quote.src), quote.ports.src) {
        // The node's own, which left as it was.
        return false;
    }
    (pod.addr, pod.port) = (nat.pod, nat.pod_port);
    true
}

/// Finds the pod behind a host port that sent the packet that an error is about.
#[inline(never)]
fn behind_port<F: Hop>(skb: Skb, ip: &Ip<F>, pod: &mut Known) -> bool {
    let Some(quote) = quote(&skb, ip) else { return false };
    let (addr, port, protocol) = (F::key(quote.src), quote.ports.src, quote.ports.protocol);
    let Some(backend) = lookup::host_port(&HostPortKey { addr, port, protocol, padding: 0 }) else {
        return false;
    };
    let inside = (F::unkey(&backend.addr), backend.port);
    let (key, _) = CtKey::between::<F>(protocol, inside, (quote.dst, quote.ports.dst));
    let known = lookup::ct(&key).is_some_and(|flow| flow.has(Ct::HOST_PORT));
    if known {
        *pod = Known::new(backend.addr, backend.port);
    }
    known
}

/// Translates an error and what it quotes.
#[inline(always)]
fn translate<F: Hop>(skb: Skb, side: Side, known: &Known) -> Result<(), Reason> {
    if F::translate_error(skb, known, side as u32) == 0 { Ok(()) } else { Err(Reason::RewriteFailed) }
}

/// The global function behind [`translate`]: whether that is not possible.
#[inline(always)]
pub(crate) fn rewrite<F: Hop>(skb: Skb, known: *const Known, side: u32) -> bool {
    let Some(known) = given(known) else { return true };
    let Ok(ip) = &F::parse(&skb, skb.len()) else { return true };
    // It was found by its quote, so it has one.
    let Some(quote) = quote(&skb, ip) else { return false };
    let side = if side == Side::Source as u32 { Side::Source } else { Side::Destination };
    act::translate_error(skb, ip, &quote, side, F::unkey(&known.addr), known.port).is_err()
}

/// What is to become of an error that a pod sends.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Errand {
    /// It goes where its addresses say.
    Straight,
    /// The packet came through the host stack, which translates the error too.
    Stack,
    /// The packet came to a host port: the error was given that address.
    Translated,
    /// The kernel refused to change it.
    Failed,
}

impl Errand {
    /// What a global function returned.
    #[inline(always)]
    pub(crate) const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Straight,
            1 => Self::Stack,
            2 => Self::Translated,
            _ => Self::Failed,
        }
    }
}

/// Gives an error of a pod about a packet that came to a host port that port's address as its source.
#[inline(always)]
pub(crate) fn answer<F: Hop>(skb: Skb) -> Errand {
    let Ok(ip) = &F::parse(&skb, skb.len()) else { return Errand::Straight };
    let mut node = Known::NONE;
    let errand = asked::<F>(skb, ip, &mut node);
    if errand != Errand::Translated {
        return errand;
    }
    if translate::<F>(skb, Side::Source, &node).is_err() {
        return Errand::Failed;
    }
    // One about what the pod sent itself, by its gateway, goes to the pod.
    if ip.is_to_gateway() && itself::<F>(skb, ip, &mut node) {
        return match translate::<F>(skb, Side::Destination, &node) {
            Ok(()) => errand,
            Err(_) => Errand::Failed,
        };
    }
    errand
}

/// Finds how the packet came that an error is about, and what its sender knows the pod by.
#[inline(never)]
fn asked<F: Hop>(skb: Skb, ip: &Ip<F>, node: &mut Known) -> Errand {
    let Some(quote) = quote(&skb, ip) else { return Errand::Straight };
    let (key, side) = CtKey::new::<F>(quote.dst, quote.src, &reversed(&quote.ports));
    let Some(flow) = lookup::ct(&key) else { return Errand::Straight };
    if flow.has(side.stack()) {
        return Errand::Stack;
    }
    if !flow.is_diverted(side) {
        return Errand::Straight;
    }
    *node = Known::new(flow.nat_addr, flow.nat_port);
    Errand::Translated
}

/// The ports of an answer.
#[inline(always)]
fn reversed(ports: &Ports) -> Ports {
    Ports { src: ports.dst, dst: ports.src, ..*ports }
}

/// What a pod that asked itself by its gateway is known by.
#[inline(never)]
fn itself<F: Hop>(skb: Skb, ip: &Ip<F>, pod: &mut Known) -> bool {
    let Some(quote) = quote(&skb, ip) else { return false };
    *pod = Known::new(F::key(ip.src), quote.ports.src);
    true
}

/// Gives an error of a pod or of the node about a packet to it the source that the packet's sender knows.
#[inline(always)]
pub(crate) fn leave<F: Hop>(skb: Skb) -> Reason {
    let Ok(ip) = &F::parse(&skb, skb.len()) else { return Reason::Malformed };
    let mut node = Known::NONE;
    match source::<F>(skb, ip, &mut node) {
        Reason::Masqueraded => match translate::<F>(skb, Side::Source, &node) {
            Ok(()) => Reason::Masqueraded,
            Err(reason) => reason,
        },
        reason => reason,
    }
}

/// Finds what the sender of the packet that an error is about knows the pod by.
#[inline(never)]
fn source<F: Hop>(skb: Skb, ip: &Ip<F>, node: &mut Known) -> Reason {
    let Some(quote) = quote(&skb, ip) else { return Reason::NotMasqueradable };
    let (key, _) = CtKey::new::<F>(quote.src, quote.dst, &quote.ports);
    match lookup::ct(&key) {
        Some(flow)
            if flow.has(Ct::MASQUERADED)
                && !(flow.nat_port == quote.ports.dst && same(&flow.nat_addr, &F::key(quote.dst))) =>
        {
            (node.addr, node.port) = (flow.nat_addr, flow.nat_port);
            Reason::Masqueraded
        }
        Some(_) => Reason::SourceKept,
        None => Reason::NotMasqueradable,
    }
}
