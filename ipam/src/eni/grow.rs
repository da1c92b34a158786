// SPDX-License-Identifier: Apache-2.0
//! More for one node: the free slots of its interfaces first, then as many whole interfaces as it takes, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use rhumb_model::{Eni, NodeName, Prefix, SecurityGroupId, Subnet, SubnetId, Timestamp};

use super::calls::Calls;
use super::fleet::{Fleet, blocks, size_v4};
use super::memory::HOUR;
use super::obstacle::Obstacle;
use super::room::Rooms;
use super::shape::Shape;
use super::tags::{has_all, token};
use super::{
    Action, Addresses, EniPolicy, Groups, Inputs, Key, Memory, NodeFacts, Subnets, TAG_CLUSTER, TAG_CREATED,
    TAG_INSTANCE, TAG_NODE, TAG_TOKEN, Unit, View,
};

/// What one node gets.
pub(super) struct Growth<'a> {
    pub(super) name: &'a NodeName,
    pub(super) node: &'a NodeFacts,
    pub(super) policy: &'a EniPolicy,
    pub(super) shape: &'a Shape,
    pub(super) fleet: &'a Fleet<'a>,
    pub(super) inputs: &'a Inputs,
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
    /// What is planned for those that come before.
    pub(super) calls: &'a Calls<'a>,
    pub(super) actions: Vec<Action>,
    /// Why not all that is wanted was planned; the first reason met.
    pub(super) obstacle: Option<Obstacle>,
    /// A call for which there is no room now.
    pub(super) waits_for: Option<&'static str>,
}

