// SPDX-License-Identifier: Apache-2.0
//! The task of one peer.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_bgp_feed::PeerAsn;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connection::{Connection, Queued, Want};
use super::endpoint::{ConnectError, NOWHERE};
use super::fallback::{disliked, leave_out};
use super::{Command, Counters, Established, Number, Report, Settings, TaskId, with_causes};
use crate::fsm::{Action, Cause, Event, Identity, Incoming, Lane, Pair, Replaces, State};
use crate::rib::Outgoing;
use crate::wire::{Asn, Codec, Message, Negotiated, Notification, Open, Update};

type Attempt = Pin<Box<dyn Future<Output = Result<TcpStream, ConnectError>> + Send>>;

/// Connections that are being closed at a time; more are cut off.
const LINGERING: usize = 4;

/// The task of one peer: sockets, state machines, and the words between them.
pub(crate) struct Session {
    task: TaskId,
    settings: Settings,
    pair: Pair,
    commands: mpsc::Receiver<Command>,
    reports: mpsc::Sender<(TaskId, Report)>,
    /// Reports that the speaker had no room for; while there are any, nothing is read.
    pending: VecDeque<Report>,
    attempt: Option<Attempt>,
    ours: Option<Connection>,
    theirs: Option<Connection>,
    lingering: JoinSet<()>,
    number: Number,
    told_state: State,
    /// The connection whose OPEN waited for what becomes of the other one.
    waited: Option<Lane>,
    /// Capabilities that the peer did not take.
    left_out: BTreeSet<u8>,
    counters: Arc<Counters>,
}

impl Session {
    pub(crate) fn new(
        task: TaskId,
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<(TaskId, Report)>,
        counters: Arc<Counters>,
    ) -> Self {
        let pair = Pair::new(settings.fsm.clone());
        Session {
            task,
            settings,
            pair,
            commands,
            reports,
            pending: VecDeque::new(),
            attempt: None,
            ours: None,
            theirs: None,
            lingering: JoinSet::new(),
            number: 0,
            told_state: State::Idle,
            waited: None,
            left_out: BTreeSet::new(),
            counters,
        }
    }

