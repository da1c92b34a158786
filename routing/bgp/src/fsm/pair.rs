// SPDX-License-Identifier: Apache-2.0
//! The machines of one peer: the one that connects, and while both sides have connected at once, a second for the
//! peer's connection (RFC 4271 §6.8 and §8.2.1).
//!
//! The RFC lets an established connection win over a better one, and each side is established by messages that cross
//! those on the other connection: taken by the letter, both sides may close what the other one keeps. So nobody gets a
//! KEEPALIVE on a connection that is going to lose (ADR 0039): its OPEN waits for that of the better one, and a
//! connection that comes when the other one has both OPENs is silent until that one is up or gone.

use std::time::{Duration, Instant};

use super::{Action, Event, Machine, Settings, State};
use crate::wire::{Asn, RouterId};

/// How long one connection waits for what becomes of the other. Less than the shortest hold time, 3 s, which the peer
/// may count already.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a new connection is silent beside one that has both OPENs. Shorter, as the peer may be patient, too.
const SILENCE: Duration = Duration::from_secs(1);

/// Whose connection it is: the one that we made, or the one that the peer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// We connected.
    Ours,
    /// The peer connected.
    Theirs,
}

impl Lane {
    fn other(self) -> Self {
        match self {
            Lane::Ours => Lane::Theirs,
            Lane::Theirs => Lane::Ours,
        }
    }
}

/// What becomes of a connection that the peer has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// It is taken.
    Taken,
    /// It is closed at once.
    Refused,
}

/// Who an OPEN comes from and who receives it: decides which of two connections is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// BGP identifier.
    pub router_id: RouterId,
    /// AS, which decides between equal identifiers (RFC 6286 §2.3).
    pub asn: Asn,
}

impl Identity {
    fn rank(self) -> (u32, u32) {
        (self.router_id.0, self.asn.0)
    }
}

/// All of a peer's machines. At most one of them is beyond OpenSent at any time.
#[derive(Clone, Debug)]
pub struct Pair {
    main: Machine,
    lane: Lane,
    /// Has the peer's connection while `main` has ours.
    second: Option<Machine>,
    waiting: Option<Waiting>,
}

/// An OPEN that was read, and is not answered before it is known what becomes of the other connection.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    lane: Lane,
    hold_time: Duration,
    /// Then the other connection has lost, whichever is better.
    until: Instant,
}

