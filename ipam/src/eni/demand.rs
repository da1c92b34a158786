// SPDX-License-Identifier: Apache-2.0
//! How many addresses a node should have.

use rhumb_model::{NodeName, Timestamp};

use super::shape::Shape;
use super::{EniPolicy, Memory, NodeFacts};

/// How many IPv4 addresses a node should have, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// For pods that run or wait.
    pub(super) pods: u32,
    /// Resting: neither ready nor in use.
    pub(super) cooling: u32,
    /// Altogether.
    pub(super) wanted: u32,
    /// What no more pods can use: of kubelet and pool the least.
    pub(super) cap: Option<u32>,
}

impl Demand {
    pub(super) fn of(
        name: &NodeName,
        node: &NodeFacts,
        policy: &EniPolicy,
        shape: &Shape,
        memory: &Memory,
        now: Timestamp,
    ) -> Self {
        if policy.unit.is_none() {
            return Self::default();
        }
        let (used, cooling, pending) =
            node.report.as_ref().map_or((0, 0, 0), |report| (report.used, report.cooling, report.pending));
        let pods = used.saturating_add(pending).max(node.scheduled);
        let arriving = policy.warm.map_or(0, |warm| memory.arrivals(name, warm.horizon, now));
        let ready = policy.pre_allocate.max(arriving);
        let cap = [node.kubelet_pods, policy.max_allocate].into_iter().flatten().min();
        let wanted = pods.saturating_add(ready).max(policy.min_allocate).min(cap.unwrap_or(u32::MAX));
        // A resting address serves nobody, whatever the cap: it is counted on top.
        let wanted = wanted.saturating_add(cooling).min(shape.capacity(policy));
        Self { pods, cooling, wanted, cap }
    }

    /// How many of `has` addresses can be given to pods that wait, or have been.
    pub(super) fn serves(&self, has: u32) -> u32 {
        has.saturating_sub(self.cooling)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{facts, inputs, m5_large, node, report};
    use super::super::{Unit, Warm};
    use super::*;

    fn demand(node_facts: &NodeFacts, policy: &EniPolicy) -> Demand {
        let shape = Shape::of(node_facts.limits.as_ref());
        Demand::of(&node("a"), node_facts, policy, &shape, &Memory::default(), Timestamp(0))
    }

    fn used(used: u32, cooling: u32, pending: u32) -> NodeFacts {
        NodeFacts { report: Some(report(used, cooling, pending)), ..facts("a", m5_large()) }
    }

    #[test]
    fn running_waiting_and_ready_addresses_add_up_and_resting_ones_come_on_top() {
        let policy = EniPolicy::default();
        assert_eq!(demand(&used(0, 0, 0), &policy).wanted, 8);
        assert_eq!(demand(&used(5, 0, 3), &policy).wanted, 16);
        assert_eq!(demand(&used(5, 4, 0), &policy).wanted, 17);
        let scheduled = NodeFacts { scheduled: 12, ..used(5, 0, 3) };
        assert_eq!(demand(&scheduled, &policy).wanted, 20);
    }

    #[test]
    fn minimum_maximum_kubelet_and_type_bound_it() {
        let policy = EniPolicy { min_allocate: 20, max_allocate: Some(24), ..EniPolicy::default() };
        assert_eq!(demand(&used(0, 0, 0), &policy).wanted, 20);
        assert_eq!(demand(&used(20, 0, 0), &policy).wanted, 24);
        let kubelet = NodeFacts { kubelet_pods: Some(10), ..used(9, 0, 0) };
        assert_eq!(demand(&kubelet, &policy).wanted, 10);
        assert_eq!(demand(&used(90, 0, 0), &EniPolicy::default()).wanted, 27, "three interfaces of nine");
        let prefixes = EniPolicy { unit: Some(Unit::Prefix), ..EniPolicy::default() };
        assert_eq!(demand(&used(90, 0, 0), &prefixes).wanted, 98);
    }

    #[test]
    fn where_pods_come_fast_more_is_ready() {
        let policy =
            EniPolicy { warm: Some(Warm { horizon: Duration::from_secs(60) }), ..EniPolicy::default() };
        let mut memory = Memory::default();
        let mut wanted = Vec::new();
        for (second, pods) in [(0, 0), (20, 3), (40, 12), (300, 12)] {
            let now = Timestamp(second * 1000);
            let inputs = inputs(policy.clone(), [("a", used(pods, 0, 0))]);
            memory.hear(&inputs, now);
            let facts = &inputs.nodes[&node("a")];
            let shape = Shape::of(facts.limits.as_ref());
            wanted.push(Demand::of(&node("a"), facts, &policy, &shape, &memory, now).wanted);
        }
        assert_eq!(wanted, [8, 11, 24, 20]);
        let inputs = inputs(policy.clone(), [("a", used(30, 0, 0))]);
        memory.hear(&inputs, Timestamp(9_000_000));
        let arrived = memory.arrivals(&node("a"), Duration::from_secs(60), Timestamp(9_000_000));
        assert_eq!(arrived, 18, "after hours of rest, too");
    }
}
