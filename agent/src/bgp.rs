// SPDX-License-Identifier: Apache-2.0
//! The agent's part of BGP: keeps the speaker at what objects and the node say, and tells what the speaker says.
//!
//! ```text
//!   store ─ changes ─► objects ─┐
//!   loop ─ Local ─► host facts ─┼─► plan (pure) ─► Snapshot ─► feed's client ═ socket ═ rhumb-bgp
//!   keys ───────────────────────┘                                  │
//!                                          report ◄── events ──────┘
//! ```
//!
//! Nothing is said to the speaker before every kind was seen in full and the datapath of this node was ready once. What it
//! does until then, for example after a restart of the agent alone, it goes on doing.

mod host;
mod inputs;
mod keys;
mod objects;
mod plan;
mod report;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rhumb_api::Store;
use rhumb_bgp_feed::Snapshot;
use rhumb_bgp_feed::client::{self, Event};
use rhumb_model::{NodeName, PodKey, Revision};
use rhumb_routing::Netlink;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::follow;
use crate::node::Input;
use host::HostFacts;
use inputs::Keys;
use objects::{Change, Objects};
use plan::{Plan, Problem, plan};
pub(crate) use report::{Report, Summary};

/// Changes of the store that wait; those who follow it wait when it is full.
const CHANGES: usize = 256;

/// What the speaker says that waits; the speaker waits when it is full.
const EVENTS: usize = 16;

/// Keys of sessions are looked at this often, and so is what notices may have missed.
const REFRESH: Duration = Duration::from_secs(30);

/// The same while a key is not there.
const KEY_RETRY: Duration = Duration::from_secs(2);

/// What the node's loop knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Local {
    /// Whether the datapath forwards.
    pub(crate) ready: bool,
    /// Addresses of this node; the first of each family is its primary one.
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses of this node's pods.
    pub(crate) pods: BTreeMap<PodKey, Vec<IpAddr>>,
    /// How often the node's own links and addresses were looked at.
    pub(crate) looks: u64,
}

/// What the task is made of.
pub(crate) struct Parts<S> {
    pub(crate) store: S,
    pub(crate) node: NodeName,
    pub(crate) host: Netlink,
    pub(crate) local: watch::Receiver<Local>,
    pub(crate) socket: PathBuf,
    pub(crate) report: watch::Sender<Report>,
    /// Hears of what is published in NodeState.
    pub(crate) inbox: mpsc::Sender<Input>,
}

/// Runs until the loop is gone.
pub(crate) async fn run<S: Store + Clone>(parts: Parts<S>) {
    let (changes, heard) = mpsc::channel(CHANGES);
    let (events, told) = mpsc::channel(EVENTS);
    let (wanted, wishes) = watch::channel(None);
    let software = concat!("rhumb-agent ", env!("CARGO_PKG_VERSION")).to_owned();
    let speaking = client::follow(parts.socket.clone(), software, wishes, events);
    let store = parts.store.clone();
    let (wants_any, mut anybody) = watch::channel(false);
    let configs = follow::run(store.clone(), Change::ClusterConfigs, changes.clone());
    // Where nobody wants BGP, nobody is asked for the rest, which is much.
    let rest = async {
        if anybody.wait_for(|wants| *wants).await.is_ok() {
            tokio::join!(
                follow::run(store.clone(), Change::PeerConfigs, changes.clone()),
                follow::run(store.clone(), Change::Advertisements, changes.clone()),
                follow::run(store.clone(), Change::Overrides, changes.clone()),
                follow::run(store.clone(), |update| Change::Nodes(Box::new(update)), changes.clone()),
                follow::run(store.clone(), Change::NodeConfigs, changes.clone()),
                follow::run(store.clone(), Change::NodeStates, changes.clone()),
                follow::run(store.clone(), Change::Pools, changes.clone()),
                follow::run(store.clone(), |update| Change::Pods(Box::new(update)), changes.clone()),
                follow::run(store.clone(), |update| Change::Services(Box::new(update)), changes.clone()),
                follow::run(store.clone(), Change::Slices, changes.clone()),
            );
        }
    };
    let task = Task {
        parts,
        objects: Objects::default(),
        host: HostFacts::default(),
        looks: None,
        keys: Keys::default(),
        plan: Plan::default(),
        was_ready: false,
        revision: Revision::default(),
        wanted,
        wants_any,
        told: Summary::default(),
    };
    tokio::select! {
        () = task.run(heard, told) => {}
        // Each ends only when the task does.
        ((), (), ()) = async { tokio::join!(configs, rest, speaking) } => {}
    }
}

