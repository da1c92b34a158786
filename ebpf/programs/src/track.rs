// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which flow a packet belongs to: found once per packet, under one key for both directions.

use aya_ebpf::bindings::__sk_buff;
use rhumb_ebpf_common::ct::{Ends, From, Side, Signal};
use rhumb_ebpf_common::layout::{Ct, CtKey, Fragment, NextHop};
use rhumb_ebpf_common::{Ip, Part, Ports, Reason, plain_ports, ports as any};

use crate::act::Hop;
use crate::call::{given, given_mut};
use crate::interface;
use crate::lookup::{self, Scratch};
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

impl Course {
    /// The course that a global function returned.
    #[inline(always)]
    const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Straight,
            1 => Self::Unknown,
            3 => Self::Stack,
            4 => Self::HostPort,
            _ => Self::Malformed,
        }
    }
}

/// What a packet says of its flow, as a number: its signal, and whether it came through the host stack.
#[derive(Clone, Copy)]
pub(crate) struct Word(u32);

impl Word {
    /// What answers the packet is to go through the stack, as it did.
    const STACK: u32 = 1 << 8;
    /// The high side sent it.
    const HIGH: u32 = 1 << 9;
    /// Its flow takes the place of another with the same key.
    const AGAIN: u32 = 1 << 10;

    #[inline(always)]
    pub(crate) const fn new(signal: Signal) -> Self {
        Self(signal.number() as u32)
    }

    #[inline(always)]
    pub(crate) const fn through_stack(self) -> Self {
        Self(self.0 | Self::STACK)
    }

    #[inline(always)]
    const fn signal(self) -> Signal {
        Signal::of_number(self.0 as u8)
    }

    #[inline(always)]
    const fn first_from(self, side: Side, again: bool) -> Self {
        let high = if matches!(side, Side::High) { Self::HIGH } else { 0 };
        Self(self.0 | high | if again { Self::AGAIN } else { 0 })
    }

    #[inline(always)]
    const fn side(self) -> Side {
        if self.0 & Self::HIGH == 0 { Side::Low } else { Side::High }
    }
}

/// Takes note of a packet in its flow; `ports` becomes those of the packet.
#[inline(always)]
pub(crate) fn follow<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>, ports: &mut Ports) -> Course {
    follow_to::<F>(skb, head, ip, ports, core::ptr::null_mut())
}

/// As [`follow`]; a [straight](Course::Straight) flow keeps the next hop in `next`. Where that says none, it becomes what
/// the flow keeps of its moment and interface.
#[inline(always)]
pub(crate) fn follow_to<F: Hop>(
    skb: Skb,
    head: Head,
    ip: &Ip<F>,
    ports: &mut Ports,
    next: *mut NextHop,
) -> Course {
    match find_ports::<F>(skb, head, ip, ports) {
        Course::Straight => {}
        other => return other,
    }
    let ends = Ends::new::<F>(ip.src, ip.dst, ports);
    Course::of_number(flow(skb.ctx, &raw const ends, Word::new(ports.signal).0, next))
}

/// Finds the ports, the short way where it leads there; [`Course::Straight`] when there are some.
#[inline(always)]
pub(crate) fn find_ports<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>, ports: &mut Ports) -> Course {
    match plain_ports(&head, ip) {
        Some(plain) => {
            *ports = plain;
            Course::Straight
        }
        None => Course::of_number(F::any_ports(skb, ports)),
    }
}

