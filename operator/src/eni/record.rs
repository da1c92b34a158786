// SPDX-License-Identifier: Apache-2.0
//! From a plan to the NodeConfig that says it. Pure.

use std::net::{IpAddr, Ipv6Addr};

use rhumb_api::{
    ENIPool, ENIPoolSpec, EniConfig, EniInterface, EniMode, EniWaiting, Kind, NodeConfig, PodCidr,
};
use rhumb_ipam::eni::{NodePlan, View};
use rhumb_model::{EniId, Family, Instance, NodeName, PoolName, Prefix};

/// The IPv6 router of every subnet (VPC guide, DHCP and routing).
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// What a node's NodeConfig is made of, beside the plan.
pub(crate) struct Basis<'a> {
    pub(crate) pool: &'a ENIPool,
    pub(crate) instance: &'a Instance,
    pub(crate) vpc_cidrs: &'a [Prefix],
    pub(crate) view: &'a View,
}

/// The NodeConfig that is to be written, or `None` when the one that is there says the same.
pub(crate) fn written(
    node: &NodeName,
    current: Option<&NodeConfig>,
    plan: &NodePlan,
    basis: &Basis<'_>,
) -> Option<NodeConfig> {
    let before = current.and_then(|config| config.spec.eni.as_ref());
    let known = |id: &EniId| before.and_then(|eni| eni.interfaces.iter().find(|known| known.id == *id));
    let interfaces = plan.record.interfaces.iter();
    let interfaces: Vec<EniInterface> = interfaces
        // What a look no longer shows is kept as it was: a look lags.
        .filter_map(|id| interface(id, basis).or_else(|| known(id).cloned()))
        .collect();
    let name = PoolName::new(basis.pool.key().name).ok()?;
    let blocks = plan.record.blocks.iter();
    let blocks = blocks.filter(|block| interfaces.iter().any(|known| known.id == block.interface));
    let blocks = blocks.map(|block| PodCidr {
        pool: name.clone(),
        cidr: block.cidr,
        interface: Some(block.interface.clone()),
        releasing: block.releasing,
        unassigning: block.unassigning,
    });
    let carved = current.into_iter().flat_map(|config| &config.spec.pod_cidrs);
    let carved = carved.filter(|block| block.interface.is_none()).cloned();
    let pod_cidrs: Vec<PodCidr> = carved.chain(blocks).collect();
    let spec = &basis.pool.spec;
    let generation = before.map_or(0, |eni| eni.generation);
    let mut eni = EniConfig {
        instance: basis.instance.id.clone(),
        zone: basis.instance.zone.clone(),
        generation,
        interfaces,
        vpc_cidrs: basis.vpc_cidrs.to_vec(),
        masquerade: !spec.masquerade.external,
        max_pods: plan.max_pods,
        families: families(spec, plan),
        cool_down_seconds: Some(spec.cool_down_seconds),
        waiting: plan
            .verdict
            .as_ref()
            .map(|verdict| EniWaiting { code: verdict.code.to_string(), message: verdict.text.clone() }),
    };
    let says_so = |config: &NodeConfig| {
        config.spec.eni.as_ref() == Some(&eni)
            && config.spec.pod_cidrs == pod_cidrs
            && config.spec.unserved.is_none()
    };
    if current.is_some_and(says_so) {
        return None;
    }
    eni.generation = plan.record.generation.max(generation + 1);
    let mut config = current.cloned().unwrap_or_else(|| NodeConfig::new(node, Default::default()));
    config.spec.eni = Some(eni);
    config.spec.pod_cidrs = pod_cidrs;
    config.spec.unserved = None;
    Some(config)
}

/// Of which every pod gets an address, whichever block of the node is there first. For IPv6 nobody waits where the node
/// cannot have any.
fn families(spec: &ENIPoolSpec, plan: &NodePlan) -> Vec<Family> {
    let v4 = (spec.mode != EniMode::None).then_some(Family::V4);
    let v6 = (spec.ipv6 && plan.ipv6).then_some(Family::V6);
    v4.into_iter().chain(v6).collect()
}

