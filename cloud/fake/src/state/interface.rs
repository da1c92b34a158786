// SPDX-License-Identifier: Apache-2.0
//! Interfaces and their addresses: create, delete, assign, unassign, modify, tag.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rhumb_model::{
    Eni, EniId, EniStatus, InstanceId, InstanceLimits, MacAddr, Prefix, SecurityGroupId, SubnetId,
};
use rhumb_model::{ReservationId, VpcId};

use super::World;
use super::addresses::Taken;
use crate::answer::Answer;
use crate::call::{Assign, AssignV6, Change, NewInterface, Tags, Unassign, UnassignV6, Want, Wants};
use crate::refusal::Refusal;

/// Slots of an interface that no instance has: those of the largest instance type.
const UNATTACHED_SLOTS: usize = 64;
/// Tags that an object may have.
const MOST_TAGS: usize = 50;

/// What was taken from a subnet for one call.
#[derive(Debug, Default)]
struct Grant {
    addresses: Vec<Ipv4Addr>,
    prefixes: Vec<Prefix>,
    addresses_v6: Vec<Ipv6Addr>,
    prefixes_v6: Vec<Prefix>,
}

impl World {
    pub(super) fn create_interface(&mut self, new: &NewInterface) -> Result<Answer, Refusal> {
        let id = self.new_interface(new)?;
        let eni = self.interface(&id).expect("it was made just now");
        Ok(Answer::Interface(Arc::clone(eni)))
    }

    /// Makes an interface that nobody has.
    pub(super) fn new_interface(&mut self, new: &NewInterface) -> Result<EniId, Refusal> {
        let subnet = self.subnets.get(&new.subnet).ok_or_else(|| Refusal::no_subnet(&new.subnet))?;
        let (vpc, zone) = (subnet.vpc.clone(), subnet.zone.clone());
        let groups = self.groups_of_new(&vpc, &new.groups)?;
        check_tags(&Tags::new(), &new.tags)?;
        if self.alive >= self.settings.interface_quota {
            return Err(Refusal::new(
                "NetworkInterfaceLimitExceeded",
                "The maximum number of network interfaces has been reached.",
            ));
        }
        check_slots(None, 1 + new.wants.addresses.len() + new.wants.prefixes.len(), wanted_v6(&new.wants))?;
        let primary = self.grant(
            &new.subnet,
            &Wants {
                addresses: new.primary.map_or(Want::Count(1), |address| Want::These(vec![address])),
                ..Wants::default()
            },
        )?;
        let primary = primary.addresses[0];
        let grant = match self.grant(&new.subnet, &new.wants) {
            Ok(grant) => grant,
            Err(refusal) => {
                self.give_back(&new.subnet, &Grant { addresses: vec![primary], ..Grant::default() });
                return Err(refusal);
            }
        };
        let id = EniId::new(format!("eni-{}", self.digits())).expect("digits make an id");
        let eni = Eni {
            id: id.clone(),
            description: new.description.clone(),
            mac: MacAddr::from_seed(self.made),
            subnet: new.subnet.clone(),
            vpc,
            zone,
            status: EniStatus::Available,
            attachment: None,
            primary,
            addresses: grant.addresses,
            prefixes: grant.prefixes,
            addresses_v6: grant.addresses_v6,
            prefixes_v6: grant.prefixes_v6,
            security_groups: groups,
            source_dest_check: true,
            tags: new.tags.clone(),
            requester_managed: false,
        };
        self.put_interface(&id, Some(eni));
        Ok(id)
    }

    pub(super) fn delete_interface(&mut self, id: &EniId) -> Result<Answer, Refusal> {
        let eni = self.named(id)?;
        match eni.status {
            EniStatus::Available => {}
            EniStatus::Detaching => {
                let message = format!("Interface: [{id}] in use.");
                return Err(Refusal::new("InvalidNetworkInterface.InUse", message));
            }
            EniStatus::Associated | EniStatus::Attaching | EniStatus::InUse => {
                return Err(Refusal::value(format!("Network interface '{id}' is currently in use.")));
            }
        }
        self.remove_interface(id);
        Ok(Answer::Done)
    }

    /// Takes an interface and all its addresses away.
    pub(super) fn remove_interface(&mut self, id: &EniId) {
        let Some(eni) = self.interface(id).cloned() else { return };
        let grant = Grant {
            addresses: std::iter::once(eni.primary).chain(eni.addresses.iter().copied()).collect(),
            prefixes: eni.prefixes.clone(),
            addresses_v6: eni.addresses_v6.clone(),
            prefixes_v6: eni.prefixes_v6.clone(),
        };
        self.give_back(&eni.subnet, &grant);
        self.put_interface(id, None);
    }

