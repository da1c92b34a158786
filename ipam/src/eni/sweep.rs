// SPDX-License-Identifier: Apache-2.0
//! What is taken from EC2: blocks that agents let go, interfaces without blocks, interfaces that nobody has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_model::{Eni, EniId, EniStatus, NodeName, Prefix};

use super::calls::Calls;
use super::fleet::{Fleet, blocks, is_excluded, is_ours};
use super::{Action, Inputs, LAG, Memory, NodeFacts, Priority};

/// How many such interfaces one plan deletes.
const MOST_AT_ONCE: usize = 25;

/// Takes from EC2 what the node's agent let go: whole interfaces by detaching them, else the blocks.
pub(super) fn give_back(
    name: &NodeName,
    node: &NodeFacts,
    fleet: &Fleet<'_>,
    is_growing: bool,
    calls: &mut Calls<'_>,
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
        calls.push(Priority::Release, action);
    }
}

/// Deletes interfaces of ours that nobody has: as soon as a look shows it where their node gave them back (nobody attaches
/// those, and EC2 deletes none that is attached), else when looks have shown it for long enough.
pub(super) fn garbage(inputs: &Inputs, memory: &Memory, calls: &mut Calls<'_>) {
    let is_free = |eni: &&Eni| {
        eni.status == EniStatus::Available
            && !eni.requester_managed
            && is_ours(eni, &inputs.cluster)
            && !inputs.pools.values().any(|policy| is_excluded(eni, policy))
    };
    // For each whether a NodeConfig names it, and whether all of its blocks there are given back.
    let mut free: BTreeMap<&EniId, Option<bool>> =
        memory.view().enis.values().filter(is_free).map(|eni| (&eni.id, None)).collect();
    if free.is_empty() {
        return;
    }
    for action in calls.iter() {
        if let Some(eni) = attached(action) {
            free.remove(eni);
        }
    }
    for block in inputs.nodes.values().flat_map(|node| &node.record.blocks) {
        if let Some(all_go) = free.get_mut(&block.interface) {
            *all_go = Some(all_go.unwrap_or(true) && block.unassigning);
        }
    }
    let is_old = |(eni, all_go): &(&EniId, Option<bool>)| {
        let age = match all_go {
            Some(false) => return false,
            Some(true) => Duration::ZERO,
            None => inputs.orphan_age.max(LAG),
        };
        memory.orphan_since(eni).is_some_and(|since| since.after(age) <= memory.view().at)
    };
    for (eni, _) in free.into_iter().filter(is_old).take(MOST_AT_ONCE) {
        calls.push(Priority::Garbage, Action::Delete { eni: eni.clone() });
    }
}

fn attached(action: &Action) -> Option<&EniId> {
    match action {
        Action::Attach { eni, .. } => Some(eni),
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
