// SPDX-License-Identifier: Apache-2.0
//! What the operator keeps between two plans. All of it may be lost: the next operator is only more careful for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::{EniId, EniStatus, NodeName, Prefix, SubnetId, Timestamp};

use super::effects::Effect;
use super::fleet::{is_for, is_ours};
use super::trouble::Trouble;
use super::{Action, Fault, Inputs, Key, Reply, Unit, View};

/// By how much a look at EC2 may lag behind, and within which a call ends or has no effect any more. Two looks that
/// agree are apart by at least as much.
pub const LAG: Duration = Duration::from_secs(30);

/// After this time EC2 is asked again about an interface that it made a moment ago and does not know: a call may reach a
/// part of EC2 that hears of it later.
const EARLY: Duration = Duration::from_secs(1);

/// After this time an interface that is being detached is looked at again: EC2 takes 1 to 30 s.
const SOON: Duration = Duration::from_secs(5);

/// For how long arrivals of pods and interfaces that were made are remembered.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// What the operator keeps between two plans.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    view: View,
    pub(super) effects: Vec<(Timestamp, Effect)>,
    pub(super) flying: BTreeMap<Key, Action>,
    /// Keys of calls whose end nobody knows, until a look that began after this time.
    pub(super) unsure: BTreeMap<Key, Timestamp>,
    /// Keys of calls about what EC2 did not know yet, until this time.
    pub(super) early: BTreeMap<Key, Timestamp>,
    pub(super) trouble: Trouble,
    /// Since which look each interface that nobody has is seen to be so.
    orphans: BTreeMap<EniId, Timestamp>,
    /// Since which look each block of a NodeConfig is missed: its interface is without it, or is another instance's.
    pub(super) absent: BTreeMap<(EniId, Prefix), Timestamp>,
    /// Since when the agent's word for a block is known.
    acked: BTreeMap<(NodeName, Prefix, u64), Timestamp>,
    /// Since when each node has more than it wants.
    excess: BTreeMap<NodeName, Timestamp>,
    /// How many addresses each node's pods had, at times.
    used: BTreeMap<NodeName, Vec<(Timestamp, u32)>>,
    /// When interfaces were made for each node.
    made: BTreeMap<NodeName, Vec<Timestamp>>,
}

impl Memory {
    /// EC2 as it is known: the last look, and what we did since.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes a look at EC2 that began at `view.at`. `inputs` are those of the next plan.
    pub fn see(&mut self, mut view: View, inputs: &Inputs) {
        let at = view.at;
        self.effects.retain(|(done, _)| !Effect::is_seen(*done, at));
        for (_, effect) in &self.effects {
            effect.put(&mut view);
        }
        self.unsure.retain(|_, since| at < *since);
        let free = |id: &EniId| {
            view.enis
                .get(id)
                .is_some_and(|eni| eni.status == EniStatus::Available && eni.attachment.is_none())
        };
        self.orphans.retain(|id, _| free(id));
        let orphans = view.enis.keys().filter(|id| free(id));
        for id in orphans {
            self.orphans.entry(id.clone()).or_insert(at);
        }
        let recorded =
            inputs.nodes.iter().flat_map(|node| node.1.record.blocks.iter().map(move |block| (node, block)));
        let missing: BTreeSet<(EniId, Prefix)> = recorded
            .filter(|((name, node), block)| {
                let eni = view.enis.get(&block.interface);
                !eni.is_some_and(|eni| has(eni, block.cidr) && is_for(eni, name, node, &inputs.cluster))
            })
            .map(|(_, block)| (block.interface.clone(), block.cidr))
            .collect();
        self.absent.retain(|block, _| missing.contains(block));
        for block in missing {
            self.absent.entry(block).or_insert(at);
        }
        self.view = view;
    }

    /// Takes what nodes say; every plan begins with it.
    pub(super) fn hear(&mut self, inputs: &Inputs, now: Timestamp) {
        let mut acked = BTreeMap::new();
        for (name, node) in &inputs.nodes {
            let Some(report) = &node.report else { continue };
            for word in &report.released {
                let key = (name.clone(), word.cidr, word.generation);
                let since = self.acked.get(&key).copied().unwrap_or(now);
                acked.insert(key, since);
            }
            let used = self.used.entry(name.clone()).or_default();
            if used.last().is_none_or(|(_, last)| *last != report.used) {
                used.push((now, report.used));
            }
            // The last of those that are older says how many there were when the hour began.
            let older = used.iter().rposition(|(at, _)| now.since(*at) > HOUR).unwrap_or(0);
            used.drain(..older);
        }
        self.acked = acked;
        self.used.retain(|name, _| inputs.nodes.contains_key(name));
        self.excess.retain(|name, _| inputs.nodes.contains_key(name));
        for made in self.made.values_mut() {
            made.retain(|at| now.since(*at) < HOUR);
        }
        self.made.retain(|_, made| !made.is_empty());
        self.early.retain(|_, until| now < *until);
        self.trouble.forget(now);
    }

    /// Calls that are under way.
    pub fn under_way(&self) -> impl Iterator<Item = &Action> {
        self.flying.values()
    }

    /// Notes that a call begins.
    pub fn start(&mut self, action: &Action, now: Timestamp) {
        self.flying.insert(action.key(), action.clone());
        if let Action::Create { node, .. } = action {
            self.made.entry(node.clone()).or_default().push(now);
        }
    }