    pub(super) fn assign(&mut self, assign: &Assign) -> Result<Answer, Refusal> {
        let id = &assign.interface;
        let eni = Arc::clone(self.named(id)?);
        if assign.addresses.is_empty() && assign.prefixes.is_empty() {
            return Err(Refusal::missing("secondaryPrivateIpAddressCount"));
        }
        if !assign.addresses.is_empty() && !assign.prefixes.is_empty() {
            return Err(Refusal::combination("You may specify addresses or prefixes, not both."));
        }
        if assign.reassign
            && let Want::These(addresses) = &assign.addresses
        {
            return self.reassign(&eni, addresses);
        }
        let wants = Wants {
            addresses: assign.addresses.clone(),
            prefixes: assign.prefixes.clone(),
            ..Wants::default()
        };
        let grant = self.extend(&eni, &wants)?;
        let (addresses, prefixes) = (grant.addresses, grant.prefixes);
        Ok(Answer::Assigned(id.clone(), addresses, prefixes))
    }

    pub(super) fn assign_v6(&mut self, assign: &AssignV6) -> Result<Answer, Refusal> {
        let id = &assign.interface;
        let eni = Arc::clone(self.named(id)?);
        if assign.addresses.is_empty() && assign.prefixes.is_empty() {
            return Err(Refusal::missing("ipv6AddressCount"));
        }
        if !assign.addresses.is_empty() && !assign.prefixes.is_empty() {
            return Err(Refusal::combination("You may specify addresses or prefixes, not both."));
        }
        let wants = Wants {
            addresses_v6: assign.addresses.clone(),
            prefixes_v6: assign.prefixes.clone(),
            ..Wants::default()
        };
        let grant = self.extend(&eni, &wants)?;
        Ok(Answer::AssignedV6(id.clone(), grant.addresses_v6, grant.prefixes_v6))
    }

    /// Gives an interface more, if its instance and its VPC allow.
    fn extend(&mut self, eni: &Arc<Eni>, wants: &Wants) -> Result<Grant, Refusal> {
        let v4 = wants.addresses.len() + wants.prefixes.len();
        let v6 = wanted_v6(wants);
        let limits = self.limits_of(eni);
        if limits.is_some_and(|limits| !limits.prefixes)
            && !(wants.prefixes.is_empty() && wants.prefixes_v6.is_empty())
        {
            return Err(no_prefixes());
        }
        check_slots(limits, eni.slots_v4() + v4, eni.slots_v6() + v6)?;
        if eni.attachment.is_some() {
            self.afford(&eni.vpc, (v4 + v6) as u32)?;
        }
        let grant = self.grant(&eni.subnet, wants)?;
        self.change_interface(&eni.id, |eni| {
            eni.addresses.extend(&grant.addresses);
            eni.prefixes.extend(&grant.prefixes);
            eni.addresses_v6.extend(&grant.addresses_v6);
            eni.prefixes_v6.extend(&grant.prefixes_v6);
        });
        Ok(grant)
    }

    /// Named addresses, also those that another interface of the subnet has as secondary ones.
    fn reassign(&mut self, eni: &Arc<Eni>, addresses: &[Ipv4Addr]) -> Result<Answer, Refusal> {
        let holds =
            |other: &Eni, address: &Ipv4Addr| other.primary == *address || other.addresses.contains(address);
        let new: BTreeSet<Ipv4Addr> =
            addresses.iter().filter(|address| !holds(eni, address)).copied().collect();
        let new: Vec<Ipv4Addr> = new.into_iter().collect();
        let mut from: BTreeMap<EniId, Vec<Ipv4Addr>> = BTreeMap::new();
        for other in self.interfaces().filter(|other| other.subnet == eni.subnet && other.id != eni.id) {
            for address in new.iter().filter(|address| holds(other, address)) {
                if other.primary == *address {
                    return Err(Refusal::in_use(address));
                }
                from.entry(other.id.clone()).or_default().push(*address);
            }
        }
        check_slots(self.limits_of(eni), eni.slots_v4() + new.len(), eni.slots_v6())?;
        let free: Vec<Ipv4Addr> = new
            .iter()
            .filter(|address| !from.values().flatten().any(|moved| moved == *address))
            .copied()
            .collect();
        self.grant(&eni.subnet, &Wants { addresses: Want::These(free), ..Wants::default() })?;
        for (id, moved) in from {
            self.change_interface(&id, |other| other.addresses.retain(|address| !moved.contains(address)));
        }
        self.change_interface(&eni.id, |eni| eni.addresses.extend(&new));
        Ok(Answer::Assigned(eni.id.clone(), new, Vec::new()))
    }

