// SPDX-License-Identifier: Apache-2.0
//! The SDK's types to ours. `None`: something that every such thing has is missing or malformed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use aws_sdk_ec2::types;
use rhumb_cloud::{Assigned, SecurityGroup, Vpc};
use rhumb_model::{
    Attachment, AttachmentStatus, CardLimit, Eni, EniStatus, Instance, InstanceLimits, InstanceState, Prefix,
    ReservationKind, Subnet, SubnetReservation,
};

/// Interfaces without an IPv4 address are left out: those of subnets of IPv6 alone.
pub(crate) fn eni(eni: &types::NetworkInterface) -> Option<Eni> {
    let primary: Ipv4Addr = read(eni.private_ip_address())?;
    let addresses = eni.private_ip_addresses().iter();
    let addresses = addresses.filter_map(|address| read(address.private_ip_address()));
    Some(Eni {
        id: read(eni.network_interface_id())?,
        description: eni.description().unwrap_or_default().to_owned(),
        mac: read(eni.mac_address())?,
        subnet: read(eni.subnet_id())?,
        vpc: read(eni.vpc_id())?,
        zone: read(eni.availability_zone())?,
        status: eni_status(eni.status()),
        attachment: eni.attachment().and_then(attachment),
        primary,
        addresses: addresses.filter(|address| *address != primary).collect(),
        prefixes: eni.ipv4_prefixes().iter().filter_map(|prefix| read(prefix.ipv4_prefix())).collect(),
        addresses_v6: eni.ipv6_addresses().iter().filter_map(|one| read(one.ipv6_address())).collect(),
        prefixes_v6: eni.ipv6_prefixes().iter().filter_map(|prefix| read(prefix.ipv6_prefix())).collect(),
        security_groups: eni.groups().iter().filter_map(|group| read(group.group_id())).collect(),
        source_dest_check: eni.source_dest_check().unwrap_or(true),
        tags: tags(eni.tag_set()),
        requester_managed: eni.requester_managed().unwrap_or(false),
    })
}

/// A state that is newer than this code is one in which the interface is not ours to touch.
fn eni_status(status: Option<&types::NetworkInterfaceStatus>) -> EniStatus {
    match status {
        Some(types::NetworkInterfaceStatus::Available) => EniStatus::Available,
        Some(types::NetworkInterfaceStatus::Attaching) => EniStatus::Attaching,
        Some(types::NetworkInterfaceStatus::InUse) => EniStatus::InUse,
        Some(types::NetworkInterfaceStatus::Detaching) => EniStatus::Detaching,
        // EC2 answers `pending` to the call that makes an interface: nobody has it yet.
        Some(other) if other.as_str() == "pending" => EniStatus::Available,
        _ => EniStatus::Associated,
    }
}

fn attachment(attachment: &types::NetworkInterfaceAttachment) -> Option<Attachment> {
    Some(Attachment {
        id: read(attachment.attachment_id())?,
        instance: read(attachment.instance_id()),
        device_index: number(attachment.device_index())?,
        card: attachment.network_card_index().map_or(Some(0), |card| number(Some(card)))?,
        status: match attachment.status() {
            Some(types::AttachmentStatus::Attached) => AttachmentStatus::Attached,
            Some(types::AttachmentStatus::Detaching) => AttachmentStatus::Detaching,
            Some(types::AttachmentStatus::Detached) => AttachmentStatus::Detached,
            _ => AttachmentStatus::Attaching,
        },
        delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
    })
}

pub(crate) fn instance(instance: &types::Instance) -> Option<Instance> {
    let state = instance.state().and_then(|state| state.name());
    Some(Instance {
        id: read(instance.instance_id())?,
        kind: instance.instance_type()?.as_str().to_owned(),
        zone: read(instance.placement()?.availability_zone())?,
        vpc: read(instance.vpc_id()),
        subnet: read(instance.subnet_id()),
        // By text: a state that is newer than this code is one that the instance passes through.
        state: match state?.as_str() {
            "running" => InstanceState::Running,
            "shutting-down" => InstanceState::ShuttingDown,
            "terminated" => InstanceState::Terminated,
            "stopping" => InstanceState::Stopping,
            "stopped" => InstanceState::Stopped,
            _ => InstanceState::Pending,
        },
        tags: tags(instance.tags()),
    })
}

pub(crate) fn subnet(subnet: &types::Subnet) -> Option<Subnet> {
    let v6 = subnet.ipv6_cidr_block_association_set().iter();
    let v6 = v6.filter(|block| {
        let state = block.ipv6_cidr_block_state().and_then(|state| state.state());
        state == Some(&types::SubnetCidrBlockStateCode::Associated)
    });
    Some(Subnet {
        id: read(subnet.subnet_id())?,
        vpc: read(subnet.vpc_id())?,
        zone: read(subnet.availability_zone())?,
        cidr: read(subnet.cidr_block()),
        cidrs_v6: v6.filter_map(|block| read(block.ipv6_cidr_block())).collect(),
        free: subnet.available_ip_address_count().and_then(|free| u32::try_from(free).ok()).unwrap_or(0),
        tags: tags(subnet.tags()),
    })
}

