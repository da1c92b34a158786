// SPDX-License-Identifier: Apache-2.0
//! Interfaces come to instances and leave them, each taking its time.

use rhumb_model::{
    Attachment, AttachmentId, AttachmentStatus, Eni, EniId, EniStatus, InstanceId, InstanceState,
};

use super::interface::{check_slots, no_prefixes};
use super::{Event, Hook, HookEvent, World};
use crate::answer::Answer;
use crate::call::{Attach, Detach};
use crate::refusal::Refusal;

impl World {
    pub(super) fn attach(&mut self, attach: &Attach) -> Result<Answer, Refusal> {
        self.check_attach(attach)?;
        let id = self.begin_attach(attach);
        let delay = self.random.within(self.settings.attach);
        self.schedule(delay, Event::Attached(id.clone()));
        Ok(Answer::Attached(id, attach.card))
    }

    fn check_attach(&self, attach: &Attach) -> Result<(), Refusal> {
        let (interface, instance) = (&attach.interface, &attach.instance);
        let eni = self.named(interface)?;
        let record = self.instances.get(instance).ok_or_else(|| Refusal::no_instance(instance))?;
        let host = record.history.truth().ok_or_else(|| Refusal::no_instance(instance))?;
        if !Self::is_available(eni) {
            let message = format!("Interface: [{interface}] in use.");
            return Err(Refusal::new("InvalidNetworkInterface.InUse", message));
        }
        if host.state != InstanceState::Running {
            let message = format!("Instance '{instance}' is not 'running'.");
            return Err(Refusal::new("IncorrectInstanceState", message));
        }
        if host.zone != eni.zone {
            return Err(Refusal::value(
                "You may not attach a network interface to an instance if they are not in the same availability zone",
            ));
        }
        let limits = self.limits(&host.kind).ok_or_else(|| Refusal::no_instance(instance))?;
        let Some(card) = limits.cards.iter().find(|card| card.card == attach.card) else {
            return Err(Refusal::value(format!(
                "Network card index '{}' is not valid for the instance type '{}'.",
                attach.card, host.kind
            )));
        };
        if record.places.contains_key(&(attach.card, attach.device_index)) {
            return Err(Refusal::value(format!(
                "Instance '{instance}' already has an interface attached at device index '{}'.",
                attach.device_index
            )));
        }
        let on_card = record.places.keys().filter(|(card, _)| *card == attach.card).count();
        if record.places.len() >= usize::from(limits.interfaces) || on_card >= usize::from(card.interfaces) {
            let count = record.places.len() + 1;
            let message = format!("Interface count {count} exceeds the limit for {}", host.kind);
            return Err(Refusal::new("AttachmentLimitExceeded", message));
        }
        if !(limits.prefixes || eni.prefixes.is_empty() && eni.prefixes_v6.is_empty()) {
            return Err(no_prefixes());
        }
        check_slots(Some(limits), eni.slots_v4(), eni.slots_v6())?;
        let further = u32::from((attach.card, attach.device_index) != (0, 0));
        self.afford(&eni.vpc, (eni.slots_v4() + eni.slots_v6()) as u32 + further)
    }

    /// Begins an attachment that was checked, or is that of a launch.
    pub(super) fn begin_attach(&mut self, attach: &Attach) -> AttachmentId {
        let id = AttachmentId::new(format!("eni-attach-{}", self.digits())).expect("digits make an id");
        let now = self.now;
        if let Some(record) = self.instances.get_mut(&attach.instance) {
            record.places.insert((attach.card, attach.device_index), attach.interface.clone());
            record.touched.insert(attach.interface.clone());
        }
        if let Some(record) = self.interfaces.get_mut(&attach.interface) {
            record.attached_at = now;
        }
        self.attachments.insert(id.clone(), attach.interface.clone());
        self.change_interface(&attach.interface, |eni| {
            eni.status = EniStatus::Attaching;
            eni.attachment = Some(Attachment {
                id: id.clone(),
                instance: Some(attach.instance.clone()),
                device_index: attach.device_index,
                card: attach.card,
                status: AttachmentStatus::Attaching,
                delete_on_termination: false,
            });
        });
        id
    }