/// Finds the ports wherever they are: behind extension headers, or in the first fragment of the datagram. Where there are
/// none, `out` still says whether the packet is a later fragment.
#[inline(always)]
pub(crate) fn any_ports<F: Hop>(skb: Skb, out: *mut Ports) -> Course {
    let Some(out) = given_mut(out) else { return Course::Malformed };
    let Ok(ip) = F::parse(&skb, skb.len()) else { return Course::Malformed };
    match any(&skb, &ip) {
        Ok(Some(ports)) => *out = ports,
        Ok(None) | Err(Reason::IpOptions) => return Course::Unknown,
        Err(_) => return Course::Malformed,
    }
    match out.part {
        Part::Whole => Course::Straight,
        Part::First => {
            mark(&ip, out);
            Course::Straight
        }
        Part::Later => {
            if recall(&ip, out) {
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

/// Takes note of a packet in the flow between `ends`.
#[inline(always)]
pub(crate) fn note(skb: Skb, ends: &Ends, word: Word) -> Course {
    Course::of_number(flow(skb.ctx, ends, word.0, core::ptr::null_mut()))
}

/// Finds the flow of a packet and takes note of it there, or remembers the flow; a [`Course`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow(ctx: *mut __sk_buff, ends: *const Ends, word: u32, next: *mut NextHop) -> u32 {
    let (skb, word) = (Skb { ctx }, Word(word));
    let Some(ends) = given(ends) else { return Course::Straight as u32 };
    let ((key, side), now) = (ends.key(), lookup::now());
    let known = lookup::ct(&key);
    let again = known.is_some();
    if let Some(flow) = known
        && !flow.is_expired(now)
        && flow.note(flow.from(side), word.signal(), now)
    {
        flow.count(side, skb.len());
        if word.0 & Word::STACK != 0 {
            flow.divert(side.other());
        }
        let course = if !flow.is_diverted(side) {
            if let Some(next) = given_mut(next) {
                if next.kind != 0 {
                    lookup::put_next(flow, side, next);
                } else if let Some(kept) = lookup::next(flow, side, next.at, next.from, 0) {
                    *next = *kept;
                }
            }
            Course::Straight
        } else if flow.has(side.stack()) {
            Course::Stack
        } else {
            Course::HostPort
        };
        return course as u32;
    }
    begin(skb, &key, word.first_from(side, again), now, next);
    Course::Straight as u32
}

/// Remembers a flow by its first packet.
#[inline(never)]
fn begin(skb: Skb, key: &CtKey, word: Word, now: u32, next: *const NextHop) {
    let Some(Scratch { flow, .. }) = lookup::scratch() else { return };
    let side = word.side();
    *flow = Ct::first(key.protocol, side, word.signal(), now);
    flow.count(side, skb.len());
    if word.0 & Word::STACK != 0 {
        flow.divert(side.other());
    }
    if let Some(next) = given(next) {
        flow.sent_mut(side).next = *next;
    }
    if word.0 & Word::AGAIN == 0 {
        lookup::put_ct(key, flow);
    } else {
        lookup::replace_ct(key, flow);
    }
}

/// Whether a packet answers who called.
#[inline(never)]
pub(crate) fn answers<F: Hop>(ip: &Ip<F>, ports: &Ports) -> bool {
    let (key, side) = Ends::new::<F>(ip.src, ip.dst, ports).key();
    lookup::ct(&key).is_some_and(|flow| flow.from(side) == From::Replier)
}

/// Remembers in the flow of a packet where the packet goes.
#[inline(never)]
pub(crate) fn keep<F: Hop>(ip: &Ip<F>, ports: &Ports, next: &NextHop) {
    let (key, side) = Ends::new::<F>(ip.src, ip.dst, ports).key();
    if let Some(flow) = lookup::ct(&key) {
        lookup::put_next(flow, side, next);
    }
}

/// As [`follow`], for a packet that the host stack forwarded: what answers it is to go through the stack.
#[inline(always)]
pub(crate) fn divert<F: Hop>(skb: Skb, head: Head, ip: &Ip<F>) -> Course {
    let mut ports = Ports::NONE;
    match find_ports::<F>(skb, head, ip, &mut ports) {
        Course::Straight => {}
        other => return other,
    }
    let ends = Ends::new::<F>(ip.src, ip.dst, &ports);
    let course = note(skb, &ends, Word::new(ports.signal).through_stack());
    interface::forwarded(skb, &ends);
    course
}
