// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use rhumb_model::{SecurityGroupId, SubnetId};
use serde::{Deserialize, Serialize};

use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta, Selector};

/// How the pods of some nodes get addresses of the VPC: from the nodes' own network interfaces (ENIs).
///
/// A node is served by one: of several that choose it, the one whose name comes first. The blocks that nodes get carry
/// the object's name as that of their pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ENIPool {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: ENIPoolSpec,
}

own_kind!(ENIPool, "enipools", spec: ENIPoolSpec);

/// What a person wants of the interfaces of some nodes. Everything has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ENIPoolSpec {
    /// The nodes, by the labels of their Node objects; all of them when nothing is said.
    pub node_selector: Selector,
    /// In which unit IPv4 addresses are assigned to interfaces.
    pub mode: EniMode,
    /// Whether every node gets a /80 as well.
    pub ipv6: bool,
    /// The subnets of interfaces that are made; the subnet of the instance when nothing is said. The zone must be the
    /// instance's in any case.
    pub subnets: SubnetChoice,
    /// Security groups of interfaces of ours, also of those that are there; those of the instance's primary interface when
    /// nothing is said.
    pub security_groups: GroupChoice,
    /// How many addresses more than its pods have a node keeps ready.
    pub pre_allocate: u32,
    /// How many addresses a node has at least.
    pub min_allocate: u32,
    /// How many addresses a node has at most; 0: as many as its instance type and its kubelet allow.
    pub max_allocate: u32,
    /// How many addresses more than wanted a node may have before the excess is given back.
    pub max_above_watermark: u32,
    /// For how long a node has more than that before the first of it is asked back.
    pub settle_seconds: u32,
    /// Ready addresses by the rate at which pods came, beside `preAllocate`.
    pub warm: EniWarm,
    /// Lowest device index of an interface that carries pods; 1 leaves the primary one to the node.
    pub first_interface_index: u8,
    /// Interfaces with all of these tags are left alone; none when empty.
    pub exclude_interface_tags: BTreeMap<String, String>,
    /// Tags of interfaces that are made, beside those that rhumb needs.
    pub interface_tags: BTreeMap<String, String>,
    /// Whether an interface goes with its instance.
    pub delete_on_termination: bool,
    /// Whether EC2 may drop packets whose address the interface does not have. To be `false` where the nodes also have
    /// blocks of a PodPool that the VPC routes to them: the check is switched off then, and is left as it is otherwise.
    pub source_dest_check: bool,
    /// Who translates the source of packets that leave the VPC.
    pub masquerade: EniMasquerade,
    /// How many interfaces are made for a node in an hour, at most.
    pub interface_budget_per_hour: u32,
    /// For how long a block that the node let go stays assigned.
    pub release_delay_seconds: u32,
    /// For how long an address that a pod had is given to no other.
    pub cool_down_seconds: u32,
    /// How many /28 of each of the subnets are kept for prefixes, at least; 0: no reservation is made.
    pub reserve_prefixes: u32,
    /// Whether single addresses may be taken in a subnet that serves prefixes, when it has no whole prefix any more.
    pub allow_addresses_in_prefix_subnets: bool,
}

impl Default for ENIPoolSpec {
    fn default() -> Self {
        Self {
            node_selector: Selector::default(),
            mode: EniMode::default(),
            ipv6: false,
            subnets: SubnetChoice::default(),
            security_groups: GroupChoice::default(),
            pre_allocate: 8,
            min_allocate: 0,
            max_allocate: 0,
            max_above_watermark: 0,
            settle_seconds: 60,
            warm: EniWarm::default(),
            first_interface_index: 0,
            exclude_interface_tags: BTreeMap::new(),
            interface_tags: BTreeMap::new(),
            delete_on_termination: true,
            source_dest_check: true,
            masquerade: EniMasquerade::default(),
            interface_budget_per_hour: 30,
            release_delay_seconds: 180,
            cool_down_seconds: 130,
            reserve_prefixes: 0,
            allow_addresses_in_prefix_subnets: false,
        }
    }
}

/// In which unit IPv4 addresses are assigned to interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EniMode {
    /// One by one, as secondary addresses.
    #[default]
    Addresses,
    /// Sixteen at once, as /28 prefixes (instances of the Nitro system).
    Prefixes,
    /// None: pods have IPv6 addresses only.
    None,
}

/// Which subnets: by id, by tags, or that of the instance when both are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SubnetChoice {
    /// These.
    pub ids: Vec<SubnetId>,
    /// Those that have all of these tags.
    pub tags: BTreeMap<String, String>,
}

/// Which security groups: by id, by tags, or those of the primary interface when both are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GroupChoice {
    /// These.
    pub ids: Vec<SecurityGroupId>,
    /// Those that have all of these tags.
    pub tags: BTreeMap<String, String>,
    /// Whether the instance's primary interface gets them as well; it keeps its own otherwise.
    pub primary: bool,
}

