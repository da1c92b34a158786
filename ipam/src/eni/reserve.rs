// SPDX-License-Identifier: Apache-2.0
//! Parts of subnets that are kept for prefixes, so that single addresses, ours or other people's, break no whole /28.

use std::collections::BTreeMap;

use rhumb_model::{SubnetId, Timestamp};

use super::calls::Calls;
use super::room::Rooms;
use super::{Action, Inputs, Memory, Priority, TAG_CLUSTER};

/// Asks for what is missing of so many /28 in each subnet: the greatest part that is free, and the rest by the next plans.
/// None is ever given back: what people no longer want kept they delete themselves, by its tag.
pub(super) fn plan(
    wanted: &BTreeMap<SubnetId, u32>,
    inputs: &Inputs,
    memory: &Memory,
    rooms: &Rooms,
    now: Timestamp,
    calls: &mut Calls<'_>,
) {
    for (subnet, wanted) in wanted {
        let missing = wanted.saturating_sub(rooms.reserved(subnet));
        if missing == 0 || memory.trouble.is_unreserved(subnet, now) {
            continue;
        }
        let Some(cidr) = rooms.reservable(subnet, missing) else { continue };
        let tags = [(TAG_CLUSTER.to_owned(), inputs.cluster.clone())].into();
        let action = Action::Reserve { subnet: subnet.clone(), cidr, tags };
        calls.push(Priority::Warm, action);
    }
}
