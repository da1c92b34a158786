// SPDX-License-Identifier: Apache-2.0
//! The speaker: one task that owns the tables and the configuration, and joins all others.
//!
//! ```text
//!   agent, command line ── requests ──►│            │── commands, batches ─► tasks of peers ─► sockets
//!   listening sockets ── accepted ────►│   owner    │◄─ reports ──────────── tasks of peers
//!   BFD's thread ── changes ──────────►│  (Ribs)    │── routes ────────────► kernel
//!   state file ── at the start ───────►│            │── what is ───────────► board ─► agent
//! ```
//!
//! The tasks of peers have a thread of their own (`SessionThread`), and BFD has one: what the owner does with routes
//! delays neither a KEEPALIVE nor the reading of one. Between two reports the owner lets all else on its thread run.

mod addresses;
mod answer;
mod apply;
mod bfd;
mod drain;
mod forwarding;
mod listeners;
mod peer;
mod reports;
mod restart;
mod settings;
mod state_file;
mod stations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rhumb_bgp_feed::server::{self, Notice, Request};
use rhumb_bgp_feed::{Board, PeerKey, Snapshot};
use rhumb_model::{Family, Timestamp};
use rhumb_routing::{Namespaces, Netlink};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::bmp::Line;
use crate::rib::{Change, Rib, StationId};
use crate::session::{Heard, Report, SessionThread, TaskId, discover, with_causes};
use addresses::Links;
use drain::Drain;
use forwarding::Kernel;
use listeners::{Accepted, Listeners};
use peer::Peer;
use restart::LastRun;
use state_file::{StateError, StateFile};
use stations::Stations;

/// Reports of all peers that may wait; with more, peers are read from more slowly.
const REPORTS: usize = 64;
/// Connections that may wait to be given to their peer.
const ACCEPTED: usize = 64;
/// Requests of the feed that may wait.
const REQUESTS: usize = 16;
/// Changes of BFD that may wait: a few for each peer.
const BFD_EVENTS: usize = 1024;
/// How long the agent and peers that restart are waited for before what there is counts as all there is, where the
/// configuration says no longer time.
const SETTLE: Duration = Duration::from_secs(120);
/// Least time between two reports of how it stands with a peer.
const PUBLISH: Duration = Duration::from_millis(500);
/// Least time between two savings of what only has other routes. Other sessions are saved at once.
const SAVE: Duration = Duration::from_millis(500);
/// How long a session waits for its BFD after a restart: longer than BFD, which begins with a packet a second, takes to
/// come up. A peer that has none is kept waiting once for as long.
const BFD_FIRST: Duration = Duration::from_secs(10);
/// How often a listening address that cannot be used is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// How the speaker is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the agent and the command line connect; `None`: nowhere.
    pub socket: Option<PathBuf>,
    /// Where the last configuration is kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// A configuration to begin with, in the form of the feed's snapshot.
    pub config: Option<PathBuf>,
    /// Routing table for learned routes; `None`: they are put into none.
    pub table: Option<u32>,
    /// The host's name, told to peers.
    pub host: String,
}