/// Ready addresses by the rate at which pods came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EniWarm {
    /// Whether the rate counts.
    pub adaptive: bool,
    /// For how many seconds of it addresses are kept ready.
    pub horizon_seconds: u32,
}

impl Default for EniWarm {
    fn default() -> Self {
        Self { adaptive: false, horizon_seconds: 60 }
    }
}

/// Who translates the source of packets that leave the VPC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EniMasquerade {
    /// Not the node: a NAT gateway, say.
    pub external: bool,
}

/// EC2 allows 50 tags on an interface; rhumb needs a few of them.
const MOST_TAGS: usize = 40;
/// Groups on an interface, when the quota was not raised.
const MOST_GROUPS: usize = 16;
/// More would be of no use: EC2 attaches no instance to so many interfaces.
const MOST_INTERFACE_INDEX: u8 = 31;
/// The greatest subnet, a /16, has no more.
const MOST_PREFIXES: u32 = 4096;
const DAY: u32 = 24 * 60 * 60;

impl ENIPool {
    /// A pool with this name.
    pub fn new(name: impl Into<String>, spec: ENIPoolSpec) -> Self {
        Self { metadata: named(name), spec }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let spec = &self.spec;
        let wrong = |field: &str, message: String| Err(FieldError::new(format!("spec.{field}"), message));
        spec.node_selector
            .check()
            .map_err(|error| FieldError::new(format!("spec.nodeSelector.{}", error.field), error.message))?;
        if spec.mode == EniMode::None && !spec.ipv6 {
            return wrong("mode", "none leaves pods without any address: want ipv6: true with it".to_owned());
        }
        check_choice("spec.subnets", &spec.subnets.ids, &spec.subnets.tags)?;
        check_choice("spec.securityGroups", &spec.security_groups.ids, &spec.security_groups.tags)?;
        if spec.security_groups.ids.len() > MOST_GROUPS {
            return wrong("securityGroups.ids", format!("an interface has at most {MOST_GROUPS} groups"));
        }
        if spec.max_allocate > 0 && spec.max_allocate < spec.min_allocate {
            let message = format!("{} is less than minAllocate, {}", spec.max_allocate, spec.min_allocate);
            return wrong("maxAllocate", message);
        }
        if spec.first_interface_index > MOST_INTERFACE_INDEX {
            return wrong(
                "firstInterfaceIndex",
                format!("{}: want 0 to {MOST_INTERFACE_INDEX}", spec.first_interface_index),
            );
        }
        check_tags("spec.excludeInterfaceTags", &spec.exclude_interface_tags)?;
        check_tags("spec.interfaceTags", &spec.interface_tags)?;
        if let Some(key) = spec.interface_tags.keys().find(|key| key.starts_with("rhumb.io/")) {
            return wrong("interfaceTags", format!("{key}: keys under rhumb.io/ are rhumb's own"));
        }
        for (field, value, least, most) in [
            ("warm.horizonSeconds", spec.warm.horizon_seconds, 1, 3600),
            ("interfaceBudgetPerHour", spec.interface_budget_per_hour, 1, 1000),
            ("settleSeconds", spec.settle_seconds, 0, DAY),
            ("releaseDelaySeconds", spec.release_delay_seconds, 0, DAY),
            ("reservePrefixes", spec.reserve_prefixes, 0, MOST_PREFIXES),
            ("coolDownSeconds", spec.cool_down_seconds, 0, DAY),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(field, format!("{value}: want {least} to {most}"));
            }
        }
        Ok(())
    }
}

fn check_choice<T: Ord + std::fmt::Display>(
    field: &str,
    ids: &[T],
    tags: &BTreeMap<String, String>,
) -> Result<(), FieldError> {
    if !ids.is_empty() && !tags.is_empty() {
        return Err(FieldError::new(field, "want ids or tags, not both"));
    }
    let mut seen = BTreeSet::new();
    for (i, id) in ids.iter().enumerate() {
        if !seen.insert(id) {
            return Err(FieldError::new(format!("{field}.ids[{i}]"), format!("{id} is there already")));
        }
    }
    check_tags(&format!("{field}.tags"), tags)
}

