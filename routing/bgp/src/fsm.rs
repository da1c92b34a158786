// SPDX-License-Identifier: Apache-2.0
//! The state machine of a session (RFC 4271 §8), without clock and without socket.
//!
//! ```text
//!            start, passive                     ┌───────── own connection fails ──────────┐
//!      ┌───────────────────────────┐            │                                         │
//!      │                           ▼            ▼                                         │
//!   ┌──────┐      start      ┌─────────┐ retry ┌────────┐                                 │
//!   │ Idle │ ──────────────► │ Connect │ ◄──── │ Active │ ◄────── connection fails ───┐   │
//!   └──────┘                 └─────────┘ ────► └────────┘                             │   │
//!      ▲                        │     connect fails │                                 │   │
//!      │                        └───┬───────────────┘                                 │   │
//!      │                            │ connected (after DelayOpen): OPEN               │   │
//!      │                            ▼                                                 │   │
//!      │ any error,           ┌──────────┐ ───────────────────────────────────────────┘   │
//!      │ stop, or             │ OpenSent │                                                │
//!      │ NOTIFICATION         └──────────┘                                                │
//!      │                            │ OPEN of the peer: KEEPALIVE                         │
//!      │                            ▼                                                     │
//!      │                    ┌─────────────┐                                               │
//!      ├─────────────────── │ OpenConfirm │                                               │
//!      │                    └─────────────┘                                               │
//!      │                            │ KEEPALIVE of the peer                               │
//!      │                            ▼                                                     │
//!      │                    ┌─────────────┐                                               │
//!      └─────────────────── │ Established │ ── restart of the peer seen by its new ───────┘
//!                           └─────────────┘    connection (RFC 4724 §5): see `pair`
//! ```
//!
//! Three things differ from the letter of RFC 4271. As in every other speaker, a connection that cannot be made leads
//! to Active and not to Idle, so that the peer's own attempt is heard; and the peer's NOTIFICATION in OpenSent ends the
//! connection without one of ours. And one that tells of a collision leads to Active as well.

mod event;
mod pair;
mod timers;

use std::time::{Duration, Instant};

pub use event::{Action, Cause, Event, State};

pub use pair::{Identity, Incoming, Lane, Pair, Replaces};
pub use timers::Timers;

use crate::wire::{Cease, Notification};
use timers::Jitter;

/// How long the peer's OPEN is waited for (RFC 4271 §8.2.2: "4 minutes").
const OPEN_WAIT: Duration = Duration::from_secs(240);
/// A session that held this long is a stable one: the next failure waits for nothing.
const STABLE: Duration = Duration::from_secs(60);
/// The first wait of the two back-offs.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The session attributes of RFC 4271 §8 that are settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// ConnectRetryTime: the longest wait between two attempts. The first are closer: 1, 2, 4 … seconds.
    pub connect_retry: Duration,
    /// KeepaliveTime; `None`, or more than that: a third of the negotiated hold time.
    pub keepalive: Option<Duration>,
    /// DelayOpenTime; `None`: DelayOpen is off.
    pub delay_open: Option<Duration>,
    /// PassiveTcpEstablishment: never connects.
    pub passive: bool,
    /// DampPeerOscillations: the longest wait in Idle after an error; `None`: stays there until started.
    pub idle_hold: Option<Duration>,
    /// Decides the jitter of all timers.
    pub seed: u64,
}

/// One connection's state machine.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
    timers: Timers,
    /// A connection is there, though perhaps nothing was sent on it (DelayOpen).
    connected: bool,
    /// ConnectRetryCounter.
    connect_retries: u32,
    /// Failures in a row since the last stable session.
    oscillations: u32,
    hold_time: Duration,
    established: Option<Instant>,
    jitter: Jitter,
}

