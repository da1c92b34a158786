// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is remembered of a flow, and for how long.
//!
//! ```text
//!  TCP, SCTP   OPENING ──► ANSWERED ──► ESTABLISHED ──► HALF_CLOSED_* ──► CLOSED
//!              first packet in the middle: PICKED_UP ──► ESTABLISHED when the other side answers
//!              any ──► RESET_*: CLOSED at once, unless the side that reset speaks on
//!  others      UNREPLIED ──► REPLIED ──► STREAM
//! ```
//! Time is counted in ticks of 2^30 ns, 7 % more than a second, and a lifetime is moved when a sixteenth of it has
//! passed: an idle flow is remembered for at least as many seconds as its lifetime has ticks.

use core::cmp::Ordering;

use crate::layout::{Address, Ct, CtKey, EarlierCt, Sent};
use crate::transport::{SCTP, TCP};
use crate::{Family, Ports, V4, V6};

/// A tick is this power of two in nanoseconds of the monotonic clock.
pub const TICK_SHIFT: u32 = 30;
/// A moment is no longer than this, in nanoseconds, unless a tick of the kernel is: for so long a flow's packets take the
/// way that the first of them was shown.
pub const MOMENT: u64 = 1 << 23;

/// What a packet says of its flow.
///
/// A number and no enum: programs look it up in a table, of which the verifier follows one way and not each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Signal(u8);

impl Signal {
    /// The signal with this number.
    #[inline(always)]
    pub const fn of_number(number: u8) -> Self {
        Self(number & 7)
    }

    /// The number of the signal.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Nothing in particular.
    pub const DATA: Self = Self(0);
    /// The sender opens the flow.
    pub const OPEN: Self = Self(1);
    /// The sender was asked, and answers.
    pub const OPEN_ACK: Self = Self(2);
    /// The sender has nothing more to say.
    pub const CLOSE: Self = Self(3);
    /// There is no such flow any more.
    pub const ABORT: Self = Self(4);

    /// Reads the flags of a TCP header (RFC 9293).
    #[inline(always)]
    pub fn of_tcp(flags: u8) -> Self {
        static SIGNALS: [Signal; 32] = {
            let mut signals = [Signal::DATA; 32];
            let mut flags = 0;
            while flags < 32 {
                signals[flags as usize] = tcp(flags);
                flags += 1;
            }
            signals
        };
        SIGNALS[usize::from(flags & 31)]
    }

    /// Reads the type of the first chunk of an SCTP packet (RFC 9260).
    #[inline(always)]
    pub fn of_sctp(chunk: u8) -> Self {
        static SIGNALS: [Signal; 16] = {
            let mut signals = [Signal::DATA; 16];
            signals[1] = Signal::OPEN;
            signals[2] = Signal::OPEN_ACK;
            signals[6] = Signal::ABORT;
            (signals[7], signals[8], signals[14]) = (Signal::CLOSE, Signal::CLOSE, Signal::CLOSE);
            signals
        };
        if chunk > 15 { Self::DATA } else { SIGNALS[usize::from(chunk & 15)] }
    }
}

const fn tcp(flags: u8) -> Signal {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    if flags & RST != 0 {
        Signal::ABORT
    } else if flags & SYN != 0 {
        if flags & ACK != 0 { Signal::OPEN_ACK } else { Signal::OPEN }
    } else if flags & FIN != 0 {
        Signal::CLOSE
    } else {
        Signal::DATA
    }
}

