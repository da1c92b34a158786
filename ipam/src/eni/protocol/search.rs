// SPDX-License-Identifier: Apache-2.0
//! The walk through the states, and by what two of them are the same.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use rhumb_model::{AttachmentStatus, EniId, Prefix, Timestamp};

use super::super::effects::Effect;
use super::super::{Action, Addresses, EniBlock, LAG, Record, Report, Word};
use super::state::{Operator, State, Step};

/// What was found: how many states, and the way to the first that must not be.
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) wrong: Option<String>,
}

/// Walks through the states, the nearest first, up to so many; every `sample`th must settle.
pub(super) fn explore(first: State, most: usize, sample: usize) -> Found {
    let mut seen = BTreeSet::from([key(&first)]);
    // Who came from where, for the way.
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((from, state)) = queue.pop_front() {
        for step in state.steps() {
            let Some(next) = state.after(&step) else { continue };
            if !seen.insert(key(&next)) {
                continue;
            }
            let number = ways.len();
            ways.push((from, Some(step)));
            let settled = || {
                let wanted = next.left.wanted;
                if number.is_multiple_of(sample) { next.settles(0).and(next.settles(wanted)) } else { Ok(()) }
            };
            if let Err(wrong) = next.check().and_then(|()| settled()) {
                let wrong = format!("{wrong}\n{}", way(&ways, number));
                return Found { states: number, wrong: Some(wrong) };
            }
            if number >= most {
                return Found { states: number, wrong: None };
            }
            queue.push_back((number, next));
        }
    }
    Found { states: ways.len(), wrong: None }
}

fn way(ways: &[(usize, Option<Step>)], mut at: usize) -> String {
    let mut steps = Vec::new();
    while let (from, Some(step)) = &ways[at] {
        steps.push(format!("  {step:?}"));
        at = *from;
    }
    steps.reverse();
    steps.join("\n")
}

/// FNV-1a of 128 bits: that two of some hundred thousand states agree by chance is not to be feared.
struct Fnv(u128);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn finish(&self) -> u64 {
        unreachable!("all of its bits are read")
    }
}

/// The state without what has no influence on what can happen: numbers that only grow count by their distance.
fn key(state: &State) -> u128 {
    let mut fnv = Fnv(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    let known = state.operator.iter().map(|it| it.config.generation);
    let known = known.chain(state.agent.iter().map(|it| it.record.generation));
    let top = state.configs.iter().map(|it| it.generation).chain(known).max().unwrap_or(0);
    let age = |at: Timestamp| state.now().since(at).as_secs().min(3 * LAG.as_secs());
    let to = &mut fnv;
    (&state.ec2, &state.past, &state.leased, &state.cut, state.node).hash(to);
    (state.left.crashes, state.left.thefts, state.left.turns).hash(to);
    for (action, since) in &state.calls {
        (call(action), state.tick - since).hash(to);
    }
    state.configs.iter().for_each(|it| record(it, top, to));
    state.statuses.iter().for_each(|it| report(it, top, to));
    if let Some(agent) = &state.agent {
        record(&agent.record, top, to);
        format!("{:?}", agent.newest == Default::default()).hash(to);
    }
    if let Some(Operator { memory, config, status, node, seen, gone }) = &state.operator {
        record(config, top, to);
        status.iter().for_each(|it| report(it, top, to));
        (node, seen, gone.map(|since| (state.tick - since).min(3)), age(memory.view().at)).hash(to);
        for (id, eni) in &memory.view().enis {
            let there = eni.attachment.as_ref();
            let there = there.map(|it| {
                (it.device_index, it.status == AttachmentStatus::Attached, it.delete_on_termination)
            });
            (id, there, &eni.addresses, memory.orphan_since(id).map(age)).hash(to);
        }
        memory.flying.values().for_each(|action| call(action).hash(to));
        for (key, until) in &memory.unsure {
            (format!("{key:?}"), until.since(state.now())).hash(to);
        }
        for (block, since) in &memory.absent {
            (block, age(*since)).hash(to);
        }
        for (at, it) in &memory.effects {
            (age(*at), effect(it)).hash(to);
        }
    }
    fnv.0
}

fn record(record: &Record, top: u64, to: &mut Fnv) {
    let number = |number: u64| (number > 0).then(|| top.saturating_sub(number));
    number(record.generation).hash(to);
    for EniBlock { cidr, interface, releasing, unassigning } in &record.blocks {
        (cidr, interface, releasing.map(number), unassigning).hash(to);
    }
}

fn report(report: &Report, top: u64, to: &mut Fnv) {
    let word = |word: &Word| (word.cidr, top.saturating_sub(word.generation));
    (top.saturating_sub(report.observed), &report.idle).hash(to);
    report.released.iter().map(word).collect::<Vec<_>>().hash(to);
    report.declined.iter().map(word).collect::<Vec<_>>().hash(to);
}

/// What of a call matters: its name, its interface, and the blocks that it gives or takes.
fn call(action: &Action) -> (&'static str, Option<EniId>, Vec<Prefix>) {
    let (eni, blocks) = match action {
        Action::Create { addresses, .. } => (None, these(addresses)),
        Action::Assign { eni, addresses, .. } => (Some(eni.clone()), these(addresses)),
        Action::Unassign { eni, blocks, .. } => (Some(eni.clone()), blocks.clone()),
        Action::Attach { eni, .. }
        | Action::SetDeleteOnTermination { eni, .. }
        | Action::Detach { eni, .. }
        | Action::Delete { eni } => (Some(eni.clone()), Vec::new()),
        Action::AssignV6 { .. }
        | Action::SwitchOffSourceDestCheck { .. }
        | Action::SetGroups { .. }
        | Action::Reserve { .. } => {
            panic!("{action:?}: not planned here")
        }
    };
    (action.call(), eni, blocks)
}

/// No blocks where EC2 is to choose.
fn these(addresses: &Addresses) -> Vec<Prefix> {
    match addresses {
        Addresses::These(blocks) => blocks.clone(),
        Addresses::Any { .. } => Vec::new(),
    }
}

fn effect(effect: &Effect) -> (u8, Option<EniId>, Vec<Prefix>) {
    match effect {
        Effect::Created(eni) => (0, Some(eni.id.clone()), Vec::new()),
        Effect::Attached { eni, .. } => (1, Some(eni.clone()), Vec::new()),
        Effect::DeletedOnTermination(eni) => (2, Some(eni.clone()), Vec::new()),
        Effect::Unchecked(eni) => (3, Some(eni.clone()), Vec::new()),
        Effect::Assigned { eni, blocks } => (4, Some(eni.clone()), blocks.clone()),
        Effect::Unassigned { eni, blocks } => (5, Some(eni.clone()), blocks.clone()),
        Effect::Detached(eni) => (6, Some(eni.clone()), Vec::new()),
        Effect::Deleted(eni) => (7, Some(eni.clone()), Vec::new()),
        Effect::Reserved(made) => (8, None, vec![made.cidr]),
        Effect::Regrouped { eni, .. } => (9, Some(eni.clone()), Vec::new()),
    }
}
