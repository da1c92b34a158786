// SPDX-License-Identifier: Apache-2.0
//! VPCs, subnets, reservations, security groups: what is there before the first interface.

use std::net::{IpAddr, Ipv4Addr};

use rhumb_model::{Family, Prefix, ReservationId, ReservationKind, SecurityGroupId, SubnetId, VpcId, Zone};
use serde::{Deserialize, Serialize};

use super::World;
use super::addresses::Addresses;
use super::addresses_v6::AddressesV6;
use crate::answer::{Answer, Group, Reservation, RouteTable, Vpc};
use crate::call::{NewReservation, Tags};
use crate::refusal::Refusal;

#[derive(Debug, Clone)]
pub(super) struct VpcState {
    pub(super) vpc: Vpc,
    pub(super) default_group: SecurityGroupId,
    /// Units of Network Address Usage in use.
    pub(super) usage: u32,
}

#[derive(Debug, Clone)]
pub(super) struct SubnetState {
    pub(super) id: SubnetId,
    pub(super) vpc: VpcId,
    pub(super) zone: Zone,
    pub(super) cidr: Prefix,
    pub(super) cidr_v6: Option<Prefix>,
    pub(super) addresses: Addresses,
    pub(super) addresses_v6: Option<AddressesV6>,
    pub(super) tags: Tags,
    /// Addresses that something outside this account's interfaces has.
    pub(super) foreign: Vec<Ipv4Addr>,
}

