// SPDX-License-Identifier: Apache-2.0
//! What two other networks do for the same pods, as their sources have it: the calls and their pace, not their code.

use std::collections::VecDeque;

use anyhow::Result;
use rhumb_cloud_fake::{Action as Call, Answer, Assign, Attach, Change, NewInterface, Question, Want, Wants};
use rhumb_model::{AttachmentId, EniId};

use super::pace::Pace;
use super::world::{INTERFACES, SLOTS, World};

/// Seconds between two looks of amazon-vpc-cni-k8s at its pool.
const POOL_MONITOR: u64 = 5;
/// Its longest wait after a call that was throttled.
const LONGEST_BACKOFF: u64 = 60;
/// Addresses that Cilium keeps ready.
const PRE_ALLOCATE: usize = 8;
/// Seconds between two looks of Cilium's operator at all instances.
const RESYNC: u64 = 60;

/// A call that one node waits for.
#[derive(Debug, Clone)]
enum Step {
    DescribeOwn,
    Assign(EniId, u16),
    Create(u16),
    DescribeInstance,
    Attach(EniId),
    Modify(EniId, AttachmentId),
}

/// One node's calls, in their order.
#[derive(Debug, Clone, Default)]
struct Queue {
    steps: VecDeque<Step>,
    not_before: u64,
    failures: u32,
    planned: usize,
    interfaces: usize,
}

impl Queue {
    /// Makes the next call; what follows from its answer is put in front.
    fn call(&mut self, world: &mut World, node: usize) -> bool {
        let Some(step) = self.steps.front().cloned() else { return true };
        let instance = world.nodes[node].instance.clone();
        let call = match &step {
            Step::DescribeOwn => Call::DescribeNetworkInterfaces(
                Question::default().filter("attachment.instance-id", &[instance.as_str()]),
            ),
            Step::Assign(eni, count) => Call::AssignPrivateIpAddresses(Assign {
                interface: eni.clone(),
                addresses: Want::Count(*count),
                prefixes: Want::default(),
                reassign: false,
            }),
            Step::Create(count) => Call::CreateNetworkInterface(NewInterface {
                wants: Wants { addresses: Want::Count(*count), ..Wants::default() },
                ..NewInterface::new(world.nodes[node].subnet.clone())
            }),
            Step::DescribeInstance => {
                Call::DescribeInstances(Question { ids: vec![instance], ..Question::default() })
            }
            Step::Attach(interface) => Call::AttachNetworkInterface(Attach {
                interface: interface.clone(),
                instance,
                device_index: u8::try_from(self.interfaces).unwrap_or(u8::MAX),
                card: 0,
            }),
            Step::Modify(eni, attachment) => Call::ModifyNetworkInterfaceAttribute(
                eni.clone(),
                Change::DeleteOnTermination(attachment.clone(), true),
            ),
        };
        let Ok(answer) = world.call(call) else { return false };
        self.steps.pop_front();
        if let (Step::Create(_), Answer::Interface(eni)) = (&step, &answer) {
            // The one that follows knows by now what was made.
            let place = self.steps.iter().position(|step| matches!(step, Step::DescribeInstance));
            self.steps.insert(place.map_or(0, |place| place + 1), Step::Attach(eni.id.clone()));
        }
        if let (Step::Attach(eni), Answer::Attached(attachment, _)) = (step, answer) {
            self.interfaces += 1;
            self.steps.push_front(Step::Modify(eni, attachment));
        }
        true
    }
}

/// amazon-vpc-cni-k8s as it is delivered: each node for itself, a whole interface ready (`WARM_ENI_TARGET=1`), one
/// interface at a time.
pub(super) struct AwsCni {
    nodes: Vec<Queue>,
}

impl AwsCni {
    pub(super) fn new(world: &World) -> Result<Self> {
        let all = u16::try_from(SLOTS)?;
        let first = |node| -> Result<Queue> {
            let steps = [Step::DescribeOwn, Step::Assign(world.primary(node)?, all)];
            Ok(Queue { steps: steps.into(), planned: SLOTS, interfaces: 1, ..Queue::default() })
        };
        Ok(Self { nodes: (0..world.nodes.len()).map(first).collect::<Result<_>>()? })
    }

    pub(super) fn step(&mut self, world: &mut World) {
        let second = world.seconds();
        for (number, queue) in self.nodes.iter_mut().enumerate() {
            if second < queue.not_before {
                continue;
            }
            let has_all = queue.interfaces == INTERFACES;
            let warm = queue.planned >= world.nodes[number].pods + SLOTS;
            if queue.steps.is_empty() && !has_all && !warm {
                queue.steps =
                    [Step::Create(u16::try_from(SLOTS).unwrap_or(u16::MAX)), Step::DescribeInstance].into();
                queue.planned += SLOTS;
            }
            while !queue.steps.is_empty() {
                if queue.call(world, number) {
                    queue.failures = 0;
                    queue.not_before = second + POOL_MONITOR;
                } else {
                    queue.failures += 1;
                    let longest = (1u64 << queue.failures.min(6)).min(LONGEST_BACKOFF);
                    // Chance, without any: the nodes do not come back together.
                    let scatter = (u64::try_from(number).unwrap_or(0) * 7919 + second * 31) % longest.max(1);
                    queue.not_before = second + 1 + scatter;
                    break;
                }
            }
        }
    }
}

/// Cilium's operator as it is delivered: one bucket for all calls, eight addresses ready, one step of a node at a time.
pub(super) struct Cilium {
    nodes: Vec<Queue>,
    pace: Pace,
    turn: usize,
    synced: Option<u64>,
}

impl Cilium {
    pub(super) fn new(world: &World) -> Self {
        let first = Queue { interfaces: 1, ..Queue::default() };
        Self { nodes: vec![first; world.nodes.len()], pace: Pace::one_for_all(), turn: 0, synced: None }
    }

    pub(super) fn step(&mut self, world: &mut World) -> Result<()> {
        let second = world.seconds();
        if self.synced.is_none_or(|at| second >= at + RESYNC) {
            self.synced = Some(second);
            // A failed look is one of the next minute.
            drop(world.describe());
            for call in [Call::DescribeSubnets(Question::default()), Call::DescribeVpcs(Question::default())]
            {
                drop(world.call(call));
            }
        }
        let count = self.nodes.len();
        for _ in 0..count {
            let number = self.turn % count;
            self.turn += 1;
            self.refine(world, number)?;
            while !self.nodes[number].steps.is_empty() {
                if !self.pace.take("", second) {
                    self.turn -= 1;
                    return Ok(());
                }
                if !self.nodes[number].call(world, number) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// needed = pre-allocate - (available - used), by what pods have so far.
    fn refine(&mut self, world: &World, number: usize) -> Result<()> {
        let queue = &mut self.nodes[number];
        if !queue.steps.is_empty() {
            return Ok(());
        }
        let available: usize = world.interfaces(number).map(|eni| eni.addresses.len()).sum();
        let used = world.usable(number).min(world.nodes[number].pods);
        let needed = PRE_ALLOCATE.saturating_sub(available - used);
        if needed == 0 {
            return Ok(());
        }
        let with_room =
            world.interfaces(number).find(|eni| eni.attachment.is_some() && eni.addresses.len() < SLOTS);
        if let Some(eni) = with_room {
            let count = u16::try_from(needed.min(SLOTS - eni.addresses.len()))?;
            queue.steps.push_back(Step::Assign(eni.id.clone(), count));
        } else if queue.interfaces < INTERFACES {
            queue.steps.push_back(Step::Create(u16::try_from(needed.min(SLOTS))?));
        }
        Ok(())
    }
}
