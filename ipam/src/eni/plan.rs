// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::{AttachmentStatus, NodeName, SecurityGroupId, SubnetId, Timestamp};

use super::demand::Demand;
use super::fleet::{Fleet, Fleets};
use super::grow::Growth;
use super::obstacle::{General, Obstacle};
use super::record::{Case, Next, kept};
use super::room::Rooms;
use super::shape::Shape;
use super::{
    Action, EniPolicy, Inputs, Memory, NodeFacts, NodePlan, Plan, Planned, Priority, Unit, reserve, sweep,
};

/// Plans for the whole cluster.
///
/// Pure: what it says follows from its arguments, of which the memory notes since when it is so. Nodes whose pods wait
/// come first, then those below their minimum, then what is to be ready, then what is given back.
pub fn plan(inputs: &Inputs, memory: &mut Memory, now: Timestamp) -> Plan {
    memory.hear(inputs, now);
    let mut plan = Plan {
        wake_at: memory.trouble.ends(now),
        look_at: memory.look_wanted(&inputs.cluster),
        ..Plan::default()
    };
    let mut excess = BTreeSet::new();
    let mut cluster = Cluster {
        inputs,
        memory,
        now,
        fleets: Fleets::of(memory.view(), &inputs.cluster),
        rooms: Rooms::of(memory.view(), memory, inputs),
        reserved: BTreeMap::new(),
    };
    for (name, node) in &inputs.nodes {
        let Some(policy) = inputs.pools.get(&node.pool) else { continue };
        let (planned, next) = cluster.node(name, node, policy, &mut plan);
        if next.excess {
            excess.insert(name.clone());
        }
        plan.wake_at = plan.wake_at.into_iter().chain(next.wake_at.filter(|at| *at > now)).min();
        plan.nodes.insert(name.clone(), planned);
    }
    let Cluster { rooms, reserved, .. } = cluster;
    reserve::plan(&reserved, inputs, memory, &rooms, now, &mut plan.actions);
    sweep::garbage(inputs, memory, &mut plan.actions);
    keep_possible(&mut plan, memory, now);
    memory.note_excess(&excess, now);
    plan
}

struct Cluster<'a> {
    inputs: &'a Inputs,
    memory: &'a Memory,
    now: Timestamp,
    fleets: Fleets<'a>,
    rooms: Rooms,
    /// How many /28 of each subnet are to be kept for prefixes.
    reserved: BTreeMap<SubnetId, u32>,
}

impl Cluster<'_> {
    fn node(
        &mut self,
        name: &NodeName,
        node: &NodeFacts,
        policy: &EniPolicy,
        plan: &mut Plan,
    ) -> (NodePlan, Next) {
        let shape = Shape::of(node.limits.as_ref());
        let fleet = self.fleets.fleet(name, node, policy, self.inputs);
        let demand = Demand::of(name, node, policy, &shape, self.memory, self.now);
        let (memory, now, wanted) = (self.memory, self.now, demand.wanted);
        let next = Case { name, node, policy, fleet: &fleet, memory, wanted, now }.next();
        let has = kept(&next.record);
        let mut obstacle = standing_still(name, node, memory, now);
        if obstacle.is_none() {
            let missing = demand.wanted.saturating_sub(has);
            obstacle = self.calls(name, node, policy, &shape, &fleet, &demand, (has, missing), plan);
        }
        let obstacle = next.lost.map(|block| Obstacle::Lost { block }).or(obstacle);
        let obstacle = obstacle.or_else(|| full(&demand, has, node, policy, &shape));
        let planned = NodePlan {
            record: next.record.clone(),
            max_pods: shape.max_pods(policy, node.kubelet_pods),
            most: demand.cap.unwrap_or(u32::MAX).min(shape.capacity(policy)),
            wanted: demand.wanted,
            has,
            free: demand.serves(has).saturating_sub(demand.pods),
            verdict: obstacle.map(|obstacle| obstacle.verdict(node, policy, &shape)),
        };
        (planned, next)
    }

    /// Plans the calls for a node that may have some; why they are not enough.
    #[expect(clippy::too_many_arguments, reason = "all of them are about the one node")]
    fn calls(
        &mut self,
        name: &NodeName,
        node: &NodeFacts,
        policy: &EniPolicy,
        shape: &Shape,
        fleet: &Fleet<'_>,
        demand: &Demand,
        (has, missing): (u32, u32),
        plan: &mut Plan,
    ) -> Option<Obstacle> {
        let (inputs, memory, now) = (self.inputs, self.memory, self.now);
        let mut growth = Growth {
            name,
            node,
            policy,
            shape,
            fleet,
            inputs,
            memory,
            now,
            actions: Vec::new(),
            obstacle: None,
        };
        growth.plan(missing, &mut self.rooms);
        if policy.unit == Some(Unit::Prefix) && policy.reserve_prefixes > 0 {
            for subnet in growth.subnets(false) {
                let wanted = self.reserved.entry(subnet).or_default();
                *wanted = policy.reserve_prefixes.max(*wanted);
            }
        }
        let priority = if demand.serves(has) < demand.pods {
            Priority::Waiting
        } else if has < policy.min_allocate {
            Priority::BelowMinimum
        } else {
            Priority::Warm
        };
        let is_growing = !growth.actions.is_empty();
        let groups = growth.groups();
        plan.actions.extend(growth.actions.into_iter().map(|action| Planned { priority, action }));
        plan.actions.extend(
            settings(policy, fleet, groups.as_deref())
                .map(|action| Planned { priority: Priority::Warm, action }),
        );
        sweep::give_back(name, node, fleet, is_growing || missing > 0, &mut plan.actions);
        growth.obstacle
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
    set(wished) == set(present)
}

/// Leaves out what is under way, refused, beyond a quota, or asked of an EC2 that is silent; puts the rest in order.
fn keep_possible(plan: &mut Plan, memory: &Memory, now: Timestamp) {
    let mut unable: Vec<(NodeName, General)> = Vec::new();
    let mut seen = BTreeSet::new();
    let quota = memory.trouble.quota(now);
    plan.actions.sort_by_key(|planned| planned.priority);
    plan.actions.retain(|Planned { action, .. }| {
        let key = action.key();
        if memory.is_taken(&key) || !seen.insert(key) {
            return false;
        }
        let takes = matches!(
            action,
            Action::Create { .. } | Action::Assign { .. } | Action::AssignV6 { .. } | Action::Attach { .. }
        );
        let call = action.call();
        let obstacle = match (memory.trouble.refused(call, now), quota) {
            (Some(code), _) => General::Refused { call, code: code.to_owned() },
            (None, Some(code)) if takes => General::Quota { code: code.to_owned() },
            (None, _) => return true,
        };
        unable.extend(action.node().map(|node| (node.clone(), obstacle)));
        false
    });
    if let Some(at) = memory.trouble.silent() {
        let all = plan.actions.iter().filter_map(|planned| planned.action.node().cloned());
        unable.extend(all.map(|node| (node, General::Unreachable)));
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
