// SPDX-License-Identifier: Apache-2.0
//! The interfaces of one node, sorted by what may be done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rhumb_model::{AttachmentStatus, Eni, EniId, EniStatus, InstanceId, NodeName, Prefix};

use super::tags::has_all;
use super::{Action, EniPolicy, Inputs, Memory, NodeFacts, TAG_CLUSTER, TAG_INSTANCE, TAG_NODE, View};

/// The interfaces of one node.
#[derive(Debug, Default)]
pub(super) struct Fleet<'a> {
    /// Attached, or on the way, and to carry pods: by card and index.
    pub(super) pods: Vec<&'a Eni>,
    /// The primary one, if it carries no pods.
    pub(super) spare: Option<&'a Eni>,
    /// Made for the node, and nobody's yet.
    pub(super) loose: Vec<&'a Eni>,
    /// Its instance has them, and the pool wants them left alone.
    pub(super) excluded: BTreeSet<&'a EniId>,
    /// Places that interfaces have, whoever made them.
    pub(super) places: BTreeSet<(u8, u8)>,
    /// The primary one.
    pub(super) primary: Option<&'a Eni>,
    /// Places to which one is on its way, by calls that are under way.
    pub(super) attaching: Vec<(u8, u8)>,
}

/// The interfaces of every instance, and those that nobody has.
#[derive(Debug, Default)]
pub(super) struct Fleets<'a> {
    by_instance: BTreeMap<&'a InstanceId, Vec<&'a Eni>>,
    loose: BTreeMap<(&'a str, &'a str), Vec<&'a Eni>>,
    attaching: BTreeMap<&'a InstanceId, Vec<(u8, u8)>>,
}

impl<'a> Fleets<'a> {
    pub(super) fn of(memory: &'a Memory, cluster: &str) -> Self {
        let mut fleets = Self::default();
        for action in memory.flying.values() {
            if let Action::Attach { instance, card, device_index, .. } = action {
                fleets.attaching.entry(instance).or_default().push((*card, *device_index));
            }
        }
        for eni in memory.view().enis.values() {
            if let Some(attachment) = &eni.attachment {
                if let Some(instance) = &attachment.instance {
                    fleets.by_instance.entry(instance).or_default().push(eni);
                }
            } else if is_ours(eni, cluster)
                && eni.status == EniStatus::Available
                && let (Some(node), Some(instance)) = (eni.tags.get(TAG_NODE), eni.tags.get(TAG_INSTANCE))
            {
                fleets.loose.entry((node, instance)).or_default().push(eni);
            }
        }
        fleets
    }

    pub(super) fn fleet(
        &self,
        name: &NodeName,
        node: &NodeFacts,
        policy: &EniPolicy,
        inputs: &Inputs,
    ) -> Fleet<'a> {
        let mut fleet = Fleet::default();
        let mut attached = self.by_instance.get(&node.instance.id).cloned().unwrap_or_default();
        attached.sort_by_key(|eni| place(eni));
        for eni in attached {
            let at = place(eni);
            fleet.places.insert(at);
            let is_primary = at == (0, 0);
            if is_primary {
                fleet.primary = Some(eni);
            }
            if is_excluded(eni, policy) {
                fleet.excluded.insert(&eni.id);
                continue;
            }
            if !(is_primary || is_ours(eni, &inputs.cluster)) || !is_coming_or_there(eni) {
                continue;
            }
            if at.0 > 0 || at.1 >= policy.first_interface_index {
                fleet.pods.push(eni);
            } else if is_primary {
                fleet.spare = Some(eni);
            }
        }
        fleet.attaching = self.attaching.get(&node.instance.id).cloned().unwrap_or_default();
        let loose = self.loose.get(&(name.as_str(), node.instance.id.as_str()));
        let is_good = |eni: &&Eni| eni.zone == node.instance.zone && !is_excluded(eni, policy);
        fleet.loose = loose.into_iter().flatten().copied().filter(is_good).collect();
        fleet
    }
}

impl<'a> Fleet<'a> {
    /// The interfaces that can have a /80: their subnet has IPv6.
    pub(super) fn with_v6(&self, view: &View) -> impl Iterator<Item = &'a Eni> {
        let has_v6 = |eni: &&Eni| view.subnets.get(&eni.subnet).is_some_and(|it| !it.cidrs_v6.is_empty());
        self.pods.iter().copied().filter(has_v6)
    }
}

/// Whether a person or a service of AWS keeps the interface for itself.
pub(super) fn is_excluded(eni: &Eni, policy: &EniPolicy) -> bool {
    has_all(&eni.tags, &policy.exclude_tags) || eni.requester_managed
}

/// Whether the cluster's operator made it: the tags say so, and nothing else does.
pub(super) fn is_ours(eni: &Eni, cluster: &str) -> bool {
    eni.tags.get(TAG_CLUSTER).is_some_and(|tag| tag == cluster)
}

/// Whether it is the node's: its instance has it, or it was made for it and nobody has it.
pub(super) fn is_for(eni: &Eni, name: &NodeName, node: &NodeFacts, cluster: &str) -> bool {
    let id = &node.instance.id;
    match &eni.attachment {
        Some(attachment) => attachment.instance.as_ref() == Some(id),
        None => {
            let says = |tag: &str, value: &str| eni.tags.get(tag).is_some_and(|it| it == value);
            is_ours(eni, cluster) && says(TAG_NODE, name.as_str()) && says(TAG_INSTANCE, id.as_str())
        }
    }
}

fn place(eni: &Eni) -> (u8, u8) {
    eni.attachment
        .as_ref()
        .map_or((u8::MAX, u8::MAX), |attachment| (attachment.card, attachment.device_index))
}

fn is_coming_or_there(eni: &Eni) -> bool {
    let attachment = eni.attachment.as_ref().map(|attachment| attachment.status);
    matches!(eni.status, EniStatus::InUse | EniStatus::Attaching)
        && matches!(attachment, Some(AttachmentStatus::Attaching | AttachmentStatus::Attached))
}

/// The blocks of an interface that pods can have addresses of.
pub(super) fn blocks(eni: &Eni) -> impl Iterator<Item = Prefix> + '_ {
    let single = eni.addresses.iter().map(|addr| Prefix::host(IpAddr::V4(*addr)));
    single.chain(eni.prefixes.iter().copied()).chain(eni.prefixes_v6.iter().copied())
}

/// How many IPv4 addresses a block has.
pub(super) fn size_v4(block: Prefix) -> u32 {
    match block.addr() {
        IpAddr::V4(_) => u32::try_from(block.size()).unwrap_or(u32::MAX),
        IpAddr::V6(_) => 0,
    }
}
