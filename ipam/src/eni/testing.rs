// SPDX-License-Identifier: Apache-2.0
//! A small cluster for tests.

use std::collections::BTreeMap;

use rhumb_model::{
    Attachment, AttachmentId, AttachmentStatus, CardLimit, Eni, EniId, EniStatus, Instance, InstanceId,
    InstanceLimits, InstanceState, MacAddr, NodeName, PoolName, ReservationId, ReservationKind,
    SecurityGroupId, Subnet, SubnetId, SubnetReservation, VpcId, Zone,
};

use super::{EniPolicy, Inputs, NodeFacts, Record, Report, TAG_CLUSTER, TAG_INSTANCE, TAG_NODE};

pub(super) const CLUSTER: &str = "c1";

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("valid")
}

pub(super) fn subnet_id(name: &str) -> SubnetId {
    SubnetId::new(format!("subnet-{name}")).expect("valid")
}

pub(super) fn eni_id(name: &str) -> EniId {
    EniId::new(format!("eni-{name}")).expect("valid")
}

pub(super) fn zone() -> Zone {
    Zone::new("eu-central-1a").expect("valid")
}

pub(super) fn vpc() -> VpcId {
    VpcId::new("vpc-1").expect("valid")
}

pub(super) fn subnet(name: &str, cidr: &str) -> Subnet {
    Subnet {
        id: subnet_id(name),
        vpc: vpc(),
        zone: zone(),
        cidr: Some(cidr.parse().expect("valid")),
        cidrs_v6: Vec::new(),
        free: 200,
        tags: BTreeMap::new(),
    }
}

/// A part of subnet `a` that is kept.
pub(super) fn reservation(cidr: &str, kind: ReservationKind) -> SubnetReservation {
    let id = ReservationId::new("scr-1").expect("valid");
    SubnetReservation { id, subnet: subnet_id("a"), cidr: cidr.parse().expect("valid"), kind }
}

/// An interface that nobody has.
pub(super) fn eni(name: &str, subnet: &str, primary: &str) -> Eni {
    let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    Eni {
        id: eni_id(name),
        description: String::new(),
        mac: MacAddr::from_seed(seed),
        subnet: subnet_id(subnet),
        vpc: vpc(),
        zone: zone(),
        status: EniStatus::Available,
        attachment: None,
        primary: primary.parse().expect("valid"),
        addresses: Vec::new(),
        prefixes: Vec::new(),
        addresses_v6: Vec::new(),
        prefixes_v6: Vec::new(),
        security_groups: vec![SecurityGroupId::new("sg-1").expect("valid")],
        source_dest_check: true,
        tags: BTreeMap::new(),
        requester_managed: false,
    }
}

/// One of ours.
pub(super) fn ours(name: &str, subnet: &str, primary: &str, of: &str) -> Eni {
    let mut eni = eni(name, subnet, primary);
    let tags =
        [(TAG_CLUSTER, CLUSTER.to_owned()), (TAG_NODE, of.to_owned()), (TAG_INSTANCE, format!("i-{of}"))];
    eni.tags = tags.map(|(key, value)| (key.to_owned(), value)).into();
    eni
}

/// The interface, attached to the node's instance.
pub(super) fn attached(mut eni: Eni, of: &str, device_index: u8) -> Eni {
    eni.status = EniStatus::InUse;
    eni.attachment = Some(Attachment {
        id: AttachmentId::new(format!("eni-attach-{}", &eni.id.as_str()[4..])).expect("valid"),
        instance: Some(instance_id(of)),
        device_index,
        card: 0,
        status: AttachmentStatus::Attached,
        delete_on_termination: true,
    });
    eni
}

pub(super) fn instance_id(of: &str) -> InstanceId {
    InstanceId::new(format!("i-{of}")).expect("valid")
}

pub(super) fn m5_large() -> InstanceLimits {
    InstanceLimits {
        interfaces: 3,
        v4_per_interface: 10,
        v6_per_interface: 10,
        cards: vec![CardLimit { card: 0, interfaces: 3 }],
        prefixes: true,
        vcpus: 2,
    }
}

pub(super) fn facts(name: &str, limits: InstanceLimits) -> NodeFacts {
    let instance = Instance {
        id: instance_id(name),
        kind: "m5.large".to_owned(),
        zone: zone(),
        vpc: Some(vpc()),
        subnet: Some(subnet_id("a")),
        state: InstanceState::Running,
        tags: BTreeMap::new(),
    };
    NodeFacts {
        pool: pool(),
        instance,
        limits: Some(limits),
        kubelet_pods: None,
        leaving: false,
        scheduled: 0,
        record: Record::default(),
        report: None,
    }
}

pub(super) fn pool() -> PoolName {
    PoolName::new("vpc").expect("valid")
}

pub(super) fn report(used: u32, cooling: u32, pending: u32) -> Report {
    Report { used, cooling, pending, ..Report::default() }
}

pub(super) fn inputs<const N: usize>(policy: EniPolicy, nodes: [(&str, NodeFacts); N]) -> Inputs {
    let nodes = nodes.map(|(name, facts)| (node(name), facts));
    Inputs {
        cluster: CLUSTER.to_owned(),
        pools: [(pool(), policy)].into(),
        nodes: nodes.into(),
        ..Inputs::default()
    }
}
