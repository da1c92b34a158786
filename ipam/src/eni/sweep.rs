// SPDX-License-Identifier: Apache-2.0
//! What is taken from EC2: blocks that agents let go, interfaces without blocks, interfaces that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::{Eni, EniId, EniStatus, NodeName, Prefix};

use super::fleet::{Fleet, blocks, is_ours};
use super::{Action, Inputs, LAG, Memory, NodeFacts, Planned, Priority};

/// How many such interfaces one plan deletes.
const MOST_AT_ONCE: usize = 25;

/// Takes from EC2 what the node's agent let go: whole interfaces by detaching them, else the blocks.
pub(super) fn give_back(
    name: &NodeName,
    node: &NodeFacts,
    fleet: &Fleet<'_>,
    is_growing: bool,
    actions: &mut Vec<Planned>,
) {
    for eni in &fleet.pods {
        let going: BTreeSet<Prefix> = node
            .record
            .blocks
            .iter()
            .filter(|block| block.interface == eni.id && block.unassigning)
            .map(|block| block.cidr)
            .collect();
        let all_go = blocks(eni).all(|block| going.contains(&block));
        let nothing_kept =
            !node.record.blocks.iter().any(|block| block.interface == eni.id && !block.unassigning);
        let is_primary = fleet.primary.is_some_and(|primary| primary.id == eni.id);
        let action = if all_go && nothing_kept && !is_primary && !is_growing && eni.status == EniStatus::InUse
        {
            let Some(attachment) = &eni.attachment else { continue };
            Action::Detach { node: name.clone(), eni: eni.id.clone(), attachment: attachment.id.clone() }
        } else {
            let blocks: Vec<Prefix> = blocks(eni).filter(|block| going.contains(block)).collect();
            if blocks.is_empty() {
                continue;
            }
            Action::Unassign { node: name.clone(), eni: eni.id.clone(), blocks }
        };
        actions.push(Planned { priority: Priority::Release, action });
    }
}

/// Deletes interfaces of ours that nobody has: as soon as a look shows it where their node gave them back (nobody attaches
/// those, and EC2 deletes none that is attached), else when looks have shown it for long enough.
pub(super) fn garbage(inputs: &Inputs, memory: &Memory, actions: &mut Vec<Planned>) {
    let mut recorded: BTreeMap<&EniId, bool> = BTreeMap::new();
    for block in inputs.nodes.values().flat_map(|node| &node.record.blocks) {
        let all_go = recorded.entry(&block.interface).or_insert(true);
        *all_go &= block.unassigning;
    }
    let about_to_be_attached: BTreeSet<EniId> =
        actions.iter().filter_map(|planned| attached(&planned.action)).collect();
    let is_garbage = |eni: &&Eni| {
        if !is_ours(eni, &inputs.cluster)
            || eni.status != EniStatus::Available
            || eni.requester_managed
            || about_to_be_attached.contains(&eni.id)
        {
            return false;
        }
        let age = match recorded.get(&eni.id) {
            Some(false) => return false,
            Some(true) => Duration::ZERO,
            None => inputs.orphan_age.max(LAG),
        };
        memory.orphan_since(&eni.id).is_some_and(|since| since.after(age) <= memory.view().at)
    };
    let garbage = memory.view().enis.values().filter(is_garbage).take(MOST_AT_ONCE);
    actions.extend(
        garbage.map(|eni| Planned {
            priority: Priority::Garbage,
            action: Action::Delete { eni: eni.id.clone() },
        }),
    );
}

fn attached(action: &Action) -> Option<EniId> {
    match action {
        Action::Attach { eni, .. } => Some(eni.clone()),
        Action::Create { .. }
        | Action::SetDeleteOnTermination { .. }
        | Action::SwitchOffSourceDestCheck { .. }
        | Action::SetGroups { .. }
        | Action::Assign { .. }
        | Action::AssignV6 { .. }
        | Action::Unassign { .. }
        | Action::Detach { .. }
        | Action::Delete { .. }
        | Action::Reserve { .. } => None,
    }
}