    pub(super) fn unassign(&mut self, unassign: &Unassign) -> Result<Answer, Refusal> {
        let id = &unassign.interface;
        let eni = self.named(id)?;
        if unassign.addresses.is_empty() && unassign.prefixes.is_empty() {
            return Err(Refusal::missing("privateIpAddress"));
        }
        if unassign.addresses.contains(&eni.primary) {
            let message =
                format!("The primary private IP address {} of {id} cannot be unassigned", eni.primary);
            return Err(Refusal::value(message));
        }
        all_had(id, &unassign.addresses, &eni.addresses)?;
        all_had(id, &unassign.prefixes, &eni.prefixes)?;
        let subnet = eni.subnet.clone();
        let grant = Grant {
            addresses: unassign.addresses.clone(),
            prefixes: unassign.prefixes.clone(),
            ..Grant::default()
        };
        self.give_back(&subnet, &grant);
        self.change_interface(id, |eni| {
            eni.addresses.retain(|address| !grant.addresses.contains(address));
            eni.prefixes.retain(|prefix| !grant.prefixes.contains(prefix));
        });
        Ok(Answer::Done)
    }

    pub(super) fn unassign_v6(&mut self, unassign: &UnassignV6) -> Result<Answer, Refusal> {
        let id = &unassign.interface;
        let eni = self.named(id)?;
        if unassign.addresses.is_empty() && unassign.prefixes.is_empty() {
            return Err(Refusal::missing("ipv6Addresses"));
        }
        all_had(id, &unassign.addresses, &eni.addresses_v6)?;
        all_had(id, &unassign.prefixes, &eni.prefixes_v6)?;
        let subnet = eni.subnet.clone();
        let grant = Grant {
            addresses_v6: unassign.addresses.clone(),
            prefixes_v6: unassign.prefixes.clone(),
            ..Grant::default()
        };
        self.give_back(&subnet, &grant);
        self.change_interface(id, |eni| {
            eni.addresses_v6.retain(|address| !grant.addresses_v6.contains(address));
            eni.prefixes_v6.retain(|prefix| !grant.prefixes_v6.contains(prefix));
        });
        Ok(Answer::UnassignedV6(id.clone(), grant.addresses_v6, grant.prefixes_v6))
    }

    pub(super) fn modify_interface(&mut self, id: &EniId, change: &Change) -> Result<Answer, Refusal> {
        let eni = self.named(id)?;
        match change {
            Change::DeleteOnTermination(attachment, value) => {
                if eni.attachment.as_ref().is_none_or(|found| found.id != *attachment) {
                    return Err(Refusal::no_attachment(attachment));
                }
                self.change_interface(id, |eni| {
                    if let Some(attachment) = &mut eni.attachment {
                        attachment.delete_on_termination = *value;
                    }
                });
            }
            Change::SourceDestCheck(value) => self.change_interface(id, |eni| eni.source_dest_check = *value),
            Change::Groups(groups) => {
                let groups = self.groups_of_new(&eni.vpc, groups)?;
                self.change_interface(id, |eni| eni.security_groups = groups);
            }
            Change::Description(text) => self.change_interface(id, |eni| eni.description.clone_from(text)),
        }
        Ok(Answer::Done)
    }

    pub(super) fn create_tags(&mut self, ids: &[String], new: &Tags) -> Result<Answer, Refusal> {
        for id in ids {
            check_tags(&self.tags_of(id)?, new)?;
        }
        self.each_tags(ids, |tags| tags.extend(new.iter().map(|(key, value)| (key.clone(), value.clone()))));
        Ok(Answer::Done)
    }

    pub(super) fn delete_tags(
        &mut self,
        ids: &[String],
        gone: &BTreeMap<String, Option<String>>,
    ) -> Result<Answer, Refusal> {
        for id in ids {
            self.tags_of(id)?;
        }
        let goes = |key: &String, value: &String| match gone.get(key) {
            Some(Some(wanted)) => wanted == value,
            Some(None) => true,
            None => gone.is_empty() && !key.starts_with("aws:"),
        };
        self.each_tags(ids, |tags| tags.retain(|key, value| !goes(key, value)));
        Ok(Answer::Done)
    }

