// SPDX-License-Identifier: Apache-2.0
//! What describes show: objects as they were a while ago, filtered and in pages.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use rhumb_model::{
    Eni, EniId, EniStatus, Instance, InstanceId, SecurityGroupId, Subnet, SubnetId, Timestamp, VpcId,
};
use rhumb_model::{InstanceLimits, ReservationId, ReservationKind};

use super::{InstanceRecord, World};
use crate::answer::{Answer, Page, Tagged, attachment_status, instance_state};
use crate::call::{Filter, Question};
use crate::filter::{Values, matches, pass, tag_values};
use crate::refusal::Refusal;

impl World {
    pub(super) fn describe_interfaces(&self, question: &Question<EniId>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        if question.page.is_none()
            && question.ids.is_empty()
            && self.settings.largest_unpaginated.is_some_and(|most| self.alive > most)
        {
            let message = "Unpaginated calls are not permitted: use MaxResults and NextToken.";
            return Err(Refusal::new("OperationNotPermitted", message));
        }
        if let Some(unknown) = question.ids.iter().find(|id| self.shown_interface(id).is_none()) {
            return Err(Refusal::no_interface(unknown));
        }
        let show = |id: &EniId| self.shown_interface(id).cloned();
        let values = |eni: &Arc<Eni>, name: &str| self.interface_values(eni, name);
        let named = named(question, "network-interface-id");
        let some = match (&question.ids, one_instance(&question.filters)) {
            (ids, _) if !ids.is_empty() => Some(ids.iter().cloned().collect()),
            (_, Some(instance)) => {
                let touched = InstanceId::new(instance).ok().and_then(|id| self.instances.get(&id));
                Some(touched.map(|record| record.touched.clone()).unwrap_or_default())
            }
            (_, None) => named.map(|ids| ids.into_iter().filter_map(|id| EniId::new(id).ok()).collect()),
        };
        let page = match some {
            Some(ids) => self.page_of(question, &ids, show, values),
            None => self.page(question, &self.interfaces, |id, _| show(id), values),
        };
        page.map(Answer::Interfaces)
    }

    fn shown_interface(&self, id: &EniId) -> Option<&Arc<Eni>> {
        self.interfaces.get(id)?.history.shown(self.now)
    }

    pub(super) fn describe_instances(&self, question: &Question<InstanceId>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        let show = |id: &InstanceId| self.instances.get(id)?.history.shown(self.now).cloned();
        if let Some(unknown) = question.ids.iter().find(|id| show(id).is_none()) {
            return Err(Refusal::no_instance(unknown));
        }
        let values = |instance: &Arc<Instance>, name: &str| self.instance_values(instance, name);
        let page = if question.ids.is_empty() {
            self.page(question, &self.instances, |id, _| show(id), values)
        } else {
            self.page_of(question, &question.ids.iter().cloned().collect(), show, values)
        };
        page.map(Answer::Instances)
    }

    pub(super) fn describe_kinds(&self, question: &Question<String>) -> Result<Answer, Refusal> {
        check_page(question, 5, 100)?;
        if let Some(unknown) = question.ids.iter().find(|kind| !self.kinds.contains_key(*kind)) {
            let message = format!("The following supplied instance types do not exist: [{unknown}]");
            return Err(Refusal::new("InvalidInstanceType", message));
        }
        let wanted = |kind: &String| question.ids.is_empty() || question.ids.contains(kind);
        let show =
            |kind: &String, limits: &InstanceLimits| wanted(kind).then(|| (kind.clone(), limits.clone()));
        let values = |(kind, limits): &(String, InstanceLimits), name: &str| {
            Some(vec![match name {
                "instance-type" => kind.clone(),
                "hypervisor" => hypervisor(limits).to_owned(),
                "network-info.maximum-network-interfaces" => limits.interfaces.to_string(),
                "network-info.ipv4-addresses-per-interface" => limits.v4_per_interface.to_string(),
                "network-info.ipv6-addresses-per-interface" => limits.v6_per_interface.to_string(),
                "vcpu-info.default-vcpus" => limits.vcpus.to_string(),
                _ => return None,
            }])
        };
        // This action answers in pages whether asked to or not.
        let paged = Question { page: question.page.or(Some(100)), ..question.clone() };
        self.page(&paged, &self.kinds, show, values).map(Answer::InstanceTypes)
    }

