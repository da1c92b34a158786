// SPDX-License-Identifier: Apache-2.0
//! The loop: takes changes, looks at EC2 once per period, writes what was planned, and has calls made in parallel.
//!
//! After a crash the next operator knows nothing but objects and EC2, which is enough: an interface carries its cluster,
//! node and token as tags from the call that made it on, and a block that is to go stands so in the NodeConfig before it
//! is unassigned. The same plan makes the same token, so EC2 makes nothing twice by it; it does not answer what it made,
//! as the tag that says when differs, but that the requests differ (`IdempotentParameterMismatch`), and a look shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll, select_all};
use rhumb_api::{
    DirStore, EniMode, EniWaiting, Kind, NodeConfig, NodeState, ObjectKey, Store, StoreError, Update, follow,
};
use rhumb_cloud::{CloudError, Pacer, Provider};
use rhumb_ipam::eni::{Action, Fault, Inputs, Memory, Plan, Planned, Reply};
use rhumb_model::{InstanceId, NodeName, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::facts::Claims;
use super::figures::Figures;
use super::look::{Look, Scope};
use super::objects::{Objects, Seen};
use super::record::{self, Basis, written};
use super::why::{self, Blind};
use super::{call, facts, offer};
use crate::failpoint;

/// Changes that come within this time, or within that which the step before took, are planned for together: for a
/// crowd of nodes it plans half of the time at most.
const GATHER: Duration = Duration::from_millis(20);
const LONGEST_GATHER: Duration = Duration::from_secs(1);
/// Objects of a kind that are written at a time, and by one step: a crowd of nodes waits for no one's round trip, and
/// calls to EC2 that end meanwhile wait for no crowd.
const WRITES: usize = 16;
const MOST_WRITES: usize = 64;
/// Time alone asks for no plan sooner than this.
const SHORTEST: Duration = Duration::from_millis(100);
/// After a look that failed, and after an object that could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// A look that a call or the plan asked for comes no sooner than this after the one before.
const SOONEST: Duration = Duration::from_secs(5);

/// How the loop runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The value of the tag by which interfaces of this cluster are known.
    pub(crate) cluster: String,
    /// EC2 is looked at so often.
    pub(crate) period: Duration,
    /// For how long a node that is gone keeps its NodeConfig.
    pub(crate) grace: Duration,
    /// For how long an interface that nobody has is left alone.
    pub(crate) orphan_age: Duration,
}

type Ended = (Planned, Result<Reply, CloudError>);
type Looking = Pin<Box<dyn Future<Output = Result<Look, CloudError>> + Send>>;

struct Run<P> {
    store: DirStore,
    provider: Arc<P>,
    pacer: Pacer,
    settings: Settings,
    figures: Figures,
    objects: Objects,
    memory: Memory,
    look: Look,
    looking: Option<Looking>,
    look_at: Instant,
    looked: Instant,
    /// When the last plan wants the next look; `None`: it waits for nothing.
    look_wanted: Option<Instant>,
    /// For which instances EC2 was looked at last.
    asked: BTreeSet<InstanceId>,
    calls: JoinSet<Ended>,
    /// When the last call for a reservation ended.
    reserved: Timestamp,
    blind: Blind,
    /// What would help, by EC2's answer to the last call for each node.
    help: BTreeMap<NodeName, &'static str>,
    gone: BTreeMap<NodeName, Timestamp>,
    said: BTreeMap<NodeName, String>,
}

/// Runs until dropped, or until the store ends. `pacer` is the provider's.
pub(crate) async fn run<P: Provider>(
    store: DirStore,
    provider: P,
    pacer: Pacer,
    settings: Settings,
    figures: Figures,
) {
    let now = Instant::now();
    figures.begin(Timestamp::from(SystemTime::now()));
    let mut run = Run {
        provider: Arc::new(provider),
        pacer,
        settings,
        figures,
        objects: Objects::default(),
        memory: Memory::default(),
        look: Look::default(),
        looking: None,
        look_at: now,
        looked: now,
        look_wanted: None,
        asked: BTreeSet::new(),
        calls: JoinSet::new(),
        reserved: Timestamp(0),
        blind: Blind::default(),
        help: BTreeMap::new(),
        gone: BTreeMap::new(),
        said: BTreeMap::new(),
        store,
    };
    let mut seen = everything(&run.store);
    let mut wake = now;
    let mut took = Duration::ZERO;
    loop {
        tokio::select! {
            change = seen.next() => match change {
                Some(change) => run.objects.take(change),
                None => return,
            },
            Some(ended) = run.calls.join_next() => match ended {
                Ok(ended) => run.ended(ended),
                Err(error) => warn!(%error, "a call ended without a result"),
            },
            look = look_result(&mut run.looking) => run.looked(look),
            () = sleep_until(wake) => {}
        }
        sleep(took.clamp(GATHER, LONGEST_GATHER)).await;
        while let Some(Some(change)) = futures::FutureExt::now_or_never(seen.next()) {
            run.objects.take(change);
        }
        while let Some(ended) = run.calls.try_join_next() {
            match ended {
                Ok(ended) => run.ended(ended),
                Err(error) => warn!(%error, "a call ended without a result"),
            }
        }
        let began = Instant::now();
        wake = run.step().await;
        took = began.elapsed();
    }
}