/// States of a flow; one byte of [`Ct`].
pub mod state {
    /// TCP and SCTP: the opener asked.
    pub const OPENING: u8 = 1;
    /// TCP and SCTP: the other side answered.
    pub const ANSWERED: u8 = 2;
    /// TCP and SCTP: seen in the middle, from one side.
    pub const PICKED_UP: u8 = 3;
    /// TCP and SCTP: both sides spoke.
    pub const ESTABLISHED: u8 = 4;
    /// TCP and SCTP: the opener has nothing more to say.
    pub const HALF_CLOSED_BY_OPENER: u8 = 5;
    /// TCP and SCTP: the other side has nothing more to say.
    pub const HALF_CLOSED_BY_REPLIER: u8 = 6;
    /// TCP and SCTP: neither has.
    pub const CLOSED: u8 = 7;
    /// TCP and SCTP: the opener aborted.
    pub const RESET_BY_OPENER: u8 = 8;
    /// TCP and SCTP: the other side aborted.
    pub const RESET_BY_REPLIER: u8 = 9;
    /// Other protocols: no answer yet.
    pub const UNREPLIED: u8 = 10;
    /// Other protocols: one question, one answer.
    pub const REPLIED: u8 = 11;
    /// Other protocols: more than one question and answer.
    pub const STREAM: u8 = 12;

    /// The bit that the numbers of those states have which packets that say nothing in particular leave as they are.
    pub const SETTLED: u8 = 4;

    /// Name for people.
    pub const fn text(state: u8) -> &'static str {
        match state {
            OPENING => "opening",
            ANSWERED => "answered",
            PICKED_UP => "picked-up",
            ESTABLISHED => "established",
            HALF_CLOSED_BY_OPENER | HALF_CLOSED_BY_REPLIER => "half-closed",
            CLOSED => "closed",
            RESET_BY_OPENER | RESET_BY_REPLIER => "reset",
            UNREPLIED => "unreplied",
            REPLIED => "replied",
            STREAM => "stream",
            _ => "unknown",
        }
    }
}

use state::{
    ANSWERED, CLOSED, ESTABLISHED, HALF_CLOSED_BY_OPENER, HALF_CLOSED_BY_REPLIER, OPENING, PICKED_UP,
    REPLIED, RESET_BY_OPENER, RESET_BY_REPLIER, STREAM, UNREPLIED,
};

/// Which side of a flow a packet is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum From {
    /// The one that sent the first packet.
    Opener = 0,
    /// The other.
    Replier = 1,
}

/// How many ticks a flow without packets is remembered.
///
/// Established TCP: 8,000 (RFC 5382 asks for 7,440 s). Half closed: 240 (RFC 5382: 4 minutes; one side may go on for
/// long). A stream of UDP: 120 (RFC 4787), while one question with one answer, which is what DNS is, gives its
/// place and port back after 60, as does an ICMP echo (RFC 5508).
#[inline(always)]
pub fn lifetime(state: u8) -> u32 {
    static LIFETIMES: [u16; 16] = {
        let mut lifetimes = [60; 16];
        lifetimes[ESTABLISHED as usize] = 8_000;
        lifetimes[HALF_CLOSED_BY_OPENER as usize] = 240;
        lifetimes[HALF_CLOSED_BY_REPLIER as usize] = 240;
        lifetimes[CLOSED as usize] = 10;
        lifetimes[RESET_BY_OPENER as usize] = 10;
        lifetimes[RESET_BY_REPLIER as usize] = 10;
        lifetimes[STREAM as usize] = 120;
        lifetimes
    };
    u32::from(LIFETIMES[usize::from(state & 15)])
}

/// The state after a packet; nothing when the packet begins another flow under the same key.
#[inline(always)]
pub fn step(state: u8, from: From, signal: Signal) -> Option<u8> {
    /// By signal, side and state; 0 is another flow. Each is an index of its own: of several numbers in one, older
    /// verifiers forget the bounds (6.1: "math between map_value pointer and register with unbounded min value").
    static STEPS: [[[u8; 16]; 2]; 8] = {
        let mut steps = [[[0; 16]; 2]; 8];
        let mut at = 0u8;
        loop {
            let state = next(at & 15, at & 16 == 0, Signal(at >> 5));
            steps[(at >> 5) as usize][(at as usize >> 4) & 1][at as usize & 15] = state;
            if at == 255 {
                break steps;
            }
            at += 1;
        }
    };
    let next = STEPS[usize::from(signal.0 & 7)][from as usize & 1][usize::from(state & 15)];
    if next == 0 { None } else { Some(next) }
}

