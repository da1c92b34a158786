// SPDX-License-Identifier: Apache-2.0
//! From the configuration that is to the one that is wanted: only what differs is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::{PeerAddress, PeerKey, Secret, Snapshot};
use rhumb_model::{Family, Prefix};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::peer::Peer;
use super::{LISTEN_AGAIN, SAVE, Speaker, bfd, now, settings};
use crate::fsm::State;
use crate::rib::{Leave, Rib, TooManyPrefixes};
use crate::session::{Command, Counters, Heard, NOWHERE, Session, Settings, listener_prefix};
use crate::wire::{Cease, Notification};

/// How long a peer that told too many routes is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(300);
/// Commands that may wait for a peer's task, which takes them as they come.
const COMMANDS: usize = 64;

impl Speaker {
    /// Takes a configuration over.
    pub(super) fn apply(&mut self, next: Snapshot) {
        let old = std::mem::replace(&mut self.snapshot, next);
        let next = std::mem::take(&mut self.snapshot);
        let wanted: BTreeSet<&str> = next.instances.iter().map(|instance| instance.name.as_str()).collect();
        for gone in old.instances.iter().filter(|instance| !wanted.contains(instance.name.as_str())) {
            self.remove_instance(&gone.name);
        }
        for instance in &next.instances {
            let before = old.instance(&instance.name);
            // Another AS or identifier makes another speaker.
            let same = |old: &feed::Instance| (old.asn, old.router_id) == (instance.asn, instance.router_id);
            if before.is_some_and(|before| !same(before)) {
                self.remove_instance(&instance.name);
            }
            self.put_instance(instance, before.filter(|before| same(before)));
        }
        let is_other = next != old;
        let other_sessions = !settings::same_sessions(&old, &next);
        self.snapshot = next;
        if is_other {
            let now = Instant::now();
            match self.saved_at.map(|saved| saved + SAVE).filter(|next| !other_sessions && *next > now) {
                // A service after the other comes and goes: not every one of them is a file.
                Some(next) => drop(self.save_at.get_or_insert(next)),
                None => self.save(),
            }
        }
        self.listen();
        self.drained();
    }

    fn remove_instance(&mut self, name: &str) {
        let peers: Vec<PeerKey> = self
            .peers
            .values()
            .filter(|peer| peer.instance == name)
            .map(|peer| peer.config.key.clone())
            .collect();
        for key in peers {
            self.remove_peer(&key);
        }
        self.put_stations(name, &[]);
        if let Some(mut rib) = self.ribs.remove(name) {
            rib.set_local([]);
            for change in rib.changes() {
                self.board.remove_learned(name, change.prefix);
                self.left.push(change);
            }
        }
        info!(instance = name, "instance removed");
    }

    fn put_instance(&mut self, instance: &feed::Instance, before: Option<&feed::Instance>) {
        let (settled, tracks) = (self.settled, self.kernel.is_some());
        let rib = self.ribs.entry(instance.name.clone()).or_insert_with(|| {
            let mut rib = Rib::new(settings::rib(instance, tracks));
            if settled {
                rib.set_synced();
            }
            rib
        });
        rib.set(settings::rib(instance, tracks));
        self.put_stations(&instance.name, &instance.stations);
        let kept: BTreeSet<&PeerKey> = instance.peers.iter().map(|peer| &peer.key).collect();
        let gone: Vec<PeerKey> = self
            .peers
            .values()
            .filter(|peer| peer.instance == instance.name && !kept.contains(&peer.config.key))
            .map(|peer| peer.config.key.clone())
            .collect();
        for key in gone {
            self.remove_peer(&key);
        }
        // Routes first: a new session then begins with all of them.
        if before.is_none_or(|before| before.routes != instance.routes)
            && let Some(rib) = self.ribs.get_mut(&instance.name)
        {
            rib.set_local(instance.routes.iter().cloned());
        }
        for peer in &instance.peers {
            match self.peers.get(&peer.key) {
                Some(known) if known.instance == instance.name => self.change_peer(instance, peer),
                Some(_) => {
                    self.remove_peer(&peer.key);
                    self.add_peer(instance, peer);
                }
                None => self.add_peer(instance, peer),
            }
        }
    }