    pub(super) fn describe_subnets(&self, question: &Question<SubnetId>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        if let Some(unknown) = question.ids.iter().find(|id| !self.subnets.contains_key(id)) {
            return Err(Refusal::no_subnet(unknown));
        }
        let show = |id: &SubnetId, subnet: &super::SubnetState| {
            (question.ids.is_empty() || question.ids.contains(id)).then(|| Subnet {
                id: id.clone(),
                vpc: subnet.vpc.clone(),
                zone: subnet.zone.clone(),
                cidr: Some(subnet.cidr),
                cidrs_v6: subnet.cidr_v6.into_iter().collect(),
                free: subnet.addresses.free(),
                tags: subnet.tags.clone(),
            })
        };
        let values = |subnet: &Subnet, name: &str| {
            Some(match name {
                "subnet-id" => vec![subnet.id.to_string()],
                "vpc-id" => vec![subnet.vpc.to_string()],
                "availability-zone" | "availabilityZone" => vec![subnet.zone.to_string()],
                "cidr-block" | "cidr" | "cidrBlock" => subnet.cidr.iter().map(ToString::to_string).collect(),
                "ipv6-cidr-block-association.ipv6-cidr-block" => {
                    subnet.cidrs_v6.iter().map(ToString::to_string).collect()
                }
                "available-ip-address-count" => vec![subnet.free.to_string()],
                "state" => vec!["available".to_owned()],
                "owner-id" => vec![self.settings.account.clone()],
                _ => return tag_values(name, &subnet.tags),
            })
        };
        self.page(question, &self.subnets, show, values).map(Answer::Subnets)
    }

    pub(super) fn describe_vpcs(&self, question: &Question<VpcId>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        if let Some(unknown) = question.ids.iter().find(|id| !self.vpcs.contains_key(id)) {
            return Err(Refusal::no_vpc(unknown));
        }
        let wanted = |id: &VpcId| question.ids.is_empty() || question.ids.contains(id);
        let show = |id: &VpcId, vpc: &super::VpcState| wanted(id).then(|| vpc.vpc.clone());
        let values = |vpc: &crate::answer::Vpc, name: &str| {
            let texts = |cidrs: &[rhumb_model::Prefix]| cidrs.iter().map(ToString::to_string).collect();
            Some(match name {
                "vpc-id" => vec![vpc.id.to_string()],
                "cidr" | "cidr-block" => vpc.cidrs.first().map(ToString::to_string).into_iter().collect(),
                "cidr-block-association.cidr-block" => texts(&vpc.cidrs),
                "ipv6-cidr-block-association.ipv6-cidr-block" => texts(&vpc.cidrs_v6),
                "state" => vec!["available".to_owned()],
                "owner-id" => vec![self.settings.account.clone()],
                _ => return tag_values(name, &vpc.tags),
            })
        };
        self.page(question, &self.vpcs, show, values).map(Answer::Vpcs)
    }

    pub(super) fn describe_groups(&self, question: &Question<SecurityGroupId>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        if let Some(unknown) = question.ids.iter().find(|id| !self.groups.contains_key(id)) {
            return Err(Refusal::no_group(unknown));
        }
        let wanted = |id: &SecurityGroupId| question.ids.is_empty() || question.ids.contains(id);
        let show = |id: &SecurityGroupId, group: &crate::answer::Group| wanted(id).then(|| group.clone());
        let values = |group: &crate::answer::Group, name: &str| {
            Some(match name {
                "group-id" => vec![group.id.to_string()],
                "group-name" => vec![group.name.clone()],
                "vpc-id" => vec![group.vpc.to_string()],
                "owner-id" => vec![self.settings.account.clone()],
                _ => return tag_values(name, &group.tags),
            })
        };
        self.page(question, &self.groups, show, values).map(Answer::Groups)
    }

