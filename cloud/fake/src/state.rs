// SPDX-License-Identifier: Apache-2.0
//! The EC2 in memory: what there is, and what happens to it as time goes by. Time is an argument of everything.
//!
//! ```text
//!  interface:  available ─ attach ─► attaching ─ 1..10 s ─► attached ─ detach ─► detaching ─ 1..30 s ─► available
//!  instance:   pending ─ 5..20 s ─► running ─ terminate ─► shutting-down ─ 5..60 s ─► terminated ─ 1 h ─► not shown
//! ```
//! What takes time is an event in [`World::advance`]. Every change of an interface goes through
//! `World::put_interface`, which keeps the history for those who see late, the Network Address Usage, and the list of
//! changes by which the invariants are checked.

mod addresses;
mod addresses_v6;
mod attach;
mod describe;
mod history;
mod instance;
mod interface;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rhumb_model::{
    AttachmentId, Eni, EniId, EniStatus, Instance, InstanceId, InstanceLimits, MacAddr, ReservationId,
    SecurityGroupId, SubnetId, Timestamp, VpcId,
};
use serde::Serialize;

pub use network::{NewSubnet, NewVpc};

use crate::answer::{Answer, Group, Reservation, RouteTable};
use crate::call::{Action, Call};
use crate::random::{Random, mix};
use crate::refusal::Refusal;
use crate::settings::Settings;
pub(crate) use describe::{eni_status, hypervisor, reservation_kind};
use history::History;
use network::{SubnetState, VpcState};

/// Everything that an account has in one Region.
#[derive(Debug, Clone)]
pub struct World {
    settings: Settings,
    random: Random,
    now: Timestamp,
    made: u64,
    kinds: BTreeMap<String, InstanceLimits>,
    vpcs: BTreeMap<VpcId, VpcState>,
    subnets: BTreeMap<SubnetId, SubnetState>,
    groups: BTreeMap<SecurityGroupId, Group>,
    route_tables: BTreeMap<String, RouteTable>,
    reservations: BTreeMap<ReservationId, Reservation>,
    instances: BTreeMap<InstanceId, InstanceRecord>,
    interfaces: BTreeMap<EniId, InterfaceRecord>,
    /// Interfaces that are, not counting those that are shown although they are gone.
    alive: u32,
    attachments: BTreeMap<AttachmentId, EniId>,
    tokens: BTreeMap<String, (Action, Answer)>,
    events: BTreeMap<(Timestamp, u64), Event>,
    changes: Vec<InterfaceChange>,
    hooks: Vec<Hook>,
}

#[derive(Debug, Clone)]
struct InterfaceRecord {
    history: History<Eni>,
    /// Before this, calls that name it answer that there is none.
    known: Timestamp,
    attached_at: Timestamp,
}

#[derive(Debug, Clone)]
struct InstanceRecord {
    history: History<Instance>,
    /// Card and device index of what it has, or is about to have.
    places: BTreeMap<(u8, u8), EniId>,
    /// Every interface that it has or had: what describes by instance look through.
    touched: BTreeSet<EniId>,
    launched: Timestamp,
    reservation: String,
    spot: Option<Spot>,
}

#[derive(Debug, Clone, Copy)]
struct Spot {
    /// When it goes, once that is known.
    ends: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Event {
    Attached(AttachmentId),
    Detached(AttachmentId),
    Running(InstanceId),
    Terminated(InstanceId),
    Interrupted(InstanceId),
    ForgetInterface(EniId),
    ForgetInstance(InstanceId),
}

/// That an interface changed: `before` and `after` are `None` when there was and is none.
#[derive(Debug, Clone)]
pub(crate) struct InterfaceChange {
    pub(crate) before: Option<Arc<Eni>>,
    pub(crate) after: Option<Arc<Eni>>,
}

/// That an interface came to an instance or left it: what a guest sees on its PCI bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When, in milliseconds of the virtual clock.
    pub at: Timestamp,
    /// Which of the two.
    pub event: HookEvent,
    /// The instance.
    pub instance: InstanceId,
    /// The interface.
    pub interface: EniId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its place on the card.
    pub device_index: u8,
    /// The card.
    pub card: u8,
}

/// What happened to an interface as its instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookEvent {
    /// It is there.
    Attached,
    /// It is gone.
    Detached,
}