    /// Notes what became of a call.
    pub fn finish(&mut self, action: &Action, outcome: &Result<Reply, Fault>, now: Timestamp) {
        self.flying.remove(&action.key());
        match outcome {
            Ok(reply) => {
                if let Some(effect) = Effect::of(action, reply) {
                    effect.put(&mut self.view);
                    if let Effect::Assigned { eni, blocks } = &effect {
                        // What an earlier look missed is there again.
                        self.absent.retain(|(of, block), _| of != eni || !blocks.contains(block));
                    }
                    self.effects.push((now, effect));
                }
                self.trouble.succeeded(action);
            }
            Err(fault) if self.is_early(action, fault) => {
                self.early.insert(action.key(), now.after(EARLY));
                self.trouble.answered();
            }
            Err(fault) => {
                if let Action::Create { node, .. } = action
                    && *fault != Fault::Unknown
                    && let Some(made) = self.made.get_mut(node)
                {
                    // Nothing was made after all.
                    made.pop();
                }
                let looks_first = match fault {
                    Fault::Unknown | Fault::Taken | Fault::Stale { .. } => true,
                    // No node waits because of it, so nothing else would keep it from being asked again at once.
                    Fault::Refused { .. } => action.node().is_none(),
                    Fault::Throttled | Fault::Unavailable | Fault::SubnetShort | Fault::Quota { .. } => false,
                };
                if looks_first {
                    // A look that began earlier, or shows an older state, says nothing about this call.
                    self.unsure.insert(action.key(), now.after(LAG));
                }
                self.trouble.failed(action, fault, now);
            }
        }
    }

    /// Whether EC2 only does not know yet what a call of ours just made.
    fn is_early(&self, action: &Action, fault: &Fault) -> bool {
        let (Key::Eni(id), Fault::Stale { code }) = (action.key(), fault) else { return false };
        let made = |effect: &Effect| matches!(effect, Effect::Created(eni) if eni.id == id);
        code == "InvalidNetworkInterfaceID.NotFound" && self.effects.iter().any(|(_, effect)| made(effect))
    }

    /// When a call that came too early is to come again.
    pub(super) fn early_ends(&self) -> Option<Timestamp> {
        self.early.values().copied().min()
    }

    /// Since which look nobody has this interface.
    pub(super) fn orphan_since(&self, id: &EniId) -> Option<Timestamp> {
        self.orphans.get(id).copied()
    }

    /// When a look would show what is waited for: what became of a call, an interface that is on its way from its
    /// instance, and for the second time that a block is not there.
    pub(super) fn look_wanted(&self, cluster: &str) -> Option<Timestamp> {
        let seen = self.view.at;
        let absent = self.absent.values().map(|since| since.after(LAG)).filter(|at| *at > seen);
        let leaving = self.view.enis.values().filter(|eni| eni.status == EniStatus::Detaching);
        let leaving = leaving.filter(|eni| is_ours(eni, cluster)).map(|_| seen.after(SOON));
        self.unsure.values().copied().chain(absent).chain(leaving).min()
    }

    /// Whether two looks, apart by more than they lag, agree that the node does not have the block on the interface.
    pub(super) fn is_gone(&self, eni: &EniId, block: Prefix) -> bool {
        let since = self.absent.get(&(eni.clone(), block));
        since.is_some_and(|since| since.after(LAG) <= self.view.at)
    }

    pub(super) fn acked_since(&self, node: &NodeName, block: Prefix, generation: u64) -> Option<Timestamp> {
        self.acked.get(&(node.clone(), block, generation)).copied()
    }

    /// Since when a node has more than it wants.
    pub(super) fn excess_since(&self, node: &NodeName) -> Option<Timestamp> {
        self.excess.get(node).copied()
    }

    /// Notes which nodes have more than they want; every plan ends with it.
    pub(super) fn note_excess(&mut self, nodes: &BTreeSet<NodeName>, now: Timestamp) {
        self.excess.retain(|node, _| nodes.contains(node));
        for node in nodes {
            self.excess.entry(node.clone()).or_insert(now);
        }
    }

    /// How many pods came to the node within the last `horizon`.
    pub(super) fn arrivals(&self, node: &NodeName, horizon: Duration, now: Timestamp) -> u32 {
        let samples = self.used.get(node).map_or(&[][..], Vec::as_slice);
        let recent = samples.windows(2).filter(|pair| now.since(pair[1].0) <= horizon);
        recent.map(|pair| pair[1].1.saturating_sub(pair[0].1)).sum()
    }

    /// How many interfaces were made for the node in the last hour, and when the first of them no longer counts.
    pub(super) fn made(&self, node: &NodeName, now: Timestamp) -> (u32, Option<Timestamp>) {
        let made = self.made.get(node).map_or(&[][..], Vec::as_slice);
        let recent: Vec<Timestamp> = made.iter().copied().filter(|at| now.since(*at) < HOUR).collect();
        (u32::try_from(recent.len()).unwrap_or(u32::MAX), recent.first().map(|at| at.after(HOUR)))
    }

    /// Whether nothing may be planned under this key: a call is under way, or nobody knows yet what one did.
    pub(super) fn is_taken(&self, key: &Key) -> bool {
        self.flying.contains_key(key) || self.unsure.contains_key(key) || self.early.contains_key(key)
    }

    /// Whether the subnet was short of this unit a moment ago.
    pub fn is_cooling(&self, subnet: &SubnetId, unit: Unit, now: Timestamp) -> bool {
        self.trouble.is_short(subnet, unit, now)
    }
}

/// Whether the interface has the block.
pub(super) fn has(eni: &rhumb_model::Eni, block: Prefix) -> bool {
    match (block.addr(), block.len()) {
        (std::net::IpAddr::V4(addr), 32) => eni.addresses.contains(&addr),
        (std::net::IpAddr::V4(_), _) => eni.prefixes.contains(&block),
        (std::net::IpAddr::V6(_), _) => eni.prefixes_v6.contains(&block),
    }
}