impl Pair {
    /// A peer in Idle.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Pair { main: Machine::new(settings), lane: Lane::Ours, second: None, waiting: None }
    }

    /// The state of the machine that is further.
    #[must_use]
    pub fn state(&self) -> State {
        self.second.as_ref().map_or(self.main.state(), |second| second.state().max(self.main.state()))
    }

    /// ConnectRetryCounter of the machine that connects.
    #[must_use]
    pub fn connect_retries(&self) -> u32 {
        self.main.connect_retries()
    }

    /// When the next timer of any machine runs out.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let second = self.second.as_ref().and_then(|second| second.timers().next());
        let waiting = self.waiting.map(|waiting| waiting.until);
        self.main.timers().next().into_iter().chain(second).chain(waiting).min()
    }

    /// The connection on which nothing more is to be read for now: its OPEN waits for the other connection.
    #[must_use]
    pub fn waiting(&self) -> Option<Lane> {
        self.waiting.map(|waiting| waiting.lane)
    }

    /// The machine of a connection, if there is one.
    #[must_use]
    pub fn machine(&self, lane: Lane) -> Option<&Machine> {
        if self.lane == lane {
            Some(&self.main)
        } else {
            self.second.as_ref().filter(|_| lane == Lane::Theirs)
        }
    }

    /// Takes other settings; they count from the next timer and attempt on.
    pub fn set(&mut self, settings: Settings) {
        self.main.settings = settings;
    }

    /// The peer sent something on the connection.
    pub fn heard(&mut self, lane: Lane, now: Instant) {
        match &mut self.second {
            Some(second) if lane != self.lane => second.heard(now),
            Some(_) | None => self.main.heard(now),
        }
    }

    /// Takes an event of the peer as a whole: a start or a stop.
    pub fn administer(&mut self, event: Event, now: Instant) -> Vec<(Lane, Action)> {
        let mut actions = Vec::new();
        let is_stop = matches!(event, Event::ManualStop(_) | Event::AutomaticStop(..));
        if is_stop && let Some(mut second) = self.second.take() {
            actions.extend(second.step(event.clone(), now).into_iter().map(|action| (Lane::Theirs, action)));
        }
        let lane = self.lane;
        actions.extend(self.main.step(event, now).into_iter().map(|action| (lane, action)));
        actions.extend(self.settle(now));
        actions
    }

    /// Takes what happened on a connection; an acceptable OPEN goes to [`Pair::open`] instead.
    pub fn step(&mut self, lane: Lane, event: Event, now: Instant) -> Vec<(Lane, Action)> {
        let machine = if lane == self.lane { Some(&mut self.main) } else { self.second.as_mut() };
        let Some(machine) = machine else {
            return Vec::new();
        };
        let mut actions: Vec<_> = machine.step(event, now).into_iter().map(|action| (lane, action)).collect();
        actions.extend(self.settle(now));
        actions
    }

    /// Steps all timers that have run out.
    pub fn tick(&mut self, now: Instant) -> Vec<(Lane, Action)> {
        let mut actions = Vec::new();
        // Each machine has five timers, and one that was stepped is either stopped or set to later.
        for _ in 0..10 {
            if let Some(event) = self.main.expire(now) {
                actions.extend(self.step(self.lane, event, now));
            } else if let Some(event) = self.second.as_mut().and_then(|second| second.expire(now)) {
                actions.extend(self.step(Lane::Theirs, event, now));
            } else {
                break;
            }
        }
        if let Some(waiting) = self.waiting.filter(|waiting| waiting.until <= now) {
            actions.extend(self.step(waiting.lane.other(), Event::OpenCollisionDump, now));
        }
        actions
    }

    /// The peer has made a connection. `replaces`: graceful restart was negotiated for the session that is there, so
    /// a new connection tells that the peer has restarted (RFC 4724 §5). A session that has just begun is not replaced:
    /// the connection is one that was made beside it.
    pub fn incoming(&mut self, replaces: Replaces, now: Instant) -> (Incoming, Vec<(Lane, Action)>) {
        let mut actions = Vec::new();
        match self.main.state() {
            State::Idle => return (Incoming::Refused, actions),
            State::Established if replaces == Replaces::Nothing || self.main.is_young(now) => {
                return (Incoming::Refused, actions);
            }
            State::Established => {
                actions.extend(self.step(self.lane, Event::TcpConnectionFails, now));
                actions.extend(self.administer(Event::AutomaticStart, now));
                actions.extend(self.take_over(now));
            }
            State::Connect | State::Active if !self.main.is_connected() => {
                actions.extend(self.take_over(now));
            }
            State::Connect | State::Active | State::OpenSent | State::OpenConfirm => match self.lane {
                // Two connections from the peer: it has given up the older one.
                Lane::Theirs => {
                    actions.extend(self.step(Lane::Theirs, Event::TcpConnectionFails, now));
                    if self.main.state() == State::Idle {
                        actions.extend(self.administer(Event::AutomaticStart, now));
                    }
                    actions.extend(self.take_over(now));
                }
                Lane::Ours if self.second.is_some() => return (Incoming::Refused, actions),
                Lane::Ours => {
                    let mut second = self.main.listening();
                    if self.main.state() == State::OpenConfirm {
                        // Silent, but not for ever: see the head of this file.
                        second.settings.delay_open = Some(SILENCE);
                    }
                    let steps = second.step(Event::TcpConnectionConfirmed, now);
                    actions.extend(steps.into_iter().map(|action| (Lane::Theirs, action)));
                    self.second = Some(second);
                }
            },
        }
        (Incoming::Taken, actions)
    }

    /// An acceptable OPEN has come on `lane`. Of two connections, the one that the side with the higher identifier has
    /// made is kept (RFC 4271 §6.8); the OPEN on the other one waits for the one on that, as the connection may be an
    /// old one of which nothing will come.
    pub fn open(
        &mut self,
        lane: Lane,
        hold_time: Duration,
        ours: Identity,
        theirs: Identity,
        now: Instant,
    ) -> Vec<(Lane, Action)> {
        let other = lane.other();
        let kept = if ours.rank() > theirs.rank() { Lane::Ours } else { Lane::Theirs };
        let open = Event::Open { hold_time };
        let Some(machine) =
            self.machine(lane).filter(|it| it.is_connected() && it.state() <= State::OpenSent)
        else {
            return self.step(lane, open, now);
        };
        let silent_until = machine.timers().delay_open;
        let mut actions = Vec::new();
        match (self.machine(other).map(Machine::state), silent_until) {
            (Some(State::Established), _) => return self.step(lane, Event::OpenCollisionDump, now),
            (Some(State::OpenSent), _) if kept == other => {
                self.waiting = Some(Waiting { lane, hold_time, until: now + PATIENCE });
                return actions;
            }
            // What was said there makes the peer keep that one, unless it has closed it already.
            (Some(State::OpenConfirm), Some(until)) if kept == lane => {
                self.waiting = Some(Waiting { lane, hold_time, until });
                return actions;
            }
            (Some(State::OpenConfirm), _) if kept == other => {
                return self.step(lane, Event::OpenCollisionDump, now);
            }
            (Some(State::OpenSent | State::OpenConfirm), _) => {
                actions.extend(self.step(other, Event::OpenCollisionDump, now));
            }
            (Some(State::Idle | State::Connect | State::Active) | None, _) => {}
        }
        actions.extend(self.step(lane, open, now));
        actions
    }

    /// The main machine leaves its own attempt and takes the peer's connection.
    fn take_over(&mut self, now: Instant) -> Vec<(Lane, Action)> {
        let mut actions = Vec::new();
        if self.main.state() == State::Connect && self.lane == Lane::Ours {
            actions.push((Lane::Ours, Action::Drop));
        }
        self.lane = Lane::Theirs;
        let steps = self.main.step(Event::TcpConnectionConfirmed, now);
        actions.extend(steps.into_iter().map(|action| (Lane::Theirs, action)));
        actions
    }

    /// A second machine that came to its end goes; one that is alone becomes the main one. A main machine without a
    /// connection connects by itself again. What waited for the other connection knows what to do.
    fn settle(&mut self, now: Instant) -> Vec<(Lane, Action)> {
        let live = |machine: &Machine| machine.is_connected();
        if self.second.as_ref().is_some_and(|second| !live(second)) {
            self.second = None;
        }
        let mut actions = Vec::new();
        if !live(&self.main) {
            self.lane = Lane::Ours;
            if let Some(second) = self.second.take() {
                self.main.adopt(second);
                self.lane = Lane::Theirs;
                if self.main.settings.delay_open.is_none() && self.main.timers.delay_open.take().is_some() {
                    let steps = self.main.step(Event::DelayOpenTimerExpires, now);
                    actions.extend(steps.into_iter().map(|action| (Lane::Theirs, action)));
                }
            }
        }
        let Some(Waiting { lane, hold_time, .. }) = self.waiting else { return actions };
        let state = |lane| self.machine(lane).filter(|machine| live(machine)).map(Machine::state);
        let event = match (state(lane), state(lane.other())) {
            (None | Some(State::OpenConfirm | State::Established), _) => None,
            (Some(_), Some(State::OpenSent | State::OpenConfirm)) => return actions,
            (Some(_), Some(State::Established)) => Some(Event::OpenCollisionDump),
            (Some(_), Some(State::Idle | State::Connect | State::Active) | None) => {
                Some(Event::Open { hold_time })
            }
        };
        self.waiting = None;
        if let Some(event) = event {
            actions.extend(self.step(lane, event, now));
        }
        actions
    }
}

/// What a new connection of the peer's means for a session that is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// A collision: the new one is closed.
    Nothing,
    /// The peer has restarted: the new one takes the place of the old.
    Session,
}

#[cfg(test)]
mod tests;