const fn next(state: u8, opener: bool, signal: Signal) -> u8 {
    match signal {
        Signal::DATA => match (state, opener) {
            (OPENING | ANSWERED, true) | (PICKED_UP, false) => ESTABLISHED,
            (OPENING, false) | (RESET_BY_OPENER, true) | (RESET_BY_REPLIER, false) => PICKED_UP,
            (UNREPLIED, false) => REPLIED,
            (REPLIED, true) => STREAM,
            _ => state,
        },
        Signal::OPEN => match (state, opener) {
            (CLOSED | RESET_BY_OPENER | RESET_BY_REPLIER | PICKED_UP, _)
            | (HALF_CLOSED_BY_OPENER, true)
            | (HALF_CLOSED_BY_REPLIER, false) => 0,
            _ => state,
        },
        Signal::OPEN_ACK => match (state, opener) {
            (OPENING, false) => ANSWERED,
            (UNREPLIED, false) => REPLIED,
            _ => state,
        },
        Signal::CLOSE => match (state, opener) {
            (OPENING | ANSWERED | PICKED_UP | ESTABLISHED, true) => HALF_CLOSED_BY_OPENER,
            (OPENING | ANSWERED | PICKED_UP | ESTABLISHED, false) => HALF_CLOSED_BY_REPLIER,
            (HALF_CLOSED_BY_OPENER, false) | (HALF_CLOSED_BY_REPLIER, true) => CLOSED,
            _ => state,
        },
        Signal::ABORT => match (state, opener) {
            (CLOSED, _) => CLOSED,
            (_, true) => RESET_BY_OPENER,
            (_, false) => RESET_BY_REPLIER,
        },
        _ => state,
    }
}

/// The state after the first packet, and which side it is from.
#[inline(always)]
pub fn first(protocol: u8, signal: Signal) -> (u8, From) {
    /// By signal.
    static FIRST: [u8; 8] = [PICKED_UP, OPENING, ANSWERED, HALF_CLOSED_BY_OPENER, RESET_BY_OPENER, 0, 0, 0];
    let from = if signal.0 == Signal::OPEN_ACK.0 { From::Replier } else { From::Opener };
    if protocol == TCP || protocol == SCTP {
        (FIRST[usize::from(signal.0 & 7)], from)
    } else if matches!(from, From::Replier) {
        (REPLIED, from)
    } else {
        (UNREPLIED, from)
    }
}

/// The side of a flow that its key has first, or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The one with the lower address.
    Low = 0,
    /// The other.
    High = 1,
}

impl Side {
    /// The flag by which packets of this side go through the host stack.
    #[inline(always)]
    pub const fn stack(self) -> u8 {
        Ct::STACK_LOW << self as u8
    }

