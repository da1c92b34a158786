// SPDX-License-Identifier: Apache-2.0
//! The actions of EC2 that this double knows, with their parameters, parsed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use rhumb_model::{
    AttachmentId, EniId, InstanceId, Prefix, ReservationId, ReservationKind, SecurityGroupId, SubnetId, VpcId,
};

/// Tags of an object.
pub type Tags = BTreeMap<String, String>;

/// One request to EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub action: Action,
    /// Check only: answered by `DryRunOperation` where the action would have succeeded.
    pub dry_run: bool,
}

impl From<Action> for Call {
    fn from(action: Action) -> Self {
        Self { action, dry_run: false }
    }
}

/// What can be asked. Variants are named as the actions of EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the action of EC2 of that name")]
pub enum Action {
    RunInstances(Launch),
    TerminateInstances(Vec<InstanceId>),
    DescribeInstances(Question<InstanceId>),
    DescribeInstanceTypes(Question<String>),
    DescribeSubnets(Question<SubnetId>),
    DescribeVpcs(Question<VpcId>),
    DescribeSecurityGroups(Question<SecurityGroupId>),
    GetSecurityGroupsForVpc(VpcId, Question<SecurityGroupId>),
    DescribeRouteTables(Question<String>),
    DescribeAvailabilityZones,
    DescribeTags(Question<String>),
    CreateTags(Vec<String>, Tags),
    DeleteTags(Vec<String>, BTreeMap<String, Option<String>>),
    CreateNetworkInterface(NewInterface),
    DeleteNetworkInterface(EniId),
    DescribeNetworkInterfaces(Question<EniId>),
    AttachNetworkInterface(Attach),
    DetachNetworkInterface(Detach),
    ModifyNetworkInterfaceAttribute(EniId, Change),
    AssignPrivateIpAddresses(Assign),
    UnassignPrivateIpAddresses(Unassign),
    AssignIpv6Addresses(AssignV6),
    UnassignIpv6Addresses(UnassignV6),
    CreateSubnetCidrReservation(NewReservation),
    DeleteSubnetCidrReservation(ReservationId),
    GetSubnetCidrReservations(SubnetId, Question<ReservationId>),
}

