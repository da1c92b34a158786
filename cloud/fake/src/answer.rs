// SPDX-License-Identifier: Apache-2.0
//! What EC2 says when it did what it was asked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rhumb_model::{
    AttachmentId, AttachmentStatus, Eni, EniId, Instance, InstanceId, InstanceLimits, InstanceState, Prefix,
    ReservationId, ReservationKind, SecurityGroupId, Subnet, SubnetId, VpcId, Zone,
};
use serde::Serialize;

use crate::call::Tags;

/// The answer to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// `RunInstances`: the reservation and its instances.
    Launched(String, Vec<Arc<Instance>>),
    /// `TerminateInstances`: each with its state before and now.
    Terminating(Vec<(InstanceId, InstanceState, InstanceState)>),
    /// `DescribeInstances`.
    Instances(Page<Arc<Instance>>),
    /// `DescribeInstanceTypes`.
    InstanceTypes(Page<(String, InstanceLimits)>),
    /// `DescribeSubnets`.
    Subnets(Page<Subnet>),
    /// `DescribeVpcs`.
    Vpcs(Page<Vpc>),
    /// `DescribeSecurityGroups` and `GetSecurityGroupsForVpc`.
    Groups(Page<Group>),
    /// `DescribeRouteTables`.
    RouteTables(Page<RouteTable>),
    /// `DescribeAvailabilityZones`.
    Zones(Vec<Zone>),
    /// `DescribeTags`: id of the object, its kind, key, value.
    Tags(Page<Tagged>),
    /// `CreateNetworkInterface`.
    Interface(Arc<Eni>),
    /// `DescribeNetworkInterfaces`.
    Interfaces(Page<Arc<Eni>>),
    /// `AttachNetworkInterface`: the attachment and its card.
    Attached(AttachmentId, u8),
    /// `AssignPrivateIpAddresses`: what is new.
    Assigned(EniId, Vec<Ipv4Addr>, Vec<Prefix>),
    /// `AssignIpv6Addresses`: what is new.
    AssignedV6(EniId, Vec<Ipv6Addr>, Vec<Prefix>),
    /// `UnassignIpv6Addresses`: what is gone.
    UnassignedV6(EniId, Vec<Ipv6Addr>, Vec<Prefix>),
    /// `CreateSubnetCidrReservation`.
    Reserved(Reservation),
    /// `DeleteSubnetCidrReservation`.
    Unreserved(Reservation),
    /// `GetSubnetCidrReservations`.
    Reservations(Page<Reservation>),
    /// The other actions answer with nothing but success.
    Done,
}

/// A page of a describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// `NextToken`, when there is another page.
    pub next: Option<String>,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its IPv4 blocks, the first one is its own.
    pub cidrs: Vec<Prefix>,
    /// Its IPv6 blocks.
    pub cidrs_v6: Vec<Prefix>,
    /// Its tags.
    pub tags: Tags,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its name.
    pub name: String,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its tags.
    pub tags: Tags,
}

/// A route table: every VPC has one main table, for all its subnets that have no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteTable {
    /// Its id.
    pub id: String,
    /// Its VPC.
    pub vpc: VpcId,
    /// Whether subnets without a table of their own have this one.
    pub main: bool,
    /// The subnets that have this one by name.
    pub subnets: Vec<SubnetId>,
    /// The VPC's blocks, which each table routes within the VPC.
    pub local: Vec<Prefix>,
    /// Its tags.
    pub tags: Tags,
}

/// A tag and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// Id of the object.
    pub id: String,
    /// For example `network-interface`.
    pub kind: &'static str,
    /// Key of the tag.
    pub key: String,
    /// Value of the tag.
    pub value: String,
}

/// A reservation of a range of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reservation {
    /// Its id.
    pub id: ReservationId,
    /// The subnet.
    pub subnet: SubnetId,
    /// The range.
    pub cidr: Prefix,
    /// What for.
    pub kind: ReservationKind,
    /// Free text.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}

/// The word that EC2 has for a status of an attachment.
pub(crate) fn attachment_status(status: AttachmentStatus) -> &'static str {
    match status {
        AttachmentStatus::Attaching => "attaching",
        AttachmentStatus::Attached => "attached",
        AttachmentStatus::Detaching => "detaching",
        AttachmentStatus::Detached => "detached",
    }
}

/// Code and name that EC2 has for a state of an instance.
pub(crate) fn instance_state(state: InstanceState) -> (u8, &'static str) {
    match state {
        InstanceState::Pending => (0, "pending"),
        InstanceState::Running => (16, "running"),
        InstanceState::ShuttingDown => (32, "shutting-down"),
        InstanceState::Terminated => (48, "terminated"),
        InstanceState::Stopping => (64, "stopping"),
        InstanceState::Stopped => (80, "stopped"),
    }
}