impl Growth<'_> {
    /// Plans calls for so many addresses more, and for the /80.
    pub(super) fn plan(&mut self, missing: u32, rooms: &mut Rooms) {
        let wants_v6 = self.policy.ipv6 && !self.has_v6();
        let v6_later = wants_v6 && !self.assign_v6();
        let Some(unit) = self.policy.unit else {
            self.attach_loose(0, v6_later);
            self.create(Unit::Address, 0, v6_later, rooms);
            return;
        };
        if unit == Unit::Prefix && !self.shape.prefixes {
            self.meets(Obstacle::NoPrefixes);
            return;
        }
        let mut left = self.fill(unit, missing, rooms);
        left = self.attach_loose(left, v6_later);
        left = self.less_what_is_made(left);
        left = self.create(unit, left, v6_later, rooms);
        if unit == Unit::Prefix && self.policy.addresses_in_prefix_subnets {
            left = self.fill(Unit::Address, left, rooms);
            left = self.create(Unit::Address, left, false, rooms);
        }
        if left == 0 && self.obstacle.as_ref().is_some_and(Obstacle::is_of_addresses) {
            self.obstacle = None;
        }
    }

    /// Whether one more call of this kind can be planned; notes that it is waited for.
    fn has_room(&mut self, call: &'static str) -> bool {
        let has_room = self.calls.has_room(call);
        if !has_room {
            self.waits_for.get_or_insert(call);
        }
        has_room
    }

    fn meets(&mut self, obstacle: Obstacle) {
        self.obstacle.get_or_insert(obstacle);
    }

    fn has_v6(&self) -> bool {
        self.fleet.pods.iter().any(|eni| !eni.prefixes_v6.is_empty())
    }

    /// Whether an interface that is there gets the /80.
    fn assign_v6(&mut self) -> bool {
        if !self.shape.prefixes {
            self.meets(Obstacle::NoPrefixes);
            return true;
        }
        match self.fleet.with_v6(self.memory.view()).next() {
            Some(eni) => {
                let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
                match self.memory.trouble.short_v6_until(&id, self.now) {
                    Some(again) => self.meets(Obstacle::ExhaustedV6 { subnet, again }),
                    None => self.actions.push(Action::AssignV6 { node: self.name.clone(), eni: id }),
                }
                true
            }
            None if !self.fleet.pods.is_empty() => {
                self.meets(Obstacle::NoIpv6);
                true
            }
            None => false,
        }
    }

    /// Fills the free slots of interfaces that carry pods; says what is left to find.
    fn fill(&mut self, unit: Unit, mut left: u32, rooms: &mut Rooms) -> u32 {
        for eni in &self.fleet.pods {
            if left == 0 {
                break;
            }
            let free =
                u32::from(self.shape.slots).saturating_sub(u32::try_from(eni.slots_v4()).unwrap_or(u32::MAX));
            let units = free.min(left.div_ceil(unit.size()));
            if units == 0 {
                continue;
            }
            let key = Key::Eni(eni.id.clone());
            if self
                .actions
                .iter()
                .any(|action| action.key() == key && matches!(action, Action::Assign { .. }))
            {
                continue;
            }
            if let Some(Action::Assign { addresses, .. }) = self.memory.flying.get(&key) {
                left = left.saturating_sub(addresses.count());
                continue;
            }
            if self.memory.unsure.contains_key(&key) {
                left = left.saturating_sub(units * unit.size());
                continue;
            }
            if !self.has_room("AssignPrivateIpAddresses") {
                left = left.saturating_sub(units * unit.size());
                continue;
            }
            let Some(addresses) = self.choose(&eni.subnet, unit, units, rooms) else { continue };
            left = left.saturating_sub(addresses.count());
            self.actions.push(Action::Assign {
                node: self.name.clone(),
                eni: eni.id.clone(),
                subnet: eni.subnet.clone(),
                addresses,
            });
        }
        left
    }

    /// Attaches interfaces that were made for the node: while what they have is wanted, and those of which the node was
    /// told before somebody detached them.
    fn attach_loose(&mut self, mut left: u32, wants_v6: bool) -> u32 {
        if self.fleet.loose.is_empty() {
            return left;
        }
        let mut places = self.free_places().into_iter();
        for eni in &self.fleet.loose {
            let told = self.node.record.blocks.iter().filter(|block| block.interface == eni.id);
            let is_given_back = told.clone().all(|block| block.unassigning);
            let is_new = told.clone().next().is_none();
            let has_the_80 = wants_v6 && !eni.prefixes_v6.is_empty();
            let is_wanted = if is_new { left > 0 || has_the_80 } else { !is_given_back };
            if !is_wanted {
                continue;
            }
            // What the node was told of counts as there already.
            let new = blocks(eni).filter(|cidr| !told.clone().any(|block| block.cidr == *cidr));
            left = left.saturating_sub(new.map(size_v4).sum());
            if self.memory.is_taken(&Key::Eni(eni.id.clone())) || !self.has_room("AttachNetworkInterface") {
                continue;
            }
            let Some((card, device_index)) = places.next() else {
                self.meets(Obstacle::InstanceFull);
                continue;
            };
            self.actions.push(Action::Attach {
                node: self.name.clone(),
                eni: eni.id.clone(),
                instance: self.node.instance.id.clone(),
                device_index,
                card,
            });
        }
        left
    }

    /// Places that no interface has, and to which none is on its way.
    fn free_places(&self) -> Vec<(u8, u8)> {
        let attaching = &self.fleet.attaching;
        let taken = |place: &(u8, u8)| self.fleet.places.contains(place) || attaching.contains(place);
        let room =
            usize::from(self.shape.interfaces).saturating_sub(self.fleet.places.len() + attaching.len());
        self.shape.places().filter(|place| !taken(place)).take(room).collect()
    }

    /// What is left beside the interfaces that are being made.
    fn less_what_is_made(&self, left: u32) -> u32 {
        let flying = self.memory.flying.range(self.places()).map(|(_, action)| match action {
            Action::Create { addresses, .. } => addresses.count(),
            Action::Attach { .. }
            | Action::SetDeleteOnTermination { .. }
            | Action::SwitchOffSourceDestCheck { .. }
            | Action::SetGroups { .. }
            | Action::Assign { .. }
            | Action::AssignV6 { .. }
            | Action::Unassign { .. }
            | Action::Detach { .. }
            | Action::Delete { .. }
            | Action::Reserve { .. } => 0,
        });
        // Of what nobody knows whether it was made, the most is supposed.
        let unsure = self.memory.unsure.range(self.places()).map(|_| self.most_of_one());
        flying.chain(unsure).fold(left, u32::saturating_sub)
    }

    /// The keys of all places of the node.
    fn places(&self) -> RangeInclusive<Key> {
        let key = |number| Key::Place(self.name.clone(), number, number);
        key(0)..=key(u8::MAX)
    }

    fn most_of_one(&self) -> u32 {
        u32::from(self.shape.slots).saturating_sub(1) * self.policy.unit.map_or(0, Unit::size)
    }

    /// Makes as many interfaces as it takes, each with all that it is to have; what is left to find.
    fn create(&mut self, unit: Unit, mut left: u32, mut wants_v6: bool, rooms: &mut Rooms) -> u32 {
        if left == 0 && !wants_v6 {
            return 0;
        }
        let flying = self.memory.flying.range(self.places()).map(|(key, _)| key.clone());
        let unsure = self.memory.unsure.range(self.places()).map(|(key, _)| key.clone());
        let busy: BTreeSet<(u8, u8)> = flying
            .chain(unsure)
            .chain(self.actions.iter().map(Action::key))
            .filter_map(|key| match key {
                Key::Place(_, card, index) => Some((card, index)),
                Key::Eni(_) | Key::Subnet(_) => None,
            })
            .collect();
        // The /80 is on one that is being made.
        wants_v6 &= busy.is_empty();
        let reserved = self.fleet.loose.len() + busy.len();
        let places = self.free_places();
        let room = places.len().saturating_sub(reserved);
        let mut places =
            places.into_iter().rev().filter(|place| !busy.contains(place)).take(room).collect::<Vec<_>>();
        places.sort_unstable();
        let (made, free_again) = self.made();
        let mut budget = self.policy.interfaces_per_hour.saturating_sub(made);
        for (card, device_index) in places {
            if left == 0 && !wants_v6 {
                return left;
            }
            if budget == 0 {
                self.meets(Obstacle::Budget { again: free_again });
                return left;
            }
            if !self.has_room("CreateNetworkInterface") {
                return 0;
            }
            let Some(got) = self.create_one(unit, left, wants_v6, (card, device_index), rooms) else {
                return left;
            };
            left = left.saturating_sub(got);
            wants_v6 = false;
            budget -= 1;
        }
        if left > 0 || wants_v6 {
            self.meets(if self.shape.known { Obstacle::InstanceFull } else { Obstacle::UnknownType });
        }
        left
    }

    /// How many interfaces were made for the node within the hour, and when the first of them no longer counts. What the
    /// memory lost, the tags of those that are still there say.
    fn made(&self) -> (u32, Option<Timestamp>) {
        let known = self.memory.made(self.name, self.now);
        let created = |eni: &&Eni| eni.tags.get(TAG_CREATED)?.parse().ok().map(Timestamp);
        let there = self.fleet.pods.iter().chain(&self.fleet.loose).filter_map(created);
        let times: Vec<Timestamp> = there.filter(|at| self.now.since(*at) < HOUR).collect();
        let there =
            (u32::try_from(times.len()).unwrap_or(u32::MAX), times.iter().min().map(|at| at.after(HOUR)));
        if there.0 > known.0 { there } else { known }
    }

    /// Makes one interface; how many addresses it has.
    fn create_one(
        &mut self,
        unit: Unit,
        left: u32,
        wants_v6: bool,
        place: (u8, u8),
        rooms: &mut Rooms,
    ) -> Option<u32> {
        let Some(groups) = self.groups() else {
            self.meets(Obstacle::NoSecurityGroup);
            return None;
        };
        let candidates = self.subnets(wants_v6);
        if candidates.is_empty() {
            self.meets(if wants_v6 && !self.subnets(false).is_empty() {
                Obstacle::NoIpv6
            } else {
                Obstacle::NoSubnet
            });
            return None;
        }
        let slots = u32::from(self.shape.slots).saturating_sub(1);
        let (subnet, addresses) = if left > 0 {
            self.choose_among(&candidates, unit, slots.min(left.div_ceil(unit.size())), rooms)?
        } else {
            (candidates[0].clone(), Addresses::none())
        };
        let blind = self.memory.trouble.is_blind(&subnet, self.now);
        let primary = if blind { None } else { rooms.pick(&subnet, Unit::Address, 1).first().and_then(v4) };
        let count = addresses.count();
        let (card, device_index) = place;
        let mut action = Action::Create {
            node: self.name.clone(),
            subnet,
            groups,
            primary,
            addresses,
            prefixes_v6: u16::from(wants_v6),
            tags: BTreeMap::new(),
            token: String::new(),
            device_index,
            card,
        };
        let text = format!("{action:?}");
        let generation = self.node.record.generation.to_string();
        let name =
            token(&[&self.inputs.cluster, self.name.as_str(), self.node.pool.as_str(), &generation, &text]);
        if let Action::Create { tags, token, .. } = &mut action {
            *tags = self.tags(&name);
            *token = name;
        }
        self.actions.push(action);
        Some(count)
    }

    fn tags(&self, token: &str) -> BTreeMap<String, String> {
        let mut tags = self.policy.tags.clone();
        tags.extend([
            (TAG_CLUSTER.to_owned(), self.inputs.cluster.clone()),
            (TAG_NODE.to_owned(), self.name.to_string()),
            (TAG_INSTANCE.to_owned(), self.node.instance.id.to_string()),
            (TAG_TOKEN.to_owned(), token.to_owned()),
            (TAG_CREATED.to_owned(), self.now.0.to_string()),
        ]);
        tags
    }

    /// The subnet that can give it all, else the one that can give the most.
    fn choose_among(
        &mut self,
        candidates: &[SubnetId],
        unit: Unit,
        units: u32,
        rooms: &mut Rooms,
    ) -> Option<(SubnetId, Addresses)> {
        let could = |id: &SubnetId| {
            let cooling = self.memory.is_cooling(id, unit, self.now);
            if cooling { 0 } else { rooms.free(id, unit).min(units + primary(unit)) }
        };
        let best = candidates.iter().enumerate().max_by_key(|(at, id)| (could(id), usize::MAX - at));
        if let Some((_, id)) = best
            && could(id) > primary(unit)
            && let Some(addresses) = self.choose(id, unit, units, rooms)
        {
            return Some((id.clone(), addresses));
        }
        self.meets(Obstacle::subnets(candidates, unit, self.memory, rooms, self.now));
        None
    }

    /// Up to so many units of the subnet.
    fn choose(&mut self, subnet: &SubnetId, unit: Unit, units: u32, rooms: &mut Rooms) -> Option<Addresses> {
        if self.memory.is_cooling(subnet, unit, self.now) {
            self.meets(Obstacle::subnets(std::slice::from_ref(subnet), unit, self.memory, rooms, self.now));
            return None;
        }
        let picked = rooms.pick(subnet, unit, units);
        if picked.is_empty() {
            self.meets(Obstacle::subnets(std::slice::from_ref(subnet), unit, self.memory, rooms, self.now));
            return None;
        }
        if !self.memory.trouble.is_blind(subnet, self.now) {
            return Some(Addresses::These(picked));
        }
        let count = u16::try_from(picked.len()).unwrap_or(u16::MAX);
        Some(match unit {
            Unit::Address => Addresses::Any { addresses: count, prefixes: 0 },
            Unit::Prefix => Addresses::Any { addresses: 0, prefixes: count },
        })
    }

    /// The subnets that come into question, the fullest last.
    pub(super) fn subnets(&self, wants_v6: bool) -> Vec<SubnetId> {
        let view: &View = self.memory.view();
        let instance = &self.node.instance;
        let chosen = |subnet: &&Subnet| match &self.policy.subnets {
            Subnets::OfInstance => instance.subnet.as_ref() == Some(&subnet.id),
            Subnets::Ids(ids) => ids.contains(&subnet.id),
            Subnets::Tags(tags) => has_all(&subnet.tags, tags),
        };
        let reachable = |subnet: &&Subnet| {
            subnet.zone == instance.zone
                && instance.vpc.as_ref().is_none_or(|vpc| *vpc == subnet.vpc)
                && (!wants_v6 || !subnet.cidrs_v6.is_empty())
        };
        let mut subnets: Vec<&Subnet> = view.subnets.values().filter(chosen).filter(reachable).collect();
        subnets.sort_by_key(|subnet| (u32::MAX - subnet.free, &subnet.id));
        subnets.into_iter().map(|subnet| subnet.id.clone()).collect()
    }

    /// The security groups that the pool chooses; `None` when it chooses none.
    pub(super) fn groups(&self) -> Option<Vec<SecurityGroupId>> {
        let view = self.memory.view();
        let groups = match &self.policy.groups {
            Groups::OfPrimary => self.fleet.primary.map(|eni: &Eni| eni.security_groups.clone())?,
            Groups::Ids(ids) => ids.clone(),
            Groups::Tags(tags) => {
                let chosen = view.groups.iter().filter(|(_, its)| has_all(its, tags));
                chosen.map(|(id, _)| id.clone()).collect()
            }
        };
        (!groups.is_empty()).then_some(groups)
    }
}

/// The primary address of a new interface is taken from the same subnet.
fn primary(unit: Unit) -> u32 {
    match unit {
        Unit::Address => 1,
        Unit::Prefix => 0,
    }
}

fn v4(block: &Prefix) -> Option<std::net::Ipv4Addr> {
    match block.addr() {
        std::net::IpAddr::V4(addr) => Some(addr),
        std::net::IpAddr::V6(_) => None,
    }
}
