// SPDX-License-Identifier: Apache-2.0
//! Both sides connect at once, and every order in which what they say can arrive is tried, against another of us and
//! against the rules by which BIRD and FRR decide.

use std::collections::{BTreeSet, VecDeque};

use super::super::{Action, Settings};
use super::*;

const LOW: Identity = Identity { router_id: RouterId(1), asn: Asn(65001) };
const HIGH: Identity = Identity { router_id: RouterId(2), asn: Asn(65002) };
const HOLD_TIME: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Open,
    Keepalive,
    Notification,
    /// The end of the connection.
    End,
}

/// What a side does on one of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Say(Word),
    Close,
    Up,
    Down,
}

/// A side that decides by the rule of another implementation.
#[derive(Clone, Debug)]
struct Stranger {
    rule: Rule,
    own: Identity,
    peer: Identity,
    /// State of its own connection, and of the one that it was called on.
    states: [State; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// BIRD 2.0: compares with a connection in OpenConfirm, and leaves one in OpenSent alone.
    Confirmed,
    /// FRR 8: compares with one in OpenSent, too.
    Sent,
}

fn at(lane: Lane) -> usize {
    match lane {
        Lane::Ours => 0,
        Lane::Theirs => 1,
    }
}

impl Stranger {
    fn close(&mut self, lane: Lane) -> Vec<(Lane, Deed)> {
        let was = std::mem::replace(&mut self.states[at(lane)], State::Idle);
        let down = (was == State::Established).then_some((lane, Deed::Down));
        down.into_iter().chain([(lane, Deed::Close)]).collect()
    }

    fn refuse(&mut self, lane: Lane) -> Vec<(Lane, Deed)> {
        let mut deeds = vec![(lane, Deed::Say(Word::Notification))];
        deeds.extend(self.close(lane));
        deeds
    }

    fn connected(&mut self, lane: Lane) -> Vec<(Lane, Deed)> {
        self.states[at(lane)] = State::OpenSent;
        vec![(lane, Deed::Say(Word::Open))]
    }

    fn hear(&mut self, lane: Lane, word: Word) -> Vec<(Lane, Deed)> {
        let other = lane.other();
        let mut deeds = Vec::new();
        match (word, self.states[at(lane)]) {
            (Word::Open, State::OpenSent) => {
                let kept = if self.own.rank() > self.peer.rank() { Lane::Ours } else { Lane::Theirs };
                match self.states[at(other)] {
                    State::Connect => deeds.extend(self.close(other)),
                    State::Established => return self.refuse(lane),
                    State::OpenSent if self.rule == Rule::Confirmed => {}
                    State::OpenSent | State::OpenConfirm if kept == other => return self.refuse(lane),
                    State::OpenSent | State::OpenConfirm => deeds.extend(self.refuse(other)),
                    State::Idle | State::Active => {}
                }
                self.states[at(lane)] = State::OpenConfirm;
                deeds.push((lane, Deed::Say(Word::Keepalive)));
            }
            (Word::Keepalive, State::OpenConfirm) => {
                self.states[at(lane)] = State::Established;
                deeds.push((lane, Deed::Up));
            }
            (Word::Keepalive, State::Established) => {}
            (Word::Notification | Word::End, _) => deeds.extend(self.close(lane)),
            (Word::Open | Word::Keepalive, _) => deeds.extend(self.refuse(lane)),
        }
        deeds
    }
}

/// One of us, with the messages that the owner of its sockets keeps back while their connection waits.
#[derive(Clone, Debug)]
struct Us {
    pair: Pair,
    own: Identity,
    peer: Identity,
    kept_back: VecDeque<Word>,
    waited: Option<Lane>,
}

impl Us {
    fn deeds(&mut self, actions: Vec<(Lane, Action)>, now: Instant) -> Vec<(Lane, Deed)> {
        let mut deeds: Vec<_> = actions
            .into_iter()
            .filter_map(|(lane, action)| {
                let deed = match action {
                    // The first attempts are those that collide.
                    Action::Connect => return None,
                    Action::SendOpen => Deed::Say(Word::Open),
                    Action::SendKeepalive => Deed::Say(Word::Keepalive),
                    Action::SendNotification(_) => Deed::Say(Word::Notification),
                    Action::Drop => Deed::Close,
                    Action::Up => Deed::Up,
                    Action::Down(_) => Deed::Down,
                };
                Some((lane, deed))
            })
            .collect();
        if let Some(lane) = self.waited
            && self.pair.waiting().is_none()
        {
            self.waited = None;
            for word in std::mem::take(&mut self.kept_back) {
                deeds.extend(self.hear(lane, word, now));
            }
        }
        deeds
    }