    fn tags_of(&self, id: &str) -> Result<Tags, Refusal> {
        let unknown = || Refusal::new("InvalidID", format!("The ID '{id}' is not valid"));
        let kind = id.rsplit_once('-').map_or("", |(kind, _)| kind);
        Ok(match kind {
            "eni" => self.named(&EniId::new(id).map_err(|_| unknown())?)?.tags.clone(),
            "i" => {
                let id = InstanceId::new(id).map_err(|_| unknown())?;
                self.instance(&id).ok_or_else(|| Refusal::no_instance(&id))?.tags.clone()
            }
            "subnet" => {
                let id = SubnetId::new(id).map_err(|_| unknown())?;
                self.subnets.get(&id).ok_or_else(|| Refusal::no_subnet(&id))?.tags.clone()
            }
            "vpc" => {
                let id = VpcId::new(id).map_err(|_| unknown())?;
                self.vpcs.get(&id).ok_or_else(|| Refusal::no_vpc(&id))?.vpc.tags.clone()
            }
            "sg" => {
                let id = SecurityGroupId::new(id).map_err(|_| unknown())?;
                self.groups.get(&id).ok_or_else(|| Refusal::no_group(&id))?.tags.clone()
            }
            "scr" => {
                let id = ReservationId::new(id).map_err(|_| unknown())?;
                self.reservations.get(&id).ok_or_else(unknown)?.tags.clone()
            }
            "rtb" => self.route_tables.get(id).ok_or_else(unknown)?.tags.clone(),
            _ => return Err(unknown()),
        })
    }

    /// Changes the tags of objects that are known to be there.
    fn each_tags(&mut self, ids: &[String], change: impl Fn(&mut Tags)) {
        for id in ids {
            if let Ok(id) = EniId::new(id.as_str()) {
                self.change_interface(&id, |eni| change(&mut eni.tags));
            } else if let Ok(id) = InstanceId::new(id.as_str()) {
                self.change_instance(&id, |instance| change(&mut instance.tags));
            }
            if let Some(subnet) = self.subnets.values_mut().find(|subnet| subnet.id.as_str() == id) {
                change(&mut subnet.tags);
            }
            if let Some(vpc) = self.vpcs.values_mut().find(|vpc| vpc.vpc.id.as_str() == id) {
                change(&mut vpc.vpc.tags);
            }
            if let Some(group) = self.groups.values_mut().find(|group| group.id.as_str() == id) {
                change(&mut group.tags);
            }
            if let Some(found) = self.reservations.values_mut().find(|found| found.id.as_str() == id) {
                change(&mut found.tags);
            }
            if let Some(table) = self.route_tables.get_mut(id) {
                change(&mut table.tags);
            }
        }
    }

    /// The limits of the instance that has an interface.
    pub(super) fn limits_of(&self, eni: &Eni) -> Option<&InstanceLimits> {
        let instance = eni.attachment.as_ref()?.instance.as_ref()?;
        self.kinds.get(&self.instance(instance)?.kind)
    }

    /// Takes all that is wanted from a subnet, or nothing.
    fn grant(&mut self, id: &SubnetId, wants: &Wants) -> Result<Grant, Refusal> {
        let mut grant = Grant::default();
        let taken = self.take(id, wants, &mut grant);
        if taken.is_err() {
            self.give_back(id, &grant);
        }
        taken.map(|()| grant)
    }

