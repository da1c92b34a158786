// SPDX-License-Identifier: Apache-2.0
//! What a cloud has: instances, network interfaces and subnets, in the words of EC2.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::names::name;
use crate::{MacAddr, Prefix};

/// `prefix`, then 1 to 40 lower-case letters or digits: EC2 uses 8 or 17 hexadecimal digits.
fn is_id(value: &str, prefix: &str) -> bool {
    value.strip_prefix(prefix).is_some_and(|rest| {
        (1..=40).contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    })
}

name!(
    /// Id of a network interface.
    EniId,
    "network interface id",
    "'eni-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "eni-")
);

name!(
    /// Id of the attachment of a network interface to an instance.
    AttachmentId,
    "attachment id",
    "'eni-attach-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "eni-attach-")
);

name!(
    /// Id of a subnet.
    SubnetId,
    "subnet id",
    "'subnet-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "subnet-")
);

name!(
    /// Id of a VPC.
    VpcId,
    "VPC id",
    "'vpc-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "vpc-")
);

name!(
    /// Id of an instance.
    InstanceId,
    "instance id",
    "'i-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "i-")
);

name!(
    /// Id of a security group.
    SecurityGroupId,
    "security group id",
    "'sg-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "sg-")
);

name!(
    /// Id of a subnet CIDR reservation.
    ReservationId,
    "subnet CIDR reservation id",
    "'scr-', then 1 to 40 lower-case letters or digits",
    |value| is_id(value, "scr-")
);

name!(
    /// Name of an availability zone, for example `eu-central-1a`.
    Zone,
    "availability zone",
    "1 to 40 lower-case letters, digits or '-'",
    |value| {
        (1..=40).contains(&value.len())
            && value.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    }
);

/// A network interface as `DescribeNetworkInterfaces` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// Free text that its maker gave.
    #[serde(default)]
    pub description: String,
    /// Its MAC address, the same for as long as it lives.
    pub mac: MacAddr,
    /// The subnet that all its addresses are of.
    pub subnet: SubnetId,
    /// The VPC of that subnet.
    pub vpc: VpcId,
    /// The zone of that subnet: only instances of this zone can have it.
    pub zone: Zone,
    /// Where it stands between created and deleted.
    pub status: EniStatus,
    /// Whose it is; `None` when nobody's.
    #[serde(default)]
    pub attachment: Option<Attachment>,
    /// Its first address, which it keeps for life. Takes one slot.
    pub primary: Ipv4Addr,
    /// Further addresses, one slot each; the primary one is not among them.
    #[serde(default)]
    pub addresses: Vec<Ipv4Addr>,
    /// Blocks of 16 addresses (`/28`), one slot each.
    #[serde(default)]
    pub prefixes: Vec<Prefix>,
    /// IPv6 addresses.
    #[serde(default)]
    pub addresses_v6: Vec<Ipv6Addr>,
    /// IPv6 blocks (`/80`).
    #[serde(default)]
    pub prefixes_v6: Vec<Prefix>,
    /// Its security groups.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether the VPC drops packets that carry neither as source nor as destination one of its addresses.
    pub source_dest_check: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether a service of the cloud made it and looks after it.
    #[serde(default)]
    pub requester_managed: bool,
}

impl Eni {
    /// Slots of IPv4 in use: one each for the primary address, every further one, and every `/28`.
    pub fn slots_v4(&self) -> usize {
        1 + self.addresses.len() + self.prefixes.len()
    }

    /// Slots of IPv6 in use: one for every address and every `/80`.
    pub fn slots_v6(&self) -> usize {
        self.addresses_v6.len() + self.prefixes_v6.len()
    }
}

/// Where a network interface stands (`NetworkInterfaceStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EniStatus {
    /// Nobody has it: it can be attached or deleted.
    Available,
    /// A service of the cloud holds it.
    Associated,
    /// On its way to an instance.
    Attaching,
    /// An instance has it.
    InUse,
    /// On its way from an instance.
    Detaching,
}

/// That an instance has a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Its id, needed to detach and to change it.
    pub id: AttachmentId,
    /// The instance; `None` when a service of the cloud has the interface.
    #[serde(default)]
    pub instance: Option<InstanceId>,
    /// Position on its card; 0 is the instance's first interface.
    pub device_index: u8,
    /// The network card, 0 on most instances.
    #[serde(default)]
    pub card: u8,
    /// How far it is.
    pub status: AttachmentStatus,
    /// Whether the interface goes with the instance.
    pub delete_on_termination: bool,
}

/// How far an attachment is (`AttachmentStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentStatus {
    /// Not yet there.
    Attaching,
    /// There.
    Attached,
    /// Not yet gone.
    Detaching,
    /// Gone.
    Detached,
}

