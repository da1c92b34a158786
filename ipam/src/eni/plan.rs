// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::{AttachmentStatus, NodeName, SecurityGroupId, SubnetId, Timestamp};

use super::calls::Calls;
use super::demand::Demand;
use super::fleet::{Fleet, Fleets};
use super::grow::Growth;
use super::obstacle::{General, Obstacle};
use super::record::{Case, Next, kept};
use super::room::Rooms;
use super::shape::Shape;
use super::{Action, EniPolicy, Inputs, Memory, NodeFacts, NodePlan, Plan, Priority, Unit, reserve, sweep};

/// Plans for the whole cluster.
///
/// Pure: what it says follows from its arguments, of which the memory notes since when it is so. Nodes whose pods wait
/// choose first, then those below their minimum, then what is to be ready; what is given back comes last.
pub fn plan(inputs: &Inputs, memory: &mut Memory, now: Timestamp) -> Plan {
    memory.hear(inputs, now);
    let fleets = Fleets::of(memory, &inputs.cluster);
    let known =
        inputs.nodes.iter().filter_map(|(name, node)| Some((name, node, inputs.pools.get(&node.pool)?)));
    let mut turns: Vec<Turn<'_>> = known
        .map(|(name, node, policy)| Turn::of(name, node, policy, inputs, &fleets, memory, now))
        .collect();
    let wakes = turns.iter().filter_map(|turn| turn.next.wake_at).filter(|at| *at > now);
    let mut plan = Plan {
        wake_at: memory.trouble.ends(now).into_iter().chain(memory.early_ends()).chain(wakes).min(),
        look_at: memory.look_wanted(&inputs.cluster),
        ..Plan::default()
    };
    turns.sort_by_key(|turn| turn.priority);
    let mut stock = Stock {
        inputs,
        memory,
        now,
        rooms: Rooms::of(memory.view(), memory, inputs),
        calls: Calls::of(memory),
        reserved: BTreeMap::new(),
    };
    let mut excess = BTreeSet::new();
    for turn in turns {
        if turn.next.excess {
            excess.insert(turn.name.clone());
        }
        let name = turn.name.clone();
        plan.nodes.insert(name, stock.serve(turn));
    }
    let Stock { rooms, mut calls, reserved, .. } = stock;
    reserve::plan(&reserved, inputs, memory, &rooms, now, &mut calls);
    sweep::garbage(inputs, memory, &mut calls);
    plan.actions = calls.in_order();
    keep_possible(&mut plan, memory, now);
    memory.note_excess(&excess, now);
    plan
}

/// What one node should have, and what it is told.
struct Turn<'a> {
    name: &'a NodeName,
    node: &'a NodeFacts,
    policy: &'a EniPolicy,
    shape: Shape,
    fleet: Fleet<'a>,
    demand: Demand,
    next: Next,
    /// IPv4 addresses that it keeps.
    has: u32,
    /// How urgent what it lacks is.
    priority: Priority,
}

impl<'a> Turn<'a> {
    fn of(
        name: &'a NodeName,
        node: &'a NodeFacts,
        policy: &'a EniPolicy,
        inputs: &Inputs,
        fleets: &Fleets<'a>,
        memory: &Memory,
        now: Timestamp,
    ) -> Self {
        let shape = Shape::of(node.limits.as_ref());
        let fleet = fleets.fleet(name, node, policy, inputs);
        let demand = Demand::of(name, node, policy, &shape, memory, now);
        let next = Case { name, node, policy, fleet: &fleet, memory, wanted: demand.wanted, now }.next();
        let has = kept(&next.record);
        let priority = if demand.serves(has) < demand.pods {
            Priority::Waiting
        } else if has < policy.min_allocate {
            Priority::BelowMinimum
        } else {
            Priority::Warm
        };
        Self { name, node, policy, shape, fleet, demand, next, has, priority }
    }
}

/// What all nodes take from.
struct Stock<'a> {
    inputs: &'a Inputs,
    memory: &'a Memory,
    now: Timestamp,
    rooms: Rooms,
    calls: Calls<'a>,
    /// How many /28 of each subnet are to be kept for prefixes.
    reserved: BTreeMap<SubnetId, u32>,
}

impl Stock<'_> {
    /// Plans the calls for a node; what it is told, and why they are not enough.
    fn serve(&mut self, turn: Turn<'_>) -> NodePlan {
        let still = standing_still(turn.name, turn.node, self.memory, self.now);
        let (obstacle, waits_for) = if still.is_some() { (still, None) } else { self.plan_calls(&turn) };
        let Turn { node, policy, shape, fleet, demand, next, has, .. } = turn;
        let obstacle = next.lost.map(|block| Obstacle::Lost { block }).or(obstacle);
        let obstacle = obstacle.or_else(|| full(&demand, has, node, policy, &shape));
        NodePlan {
            record: next.record,
            max_pods: shape.max_pods(policy, node.kubelet_pods),
            most: demand.cap.unwrap_or(u32::MAX).min(shape.capacity(policy)),
            wanted: demand.wanted,
            has,
            free: demand.serves(has).saturating_sub(demand.pods),
            ipv6: shape.prefixes
                && (fleet.pods.is_empty() || fleet.with_v6(self.memory.view()).next().is_some()),
            waits_for,
            verdict: obstacle.map(|obstacle| obstacle.verdict(node, policy, &shape)),
        }
    }

    /// Plans the calls for a node that may have some; why they are not enough, and which is not planned yet.
    fn plan_calls(&mut self, turn: &Turn<'_>) -> (Option<Obstacle>, Option<&'static str>) {
        let Turn { name, node, policy, shape, fleet, .. } = turn;
        let missing = turn.demand.wanted.saturating_sub(turn.has);
        let mut growth = Growth {
            name,
            node,
            policy,
            shape,
            fleet,
            inputs: self.inputs,
            memory: self.memory,
            now: self.now,
            calls: &self.calls,
            actions: Vec::new(),
            obstacle: None,
            waits_for: None,
        };
        growth.plan(missing, &mut self.rooms);
        if policy.unit == Some(Unit::Prefix) && policy.reserve_prefixes > 0 {
            for subnet in growth.subnets(false) {
                let wanted = self.reserved.entry(subnet).or_default();
                *wanted = policy.reserve_prefixes.max(*wanted);
            }
        }
        let is_growing = missing > 0 || !growth.actions.is_empty();
        let groups = growth.groups();
        let Growth { actions, obstacle, mut waits_for, .. } = growth;
        for action in actions {
            self.calls.push(turn.priority, action);
        }
        for action in settings(policy, fleet, groups.as_deref()) {
            // The call names no node, so it is told here that it is refused.
            if self.memory.trouble.refused(action.call(), self.now).is_some() {
                waits_for.get_or_insert(action.call());
            }
            self.calls.push(Priority::Warm, action);
        }
        sweep::give_back(name, node, fleet, is_growing, &mut self.calls);
        (obstacle, waits_for)
    }
}

