// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, Ipv6Addr};

use rhumb_model::{EniId, Family, InstanceId, MacAddr, NodeName, PoolName, Prefix, Zone};
use serde::{Deserialize, Serialize};

use crate::own::{named, own_kind};
use crate::pod_pool::overlap;
use crate::{FieldError, ObjectMeta};

/// What the operator decided for a node. Written by the operator only; its name is the node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeConfig {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What was decided.
    pub spec: NodeConfigSpec,
}

own_kind!(NodeConfig, "nodeconfigs", spec: NodeConfigSpec);

/// What the operator decided for a node.
///
/// A program writes it, and agents of an older version read it: fields that are not known are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeConfigSpec {
    /// Blocks from which the node's agent leases addresses; they do not overlap.
    #[serde(default, rename = "podCIDRs")]
    pub pod_cidrs: Vec<PodCidr>,
    /// The instance's network interfaces, where pods get addresses of the VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniConfig>,
    /// Why the operator can do nothing for the node's interfaces although an ENIPool chooses it; `None` when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved: Option<EniWaiting>,
}

/// A block of pod addresses that belongs to a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodCidr {
    /// The pool that it was carved from.
    pub pool: PoolName,
    /// The block.
    pub cidr: Prefix,
    /// The interface that has the block; it is one of [`EniConfig::interfaces`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<EniId>,
    /// Set while the operator wants the block back: the agent leases nothing more from it, and answers this number in
    /// [`crate::NodeStateStatus::released`] or [`crate::NodeStateStatus::declined`]. It is the
    /// [`EniConfig::generation`] of the change that set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releasing: Option<u64>,
    /// The agent let the block go, and EC2 is asked to take it: there is no way back any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unassigning: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the operator knows of the instance's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EniConfig {
    /// The instance.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Grows by one with every change of `podCIDRs` or of this part, and begins with the time in milliseconds, so that an
    /// object that is made anew is newer than any before. The agent passes over one whose number is lower than one that
    /// it has seen.
    #[serde(default)]
    pub generation: u64,
    /// The attached interfaces that rhumb looks after, by device index.
    #[serde(default)]
    pub interfaces: Vec<EniInterface>,
    /// Blocks of the VPC: their packets keep the pod's address.
    #[serde(default, rename = "vpcCIDRs")]
    pub vpc_cidrs: Vec<Prefix>,
    /// Whether the node translates the source of packets that leave the VPC.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// How many pods the node can have addresses for: of its instance type, of what was asked, and of its kubelet the
    /// least.
    #[serde(default)]
    pub max_pods: u32,
    /// Families of which every pod gets an address: it waits for the one that the node has no block of yet. Without it,
    /// those of which the node has blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Family>,
    /// Seconds for which an address that a pod had is given to no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down_seconds: Option<u32>,
    /// Why the node has not the addresses that it should have; `None` when it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<EniWaiting>,
}

fn yes() -> bool {
    true
}

/// An attached interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EniInterface {
    /// Its id.
    pub id: EniId,
    /// Its permanent address, by which the agent finds the link.
    pub mac: MacAddr,
    /// Its place on the card.
    pub device_index: u8,
    /// The network card.
    #[serde(default)]
    pub card: u8,
    /// The subnet's IPv4 block.
    #[serde(default, rename = "subnetCIDR", skip_serializing_if = "Option::is_none")]
    pub subnet_cidr: Option<Prefix>,
    /// The subnet's IPv6 blocks.
    #[serde(default, rename = "subnetCIDRsV6", skip_serializing_if = "Vec::is_empty")]
    pub subnet_cidrs_v6: Vec<Prefix>,
    /// The router: the second address of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// The IPv6 router: `fe80:ec2::1` on every subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_v6: Option<Ipv6Addr>,
    /// Its primary address.
    pub primary: Ipv4Addr,
    /// Its first IPv6 address that is no part of a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_v6: Option<Ipv6Addr>,
    /// MTU in bytes, where it is not to be that of the node's first link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it carries pods.
    #[serde(default)]
    pub pods: bool,
}