/// A VPC to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewVpc {
    /// Its id; made up when `None`.
    #[serde(default)]
    pub id: Option<VpcId>,
    /// Its IPv4 blocks, at least one.
    pub cidrs: Vec<Prefix>,
    /// Its IPv6 blocks.
    #[serde(default)]
    pub cidrs_v6: Vec<Prefix>,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A subnet to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSubnet {
    /// Its id; made up when `None`.
    #[serde(default)]
    pub id: Option<SubnetId>,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub zone: Zone,
    /// Its IPv4 block, `/16` to `/28`.
    pub cidr: Prefix,
    /// Its IPv6 block, a `/64`.
    #[serde(default)]
    pub cidr_v6: Option<Prefix>,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

impl World {
    /// Makes a VPC with its default security group and its main route table.
    ///
    /// # Errors
    /// `InvalidVpc.Range` when it has no IPv4 block, or one that is not `/16` to `/28`; `InvalidParameterValue` when
    /// its id is taken.
    pub fn create_vpc(&mut self, new: NewVpc) -> Result<VpcId, Refusal> {
        let fits = |cidr: &Prefix| cidr.family() == Family::V4 && (16..=28).contains(&cidr.len());
        if new.cidrs.is_empty() || !new.cidrs.iter().all(fits) {
            return Err(Refusal::new("InvalidVpc.Range", "The CIDR of a VPC is /16 to /28."));
        }
        let made = || VpcId::new(format!("vpc-{}", self.digits())).expect("digits make an id");
        let id = new.id.clone().unwrap_or_else(made);
        if self.vpcs.contains_key(&id) {
            return Err(Refusal::value(format!("The vpc ID '{id}' is taken")));
        }
        let vpc = Vpc { id: id.clone(), cidrs: new.cidrs, cidrs_v6: new.cidrs_v6, tags: new.tags };
        let local = vpc.cidrs.iter().chain(&vpc.cidrs_v6).copied().collect();
        let default_group = self.digits();
        let default_group = SecurityGroupId::new(format!("sg-{default_group}")).expect("digits make an id");
        let group = Group {
            id: default_group.clone(),
            name: "default".to_owned(),
            vpc: id.clone(),
            tags: Tags::new(),
        };
        self.groups.insert(default_group.clone(), group);
        let table = format!("rtb-{}", self.digits());
        let table = RouteTable {
            id: table,
            vpc: id.clone(),
            main: true,
            subnets: Vec::new(),
            local,
            tags: Tags::new(),
        };
        self.route_tables.insert(table.id.clone(), table);
        self.vpcs.insert(id.clone(), VpcState { vpc, default_group, usage: 0 });
        Ok(id)
    }

    /// Makes a subnet.
    ///
    /// # Errors
    /// `InvalidVpcID.NotFound`; `InvalidSubnet.Range` when a block is outside of its VPC or of a length that subnets do
    /// not have; `InvalidSubnet.Conflict` when it overlaps another or its id is taken.
    pub fn create_subnet(&mut self, new: NewSubnet) -> Result<SubnetId, Refusal> {
        let vpc = self.vpcs.get(&new.vpc).ok_or_else(|| Refusal::no_vpc(&new.vpc))?;
        let range =
            |cidr: Prefix| Refusal::new("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid."));
        let addresses = Addresses::new(new.cidr).ok_or_else(|| range(new.cidr))?;
        let addresses_v6 = match new.cidr_v6 {
            Some(cidr) => Some(AddressesV6::new(cidr).ok_or_else(|| range(cidr))?),
            None => None,
        };
        let inside = |blocks: &[Prefix], cidr: Prefix| blocks.iter().any(|block| block.covers(cidr));
        if !inside(&vpc.vpc.cidrs, new.cidr) {
            return Err(range(new.cidr));
        }
        if let Some(cidr) = new.cidr_v6.filter(|cidr| !inside(&vpc.vpc.cidrs_v6, *cidr)) {
            return Err(range(cidr));
        }
        let others = self.subnets.values().filter(|other| other.vpc == new.vpc);
        for other in others {
            let same = new.cidr_v6.is_some() && other.cidr_v6 == new.cidr_v6;
            if other.cidr.overlaps(new.cidr) || same {
                let message = format!("The CIDR '{}' conflicts with another subnet", new.cidr);
                return Err(Refusal::new("InvalidSubnet.Conflict", message));
            }
        }
        let made = || SubnetId::new(format!("subnet-{}", self.digits())).expect("digits make an id");
        let id = new.id.clone().unwrap_or_else(made);
        if self.subnets.contains_key(&id) {
            return Err(Refusal::new("InvalidSubnet.Conflict", format!("The subnet ID '{id}' is taken")));
        }
        let subnet = SubnetState {
            id: id.clone(),
            vpc: new.vpc,
            zone: new.zone,
            cidr: new.cidr,
            cidr_v6: new.cidr_v6,
            addresses,
            addresses_v6,
            tags: new.tags,
            foreign: Vec::new(),
        };
        self.subnets.insert(id.clone(), subnet);
        Ok(id)
    }

    /// Makes a security group.
    ///
    /// # Errors
    /// `InvalidVpcID.NotFound`; `InvalidGroup.Duplicate` when the VPC has one of that name or the id is taken.
    pub fn create_group(
        &mut self,
        vpc: &VpcId,
        id: Option<SecurityGroupId>,
        name: &str,
        tags: Tags,
    ) -> Result<SecurityGroupId, Refusal> {
        if !self.vpcs.contains_key(vpc) {
            return Err(Refusal::no_vpc(vpc));
        }
        let made = || SecurityGroupId::new(format!("sg-{}", self.digits())).expect("digits make an id");
        let id = id.unwrap_or_else(made);
        let same = |group: &Group| group.vpc == *vpc && group.name == name;
        if self.groups.contains_key(&id) || self.groups.values().any(same) {
            let message = format!("The security group '{name}' already exists for VPC '{vpc}'");
            return Err(Refusal::new("InvalidGroup.Duplicate", message));
        }
        let group = Group { id: id.clone(), name: name.to_owned(), vpc: vpc.clone(), tags };
        self.groups.insert(id.clone(), group);
        Ok(id)
    }

    /// Makes a route table for some subnets, which leave the one they had.
    ///
    /// # Errors
    /// `InvalidVpcID.NotFound`, `InvalidSubnetID.NotFound`.
    pub fn create_route_table(&mut self, vpc: &VpcId, subnets: &[SubnetId]) -> Result<String, Refusal> {
        let state = self.vpcs.get(vpc).ok_or_else(|| Refusal::no_vpc(vpc))?;
        let local = state.vpc.cidrs.iter().chain(&state.vpc.cidrs_v6).copied().collect();
        if let Some(unknown) = subnets.iter().find(|id| !self.subnets.contains_key(id)) {
            return Err(Refusal::no_subnet(unknown));
        }
        let id = format!("rtb-{}", self.digits());
        for table in self.route_tables.values_mut() {
            table.subnets.retain(|subnet| !subnets.contains(subnet));
        }
        let table = RouteTable {
            id: id.clone(),
            vpc: vpc.clone(),
            main: false,
            subnets: subnets.to_vec(),
            local,
            tags: Tags::new(),
        };
        self.route_tables.insert(id.clone(), table);
        Ok(id)
    }

    /// Takes one address of each of `blocks` free `/28`s of a subnet for somebody else, so that they are no prefixes.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`.
    pub fn fragment(&mut self, subnet: &SubnetId, blocks: u32) -> Result<u32, Refusal> {
        let random = &mut self.random;
        let subnet = self.subnets.get_mut(subnet).ok_or_else(|| Refusal::no_subnet(subnet))?;
        let taken = subnet.addresses.fragment(blocks, random);
        let count = taken.len() as u32;
        subnet.foreign.extend(taken);
        Ok(count)
    }

    /// Takes free addresses of a subnet for somebody else until `left` are free.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`.
    pub fn fill(&mut self, subnet: &SubnetId, left: u32) -> Result<u32, Refusal> {
        let (random, choice) = (&mut self.random, self.settings.choice);
        let subnet = self.subnets.get_mut(subnet).ok_or_else(|| Refusal::no_subnet(subnet))?;
        let mut count = 0;
        while subnet.addresses.free() > left
            && let Some(address) = subnet.addresses.take_any(random, choice)
        {
            subnet.foreign.push(address);
            count += 1;
        }
        Ok(count)
    }

    /// Gives back all that [`Self::fragment`] and [`Self::fill`] took.
    ///
    /// # Errors
    /// `InvalidSubnetID.NotFound`.
    pub fn defragment(&mut self, subnet: &SubnetId) -> Result<u32, Refusal> {
        let subnet = self.subnets.get_mut(subnet).ok_or_else(|| Refusal::no_subnet(subnet))?;
        let foreign = std::mem::take(&mut subnet.foreign);
        for address in &foreign {
            subnet.addresses.release(*address);
        }
        Ok(foreign.len() as u32)
    }

    /// Free IPv4 addresses of a subnet.
    pub fn free(&self, subnet: &SubnetId) -> Option<u32> {
        Some(self.subnets.get(subnet)?.addresses.free())
    }

    pub(super) fn reserve(&mut self, new: &NewReservation) -> Result<Answer, Refusal> {
        let id = ReservationId::new(format!("scr-{}", self.digits())).expect("digits make an id");
        let subnet = self.subnets.get_mut(&new.subnet).ok_or_else(|| Refusal::no_subnet(&new.subnet))?;
        if !subnet.cidr.covers(new.cidr) {
            return Err(Refusal::value(format!(
                "The CIDR '{}' is not within the CIDR of subnet '{}'",
                new.cidr, new.subnet
            )));
        }
        if new.kind == ReservationKind::Prefix && new.cidr.len() > 28 {
            return Err(Refusal::value(format!("The CIDR '{}' is too small for prefixes", new.cidr)));
        }
        let same = |other: &Reservation| other.subnet == new.subnet && other.cidr.overlaps(new.cidr);
        if self.reservations.values().any(same) {
            return Err(Refusal::new(
                "InvalidSubnetCidrReservation.Overlap",
                format!("The CIDR '{}' overlaps with another reservation", new.cidr),
            ));
        }
        subnet.addresses.reserve(new.cidr, new.kind);
        let reservation = Reservation {
            id: id.clone(),
            subnet: new.subnet.clone(),
            cidr: new.cidr,
            kind: new.kind,
            description: new.description.clone(),
            tags: new.tags.clone(),
        };
        self.reservations.insert(id, reservation.clone());
        Ok(Answer::Reserved(reservation))
    }

    pub(super) fn unreserve(&mut self, id: &ReservationId) -> Result<Answer, Refusal> {
        let reservation = self.reservations.remove(id).ok_or_else(|| {
            let message = format!("The subnet CIDR reservation ID '{id}' does not exist");
            Refusal::new("InvalidSubnetCidrReservationID.NotFound", message)
        })?;
        if let Some(subnet) = self.subnets.get_mut(&reservation.subnet) {
            subnet.addresses.unreserve(reservation.cidr, reservation.kind);
        }
        Ok(Answer::Unreserved(reservation))
    }

    /// The blocks of a VPC.
    pub fn cidrs_of(&self, vpc: &VpcId) -> impl Iterator<Item = Prefix> {
        let blocks = self.vpcs.get(vpc).map(|vpc| vpc.vpc.cidrs.iter().chain(&vpc.vpc.cidrs_v6));
        blocks.into_iter().flatten().copied()
    }

    /// The IPv4 and IPv6 block of a subnet.
    pub fn cidrs_of_subnet(&self, subnet: &SubnetId) -> Option<(Prefix, Option<Prefix>)> {
        self.subnets.get(subnet).map(|subnet| (subnet.cidr, subnet.cidr_v6))
    }

    /// All subnets, by id.
    pub fn subnets(&self) -> impl Iterator<Item = &SubnetId> {
        self.subnets.keys()
    }

    /// The security groups that a new interface gets.
    pub(super) fn groups_of_new(
        &self,
        vpc: &VpcId,
        wanted: &[SecurityGroupId],
    ) -> Result<Vec<SecurityGroupId>, Refusal> {
        let known = |id: &&SecurityGroupId| self.groups.get(id).is_some_and(|group| group.vpc == *vpc);
        if let Some(unknown) = wanted.iter().find(|id| !known(id)) {
            return Err(Refusal::no_group(unknown));
        }
        Ok(match self.vpcs.get(vpc) {
            Some(vpc) if wanted.is_empty() => vec![vpc.default_group.clone()],
            Some(_) | None => wanted.to_vec(),
        })
    }

    /// Compares every allocator with what the interfaces have; for tests, as it looks at everything.
    pub fn audit(&self) -> Result<(), String> {
        for subnet in self.subnets.values() {
            let (mut v4, mut prefixes) = subnet.addresses.in_use();
            let (mut v6, mut prefixes_v6) =
                subnet.addresses_v6.as_ref().map(AddressesV6::in_use).unwrap_or_default();
            let mut wrong =
                subnet.foreign.iter().find(|address| !v4.remove(address)).map(ToString::to_string);
            for eni in self.interfaces().filter(|eni| eni.subnet == subnet.id) {
                let addresses = std::iter::once(&eni.primary).chain(&eni.addresses);
                wrong = wrong
                    .or_else(|| {
                        addresses.copied().find(|address| !v4.remove(address)).map(|what| what.to_string())
                    })
                    .or_else(|| {
                        eni.prefixes.iter().find(|block| !prefixes.remove(block)).map(ToString::to_string)
                    })
                    .or_else(|| {
                        eni.addresses_v6.iter().find(|address| !v6.remove(address)).map(ToString::to_string)
                    })
                    .or_else(|| {
                        eni.prefixes_v6
                            .iter()
                            .find(|block| !prefixes_v6.remove(block))
                            .map(ToString::to_string)
                    });
            }
            if let Some(wrong) = wrong {
                return Err(format!("{}: {wrong} is had twice, or had and not taken", subnet.id));
            }
            if !(v4.is_empty() && prefixes.is_empty() && v6.is_empty() && prefixes_v6.is_empty()) {
                return Err(format!(
                    "{}: taken and had by nobody: {v4:?} {prefixes:?} {v6:?} {prefixes_v6:?}",
                    subnet.id
                ));
            }
        }
        for (id, vpc) in &self.vpcs {
            let usage: u32 =
                self.interfaces().filter(|eni| eni.vpc == *id).map(|eni| Self::usage(Some(eni))).sum();
            if usage != vpc.usage {
                return Err(format!("{id}: network address usage {} counted, {usage} had", vpc.usage));
            }
        }
        if self.interfaces().count() != self.alive as usize {
            return Err(format!("{} interfaces counted, {} there", self.alive, self.interfaces().count()));
        }
        Ok(())
    }

    /// The main address of a block's family, for messages.
    pub(super) fn outside(address: impl Into<IpAddr>) -> Refusal {
        let address: IpAddr = address.into();
        Refusal::value(format!("Address {address} does not fall within the subnet's address range"))
    }
}