/// The look under way, when it is done; for ever when there is none.
async fn look_result(looking: &mut Option<Looking>) -> Result<Look, CloudError> {
    match looking {
        Some(look) => {
            let result = look.await;
            *looking = None;
            result
        }
        None => std::future::pending().await,
    }
}

fn everything(store: &DirStore) -> SelectAll<BoxStream<'static, Seen>> {
    select_all([
        follow(store).map(Seen::Nodes).boxed(),
        follow(store).map(Seen::States).boxed(),
        follow(store).map(Seen::Configs).boxed(),
        follow(store).map(Seen::Pools).boxed(),
        follow(store).map(Seen::Pods).boxed(),
    ])
}

impl<P: Provider> Run<P> {
    /// Looks if it is time, plans, writes, and has calls made. When to be called again at the latest.
    async fn step(&mut self) -> Instant {
        let later = Instant::now() + Duration::from_secs(3600);
        if !self.objects.synced() {
            return later;
        }
        let claims = facts::claims(&self.objects);
        let scope = facts::scope(&self.objects, &claims, &self.settings.cluster);
        let scope = Scope { reserved: self.reserved, ..scope };
        // A node that is new is looked for at once; one that EC2 did not show, with the others.
        if !scope.instances.is_subset(&self.asked) {
            self.look_soon();
        }
        if self.looking.is_none() && Instant::now() >= self.next_look() {
            self.look_at = Instant::now() + self.settings.period;
            self.looked = Instant::now();
            self.asked.clone_from(&scope.instances);
            let (provider, before) = (Arc::clone(&self.provider), self.look.clone());
            self.looking = Some(Box::pin(async move { before.again(provider.as_ref(), &scope).await }));
        }
        let now = Timestamp::from(SystemTime::now());
        let mut inputs = Inputs::default();
        let mut plan = Plan::default();
        if self.look.view.at != Timestamp(0) {
            inputs = self.inputs(&claims);
            plan = rhumb_ipam::eni::plan(&inputs, &mut self.memory, now);
            self.look_wanted = plan.look_at.map(|at| Instant::now() + at.since(now));
            let blind = self.blind.verdict();
            why::complete(&mut plan, &self.memory, &self.pacer.report(), blind.as_ref(), &self.help);
            self.say(&plan);
        }
        let unserved = self.unserved(&plan, &claims);
        self.figures.note(&inputs, self.memory.view(), &plan, &unserved);
        let mut wait = plan.wake_at.map_or(Duration::from_secs(3600), |at| at.since(now).max(SHORTEST));
        // No call waits until objects are written: what is taken from EC2 stood in them when they were read.
        self.begin(std::mem::take(&mut plan.actions), now);
        let again = [
            self.write(&inputs, &plan, unserved).await,
            self.offer(&plan).await,
            self.forget(&inputs, now).await,
        ];
        wait = again.into_iter().flatten().fold(wait, Duration::min);
        let next_look = if self.looking.is_some() { later } else { self.next_look() };
        next_look.min(Instant::now() + wait)
    }

    fn inputs(&self, claims: &Claims) -> Inputs {
        facts::inputs(&self.objects, claims, &self.look, &self.settings.cluster, self.settings.orphan_age)
    }

    /// When the next look is due: with the period, sooner where the plan waits for one.
    fn next_look(&self) -> Instant {
        let wanted = self.look_wanted.map(|at| at.max(self.looked + SOONEST));
        wanted.map_or(self.look_at, |at| at.min(self.look_at))
    }

    fn begin(&mut self, actions: Vec<Planned>, now: Timestamp) {
        for planned in actions {
            self.memory.start(&planned.action, now);
            debug!(call = planned.action.call(), node = ?planned.action.node(), "asking EC2");
            let provider = Arc::clone(&self.provider);
            self.calls.spawn(async move {
                let result = call::make(provider.as_ref(), &planned).await;
                (planned, result)
            });
        }
    }

