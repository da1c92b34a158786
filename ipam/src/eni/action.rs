// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rhumb_model::{
    AttachmentId, Eni, EniId, InstanceId, NodeName, Prefix, ReservationId, SecurityGroupId, SubnetId,
};

/// A call to EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `CreateNetworkInterface`, with all that it is to have.
    Create {
        /// The node for which it is.
        node: NodeName,
        /// The subnet.
        subnet: SubnetId,
        /// The security groups.
        groups: Vec<SecurityGroupId>,
        /// Its primary address; EC2's choice when nothing is said.
        primary: Option<Ipv4Addr>,
        /// What it has for pods.
        addresses: Addresses,
        /// How many /80 it has.
        prefixes_v6: u16,
        /// Its tags.
        tags: BTreeMap<String, String>,
        /// `ClientToken`: a call that is repeated makes nothing again.
        token: String,
        /// The device index that it is for.
        device_index: u8,
        /// The network card that it is for.
        card: u8,
    },
    /// `AttachNetworkInterface`.
    Attach {
        /// The node.
        node: NodeName,
        /// The interface.
        eni: EniId,
        /// The instance.
        instance: InstanceId,
        /// Where.
        device_index: u8,
        /// On which card.
        card: u8,
    },
    /// `ModifyNetworkInterfaceAttribute`: the interface goes with its instance.
    SetDeleteOnTermination {
        /// The interface.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// `ModifyNetworkInterfaceAttribute`: EC2 no longer compares addresses.
    SwitchOffSourceDestCheck {
        /// The interface.
        eni: EniId,
    },
    /// `ModifyNetworkInterfaceAttribute`: these security groups in place of its own.
    SetGroups {
        /// The interface.
        eni: EniId,
        /// The groups.
        groups: Vec<SecurityGroupId>,
    },
    /// `AssignPrivateIpAddresses`.
    Assign {
        /// The node.
        node: NodeName,
        /// The interface.
        eni: EniId,
        /// Its subnet.
        subnet: SubnetId,
        /// What it gets.
        addresses: Addresses,
    },
    /// `AssignIpv6Addresses`: one /80.
    AssignV6 {
        /// The node.
        node: NodeName,
        /// The interface.
        eni: EniId,
    },
    /// `UnassignPrivateIpAddresses`, for blocks of IPv4.
    Unassign {
        /// The node.
        node: NodeName,
        /// The interface.
        eni: EniId,
        /// Its /32 and /28.
        blocks: Vec<Prefix>,
    },
    /// `DetachNetworkInterface`.
    Detach {
        /// The node.
        node: NodeName,
        /// The interface.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// `DeleteNetworkInterface`.
    Delete {
        /// The interface.
        eni: EniId,
    },
    /// `CreateSubnetCidrReservation`: a part of a subnet is kept for prefixes.
    Reserve {
        /// The subnet.
        subnet: SubnetId,
        /// The part.
        cidr: Prefix,
        /// The reservation's tags.
        tags: BTreeMap<String, String>,
    },
}

/// Which addresses of IPv4 are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// These /32 and /28.
    These(Vec<Prefix>),
    /// So many, of EC2's choice.
    Any {
        /// Single addresses.
        addresses: u16,
        /// /28.
        prefixes: u16,
    },
}

impl Addresses {
    /// Nothing.
    pub fn none() -> Self {
        Self::These(Vec::new())
    }

    /// How many addresses these are.
    pub fn count(&self) -> u32 {
        match self {
            Self::These(blocks) => blocks.iter().map(|block| 1 << (32 - u32::from(block.len()))).sum(),
            Self::Any { addresses, prefixes } => u32::from(*addresses) + 16 * u32::from(*prefixes),
        }
    }
}

/// What cannot be under way twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A call about an interface.
    Eni(EniId),
    /// The making of an interface for this card and index.
    Place(NodeName, u8, u8),
    /// A reservation in a subnet.
    Subnet(SubnetId),
}