/// Why a node has not the addresses that it should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EniWaiting {
    /// For programs: one word, for example `SubnetExhausted`.
    pub code: String,
    /// For people: what is so, and what would help.
    pub message: String,
}

impl PodCidr {
    /// A block that no interface has.
    pub fn new(pool: PoolName, cidr: Prefix) -> Self {
        Self { pool, cidr, interface: None, releasing: None, unassigning: false }
    }
}

impl NodeConfig {
    /// What is decided for this node.
    pub fn new(node: &NodeName, spec: NodeConfigSpec) -> Self {
        Self { metadata: named(node.as_str()), spec }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let blocks = &self.spec.pod_cidrs;
        for (i, block) in blocks.iter().enumerate() {
            if let Some(other) = blocks[..i].iter().find(|other| overlap(other.cidr, block.cidr)) {
                let message = format!("{} overlaps {}", block.cidr, other.cidr);
                return Err(FieldError::new(format!("spec.podCIDRs[{i}].cidr"), message));
            }
            self.check_interface(i, block)?;
        }
        self.spec.eni.as_ref().map_or(Ok(()), EniConfig::check)
    }

    /// A block names an interface that is there, and only such a block is handed back.
    fn check_interface(&self, i: usize, block: &PodCidr) -> Result<(), FieldError> {
        let wrong =
            |field: &str, message| Err(FieldError::new(format!("spec.podCIDRs[{i}].{field}"), message));
        let Some(interface) = &block.interface else {
            if block.releasing.is_some() {
                return wrong("releasing", "only a block of an interface is handed back".to_owned());
            }
            if block.unassigning {
                return wrong("unassigning", "only a block of an interface is unassigned".to_owned());
            }
            return Ok(());
        };
        let interfaces = self.spec.eni.iter().flat_map(|eni| &eni.interfaces);
        if !interfaces.into_iter().any(|known| known.id == *interface) {
            return wrong("interface", format!("{interface} is not in spec.eni.interfaces"));
        }
        if block.unassigning && block.releasing.is_none() {
            return wrong("unassigning", "want releasing with it".to_owned());
        }
        Ok(())
    }
}

