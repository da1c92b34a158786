// SPDX-License-Identifier: Apache-2.0
//! Learned routes in the kernel, and which next hops packets get to.
//!
//! ```text
//!   Rib::changes ─► Order::Changes ─► what is wanted ─┬─► differences ─► many writes at once ─► table 7268
//!   Rib::next_hops ► Order::NextHops ─► looked up ────╯        ▲ refused: tried again
//!   Rib::set_next_hops ◄── State ◄──────────╯ links, addresses, routes of others change
//! ```
//! Routes that are there at the start, of an earlier life of the speaker, stay in use until [`Order::Sweep`].

mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::Prefix;
use rhumb_routing::kernel::KernelError;
use rhumb_routing::learned::{Learned, LearnedEvents};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::rib::{Change, Hop};
use routes::{Refusal, Routes};

/// Routes that are written before orders are looked at again.
const BATCH: usize = 4096;
/// Orders that are taken before the next write.
const ORDERS: usize = 64;
/// Least time between two looks at links and routes, however often they change.
const LOOK_APART: Duration = Duration::from_millis(100);
/// Time until a refused route is tried again, and until a conversation with the kernel that broke off is begun anew.
const RETRY: Duration = Duration::from_secs(5);
/// Time between two looks at the whole table, for routes that others removed.
const COMPARE: Duration = Duration::from_secs(300);
/// Refused routes that are named.
const NAMED: usize = 16;

/// What the speaker wants of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// These prefixes are to be forwarded otherwise.
    Changes(Vec<Change>),
    /// These next hops are in use, and no others.
    NextHops(BTreeSet<Hop>),
    /// What was there at the start and is not wanted by now is to go.
    Sweep,
    /// All routes are to go.
    Clear,
}

/// What the speaker is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// How many routes of an earlier life there were; `None` before the first look, during which nobody must be told
    /// that forwarding was kept (RFC 4724 §4.1).
    pub kept: Option<usize>,
    /// The next hops that were looked up last.
    pub looked_up: BTreeSet<Hop>,
    /// Those of them that packets get to, and how far each is.
    pub next_hops: BTreeMap<Hop, u32>,
    /// How many routes are in the kernel.
    pub routes: usize,
    /// How many the kernel does not take.
    pub refused: usize,
    /// The first of them, each with why.
    pub reasons: Vec<(Prefix, String)>,
    /// How many writes there were.
    pub writes: u64,
}

