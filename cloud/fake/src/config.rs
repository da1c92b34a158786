// SPDX-License-Identifier: Apache-2.0
//! What an account begins with, from a file or a request, in JSON or YAML.

use rhumb_model::{InstanceId, InstanceLimits, Prefix, ReservationKind, SecurityGroupId, SubnetId, VpcId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::answer::Answer;
use crate::call::{Action, Launch, NewReservation, Tags, Want, Wants};
use crate::fake::Fake;
use crate::faults::Rule;
use crate::imds::Metadata;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::state::{NewSubnet, NewVpc, World};
use crate::throttle::Limits;

/// A whole double, as its program reads it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// How it behaves.
    pub settings: Settings,
    /// How it throttles.
    pub limits: Limits,
    /// What goes wrong.
    pub faults: Vec<Rule>,
    /// How metadata lie.
    pub metadata: Metadata,
    /// When an interface that nobody has counts as leaked, in milliseconds.
    pub longest_idle: Option<u64>,
    /// Calls of an action in a second that are a violation when exceeded.
    pub most_calls: BTreeMap<String, u32>,
    /// What there is.
    pub world: Things,
}

/// Things to add to a world.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Things {
    /// Instance types beside those that are always there.
    pub kinds: BTreeMap<String, InstanceLimits>,
    /// VPCs.
    pub vpcs: Vec<NewVpc>,
    /// Subnets.
    pub subnets: Vec<NewSubnet>,
    /// Security groups beside the default ones.
    pub groups: Vec<NewGroup>,
    /// Reservations.
    pub reservations: Vec<NewRange>,
    /// Instances: launched without the throttle of `RunInstances`.
    pub instances: Vec<NewInstance>,
}

/// A security group to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewGroup {
    /// Its id; made up when `None`.
    #[serde(default)]
    pub id: Option<SecurityGroupId>,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its name.
    pub name: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A reservation to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRange {
    /// Of which subnet.
    pub subnet: SubnetId,
    /// Which range.
    pub cidr: Prefix,
    /// What for.
    pub kind: ReservationKind,
}

/// An instance to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewInstance {
    /// Its type.
    pub kind: String,
    /// The subnet of its first interface.
    pub subnet: SubnetId,
    /// How many like this.
    #[serde(default = "one")]
    pub count: u16,
    /// Whether it can be interrupted.
    #[serde(default)]
    pub spot: bool,
    /// Security groups of its first interface; the VPC's default one when empty.
    #[serde(default)]
    pub groups: Vec<SecurityGroupId>,
    /// Addresses of its first interface beside the primary one.
    #[serde(default)]
    pub addresses: u16,
    /// `/28` blocks of its first interface.
    #[serde(default)]
    pub prefixes: u16,
    /// IPv6 addresses of its first interface.
    #[serde(default)]
    pub addresses_v6: u16,
    /// Tags of the instance.
    #[serde(default)]
    pub tags: Tags,
}

fn one() -> u16 {
    1
}

impl Config {
    /// The double at time `now`.
    ///
    /// # Errors
    /// The first thing that cannot be, by the refusal that EC2 would give.
    pub fn build(self, now: rhumb_model::Timestamp) -> Result<Fake, Refusal> {
        let mut fake = Fake::new(self.settings, now);
        fake.limit(self.limits);
        self.faults.into_iter().for_each(|rule| fake.fault(rule));
        *fake.metadata_mut() = self.metadata;
        fake.longest_idle(self.longest_idle.map(Duration::from_millis));
        fake.most_calls(self.most_calls);
        self.world.put(fake.world_mut())?;
        Ok(fake)
    }
}

impl Things {
    /// Adds everything; returns the instances that were launched.
    ///
    /// # Errors
    /// The first thing that cannot be; what came before it is there.
    pub fn put(self, world: &mut World) -> Result<Vec<InstanceId>, Refusal> {
        for (kind, limits) in self.kinds {
            world.put_kind(&kind, limits);
        }
        for vpc in self.vpcs {
            world.create_vpc(vpc)?;
        }
        for subnet in self.subnets {
            world.create_subnet(subnet)?;
        }
        for group in self.groups {
            world.create_group(&group.vpc, group.id, &group.name, group.tags)?;
        }
        for range in self.reservations {
            let new = NewReservation {
                subnet: range.subnet,
                cidr: range.cidr,
                kind: range.kind,
                description: String::new(),
                tags: Tags::new(),
            };
            world.answer(&Action::CreateSubnetCidrReservation(new).into())?;
        }
        let mut launched = Vec::new();
        for instance in self.instances {
            launched.extend(instance.launch(world)?);
        }
        Ok(launched)
    }
}

impl NewInstance {
    /// Launches the instances.
    ///
    /// # Errors
    /// As `RunInstances`.
    pub fn launch(self, world: &mut World) -> Result<Vec<InstanceId>, Refusal> {
        let wants = Wants {
            addresses: Want::Count(self.addresses),
            prefixes: Want::Count(self.prefixes),
            addresses_v6: Want::Count(self.addresses_v6),
            ..Wants::default()
        };
        let launch = Launch {
            count: self.count,
            spot: self.spot,
            groups: self.groups,
            wants,
            tags: self.tags,
            ..Launch::new(&self.kind, self.subnet)
        };
        let answer = world.answer(&Action::RunInstances(launch).into())?;
        let Answer::Launched(_, instances) = answer else { return Ok(Vec::new()) };
        Ok(instances.iter().map(|found| found.id.clone()).collect())
    }
}
