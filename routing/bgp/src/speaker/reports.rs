// SPDX-License-Identifier: Apache-2.0
//! What peers, listening sockets and BFD say, and what is told to peers in turn.

use std::time::{Duration, Instant};

use rhumb_bgp_feed::{PeerKey, Shutdown};
use tracing::{debug, info, warn};

use super::listeners::Accepted;
use super::peer::Peer;
use super::stations::LastEnd;
use super::{Speaker, bfd, now, restart, settings};
use crate::fsm::{Cause, State};
use crate::rib::Outgoing;
use crate::session::{Command, Established, Report, TaskId, is_from};
use crate::wire::{Cease, Disposition, Notification, Problem, RefreshKind, RouteRefresh, Update};

/// Prefixes of a batch: some 64 KiB of messages.
const BATCH: usize = 1 << 13;
/// Groups of prefixes of a batch, each of which is a message at least.
const BATCH_GROUPS: usize = 512;
/// How long tasks may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

impl Speaker {
    pub(super) async fn report(&mut self, task: TaskId, report: Report) {
        // What a removed peer's task says last concerns nobody.
        let Some(key) = self.tasks.get(&task).cloned() else { return };
        match report {
            Report::State(state) => {
                if let Some(peer) = self.peers.get_mut(&key) {
                    debug!(peer = %key, state = state.name(), "session");
                    peer.state = state;
                    peer.since = now();
                }
                self.changed(&key);
            }
            Report::Trouble(what) => {
                debug!(peer = %key, %what, "session trouble");
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.last_error = Some(what);
                }
                self.changed(&key);
            }
            Report::Up(session) => self.up(&key, *session).await,
            Report::Down(cause) => self.down(&key, &cause),
            Report::Updates(updates) => self.updates(&key, &updates),
            Report::Refresh(refresh) => self.refresh(&key, refresh),
            Report::Ready(number) => {
                if let Some(peer) = self.peers.get_mut(&key)
                    && peer.session.as_ref().is_some_and(|session| session.number == number)
                {
                    peer.can_take = true;
                }
            }
        }
        self.drained();
    }

    async fn up(&mut self, key: &PeerKey, session: Established) {
        self.look_at_links().await;
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(instance) = self.snapshot.instance(&peer.instance) else { return };
        let Some(rib) = self.ribs.get_mut(&peer.instance) else { return };
        info!(peer = %key, remote = %session.remote, asn = %session.negotiated.peer_asn,
            hold_time = session.negotiated.hold_time, "session established");
        rib.peer_up(peer.id, settings::info(instance, &peer.config, &session, &self.links));
        let before = std::mem::take(&mut peer.kept);
        let mut still = restart::keep_on(&session.negotiated, &before, Instant::now());
        for family in before.keys().filter(|family| !still.contains_key(family)) {
            rib.sweep_stale(peer.id, *family);
        }
        still.retain(|family, _| rib.counts(peer.id, *family).stale > 0);
        peer.kept = still;
        peer.session = Some(session);
        peer.can_take = true;
        peer.has_news = true;
        peer.ended.clear();
        peer.is_refused = false;
        peer.established_count += 1;
        peer.last_error = None;
        self.watch(key);
        self.changed(key);
        self.settle(Instant::now());
    }

    fn down(&mut self, key: &PeerKey, cause: &Cause) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(session) = peer.session.take() else { return };
        peer.last_end = Some(LastEnd(session.number, cause.clone()));
        let longest = peer.config.graceful_restart.map_or(0, |restart| restart.long_lived_stale_time);
        let over = std::mem::take(&mut peer.over);
        let kept = restart::keep(&session.negotiated, cause, &peer.kept, &over, longest, Instant::now());
        warn!(peer = %key, ?cause, kept = kept.len(), "session over");
        if let Some(rib) = self.ribs.get_mut(&peer.instance) {
            rib.peer_down(peer.id, &kept.keys().copied().collect());
        }
        peer.kept = kept;
        peer.can_take = false;
        peer.has_news = false;
        peer.ended.clear();
        self.changed(key);
    }

    fn updates(&mut self, key: &PeerKey, updates: &[Update]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(rib) = self.ribs.get_mut(&peer.instance) else { return };
        if peer.is_refused || peer.session.is_none() {
            return;
        }
        let mut ended = false;
        for update in updates {
            let is_withdrawn = |problem: &Problem| problem.disposition == Disposition::TreatAsWithdraw;
            peer.withdrawn_by_errors += u32::from(update.problems.iter().any(is_withdrawn));
            for problem in &update.problems {
                warn!(peer = %key, %problem, "an UPDATE with an error");
                peer.last_error = Some(format!("an UPDATE with an error: {problem}"));
            }
            if let Some(family) = update.end_of_rib() {
                debug!(peer = %key, %family, "end of routes");
                rib.sweep_stale(peer.id, family);
                peer.kept.remove(&family);
                peer.over.remove(&family);
                peer.ended.insert(family);
                ended = true;
                continue;
            }
            if let Err(error) = rib.update(peer.id, update) {
                peer.refuse(&error);
                break;
            }
        }
        self.changed(key);
        if ended {
            self.settle(Instant::now());
        }
    }

    fn refresh(&mut self, key: &PeerKey, refresh: RouteRefresh) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(rib) = self.ribs.get_mut(&peer.instance) else { return };
        debug!(peer = %key, family = %refresh.family, kind = ?refresh.kind, "route refresh");
        match refresh.kind {
            RefreshKind::Request => rib.refresh(peer.id, refresh.family),
            RefreshKind::Begin => rib.begin_refresh(peer.id, refresh.family),
            RefreshKind::End => rib.sweep_stale(peer.id, refresh.family),
        }
    }

    /// Gives every peer its next batch whose socket takes one.
    pub(super) fn pump(&mut self) {
        for (name, rib) in &mut self.ribs {
            let news = rib.ready();
            for peer in self.peers.values_mut().filter(|peer| peer.instance == *name) {
                peer.has_news |= news.contains(&peer.id);
                if !(peer.has_news && peer.can_take) {
                    continue;
                }
                let Some(number) = peer.session.as_ref().map(|session| session.number) else { continue };
                let mut batch = Vec::new();
                let mut prefixes = 0;
                while prefixes < BATCH && batch.len() < BATCH_GROUPS {
                    let Some(next) = rib.next_update(peer.id) else {
                        peer.has_news = false;
                        break;
                    };
                    prefixes += match &next {
                        Outgoing::Announce { nlri, .. } | Outgoing::Withdraw { nlri, .. } => nlri.len(),
                        Outgoing::EndOfRib(_) | Outgoing::BeginOfRefresh(_) | Outgoing::EndOfRefresh(_) => 1,
                    };
                    batch.push(next);
                }
                if !batch.is_empty() {
                    peer.can_take = false;
                    peer.command(Command::Routes(number, batch));
                    peer.is_changed = true;
                    self.publish_at.get_or_insert(Instant::now() + super::PUBLISH);
                }
            }
        }
    }

    /// A connection goes to the peer that it is from; nobody's is closed without a word.
    pub(super) fn accept(&mut self, accepted: Accepted) {
        let Accepted { listener, stream, remote } = accepted;
        let listens = |instance: &str| {
            self.snapshot.instance(instance).is_some_and(|instance| instance.listen.contains(&listener))
        };
        let link_of = |index: u32| self.links.name(index).cloned();
        let peer = self
            .peers
            .values()
            .find(|peer| listens(&peer.instance) && is_from(&peer.config, remote, link_of));
        match peer {
            Some(peer) => peer.command(Command::Incoming(stream, remote)),
            None => debug!(%remote, %listener, "a connection of nobody's"),
        }
    }

    pub(super) fn bfd_changed(&mut self, event: &rhumb_bfd::Event) {
        let watched = |peer: &Peer| peer.bfd.as_ref().is_some_and(|bfd| bfd.key == event.key);
        let keys: Vec<PeerKey> =
            self.peers.values().filter(|peer| watched(peer)).map(|peer| peer.config.key.clone()).collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let Some(state) = peer.bfd.as_mut().map(|bfd| &mut bfd.state) else { continue };
            *state = bfd::state_after(event.change);
            match event.change {
                rhumb_bfd::Change::Up => {
                    info!(peer = %key, "BFD is up");
                    if peer.state == State::Idle {
                        self.start_peer(&key);
                    }
                }
                rhumb_bfd::Change::Down(diagnostic)
                    if bfd::silence(event.fate, !peer.kept.is_empty()) == bfd::Silence::Restart =>
                {
                    info!(peer = %key, ?diagnostic, "BFD is down with the peer that restarts");
                }
                rhumb_bfd::Change::Down(diagnostic) => {
                    warn!(peer = %key, ?diagnostic, fate = ?event.fate, kept = peer.kept.len(), "BFD is down");
                    if let Some(rib) = self.ribs.get_mut(&peer.instance) {
                        for family in std::mem::take(&mut peer.kept).into_keys() {
                            rib.sweep_stale(peer.id, family);
                        }
                    }
                    let text = Notification::cease(Cease::BfdDown);
                    peer.last_error = Some("BFD is down".to_owned());
                    let holds = peer.config.bfd.is_some_and(|bfd| bfd.hold);
                    peer.stop(text, (!holds).then_some(Duration::ZERO));
                }
                // RFC 5882 §3.2: says nothing about the way to the peer.
                rhumb_bfd::Change::AdminDown => info!(peer = %key, "BFD is down by will"),
            }
            self.changed(&key);
        }
    }

    /// Ends sessions whose peers do not know graceful restart with a word.
    pub(super) async fn say_goodbye(&mut self) {
        let text = Notification::cease_because(Cease::AdministrativeReset, "the speaker restarts");
        for peer in self.peers.values() {
            let keeps = |session: &Established| {
                session.negotiated.graceful_restart.as_ref().is_some_and(|it| !it.families.is_empty())
            };
            if peer.session.as_ref().is_some_and(|session| !keeps(session)) {
                peer.stop(text.clone(), None);
            }
        }
        // Tasks end when their commands do; what was said gets its time to arrive.
        self.peers.clear();
        self.kernel = None;
        let ended = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            warn!("tasks did not end in time");
        }
    }
}

impl Peer {
    /// Whether the kernel may have routes of it from our last run that it has not told again yet.
    pub(super) fn is_unfinished(&self) -> bool {
        if self.config.graceful_restart.is_none() || self.config.shutdown.is_some() {
            return false;
        }
        self.session.as_ref().is_none_or(|session| restart::is_unfinished(&session.negotiated, &self.ended))
    }

    /// Whether routes are not complete before it has told its own, after a restart of ours.
    pub(super) fn is_awaited(&self) -> bool {
        if self.config.graceful_restart.is_none() || matches!(self.config.shutdown, Some(Shutdown { .. })) {
            return false;
        }
        match &self.session {
            Some(session) => restart::is_awaited(&session.negotiated, &self.ended),
            None => true,
        }
    }
}