impl Action {
    /// The name that EC2 has for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunInstances(_) => "RunInstances",
            Self::TerminateInstances(_) => "TerminateInstances",
            Self::DescribeInstances(_) => "DescribeInstances",
            Self::DescribeInstanceTypes(_) => "DescribeInstanceTypes",
            Self::DescribeSubnets(_) => "DescribeSubnets",
            Self::DescribeVpcs(_) => "DescribeVpcs",
            Self::DescribeSecurityGroups(_) => "DescribeSecurityGroups",
            Self::GetSecurityGroupsForVpc(..) => "GetSecurityGroupsForVpc",
            Self::DescribeRouteTables(_) => "DescribeRouteTables",
            Self::DescribeAvailabilityZones => "DescribeAvailabilityZones",
            Self::DescribeTags(_) => "DescribeTags",
            Self::CreateTags(..) => "CreateTags",
            Self::DeleteTags(..) => "DeleteTags",
            Self::CreateNetworkInterface(_) => "CreateNetworkInterface",
            Self::DeleteNetworkInterface(_) => "DeleteNetworkInterface",
            Self::DescribeNetworkInterfaces(_) => "DescribeNetworkInterfaces",
            Self::AttachNetworkInterface(_) => "AttachNetworkInterface",
            Self::DetachNetworkInterface(_) => "DetachNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute(..) => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses(_) => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses(_) => "UnassignPrivateIpAddresses",
            Self::AssignIpv6Addresses(_) => "AssignIpv6Addresses",
            Self::UnassignIpv6Addresses(_) => "UnassignIpv6Addresses",
            Self::CreateSubnetCidrReservation(_) => "CreateSubnetCidrReservation",
            Self::DeleteSubnetCidrReservation(_) => "DeleteSubnetCidrReservation",
            Self::GetSubnetCidrReservations(..) => "GetSubnetCidrReservations",
        }
    }

    /// Whether it neither names what it wants to know nor takes it in pages: EC2 has a smaller bucket for those.
    pub fn is_unbounded(&self) -> bool {
        if let Self::DescribeInstances(question) = self {
            question.is_unbounded()
        } else if let Self::DescribeNetworkInterfaces(question) = self {
            question.is_unbounded()
        } else if let Self::DescribeSecurityGroups(question) = self {
            question.is_unbounded()
        } else {
            false
        }
    }

    /// The interface and the instance that it names, as texts: what faults and the ledger go by.
    pub fn subjects(&self) -> Vec<String> {
        match self {
            Self::TerminateInstances(ids) => ids.iter().map(InstanceId::to_string).collect(),
            Self::CreateTags(ids, _) | Self::DeleteTags(ids, _) => ids.clone(),
            Self::CreateNetworkInterface(new) => vec![new.subnet.to_string()],
            Self::DeleteNetworkInterface(id) | Self::ModifyNetworkInterfaceAttribute(id, _) => {
                vec![id.to_string()]
            }
            Self::AttachNetworkInterface(attach) => {
                vec![attach.interface.to_string(), attach.instance.to_string()]
            }
            Self::DetachNetworkInterface(detach) => vec![detach.attachment.to_string()],
            Self::AssignPrivateIpAddresses(assign) => vec![assign.interface.to_string()],
            Self::UnassignPrivateIpAddresses(unassign) => vec![unassign.interface.to_string()],
            Self::AssignIpv6Addresses(assign) => vec![assign.interface.to_string()],
            Self::UnassignIpv6Addresses(unassign) => vec![unassign.interface.to_string()],
            Self::CreateSubnetCidrReservation(new) => vec![new.subnet.to_string()],
            Self::DeleteSubnetCidrReservation(id) => vec![id.to_string()],
            Self::GetSubnetCidrReservations(subnet, _) => vec![subnet.to_string()],
            Self::DescribeInstances(question) => question.ids.iter().map(InstanceId::to_string).collect(),
            Self::DescribeNetworkInterfaces(question) => question.ids.iter().map(EniId::to_string).collect(),
            Self::RunInstances(_)
            | Self::DescribeInstanceTypes(_)
            | Self::DescribeSubnets(_)
            | Self::DescribeVpcs(_)
            | Self::DescribeSecurityGroups(_)
            | Self::GetSecurityGroupsForVpc(..)
            | Self::DescribeRouteTables(_)
            | Self::DescribeAvailabilityZones
            | Self::DescribeTags(_) => Vec::new(),
        }
    }
}

/// What a describe asks for: all of `ids` if there are any, of these what passes every filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question<Id> {
    /// Objects by id; empty for all.
    pub ids: Vec<Id>,
    /// All must let an object pass.
    pub filters: Vec<Filter>,
    /// `MaxResults`.
    pub page: Option<u16>,
    /// `NextToken` of the page before.
    pub token: Option<String>,
}

impl<Id> Default for Question<Id> {
    fn default() -> Self {
        Self { ids: Vec::new(), filters: Vec::new(), page: None, token: None }
    }
}

impl<Id> Question<Id> {
    fn is_unbounded(&self) -> bool {
        self.ids.is_empty() && self.filters.is_empty() && self.page.is_none()
    }

    /// The same question with one filter more.
    #[must_use]
    pub fn filter(mut self, name: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.filters.push(Filter { name: name.to_owned(), values });
        self
    }
}

/// A filter lets an object pass that has any of the values; `*` and `?` stand for any text and any character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For example `subnet-id` or `tag:KEY`.
    pub name: String,
    /// Wanted values.
    pub values: Vec<String>,
}

/// Addresses or prefixes: how many, or which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want<T> {
    /// So many, chosen by EC2.
    Count(u16),
    /// Exactly these.
    These(Vec<T>),
}

impl<T> Default for Want<T> {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl<T> Want<T> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Count(count) => usize::from(*count),
            Self::These(these) => these.len(),
        }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All addresses and prefixes that a call wants for an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// IPv4 addresses beside the primary one.
    pub addresses: Want<Ipv4Addr>,
    /// `/28` blocks.
    pub prefixes: Want<Prefix>,
    /// IPv6 addresses.
    pub addresses_v6: Want<Ipv6Addr>,
    /// `/80` blocks.
    pub prefixes_v6: Want<Prefix>,
}

