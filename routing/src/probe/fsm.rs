// SPDX-License-Identifier: Apache-2.0
//! Whom to ask when, and what the silence of an address says.
//!
//! ```text
//!             answer                       no sign of life to `misses` questions
//!   unheard ──────────► answering ◄──────┐ ────────────────────────────────────► silent
//!   (says nothing)        │      answer  │                                       │   │
//!                         ▼              │              any sign of life         │   │
//!                       away: echoes and refusals only ◄─────────────────────────┘   │
//!                         └──────────────────────────────────────────────────────────┘
//! ```

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rhumb_model::NodeName;

use super::{Datagram, Kind, Sign};

/// Questions whose answers still count: an answer may take longer than the time to the next question.
const OPEN: usize = 4;

/// At most this many questions a second leave a node: with more addresses, each is asked less often.
const MOST_PER_SECOND: u32 = 500;

/// Who is due within this time is asked along, so that few addresses cost few wake-ups.
const TOGETHER: Duration = Duration::from_millis(100);

/// How often is asked, and how much silence is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// From one question to the next, give or take a tenth.
    pub interval: Duration,
    /// Questions in a row without a sign of life.
    pub misses: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), misses: 3 }
    }
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its agent has never answered: nothing follows from its silence.
    Unheard,
    /// Its agent answers.
    Answering,
    /// Its agent does not answer, and its kernel does.
    Away,
    /// Nothing comes from it any more.
    Silent,
}

impl State {
    /// All states.
    pub const ALL: [State; 4] = [State::Unheard, State::Answering, State::Away, State::Silent];

    /// One word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            State::Unheard => "unheard",
            State::Answering => "answering",
            State::Away => "away",
            State::Silent => "silent",
        }
    }
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// To which address.
    pub addr: IpAddr,
    /// The question.
    pub question: Datagram,
    /// Whether an echo request goes along, as the agent did not answer the last time.
    pub echo: bool,
}

/// An address for people to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The address.
    pub addr: IpAddr,
    /// The node that has it.
    pub node: NodeName,
    /// What is known.
    pub state: State,
    /// Questions in a row without a sign of life.
    pub misses: u32,
}

/// Everybody who is asked. `random` makes numbers that others cannot guess.
#[derive(Debug)]
pub struct Prober<R = RandomState> {
    settings: Settings,
    random: R,
    targets: BTreeMap<IpAddr, Target>,
    /// Who was asked with which number.
    open: BTreeMap<u64, IpAddr>,
    /// Questions so far.
    asked: u64,
}

#[derive(Debug)]
struct Target {
    node: NodeName,
    due: Instant,
    open: VecDeque<u64>,
    /// Whether an answer ever came.
    trusted: bool,
    /// What came since the last question.
    heard: Heard,
    /// Whether the last that came was an answer.
    answering: bool,
    misses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Nothing,
    Kernel,
    Agent,
}

impl<R: BuildHasher> Prober<R> {
    /// Asks nobody at first.
    pub fn new(settings: Settings, random: R) -> Self {
        Self { settings, random, targets: BTreeMap::new(), open: BTreeMap::new(), asked: 0 }
    }

    /// Says who is asked from now on. What is known of an address stays as long as its node does; new ones have their
    /// turn within the next interval.
    pub fn watch(&mut self, targets: &BTreeMap<IpAddr, NodeName>, now: Instant) {
        self.targets.retain(|addr, target| targets.get(addr) == Some(&target.node));
        self.open.retain(|_, addr| targets.contains_key(addr));
        for (addr, node) in targets {
            if !self.targets.contains_key(addr) {
                let due = now + self.share(self.interval(), self.random.hash_one((addr, self.asked)));
                let target = Target {
                    node: node.clone(),
                    due,
                    open: VecDeque::new(),
                    trusted: false,
                    heard: Heard::Nothing,
                    answering: false,
                    misses: 0,
                };
                self.targets.insert(*addr, target);
            }
        }
    }