    /// The side that is not this one.
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Who sends a packet to whom, in the order of the packet; without implicit padding, see [`Ports`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Ends {
    /// Sender.
    pub src: Address,
    /// Receiver.
    pub dst: Address,
    /// Sender's port in wire order; the identifier of an ICMP echo.
    pub src_port: [u8; 2],
    /// Receiver's port in wire order; the identifier of an ICMP echo.
    pub dst_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

const _: () = assert!(size_of::<Ends>() == 40);

impl Ends {
    /// Of a packet with these ports.
    #[inline(always)]
    pub fn new<F: Family>(src: F::Addr, dst: F::Addr, ports: &Ports) -> Self {
        Self {
            src: F::key(src),
            dst: F::key(dst),
            src_port: ports.src,
            dst_port: ports.dst,
            protocol: ports.protocol,
            padding: [0; 3],
        }
    }

    /// The key of the packet's flow, and which side sent it: [`CtKey::new`] for whoever has the ends in memory.
    #[inline(always)]
    pub fn key(&self) -> (CtKey, Side) {
        let low = match V6::order(self.src, self.dst) {
            Ordering::Less => true,
            Ordering::Equal => u16::from_be_bytes(self.src_port) <= u16::from_be_bytes(self.dst_port),
            Ordering::Greater => false,
        };
        // By reference: the values of both sides would not fit the registers of a program.
        let (side, low, high, low_port, high_port) = if low {
            (Side::Low, &self.src, &self.dst, &self.src_port, &self.dst_port)
        } else {
            (Side::High, &self.dst, &self.src, &self.dst_port, &self.src_port)
        };
        let (low_port, high_port) = (*low_port, *high_port);
        (
            CtKey { low: *low, high: *high, low_port, high_port, protocol: self.protocol, padding: [0; 3] },
            side,
        )
    }
}

impl CtKey {
    /// The key of the flow of a packet, and which side sent it.
    #[inline(always)]
    pub fn new<F: Family>(src: F::Addr, dst: F::Addr, ports: &Ports) -> (Self, Side) {
        Self::between::<F>(ports.protocol, (src, ports.src), (dst, ports.dst))
    }

    /// The key of the flow between two sides, and which side the first one is.
    #[inline(always)]
    pub fn between<F: Family>(
        protocol: u8,
        one: (F::Addr, [u8; 2]),
        other: (F::Addr, [u8; 2]),
    ) -> (Self, Side) {
        let low = match F::order(one.0, other.0) {
            Ordering::Less => true,
            Ordering::Equal => u16::from_be_bytes(one.1) <= u16::from_be_bytes(other.1),
            Ordering::Greater => false,
        };
        let padding = [0; 3];
        if low {
            let (low, high) = (F::key(one.0), F::key(other.0));
            (Self { low, high, low_port: one.1, high_port: other.1, protocol, padding }, Side::Low)
        } else {
            let (low, high) = (F::key(other.0), F::key(one.0));
            (Self { low, high, low_port: other.1, high_port: one.1, protocol, padding }, Side::High)
        }
    }
}

impl CtKey {
    /// The key of the flow between two sides, each an address and a port, and which side the first one is.
    pub fn of_sides(one: (Address, [u8; 2]), other: (Address, [u8; 2]), protocol: u8) -> (Self, Side) {
        if V4::is_key(&one.0) && V4::is_key(&other.0) {
            let of = |side: (Address, [u8; 2])| (V4::unkey(&side.0), side.1);
            Self::between::<V4>(protocol, of(one), of(other))
        } else {
            Self::between::<V6>(protocol, one, other)
        }
    }

    /// Address and port of a side.
    pub const fn side(&self, side: Side) -> (Address, [u8; 2]) {
        match side {
            Side::Low => (self.low, self.low_port),
            Side::High => (self.high, self.high_port),
        }
    }
}

impl Ct {
    /// The side that sent the first packet.
    pub const fn opener(&self) -> Side {
        if self.flags & Self::OPENER_HIGH != 0 { Side::High } else { Side::Low }
    }

    /// A flow after its first packet.
    #[inline(always)]
    pub fn first(protocol: u8, side: Side, signal: Signal, now: u32) -> Self {
        let (state, from) = first(protocol, signal);
        let opener = if matches!(from, From::Opener) { side } else { side.other() };
        let flags = if matches!(opener, Side::High) { Self::OPENER_HIGH } else { 0 };
        let (expires, refresh) = times(state, now);
        Self { expires, refresh, state, flags, created: now, ..Self::default() }
    }

    /// A flow of which the first packet seen answers `opener`: seen in the middle, then answered.
    ///
    /// By a table of its own and not by [`Ct::note`]: of an index made of a known state and an unknown signal, older
    /// verifiers forget the bounds (6.1: "R4 unbounded memory access").
    #[inline(always)]
    pub fn answered(protocol: u8, opener: Side, signal: Signal, now: u32) -> Self {
        static PICKED: [u8; 8] = after_answer(PICKED_UP);
        static OTHERS: [u8; 8] = after_answer(UNREPLIED);
        let table = if protocol == TCP || protocol == SCTP { &PICKED } else { &OTHERS };
        let state = table[usize::from(signal.0 & 7)];
        let flags = if matches!(opener, Side::High) { Self::OPENER_HIGH } else { 0 };
        let (expires, refresh) = times(state, now);
        Self { expires, refresh, state, flags, created: now, ..Self::default() }
    }

    /// Which side of the flow a packet from `side` of the key is from.
    #[inline(always)]
    pub const fn from(&self, side: Side) -> From {
        if (self.flags ^ side as u8) & Self::OPENER_HIGH == 0 { From::Opener } else { From::Replier }
    }

    /// Whether packets from `side` go another way than straight on, or as somebody else.
    #[inline(always)]
    pub const fn is_diverted(&self, side: Side) -> bool {
        let answer = self.has(Self::HOST_PORT) && matches!(self.from(side), From::Replier);
        answer || self.has(side.stack())
    }

    /// Lets packets from `side` go through the host stack.
    #[inline(always)]
    pub const fn divert(&mut self, side: Side) {
        if !self.has(side.stack()) {
            self.flags |= side.stack();
        }
    }

    /// Remembers by which address and port the other side knows the pod: `flag` says how that came.
    #[inline(always)]
    pub fn translate(&mut self, flag: u8, addr: Address, port: [u8; 2]) {
        if !self.has(flag) || self.nat_port != port || !crate::layout::same(&self.nat_addr, &addr) {
            self.nat_addr = addr;
            self.nat_port = port;
            self.flags |= flag;
        }
    }

    /// Whether nothing of it is to be believed any more.
    #[inline(always)]
    pub const fn is_expired(&self, now: u32) -> bool {
        self.expires <= now
    }

    /// What a side sends.
    #[inline(always)]
    pub const fn sent(&self, side: Side) -> &Sent {
        match side {
            Side::Low => &self.low,
            Side::High => &self.high,
        }
    }

    /// As [`Ct::sent`].
    #[inline(always)]
    pub const fn sent_mut(&mut self, side: Side) -> &mut Sent {
        match side {
            Side::Low => &mut self.low,
            Side::High => &mut self.high,
        }
    }

    /// Counts a packet of a side.
    #[inline(always)]
    pub const fn count(&mut self, side: Side, bytes: u32) {
        self.sent_mut(side).count(bytes);
    }

    /// Whether a packet leaves the state what it is, whichever side it is from.
    #[inline(always)]
    pub const fn is_left_by(&self, signal: Signal) -> bool {
        signal.0 == Signal::DATA.0 && self.state & state::SETTLED != 0
    }

    /// Takes note of a packet, writing only what changes; false when it begins another flow.
    #[inline(always)]
    pub fn note(&mut self, from: From, signal: Signal, now: u32) -> bool {
        let Some(state) = step(self.state, from, signal) else { return false };
        if state != self.state || now >= self.refresh {
            (self.expires, self.refresh) = times(state, now);
            self.state = state;
        }
        true
    }
}

impl Sent {
    /// Counts a packet.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u32) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }
}

impl EarlierCt {
    /// The same flow in the words of this version.
    pub fn carried(&self) -> Ct {
        let Self { expires, refresh, state, flags, nat_port, nat_addr, uplink, .. } = *self;
        let Self { identity, policy, service, created, packets, bytes, .. } = *self;
        let (first, second) = if flags & Ct::OPENER_HIGH == 0 { (0, 1) } else { (1, 0) };
        let sent = |from: usize| Sent { packets: packets[from], bytes: bytes[from], ..Sent::default() };
        Ct {
            expires,
            refresh,
            state,
            flags,
            nat_port,
            nat_addr,
            uplink,
            identity,
            policy,
            low: sent(first),
            service,
            created,
            high: sent(second),
            reserved: [0; 8],
        }
    }
}

/// By signal, the state after an answer to the first packet, which led to `state`.
const fn after_answer(state: u8) -> [u8; 8] {
    let mut states = [state; 8];
    let mut signal = 0;
    while signal < 8 {
        // What begins another flow is not an answer, and the opener will say so.
        let after = next(state, false, Signal(signal));
        if after != 0 {
            states[signal as usize] = after;
        }
        signal += 1;
    }
    states
}

/// When a flow that is in `state` now is forgotten, and from when on a packet moves that.
#[inline(always)]
pub fn times(state: u8, now: u32) -> (u32, u32) {
    let lifetime = lifetime(state);
    (now + lifetime, now + (lifetime >> 4))
}

#[cfg(test)]
mod tests;