impl Machine {
    /// A machine in Idle.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let jitter = Jitter::new(settings.seed);
        Machine {
            settings,
            state: State::Idle,
            timers: Timers::default(),
            connected: false,
            connect_retries: 0,
            oscillations: 0,
            hold_time: Duration::ZERO,
            established: None,
            jitter,
        }
    }

    /// A machine for a connection of the peer's: it waits in Active and never connects.
    fn listening(&self) -> Self {
        let settings = Settings { passive: true, idle_hold: None, ..self.settings.clone() };
        Machine { state: State::Active, ..Machine::new(settings) }
    }

    /// Takes the place of another machine in the middle of its session, with the own settings and counters.
    fn adopt(&mut self, other: Machine) {
        let Machine { state, timers, connected, hold_time, established, .. } = other;
        *self = Machine { state, timers, connected, hold_time, established, ..self.clone() };
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The timers that run.
    #[must_use]
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Whether it has a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether its session has begun within the time that two connections of one peer wait for each other.
    fn is_young(&self, now: Instant) -> bool {
        self.established.is_some_and(|since| now.saturating_duration_since(since) < pair::PATIENCE)
    }

    /// ConnectRetryCounter (RFC 4271 §8): failures since the peer was started.
    #[must_use]
    pub fn connect_retries(&self) -> u32 {
        self.connect_retries
    }

    /// The event of a timer that has run out, which is stopped by that. The caller steps with it, and asks again.
    pub fn expire(&mut self, now: Instant) -> Option<Event> {
        self.timers.expire(now)
    }

    /// Something was heard that no event tells of: the peer is alive.
    pub fn heard(&mut self, now: Instant) {
        if self.timers.hold.is_some() && self.hold_time > Duration::ZERO {
            self.timers.hold = Some(now + self.hold_time);
        }
    }

    /// Takes one event and says what is to be done for it.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.state {
            State::Idle => self.idle(event, now, &mut actions),
            State::Connect | State::Active => self.without_open(event, now, &mut actions),
            State::OpenSent => self.open_sent(event, now, &mut actions),
            State::OpenConfirm => self.open_confirm(event, now, &mut actions),
            State::Established => self.established(event, now, &mut actions),
        }
        actions
    }

    fn idle(&mut self, event: Event, now: Instant, out: &mut Vec<Action>) {
        match event {
            Event::ManualStart => {
                self.oscillations = 0;
                self.connect_retries = 0;
                self.start(now, out);
            }
            Event::AutomaticStart | Event::IdleHoldTimerExpires => self.start(now, out),
            Event::ManualStop(_) => {
                self.timers = Timers::default();
                self.connect_retries = 0;
                self.oscillations = 0;
            }
            Event::AutomaticStop(_, wait) => self.wait_in_idle(Some(wait), now),
            Event::ConnectRetryTimerExpires
            | Event::HoldTimerExpires
            | Event::KeepaliveTimerExpires
            | Event::DelayOpenTimerExpires
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid
            | Event::TcpConnectionAcked
            | Event::TcpConnectionConfirmed
            | Event::TcpConnectionFails
            | Event::Open { .. }
            | Event::HeaderError(_)
            | Event::OpenError(_)
            | Event::OpenCollisionDump
            | Event::NotificationVersionError(_)
            | Event::Notification(_)
            | Event::Keepalive
            | Event::Update
            | Event::UpdateError(_)
            | Event::RouteRefresh => {}
        }
    }

    /// Connect and Active differ in nothing but whether an attempt is on its way.
    fn without_open(&mut self, event: Event, now: Instant, out: &mut Vec<Action>) {
        match event {
            Event::ManualStart
            | Event::AutomaticStart
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid => {}
            Event::ManualStop(_) => self.stop(out),
            Event::AutomaticStop(_, wait) => {
                self.release(out);
                self.count();
                self.wait_in_idle(Some(wait), now);
            }
            Event::ConnectRetryTimerExpires => {
                self.release(out);
                self.connect(now, out);
            }
            Event::DelayOpenTimerExpires if self.connected => self.send_open(now, out),
            Event::TcpConnectionAcked | Event::TcpConnectionConfirmed => self.connection_made(now, out),
            Event::TcpConnectionFails => {
                self.release(out);
                self.count();
                self.await_connection(now);
            }
            Event::Open { hold_time } if self.timers.delay_open.is_some() => {
                out.push(Action::SendOpen);
                self.confirm(hold_time, now, out);
            }
            Event::HeaderError(text) | Event::OpenError(text) => self.refuse(text, now, out),
            Event::NotificationVersionError(_) if self.timers.delay_open.is_some() => {
                self.release(out);
                self.wait_in_idle(None, now);
            }
            Event::DelayOpenTimerExpires
            | Event::HoldTimerExpires
            | Event::KeepaliveTimerExpires
            | Event::IdleHoldTimerExpires
            | Event::Open { .. }
            | Event::OpenCollisionDump
            | Event::NotificationVersionError(_)
            | Event::Notification(_)
            | Event::Keepalive
            | Event::Update
            | Event::UpdateError(_)
            | Event::RouteRefresh => self.fail(now, out),
        }
    }

    fn open_sent(&mut self, event: Event, now: Instant, out: &mut Vec<Action>) {
        let kind = event.message_type();
        match event {
            Event::ManualStart
            | Event::AutomaticStart
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid
            | Event::TcpConnectionAcked
            | Event::TcpConnectionConfirmed => {}
            Event::ManualStop(text) => {
                out.push(Action::SendNotification(text));
                self.stop(out);
            }
            Event::AutomaticStop(text, wait) => self.pause(text, wait, now, out),
            Event::HoldTimerExpires => self.refuse(Notification::hold_timer_expired(), now, out),
            Event::TcpConnectionFails => {
                self.release(out);
                self.count();
                self.await_connection(now);
            }
            Event::Open { hold_time } => self.confirm(hold_time, now, out),
            Event::HeaderError(text) | Event::OpenError(text) => self.refuse(text, now, out),
            Event::OpenCollisionDump => {
                self.refuse(Notification::cease(Cease::ConnectionCollision), now, out)
            }
            Event::NotificationVersionError(_) => {
                self.release(out);
                self.wait_in_idle(None, now);
            }
            Event::Notification(text) => self.denied(&text, now, out),
            Event::Keepalive | Event::Update | Event::UpdateError(_) | Event::RouteRefresh => {
                self.refuse(Notification::unexpected_in_open_sent(kind), now, out);
            }
            Event::ConnectRetryTimerExpires
            | Event::KeepaliveTimerExpires
            | Event::DelayOpenTimerExpires
            | Event::IdleHoldTimerExpires => self.refuse(unexpected_event(), now, out),
        }
    }

    fn open_confirm(&mut self, event: Event, now: Instant, out: &mut Vec<Action>) {
        let kind = event.message_type();
        match event {
            Event::ManualStart
            | Event::AutomaticStart
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid
            | Event::TcpConnectionAcked
            | Event::TcpConnectionConfirmed => {}
            Event::ManualStop(text) => {
                out.push(Action::SendNotification(text));
                self.stop(out);
            }
            Event::AutomaticStop(text, wait) => self.pause(text, wait, now, out),
            Event::HoldTimerExpires => self.refuse(Notification::hold_timer_expired(), now, out),
            Event::KeepaliveTimerExpires => self.keep_alive(now, out),
            Event::TcpConnectionFails => self.fail(now, out),
            Event::Notification(text) => self.denied(&text, now, out),
            Event::HeaderError(text) | Event::OpenError(text) => self.refuse(text, now, out),
            Event::OpenCollisionDump => {
                self.refuse(Notification::cease(Cease::ConnectionCollision), now, out)
            }
            Event::NotificationVersionError(_) => {
                self.release(out);
                self.wait_in_idle(None, now);
            }
            Event::Keepalive => {
                self.state = State::Established;
                self.established = Some(now);
                self.heard(now);
                out.push(Action::Up);
            }
            Event::Open { .. } | Event::Update | Event::UpdateError(_) | Event::RouteRefresh => {
                self.refuse(Notification::unexpected_in_open_confirm(kind), now, out);
            }
            Event::ConnectRetryTimerExpires | Event::DelayOpenTimerExpires | Event::IdleHoldTimerExpires => {
                self.refuse(unexpected_event(), now, out);
            }
        }
    }

    fn established(&mut self, event: Event, now: Instant, out: &mut Vec<Action>) {
        let kind = event.message_type();
        match event {
            Event::ManualStart
            | Event::AutomaticStart
            | Event::TcpConnectionValid
            | Event::TcpConnectionInvalid
            | Event::TcpConnectionAcked
            | Event::TcpConnectionConfirmed => {}
            Event::ManualStop(text) => {
                out.push(Action::SendNotification(text.clone()));
                self.down(Cause::Sent(text), now, out);
                self.stop(out);
            }
            Event::AutomaticStop(text, wait) => {
                self.down(Cause::Sent(text.clone()), now, out);
                self.pause(text, wait, now, out);
            }
            Event::HoldTimerExpires => {
                self.down(Cause::HoldTimerExpired, now, out);
                self.refuse(Notification::hold_timer_expired(), now, out);
            }
            Event::KeepaliveTimerExpires => self.keep_alive(now, out),
            Event::TcpConnectionFails => {
                self.down(Cause::ConnectionFailed, now, out);
                self.fail(now, out);
            }
            Event::NotificationVersionError(text) | Event::Notification(text) => {
                self.down(Cause::Received(text), now, out);
                self.fail(now, out);
            }
            Event::OpenCollisionDump => {
                self.down(Cause::Collision, now, out);
                self.refuse(Notification::cease(Cease::ConnectionCollision), now, out);
            }
            Event::Keepalive | Event::Update | Event::RouteRefresh => self.heard(now),
            Event::HeaderError(text) | Event::UpdateError(text) => {
                self.down(Cause::Sent(text.clone()), now, out);
                self.refuse(text, now, out);
            }
            Event::Open { .. } | Event::OpenError(_) => {
                self.confuse(Notification::unexpected_in_established(kind), now, out);
            }
            Event::ConnectRetryTimerExpires | Event::DelayOpenTimerExpires | Event::IdleHoldTimerExpires => {
                self.confuse(unexpected_event(), now, out);
            }
        }
    }

    /// The peer's NOTIFICATION before the session is up. One about a collision tells of another connection, which must
    /// not be refused.
    fn denied(&mut self, text: &Notification, now: Instant, out: &mut Vec<Action>) {
        if text.is_collision() {
            self.release(out);
            self.count();
            self.await_connection(now);
        } else {
            self.fail(now, out);
        }
    }

    /// A finite state machine error of an established session (RFC 6608 §4).
    fn confuse(&mut self, text: Notification, now: Instant, out: &mut Vec<Action>) {
        self.down(Cause::Sent(text.clone()), now, out);
        self.refuse(text, now, out);
    }

    fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.timers = Timers::default();
        if self.settings.passive {
            self.state = State::Active;
        } else {
            self.connect(now, out);
        }
    }

    fn connect(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.state = State::Connect;
        self.timers.connect_retry = Some(now + self.retry_wait());
        out.push(Action::Connect);
    }

    /// Waits for the peer's connection or for the time of the next attempt.
    fn await_connection(&mut self, now: Instant) {
        self.state = State::Active;
        if !self.settings.passive {
            self.timers.connect_retry = Some(now + self.retry_wait());
        }
    }

    /// 1, 2, 4 … seconds, at most ConnectRetryTime.
    fn retry_wait(&mut self) -> Duration {
        let wait = FIRST_WAIT * 2u32.saturating_pow(self.connect_retries.min(16));
        self.jitter.of(wait.min(self.settings.connect_retry))
    }

    fn connection_made(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.connected {
            return;
        }
        self.connected = true;
        self.timers.connect_retry = None;
        match self.settings.delay_open {
            Some(delay) => self.timers.delay_open = Some(now + self.jitter.of(delay)),
            None => self.send_open(now, out),
        }
    }

    fn send_open(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.timers = Timers { hold: Some(now + OPEN_WAIT), ..Timers::default() };
        self.hold_time = OPEN_WAIT;
        self.state = State::OpenSent;
        out.push(Action::SendOpen);
    }

    fn confirm(&mut self, hold_time: Duration, now: Instant, out: &mut Vec<Action>) {
        self.hold_time = hold_time;
        self.state = State::OpenConfirm;
        self.timers = Timers::default();
        if hold_time > Duration::ZERO {
            self.timers.hold = Some(now + hold_time);
        }
        self.keep_alive(now, out);
    }

    /// Sends a KEEPALIVE and starts the timer of the next one.
    fn keep_alive(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::SendKeepalive);
        if self.hold_time > Duration::ZERO {
            let third = self.hold_time / 3;
            let interval = self.settings.keepalive.map_or(third, |wished| wished.min(third));
            self.timers.keepalive = Some(now + self.jitter.of(interval));
        }
    }

    fn count(&mut self) {
        self.connect_retries = self.connect_retries.saturating_add(1);
    }

    /// Closes what there is of a connection.
    fn release(&mut self, out: &mut Vec<Action>) {
        if self.connected || self.state == State::Connect {
            out.push(Action::Drop);
        }
        self.connected = false;
        self.established = None;
        self.timers = Timers::default();
    }

    fn down(&mut self, cause: Cause, now: Instant, out: &mut Vec<Action>) {
        if self.established.is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.oscillations = 0;
            self.connect_retries = 0;
        }
        out.push(Action::Down(cause));
    }

    /// ManualStop: Idle until started.
    fn stop(&mut self, out: &mut Vec<Action>) {
        self.release(out);
        self.connect_retries = 0;
        self.oscillations = 0;
        self.state = State::Idle;
    }

    /// An end with a NOTIFICATION.
    fn refuse(&mut self, text: Notification, now: Instant, out: &mut Vec<Action>) {
        if self.connected {
            out.push(Action::SendNotification(text));
        }
        self.fail(now, out);
    }

    fn pause(&mut self, text: Notification, wait: Duration, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::SendNotification(text));
        self.release(out);
        self.count();
        self.wait_in_idle(Some(wait), now);
    }

    fn fail(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.release(out);
        self.count();
        self.wait_in_idle(None, now);
    }

    /// Idle, until the back-off is over: nothing for the first failure, then 1, 2, 4 … seconds
    /// (DampPeerOscillations, RFC 4271 §8.1.1).
    fn wait_in_idle(&mut self, least: Option<Duration>, now: Instant) {
        self.state = State::Idle;
        let Some(longest) = self.settings.idle_hold else {
            return;
        };
        let wait = match self.oscillations {
            0 => Duration::ZERO,
            failures => FIRST_WAIT * 2u32.saturating_pow((failures - 1).min(16)),
        };
        self.oscillations = self.oscillations.saturating_add(1);
        let wait = self.jitter.of(wait.min(longest)).max(least.unwrap_or_default());
        self.timers.idle_hold = Some(now + wait);
    }
}

/// 5/0: something happened that cannot happen in this state, and it was no message.
fn unexpected_event() -> Notification {
    Notification { code: 5, subcode: 0, data: Vec::new() }
}

#[cfg(test)]
mod tests;
