// SPDX-License-Identifier: Apache-2.0
//! One session without clock and socket (RFC 5880 §6): time and chance are arguments.
//!
//! What a received state, or silence for the detection time, makes of a session's own state (§6.2):
//!
//! ```text
//!                     ┌──────┐
//!                     │      │ up, admin down, silence
//!                     │      ▼
//!                  ┌──┴─────────┐
//!      ┌───────────┤    Down    ├───────────┐
//!      │ down      └────────────┘      init │
//!      │             ▲        ▲             │
//!      │             │        │             │
//!      │  admin down,│        │admin down,  │
//!      │  silence    │        │down, silence│
//!      ▼             │        │             ▼
//!   ┌────────────────┴─┐    ┌─┴────────────────┐
//!   │       Init       ├───►│        Up        │
//!   └──┬───────────────┘    └─┬────────────────┘
//!      │      ▲    init, up   │      ▲
//!      └──────┘               └──────┘
//!        down                 init, up
//! ```
//!
//! From AdminDown only [`Session::enable`] leads away, to Down; [`Session::disable`] leads there from everywhere.
//!
//! A session asks by poll for the other end's consent to other timers while it is up; in the other states every packet
//! carries the timers in force, and no detection time can be missed by them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::config::{Change, Config, Fate};
use crate::packet::{Diagnostic, Packet, State};

/// The least time between packets of a session that is not up (RFC 5880 §6.8.3).
pub const SLOW: Duration = Duration::from_secs(1);

/// What the other end last said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remote {
    /// 0 while it is not heard.
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    demand: bool,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    multiplier: u8,
    heard: Option<Instant>,
}

/// Nothing was heard (RFC 5880 §6.8.1 gives the values).
const UNHEARD: Remote = Remote {
    discriminator: 0,
    state: State::Down,
    diagnostic: Diagnostic::NONE,
    demand: false,
    desired_min_tx: Duration::ZERO,
    required_min_rx: Duration::from_micros(1),
    multiplier: 0,
    heard: None,
};

/// Whether the other end is being asked to take note of other timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Idle,
    /// Packets carry the poll bit.
    Running,
    /// The timers changed again since: the answer under way is not to the last ones.
    Outdated,
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    /// The other end's C bit while it was up: what it is afterwards is another run's.
    fate: Fate,
    poll: Poll,
    /// The interval to send at, and to expect packets at: those of the configuration, or before the other end has
    /// taken note the safer ones of before (§6.8.3).
    transmit_in_force: Duration,
    receive_in_force: Duration,
    /// When the last periodic packet was sent, and the share of the interval after which the next one follows.
    sent: Option<(Instant, Share)>,
    /// What a packet would say has changed: it is not waited for (§6.8.7).
    urgent: bool,
    /// A poll of the other end is to be answered.
    answer: bool,
}

/// A share of an interval in 1/1024.
#[derive(Debug, Clone, Copy)]
struct Share(u32);

impl Share {
    /// From 75 % on, up to 100 %, or 90 % when one missing packet is enough to be given up (§6.8.7).
    fn of(chance: u32, multiplier: u8) -> Self {
        let most = if multiplier == 1 { 921 } else { 1024 };
        Self(768 + chance % (most - 768 + 1))
    }

    fn take(self, interval: Duration) -> Duration {
        interval * self.0 / 1024
    }
}

impl Session {
    /// A session that is down and has heard nothing. `discriminator` is its name, not shared with any other session.
    pub fn new(config: Config, discriminator: NonZeroU32) -> Self {
        Self {
            config,
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            remote: UNHEARD,
            fate: Fate::Shared,
            poll: Poll::Idle,
            transmit_in_force: config.desired_min_tx().max(SLOW),
            receive_in_force: config.required_min_rx(),
            sent: None,
            urgent: true,
            answer: false,
        }
    }

    /// Takes a packet that is this session's (RFC 5880 §6.8.6, from the point where the session is found).
    pub fn receive(&mut self, packet: &Packet, now: Instant) -> Option<Change> {
        let was_admin_down = self.remote.state == State::AdminDown;
        self.remote = Remote {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            diagnostic: packet.diagnostic,
            demand: packet.demand,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: packet.detect_multiplier.get(),
            heard: self.remote.heard,
        };
        if packet.state == State::Up {
            self.fate = match packet.control_plane_independent {
                true => Fate::Independent,
                false => Fate::Shared,
            };
        }
        if packet.final_answer {
            self.answered();
        }
        if self.state == State::AdminDown {
            return None;
        }
        self.remote.heard = Some(now);
        self.answer |= packet.poll;
        let next = next_state(self.state, packet.state);
        let before = self.state;
        if next != before {
            let diagnostic = match next {
                State::Down => Diagnostic::NEIGHBOUR_SIGNALED_DOWN,
                State::AdminDown | State::Init | State::Up => Diagnostic::NONE,
            };
            self.enter(next, diagnostic);
        }
        if packet.state == State::AdminDown {
            return (!was_admin_down).then_some(Change::AdminDown);
        }
        if next == before {
            return None;
        }
        match next {
            State::Up => Some(Change::Up),
            State::Down if before == State::Up => Some(Change::Down(self.diagnostic)),
            State::Down | State::Init | State::AdminDown => None,
        }
    }

    /// Gives the other end up when nothing was heard for the detection time (§6.8.4).
    pub fn tick(&mut self, now: Instant) -> Option<Change> {
        if self.silent_at().is_none_or(|at| now < at) {
            return None;
        }
        let before = self.state;
        self.remote = UNHEARD;
        match before {
            State::Init | State::Up => self.enter(State::Down, Diagnostic::DETECTION_TIME_EXPIRED),
            State::AdminDown | State::Down => {}
        }
        (before == State::Up).then_some(Change::Down(Diagnostic::DETECTION_TIME_EXPIRED))
    }

