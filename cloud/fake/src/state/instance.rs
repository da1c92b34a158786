// SPDX-License-Identifier: Apache-2.0
//! Instances: launched, running, interrupted, terminated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rhumb_model::{EniId, Instance, InstanceId, InstanceState, Timestamp};

use super::history::History;
use super::{Event, HookEvent, InstanceRecord, Spot, World};
use crate::answer::Answer;
use crate::call::{Attach, Launch, NewInterface};
use crate::refusal::Refusal;

impl World {
    pub(super) fn launch(&mut self, launch: &Launch) -> Result<Answer, Refusal> {
        let Some(limits) = self.kinds.get(&launch.kind) else {
            return Err(Refusal::value(format!("Invalid value '{}' for InstanceType.", launch.kind)));
        };
        if launch.count == 0 {
            return Err(Refusal::value("Value (0) for parameter maxCount is invalid."));
        }
        let (prefixes, slots) = (limits.prefixes, limits.clone());
        let wants = &launch.wants;
        if !(prefixes || wants.prefixes.is_empty() && wants.prefixes_v6.is_empty()) {
            return Err(super::interface::no_prefixes());
        }
        let v4 = 1 + wants.addresses.len() + wants.prefixes.len();
        let v6 = wants.addresses_v6.len() + wants.prefixes_v6.len();
        super::interface::check_slots(Some(&slots), v4, v6)?;
        let subnet = self.subnets.get(&launch.subnet).ok_or_else(|| Refusal::no_subnet(&launch.subnet))?;
        self.afford(&subnet.vpc, u32::from(launch.count) * (v4 + v6) as u32)?;
        let new = NewInterface {
            groups: launch.groups.clone(),
            wants: wants.clone(),
            tags: launch.interface_tags.clone(),
            ..NewInterface::new(launch.subnet.clone())
        };
        let mut interfaces = Vec::new();
        for _ in 0..launch.count {
            match self.new_interface(&new) {
                Ok(id) => interfaces.push(id),
                Err(refusal) => {
                    interfaces.iter().for_each(|id| self.remove_interface(id));
                    return Err(refusal);
                }
            }
        }
        let reservation = format!("r-{}", self.digits());
        let instances = interfaces.iter().map(|id| self.start(launch, id, &reservation)).collect();
        Ok(Answer::Launched(reservation, instances))
    }

    fn start(&mut self, launch: &Launch, interface: &EniId, reservation: &str) -> Arc<Instance> {
        let id = InstanceId::new(format!("i-{}", self.digits())).expect("digits make an id");
        let eni = Arc::clone(self.interface(interface).expect("it was made for this instance"));
        let instance = Instance {
            id: id.clone(),
            kind: launch.kind.clone(),
            zone: eni.zone.clone(),
            vpc: Some(eni.vpc.clone()),
            subnet: Some(eni.subnet.clone()),
            state: InstanceState::Pending,
            tags: launch.tags.clone(),
        };
        let lag = self.random.within(self.settings.lag);
        let record = InstanceRecord {
            history: History::new(self.now, lag, instance),
            places: BTreeMap::new(),
            touched: BTreeSet::new(),
            launched: self.now,
            reservation: reservation.to_owned(),
            spot: launch.spot.then_some(Spot { ends: None }),
        };
        self.instances.insert(id.clone(), record);
        let attach = Attach { interface: interface.clone(), instance: id.clone(), device_index: 0, card: 0 };
        let attachment = self.begin_attach(&attach);
        self.finish_attach(&attachment);
        let delete = launch.delete_on_termination;
        self.change_interface(interface, |eni| {
            if let Some(attachment) = &mut eni.attachment {
                attachment.delete_on_termination = delete;
            }
        });
        let delay = self.random.within(self.settings.start);
        self.schedule(delay, Event::Running(id.clone()));
        Arc::clone(self.instance(&id).expect("it was launched just now"))
    }

    pub(super) fn run(&mut self, id: &InstanceId) {
        if self.instance(id).is_some_and(|instance| instance.state == InstanceState::Pending) {
            self.change_instance(id, |instance| instance.state = InstanceState::Running);
        }
    }

    pub(super) fn terminate(&mut self, ids: &[InstanceId]) -> Result<Answer, Refusal> {
        if let Some(unknown) = ids.iter().find(|id| self.instance(id).is_none()) {
            return Err(Refusal::no_instance(unknown));
        }
        let mut changes = Vec::new();
        for id in ids {
            let before = self.instance(id).map_or(InstanceState::Terminated, |instance| instance.state);
            self.begin_termination(id);
            let after = self.instance(id).map_or(InstanceState::Terminated, |instance| instance.state);
            changes.push((id.clone(), before, after));
        }
        Ok(Answer::Terminating(changes))
    }

    pub(super) fn begin_termination(&mut self, id: &InstanceId) {
        if self.instance(id).is_none_or(|instance| instance.state.is_final()) {
            return;
        }
        self.change_instance(id, |instance| instance.state = InstanceState::ShuttingDown);
        let delay = self.random.within(self.settings.stop);
        self.schedule(delay, Event::Terminated(id.clone()));
    }

    pub(super) fn finish_termination(&mut self, id: &InstanceId) {
        self.release_all(id);
        self.change_instance(id, |instance| {
            instance.state = InstanceState::Terminated;
            instance.vpc = None;
            instance.subnet = None;
        });
        let shown = Duration::from_millis(self.settings.terminated_shown);
        self.schedule(shown, Event::ForgetInstance(id.clone()));
    }

    /// Gives a spot instance its notice: it is terminated when [`crate::Settings::spot_notice`] is over.
    ///
    /// # Errors
    /// `InvalidInstanceID.NotFound`; `IncorrectInstanceState` when it is no spot instance or on its way out.
    pub fn interrupt(&mut self, id: &InstanceId) -> Result<Timestamp, Refusal> {
        let state = self.instance(id).ok_or_else(|| Refusal::no_instance(id))?.state;
        let notice = Duration::from_millis(self.settings.spot_notice);
        let ends = self.now.after(notice);
        let record = self.instances.get_mut(id).ok_or_else(|| Refusal::no_instance(id))?;
        match &mut record.spot {
            Some(spot) if !state.is_final() => spot.ends = Some(ends),
            Some(_) | None => {
                let message = format!("Instance '{id}' is not a running spot instance.");
                return Err(Refusal::new("IncorrectInstanceState", message));
            }
        }
        self.schedule(notice, Event::Interrupted(id.clone()));
        Ok(ends)
    }

    /// When a spot instance goes, once its notice was given.
    pub fn interruption(&self, id: &InstanceId) -> Option<Timestamp> {
        self.instances.get(id)?.spot?.ends
    }

    /// Tells whoever plays the guest what a running instance has, as if it had come just now.
    pub fn rehook(&mut self, id: &InstanceId) {
        let interfaces: Vec<EniId> = self.interfaces_of(id).map(|eni| eni.id.clone()).collect();
        for interface in interfaces {
            self.hook(HookEvent::Attached, &interface);
        }
    }
}
