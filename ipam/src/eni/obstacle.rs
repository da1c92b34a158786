// SPDX-License-Identifier: Apache-2.0
//! Why a node does not get what it should have, in words for the person on call: what is so, and what would help.

use rhumb_model::{InstanceState, Prefix, SubnetId, Timestamp};

use super::room::Rooms;
use super::shape::Shape;
use super::{Code, EniPolicy, Memory, NodeFacts, Unit, Verdict};

/// What stands in the way of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    Leaving,
    State(InstanceState),
    NoSubnet,
    NoSecurityGroup,
    NoIpv6,
    NoPrefixes,
    UnknownType,
    InstanceFull,
    Exhausted { subnets: Vec<SubnetId>, again: Option<Timestamp> },
    ExhaustedV6 { subnet: SubnetId, again: Timestamp },
    Fragmented { subnets: Vec<SubnetId>, free: u32 },
    Budget { again: Option<Timestamp> },
    MaxAllocate { most: u32 },
    KubeletLimit { most: u32 },
    Backoff { until: Timestamp, last: String },
    Lost { block: Prefix },
}

impl Obstacle {
    /// What subnets lack: everything, or only whole blocks.
    pub(super) fn subnets(
        subnets: &[SubnetId],
        unit: Unit,
        memory: &Memory,
        rooms: &Rooms,
        now: Timestamp,
    ) -> Self {
        let single: u32 = subnets.iter().map(|subnet| rooms.free(subnet, Unit::Address)).sum();
        let subnets = subnets.to_vec();
        if unit == Unit::Prefix && single >= Unit::Prefix.size() {
            return Self::Fragmented { subnets, free: single };
        }
        let cooling = subnets.iter().filter(|subnet| memory.is_cooling(subnet, unit, now));
        let again = cooling.filter_map(|subnet| memory.trouble.short_until(subnet, unit)).min();
        Self::Exhausted { subnets, again }
    }

    /// Whether it is about IPv4 addresses, and over when they are found elsewhere.
    pub(super) fn is_of_addresses(&self) -> bool {
        !matches!(self, Self::NoIpv6 | Self::NoPrefixes | Self::ExhaustedV6 { .. })
    }