/// The NodeConfig of a node without a plan, where it does not say why already.
pub(crate) fn unserved(
    node: &NodeName,
    current: Option<&NodeConfig>,
    why: Option<EniWaiting>,
) -> Option<NodeConfig> {
    if current.map_or(&None, |config| &config.spec.unserved) == &why {
        return None;
    }
    let mut config = current.cloned().unwrap_or_else(|| NodeConfig::new(node, Default::default()));
    config.spec.unserved = why;
    Some(config)
}

fn interface(id: &EniId, basis: &Basis<'_>) -> Option<EniInterface> {
    let eni = basis.view.enis.get(id)?;
    let attachment = eni.attachment.as_ref()?;
    let subnet = basis.view.subnets.get(&eni.subnet);
    let cidr = subnet.and_then(|subnet| subnet.cidr);
    let v6 = subnet.map(|subnet| subnet.cidrs_v6.clone()).unwrap_or_default();
    let gateway = cidr.and_then(|cidr| match cidr.nth(1) {
        Some(IpAddr::V4(router)) => Some(router),
        Some(IpAddr::V6(_)) | None => None,
    });
    Some(EniInterface {
        id: id.clone(),
        mac: eni.mac,
        device_index: attachment.device_index,
        card: attachment.card,
        subnet_cidr: cidr,
        gateway,
        gateway_v6: (!v6.is_empty()).then_some(ROUTER_V6),
        subnet_cidrs_v6: v6,
        primary: eni.primary,
        primary_v6: eni.addresses_v6.first().copied(),
        mtu: None,
        pods: attachment.card > 0 || attachment.device_index >= basis.pool.spec.first_interface_index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_api::ENIPoolSpec;
    use rhumb_ipam::eni::{Code, EniBlock, Record, Verdict};
    use rhumb_model::{
        Attachment, AttachmentId, AttachmentStatus, Eni, EniStatus, InstanceId, InstanceState, MacAddr,
        Subnet, SubnetId, VpcId, Zone,
    };

    fn view() -> View {
        let subnet = Subnet {
            id: SubnetId::new("subnet-1").expect("valid"),
            vpc: VpcId::new("vpc-1").expect("valid"),
            zone: Zone::new("z").expect("valid"),
            cidr: Some("10.0.4.0/24".parse().expect("valid")),
            cidrs_v6: vec!["2001:db8::/64".parse().expect("valid")],
            free: 200,
            tags: Default::default(),
        };
        let eni = Eni {
            id: EniId::new("eni-1").expect("valid"),
            description: String::new(),
            mac: MacAddr::from_seed(1),
            subnet: subnet.id.clone(),
            vpc: subnet.vpc.clone(),
            zone: subnet.zone.clone(),
            status: EniStatus::InUse,
            attachment: Some(Attachment {
                id: AttachmentId::new("eni-attach-1").expect("valid"),
                instance: Some(InstanceId::new("i-1").expect("valid")),
                device_index: 1,
                card: 0,
                status: AttachmentStatus::Attached,
                delete_on_termination: true,
            }),
            primary: "10.0.4.9".parse().expect("valid"),
            addresses: vec!["10.0.4.10".parse().expect("valid")],
            prefixes: Vec::new(),
            addresses_v6: Vec::new(),
            prefixes_v6: Vec::new(),
            security_groups: Vec::new(),
            source_dest_check: true,
            tags: Default::default(),
            requester_managed: false,
        };
        View {
            enis: [(eni.id.clone(), eni)].into(),
            subnets: [(subnet.id.clone(), subnet)].into(),
            ..View::default()
        }
    }

    fn plan(generation: u64) -> NodePlan {
        let interface = EniId::new("eni-1").expect("valid");
        let block = EniBlock {
            cidr: "10.0.4.10/32".parse().expect("valid"),
            interface: interface.clone(),
            releasing: None,
            unassigning: false,
        };
        NodePlan {
            record: Record { generation, blocks: vec![block], interfaces: vec![interface] },
            max_pods: 29,
            most: 27,
            wanted: 8,
            has: 1,
            free: 1,
            ipv6: false,
            waits_for: None,
            verdict: None,
        }
    }

    #[test]
    fn pods_wait_for_both_families_where_the_node_can_have_both_whatever_else_it_lacks() {
        let spec = |mode, ipv6| ENIPoolSpec { mode, ipv6, ..ENIPoolSpec::default() };
        let dual = spec(EniMode::Prefixes, true);
        let cordoned = Verdict { code: Code::Leaving, text: String::new() };
        let without = NodePlan { verdict: Some(cordoned), ..plan(1) };
        let with = NodePlan { ipv6: true, ..without.clone() };
        assert_eq!(families(&dual, &with), Family::BOTH);
        assert_eq!(families(&dual, &without), [Family::V4]);
        assert_eq!(families(&spec(EniMode::Prefixes, false), &with), [Family::V4]);
        assert_eq!(families(&spec(EniMode::None, true), &with), [Family::V6]);
    }

    #[test]
    fn a_plan_is_written_once_and_what_people_carved_stays() {
        let node = NodeName::new("a").expect("valid");
        let instance = Instance {
            id: InstanceId::new("i-1").expect("valid"),
            kind: "m5.large".to_owned(),
            zone: Zone::new("z").expect("valid"),
            vpc: None,
            subnet: None,
            state: InstanceState::Running,
            tags: Default::default(),
        };
        let pool = ENIPool::new("vpc", ENIPoolSpec::default());
        let (view, vpc_cidrs) = (view(), ["10.0.0.0/16".parse().expect("valid")]);
        let basis = Basis { pool: &pool, instance: &instance, vpc_cidrs: &vpc_cidrs, view: &view };
        let carved =
            PodCidr::new(PoolName::new("default").expect("valid"), "10.42.0.0/24".parse().expect("valid"));
        let mut current = NodeConfig::new(&node, Default::default());
        current.spec.pod_cidrs = vec![carved.clone()];

        let config = written(&node, Some(&current), &plan(1), &basis).expect("new");
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.spec.pod_cidrs[0], carved);
        assert_eq!(config.spec.pod_cidrs[1].cidr.to_string(), "10.0.4.10/32");
        let eni = config.spec.eni.as_ref().expect("there");
        assert_eq!((eni.generation, eni.max_pods), (1, 29));
        let interface = &eni.interfaces[0];
        assert_eq!(interface.gateway, Some("10.0.4.1".parse().expect("valid")));
        assert_eq!(interface.gateway_v6.map(|router| router.to_string()).as_deref(), Some("fe80:ec2::1"));
        assert!(interface.pods);

        assert_eq!(written(&node, Some(&config), &plan(1), &basis), None);
        let reason = Verdict { code: Code::SubnetExhausted, text: "add a subnet".to_owned() };
        let waiting = NodePlan { verdict: Some(reason), ..plan(1) };
        let config = written(&node, Some(&config), &waiting, &basis).expect("another reason");
        let eni = config.spec.eni.as_ref().expect("there");
        assert_eq!(
            (eni.generation, eni.waiting.as_ref().expect("told").code.as_str()),
            (2, "SubnetExhausted")
        );

        let why = EniWaiting { code: "NoInstance".to_owned(), message: String::new() };
        let strange = unserved(&node, Some(&config), Some(why.clone())).expect("new");
        assert_eq!(strange.spec.eni, config.spec.eni, "what it has stays");
        assert_eq!(unserved(&node, Some(&strange), Some(why)), None);
        let seen = written(&node, Some(&strange), &waiting, &basis).expect("seen again");
        assert_eq!(seen.spec.unserved, None);
        assert_eq!(unserved(&node, None, None), None);

        let blind = Basis { view: &View::default(), ..basis };
        assert_eq!(written(&node, Some(&config), &NodePlan { ..waiting }, &blind), None, "a look that lags");
    }
}