    pub(super) fn groups_for_vpc(
        &self,
        vpc: &VpcId,
        question: &Question<SecurityGroupId>,
    ) -> Result<Answer, Refusal> {
        if !self.vpcs.contains_key(vpc) {
            return Err(Refusal::no_vpc(vpc));
        }
        self.describe_groups(&question.clone().filter("vpc-id", &[vpc.as_str()]))
    }

    pub(super) fn describe_route_tables(&self, question: &Question<String>) -> Result<Answer, Refusal> {
        check_page(question, 5, 100)?;
        if let Some(unknown) = question.ids.iter().find(|id| !self.route_tables.contains_key(*id)) {
            let message = format!("The routeTable ID '{unknown}' does not exist");
            return Err(Refusal::new("InvalidRouteTableID.NotFound", message));
        }
        let wanted = |id: &String| question.ids.is_empty() || question.ids.contains(id);
        let show = |id: &String, table: &crate::answer::RouteTable| wanted(id).then(|| table.clone());
        let values = |table: &crate::answer::RouteTable, name: &str| {
            Some(match name {
                "route-table-id" | "association.route-table-id" => vec![table.id.clone()],
                "vpc-id" => vec![table.vpc.to_string()],
                "association.main" => vec![table.main.to_string()],
                "association.subnet-id" => table.subnets.iter().map(ToString::to_string).collect(),
                "owner-id" => vec![self.settings.account.clone()],
                _ => return tag_values(name, &table.tags),
            })
        };
        self.page(question, &self.route_tables, show, values).map(Answer::RouteTables)
    }

    pub(super) fn zones(&self) -> Answer {
        let zones: BTreeSet<_> = self.subnets.values().map(|subnet| subnet.zone.clone()).collect();
        Answer::Zones(zones.into_iter().collect())
    }

    pub(super) fn reservations(
        &self,
        subnet: &SubnetId,
        question: &Question<ReservationId>,
    ) -> Result<Answer, Refusal> {
        if !self.subnets.contains_key(subnet) {
            return Err(Refusal::no_subnet(subnet));
        }
        let show = |_: &ReservationId, found: &crate::answer::Reservation| {
            (found.subnet == *subnet).then(|| found.clone())
        };
        let values = |found: &crate::answer::Reservation, name: &str| {
            Some(match name {
                "reservationType" => vec![reservation_kind(found.kind).to_owned()],
                "subnet-id" => vec![found.subnet.to_string()],
                _ => return tag_values(name, &found.tags),
            })
        };
        self.page(question, &self.reservations, show, values).map(Answer::Reservations)
    }