impl World {
    /// An empty account at time `now`.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            random: Random::new(settings.seed),
            settings,
            now,
            made: 0,
            kinds: crate::kinds::table(),
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            groups: BTreeMap::new(),
            route_tables: BTreeMap::new(),
            reservations: BTreeMap::new(),
            instances: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            alive: 0,
            attachments: BTreeMap::new(),
            tokens: BTreeMap::new(),
            events: BTreeMap::new(),
            changes: Vec::new(),
            hooks: Vec::new(),
        }
    }

    /// How it behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how it behaves from now on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The latest time that it was told.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Lets everything happen that happens until `now`; a `now` in the past changes nothing.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= now
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(now);
    }

    /// Answers a call at the time that [`Self::advance`] was last told. A refused call has changed nothing.
    ///
    /// # Errors
    /// [`Refusal`] is the error reply of EC2.
    pub fn answer(&mut self, call: &Call) -> Result<Answer, Refusal> {
        if call.dry_run {
            // Only a copy can tell whether the call would succeed; dry runs are rare and worlds with them small.
            self.clone().act(&call.action)?;
            return Err(Refusal::dry_run());
        }
        self.act(&call.action)
    }

    fn act(&mut self, action: &Action) -> Result<Answer, Refusal> {
        match action {
            Action::RunInstances(launch) => {
                self.once(launch.token.as_ref(), action, |world| world.launch(launch))
            }
            Action::TerminateInstances(ids) => self.terminate(ids),
            Action::DescribeInstances(question) => self.describe_instances(question),
            Action::DescribeInstanceTypes(question) => self.describe_kinds(question),
            Action::DescribeSubnets(question) => self.describe_subnets(question),
            Action::DescribeVpcs(question) => self.describe_vpcs(question),
            Action::DescribeSecurityGroups(question) => self.describe_groups(question),
            Action::GetSecurityGroupsForVpc(vpc, question) => self.groups_for_vpc(vpc, question),
            Action::DescribeRouteTables(question) => self.describe_route_tables(question),
            Action::DescribeAvailabilityZones => Ok(self.zones()),
            Action::DescribeTags(question) => self.describe_tags(question),
            Action::CreateTags(ids, tags) => self.create_tags(ids, tags),
            Action::DeleteTags(ids, tags) => self.delete_tags(ids, tags),
            Action::CreateNetworkInterface(new) => {
                self.once(new.token.as_ref(), action, |world| world.create_interface(new))
            }
            Action::DeleteNetworkInterface(id) => self.delete_interface(id),
            Action::DescribeNetworkInterfaces(question) => self.describe_interfaces(question),
            Action::AttachNetworkInterface(attach) => self.attach(attach),
            Action::DetachNetworkInterface(detach) => self.detach(detach),
            Action::ModifyNetworkInterfaceAttribute(id, change) => self.modify_interface(id, change),
            Action::AssignPrivateIpAddresses(assign) => self.assign(assign),
            Action::UnassignPrivateIpAddresses(unassign) => self.unassign(unassign),
            Action::AssignIpv6Addresses(assign) => self.assign_v6(assign),
            Action::UnassignIpv6Addresses(unassign) => self.unassign_v6(unassign),
            Action::CreateSubnetCidrReservation(new) => self.reserve(new),
            Action::DeleteSubnetCidrReservation(id) => self.unreserve(id),
            Action::GetSubnetCidrReservations(subnet, question) => self.reservations(subnet, question),
        }
    }

    /// Acts once for a token, and then answers as it did before.
    fn once(
        &mut self,
        token: Option<&String>,
        action: &Action,
        act: impl FnOnce(&mut Self) -> Result<Answer, Refusal>,
    ) -> Result<Answer, Refusal> {
        let Some(token) = token else { return act(self) };
        match self.tokens.get(token) {
            Some((before, answer)) if before == action => Ok(answer.clone()),
            Some(_) => Err(Refusal::new(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            )),
            None => {
                let answer = act(self)?;
                self.tokens.insert(token.clone(), (action.clone(), answer.clone()));
                Ok(answer)
            }
        }
    }

    /// What came to instances and left them since the last time, in order.
    pub fn take_hooks(&mut self) -> Vec<Hook> {
        std::mem::take(&mut self.hooks)
    }

    pub(crate) fn take_changes(&mut self) -> Vec<InterfaceChange> {
        std::mem::take(&mut self.changes)
    }

    /// An interface as it is, whatever describes show.
    pub fn interface(&self, id: &EniId) -> Option<&Arc<Eni>> {
        self.interfaces.get(id)?.history.truth()
    }

    /// The interface that has an attachment.
    pub fn attached(&self, id: &AttachmentId) -> Option<&Arc<Eni>> {
        self.interface(self.attachments.get(id)?)
    }

    /// All interfaces as they are.
    pub fn interfaces(&self) -> impl Iterator<Item = &Arc<Eni>> {
        self.interfaces.values().filter_map(|record| record.history.truth())
    }

    /// An instance as it is.
    pub fn instance(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(id)?.history.truth()
    }

    /// All instances as they are, also those that are terminated and still shown.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values().filter_map(|record| record.history.truth())
    }

    /// The interfaces of an instance as they are, by card and device index.
    pub fn interfaces_of(&self, id: &InstanceId) -> impl Iterator<Item = &Arc<Eni>> {
        let places = self.instances.get(id).map(|record| &record.places);
        places.into_iter().flat_map(BTreeMap::values).filter_map(|id| self.interface(id))
    }

    /// What instances of a type can have.
    pub fn limits(&self, kind: &str) -> Option<&InstanceLimits> {
        self.kinds.get(kind)
    }

    /// Adds or changes an instance type.
    pub fn put_kind(&mut self, kind: &str, limits: InstanceLimits) {
        self.kinds.insert(kind.to_owned(), limits);
    }

    fn memory(&self) -> Duration {
        Duration::from_millis(self.settings.metadata_memory)
    }

    /// The one place where interfaces change. A change that is none leaves no trace.
    fn put_interface(&mut self, id: &EniId, after: Option<Eni>) {
        let lag = self.random.within(self.settings.lag);
        let (now, memory) = (self.now, self.memory());
        let before = self.interface(id).cloned();
        if before.as_deref() == after.as_ref() {
            return;
        }
        self.charge(before.as_deref(), after.as_ref());
        match (self.interfaces.get_mut(id), after) {
            (Some(record), after) => record.history.put(now, lag, memory, after),
            (None, Some(eni)) => {
                let known = now.after(self.random.within(self.settings.unknown));
                let history = History::new(now, lag, eni);
                self.interfaces.insert(id.clone(), InterfaceRecord { history, known, attached_at: now });
            }
            (None, None) => return,
        }
        let record = &self.interfaces[id];
        let after = record.history.truth().cloned();
        if after.is_none() {
            let forgotten = record.history.settled(memory);
            self.schedule_at(forgotten, Event::ForgetInterface(id.clone()));
        }
        match (&before, &after) {
            (None, Some(_)) => self.alive += 1,
            (Some(_), None) => self.alive -= 1,
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.changes.push(InterfaceChange { before, after });
    }

    /// Changes an interface that is known to be there.
    fn change_interface(&mut self, id: &EniId, change: impl FnOnce(&mut Eni)) {
        if let Some(eni) = self.interface(id) {
            let mut eni = Eni::clone(eni);
            change(&mut eni);
            self.put_interface(id, Some(eni));
        }
    }

    fn change_instance(&mut self, id: &InstanceId, change: impl FnOnce(&mut Instance)) {
        let lag = self.random.within(self.settings.lag);
        let (now, memory) = (self.now, self.memory());
        if let Some(record) = self.instances.get_mut(id)
            && let Some(instance) = record.history.truth()
        {
            let mut instance = Instance::clone(instance);
            change(&mut instance);
            record.history.put(now, lag, memory, Some(instance));
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now.after(after), event);
    }

    fn schedule_at(&mut self, at: Timestamp, event: Event) {
        self.made += 1;
        self.events.insert((at, self.made), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Attached(id) => self.finish_attach(&id),
            Event::Detached(id) => self.finish_detach(&id),
            Event::Running(id) => self.run(&id),
            Event::Interrupted(id) => self.begin_termination(&id),
            Event::Terminated(id) => self.finish_termination(&id),
            Event::ForgetInterface(id) => {
                if self.interface(&id).is_none() {
                    self.interfaces.remove(&id);
                }
            }
            Event::ForgetInstance(id) => drop(self.instances.remove(&id)),
        }
    }

    /// 16 hexadecimal digits that no other object has.
    fn digits(&mut self) -> String {
        self.made += 1;
        format!("0{:016x}", mix(self.made ^ mix(self.settings.seed)))
    }

    /// Units that an interface takes of its VPC's Network Address Usage: those on instances count, one for each
    /// address and prefix, and one for each interface beyond an instance's first.
    fn usage(eni: Option<&Eni>) -> u32 {
        let Some(eni) = eni else { return 0 };
        let Some(attachment) = &eni.attachment else { return 0 };
        let further = u32::from((attachment.card, attachment.device_index) != (0, 0));
        (eni.slots_v4() + eni.slots_v6()) as u32 + further
    }

    fn charge(&mut self, before: Option<&Eni>, after: Option<&Eni>) {
        let Some(vpc) = before.or(after).map(|eni| &eni.vpc) else { return };
        if let Some(vpc) = self.vpcs.get_mut(vpc) {
            vpc.usage = vpc.usage - Self::usage(before) + Self::usage(after);
        }
    }

    /// Refuses what would take a VPC over its Network Address Usage.
    fn afford(&self, vpc: &VpcId, more: u32) -> Result<(), Refusal> {
        let usage = self.vpcs.get(vpc).map_or(0, |vpc| vpc.usage);
        if usage + more > self.settings.usage_quota {
            return Err(Refusal::new(
                "NetworkAddressUsageLimitExceeded",
                format!("The request would exceed the network address usage limit of the VPC '{vpc}'."),
            ));
        }
        Ok(())
    }

    /// Units of Network Address Usage that a VPC has in use.
    pub fn usage_of(&self, vpc: &VpcId) -> u32 {
        self.vpcs.get(vpc).map_or(0, |vpc| vpc.usage)
    }

    /// An interface that a call may name.
    fn named(&self, id: &EniId) -> Result<&Arc<Eni>, Refusal> {
        let record = self.interfaces.get(id).filter(|record| record.known <= self.now);
        record.and_then(|record| record.history.truth()).ok_or_else(|| Refusal::no_interface(id))
    }

    fn is_available(eni: &Eni) -> bool {
        eni.status == EniStatus::Available && eni.attachment.is_none()
    }
}

#[cfg(test)]
mod tests;
