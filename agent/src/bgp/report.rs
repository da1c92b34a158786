// SPDX-License-Identifier: Apache-2.0
//! What is known of the speaker, for metrics and for NodeState.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_api::{BgpPeerStatus, Condition, ConditionStatus};
use rhumb_bgp_feed::client::Event;
use rhumb_bgp_feed::protocol::StateChange;
use rhumb_bgp_feed::{PeerKey, PeerState, RouteKind};
use rhumb_model::{Prefix, Revision};

use super::plan::Plan;

/// Conditions that the plan's problems make true.
const PROBLEMS: [&str; 3] = ["BGPConflictingClusterConfig", "BGPMissingPeerConfig", "BGPMissingAuthSecret"];

/// Condition that says whether the speaker does what is wanted.
const SPEAKER: &str = "BGPSpeakerReady";

/// What is known of the speaker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// The speaker and its version, while it answers.
    pub(crate) speaker: Option<String>,
    /// What it has taken over.
    applied: Option<Revision>,
    /// Why it did not take over what was wanted.
    refused: Option<String>,
    /// Why it does not answer.
    lost: Option<String>,
    /// How it stands with each peer.
    pub(crate) peers: BTreeMap<PeerKey, PeerState>,
    /// Prefixes to which it learned a way, by instance.
    learned: BTreeMap<String, BTreeSet<Prefix>>,
    /// Routes that it is to tell, by instance and kind.
    pub(crate) routes: BTreeMap<(String, RouteKind), u64>,
}

/// What is published in NodeState.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) peers: Vec<BgpPeerStatus>,
}

impl Report {
    /// Takes over what became known.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Connected(speaker) => {
                *self = Self { routes: std::mem::take(&mut self.routes), ..Self::default() };
                self.speaker = Some(speaker);
            }
            Event::Lost(error) => {
                // What it said last says nothing about now.
                *self = Self { routes: std::mem::take(&mut self.routes), ..Self::default() };
                self.lost = Some(chain(&error));
            }
            Event::Applied(revision) => {
                self.applied = Some(revision);
                self.refused = None;
            }
            Event::Refused { why, .. } => self.refused = Some(why),
            Event::Changes(changes) => changes.into_iter().for_each(|change| self.change(change)),
            Event::Synced => {}
        }
    }

    fn change(&mut self, change: StateChange) {
        match change {
            StateChange::Peer(state) => drop(self.peers.insert(state.key.clone(), *state)),
            StateChange::PeerGone(key) => drop(self.peers.remove(&key)),
            StateChange::Learned(learned) => {
                self.learned.entry(learned.instance).or_default().insert(learned.prefix);
            }
            StateChange::LearnedGone { instance, prefix } => {
                if let Some(prefixes) = self.learned.get_mut(&instance) {
                    prefixes.remove(&prefix);
                    if prefixes.is_empty() {
                        self.learned.remove(&instance);
                    }
                }
            }
        }
    }

    /// Notes what is wanted; gives whether that is otherwise than before.
    pub(super) fn note(&mut self, plan: &Plan) -> bool {
        let mut routes = BTreeMap::new();
        for instance in &plan.instances {
            for route in &instance.routes {
                *routes.entry((instance.name.clone(), route.kind)).or_insert(0) += 1;
            }
        }
        let changed = self.routes != routes;
        self.routes = routes;
        changed
    }

    /// How many prefixes each instance learned a way to.
    pub(crate) fn learned(&self) -> BTreeMap<&str, u64> {
        self.learned.iter().map(|(instance, prefixes)| (instance.as_str(), prefixes.len() as u64)).collect()
    }

    /// What is published; nothing where nobody wants BGP.
    pub(super) fn summary(&self, plan: &Plan, wanted: Revision, wants_any: bool) -> Summary {
        if !wants_any {
            return Summary::default();
        }
        let mut conditions: Vec<Condition> = PROBLEMS.iter().map(|kind| problem(kind, plan)).collect();
        if !plan.instances.is_empty() {
            conditions.push(self.speaker_condition(wanted));
        }
        let peers = self.peers.values().map(|state| BgpPeerStatus {
            instance: state.instance.clone(),
            peer: state.key.to_string(),
            address: state.address.clone(),
            asn: state.asn,
            session: state.session.to_string(),
        });
        Summary { conditions, peers: peers.collect() }
    }

    fn speaker_condition(&self, wanted: Revision) -> Condition {
        let (status, reason, message) = match (&self.speaker, &self.refused) {
            (None, _) => (ConditionStatus::False, "NotReached", self.lost.clone().unwrap_or_default()),
            (Some(_), Some(why)) => (ConditionStatus::False, "Refused", why.clone()),
            (Some(_), None) if self.applied == Some(wanted) => {
                (ConditionStatus::True, "Applied", String::new())
            }
            (Some(_), None) => (ConditionStatus::Unknown, "Applying", String::new()),
        };
        Condition { kind: SPEAKER.to_owned(), status, reason: reason.to_owned(), message }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A condition that is true when the plan has a problem of its kind.
fn problem(kind: &str, plan: &Plan) -> Condition {
    let found = plan.problems.iter().filter(|problem| problem.condition() == kind);
    let messages: Vec<String> = found.map(ToString::to_string).collect();
    let (status, reason) = match messages.is_empty() {
        true => (ConditionStatus::False, "None"),
        false => (ConditionStatus::True, "Found"),
    };
    Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message: messages.join("; ") }
}

#[cfg(test)]
mod tests;