    pub(super) fn describe_tags(&self, question: &Question<String>) -> Result<Answer, Refusal> {
        check_page(question, 5, 1000)?;
        let mut all: BTreeMap<(String, String), Tagged> = BTreeMap::new();
        let mut add = |id: &dyn std::fmt::Display, kind: &'static str, tags: &crate::call::Tags| {
            for (key, value) in tags {
                let tagged = Tagged { id: id.to_string(), kind, key: key.clone(), value: value.clone() };
                all.insert((tagged.id.clone(), key.clone()), tagged);
            }
        };
        for eni in self.interfaces.values().filter_map(|record| record.history.shown(self.now)) {
            add(&eni.id, "network-interface", &eni.tags);
        }
        for instance in self.instances.values().filter_map(|record| record.history.shown(self.now)) {
            add(&instance.id, "instance", &instance.tags);
        }
        self.subnets.values().for_each(|subnet| add(&subnet.id, "subnet", &subnet.tags));
        self.vpcs.values().for_each(|vpc| add(&vpc.vpc.id, "vpc", &vpc.vpc.tags));
        self.groups.values().for_each(|group| add(&group.id, "security-group", &group.tags));
        self.reservations.values().for_each(|found| add(&found.id, "subnet-cidr-reservation", &found.tags));
        let values = |tagged: &Tagged, name: &str| {
            Some(match name {
                "resource-id" => vec![tagged.id.clone()],
                "resource-type" => vec![tagged.kind.to_owned()],
                "key" => vec![tagged.key.clone()],
                "value" => vec![tagged.value.clone()],
                _ => {
                    let key = name.strip_prefix("tag:")?;
                    if key == tagged.key { vec![tagged.value.clone()] } else { Vec::new() }
                }
            })
        };
        let all: BTreeMap<String, Tagged> =
            all.into_iter().map(|((id, key), tagged)| (format!("{id}\u{1}{key}"), tagged)).collect();
        self.page(question, &all, |_, tagged| Some(tagged.clone()), values).map(Answer::Tags)
    }

    fn interface_values(&self, eni: &Eni, name: &str) -> Values {
        let attachment = eni.attachment.as_ref();
        let of_attachment =
            |value: fn(&rhumb_model::Attachment) -> String| attachment.map(value).into_iter().collect();
        Some(match name {
            "network-interface-id" => vec![eni.id.to_string()],
            "subnet-id" => vec![eni.subnet.to_string()],
            "vpc-id" => vec![eni.vpc.to_string()],
            "availability-zone" => vec![eni.zone.to_string()],
            "status" => vec![eni_status(eni.status).to_owned()],
            "description" => vec![eni.description.clone()],
            "mac-address" => vec![eni.mac.to_string()],
            "interface-type" => vec!["interface".to_owned()],
            "owner-id" => vec![self.settings.account.clone()],
            "requester-managed" => vec![eni.requester_managed.to_string()],
            "source-dest-check" => vec![eni.source_dest_check.to_string()],
            "group-id" => eni.security_groups.iter().map(ToString::to_string).collect(),
            "private-ip-address" | "addresses.private-ip-address" => {
                std::iter::once(&eni.primary).chain(&eni.addresses).map(ToString::to_string).collect()
            }
            "addresses.primary" => {
                let secondary = (!eni.addresses.is_empty()).then(|| "false".to_owned());
                std::iter::once("true".to_owned()).chain(secondary).collect()
            }
            "ipv6-addresses.ipv6-address" => eni.addresses_v6.iter().map(ToString::to_string).collect(),
            "attachment.instance-id" => attachment
                .and_then(|found| found.instance.as_ref())
                .map(ToString::to_string)
                .into_iter()
                .collect(),
            "attachment.attachment-id" => of_attachment(|found| found.id.to_string()),
            "attachment.device-index" => of_attachment(|found| found.device_index.to_string()),
            "attachment.network-card-index" => of_attachment(|found| found.card.to_string()),
            "attachment.delete-on-termination" => {
                of_attachment(|found| found.delete_on_termination.to_string())
            }
            "attachment.status" => of_attachment(|found| attachment_status(found.status).to_owned()),
            "attachment.instance-owner-id" => {
                attachment.map(|_| self.settings.account.clone()).into_iter().collect()
            }
            _ => return tag_values(name, &eni.tags),
        })
    }

    fn instance_values(&self, instance: &Instance, name: &str) -> Values {
        let (code, state) = instance_state(instance.state);
        let interfaces = || self.shown_interfaces_of(&instance.id);
        let text = |value: Option<String>| value.into_iter().collect();
        Some(match name {
            "instance-id" => vec![instance.id.to_string()],
            "instance-type" => vec![instance.kind.clone()],
            "availability-zone" | "placement.availability-zone" => vec![instance.zone.to_string()],
            "instance-state-name" => vec![state.to_owned()],
            "instance-state-code" => vec![code.to_string()],
            "vpc-id" => text(instance.vpc.as_ref().map(ToString::to_string)),
            "subnet-id" => text(instance.subnet.as_ref().map(ToString::to_string)),
            "owner-id" => vec![self.settings.account.clone()],
            "reservation-id" => {
                text(self.instances.get(&instance.id).map(|record| record.reservation.clone()))
            }
            "instance-lifecycle" => text(self.is_spot(&instance.id).then(|| "spot".to_owned())),
            "private-ip-address" => text(interfaces().first().map(|eni| eni.primary.to_string())),
            "network-interface.network-interface-id" => {
                interfaces().iter().map(|eni| eni.id.to_string()).collect()
            }
            "network-interface.addresses.private-ip-address" => interfaces()
                .iter()
                .flat_map(|eni| std::iter::once(&eni.primary).chain(&eni.addresses))
                .map(ToString::to_string)
                .collect(),
            _ => return tag_values(name, &instance.tags),
        })
    }

    /// The interfaces of an instance as describes show them, the first one first.
    pub(crate) fn shown_interfaces_of(&self, id: &InstanceId) -> Vec<Arc<Eni>> {
        let touched = self.instances.get(id).map(|record| &record.touched);
        let shown = touched.into_iter().flatten().filter_map(|eni| self.shown_interface(eni));
        let place = |eni: &Arc<Eni>| {
            let attachment = eni.attachment.as_ref().filter(|found| found.instance.as_ref() == Some(id))?;
            Some((attachment.card, attachment.device_index))
        };
        let mut shown: Vec<Arc<Eni>> = shown.filter(|eni| place(eni).is_some()).cloned().collect();
        shown.sort_by_key(place);
        shown
    }

    pub(crate) fn is_spot(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|record| record.spot.is_some())
    }

    pub(crate) fn launched(&self, id: &InstanceId) -> (Timestamp, String) {
        let of = |record: &InstanceRecord| (record.launched, record.reservation.clone());
        self.instances.get(id).map(of).unwrap_or_default()
    }

    pub(crate) fn attached_at(&self, id: &EniId) -> Timestamp {
        self.interfaces.get(id).map(|record| record.attached_at).unwrap_or_default()
    }

    pub(crate) fn group_name(&self, id: &SecurityGroupId) -> &str {
        self.groups.get(id).map_or("", |group| group.name.as_str())
    }

    /// What an interface and its instance were `lag` ago, for the metadata service.
    pub(crate) fn interface_behind(&self, id: &EniId, lag: std::time::Duration) -> Option<&Arc<Eni>> {
        self.interfaces.get(id)?.history.behind(self.now, lag)
    }

    pub(crate) fn instance_behind(
        &self,
        id: &InstanceId,
        lag: std::time::Duration,
    ) -> Option<&Arc<Instance>> {
        self.instances.get(id)?.history.behind(self.now, lag)
    }

    pub(crate) fn touched(&self, id: &InstanceId) -> impl Iterator<Item = &EniId> {
        self.instances.get(id).into_iter().flat_map(|record| &record.touched)
    }

    /// A page of those objects of `all` that are shown and pass.
    fn page<Id, K: Ord + AsText, V, T>(
        &self,
        question: &Question<Id>,
        all: &BTreeMap<K, V>,
        show: impl Fn(&K, &V) -> Option<T>,
        values: impl Fn(&T, &str) -> Values,
    ) -> Result<Page<T>, Refusal> {
        let from = match &question.token {
            Some(token) => Bound::Excluded(K::parse(&untoken(token)?).ok_or_else(bad_token)?),
            None => Bound::Unbounded,
        };
        let most = usize::from(question.page.unwrap_or(u16::MAX));
        let mut page = Page { items: Vec::new(), next: None };
        let mut last: Option<&K> = None;
        for (key, value) in all.range((from, Bound::Unbounded)) {
            let Some(item) = show(key, value) else { continue };
            if !pass(&question.filters, |name| values(&item, name))? {
                continue;
            }
            if page.items.len() == most && question.page.is_some() {
                page.next = last.map(|last| token(last.text()));
                break;
            }
            page.items.push(item);
            last = Some(key);
        }
        if page.items.is_empty() {
            check_filters(&question.filters)?;
        }
        Ok(page)
    }

    /// The same among a few objects that are known by id.
    fn page_of<Id, K: Ord + Clone + AsText, T>(
        &self,
        question: &Question<Id>,
        ids: &BTreeSet<K>,
        show: impl Fn(&K) -> Option<T>,
        values: impl Fn(&T, &str) -> Values,
    ) -> Result<Page<T>, Refusal> {
        let few: BTreeMap<K, ()> = ids.iter().map(|id| (id.clone(), ())).collect();
        self.page(question, &few, |id, ()| show(id), values)
    }
}