pub(crate) fn security_group(group: &types::SecurityGroup) -> Option<SecurityGroup> {
    Some(SecurityGroup {
        id: read(group.group_id())?,
        vpc: read(group.vpc_id()),
        name: group.group_name().unwrap_or_default().to_owned(),
        tags: tags(group.tags()),
    })
}

pub(crate) fn vpc(vpc: &types::Vpc) -> Option<Vpc> {
    let v4 = vpc.cidr_block_association_set().iter();
    let v4 = v4.filter(|block| is_associated(block.cidr_block_state()));
    let mut cidrs: Vec<Prefix> = v4.filter_map(|block| read(block.cidr_block())).collect();
    cidrs.extend(read::<Prefix>(vpc.cidr_block()));
    cidrs.sort();
    cidrs.dedup();
    let v6 = vpc.ipv6_cidr_block_association_set().iter();
    let v6 = v6.filter(|block| is_associated(block.ipv6_cidr_block_state()));
    Some(Vpc {
        id: read(vpc.vpc_id())?,
        cidrs,
        cidrs_v6: v6.filter_map(|block| read(block.ipv6_cidr_block())).collect(),
    })
}

/// EC2 shows a block for a while after it was taken away or could not be given.
fn is_associated(state: Option<&types::VpcCidrBlockState>) -> bool {
    state.and_then(|state| state.state()) == Some(&types::VpcCidrBlockStateCode::Associated)
}

pub(crate) fn limits(info: &types::InstanceTypeInfo) -> Option<(String, InstanceLimits)> {
    let network = info.network_info()?;
    let interfaces = number(network.maximum_network_interfaces())?;
    let mut cards: Vec<CardLimit> = network
        .network_cards()
        .iter()
        .filter_map(|card| {
            let interfaces = number(card.maximum_network_interfaces())?;
            Some(CardLimit { card: number(card.network_card_index())?, interfaces })
        })
        .collect();
    if cards.is_empty() {
        cards.push(CardLimit { card: 0, interfaces });
    }
    let nitro = info.hypervisor() == Some(&types::InstanceTypeHypervisor::Nitro);
    let limits = InstanceLimits {
        interfaces,
        v4_per_interface: number(network.ipv4_addresses_per_interface())?,
        v6_per_interface: network.ipv6_addresses_per_interface().and_then(|v6| number(Some(v6))).unwrap_or(0),
        cards,
        prefixes: nitro || info.bare_metal() == Some(true),
        vcpus: info.v_cpu_info().and_then(|cpus| number(cpus.default_v_cpus())).unwrap_or(1),
    };
    Some((info.instance_type()?.as_str().to_owned(), limits))
}

pub(crate) fn reservation(reservation: &types::SubnetCidrReservation) -> Option<SubnetReservation> {
    Some(SubnetReservation {
        id: read(reservation.subnet_cidr_reservation_id())?,
        subnet: read(reservation.subnet_id())?,
        cidr: read(reservation.cidr())?,
        kind: if *reservation.reservation_type()? == types::SubnetCidrReservationType::Prefix {
            ReservationKind::Prefix
        } else {
            ReservationKind::Explicit
        },
    })
}

pub(crate) fn assigned_v4(
    addresses: &[types::AssignedPrivateIpAddress],
    prefixes: &[types::Ipv4PrefixSpecification],
) -> Assigned {
    Assigned {
        addresses: addresses.iter().filter_map(|one| read(one.private_ip_address())).collect(),
        prefixes: prefixes.iter().filter_map(|prefix| read(prefix.ipv4_prefix())).collect(),
        ..Assigned::default()
    }
}

pub(crate) fn assigned_v6(prefixes: &[String]) -> Assigned {
    Assigned {
        prefixes_v6: prefixes.iter().filter_map(|text| read(Some(text))).collect(),
        ..Assigned::default()
    }
}

/// Texts of addresses and prefixes, as requests have them.
pub(crate) fn texts<T: ToString>(values: &[T]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.iter().map(T::to_string).collect())
}

/// Addresses of both kinds as one kind of texts.
pub(crate) fn addresses<T: Copy + Into<IpAddr>>(values: &[T]) -> Option<Vec<String>> {
    texts(&values.iter().map(|value| (*value).into()).collect::<Vec<IpAddr>>())
}

pub(crate) fn sdk_tags(tags: &BTreeMap<String, String>) -> Vec<types::Tag> {
    tags.iter().map(|(key, value)| types::Tag::builder().key(key).value(value).build()).collect()
}

fn tags(tags: &[types::Tag]) -> BTreeMap<String, String> {
    let pair = |tag: &types::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

fn read<T: FromStr>(text: Option<&str>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}

fn number<T: TryFrom<i32>>(value: Option<i32>) -> Option<T> {
    value.and_then(|value| T::try_from(value).ok())
}
