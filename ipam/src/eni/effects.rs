// SPDX-License-Identifier: Apache-2.0
//! What our own calls did, until a look at EC2 can no longer be older than they are.

use std::net::IpAddr;

use rhumb_model::{
    Attachment, AttachmentStatus, Eni, EniId, EniStatus, Family, InstanceId, Prefix, ReservationKind,
    SecurityGroupId, SubnetReservation, Timestamp,
};

use super::{Action, LAG, Reply, View};
use rhumb_model::AttachmentId;

/// What a call of ours did.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Created(Box<Eni>),
    Attached { eni: EniId, attachment: AttachmentId, instance: InstanceId, device_index: u8, card: u8 },
    DeletedOnTermination(EniId),
    Unchecked(EniId),
    Regrouped { eni: EniId, groups: Vec<SecurityGroupId> },
    Assigned { eni: EniId, blocks: Vec<Prefix> },
    Unassigned { eni: EniId, blocks: Vec<Prefix> },
    Detached(EniId),
    Deleted(EniId),
    Reserved(SubnetReservation),
}

impl Effect {
    /// What the call did by its reply. A reply of another call's kind says nothing.
    pub(super) fn of(action: &Action, reply: &Reply) -> Option<Self> {
        Some(match (action, reply) {
            (Action::Create { .. }, Reply::Created(eni)) => Self::Created(eni.clone()),
            (Action::Attach { eni, instance, device_index, card, .. }, Reply::Attached(attachment)) => {
                Self::Attached {
                    eni: eni.clone(),
                    attachment: attachment.clone(),
                    instance: instance.clone(),
                    device_index: *device_index,
                    card: *card,
                }
            }
            (Action::SetDeleteOnTermination { eni, .. }, _) => Self::DeletedOnTermination(eni.clone()),
            (Action::SwitchOffSourceDestCheck { eni }, _) => Self::Unchecked(eni.clone()),
            (Action::SetGroups { eni, groups }, _) => {
                Self::Regrouped { eni: eni.clone(), groups: groups.clone() }
            }
            (Action::Assign { eni, .. } | Action::AssignV6 { eni, .. }, Reply::Assigned(blocks)) => {
                Self::Assigned { eni: eni.clone(), blocks: blocks.clone() }
            }
            (Action::Unassign { eni, blocks, .. }, _) => {
                Self::Unassigned { eni: eni.clone(), blocks: blocks.clone() }
            }
            (Action::Detach { eni, .. }, _) => Self::Detached(eni.clone()),
            (Action::Delete { eni }, _) => Self::Deleted(eni.clone()),
            (Action::Reserve { subnet, cidr, .. }, Reply::Reserved(id)) => {
                let (id, subnet, cidr) = (id.clone(), subnet.clone(), *cidr);
                Self::Reserved(SubnetReservation { id, subnet, cidr, kind: ReservationKind::Prefix })
            }
            (
                Action::Create { .. }
                | Action::Attach { .. }
                | Action::Assign { .. }
                | Action::AssignV6 { .. }
                | Action::Reserve { .. },
                Reply::Created(_)
                | Reply::Attached(_)
                | Reply::Assigned(_)
                | Reply::Reserved(_)
                | Reply::Done,
            ) => return None,
        })
    }

    /// Puts it into a view that may be older than it.
    pub(super) fn put(&self, view: &mut View) {
        match self {
            Self::Created(eni) => {
                view.enis.entry(eni.id.clone()).or_insert_with(|| (**eni).clone());
            }
            Self::Deleted(eni) => {
                view.enis.remove(eni);
            }
            Self::Reserved(made) => {
                if !view.reservations.iter().any(|known| known.id == made.id) {
                    view.reservations.push(made.clone());
                }
            }
            Self::Attached { eni, attachment, instance, device_index, card } => {
                // A view that shows an attachment is newer.
                if let Some(eni) = view.enis.get_mut(eni).filter(|eni| eni.attachment.is_none()) {
                    eni.status = EniStatus::Attaching;
                    eni.attachment = Some(Attachment {
                        id: attachment.clone(),
                        instance: Some(instance.clone()),
                        device_index: *device_index,
                        card: *card,
                        status: AttachmentStatus::Attaching,
                        delete_on_termination: false,
                    });
                }
            }
            Self::Detached(eni) => {
                if let Some(eni) = view.enis.get_mut(eni).filter(|eni| eni.attachment.is_some()) {
                    eni.status = EniStatus::Detaching;
                }
            }
            Self::DeletedOnTermination(eni) => {
                if let Some(attachment) = view.enis.get_mut(eni).and_then(|eni| eni.attachment.as_mut()) {
                    attachment.delete_on_termination = true;
                }
            }
            Self::Unchecked(eni) => {
                if let Some(eni) = view.enis.get_mut(eni) {
                    eni.source_dest_check = false;
                }
            }
            Self::Regrouped { eni, groups } => {
                if let Some(eni) = view.enis.get_mut(eni) {
                    eni.security_groups.clone_from(groups);
                }
            }
            Self::Assigned { eni, blocks } => {
                if let Some(eni) = view.enis.get_mut(eni) {
                    blocks.iter().for_each(|block| add(eni, *block));
                }
            }
            Self::Unassigned { eni, blocks } => {
                if let Some(eni) = view.enis.get_mut(eni) {
                    eni.addresses.retain(|addr| !blocks.contains(&Prefix::host(IpAddr::V4(*addr))));
                    eni.prefixes.retain(|prefix| !blocks.contains(prefix));
                }
            }
        }
    }

    /// Whether no look that begins at `at` can be older than what was done at `done`.
    pub(super) fn is_seen(done: Timestamp, at: Timestamp) -> bool {
        done.after(LAG) <= at
    }
}

fn add(eni: &mut Eni, block: Prefix) {
    match (block.family(), block.addr()) {
        (Family::V4, IpAddr::V4(addr)) if block.len() == 32 => {
            if !eni.addresses.contains(&addr) {
                eni.addresses.push(addr);
            }
        }
        (Family::V4, _) => {
            if !eni.prefixes.contains(&block) {
                eni.prefixes.push(block);
            }
        }
        (Family::V6, _) => {
            if !eni.prefixes_v6.contains(&block) {
                eni.prefixes_v6.push(block);
            }
        }
    }
}