    fn ended(&mut self, (planned, result): Ended) {
        let now = Timestamp::from(SystemTime::now());
        let action = &planned.action;
        if let Action::Reserve { .. } = action {
            self.reserved = now;
        }
        if let Some(node) = action.node() {
            self.help.remove(node);
            let help = result.as_ref().err().and_then(CloudError::help);
            self.help.extend(help.map(|help| (node.clone(), help)));
        }
        let outcome = match result {
            Ok(reply) => {
                info!(call = action.call(), node = ?action.node(), "EC2 did as asked");
                Ok(reply)
            }
            Err(error) => {
                let fault = call::fault(&error);
                let help = error.help().unwrap_or_default();
                warn!(node = ?action.node(), %error, help, "EC2 did not do as asked");
                if matches!(fault, Fault::Unknown | Fault::Taken | Fault::Stale { .. }) {
                    self.look_soon();
                }
                Err(fault)
            }
        };
        self.memory.finish(action, &outcome, now);
    }

    fn looked(&mut self, look: Result<Look, CloudError>) {
        match look {
            Ok(look) => {
                failpoint::pass("operator.eni.after.look");
                self.look = look;
                self.blind.seen();
                let inputs = self.inputs(&facts::claims(&self.objects));
                self.memory.see(self.look.view.clone(), &inputs);
            }
            Err(error) => {
                let help = error.help().unwrap_or_default();
                warn!(%error, help, "EC2 could not be looked at");
                self.look_at = Instant::now() + RETRY;
                self.blind.failed(error);
            }
        }
    }

    fn look_soon(&mut self) {
        let first = self.asked.is_empty();
        self.look_at = self.look_at.min(if first { self.looked } else { self.looked + SOONEST });
    }

    /// Writes NodeConfigs that are to change; when to come again for the others.
    async fn write(
        &mut self,
        inputs: &Inputs,
        plan: &Plan,
        unserved: BTreeMap<NodeName, Option<EniWaiting>>,
    ) -> Option<Duration> {
        let (mut changes, mut reasons) = (Vec::new(), Vec::new());
        for (name, planned) in &plan.nodes {
            let (Some(facts), Some(pools)) = (inputs.nodes.get(name), &self.objects.pools) else { continue };
            let Some(pool) = pools.values().find(|pool| pool.key().name == facts.pool.as_str()) else {
                continue;
            };
            let vpc = facts.instance.vpc.as_ref().and_then(|vpc| self.look.vpcs.get(vpc));
            let basis = Basis {
                pool,
                instance: &facts.instance,
                vpc_cidrs: vpc.map_or(&[][..], Vec::as_slice),
                view: self.memory.view(),
            };
            let is_served = planned.record != facts.record;
            let list = if is_served { &mut changes } else { &mut reasons };
            list.extend(written(name, self.objects.config(name), planned, &basis));
        }
        // What pods wait for comes before what people read.
        changes.append(&mut reasons);
        changes.extend(
            unserved
                .into_iter()
                .filter_map(|(name, why)| record::unserved(&name, self.objects.config(&name), why)),
        );
        let mut again = some_of(&mut changes);
        let store = &self.store;
        let writes = changes.into_iter().map(|config| async move {
            failpoint::pass("operator.eni.before.config");
            let written = if config.metadata.resource_version.is_some() {
                store.update(&config).await
            } else {
                store.create(&config).await
            };
            failpoint::pass("operator.eni.after.config");
            (config, written)
        });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(WRITES).collect().await;
        for (config, written) in written {
            match written {
                // The next plan counts it at once, before the change comes back from the store.
                Ok(config) => self.objects.take(Seen::Configs(Update::Put(config))),
                // Somebody else wrote it: that version is on its way here.
                Err(StoreError::Conflict { .. } | StoreError::AlreadyExists { .. }) => again = Some(RETRY),
                Err(error) => {
                    let node = config.key().name;
                    warn!(node, error = &error as &dyn std::error::Error, "NodeConfig not written");
                    again = Some(RETRY);
                }
            }
        }
        again
    }

    /// Why nodes that are in no plan get nothing; `None`: no pool chooses them. Nobody looked yet for those that are
    /// missing here.
    fn unserved(&self, plan: &Plan, claims: &Claims) -> BTreeMap<NodeName, Option<EniWaiting>> {
        let blind = self.blind.verdict();
        let has_looked = self.looking.is_none() && self.blind.is_over();
        let nodes = self.objects.nodes.iter().flatten();
        let chosen = facts::chosen(&self.objects);
        let names = nodes.filter_map(|(key, _)| NodeName::new(key.name.as_str()).ok());
        names
            .filter(|name| !plan.nodes.contains_key(name))
            .filter_map(|name| {
                let why = match claims.get(&name).filter(|_| chosen.contains_key(&name)) {
                    Some(claim) => {
                        let is_missing = has_looked && claim.sole().is_some_and(|id| self.asked.contains(id));
                        Some(why::unserved(claim, is_missing, blind.as_ref())?)
                    }
                    None => None,
                };
                Some((name, why))
            })
            .collect()
    }