/// A key by which a describe can go on.
trait AsText: Sized {
    fn text(&self) -> &str;
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! as_text {
    ($($type:ty),*) => {
        $(impl AsText for $type {
            fn text(&self) -> &str {
                self.as_str()
            }
            fn parse(text: &str) -> Option<Self> {
                Self::new(text).ok()
            }
        })*
    };
}

as_text!(EniId, InstanceId, SubnetId, VpcId, SecurityGroupId, ReservationId);

impl AsText for String {
    fn text(&self) -> &str {
        self
    }
    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// Clients must not read anything in a token.
fn token(text: &str) -> String {
    text.bytes().map(|byte| format!("{:02x}", byte ^ 0x5a)).collect()
}

fn untoken(token: &str) -> Result<String, Refusal> {
    let digits: Option<Vec<u8>> = token
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok().map(|byte| byte ^ 0x5a)
        })
        .collect();
    digits.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad_token)
}

fn bad_token() -> Refusal {
    Refusal::new("InvalidNextToken", "The token is not valid or has expired.")
}

fn check_page<Id>(question: &Question<Id>, from: u16, to: u16) -> Result<(), Refusal> {
    let Some(page) = question.page else { return Ok(()) };
    if !question.ids.is_empty() {
        return Err(Refusal::combination("MaxResults cannot be used together with a list of ids."));
    }
    if !(from..=to).contains(&page) {
        let message = format!(
            "Value ( {page} ) for parameter maxResults is invalid. Expecting a value between {from} and {to}."
        );
        return Err(Refusal::value(message));
    }
    Ok(())
}