    /// Says it. The text changes only when what it says does: it stands in an object that others read.
    pub(super) fn verdict(&self, node: &NodeFacts, policy: &EniPolicy, shape: &Shape) -> Verdict {
        let (pool, kind, zone) = (&node.pool, &node.instance.kind, &node.instance.zone);
        let in_time = |at: &Option<Timestamp>| {
            at.map_or_else(String::new, |at| format!(" It is tried again at {}.", clock(at)))
        };
        let (code, text) = match self {
            Self::Leaving => (
                Code::Leaving,
                "The node is cordoned, or its Node object is being deleted: it is left as it is. Uncordon it (kubectl uncordon) \
                 to have it served again."
                    .to_owned(),
            ),
            Self::State(state) => (
                Code::InstanceState,
                format!(
                    "Instance {} is {}",
                    node.instance.id,
                    if state.is_final() {
                        "terminated and never comes back. Remove the Node object, so that its pods start elsewhere."
                    } else {
                        "stopped and takes no interfaces. Start it, or remove the Node object."
                    },
                ),
            ),
            Self::NoSubnet => (
                Code::NoSubnet,
                format!(
                    "No subnet that ENIPool {pool} chooses is in zone {zone} and in the instance's VPC. Add one to \
                     spec.subnets, or tag one of this zone."
                ),
            ),
            Self::NoSecurityGroup => (
                Code::NoSecurityGroup,
                format!(
                    "No security group is chosen by ENIPool {pool}. Name one in spec.securityGroups.ids, or tag one of \
                     the VPC."
                ),
            ),
            Self::NoIpv6 => (
                Code::NoIpv6,
                format!(
                    "ENIPool {pool} wants IPv6, and no subnet of the node's interfaces has a block of it. Associate a /64 with \
                     one (associate-subnet-cidr-block), choose others in spec.subnets, or set spec.ipv6: false."
                ),
            ),
            Self::NoPrefixes => (
                Code::NoPrefixes,
                format!(
                    "Instances of type {kind} cannot have prefixes (they are not of the Nitro system). Use another type, \
                     or an ENIPool with mode: addresses and ipv6: false for these nodes."
                ),
            ),
            Self::UnknownType => (
                Code::UnknownType,
                format!(
                    "Nobody knows what type {kind} allows: it is taken for the smallest, with {} interfaces of {} slots. \
                     Allow ec2:DescribeInstanceTypes in the operator's IAM policy, or use a newer rhumb.",
                    shape.interfaces, shape.slots,
                ),
            ),
            Self::InstanceFull => (
                Code::InstanceFull,
                format!(
                    "All {} interfaces of {} slots that type {kind} allows are in use. Use a larger type{}{}.",
                    shape.interfaces,
                    shape.slots,
                    if policy.unit == Some(Unit::Address) && shape.prefixes {
                        ", or mode: prefixes, which holds 16 addresses in a slot"
                    } else {
                        ""
                    },
                    if policy.first_interface_index > 0 {
                        ", or let the primary interface carry pods (firstInterfaceIndex: 0)"
                    } else {
                        ""
                    },
                ),
            ),
            Self::Exhausted { subnets, again } => (
                Code::SubnetExhausted,
                format!(
                    "{} no addresses left.{} Add a subnet of zone {zone} to spec.subnets of ENIPool {pool}, or free \
                     addresses (unused interfaces, load balancers).",
                    have(subnets),
                    in_time(again),
                ),
            ),
            Self::ExhaustedV6 { subnet, again } => (
                Code::SubnetExhausted,
                format!(
                    "Subnet {subnet} has no /80 left.{} Delete interfaces that nobody uses, or set spec.ipv6: false in \
                     ENIPool {pool}.",
                    in_time(&Some(*again)),
                ),
            ),
            Self::Fragmented { subnets, free } => (
                Code::SubnetFragmented,
                format!(
                    "{} {free} addresses left, but no whole /28 among them. Reserve a part for prefixes \
                     (create-subnet-cidr-reservation --reservation-type prefix), add a subnet of zone {zone}, or set \
                     allowAddressesInPrefixSubnets: true in ENIPool {pool}.",
                    have(subnets),
                ),
            ),
            Self::Budget { again } => (
                Code::Budget,
                format!(
                    "Interfaces made for this node within the hour: {}, which is all that ENIPool {pool} allows.{} Look for \
                     why they are needed again and again, or raise spec.interfaceBudgetPerHour.",
                    policy.interfaces_per_hour,
                    in_time(again),
                ),
            ),
            Self::MaxAllocate { most } => (
                Code::MaxAllocate,
                format!("Pods use all {most} addresses that ENIPool {pool} allows a node. Raise spec.maxAllocate, or add nodes."),
            ),
            Self::KubeletLimit { most } => (
                Code::KubeletLimit,
                format!("The kubelet takes no more than {most} pods, and they are there. Raise its maxPods, or add nodes."),
            ),
            Self::Backoff { until, last } => (
                Code::Backoff,
                format!(
                    "{last}, several times in a row: nothing is tried for this node until {}.",
                    clock(*until),
                ),
            ),
            Self::Lost { block } => (
                Code::BlockLost,
                format!(
                    "EC2 no longer holds {block}, which this node has: somebody else took it. Pods with an address of it \
                     are cut off: delete them, and find out who changes this cluster's interfaces."
                ),
            ),
        };
        Verdict { code, text }
    }
}

/// What stands in the way of every node alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum General {
    Unreachable,
    Quota { code: String },
    Refused { call: &'static str, code: String },
}

impl General {
    pub(super) fn verdict(&self) -> Verdict {
        let (code, text) = match self {
            Self::Unreachable => (
                Code::Unreachable,
                "EC2 does not answer the operator. Look at its log, at the endpoint's reachability and at the AWS health \
                 page; calls go on when it answers."
                    .to_owned(),
            ),
            Self::Quota { code } => (
                Code::Quota,
                format!(
                    "EC2 answers {code}: a quota is used up and nobody gets more. Raise it (Service Quotas: network \
                     interfaces per Region, Network Address Usage per VPC), delete unused interfaces, or use mode: \
                     prefixes, which counts one unit for 16 addresses; it is tried again within five minutes."
                ),
            ),
            Self::Refused { call, code } => (
                Code::Refused,
                format!(
                    "EC2 answers {code} to {call}. Allow ec2:{call} in the operator's IAM policy, or renew its credentials; it \
                     is tried again within a minute."
                ),
            ),
        };
        Verdict { code, text }
    }
}

/// The time of day. Nothing here is further away than an hour.
fn clock(at: Timestamp) -> String {
    let seconds = at.0.div_ceil(1000);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

fn have(subnets: &[SubnetId]) -> String {
    let names: Vec<&str> = subnets.iter().map(SubnetId::as_str).collect();
    match names.as_slice() {
        [one] => format!("Subnet {one} has"),
        several => format!("Subnets {} have", several.join(", ")),
    }
}