impl Action {
    /// What it is about: of two actions with the same key one is begun when the other has ended.
    pub fn key(&self) -> Key {
        match self {
            Self::Create { node, card, device_index, .. } => Key::Place(node.clone(), *card, *device_index),
            Self::Attach { eni, .. }
            | Self::SetDeleteOnTermination { eni, .. }
            | Self::SwitchOffSourceDestCheck { eni }
            | Self::SetGroups { eni, .. }
            | Self::Assign { eni, .. }
            | Self::AssignV6 { eni, .. }
            | Self::Unassign { eni, .. }
            | Self::Detach { eni, .. }
            | Self::Delete { eni } => Key::Eni(eni.clone()),
            Self::Reserve { subnet, .. } => Key::Subnet(subnet.clone()),
        }
    }

    /// The call's name in EC2's reference, by which it is counted, paced and permitted.
    pub fn call(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CreateNetworkInterface",
            Self::Attach { .. } => "AttachNetworkInterface",
            Self::SetDeleteOnTermination { .. }
            | Self::SwitchOffSourceDestCheck { .. }
            | Self::SetGroups { .. } => "ModifyNetworkInterfaceAttribute",
            Self::Assign { .. } => "AssignPrivateIpAddresses",
            Self::AssignV6 { .. } => "AssignIpv6Addresses",
            Self::Unassign { .. } => "UnassignPrivateIpAddresses",
            Self::Detach { .. } => "DetachNetworkInterface",
            Self::Delete { .. } => "DeleteNetworkInterface",
            Self::Reserve { .. } => "CreateSubnetCidrReservation",
        }
    }

    /// The node whose pods it is for.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Create { node, .. }
            | Self::Attach { node, .. }
            | Self::Assign { node, .. }
            | Self::AssignV6 { node, .. }
            | Self::Unassign { node, .. }
            | Self::Detach { node, .. } => Some(node),
            Self::SetDeleteOnTermination { .. }
            | Self::SwitchOffSourceDestCheck { .. }
            | Self::SetGroups { .. }
            | Self::Delete { .. }
            | Self::Reserve { .. } => None,
        }
    }
}

/// How urgent a call is; the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Pods wait for it.
    Waiting,
    /// The node has less than its minimum.
    BelowMinimum,
    /// Addresses are to be ready.
    Warm,
    /// Something is given back.
    Release,
    /// Something nobody owns is removed.
    Garbage,
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// How urgent it is.
    pub priority: Priority,
    /// The call.
    pub action: Action,
}

/// What a call that succeeded gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The interface that `Create` made.
    Created(Box<Eni>),
    /// The attachment that `Attach` made.
    Attached(AttachmentId),
    /// The blocks that `Assign` or `AssignV6` gave.
    Assigned(Vec<Prefix>),
    /// The reservation that `Reserve` made.
    Reserved(ReservationId),
    /// It is done.
    Done,
}

/// Why a call did not succeed, by what there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// EC2 has no time now (`RequestLimitExceeded`): nothing happened.
    Throttled,
    /// Nobody took the request (refused connection): nothing happened.
    Unavailable,
    /// Nobody knows whether it happened (timeout, lost reply, 5xx): a look comes first.
    Unknown,
    /// The subnet has not what was asked for (`InsufficientFreeAddressesInSubnet`, `InsufficientCidrBlocks`).
    SubnetShort,
    /// What was chosen is taken (`InvalidIPAddress.InUse`, device index in use): a look, then another choice.
    Taken,
    /// The thing is not in the state that the last look showed, or is not there (`IncorrectState`, `…NotFound`, a limit
    /// of the instance or interface): a look comes first.
    Stale {
        /// The error code.
        code: String,
    },
    /// A quota of the account or VPC is used up: nobody gets any more.
    Quota {
        /// The error code.
        code: String,
    },
    /// It is not allowed, or was wrong (`UnauthorizedOperation`, `InvalidParameterValue`).
    Refused {
        /// The error code.
        code: String,
    },
}