    fn hear(&mut self, lane: Lane, word: Word, now: Instant) -> Vec<(Lane, Deed)> {
        if self.pair.waiting() == Some(lane) {
            self.kept_back.push_back(word);
            return Vec::new();
        }
        let actions = match word {
            Word::Open => {
                let actions = self.pair.open(lane, HOLD_TIME, self.own, self.peer, now);
                self.waited = self.waited.or(self.pair.waiting());
                actions
            }
            Word::Keepalive => self.pair.step(lane, Event::Keepalive, now),
            Word::Notification => {
                let text = crate::wire::Notification::cease(crate::wire::Cease::ConnectionCollision);
                self.pair.step(lane, Event::Notification(text), now)
            }
            Word::End => self.pair.step(lane, Event::TcpConnectionFails, now),
        };
        self.deeds(actions, now)
    }
}

#[derive(Clone, Debug)]
enum Side {
    Us(Box<Us>),
    Stranger(Stranger),
}

impl Side {
    fn us(own: Identity, peer: Identity, now: Instant) -> Self {
        let mut pair = Pair::new(Settings {
            connect_retry: Duration::from_secs(120),
            keepalive: None,
            delay_open: None,
            passive: false,
            idle_hold: Some(Duration::from_secs(60)),
            seed: 1,
        });
        pair.administer(Event::ManualStart, now);
        Side::Us(Box::new(Us { pair, own, peer, kept_back: VecDeque::new(), waited: None }))
    }

    fn stranger(rule: Rule, own: Identity, peer: Identity) -> Self {
        Side::Stranger(Stranger { rule, own, peer, states: [State::Connect, State::Idle] })
    }

    fn connected(&mut self, lane: Lane, replaces: Replaces, now: Instant) -> Vec<(Lane, Deed)> {
        match (self, lane) {
            (Side::Us(us), Lane::Ours) => {
                let actions = us.pair.step(lane, Event::TcpConnectionAcked, now);
                us.deeds(actions, now)
            }
            (Side::Us(us), Lane::Theirs) => {
                let (taken, actions) = us.pair.incoming(replaces, now);
                let mut deeds = us.deeds(actions, now);
                if taken == Incoming::Refused {
                    deeds.push((lane, Deed::Close));
                }
                deeds
            }
            (Side::Stranger(stranger), lane) => stranger.connected(lane),
        }
    }

    fn hear(&mut self, lane: Lane, word: Word, now: Instant) -> Vec<(Lane, Deed)> {
        match self {
            Side::Us(us) => us.hear(lane, word, now),
            Side::Stranger(stranger) => stranger.hear(lane, word),
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<(Lane, Deed)> {
        match self {
            Side::Us(us) => {
                let actions = us.pair.tick(now);
                us.deeds(actions, now)
            }
            Side::Stranger(_) => Vec::new(),
        }
    }
}

/// Whether an end of a connection knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It will be told.
    Making,
    There,
    Closed,
}

/// Two sides, and two connections: the one that the first has made, and the one that the second has made. Of each the
/// ends at both sides, and what is on its way to them.
#[derive(Clone, Debug)]
struct World {
    sides: [Side; 2],
    ends: [[End; 2]; 2],
    coming: [[VecDeque<Word>; 2]; 2],
    up: [Option<usize>; 2],
    given_up: [bool; 2],
    ticks: u32,
    /// A session went down, or a second one came up.
    flapped: bool,
}

impl World {
    fn lane(side: usize, connection: usize) -> Lane {
        if side == connection { Lane::Ours } else { Lane::Theirs }
    }

    fn apply(&mut self, side: usize, deeds: Vec<(Lane, Deed)>) {
        for (lane, deed) in deeds {
            let connection = if lane == Lane::Ours { side } else { 1 - side };
            let end = &mut self.ends[connection][side];
            let far = &mut self.coming[connection][1 - side];
            match deed {
                Deed::Say(word) => {
                    if *end == End::There {
                        far.push_back(word);
                    }
                }
                Deed::Close => {
                    if *end != End::Closed {
                        self.given_up[side] |= *end == End::Making && lane == Lane::Ours;
                        far.push_back(Word::End);
                    }
                    *end = End::Closed;
                    self.coming[connection][side].clear();
                }
                Deed::Up => self.flapped |= self.up[side].replace(connection).is_some(),
                Deed::Down => self.flapped = true,
            }
        }
    }

