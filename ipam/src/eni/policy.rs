// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_model::{SecurityGroupId, SubnetId};

/// In which unit a node's interfaces get IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// One by one.
    Address,
    /// Sixteen at once: a /28.
    Prefix,
}

impl Unit {
    /// How many addresses it has.
    pub fn size(self) -> u32 {
        match self {
            Unit::Address => 1,
            Unit::Prefix => 16,
        }
    }

    /// Its length in bits as a prefix.
    pub fn prefix_len(self) -> u8 {
        match self {
            Unit::Address => 32,
            Unit::Prefix => 28,
        }
    }
}

/// What a person wants of the interfaces of some nodes: an ENIPool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniPolicy {
    /// Unit of IPv4; `None`: pods have no IPv4 address.
    pub unit: Option<Unit>,
    /// Whether every node gets one /80.
    pub ipv6: bool,
    /// Where interfaces are made.
    pub subnets: Subnets,
    /// Their groups.
    pub groups: Groups,
    /// Whether the primary interface gets them as well.
    pub groups_of_primary: bool,
    /// Addresses ready beyond those that pods have.
    pub pre_allocate: u32,
    /// Addresses a node has at least.
    pub min_allocate: u32,
    /// Addresses a node has at most; `None`: as many as its type allows.
    pub max_allocate: Option<u32>,
    /// Addresses beyond what is wanted before some are given back.
    pub max_above_watermark: u32,
    /// For how long a node has more than that before the first of it is asked back.
    pub settle: Duration,
    /// Addresses ready by the rate of arriving pods; `None`: the rate does not count.
    pub warm: Option<Warm>,
    /// Lowest device index of an interface that carries pods.
    pub first_interface_index: u8,
    /// Interfaces with all of these tags are left alone; none when empty.
    pub exclude_tags: BTreeMap<String, String>,
    /// Further tags of interfaces that are made.
    pub tags: BTreeMap<String, String>,
    /// Whether an interface goes with its instance.
    pub delete_on_termination: bool,
    /// Whether EC2's check of addresses is switched off.
    pub switch_off_source_dest_check: bool,
    /// Interfaces made for a node in an hour, at most.
    pub interfaces_per_hour: u32,
    /// From the agent's word that a block is free to EC2 taking it.
    pub release_delay: Duration,
    /// How many /28 of each of the subnets are kept for prefixes, at least.
    pub reserve_prefixes: u32,
    /// Whether single addresses may be taken where no whole prefix is left.
    pub addresses_in_prefix_subnets: bool,
}

impl Default for EniPolicy {
    fn default() -> Self {
        Self {
            unit: Some(Unit::Address),
            ipv6: false,
            subnets: Subnets::OfInstance,
            groups: Groups::OfPrimary,
            groups_of_primary: false,
            pre_allocate: 8,
            min_allocate: 0,
            max_allocate: None,
            max_above_watermark: 0,
            settle: Duration::from_secs(60),
            warm: None,
            first_interface_index: 0,
            exclude_tags: BTreeMap::new(),
            tags: BTreeMap::new(),
            delete_on_termination: true,
            switch_off_source_dest_check: false,
            interfaces_per_hour: 30,
            release_delay: Duration::from_secs(180),
            reserve_prefixes: 0,
            addresses_in_prefix_subnets: false,
        }
    }
}

/// In which subnets interfaces are made; only those of the instance's zone and VPC come into question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subnets {
    /// The one of the instance's primary interface.
    OfInstance,
    /// These.
    Ids(Vec<SubnetId>),
    /// Those with all of these tags.
    Tags(BTreeMap<String, String>),
}

/// Which security groups interfaces get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Those of the instance's primary interface.
    OfPrimary,
    /// These.
    Ids(Vec<SecurityGroupId>),
    /// Those with all of these tags.
    Tags(BTreeMap<String, String>),
}

/// Addresses ready by the rate of arriving pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// For how long of the present rate addresses are ready.
    pub horizon: Duration,
}