/// `CreateNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInterface {
    /// Where its addresses are of.
    pub subnet: SubnetId,
    /// Free text.
    pub description: String,
    /// The default group of the VPC when empty.
    pub groups: Vec<SecurityGroupId>,
    /// Its primary address, chosen by EC2 when `None`.
    pub primary: Option<Ipv4Addr>,
    /// What else it is to have.
    pub wants: Wants,
    /// Its tags.
    pub tags: Tags,
    /// `ClientToken`: the same token and parameters make one interface.
    pub token: Option<String>,
}

impl NewInterface {
    /// An interface in `subnet` with a primary address and nothing else.
    pub fn new(subnet: SubnetId) -> Self {
        Self {
            subnet,
            description: String::new(),
            groups: Vec::new(),
            primary: None,
            wants: Wants::default(),
            tags: Tags::new(),
            token: None,
        }
    }
}

/// `AttachNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// What.
    pub interface: EniId,
    /// To whom.
    pub instance: InstanceId,
    /// Where on the card.
    pub device_index: u8,
    /// Which card.
    pub card: u8,
}

/// `DetachNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detach {
    /// The attachment to end.
    pub attachment: AttachmentId,
    /// Also one that is not attached yet, and at once.
    pub force: bool,
}

/// `ModifyNetworkInterfaceAttribute`: exactly one of its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Whether the interface goes with its instance.
    DeleteOnTermination(AttachmentId, bool),
    /// Whether foreign addresses are dropped.
    SourceDestCheck(bool),
    /// Its security groups.
    Groups(Vec<SecurityGroupId>),
    /// Its text.
    Description(String),
}

/// `AssignPrivateIpAddresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// To which interface.
    pub interface: EniId,
    /// Addresses, or nothing.
    pub addresses: Want<Ipv4Addr>,
    /// Prefixes, or nothing.
    pub prefixes: Want<Prefix>,
    /// Take named addresses from another interface of the same subnet.
    pub reassign: bool,
}

/// `UnassignPrivateIpAddresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unassign {
    /// From which interface.
    pub interface: EniId,
    /// Which addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Which prefixes.
    pub prefixes: Vec<Prefix>,
}

/// `AssignIpv6Addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignV6 {
    /// To which interface.
    pub interface: EniId,
    /// Addresses, or nothing.
    pub addresses: Want<Ipv6Addr>,
    /// Prefixes, or nothing.
    pub prefixes: Want<Prefix>,
}

/// `UnassignIpv6Addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnassignV6 {
    /// From which interface.
    pub interface: EniId,
    /// Which addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// Which prefixes.
    pub prefixes: Vec<Prefix>,
}

/// `RunInstances`: instances of one type with one interface each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The instance type.
    pub kind: String,
    /// How many; `MinCount` and `MaxCount` are the same here.
    pub count: u16,
    /// The subnet of the first interface.
    pub subnet: SubnetId,
    /// Its groups.
    pub groups: Vec<SecurityGroupId>,
    /// What it has beside its primary address.
    pub wants: Wants,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
    /// Whether the instance may be taken away with two minutes' notice.
    pub spot: bool,
    /// Tags of the instances.
    pub tags: Tags,
    /// Tags of their interfaces.
    pub interface_tags: Tags,
    /// `ClientToken`.
    pub token: Option<String>,
}

impl Launch {
    /// One instance of a type in a subnet.
    pub fn new(kind: &str, subnet: SubnetId) -> Self {
        Self {
            kind: kind.to_owned(),
            count: 1,
            subnet,
            groups: Vec::new(),
            wants: Wants::default(),
            delete_on_termination: true,
            spot: false,
            tags: Tags::new(),
            interface_tags: Tags::new(),
            token: None,
        }
    }
}

/// `CreateSubnetCidrReservation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReservation {
    /// Of which subnet.
    pub subnet: SubnetId,
    /// Which range of it.
    pub cidr: Prefix,
    /// What for.
    pub kind: ReservationKind,
    /// Free text.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}