fn check_tags(field: &str, tags: &BTreeMap<String, String>) -> Result<(), FieldError> {
    if tags.len() > MOST_TAGS {
        return Err(FieldError::new(field, format!("{} tags: want at most {MOST_TAGS}", tags.len())));
    }
    for (key, value) in tags {
        let message = if key.is_empty() || key.chars().count() > 128 {
            "a key has 1 to 128 characters"
        } else if key.starts_with("aws:") {
            "keys that begin with aws: are AWS's own"
        } else if value.chars().count() > 256 {
            "a value has at most 256 characters"
        } else {
            continue;
        };
        return Err(FieldError::new(field, format!("{key:?}: {message}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn subnet(id: &str) -> SubnetId {
        SubnetId::new(id).expect("valid")
    }

    #[test]
    fn an_empty_spec_is_a_sound_pool() {
        let spec: ENIPoolSpec = serde_json::from_str("{}").expect("valid");
        assert_eq!(spec, ENIPoolSpec::default());
        assert_eq!(ENIPool::new("default", spec).validate(), Ok(()));
    }

    #[test]
    fn every_field_is_read_and_written_by_its_name() {
        let text = r#"{"apiVersion":"rhumb.io/v1alpha1","kind":"ENIPool","metadata":{"name":"a"},"spec":{
            "nodeSelector":{"matchLabels":{"pool":"a"}},"mode":"prefixes","ipv6":true,
            "subnets":{"tags":{"pods":"yes"}},"securityGroups":{"ids":["sg-0123456789abcdef0"]},
            "preAllocate":4,"minAllocate":10,"maxAllocate":100,"maxAboveWatermark":3,"settleSeconds":5,
            "warm":{"adaptive":true,"horizonSeconds":30},"firstInterfaceIndex":1,
            "excludeInterfaceTags":{"no":"manage"},"interfaceTags":{"team":"net"},"deleteOnTermination":false,
            "sourceDestCheck":false,"masquerade":{"external":true},"interfaceBudgetPerHour":5,
            "releaseDelaySeconds":60,"coolDownSeconds":30,"reservePrefixes":8,
            "allowAddressesInPrefixSubnets":true}}"#;
        let pool: ENIPool = serde_json::from_str(text).expect("valid");
        assert_eq!(pool.validate(), Ok(()));
        let written = serde_json::to_value(&pool).expect("written");
        assert_eq!(serde_json::from_value::<ENIPool>(written).expect("read again"), pool);
        assert!(pool.spec.mode == EniMode::Prefixes && pool.spec.masquerade.external);
        for (known, unknown, named) in [
            ("preAllocate", "preallocate", "`preallocate`"),
            // IPv6 is not translated, and whoever asks for that is told so.
            (r#"{"external":true}"#, r#"{"ipv6":true}"#, "`ipv6`"),
        ] {
            let refused =
                serde_json::from_str::<ENIPool>(&text.replace(known, unknown)).expect_err("refused");
            assert!(refused.to_string().contains(named), "{refused}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut ENIPoolSpec);
        let cases: [(&str, Change); 16] = [
            ("spec.nodeSelector.matchExpressions[0].values", |spec| {
                spec.node_selector =
                    serde_json::from_str(r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#)
                        .expect("read");
            }),
            ("spec.mode", |spec| spec.mode = EniMode::None),
            ("spec.subnets", |spec| {
                spec.subnets.ids = vec![subnet("subnet-0123456789abcdef0")];
                spec.subnets.tags = [("a".to_owned(), "b".to_owned())].into();
            }),
            ("spec.subnets.ids[1]", |spec| {
                spec.subnets.ids = vec![subnet("subnet-0123456789abcdef0"); 2];
            }),
            ("spec.subnets.tags", |spec| spec.subnets.tags = [("aws:x".to_owned(), String::new())].into()),
            ("spec.securityGroups.tags", |spec| {
                spec.security_groups.tags = [(String::new(), String::new())].into();
            }),
            ("spec.securityGroups.ids", |spec| {
                let group = |i| SecurityGroupId::new(format!("sg-{i:017x}")).expect("valid");
                spec.security_groups.ids = (0..17).map(group).collect();
            }),
            ("spec.maxAllocate", |spec| (spec.min_allocate, spec.max_allocate) = (10, 9)),
            ("spec.firstInterfaceIndex", |spec| spec.first_interface_index = 32),
            ("spec.excludeInterfaceTags", |spec| {
                spec.exclude_interface_tags = [("k".to_owned(), "v".repeat(257))].into();
            }),
            ("spec.interfaceTags", |spec| {
                spec.interface_tags = [("rhumb.io/node".to_owned(), String::new())].into();
            }),
            ("spec.warm.horizonSeconds", |spec| spec.warm.horizon_seconds = 0),
            ("spec.interfaceBudgetPerHour", |spec| spec.interface_budget_per_hour = 0),
            ("spec.settleSeconds", |spec| spec.settle_seconds = DAY + 1),
            ("spec.reservePrefixes", |spec| spec.reserve_prefixes = MOST_PREFIXES + 1),
            ("spec.coolDownSeconds", |spec| spec.cool_down_seconds = DAY + 1),
        ];
        for (field, change) in cases {
            let mut spec = ENIPoolSpec::default();
            change(&mut spec);
            let error = ENIPool::new("a", spec).validate().expect_err(field);
            assert_eq!(error.field, field, "{error}");
        }
    }
}