    /// Tells the scheduler, by the Node objects, what there is for pods; when to come again for what is not written.
    async fn offer(&mut self, plan: &Plan) -> Option<Duration> {
        let mut changes = Vec::new();
        let chosen = facts::chosen(&self.objects);
        for (key, row) in self.objects.nodes.iter().flatten() {
            let Ok(name) = NodeName::new(key.name.as_str()) else { continue };
            let to = match (chosen.get(&name), plan.nodes.get(&name)) {
                (Some((_, pool)), Some(planned)) if pool.spec.mode != EniMode::None => row.offer.by(planned),
                // Nothing is known of it at present.
                (Some((_, pool)), None) if pool.spec.mode != EniMode::None => row.offer,
                (Some(_), _) | (None, _) => row.offer.withdrawn(),
            };
            if row.offer != to {
                changes.push((key.clone(), row.offer, to));
            }
        }
        let mut again = some_of(&mut changes);
        let store = &self.store;
        let writes = changes.into_iter().map(|(key, from, to)| async move {
            failpoint::pass("operator.eni.before.offer");
            let written = offer::publish(store, &key, from, to).await;
            failpoint::pass("operator.eni.after.offer");
            (key, written)
        });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(WRITES).collect().await;
        for (key, written) in written {
            match written {
                Ok(Some(node)) => self.objects.take(Seen::Nodes(Update::Put(node))),
                Ok(None) => {}
                // The node went meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    warn!(node = key.name, error = &error as &dyn std::error::Error, "Node not written");
                    again = Some(RETRY);
                }
            }
        }
        again
    }

    /// Deletes the NodeConfig of nodes that are gone for longer than the grace; when to come again.
    async fn forget(&mut self, inputs: &Inputs, now: Timestamp) -> Option<Duration> {
        let objects = &self.objects;
        let configs = objects.configs.iter().flat_map(BTreeMap::values);
        let left: Vec<NodeName> = configs
            .filter(|config| config.spec.eni.is_some() || config.spec.unserved.is_some())
            .filter(|config| config.spec.pod_cidrs.iter().all(|block| block.interface.is_some()))
            .filter_map(|config| NodeName::new(config.key().name).ok())
            .filter(|name| !objects.has_node(name) && !inputs.nodes.contains_key(name))
            .collect();
        self.gone.retain(|name, _| left.contains(name));
        let mut again: Option<Duration> = None;
        let mut after = |wait: Duration| again = Some(again.map_or(wait, |soonest| soonest.min(wait)));
        for name in left {
            let end = self.gone.entry(name.clone()).or_insert(now).after(self.settings.grace);
            if now < end {
                after(end.since(now));
                continue;
            }
            let key = ObjectKey::from(&name);
            let states = absent_is_fine(self.store.delete::<NodeState>(&key, None).await);
            let configs = absent_is_fine(self.store.delete::<NodeConfig>(&key, None).await);
            match states.and(configs) {
                Ok(()) => info!(node = %name, "a node is gone: its interfaces are forgotten"),
                Err(error) => {
                    warn!(node = %name, error = &error as &dyn std::error::Error, "NodeConfig not deleted");
                    after(RETRY);
                }
            }
        }
        again
    }

    /// Says in the log, once, why a node has fewer addresses than it should.
    fn say(&mut self, plan: &Plan) {
        for (node, planned) in &plan.nodes {
            let code = planned.verdict.as_ref().map(|verdict| verdict.code.to_string());
            if self.said.get(node) == code.as_ref() {
                continue;
            }
            match (&planned.verdict, code) {
                (Some(verdict), Some(code)) => {
                    warn!(%node, reason = code, text = verdict.text, "addresses missing");
                    self.said.insert(node.clone(), code);
                }
                _ => {
                    info!(%node, "addresses as they should be");
                    self.said.remove(node);
                }
            }
        }
        self.said.retain(|node, _| plan.nodes.contains_key(node));
    }
}

/// Leaves as many as one step writes; when to come for the rest.
fn some_of<T>(changes: &mut Vec<T>) -> Option<Duration> {
    let all = changes.len();
    changes.truncate(MOST_WRITES);
    (changes.len() < all).then_some(Duration::ZERO)
}

fn absent_is_fine(deleted: Result<(), StoreError>) -> Result<(), StoreError> {
    match deleted {
        Err(StoreError::NotFound { .. }) => Ok(()),
        other => other,
    }
}
