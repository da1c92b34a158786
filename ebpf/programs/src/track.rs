// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which flow a packet belongs to: found once per packet, under one key for both directions.

use rhumb_ebpf_common::ct::{Side, Signal};
use rhumb_ebpf_common::layout::{Ct, CtKey, Fragment};
use rhumb_ebpf_common::{Ip, Part, Ports, Reason, plain_ports, ports as any};

use crate::act::Hop;
use crate::lookup;
use crate::packet::{Head, Skb};

/// How many ticks the later fragments of a datagram may take (RFC 8200: 60 s).
const REASSEMBLY: u32 = 60;

/// What the flow of a packet asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Course {
    /// It goes where its addresses say.
    Straight,
    /// As above, and it has no ports to tell a flow by.
    Unknown,
    /// Its headers contradict themselves where the ports should be.
    Malformed,
    /// It came through the host stack, and so its answers return.
    Stack,
    /// It is an answer from behind a host port.
    HostPort,
}

/// Takes note of a packet in its flow; `ports` becomes those of the packet.
///
/// A function of its own: key and entry then take no room on the stack of the functions called later.
#[inline(never)]
pub(crate) fn follow<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>, ports: &mut Ports) -> Course {
    match find_ports::<F>(skb, head, ip, ports) {
        Course::Straight => {}
        other => return other,
    }
    let Some((flow, side)) = note::<F>(skb, ip, ports) else { return Course::Straight };
    if !flow.is_diverted(side) {
        Course::Straight
    } else if flow.has(side.stack()) {
        Course::Stack
    } else {
        Course::HostPort
    }
}

/// Finds the ports, the short way where it leads there; [`Course::Straight`] when there are some.
#[inline(always)]
pub(crate) fn find_ports<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>, ports: &mut Ports) -> Course {
    match plain_ports(&head, ip) {
        Some(plain) => {
            *ports = plain;
            Course::Straight
        }
        None => any_ports::<F>(skb, ip, ports),
    }
}

/// Finds the ports wherever they are: behind extension headers, or in the first fragment of the datagram. Where there are
/// none, `out` still says whether the packet is a later fragment.
#[inline(never)]
fn any_ports<F: Hop>(skb: Skb, ip: &Ip<F>, out: &mut Ports) -> Course {
    match any(&skb, ip) {
        Ok(Some(ports)) => *out = ports,
        Ok(None) | Err(Reason::IpOptions) => return Course::Unknown,
        Err(_) => return Course::Malformed,
    }
    match out.part {
        Part::Whole => Course::Straight,
        Part::First => {
            mark(ip, out);
            Course::Straight
        }
        Part::Later => {
            if recall(ip, out) {
                Course::Straight
            } else {
                Course::Unknown
            }
        }
    }
}

/// Remembers the ports of a datagram for its later fragments.
#[inline(never)]
fn mark<F: Hop>(ip: &Ip<F>, ports: &Ports) {
    let fragment = Fragment {
        src_port: ports.src,
        dst_port: ports.dst,
        protocol: ports.protocol,
        padding: [0; 3],
        expires: lookup::now() + REASSEMBLY,
    };
    lookup::put_fragment(&ports.datagram(ip), &fragment);
}

/// Gives a later fragment the ports of its datagram.
#[inline(never)]
fn recall<F: Hop>(ip: &Ip<F>, ports: &mut Ports) -> bool {
    let Some(mark) = lookup::fragment(&ports.datagram(ip)) else { return false };
    if mark.expires <= lookup::now() {
        return false;
    }
    ports.protocol = mark.protocol;
    ports.src = mark.src_port;
    ports.dst = mark.dst_port;
    true
}

/// Takes note of a packet in its flow; the flow if it was known before, and the side that the packet is from.
#[inline(always)]
fn note<F: Hop>(skb: Skb, ip: &Ip<F>, ports: &Ports) -> Option<(&'static mut Ct, Side)> {
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, ports);
    note_at(skb, &key, side, ports.signal).map(|flow| (flow, side))
}

/// Takes note of a packet in the flow `key`; the flow if it was known before.
#[inline(always)]
pub(crate) fn note_at(skb: Skb, key: &CtKey, side: Side, signal: Signal) -> Option<&'static mut Ct> {
    let now = lookup::now();
    if let Some(flow) = lookup::ct(key)
        && !flow.is_expired(now)
    {
        let from = flow.from(side);
        if flow.note(from, signal, now) {
            flow.count(from, skb.len());
            return Some(flow);
        }
    }
    begin(skb, key, side, signal, now);
    None
}

/// Remembers a flow by its first packet.
#[inline(never)]
pub(crate) fn begin(skb: Skb, key: &CtKey, side: Side, signal: Signal, now: u32) {
    let mut flow = Ct::first(key.protocol, side, signal, now);
    flow.count(flow.from(side), skb.len());
    lookup::put_ct(key, &flow);
}

/// Takes note of a packet that the host stack forwarded: what answers it is to go through the stack.
#[inline(never)]
pub(crate) fn divert<F: Hop>(ip: &Ip<F>, ports: &Ports) {
    let (key, side) = CtKey::new::<F>(ip.src, ip.dst, ports);
    if let Some(flow) = lookup::ct(&key) {
        flow.divert(side.other());
    }
}