/// Why nothing is done for a node at all.
fn standing_still(name: &NodeName, node: &NodeFacts, memory: &Memory, now: Timestamp) -> Option<Obstacle> {
    if node.leaving {
        return Some(Obstacle::Leaving);
    }
    if !node.instance.state.takes_interfaces() {
        return Some(Obstacle::State(node.instance.state));
    }
    let (until, last) = memory.trouble.waits(name, now)?;
    Some(Obstacle::Backoff { until, last: last.to_owned() })
}

/// Why a node that has all that it may have serves no more pods.
fn full(demand: &Demand, has: u32, node: &NodeFacts, policy: &EniPolicy, shape: &Shape) -> Option<Obstacle> {
    let Some(most) = demand.cap.filter(|cap| demand.pods >= *cap) else {
        let most = shape.capacity(policy);
        let is_full = policy.unit.is_some() && demand.pods >= most && has >= most;
        return is_full.then_some(if shape.known { Obstacle::InstanceFull } else { Obstacle::UnknownType });
    };
    let by_pool = policy.max_allocate == Some(most) && node.kubelet_pods != Some(most);
    Some(if by_pool { Obstacle::MaxAllocate { most } } else { Obstacle::KubeletLimit { most } })
}

/// What attached interfaces are told, one thing at a time, where they are not so. `groups`: those of the pool, where
/// it chooses any.
fn settings<'a>(
    policy: &'a EniPolicy,
    fleet: &'a Fleet<'_>,
    groups: Option<&'a [SecurityGroupId]>,
) -> impl Iterator<Item = Action> + 'a {
    let is_primary = |eni: &rhumb_model::Eni| fleet.primary.is_some_and(|primary| primary.id == eni.id);
    fleet.pods.iter().copied().chain(fleet.spare).filter_map(move |eni| {
        let attachment = eni.attachment.as_ref()?;
        let goes_with_it =
            attachment.delete_on_termination || is_primary(eni) || !policy.delete_on_termination;
        if !goes_with_it && attachment.status != AttachmentStatus::Detached {
            let attachment = attachment.id.clone();
            return Some(Action::SetDeleteOnTermination { eni: eni.id.clone(), attachment });
        }
        if let Some(groups) = groups
            && (policy.groups_of_primary || !is_primary(eni))
            && !is_same(groups, &eni.security_groups)
        {
            return Some(Action::SetGroups { eni: eni.id.clone(), groups: groups.to_vec() });
        }
        (policy.switch_off_source_dest_check && eni.source_dest_check)
            .then(|| Action::SwitchOffSourceDestCheck { eni: eni.id.clone() })
    })
}

fn is_same(wished: &[SecurityGroupId], present: &[SecurityGroupId]) -> bool {
    let set = |groups: &[SecurityGroupId]| groups.iter().cloned().collect::<BTreeSet<_>>();
    wished == present || set(wished) == set(present)
}

/// Leaves out what is refused, beyond a quota, or asked of an EC2 that is silent.
fn keep_possible(plan: &mut Plan, memory: &Memory, now: Timestamp) {
    let hinders = |call: &'static str| {
        let refused = memory.trouble.refused(call, now);
        let refused = refused.map(|code| General::Refused { call, code: code.to_owned() });
        let beyond = || memory.trouble.quota(call, now).map(|code| General::Quota { code: code.to_owned() });
        refused.or_else(beyond)
    };
    let asked =
        plan.actions.iter().filter_map(|planned| Some((planned.action.node()?, planned.action.call())));
    let waiting = plan.nodes.iter().filter_map(|(name, node)| Some((name, node.waits_for?)));
    let mut unable: Vec<(NodeName, General)> = Vec::new();
    for (name, call) in asked.chain(waiting) {
        let is_silent = memory.trouble.silent().is_some();
        let obstacle = hinders(call).or(is_silent.then_some(General::Unreachable));
        unable.extend(obstacle.map(|obstacle| (name.clone(), obstacle)));
    }
    plan.actions.retain(|planned| hinders(planned.action.call()).is_none());
    if let Some(at) = memory.trouble.silent() {
        plan.actions.truncate(usize::from(at <= now && memory.flying.is_empty()));
    }
    for (name, obstacle) in unable {
        if let Some(node) = plan.nodes.get_mut(&name).filter(|node| node.verdict.is_none()) {
            node.verdict = Some(obstacle.verdict());
        }
    }
}

#[cfg(test)]
mod tests;