struct Task<S> {
    parts: Parts<S>,
    objects: Objects,
    host: HostFacts,
    /// The loop's look at which the host was looked at here.
    looks: Option<u64>,
    keys: Keys,
    plan: Plan,
    was_ready: bool,
    revision: Revision,
    wanted: watch::Sender<Option<Arc<Snapshot>>>,
    /// Whether anybody wants BGP of any node.
    wants_any: watch::Sender<bool>,
    told: Summary,
}

impl<S: Store> Task<S> {
    async fn run(mut self, mut changes: mpsc::Receiver<Change>, mut events: mpsc::Receiver<Event>) {
        let mut due = tokio::time::Instant::now();
        loop {
            let mut replan = false;
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return };
                    self.objects.take(change);
                    while let Ok(change) = changes.try_recv() {
                        self.objects.take(change);
                    }
                    let wants = self.objects.wants_any();
                    self.wants_any.send_if_modified(|known| std::mem::replace(known, wants) != wants);
                    replan = true;
                    due = tokio::time::Instant::now();
                }
                changed = self.parts.local.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    replan = true;
                }
                event = events.recv() => {
                    let Some(event) = event else { return };
                    self.hear(event);
                    while let Ok(event) = events.try_recv() {
                        self.hear(event);
                    }
                }
                () = tokio::time::sleep_until(due), if self.objects.synced() => {
                    self.keys = keys::read(&self.parts.store, self.objects.peer_configs()).await;
                    replan = true;
                    due = tokio::time::Instant::now() + REFRESH;
                }
            }
            if replan {
                self.replan().await;
                if self.plan.problems.iter().any(|it| matches!(it, Problem::MissingAuthSecret { .. })) {
                    due = due.min(tokio::time::Instant::now() + KEY_RETRY);
                }
            }
            self.publish().await;
        }
    }

    /// Plans anew, and has the speaker told when something is otherwise.
    async fn replan(&mut self) {
        let local = self.parts.local.borrow_and_update().clone();
        self.was_ready |= local.ready;
        if !self.was_ready || !self.objects.synced() {
            return;
        }
        if self.objects.wants_any() && self.looks != Some(local.looks) {
            match host::look(&self.parts.host).await {
                Ok(seen) => {
                    self.host.update(seen);
                    self.looks = Some(local.looks);
                }
                Err(error) => {
                    // An interface that is not seen is not one that is gone: what was planned stays.
                    warn!(error = &error as &dyn std::error::Error, "gateways and interfaces not read");
                    return;
                }
            }
        }
        let mut inputs = self.objects.inputs(&self.parts.node, &local.pods);
        // What the store says of this node may be older.
        inputs.node_addresses.insert(self.parts.node.clone(), local.addresses);
        inputs.keys = self.keys.clone();
        inputs.gateways = self.host.gateways.clone();
        inputs.interfaces = self.host.interfaces.clone();
        let next = plan(&self.parts.node, &inputs);
        for problem in next.problems.iter().filter(|problem| !self.plan.problems.contains(problem)) {
            warn!(%problem, "BGP configuration");
        }
        let same = self.plan.instances == next.instances && self.wanted.borrow().is_some();
        self.plan = next;
        // Without a speaker there is nobody to tell that there is nothing to do.
        let nothing = self.plan.instances.is_empty() && !self.parts.socket.exists();
        if same || (nothing && self.wanted.borrow().is_none()) {
            return;
        }
        self.revision = self.revision.next();
        debug!(rev = %self.revision, "the speaker is told");
        let snapshot = Snapshot { revision: self.revision, instances: self.plan.instances.clone() };
        self.wanted.send_replace(Some(Arc::new(snapshot)));
    }

    fn hear(&mut self, event: Event) {
        match &event {
            Event::Connected(speaker) => info!(%speaker, "connected to the BGP speaker"),
            Event::Lost(error) if self.plan.instances.is_empty() => {
                debug!(error = error as &dyn std::error::Error, "no BGP speaker");
            }
            Event::Lost(error) => {
                warn!(error = error as &dyn std::error::Error, "BGP speaker not reached; trying again");
            }
            Event::Refused { revision, why } => warn!(rev = %revision, why, "refused by the BGP speaker"),
            Event::Applied(_) | Event::Changes(_) | Event::Synced => {}
        }
        self.parts.report.send_modify(|report| report.take(event));
    }

    /// Tells the loop what is to be published, when that is otherwise.
    async fn publish(&mut self) {
        let summary = self.parts.report.borrow().summary(&self.plan, self.revision, self.objects.wants_any());
        self.parts.report.send_if_modified(|report| report.note(&self.plan));
        if summary != self.told {
            self.told = summary.clone();
            // A loop that is gone needs to know nothing more.
            drop(self.parts.inbox.send(Input::Bgp(summary)).await);
        }
    }
}