    /// What to send now. Everything that has come is to be told before: else a pause of this process looks like the
    /// silence of all others.
    pub fn step(&mut self, now: Instant) -> Vec<Ask> {
        let interval = self.interval();
        let mut asks = Vec::new();
        let due: Vec<IpAddr> = if self.next().is_some_and(|next| next <= now) {
            let due = self.targets.iter().filter(|(_, target)| target.due <= now + TOGETHER);
            due.map(|(addr, _)| *addr).collect()
        } else {
            Vec::new()
        };
        for addr in due {
            self.asked += 1;
            let number = self.random.hash_one((addr, self.asked));
            let spread = self.share(interval / 5, number);
            let Some(target) = self.targets.get_mut(&addr) else { continue };
            let asked_before = !target.open.is_empty();
            if asked_before && target.heard == Heard::Nothing {
                target.misses = target.misses.saturating_add(1);
            }
            let echo = asked_before && target.trusted && target.heard != Heard::Agent;
            target.heard = Heard::Nothing;
            target.due = now + interval * 9 / 10 + spread;
            target.open.push_back(number);
            self.open.insert(number, addr);
            if target.open.len() > OPEN
                && let Some(old) = target.open.pop_front()
            {
                self.open.remove(&old);
            }
            let question = Datagram { kind: Kind::Question, number, node: target.node.clone() };
            asks.push(Ask { addr, question, echo });
        }
        asks
    }

    /// Takes an answer; `false` when nobody asked for it.
    pub fn answered(&mut self, answer: &Datagram) -> bool {
        let Some(target) = self.asked_with(answer.number) else { return false };
        if answer.kind != Kind::Answer || answer.node != target.node {
            return false;
        }
        target.trusted = true;
        target.hear(Heard::Agent);
        true
    }

    /// Takes another sign of life; `false` when it says nothing about those who are asked.
    pub fn signed(&mut self, sign: Sign) -> bool {
        let target = match sign {
            Sign::Echo { number } => self.asked_with(number),
            Sign::Refused { addr } => self.targets.get_mut(&addr).filter(|target| !target.open.is_empty()),
        };
        let known = target.is_some();
        if let Some(target) = target {
            target.hear(Heard::Kernel);
        }
        known
    }

    /// The addresses that have fallen silent.
    pub fn silent(&self) -> BTreeSet<IpAddr> {
        let most = self.settings.misses;
        let silent = self.targets.iter().filter(|(_, target)| target.state(most) == State::Silent);
        silent.map(|(addr, _)| *addr).collect()
    }

    /// Everything that is known, by address.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let most = self.settings.misses;
        self.targets.iter().map(move |(addr, target)| Row {
            addr: *addr,
            node: target.node.clone(),
            state: target.state(most),
            misses: target.misses,
        })
    }

    /// Whether somebody is asked by echoes too: then their replies are to be heard.
    pub fn wants_echoes(&self) -> bool {
        let doubtful = |target: &Target| target.trusted && (!target.answering || target.misses > 0);
        self.targets.values().any(doubtful)
    }

    /// When the next question is due.
    pub fn next(&self) -> Option<Instant> {
        self.targets.values().map(|target| target.due).min()
    }

    /// From one question to the same address to the next.
    fn interval(&self) -> Duration {
        let all = Duration::from_secs(1) * u32::try_from(self.targets.len()).unwrap_or(u32::MAX);
        self.settings.interval.max(all / MOST_PER_SECOND)
    }

    /// A part of this time, by chance.
    fn share(&self, whole: Duration, chance: u64) -> Duration {
        whole * u32::try_from(chance % 1000).expect("less than a thousand") / 1000
    }

    fn asked_with(&mut self, number: u64) -> Option<&mut Target> {
        self.targets.get_mut(self.open.get(&number)?)
    }
}

impl Target {
    fn hear(&mut self, what: Heard) {
        self.heard = self.heard.max(what);
        self.answering = self.heard == Heard::Agent;
        self.misses = 0;
    }

    fn state(&self, most: u32) -> State {
        match (self.trusted, self.misses >= most, self.answering) {
            (false, ..) => State::Unheard,
            (true, true, _) => State::Silent,
            (true, false, true) => State::Answering,
            (true, false, false) => State::Away,
        }
    }
}

#[cfg(test)]
mod tests;