/// A subnet as `DescribeSubnets` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub zone: Zone,
    /// Its IPv4 block; `None` for a subnet of IPv6 alone.
    #[serde(default)]
    pub cidr: Option<Prefix>,
    /// Its IPv6 blocks.
    #[serde(default)]
    pub cidrs_v6: Vec<Prefix>,
    /// IPv4 addresses that nobody has; what is reserved for prefixes is not counted.
    pub free: u32,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A part of a subnet that is kept, as `GetSubnetCidrReservations` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetReservation {
    /// Its id.
    pub id: ReservationId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The part.
    pub cidr: Prefix,
    /// For what.
    pub kind: ReservationKind,
}

/// For what a part of a subnet is kept (`SubnetCidrReservationType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservationKind {
    /// Prefixes come from here first, and no single address unless it is named.
    Prefix,
    /// Nothing comes from here unless it is named.
    Explicit,
}

/// An instance as `DescribeInstances` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its type, for example `m5.large`.
    pub kind: String,
    /// Its zone.
    pub zone: Zone,
    /// The VPC of its first interface; `None` once it is terminated.
    #[serde(default)]
    pub vpc: Option<VpcId>,
    /// The subnet of its first interface; `None` once it is terminated.
    #[serde(default)]
    pub subnet: Option<SubnetId>,
    /// Where it stands.
    pub state: InstanceState,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Where an instance stands (`InstanceStateName`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Starting.
    Pending,
    /// Running.
    Running,
    /// On its way to be terminated.
    ShuttingDown,
    /// Gone for good, though still shown for about an hour.
    Terminated,
    /// On its way to be stopped.
    Stopping,
    /// Stopped; it can be started again.
    Stopped,
}

impl InstanceState {
    /// Whether interfaces may be attached to it: it runs, or is about to.
    pub fn takes_interfaces(self) -> bool {
        match self {
            Self::Pending | Self::Running => true,
            Self::ShuttingDown | Self::Terminated | Self::Stopping | Self::Stopped => false,
        }
    }

    /// Whether it will never run again.
    pub fn is_final(self) -> bool {
        match self {
            Self::ShuttingDown | Self::Terminated => true,
            Self::Pending | Self::Running | Self::Stopping | Self::Stopped => false,
        }
    }
}

/// What an instance of a type can have (`DescribeInstanceTypes`, `NetworkInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceLimits {
    /// Interfaces on all cards together.
    pub interfaces: u8,
    /// Slots of IPv4 of one interface, the one of its primary address included. A slot holds an address or a `/28`.
    pub v4_per_interface: u16,
    /// Slots of IPv6 of one interface. A slot holds an address or a `/80`.
    pub v6_per_interface: u16,
    /// The network cards by index; never empty.
    pub cards: Vec<CardLimit>,
    /// Whether interfaces can have prefixes: instances on Nitro can.
    pub prefixes: bool,
    /// Virtual processors, by which EKS caps the number of pods.
    pub vcpus: u16,
}

/// How many interfaces a network card takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CardLimit {
    /// Index of the card.
    pub card: u8,
    /// Interfaces on it.
    pub interfaces: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_begin_with_their_kind() {
        assert!(EniId::new("eni-0123456789abcdef0").is_ok());
        assert!(AttachmentId::new("eni-attach-0a1b2c3d").is_ok());
        for bad in ["", "eni-", "eni-attach-0a", "i-0a", "eni-0A", "eni-0a "] {
            assert!(EniId::new(bad).is_err(), "{bad}");
        }
        assert!(InstanceId::new("i-0a").is_ok() && SubnetId::new("subnet-0a").is_ok());
        assert!(VpcId::new("vpc-0a").is_ok() && SecurityGroupId::new("sg-0a").is_ok());
        assert!(ReservationId::new("scr-0a").is_ok() && ReservationId::new("sg-0a").is_err());
    }

    #[test]
    fn zones_are_those_of_regions_and_of_cities() {
        for good in ["eu-central-1a", "us-west-2-lax-1a", "use1-az4"] {
            assert!(Zone::new(good).is_ok(), "{good}");
        }
        for bad in ["", "EU", "eu central"] {
            assert!(Zone::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_instance_on_its_way_out_takes_nothing() {
        assert!(InstanceState::Pending.takes_interfaces() && InstanceState::Running.takes_interfaces());
        assert!(!InstanceState::Stopped.takes_interfaces() && !InstanceState::Stopped.is_final());
        assert!(InstanceState::ShuttingDown.is_final() && InstanceState::Terminated.is_final());
    }
}