/// Carries out orders until nobody can give any more. What breaks off is begun anew; what is in the kernel stays there
/// at the end.
pub async fn run(mut learned: Learned, mut orders: mpsc::Receiver<Order>, state: watch::Sender<State>) {
    let mut work = Work { routes: Routes::default(), hops: BTreeSet::new(), look: None };
    loop {
        match work.run(&mut learned, &mut orders, &state).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = %with_causes(&error), "talk to the kernel about learned routes");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

struct Work {
    routes: Routes,
    hops: BTreeSet<Hop>,
    /// When to look at links and routes.
    look: Option<Instant>,
}

/// What happens next.
enum Next {
    Order(Option<Order>),
    Event,
    Look,
    Retry,
    Compare,
}

impl Work {
    async fn run(
        &mut self,
        learned: &mut Learned,
        orders: &mut mpsc::Receiver<Order>,
        state: &watch::Sender<State>,
    ) -> Result<(), KernelError> {
        // Whatever changes after this is heard.
        let mut events = learned.events().await?;
        learned.put_rules().await?;
        let found = learned.routes().await?;
        state.send_modify(|state| {
            state.kept.get_or_insert(found.len());
        });
        self.routes.found(found);
        self.look = Some(Instant::now());
        let mut looked = Instant::now() - LOOK_APART;
        let mut retry = Instant::now() + RETRY;
        let mut compare = Instant::now() + COMPARE;
        loop {
            match self.next(orders, &mut events, retry, compare).await? {
                Next::Order(None) => return Ok(()),
                Next::Order(Some(order)) => {
                    self.take(order);
                    for _ in 0..ORDERS {
                        let Ok(order) = orders.try_recv() else { break };
                        self.take(order);
                    }
                }
                Next::Event => {
                    self.look.get_or_insert(looked + LOOK_APART);
                }
                Next::Look => {}
                Next::Retry => {
                    self.routes.retry(|refusal| refusal.retryable);
                    retry = Instant::now() + RETRY;
                }
                Next::Compare => {
                    self.routes.found(learned.routes().await?);
                    compare = Instant::now() + COMPARE;
                }
            }
            if self.look.is_some_and(|due| due <= Instant::now()) {
                self.look = None;
                self.look(learned, state).await?;
                looked = Instant::now();
            }
            self.write(learned, orders, state).await?;
        }
    }

    async fn next(
        &self,
        orders: &mut mpsc::Receiver<Order>,
        events: &mut LearnedEvents,
        retry: Instant,
        compare: Instant,
    ) -> Result<Next, KernelError> {
        let look = self.look.unwrap_or(compare);
        let (is_look, is_retry) = (self.look.is_some(), !self.routes.refused().is_empty());
        Ok(tokio::select! {
            order = orders.recv() => Next::Order(order),
            event = events.next() => event.map(|()| Next::Event)?,
            () = sleep_until(look), if is_look => Next::Look,
            () = sleep_until(retry), if is_retry => Next::Retry,
            () = sleep_until(compare) => Next::Compare,
        })
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Changes(changes) => self.routes.want(changes),
            Order::NextHops(hops) => {
                // New ones cannot wait: a route by them is not used before.
                self.hops = hops;
                self.look = Some(Instant::now());
            }
            Order::Sweep => {
                let unwanted = self.routes.sweep();
                if unwanted > 0 {
                    tracing::info!(routes = unwanted, "routes of the last run that nobody tells any more go");
                }
            }
            Order::Clear => self.routes.want_nothing(),
        }
    }

    /// Finds out how next hops are reached.
    async fn look(&mut self, learned: &Learned, state: &watch::Sender<State>) -> Result<(), KernelError> {
        let addresses = self.hops.iter().map(|hop| hop.address).collect();
        let around = learned.surroundings(addresses).await?;
        let reached: BTreeMap<_, _> =
            self.hops.iter().filter_map(|hop| Some((*hop, around.reach(hop.address, hop.scope)?))).collect();
        let next_hops = reached.iter().map(|(hop, reached)| (*hop, reached.distance)).collect();
        self.routes.reach(reached, |ifindex| around.carries(ifindex));
        state.send_if_modified(|state| {
            let changed = state.next_hops != next_hops || state.looked_up != self.hops;
            state.next_hops = next_hops;
            state.looked_up.clone_from(&self.hops);
            changed
        });
        Ok(())
    }

    /// Writes all that differs. Orders that come meanwhile are taken between two batches.
    async fn write(
        &mut self,
        learned: &mut Learned,
        orders: &mut mpsc::Receiver<Order>,
        state: &watch::Sender<State>,
    ) -> Result<(), KernelError> {
        let mut written = 0;
        loop {
            let writes = self.routes.writes(BATCH);
            if writes.is_empty() {
                break;
            }
            written += writes.len() as u64;
            let refused = match learned.write(writes).await {
                Ok(refused) => refused,
                Err(error) => {
                    // What of the batch was done is seen when the table is read anew.
                    self.tell(written, state);
                    return Err(error);
                }
            };
            if let Some((prefix, error)) = refused.first() {
                let (count, error) = (refused.len(), with_causes(error));
                tracing::warn!(%prefix, count, error, "learned routes refused");
            }
            for (prefix, error) in refused {
                let (retryable, present) = (error.is_retryable(), error.is_present());
                self.routes.refuse(prefix, Refusal { why: with_causes(&error), retryable, present });
            }
            while let Ok(order) = orders.try_recv() {
                self.take(order);
            }
        }
        if written > 0 {
            self.tell(written, state);
        }
        Ok(())
    }

    fn tell(&self, written: u64, state: &watch::Sender<State>) {
        let refused = self.routes.refused();
        let reasons = refused.iter().take(NAMED).map(|(prefix, refusal)| (*prefix, refusal.why.clone()));
        state.send_modify(|state| {
            state.routes = self.routes.installed();
            state.refused = refused.len();
            state.reasons = reasons.collect();
            state.writes += written;
        });
    }
}

/// An error with its causes, in one line.
fn with_causes(error: &KernelError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