impl EniConfig {
    fn check(&self) -> Result<(), FieldError> {
        for (i, interface) in self.interfaces.iter().enumerate() {
            let field = |name: &str| format!("spec.eni.interfaces[{i}].{name}");
            let place = |it: &EniInterface| (it.card, it.device_index);
            for other in &self.interfaces[..i] {
                let name = if other.id == interface.id {
                    "id"
                } else if other.mac == interface.mac {
                    "mac"
                } else if place(other) == place(interface) {
                    "deviceIndex"
                } else {
                    continue;
                };
                return Err(FieldError::new(field(name), format!("{} has the same", other.id)));
            }
            let families = [
                ("subnetCIDR", Family::V4, interface.subnet_cidr.as_slice()),
                ("subnetCIDRsV6", Family::V6, interface.subnet_cidrs_v6.as_slice()),
            ];
            for (name, family, cidrs) in families {
                if let Some(cidr) = cidrs.iter().find(|cidr| cidr.family() != family) {
                    return Err(FieldError::new(field(name), format!("{cidr} is no {family} block")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn block(cidr: &str) -> PodCidr {
        PodCidr::new(PoolName::new("default").expect("valid"), cidr.parse().expect("valid"))
    }

    fn node() -> NodeName {
        NodeName::new("node-1").expect("valid")
    }

    #[test]
    fn blocks_of_a_node_do_not_overlap() {
        let good = NodeConfigSpec {
            pod_cidrs: vec![block("10.42.1.0/24"), block("fd00::/120")],
            ..Default::default()
        };
        assert_eq!(NodeConfig::new(&node(), good.clone()).validate(), Ok(()));
        let mut bad = good;
        bad.pod_cidrs.push(block("10.42.0.0/16"));
        let error = NodeConfig::new(&node(), bad).validate().expect_err("overlap");
        assert_eq!(error.to_string(), "spec.podCIDRs[2].cidr: 10.42.0.0/16 overlaps 10.42.1.0/24");
    }

    #[test]
    fn a_file_from_before_interfaces_is_read_and_written_as_it_was() {
        let text = r#"{"podCIDRs":[{"pool":"default","cidr":"10.42.1.0/24"}]}"#;
        let spec: NodeConfigSpec = serde_json::from_str(text).expect("valid");
        assert_eq!(spec.pod_cidrs, [block("10.42.1.0/24")]);
        assert_eq!(serde_json::to_string(&spec).expect("written"), text);
    }

    fn with_interfaces() -> NodeConfigSpec {
        let text = r#"{
            "podCIDRs": [{"pool": "vpc", "cidr": "10.0.0.16/28", "interface": "eni-0123456789abcdef0", "releasing": 7}],
            "eni": {"instance": "i-0123456789abcdef0", "zone": "eu-central-1a", "generation": 7, "maxPods": 29,
              "vpcCIDRs": ["10.0.0.0/16"],
              "waiting": {"code": "SubnetExhausted", "message": "no addresses"},
              "interfaces": [
                {"id": "eni-0123456789abcdef0", "mac": "02:00:00:00:00:01", "deviceIndex": 0, "primary": "10.0.0.5",
                 "subnetCIDR": "10.0.0.0/24", "gateway": "10.0.0.1", "pods": true},
                {"id": "eni-0123456789abcdef1", "mac": "02:00:00:00:00:02", "deviceIndex": 1, "primary": "10.0.0.6"}
              ]}}"#;
        serde_json::from_str(text).expect("valid")
    }

    #[test]
    fn blocks_of_interfaces_survive_their_text_form() {
        let spec = with_interfaces();
        assert_eq!(NodeConfig::new(&node(), spec.clone()).validate(), Ok(()));
        assert!(spec.eni.as_ref().is_some_and(|eni| eni.masquerade), "unless it is said otherwise");
        let text = serde_json::to_string(&spec).expect("written");
        assert_eq!(serde_json::from_str::<NodeConfigSpec>(&text).expect("read again"), spec);
    }

    #[test]
    fn every_wrong_field_of_interfaces_is_named() {
        type Change = fn(&mut NodeConfigSpec);
        fn second(spec: &mut NodeConfigSpec) -> &mut EniInterface {
            &mut spec.eni.as_mut().expect("set").interfaces[1]
        }
        let cases: [(&str, Change); 9] = [
            ("spec.podCIDRs[0].interface", |spec| spec.eni = None),
            ("spec.podCIDRs[0].releasing", |spec| spec.pod_cidrs[0].interface = None),
            ("spec.podCIDRs[0].unassigning", |spec| {
                spec.pod_cidrs[0] = PodCidr { unassigning: true, ..block("10.0.0.16/28") };
            }),
            ("spec.podCIDRs[0].unassigning", |spec| {
                spec.pod_cidrs[0].releasing = None;
                spec.pod_cidrs[0].unassigning = true;
            }),
            ("spec.eni.interfaces[1].id", |spec| {
                second(spec).id = EniId::new("eni-0123456789abcdef0").expect("valid");
            }),
            ("spec.eni.interfaces[1].mac", |spec| {
                second(spec).mac = "02:00:00:00:00:01".parse().expect("valid");
            }),
            ("spec.eni.interfaces[1].deviceIndex", |spec| second(spec).device_index = 0),
            ("spec.eni.interfaces[1].subnetCIDR", |spec| {
                second(spec).subnet_cidr = Some("fd00::/64".parse().expect("valid"));
            }),
            ("spec.eni.interfaces[1].subnetCIDRsV6", |spec| {
                second(spec).subnet_cidrs_v6 = vec!["10.0.0.0/24".parse().expect("valid")];
            }),
        ];
        for (field, change) in cases {
            let mut spec = with_interfaces();
            change(&mut spec);
            assert_eq!(NodeConfig::new(&node(), spec).validate().expect_err(field).field, field);
        }
    }
}
