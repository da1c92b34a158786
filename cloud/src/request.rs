// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rhumb_model::{AttachmentId, EniId, InstanceId, Prefix, SecurityGroupId, SubnetId, VpcId};

/// Which instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// Only these, if any.
    pub ids: Vec<InstanceId>,
    /// Only those of these VPCs, if any.
    pub vpcs: Vec<VpcId>,
}

/// Which interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EniFilter {
    /// Only those of these VPCs, if any.
    pub vpcs: Vec<VpcId>,
    /// Only those with all of these tags.
    pub tags: BTreeMap<String, String>,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its VPC.
    pub vpc: Option<VpcId>,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its IPv4 blocks.
    pub cidrs: Vec<Prefix>,
    /// Its IPv6 blocks.
    pub cidrs_v6: Vec<Prefix>,
}

/// A number of things of the cloud's choice, or these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount<T> {
    /// So many.
    Count(u16),
    /// Exactly these.
    Exactly(Vec<T>),
}

/// What is to fill slots of IPv4; one request takes addresses or prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum V4Slots {
    /// Single addresses, beside the primary one.
    Addresses(Amount<Ipv4Addr>),
    /// Blocks of 16 addresses (`/28`).
    Prefixes(Amount<Prefix>),
}

/// A network interface that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateEni {
    /// The same token always gives the same interface (`ClientToken`, at most 64 ASCII characters).
    pub token: String,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its security groups; those of the VPC's default when there are none.
    pub groups: Vec<SecurityGroupId>,
    /// Text for people.
    pub description: String,
    /// Its primary address; the cloud's choice when `None`.
    pub primary: Option<Ipv4Addr>,
    /// Further addresses or prefixes.
    pub v4: Option<V4Slots>,
    /// How many /80 it has.
    pub prefixes_v6: u16,
    /// Its tags, there from the first moment.
    pub tags: BTreeMap<String, String>,
}

/// Where an interface is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachEni {
    /// The interface.
    pub eni: EniId,
    /// The instance.
    pub instance: InstanceId,
    /// The place on the card.
    pub device_index: u8,
    /// The card.
    pub card: u8,
}

/// An attachment that is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRef {
    /// Its id.
    pub id: AttachmentId,
    /// Its interface, for reports.
    pub eni: EniId,
}

/// What an interface was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// IPv4 blocks.
    pub prefixes: Vec<Prefix>,
    /// IPv6 blocks.
    pub prefixes_v6: Vec<Prefix>,
}

/// What an interface is to lose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnassignAddresses {
    /// IPv4 addresses; never the primary one.
    pub addresses: Vec<Ipv4Addr>,
    /// IPv4 blocks.
    pub prefixes: Vec<Prefix>,
}