    /// Runs until the speaker lets go of the command channel; connections are then cut off without a word, which is
    /// how graceful restart wants it.
    pub(crate) async fn run(mut self) {
        let reports = self.reports.clone();
        loop {
            self.tell_state();
            self.offer_reports();
            let next = self.pair.next().map(tokio::time::Instant::from_std);
            let [want_ours, want_theirs] = [Lane::Ours, Lane::Theirs].map(|lane| self.want(lane));
            let woken = tokio::select! {
                biased;
                () = at(next) => Woken::Timer,
                // Before the peer's connection, which would end an attempt that is there: both sides would do so.
                result = attempted(&mut self.attempt) => Woken::Attempted(result),
                command = self.commands.recv() => Woken::Command(command),
                permit = reports.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(report) = self.pending.pop_front() {
                            permit.send((self.task, report));
                        }
                        continue;
                    }
                    Err(_) => break,
                },
                () = ready(self.ours.as_ref(), want_ours) => Woken::Ready(Lane::Ours),
                () = ready(self.theirs.as_ref(), want_theirs) => Woken::Ready(Lane::Theirs),
                Some(_) = self.lingering.join_next() => continue,
            };
            match woken {
                Woken::Timer => self.tick(),
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Command(None) => break,
                Woken::Attempted(result) => self.attempted(result),
                Woken::Ready(lane) => self.serve(lane, self.want(lane)),
            }
            self.resume();
            // A peer that always has more to say is otherwise heard until timers, its own among them, are long due.
            tokio::task::yield_now().await;
        }
        // Whoever was told the reason is given the time to hear it.
        while self.lingering.join_next().await.is_some() {}
    }

    /// What a connection is waited for: its messages have room, and are not kept back by the other connection.
    fn want(&self, lane: Lane) -> Want {
        if self.pending.is_empty() && self.pair.waiting() != Some(lane) {
            Want::Read
        } else {
            Want::WriteOnly
        }
    }

    /// Takes what was read behind an OPEN that had to wait, and need not any more.
    fn resume(&mut self) {
        if let Some(lane) = self.waited.take_if(|lane| self.pair.waiting() != Some(*lane)) {
            self.understand(lane);
            self.flush_all();
        }
    }

    fn tell_state(&mut self) {
        let state = self.pair.state();
        if state != self.told_state {
            self.told_state = state;
            self.pending.push_back(Report::State(state));
        }
    }

    /// Hands over as many reports as there is room for.
    fn offer_reports(&mut self) {
        while let Some(report) = self.pending.pop_front() {
            if let Err(refused) = self.reports.try_send((self.task, report)) {
                let (_, report) = match refused {
                    mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back) => back,
                };
                self.pending.push_front(report);
                return;
            }
        }
    }

    fn connection(&mut self, lane: Lane) -> &mut Option<Connection> {
        match lane {
            Lane::Ours => &mut self.ours,
            Lane::Theirs => &mut self.theirs,
        }
    }

    /// Timers. What the peer has said meanwhile is heard first, so that a busy speaker blames nobody else.
    fn tick(&mut self) {
        for lane in [Lane::Ours, Lane::Theirs] {
            if self.connection(lane).is_some() {
                if self.pending.is_empty() {
                    self.serve(lane, Want::Read);
                } else {
                    self.pair.heard(lane, Instant::now());
                }
            }
        }
        let actions = self.pair.tick(Instant::now());
        self.act(actions);
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Start => {
                let actions = self.pair.administer(Event::ManualStart, now);
                self.act(actions);
            }
            Command::Stop { text, again } => {
                let event = match again {
                    Some(wait) => Event::AutomaticStop(text, wait),
                    None => Event::ManualStop(text),
                };
                let actions = self.pair.administer(event, now);
                self.act(actions);
            }
            Command::Incoming(stream, remote) => self.incoming(stream, remote),
            Command::Set(settings) => {
                let found = self.settings.endpoint.address;
                self.pair.set(settings.fsm.clone());
                self.left_out.clear();
                self.settings = *settings;
                if self.settings.endpoint.address == NOWHERE {
                    self.settings.endpoint.address = found;
                }
            }
            Command::Found(address) => {
                self.settings.endpoint.address = address;
                let is_waiting = matches!(self.pair.state(), State::Connect | State::Active);
                if is_waiting && !self.settings.fsm.passive && self.attempt.is_none() {
                    let actions = self.pair.step(Lane::Ours, Event::ConnectRetryTimerExpires, now);
                    self.act(actions);
                }
            }
            Command::Routes(number, batch) => self.send_routes(number, &batch),
        }
    }

    /// The connection of the established session.
    fn established(&mut self) -> Option<&mut Connection> {
        let is_up = |machine: Option<&crate::fsm::Machine>| {
            machine.is_some_and(|it| it.state() == State::Established)
        };
        if is_up(self.pair.machine(Lane::Ours)) {
            self.ours.as_mut()
        } else if is_up(self.pair.machine(Lane::Theirs)) {
            self.theirs.as_mut()
        } else {
            None
        }
    }

    fn send_routes(&mut self, number: Number, batch: &[Outgoing]) {
        if number != self.number {
            return;
        }
        let Some(connection) = self.established() else { return };
        let mut total = Queued::default();
        for outgoing in batch {
            let queued = connection.queue_routes(outgoing);
            total.updates += queued.updates;
            total.marks += queued.marks;
        }
        connection.has_batch = true;
        self.counters.count_routes_sent(total);
        self.flush_all();
    }

    fn incoming(&mut self, stream: std::net::TcpStream, remote: SocketAddr) {
        let adopted = TcpStream::from_std(stream)
            .and_then(|stream| self.settings.endpoint.adopt(&stream).map(|()| stream));
        let stream = match adopted {
            Ok(stream) => stream,
            Err(error) => {
                let trouble = format!("prepare the connection of {remote}: {error}");
                self.pending.push_back(Report::Trouble(trouble));
                return;
            }
        };
        let restarts = self.established().and_then(|connection| connection.negotiated.as_ref()).is_some_and(
            |negotiated| {
                negotiated.graceful_restart.as_ref().is_some_and(|restart| !restart.families.is_empty())
            },
        );
        let replaces = if restarts { Replaces::Session } else { Replaces::Nothing };
        let (taken, actions) = self.pair.incoming(replaces, Instant::now());
        let split =
            actions.iter().position(|(lane, action)| (*lane, action) == (Lane::Theirs, &Action::SendOpen));
        let mut actions = actions;
        let opening = actions.split_off(split.unwrap_or(actions.len()));
        self.act(actions);
        if taken == Incoming::Taken {
            if self.settings.endpoint.address == NOWHERE {
                self.settings.endpoint.address = remote.ip();
            }
            self.theirs = Some(Connection::new(stream));
        }
        self.act(opening);
    }

    fn attempted(&mut self, result: Result<TcpStream, ConnectError>) {
        self.attempt = None;
        let event = match result {
            Ok(stream) => {
                self.ours = Some(Connection::new(stream));
                Event::TcpConnectionAcked
            }
            Err(error) => {
                self.pending.push_back(Report::Trouble(with_causes(&error)));
                Event::TcpConnectionFails
            }
        };
        let actions = self.pair.step(Lane::Ours, event, Instant::now());
        self.act(actions);
    }

    /// Reads, understands and answers what is there on a connection, and writes what can be written.
    fn serve(&mut self, lane: Lane, want: Want) {
        let Some(connection) = self.connection(lane) else { return };
        let broken = connection.flush().is_err();
        let ended = want == Want::Read && connection.read().is_err();
        if want == Want::Read {
            self.understand(lane);
        }
        if (broken || ended) && self.connection(lane).is_some() {
            let event = self.last_word(lane).map_or(Event::TcpConnectionFails, Event::Notification);
            let actions = self.pair.step(lane, event, Instant::now());
            self.act(actions);
            // In a state without a connection the machine has nothing to drop.
            *self.connection(lane) = None;
        }
        self.flush_all();
    }

    /// Why the peer has closed a connection whose OPEN waited: what it said behind that was not read.
    fn last_word(&mut self, lane: Lane) -> Option<Notification> {
        if self.pair.waiting() != Some(lane) {
            return None;
        }
        let connection = self.connection(lane).as_mut()?;
        while let Ok(Some(message)) = connection.next() {
            if let Message::Notification(text) = message {
                self.counters.count_received(&Message::Notification(text.clone()));
                self.pending.push_back(Report::Trouble(format!("the peer says: {text}")));
                return Some(text);
            }
        }
        None
    }

    /// Takes all whole messages out of a connection's buffer.
    fn understand(&mut self, lane: Lane) {
        let now = Instant::now();
        let mut updates: Vec<Update> = Vec::new();
        while self.pair.waiting() != Some(lane)
            && let Some(connection) = self.connection(lane)
        {
            let event = match connection.next() {
                Ok(Some(message)) => {
                    self.counters.count_received(&message);
                    match message {
                        Message::Update(update) => {
                            let is_up =
                                self.pair.machine(lane).is_some_and(|it| it.state() == State::Established);
                            if is_up {
                                updates.push(update);
                            }
                            Event::Update
                        }
                        Message::Keepalive => Event::Keepalive,
                        Message::Notification(text) => {
                            self.left_out.extend(disliked(&text));
                            self.pending.push_back(Report::Trouble(format!("the peer says: {text}")));
                            if (text.code, text.subcode) == (2, 1) {
                                Event::NotificationVersionError(text)
                            } else {
                                Event::Notification(text)
                            }
                        }
                        Message::RouteRefresh(refresh) => {
                            let is_up =
                                self.pair.machine(lane).is_some_and(|it| it.state() == State::Established);
                            if is_up {
                                self.report_updates(&mut updates);
                                self.pending.push_back(Report::Refresh(refresh));
                            }
                            Event::RouteRefresh
                        }
                        Message::Open(open) => {
                            self.opened(lane, open, now);
                            continue;
                        }
                    }
                }
                Ok(None) => break,
                Err(text) => match text.code {
                    2 => Event::OpenError(text),
                    3 | 7 => Event::UpdateError(text),
                    _ => Event::HeaderError(text),
                },
            };
            let actions = self.pair.step(lane, event, now);
            if !actions.is_empty() {
                self.report_updates(&mut updates);
                self.act(actions);
            }
        }
        self.report_updates(&mut updates);
        if let Some(connection) = self.connection(lane) {
            connection.rest();
        }
    }

    fn report_updates(&mut self, updates: &mut Vec<Update>) {
        if !updates.is_empty() {
            self.pending.push_back(Report::Updates(std::mem::take(updates)));
        }
    }

    fn opened(&mut self, lane: Lane, open: Open, now: Instant) {
        let offer = self.offer();
        let ours = Identity { router_id: offer.router_id, asn: offer.asn };
        let theirs = Identity { router_id: open.router_id, asn: open.asn };
        let result = if is_expected(self.settings.expected, offer.asn, open.asn) {
            Negotiated::of(&offer, &open)
        } else {
            Err(Notification::bad_peer_as())
        };
        let actions = match result {
            Ok(negotiated) => {
                let hold_time = Duration::from_secs(negotiated.hold_time.into());
                if let Some(connection) = self.connection(lane) {
                    connection.codec = Codec::new(&negotiated);
                    connection.negotiated = Some(negotiated);
                }
                let actions = self.pair.open(lane, hold_time, ours, theirs, now);
                self.waited = self.waited.or(self.pair.waiting());
                actions
            }
            Err(text) => {
                self.pending.push_back(Report::Trouble(format!("the peer's OPEN: {text}")));
                self.pair.step(lane, Event::OpenError(text), now)
            }
        };
        self.act(actions);
    }

    /// Our OPEN, without what the peer did not take.
    fn offer(&self) -> Open {
        let mut offer = self.settings.offer.clone();
        leave_out(&mut offer.capabilities, &self.left_out);
        offer
    }

    fn act(&mut self, actions: Vec<(Lane, Action)>) {
        for (lane, action) in actions {
            match action {
                Action::Connect => {
                    let endpoint = self.settings.endpoint.clone();
                    self.attempt =
                        (endpoint.address != NOWHERE).then(|| Box::pin(endpoint.connect()) as Attempt);
                }
                Action::SendOpen => self.send(lane, &Message::Open(self.offer())),
                Action::SendKeepalive => self.send(lane, &Message::Keepalive),
                Action::SendNotification(text) => {
                    self.pending.push_back(Report::Trouble(format!("told the peer: {text}")));
                    self.send(lane, &Message::Notification(text));
                }
                Action::Drop => self.drop_connection(lane),
                Action::Up => self.up(lane),
                Action::Down(cause) => self.down(cause),
            }
        }
        self.flush_all();
    }

    fn send(&mut self, lane: Lane, message: &Message) {
        self.counters.count_sent(message);
        if let Some(connection) = self.connection(lane) {
            connection.queue(message);
        }
    }

    fn drop_connection(&mut self, lane: Lane) {
        if lane == Lane::Ours {
            self.attempt = None;
        }
        if let Some(mut connection) = self.connection(lane).take()
            && connection.flush().is_ok()
            && self.lingering.len() < LINGERING
        {
            self.lingering.spawn(connection.linger());
        }
    }

    fn up(&mut self, lane: Lane) {
        self.number += 1;
        let number = self.number;
        let Some(connection) = self.connection(lane) else { return };
        let (Ok(local), Ok(remote)) = (connection.stream.local_addr(), connection.stream.peer_addr()) else {
            // The connection is gone, which the next read tells.
            return;
        };
        let negotiated = connection.negotiated.clone().expect("a session is up after both OPENs");
        let opens = connection.opens.clone();
        // First, so that nobody sees an established session of which nothing is known.
        let session = Established { number, negotiated, local, remote, opens };
        self.pending.push_back(Report::Up(Box::new(session)));
        self.pending.push_back(Report::State(State::Established));
        self.told_state = State::Established;
    }

    fn down(&mut self, cause: Cause) {
        self.pending.push_back(Report::Down(cause));
    }

    /// Writes, and says so when the kernel has taken a batch.
    fn flush_all(&mut self) {
        let number = self.number;
        let mut ready = false;
        for connection in [&mut self.ours, &mut self.theirs].into_iter().flatten() {
            // A broken connection is seen when it is read.
            if connection.flush().is_ok() && connection.has_batch && connection.is_flushed() {
                connection.has_batch = false;
                ready = true;
            }
        }
        if ready {
            self.pending.push_back(Report::Ready(number));
        }
    }
}

/// What a task of a peer was woken by.
enum Woken {
    Timer,
    Command(Option<Command>),
    Attempted(Result<TcpStream, ConnectError>),
    Ready(Lane),
}

async fn at(next: Option<tokio::time::Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next).await,
        None => std::future::pending().await,
    }
}

async fn attempted(attempt: &mut Option<Attempt>) -> Result<TcpStream, ConnectError> {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

async fn ready(connection: Option<&Connection>, want: Want) {
    match connection {
        Some(connection) => connection.ready(want).await,
        None => std::future::pending().await,
    }
}

fn is_expected(expected: PeerAsn, ours: Asn, theirs: Asn) -> bool {
    match expected {
        PeerAsn::Number(number) => theirs.0 == number,
        PeerAsn::Internal => theirs == ours,
        PeerAsn::External => theirs != ours,
        PeerAsn::Any => true,
    }
}