    /// The packet to send at `now`; to be called until there is none. `chance` is any number, another one each time.
    pub fn transmit(&mut self, now: Instant, chance: u32) -> Option<Packet> {
        if self.answer {
            // Out of turn, and with all that an urgent packet would say.
            self.answer = false;
            self.urgent = false;
            return Some(Packet { final_answer: true, ..self.packet() });
        }
        if !self.urgent && self.due().is_none_or(|at| now < at) {
            return None;
        }
        self.urgent = false;
        self.sent = Some((now, Share::of(chance, self.config.multiplier().get())));
        Some(Packet { poll: self.poll != Poll::Idle, ..self.packet() })
    }

    /// When [`Session::tick`] or [`Session::transmit`] has something to do next; at once when it is not later than now.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.answer || self.urgent {
            return Some(now);
        }
        [self.due(), self.silent_at()].into_iter().flatten().min()
    }

    /// Takes other wishes; the other end is asked to take note of them.
    pub fn configure(&mut self, config: Config) {
        if config == self.config {
            return;
        }
        self.config = config;
        self.urgent = true;
        if self.state == State::Up {
            self.ask();
        } else {
            self.transmit_in_force = self.desired_min_tx();
            self.receive_in_force = config.required_min_rx();
        }
    }

    /// Holds the session down (§6.8.16); the other end is told once at least.
    pub fn disable(&mut self) {
        self.enter(State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN);
    }

    /// Lets a session that was held down begin again.
    pub fn enable(&mut self) {
        if self.state == State::AdminDown {
            self.remote = UNHEARD;
            self.enter(State::Down, self.diagnostic);
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is in this state.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Its name in our packets.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// What the other end says of itself: its name (0 when it is not heard), its state, its diagnostic.
    pub fn remote(&self) -> (u32, State, Diagnostic) {
        (self.remote.discriminator, self.remote.state, self.remote.diagnostic)
    }

    /// Whether the other end's BFD fails with its control plane, as it said when it was last up (RFC 5880 §4.1).
    pub fn remote_fate(&self) -> Fate {
        self.fate
    }

    /// Time between packets sent, before jitter; none when nothing is sent periodically (§6.8.7).
    pub fn transmit_interval(&self) -> Option<Duration> {
        let demanded = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::Idle;
        let quiet = self.remote.required_min_rx.is_zero() || demanded;
        (!quiet).then(|| self.transmit_in_force.max(self.remote.required_min_rx))
    }

    /// Time without packets after which the other end is given up (§6.8.4); none while it is not heard.
    pub fn detection_time(&self) -> Option<Duration> {
        self.remote.heard?;
        let interval = self.receive_in_force.max(self.remote.desired_min_tx);
        Some(interval * u32::from(self.remote.multiplier))
    }

    /// Time after which the other end has given this session up when it hears nothing more.
    pub fn given_up_after(&self) -> Duration {
        let interval = self.config.desired_min_tx().max(self.remote.required_min_rx);
        interval * u32::from(self.config.multiplier().get())
    }

    fn due(&self) -> Option<Instant> {
        let interval = self.transmit_interval()?;
        self.sent.map(|(at, share)| at + share.take(interval))
    }

    fn silent_at(&self) -> Option<Instant> {
        Some(self.remote.heard? + self.detection_time()?)
    }

    /// The interval that packets ask for (§6.8.3).
    fn desired_min_tx(&self) -> Duration {
        match self.state {
            State::Up => self.config.desired_min_tx(),
            State::AdminDown | State::Down | State::Init => self.config.desired_min_tx().max(SLOW),
        }
    }

    fn enter(&mut self, state: State, diagnostic: Diagnostic) {
        self.state = state;
        self.diagnostic = diagnostic;
        self.urgent = true;
        self.poll = Poll::Idle;
        self.transmit_in_force = self.desired_min_tx();
        self.receive_in_force = self.config.required_min_rx();
        if state == State::Up && self.config.desired_min_tx() < SLOW {
            self.ask();
        }
    }

    /// Begins to ask the other end to take note of the configured timers. Until it has, packets go no slower than
    /// before and are expected no sooner.
    fn ask(&mut self) {
        self.poll = match self.poll {
            Poll::Idle => Poll::Running,
            Poll::Running | Poll::Outdated => Poll::Outdated,
        };
        self.transmit_in_force = self.transmit_in_force.min(self.desired_min_tx());
        self.receive_in_force = self.receive_in_force.max(self.config.required_min_rx());
    }

    fn answered(&mut self) {
        match self.poll {
            Poll::Idle => {}
            Poll::Running => {
                self.poll = Poll::Idle;
                self.transmit_in_force = self.desired_min_tx();
                self.receive_in_force = self.config.required_min_rx();
            }
            Poll::Outdated => {
                self.poll = Poll::Running;
                self.urgent = true;
            }
        }
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            final_answer: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.config.multiplier(),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx(),
            required_min_rx: self.config.required_min_rx(),
            required_min_echo_rx: Duration::ZERO,
        }
    }
}

/// The picture above, for a received state.
fn next_state(own: State, received: State) -> State {
    match (own, received) {
        (State::AdminDown, _) => State::AdminDown,
        (_, State::AdminDown) => State::Down,
        (State::Down, State::Down) => State::Init,
        (State::Down | State::Init, State::Init) | (State::Init, State::Up) => State::Up,
        (State::Down, State::Up) => State::Down,
        (State::Init, State::Down) => State::Init,
        (State::Up, State::Down) => State::Down,
        (State::Up, State::Init | State::Up) => State::Up,
    }
}

#[cfg(test)]
mod tests;
