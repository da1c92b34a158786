// SPDX-License-Identifier: Apache-2.0
//! The machines of one peer: the one that connects, and while both sides have connected at once, a second for the
//! peer's connection (RFC 4271 §6.8 and §8.2.1).

use std::time::{Duration, Instant};

use super::{Action, Event, Machine, Settings, State};
use crate::wire::{Asn, RouterId};

/// Whose connection it is: the one that we made, or the one that the peer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// We connected.
    Ours,
    /// The peer connected.
    Theirs,
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
}

impl Pair {
    /// A peer in Idle.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Pair { main: Machine::new(settings), lane: Lane::Ours, second: None }
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
        self.main.timers().next().into_iter().chain(second).min()
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
        self.settle();
        actions
    }

    /// Takes what happened on a connection; an acceptable OPEN goes to [`Pair::open`] instead.
    pub fn step(&mut self, lane: Lane, event: Event, now: Instant) -> Vec<(Lane, Action)> {
        let machine = if lane == self.lane { Some(&mut self.main) } else { self.second.as_mut() };
        let Some(machine) = machine else {
            return Vec::new();
        };
        let actions = machine.step(event, now).into_iter().map(|action| (lane, action)).collect();
        self.settle();
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
        actions
    }

    /// The peer has made a connection. `replaces`: graceful restart was negotiated for the session that is there, so
    /// a new connection tells that the peer has restarted (RFC 4724 §5).
    pub fn incoming(&mut self, replaces: Replaces, now: Instant) -> (Incoming, Vec<(Lane, Action)>) {
        let mut actions = Vec::new();
        match self.main.state() {
            State::Idle => return (Incoming::Refused, actions),
            State::Established if replaces == Replaces::Nothing => return (Incoming::Refused, actions),
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
                    let steps = second.step(Event::TcpConnectionConfirmed, now);
                    actions.extend(steps.into_iter().map(|action| (Lane::Theirs, action)));
                    self.second = Some(second);
                }
            },
        }
        (Incoming::Taken, actions)
    }

    /// An acceptable OPEN has come on `lane`. Where the other connection has got that far as well, one of them is
    /// closed: the one that the side with the lower identifier has made (RFC 4271 §6.8).
    pub fn open(
        &mut self,
        lane: Lane,
        hold_time: Duration,
        ours: Identity,
        theirs: Identity,
        now: Instant,
    ) -> Vec<(Lane, Action)> {
        let other = if lane == Lane::Ours { Lane::Theirs } else { Lane::Ours };
        let other_state = self.machine(other).map(Machine::state);
        let mut actions = Vec::new();
        match other_state {
            Some(State::OpenConfirm | State::OpenSent) => {
                let kept = if ours.rank() > theirs.rank() { Lane::Ours } else { Lane::Theirs };
                let closed = if kept == Lane::Ours { Lane::Theirs } else { Lane::Ours };
                // The connection in OpenSent may be an older one of the peer's, so only an OPEN on the one that is
                // kept, or a second OPEN, decides.
                if kept == lane || other_state == Some(State::OpenConfirm) {
                    actions.extend(self.step(closed, Event::OpenCollisionDump, now));
                }
            }
            Some(State::Established) => {
                actions.extend(self.step(lane, Event::OpenCollisionDump, now));
            }
            Some(State::Idle | State::Connect | State::Active) | None => {}
        }
        actions.extend(self.step(lane, Event::Open { hold_time }, now));
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
    /// connection connects by itself again.
    fn settle(&mut self) {
        let live = |machine: &Machine| machine.is_connected();
        if self.second.as_ref().is_some_and(|second| !live(second)) {
            self.second = None;
        }
        if !live(&self.main) {
            self.lane = Lane::Ours;
            if let Some(second) = self.second.take() {
                self.main.adopt(second);
                self.lane = Lane::Theirs;
            }
        }
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