    fn add_peer(&mut self, instance: &feed::Instance, config: &feed::Peer) {
        let Some(rib) = self.ribs.get_mut(&instance.name) else { return };
        let id = rib.peer(&config.key);
        rib.set_policy(id, &config.import, &config.export);
        rib.set_leave(id, self.drain.as_ref().map_or(Leave::Stay, super::Drain::leave));
        let settings = settings::session(instance, config, self.last, &self.options.host, &self.links);
        self.last_task += 1;
        let task = self.last_task;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let counters = Arc::new(Counters::default());
        let session = Session::new(task, settings.clone(), inbox, self.reports.clone(), counters.clone());
        self.sessions.spawn(session, &mut self.running);
        self.tasks.insert(task, config.key.clone());
        let peer = Peer {
            instance: instance.name.clone(),
            id,
            config: config.clone(),
            settings,
            task,
            commands,
            counters,
            state: State::Idle,
            since: now(),
            session: None,
            can_take: false,
            has_news: false,
            ended: BTreeSet::new(),
            kept: BTreeMap::new(),
            over: BTreeSet::new(),
            is_refused: false,
            established_count: 0,
            last_error: None,
            bfd: None,
            last_end: None,
            withdrawn_by_errors: 0,
            is_changed: true,
        };
        info!(peer = %config.key, address = %config.address, "peer added");
        self.peers.insert(config.key.clone(), peer);
        self.watch(&config.key);
        self.start_peer(&config.key);
        self.changed(&config.key);
    }

    fn remove_peer(&mut self, key: &PeerKey) {
        let Some(peer) = self.peers.remove(key) else { return };
        self.tasks.remove(&peer.task);
        peer.command(Command::Stop { text: Notification::cease(Cease::PeerDeconfigured), again: None });
        if let Some(watched) = &peer.bfd {
            self.bfd.remove(&watched.key);
        }
        if let Some(rib) = self.ribs.get_mut(&peer.instance) {
            rib.peer_down(peer.id, &BTreeSet::new());
            rib.set_policy(peer.id, &feed::Policy::default(), &feed::Policy::default());
        }
        self.board.remove_peer(key);
        info!(peer = %key, "peer removed");
    }

    fn change_peer(&mut self, instance: &feed::Instance, config: &feed::Peer) {
        let settings = settings::session(instance, config, self.last, &self.options.host, &self.links);
        let (Some(peer), Some(rib)) = (self.peers.get_mut(&config.key), self.ribs.get_mut(&instance.name))
        else {
            return;
        };
        rib.set_policy(peer.id, &config.import, &config.export);
        let settings = with_found(settings, peer);
        if peer.config == *config && peer.settings == settings {
            return;
        }
        let old = std::mem::replace(&mut peer.config, config.clone());
        peer.is_changed = true;
        if peer.settings != settings {
            peer.settings = settings.clone();
            peer.command(Command::Set(Box::new(settings)));
        }
        if settings::must_reset(&old, config) {
            info!(peer = %config.key, "settings of a session changed: it begins anew");
            peer.stop(Notification::cease(Cease::OtherConfigurationChange), Some(Duration::ZERO));
        } else {
            let handling = settings::handling(config);
            if let Err(error) = rib.set_handling(peer.id, handling) {
                peer.refuse(&error);
            } else if peer.is_refused && !settings::same_limits(&old, config) {
                info!(peer = %config.key, "the limit of routes is another: the peer is tried again");
                peer.is_refused = false;
                peer.command(Command::Start);
            }
        }
        if old.bfd != config.bfd || old.address != config.address {
            self.watch(&config.key);
        }
        if old.shutdown != config.shutdown {
            self.start_peer(&config.key);
        }
        self.changed(&config.key);
    }

    /// Tells all tasks what they offer from the next OPEN on.
    pub(super) fn renew_offers(&mut self) {
        let snapshot = std::mem::take(&mut self.snapshot);
        for instance in &snapshot.instances {
            for config in &instance.peers {
                let settings =
                    settings::session(instance, config, self.last, &self.options.host, &self.links);
                if let Some(peer) = self.peers.get_mut(&config.key)
                    && let settings = with_found(settings, peer)
                    && peer.settings != settings
                {
                    peer.settings = settings.clone();
                    peer.command(Command::Set(Box::new(settings)));
                }
            }
        }
        self.snapshot = snapshot;
    }

    /// Begins to try a peer, or ends it, as its configuration, BFD and a drain say.
    pub(super) fn start_peer(&mut self, key: &PeerKey) {
        let is_drained = self.drain.as_ref().is_some_and(super::Drain::is_closed);
        let Some(peer) = self.peers.get(key) else { return };
        if let Some(shutdown) = &peer.config.shutdown {
            peer.stop(Notification::cease_because(Cease::AdministrativeShutdown, &shutdown.reason), None);
        } else if !is_drained && !peer.is_held_by_bfd(self.bfd_by.is_some()) {
            peer.command(Command::Start);
        }
    }

