// SPDX-License-Identifier: Apache-2.0

use std::fmt;

/// The requests that rhumb makes, one per EC2 action: each has an allowance of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `DescribeInstances`
    DescribeInstances,
    /// `DescribeNetworkInterfaces`
    DescribeNetworkInterfaces,
    /// `DescribeSubnets`
    DescribeSubnets,
    /// `DescribeSecurityGroups`
    DescribeSecurityGroups,
    /// `DescribeVpcs`
    DescribeVpcs,
    /// `DescribeInstanceTypes`
    DescribeInstanceTypes,
    /// `GetSubnetCidrReservations`
    GetSubnetCidrReservations,
    /// `CreateNetworkInterface`
    CreateNetworkInterface,
    /// `AttachNetworkInterface`
    AttachNetworkInterface,
    /// `DetachNetworkInterface`
    DetachNetworkInterface,
    /// `DeleteNetworkInterface`
    DeleteNetworkInterface,
    /// `ModifyNetworkInterfaceAttribute`
    ModifyNetworkInterfaceAttribute,
    /// `AssignPrivateIpAddresses`
    AssignPrivateIpAddresses,
    /// `UnassignPrivateIpAddresses`
    UnassignPrivateIpAddresses,
    /// `AssignIpv6Addresses`
    AssignIpv6Addresses,
    /// `CreateSubnetCidrReservation`
    CreateSubnetCidrReservation,
}

/// How often an action may be asked for: a bucket that holds `capacity` requests and gains `per_second`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests at once.
    pub capacity: f64,
    /// Requests per second in the long run.
    pub per_second: f64,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 16] = [
        Self::DescribeInstances,
        Self::DescribeNetworkInterfaces,
        Self::DescribeSubnets,
        Self::DescribeSecurityGroups,
        Self::DescribeVpcs,
        Self::DescribeInstanceTypes,
        Self::GetSubnetCidrReservations,
        Self::CreateNetworkInterface,
        Self::AttachNetworkInterface,
        Self::DetachNetworkInterface,
        Self::DeleteNetworkInterface,
        Self::ModifyNetworkInterfaceAttribute,
        Self::AssignPrivateIpAddresses,
        Self::UnassignPrivateIpAddresses,
        Self::AssignIpv6Addresses,
        Self::CreateSubnetCidrReservation,
    ];

    /// The action as EC2 and IAM call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DescribeInstances => "DescribeInstances",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSubnets => "DescribeSubnets",
            Self::DescribeSecurityGroups => "DescribeSecurityGroups",
            Self::DescribeVpcs => "DescribeVpcs",
            Self::DescribeInstanceTypes => "DescribeInstanceTypes",
            Self::GetSubnetCidrReservations => "GetSubnetCidrReservations",
            Self::CreateNetworkInterface => "CreateNetworkInterface",
            Self::AttachNetworkInterface => "AttachNetworkInterface",
            Self::DetachNetworkInterface => "DetachNetworkInterface",
            Self::DeleteNetworkInterface => "DeleteNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses => "UnassignPrivateIpAddresses",
            Self::AssignIpv6Addresses => "AssignIpv6Addresses",
            Self::CreateSubnetCidrReservation => "CreateSubnetCidrReservation",
        }
    }

    /// What EC2 allows an account in one Region, as its guide has it (Request throttling for the Amazon EC2 API):
    /// reading with a filter 100 and 20 a second, changing 50 and 5, and some actions by their own numbers.
    pub fn published(self) -> Rate {
        let (capacity, per_second) = match self {
            Self::DescribeInstances
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSubnets
            | Self::DescribeSecurityGroups
            | Self::DescribeVpcs
            | Self::DescribeInstanceTypes
            | Self::GetSubnetCidrReservations => (100.0, 20.0),
            Self::CreateNetworkInterface
            | Self::DeleteNetworkInterface
            | Self::AssignPrivateIpAddresses
            | Self::UnassignPrivateIpAddresses
            | Self::AssignIpv6Addresses
            | Self::ModifyNetworkInterfaceAttribute => (100.0, 5.0),
            Self::AttachNetworkInterface | Self::DetachNetworkInterface => (50.0, 5.0),
            Self::CreateSubnetCidrReservation => (5.0, 1.0),
        };
        Rate { capacity, per_second }
    }

    /// Whether asking twice does no more than asking once: reading, setting to a value, taking away what is named,
    /// and `CreateNetworkInterface` by its client token. After a lost answer such a request may simply be repeated.
    pub fn is_idempotent(self) -> bool {
        match self {
            Self::DescribeInstances
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSubnets
            | Self::DescribeSecurityGroups
            | Self::DescribeVpcs
            | Self::DescribeInstanceTypes
            | Self::GetSubnetCidrReservations
            | Self::CreateNetworkInterface
            | Self::DeleteNetworkInterface
            | Self::ModifyNetworkInterfaceAttribute => true,
            Self::AttachNetworkInterface
            | Self::DetachNetworkInterface
            | Self::AssignPrivateIpAddresses
            | Self::UnassignPrivateIpAddresses
            | Self::AssignIpv6Addresses
            | Self::CreateSubnetCidrReservation => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_stands_once_in_the_list_of_all() {
        let mut sorted = Action::ALL.to_vec();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), Action::ALL.len());
        assert_eq!(sorted.last(), Some(&Action::CreateSubnetCidrReservation));
    }

    #[test]
    fn names_are_those_of_the_variants() {
        for action in Action::ALL {
            assert_eq!(action.name(), format!("{action:?}"));
        }
    }

    #[test]
    fn attaching_is_the_narrowest_of_what_every_node_needs() {
        assert_eq!(Action::AttachNetworkInterface.published(), Rate { capacity: 50.0, per_second: 5.0 });
        assert_eq!(Action::CreateSubnetCidrReservation.published(), Rate { capacity: 5.0, per_second: 1.0 });
    }
}