    fn take(&mut self, id: &SubnetId, wants: &Wants, grant: &mut Grant) -> Result<(), Refusal> {
        let (random, choice) = (&mut self.random, self.settings.choice);
        let subnet = self.subnets.get_mut(id).ok_or_else(|| Refusal::no_subnet(id))?;
        let v4 = &mut subnet.addresses;
        match &wants.addresses {
            Want::Count(count) => {
                if v4.free() < u32::from(*count) {
                    return Err(Refusal::no_addresses());
                }
                for _ in 0..*count {
                    grant.addresses.push(v4.take_any(random, choice).ok_or_else(Refusal::no_addresses)?);
                }
            }
            Want::These(these) => {
                for address in these {
                    v4.take(*address).map_err(|taken| refuse(taken, *address))?;
                    grant.addresses.push(*address);
                }
            }
        }
        match &wants.prefixes {
            Want::Count(count) => {
                for _ in 0..*count {
                    grant.prefixes.push(v4.take_any_prefix(random, choice).ok_or_else(Refusal::no_blocks)?);
                }
            }
            Want::These(these) => {
                for prefix in these {
                    v4.take_prefix(*prefix).map_err(|taken| refuse_prefix(taken, *prefix))?;
                    grant.prefixes.push(*prefix);
                }
            }
        }
        if wanted_v6(wants) == 0 {
            return Ok(());
        }
        let no_v6 = || Refusal::value(format!("The subnet '{id}' does not have an IPv6 CIDR block"));
        let v6 = subnet.addresses_v6.as_mut().ok_or_else(no_v6)?;
        match &wants.addresses_v6 {
            Want::Count(count) => {
                for _ in 0..*count {
                    grant.addresses_v6.push(v6.take_any(random, choice).ok_or_else(Refusal::no_addresses)?);
                }
            }
            Want::These(these) => {
                for address in these {
                    v6.take(*address).map_err(|taken| match taken {
                        Taken::Outside | Taken::Reserved => Self::outside(*address),
                        Taken::InUse => Refusal::in_use(address),
                    })?;
                    grant.addresses_v6.push(*address);
                }
            }
        }
        match &wants.prefixes_v6 {
            Want::Count(count) => {
                for _ in 0..*count {
                    grant
                        .prefixes_v6
                        .push(v6.take_any_prefix(random, choice).ok_or_else(Refusal::no_blocks)?);
                }
            }
            Want::These(these) => {
                for prefix in these {
                    v6.take_prefix(*prefix).map_err(|taken| refuse_prefix(taken, *prefix))?;
                    grant.prefixes_v6.push(*prefix);
                }
            }
        }
        Ok(())
    }

    fn give_back(&mut self, id: &SubnetId, grant: &Grant) {
        let Some(subnet) = self.subnets.get_mut(id) else { return };
        grant.addresses.iter().for_each(|address| subnet.addresses.release(*address));
        grant.prefixes.iter().for_each(|prefix| subnet.addresses.release_prefix(*prefix));
        if let Some(v6) = &mut subnet.addresses_v6 {
            grant.addresses_v6.iter().for_each(|address| v6.release(*address));
            grant.prefixes_v6.iter().for_each(|prefix| v6.release_prefix(*prefix));
        }
    }
}

fn wanted_v6(wants: &Wants) -> usize {
    wants.addresses_v6.len() + wants.prefixes_v6.len()
}

/// Refuses what would take an interface over the slots that its instance has, one kind of address at a time.
pub(super) fn check_slots(limits: Option<&InstanceLimits>, v4: usize, v6: usize) -> Result<(), Refusal> {
    let slots = |limit: fn(&InstanceLimits) -> u16| {
        limits.map_or(UNATTACHED_SLOTS, |limits| usize::from(limit(limits)))
    };
    if v4 > slots(|limits| limits.v4_per_interface) || v6 > slots(|limits| limits.v6_per_interface) {
        return Err(Refusal::too_many_addresses());
    }
    Ok(())
}

/// An instance that is not on Nitro has no prefixes.
pub(super) fn no_prefixes() -> Refusal {
    Refusal::value("Prefixes are not supported on this instance type.")
}

fn all_had<T: PartialEq + Display>(id: &EniId, gone: &[T], had: &[T]) -> Result<(), Refusal> {
    match gone.iter().find(|what| !had.contains(what)) {
        Some(unknown) => Err(Refusal::value(format!(
            "Some of the specified addresses are not assigned to interface {id}: {unknown}"
        ))),
        None => Ok(()),
    }
}

fn refuse(taken: Taken, address: Ipv4Addr) -> Refusal {
    match taken {
        Taken::Outside => World::outside(address),
        Taken::Reserved => Refusal::value(format!("Address {address} is in subnet's reserved address range")),
        Taken::InUse => Refusal::in_use(address),
    }
}

fn refuse_prefix(taken: Taken, prefix: Prefix) -> Refusal {
    match taken {
        Taken::Outside => {
            Refusal::value(format!("The CIDR '{prefix}' is not a prefix within the subnet's address range"))
        }
        Taken::Reserved => {
            Refusal::value(format!("The CIDR '{prefix}' is in subnet's reserved address range"))
        }
        Taken::InUse => Refusal::in_use(prefix),
    }
}

fn check_tags(old: &Tags, new: &Tags) -> Result<(), Refusal> {
    if let Some(key) = new.keys().find(|key| key.starts_with("aws:") || key.is_empty() || key.len() > 128) {
        return Err(Refusal::value(format!(
            "Tag key '{key}' is not valid: 1 to 128 characters, and keys starting with 'aws:' are reserved for internal use"
        )));
    }
    if old.len() + new.keys().filter(|key| !old.contains_key(*key)).count() > MOST_TAGS {
        return Err(Refusal::new(
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ));
    }
    Ok(())
}