/// Why the speaker does not run.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The configuration of `--config`.
    #[error("read {path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// The same.
    #[error("understand {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The state directory.
    #[error("use the state directory")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The socket of the feed.
    #[error("listen at {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's addresses and routes.
    #[error("open netlink")]
    Netlink(#[from] rhumb_routing::kernel::KernelError),
    /// BFD's thread.
    #[error("start BFD")]
    Bfd(#[from] rhumb_bfd::StartError),
    /// The thread of the sessions.
    #[error("start the thread of the sessions")]
    Sessions(#[source] std::io::Error),
}

/// The owner of everything.
pub struct Speaker {
    options: Options,
    netlink: Netlink,
    links: Links,
    snapshot: Snapshot,
    ribs: BTreeMap<String, Rib>,
    peers: BTreeMap<PeerKey, Peer>,
    tasks: BTreeMap<TaskId, PeerKey>,
    last_task: TaskId,
    running: JoinSet<()>,
    sessions: SessionThread,
    reports: mpsc::Sender<(TaskId, Report)>,
    listeners: Listeners,
    listen_again: Option<Instant>,
    board: Board,
    state: Option<StateFile>,
    save_at: Option<Instant>,
    saved_at: Option<Instant>,
    publish_at: Option<Instant>,
    /// What is told to peers of our last run.
    last: LastRun,
    /// The agent has said all that it wants, in this run.
    fed: bool,
    /// Routes are final: End-of-RIB is told, and what is stale in the kernel goes.
    settled: bool,
    settle_by: Instant,
    drain: Option<Drain>,
    bfd: rhumb_bfd::Bfd,
    kernel: Option<Kernel>,
    /// Until when sessions wait for their BFD, after a restart.
    bfd_by: Option<Instant>,
    /// What the kernel has of instances that are gone.
    left: Vec<Change>,
    /// The kernel does not know yet which next hops are in use.
    hops_changed: bool,
    /// Links on which a router is to be found.
    unnumbered: watch::Sender<BTreeSet<u32>>,
    stations: Stations,
    station_lines: mpsc::Sender<(StationId, Line)>,
}

/// The ends of channels that the owner listens to.
struct Inputs {
    reports: mpsc::Receiver<(TaskId, Report)>,
    accepted: mpsc::Receiver<Accepted>,
    routers: mpsc::Receiver<Heard>,
    requests: mpsc::Receiver<Request>,
    bfd: mpsc::Receiver<rhumb_bfd::Event>,
    stations: mpsc::Receiver<(StationId, Line)>,
}

/// Runs the speaker until `stop` says so. `ready` is called when everything is open.
///
/// # Errors
/// When it cannot begin.
pub async fn run(
    options: Options,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<(), SpeakerError> {
    let (requests_in, requests) = mpsc::channel(REQUESTS);
    let (mut speaker, inputs) = Speaker::new(options, requests)?;
    let mut serving = JoinSet::new();
    // Without a socket the sender lives on here, so that the owner sees no closed channel.
    let mut unused = Some(requests_in);
    if let Some(path) = &speaker.options.socket {
        let listener =
            server::listen(path).map_err(|source| SpeakerError::Socket { path: path.clone(), source })?;
        if let Some(requests) = unused.take() {
            let software = concat!("rhumb-bgp ", env!("CARGO_PKG_VERSION")).to_owned();
            serving.spawn(server::serve(listener, speaker.board.clone(), software, requests, log_notice));
        }
    }
    speaker.begin().await?;
    ready();
    speaker.work(inputs, stop).await;
    drop(unused);
    Ok(())
}

fn log_notice(notice: Notice) {
    match notice {
        Notice::Fed(software) => info!(%software, "the agent is here"),
        Notice::Refused(why) => warn!(%why, "a client was not let in"),
        Notice::Failed(error) => debug!(%error, "a connection of the feed ended"),
    }
}

impl Speaker {
    fn new(options: Options, requests: mpsc::Receiver<Request>) -> Result<(Self, Inputs), SpeakerError> {
        let (reports_in, reports) = mpsc::channel(REPORTS);
        let (accepted_in, accepted) = mpsc::channel(ACCEPTED);
        let (bfd_in, bfd) = mpsc::channel(BFD_EVENTS);
        let (routers_in, routers) = mpsc::channel(ACCEPTED);
        let (unnumbered, links) = watch::channel(BTreeSet::new());
        let (station_lines, stations) = mpsc::channel(ACCEPTED);
        let netlink = Netlink::new(Namespaces::new())?;
        let state_error = |error: StateError| SpeakerError::State(Box::new(error));
        let state = options.state_dir.as_deref().map(StateFile::open).transpose().map_err(state_error)?;
        let thread = rhumb_bfd::Bfd::start(move |event| {
            if bfd_in.try_send(event).is_err() {
                warn!("changes of BFD come faster than they are worked off");
            }
        })?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            if let Err(error) = discover(links, routers_in).await {
                warn!(%error, "routers on links without numbers cannot be found");
            }
        });
        let kernel = options.table.map(|table| Kernel::open(table, &mut running)).transpose()?;
        let speaker = Speaker {
            options,
            netlink,
            links: Links::default(),
            snapshot: Snapshot::default(),
            ribs: BTreeMap::new(),
            peers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            last_task: 0,
            running,
            sessions: SessionThread::start().map_err(SpeakerError::Sessions)?,
            reports: reports_in,
            listeners: Listeners::new(accepted_in),
            listen_again: None,
            board: Board::default(),
            state,
            save_at: None,
            saved_at: None,
            publish_at: None,
            last: LastRun::default(),
            fed: false,
            settled: false,
            settle_by: Instant::now() + SETTLE,
            drain: None,
            bfd: thread,
            kernel,
            bfd_by: None,
            left: Vec::new(),
            hops_changed: false,
            unnumbered,
            stations: Stations::default(),
            station_lines,
        };
        Ok((speaker, Inputs { reports, accepted, routers, requests, bfd, stations }))
    }

    /// Takes the configuration of before, or of the command line.
    async fn begin(&mut self) -> Result<(), SpeakerError> {
        self.look_at_links().await;
        let saved = match self.state.as_ref().map(StateFile::load).transpose() {
            Ok(saved) => saved.flatten(),
            Err(error) => {
                // The agent says it again; a file that cannot be read must not keep the node from its peers.
                warn!(error = %with_causes(&error), "begin without the last configuration");
                None
            }
        };
        let kept = match &mut self.kernel {
            Some(kernel) => kernel.kept().await,
            None => 0,
        };
        if let Some(saved) = &saved {
            // Where nothing is learned, packets go where they go without us.
            let learns = saved.snapshot.instances.iter().flat_map(|instance| &instance.peers);
            let learns = learns.into_iter().any(|peer| !peer.import.rules.is_empty());
            let forwarding = saved.same_boot && (kept > 0 || !learns || self.kernel.is_none());
            self.last = LastRun { restarted: true, forwarding };
            let (first, longest) = restart::times(&saved.snapshot);
            let now = Instant::now();
            self.settle_by = now + longest.unwrap_or(SETTLE);
            self.bfd_by = first.map(|first| now + first.min(BFD_FIRST));
        }
        if let Some(path) = self.options.config.clone() {
            let text =
                std::fs::read(&path).map_err(|source| SpeakerError::Config { path: path.clone(), source })?;
            let snapshot =
                serde_json::from_slice(&text).map_err(|source| SpeakerError::Parse { path, source })?;
            self.fed = true;
            self.apply(snapshot);
        } else if let Some(saved) = saved {
            info!(revision = %saved.snapshot.revision, "begin with the last configuration");
            self.apply(saved.snapshot);
        }
        self.settle(Instant::now());
        Ok(())
    }

    async fn work(&mut self, mut inputs: Inputs, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            self.pump();
            self.pump_stations();
            let is_more = self.forward();
            let next = self.next_deadline().map(tokio::time::Instant::from_std);
            let (mut kernel_state, orders) = match &self.kernel {
                Some(kernel) => (Some(kernel.state.clone()), kernel.is_behind.then(|| kernel.orders())),
                None => (None, None),
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                } => self.tick().await,
                Some(event) = inputs.bfd.recv() => self.bfd_changed(&event),
                Some(request) = inputs.requests.recv() => self.serve(request).await,
                Some(accepted) = inputs.accepted.recv() => self.accept(accepted),
                Some(heard) = inputs.routers.recv() => self.found(heard),
                Some((station, line)) = inputs.stations.recv() => self.station_said(station, line),
                Some((task, report)) = inputs.reports.recv() => {
                    self.report(task, report).await;
                    tokio::task::yield_now().await;
                }
                () = changed(kernel_state.as_mut()) => self.kernel_changed(),
                () = has_room(orders.as_ref()) => {}
                () = tokio::task::yield_now(), if is_more => {}
                Some(_) = self.running.join_next() => {}
            }
        }
        self.leave().await;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let kept = self.peers.values().flat_map(|peer| peer.kept.values()).map(|kept| kept.until);
        let owes_sweep = self.kernel.as_ref().is_some_and(|kernel| kernel.owes_sweep);
        let settle =
            (!self.settled || (owes_sweep && Instant::now() < self.settle_by)).then_some(self.settle_by);
        let drain = self.drain.as_ref().and_then(Drain::next);
        [self.save_at, self.publish_at, settle, drain, self.listen_again, self.bfd_by, self.stations.next()]
            .into_iter()
            .flatten()
            .chain(kept)
            .min()
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        if due(&self.save_at) {
            self.save();
        }
        if due(&self.publish_at) {
            self.publish();
        }
        if due(&self.listen_again) {
            self.look_at_links().await;
            self.listen();
        }
        if due(&self.bfd_by) {
            self.bfd_by = None;
            let keys: Vec<PeerKey> = self.peers.keys().cloned().collect();
            keys.iter().for_each(|key| self.start_peer(key));
        }
        self.sweep(now);
        self.settle(now);
        self.drain_on(now);
    }

    /// Routes of peers that did not come back in time go, or become a last resort.
    fn sweep(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            let due: Vec<Family> =
                peer.kept.iter().filter(|(_, kept)| kept.until <= now).map(|(family, _)| *family).collect();
            let Some(rib) = self.ribs.get_mut(&peer.instance) else { continue };
            for family in due {
                let Some(kept) = peer.kept.remove(&family) else { continue };
                match kept.next() {
                    Some(next) => {
                        info!(peer = %peer.config.key, %family, "the peer is not back in time: its routes are a last resort");
                        rib.keep_long(peer.id, family);
                        peer.kept.insert(family, next);
                    }
                    None => {
                        info!(peer = %peer.config.key, %family, "the peer is not back in time: its routes go");
                        rib.sweep_stale(peer.id, family);
                        if kept.is_last_resort && peer.session.is_some() {
                            peer.over.insert(family);
                        }
                    }
                }
                peer.is_changed = true;
                self.publish_at.get_or_insert(now);
            }
        }
    }

    /// Decides whether what there is is all there is: the agent was heard, and after a restart the peers as well.
    fn settle(&mut self, now: Instant) {
        if self.settled {
            return;
        }
        let in_time = now < self.settle_by;
        let awaited = self.last.restarted && self.peers.values().any(Peer::is_awaited);
        if in_time && (!self.fed || awaited) {
            return;
        }
        info!(in_time, "routes are complete");
        self.settled = true;
        if let Some(kernel) = &mut self.kernel {
            kernel.owes_sweep = true;
        }
        for rib in self.ribs.values_mut() {
            rib.set_synced();
        }
        if self.last.restarted {
            self.last = LastRun::default();
            self.renew_offers();
        }
    }

    /// Writes down what a restart has to know. It outlives the process at once; for the disk nobody waits here.
    fn save(&mut self) {
        self.save_at = None;
        let Some(state) = &self.state else { return };
        self.saved_at = Some(Instant::now());
        match state.save(&self.snapshot) {
            Ok(()) => {
                let state = state.clone();
                self.running.spawn(async move {
                    let synced = tokio::task::spawn_blocking(move || state.sync()).await;
                    if let Ok(Err(error)) = synced {
                        warn!(error = %with_causes(&error), "the configuration is not on the disk");
                    }
                });
            }
            Err(error) => {
                warn!(error = %with_causes(&error), "the configuration is not saved");
                self.save_at = Some(Instant::now() + LISTEN_AGAIN);
            }
        }
    }

    fn publish(&mut self) {
        self.publish_at = None;
        for peer in self.peers.values_mut() {
            if std::mem::take(&mut peer.is_changed)
                && let Some(rib) = self.ribs.get(&peer.instance)
            {
                self.board.put_peer(peer.published(rib));
            }
        }
    }

    /// Notes that a peer's published state is not true any more.
    fn changed(&mut self, key: &PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.is_changed = true;
            self.publish_at.get_or_insert(Instant::now() + PUBLISH);
        }
    }

    async fn look_at_links(&mut self) {
        match rhumb_routing::host::addressed_links(&self.netlink).await {
            Ok(links) => self.links = Links::of(links),
            Err(error) => warn!(%error, "own addresses are not known"),
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Snapshot { snapshot, reply } => {
                self.look_at_links().await;
                self.fed = true;
                self.apply(*snapshot);
                answer(reply, Ok(()));
                self.settle(Instant::now());
            }
            Request::Delta { delta, reply } => {
                let mut next = self.snapshot.clone();
                let applied = next.apply(delta).map_err(|error| error.to_string());
                if applied.is_ok() {
                    self.apply(next);
                }
                answer(reply, applied);
            }
            Request::Ask { question, reply } => self.ask(question, reply),
        }
    }

    /// SIGTERM: peers with graceful restart keep our routes because nothing is said; the others are told.
    async fn leave(&mut self) {
        if self.save_at.is_some() {
            self.save();
        }
        self.close_stations();
        self.say_goodbye().await;
    }
}

/// Waits until the kernel's task says something new.
async fn changed(state: Option<&mut watch::Receiver<crate::kernel::State>>) {
    if let Some(state) = state
        && state.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Waits until the kernel's task takes an order.
async fn has_room(orders: Option<&mpsc::Sender<crate::kernel::Order>>) {
    match orders {
        Some(orders) => Kernel::has_room(orders).await,
        None => std::future::pending().await,
    }
}

/// Whoever asked may be gone, and then nobody misses the answer.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
