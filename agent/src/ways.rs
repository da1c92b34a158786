// SPDX-License-Identifier: Apache-2.0
//! The ways to the pods of other nodes: what is seen of the fabric, what was chosen, and what changed when.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use rhumb_model::{Prefix, Revision};
use rhumb_routing::fabric::Fabric;
use rhumb_routing::plan::{Change, Choice, Event, History, Memory, Plan, PlanInput, Problem, plan};
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

/// Changes that wait for one who follows them: as many as are kept for those who come later, twice. Who is slower
/// misses some, and is told how many.
const FOLLOWED: usize = 512;

/// What of the fabric matters: routes to these prefixes, and whether these addresses answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) prefixes: BTreeSet<Prefix>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// The ways, and what the next choice depends on.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    plan: Plan,
    memory: Memory,
    history: History,
    /// Those who follow the changes.
    followers: Followers,
    /// Changes that they have not heard of.
    untold: Vec<Event>,
    /// The inputs of the plan; `None` before the first.
    planned: Option<Revision>,
    /// What the fabric was last seen to offer.
    pub(crate) fabric: Fabric,
    /// What it was looked at for.
    pub(crate) watched: Watched,
    /// Addresses of nodes that have fallen silent.
    pub(crate) silent: BTreeSet<IpAddr>,
}

impl Ways {
    /// What is planned.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is chosen for each prefix.
    pub(crate) fn choices(&self) -> impl Iterator<Item = (&Prefix, &Choice)> {
        self.memory.0.iter()
    }

    /// The last changes, and how many there were.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// The last changes, the oldest first, and all that come after them; between two passes.
    pub(crate) fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        (self.history.last().cloned().collect(), self.followers.0.subscribe())
    }

    /// Tells those who follow what was chosen; when packets go that way.
    pub(crate) fn tell_followers(&mut self) {
        for event in self.untold.drain(..) {
            // Mostly nobody follows.
            drop(self.followers.0.send(event));
        }
    }

    /// When another choice is due without another input.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.plan.next
    }

    /// Chooses anew where an input changed since, or a choice is due.
    pub(crate) fn choose(&mut self, input: impl FnOnce(Fabric) -> PlanInput, rev: Revision, now: Instant) {
        if self.planned == Some(rev) && self.plan.next.is_none_or(|next| now < next) {
            return;
        }
        let (plan, memory) = plan(&input(self.fabric.clone()), &self.memory, now);
        for change in &plan.changes {
            tell(change);
            let event = Event { at: SystemTime::now(), change: change.clone() };
            self.untold.push(event.clone());
            self.history.note(event);
        }
        if self.plan.problems != plan.problems {
            plan.problems.iter().for_each(complain);
        }
        (self.plan, self.memory, self.planned) = (plan, memory, Some(rev));
    }
}

/// Where changes are told as they happen.
#[derive(Debug)]
struct Followers(broadcast::Sender<Event>);

impl Default for Followers {
    fn default() -> Self {
        Self(broadcast::Sender::new(FOLLOWED))
    }
}

/// The first way to a prefix is nothing that a person would look for.
fn tell(Change { prefix, node, from, to, why }: &Change) {
    let word = |way: &Option<_>| way.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let (before, after) = (word(from), word(to));
    if from.is_none() {
        debug!(%prefix, %node, to = after, reason = %why, "way chosen");
    } else {
        info!(%prefix, %node, from = before, to = after, reason = %why, "way changed");
    }
}

fn complain(problem: &Problem) {
    warn!(%problem, "pods of another node not reachable");
}