/// No object said whether the filters are known, so their form is checked alone.
fn check_filters(filters: &[Filter]) -> Result<(), Refusal> {
    match filters.iter().find(|filter| filter.name.is_empty()) {
        Some(_) => Err(Refusal::value("The filter '' is invalid")),
        None => Ok(()),
    }
}

/// The one instance that the filters ask for, without wild cards.
fn one_instance(filters: &[Filter]) -> Option<&str> {
    let filter = filters.iter().find(|filter| filter.name == "attachment.instance-id")?;
    let [value] = filter.values.as_slice() else { return None };
    matches(value, value).then_some(value.as_str()).filter(|value| !value.contains(['*', '?', '\\']))
}

/// The ids that a filter asks for, without wild cards.
fn named<Id>(question: &Question<Id>, name: &str) -> Option<Vec<String>> {
    let filter = question.filters.iter().find(|filter| filter.name == name)?;
    let plain = filter.values.iter().all(|value| !value.contains(['*', '?', '\\']));
    plain.then(|| filter.values.clone())
}

/// The word that EC2 has for a status. It says `in-use` from the attach call until an interface is detached, and tells
/// by the attachment how far that is.
pub(crate) fn eni_status(status: EniStatus) -> &'static str {
    match status {
        EniStatus::Available => "available",
        EniStatus::Associated => "associated",
        EniStatus::Attaching | EniStatus::InUse | EniStatus::Detaching => "in-use",
    }
}

pub(crate) fn reservation_kind(kind: ReservationKind) -> &'static str {
    match kind {
        ReservationKind::Prefix => "prefix",
        ReservationKind::Explicit => "explicit",
    }
}

pub(crate) fn hypervisor(limits: &InstanceLimits) -> &'static str {
    if limits.prefixes { "nitro" } else { "xen" }
}