    /// All worlds that one more arrival makes of this one, with what arrived.
    fn next(&self, replaces: Replaces, now: Instant) -> Vec<(String, World)> {
        let mut worlds = Vec::new();
        for connection in 0..2 {
            for side in 0..2 {
                let lane = Self::lane(side, connection);
                let mut world = self.clone();
                let mut what = format!("side {side}, connection {connection}: there");
                let deeds = match self.ends[connection][side] {
                    End::Making => {
                        world.ends[connection][side] = End::There;
                        world.sides[side].connected(lane, replaces, now)
                    }
                    End::There => {
                        let Some(word) = world.coming[connection][side].pop_front() else { continue };
                        what = format!("side {side}, connection {connection}: {word:?}");
                        if word == Word::End {
                            world.ends[connection][side] = End::Closed;
                        }
                        world.sides[side].hear(lane, word, now)
                    }
                    End::Closed => continue,
                };
                what.push_str(&format!(" -> {deeds:?}"));
                world.apply(side, deeds);
                worlds.push((what, world));
            }
        }
        worlds
    }

    /// Nothing is on its way any more: there is one session. Or there is none, because each side gave its own attempt up
    /// for the other's, or this one did and FRR counts on it; then the next attempts decide.
    fn is_settled(&self) -> bool {
        let begins_anew = match &self.sides[1] {
            Side::Us(_) => self.given_up == [true; 2],
            Side::Stranger(stranger) => self.given_up[0] && stranger.rule == Rule::Sent,
        };
        let alone = |it: usize| self.ends[1 - it].iter().all(|end| *end == End::Closed);
        match self.up {
            [None, None] => begins_anew,
            [one, other] => one == other && one.is_some_and(alone),
        }
    }
}

/// Tries every order, and says how many worlds there were.
fn explore(sides: [Side; 2], replaces: Replaces, now: Instant) -> usize {
    let world = World {
        sides,
        ends: [[End::Making; 2]; 2],
        coming: Default::default(),
        up: [None; 2],
        given_up: [false; 2],
        ticks: 0,
        flapped: false,
    };
    let mut seen = BTreeSet::new();
    let mut open = VecDeque::from([(Vec::new(), world)]);
    while let Some((story, world)) = open.pop_front() {
        assert!(!world.flapped, "a session ends: {story:#?}");
        if !seen.insert(format!("{world:?}")) {
            continue;
        }
        let mut next = world.next(replaces, now + SILENCE * world.ticks);
        if next.is_empty() && !world.is_settled() {
            // Whoever waits for something that does not come does so for a while only.
            assert!(world.ticks < 4, "no session: {story:#?}");
            let mut later = world.clone();
            later.ticks += 1;
            for side in 0..2 {
                let deeds = later.sides[side].tick(now + SILENCE * later.ticks);
                later.apply(side, deeds);
            }
            next.push(("time passes".to_owned(), later));
        }
        for (what, world) in next {
            open.push_back((story.iter().cloned().chain([what]).collect::<Vec<_>>(), world));
        }
    }
    seen.len()
}

#[test]
fn two_of_us_that_connect_at_once_end_with_one_session_whatever_arrives_first() {
    let now = Instant::now();
    for replaces in [Replaces::Nothing, Replaces::Session] {
        let worlds = explore([Side::us(LOW, HIGH, now), Side::us(HIGH, LOW, now)], replaces, now);
        assert!(worlds > 100, "{worlds}");
    }
}

#[test]
fn the_rules_of_bird_and_frr_end_with_one_session_too_whatever_arrives_first() {
    let now = Instant::now();
    for rule in [Rule::Confirmed, Rule::Sent] {
        for (own, peer) in [(LOW, HIGH), (HIGH, LOW)] {
            for replaces in [Replaces::Nothing, Replaces::Session] {
                let worlds =
                    explore([Side::us(own, peer, now), Side::stranger(rule, peer, own)], replaces, now);
                assert!(worlds > 100, "{worlds}");
            }
        }
    }
}