    /// Has BFD watch a peer as its configuration says.
    pub(super) fn watch(&mut self, key: &PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let wanted = peer.config.bfd.as_ref().and_then(|wish| {
            let config = bfd::config(wish)
                .inspect_err(|error| warn!(peer = %peer.config.key, %error, "BFD is not used"))
                .ok()?;
            Some((bfd::key(peer, wish)?, config))
        });
        if let Some(watched) = &peer.bfd
            && wanted.as_ref().is_none_or(|(key, _)| *key != watched.key)
        {
            self.bfd.remove(&watched.key);
            peer.bfd = None;
        }
        if let Some((key, config)) = wanted {
            self.bfd.add(key.clone(), config);
            peer.bfd.get_or_insert(bfd::Watched { key, state: feed::BfdState::Down });
        }
    }

    /// Opens and closes listening sockets, and puts the keys of all peers on them.
    pub(super) fn listen(&mut self) {
        let wanted: BTreeSet<SocketAddr> =
            self.snapshot.instances.iter().flat_map(|instance| instance.listen.iter().copied()).collect();
        let mut keys: BTreeMap<Prefix, Secret> = BTreeMap::new();
        for peer in self.snapshot.instances.iter().flat_map(|instance| &instance.peers) {
            if let Some(key) = &peer.md5 {
                let address = match &peer.address {
                    PeerAddress::Ip(address) => Some(*address),
                    PeerAddress::Scoped { address, .. } => Some((*address).into()),
                    PeerAddress::Interface(_) => None,
                };
                keys.insert(listener_prefix(address), key.clone());
            }
        }
        let missing = self.listeners.set(&wanted, &keys);
        let is_whole = self.look_for_routers();
        self.listen_again = (!missing.is_empty() || !is_whole).then(|| Instant::now() + LISTEN_AGAIN);
    }

    /// Has routers looked for on the links of unnumbered peers; says whether all of these links are there.
    fn look_for_routers(&self) -> bool {
        let peers = self.snapshot.instances.iter().flat_map(|instance| &instance.peers);
        let links: Vec<Option<u32>> = peers
            .filter_map(|peer| match &peer.address {
                PeerAddress::Interface(link) => Some(self.links.index(link)),
                PeerAddress::Ip(_) | PeerAddress::Scoped { .. } => None,
            })
            .collect();
        let is_whole = links.iter().all(Option::is_some);
        let links: BTreeSet<u32> = links.into_iter().flatten().collect();
        self.unnumbered.send_if_modified(|known| std::mem::replace(known, links.clone()) != links);
        is_whole
    }

    /// A router was heard: it is the peer of its link.
    pub(super) fn found(&mut self, (link, address): Heard) {
        let Some(name) = self.links.name(link).cloned() else { return };
        let is_of_link = |peer: &Peer| peer.config.address == PeerAddress::Interface(name.clone());
        let news = |peer: &Peer| peer.session.is_none() && peer.settings.endpoint.address != address;
        let keys: Vec<PeerKey> = self
            .peers
            .values()
            .filter(|peer| is_of_link(peer) && news(peer))
            .map(|peer| peer.config.key.clone())
            .collect();
        for key in keys {
            if let Some(peer) = self.peers.get_mut(&key) {
                info!(peer = %key, %address, "router found");
                peer.settings.endpoint.address = address.into();
                peer.command(Command::Found(address.into()));
            }
            self.watch(&key);
        }
    }
}

/// The address of an unnumbered peer stays known while its link does.
fn with_found(mut settings: Settings, peer: &Peer) -> Settings {
    let (found, wanted) = (&peer.settings.endpoint, &mut settings.endpoint);
    if wanted.address == NOWHERE && found.link == wanted.link {
        wanted.address = found.address;
    }
    settings
}

impl Peer {
    /// Ends its session; after `again` it is tried once more.
    pub(super) fn stop(&self, text: Notification, again: Option<Duration>) {
        self.command(Command::Stop { text, again });
    }

    /// Whether BGP waits for BFD: by the configuration, and after a restart of ours where the peer keeps our routes.
    /// BFD of our last run has to be over for the peer first, else it takes the new BGP session down with it.
    fn is_held_by_bfd(&self, has_restarted: bool) -> bool {
        let is_up = self.bfd.as_ref().is_some_and(|bfd| bfd.state == feed::BfdState::Up);
        let keeps = has_restarted && self.config.graceful_restart.is_some();
        self.config.bfd.as_ref().is_some_and(|bfd| bfd.hold || keeps) && !is_up
    }

    /// Closes the session of a peer that told too many routes, and leaves it alone for a time.
    pub(super) fn refuse(&mut self, error: &TooManyPrefixes) {
        warn!(peer = %self.config.key, %error, "the session is closed");
        self.last_error = Some(error.to_string());
        self.is_refused = true;
        let mut text = Notification::cease(Cease::MaximumPrefixes);
        let family: u8 = if error.family == Family::V4 { 1 } else { 2 };
        text.data = [&[0, family, 1][..], &error.limit.to_be_bytes()].concat();
        self.stop(text, Some(REFUSED_FOR));
    }
}