    pub(super) fn finish_attach(&mut self, id: &AttachmentId) {
        let Some(interface) = self.attachments.get(id).cloned() else { return };
        let attaching = |eni: &Eni| {
            eni.attachment.as_ref().is_some_and(|found| found.status == AttachmentStatus::Attaching)
        };
        if !self.interface(&interface).is_some_and(|eni| attaching(eni)) {
            return;
        }
        self.change_interface(&interface, |eni| {
            eni.status = EniStatus::InUse;
            if let Some(attachment) = &mut eni.attachment {
                attachment.status = AttachmentStatus::Attached;
            }
        });
        self.hook(HookEvent::Attached, &interface);
    }

    pub(super) fn detach(&mut self, detach: &Detach) -> Result<Answer, Refusal> {
        let id = &detach.attachment;
        let interface = self.attachments.get(id).ok_or_else(|| Refusal::no_attachment(id))?.clone();
        let attachment = self.interface(&interface).and_then(|eni| eni.attachment.as_ref());
        let attachment = attachment.ok_or_else(|| Refusal::no_attachment(id))?;
        if (attachment.card, attachment.device_index) == (0, 0) {
            return Err(Refusal::new(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be detached.",
            ));
        }
        match attachment.status {
            AttachmentStatus::Attached => {}
            AttachmentStatus::Attaching if detach.force => {}
            AttachmentStatus::Attaching | AttachmentStatus::Detaching | AttachmentStatus::Detached => {
                let message = format!("Attachment '{id}' is not in the 'attached' state.");
                return Err(Refusal::new("IncorrectState", message));
            }
        }
        if attachment.status == AttachmentStatus::Attaching {
            // The instance never saw it.
            self.let_go(&interface);
            return Ok(Answer::Done);
        }
        self.change_interface(&interface, |eni| {
            eni.status = EniStatus::Detaching;
            if let Some(attachment) = &mut eni.attachment {
                attachment.status = AttachmentStatus::Detaching;
            }
        });
        if detach.force {
            self.finish_detach(id);
        } else {
            let delay = self.random.within(self.settings.detach);
            self.schedule(delay, Event::Detached(id.clone()));
        }
        Ok(Answer::Done)
    }

    pub(super) fn finish_detach(&mut self, id: &AttachmentId) {
        let Some(interface) = self.attachments.get(id).cloned() else { return };
        self.hook(HookEvent::Detached, &interface);
        self.let_go(&interface);
    }

    /// The interface is nobody's from now on.
    pub(super) fn let_go(&mut self, interface: &EniId) {
        let Some(attachment) = self.interface(interface).and_then(|eni| eni.attachment.clone()) else {
            return;
        };
        self.attachments.remove(&attachment.id);
        if let Some(record) = attachment.instance.as_ref().and_then(|id| self.instances.get_mut(id)) {
            record.places.remove(&(attachment.card, attachment.device_index));
        }
        self.change_interface(interface, |eni| {
            eni.status = EniStatus::Available;
            eni.attachment = None;
        });
    }

    /// Tells whoever plays the guest.
    pub(super) fn hook(&mut self, event: HookEvent, interface: &EniId) {
        let Some(eni) = self.interface(interface) else { return };
        let Some(attachment) = &eni.attachment else { return };
        let Some(instance) = &attachment.instance else { return };
        let hook = Hook {
            at: self.now,
            event,
            instance: instance.clone(),
            interface: interface.clone(),
            mac: eni.mac,
            device_index: attachment.device_index,
            card: attachment.card,
        };
        self.hooks.push(hook);
    }

    /// Ends all attachments of an instance as its termination does: what is to go with it goes.
    pub(super) fn release_all(&mut self, instance: &InstanceId) {
        let Some(record) = self.instances.get(instance) else { return };
        let places: Vec<EniId> = record.places.values().cloned().collect();
        for interface in places {
            let Some(attachment) = self.interface(&interface).and_then(|eni| eni.attachment.clone()) else {
                continue;
            };
            if attachment.status != AttachmentStatus::Attaching {
                self.hook(HookEvent::Detached, &interface);
            }
            self.let_go(&interface);
            if attachment.delete_on_termination {
                self.remove_interface(&interface);
            }
        }
    }
}
