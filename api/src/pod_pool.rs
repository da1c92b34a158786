// SPDX-License-Identifier: Apache-2.0

use rhumb_model::{Family, Prefix};
use serde::{Deserialize, Serialize};

use crate::own::{named, own_kind};
use crate::{FieldError, ObjectMeta};

/// A pool from which the operator carves pod CIDRs for nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodPool {
    /// Name and version.
    pub metadata: ObjectMeta,
    /// What a person wants.
    pub spec: PodPoolSpec,
}

own_kind!(PodPool, "podpools", spec: PodPoolSpec);

/// What a person wants of a pool; at least one family is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodPoolSpec {
    /// IPv4 part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyPool>,
    /// IPv6 part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyPool>,
    /// Blocks inside the pool of which no address is ever leased.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Prefix>,
    /// How packets reach the pool's pods on other nodes.
    #[serde(default, skip_serializing_if = "Routing::is_default")]
    pub routing: Routing,
    /// Whether packets of the pool's pods that leave the cluster get the node's address as their source; so it is
    /// when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<bool>,
}

/// How packets reach the pods of a pool on other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// What holds without an exception.
    #[serde(default)]
    pub mode: RoutingMode,
    /// Blocks for which something else holds; of several that cover a node's block the longest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<RoutingException>,
}

impl Routing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which ways to another node are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RoutingMode {
    /// The direct way while it is there and answers, else the tunnel.
    #[default]
    Auto,
    /// Only the direct way.
    Direct,
    /// Only the tunnel.
    Tunnel,
}

/// A block of a pool for which another mode holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutingException {
    /// The block; it holds whole blocks of nodes.
    pub cidr: Prefix,
    /// What holds for it.
    pub mode: RoutingMode,
}

/// The part of a pool that is of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FamilyPool {
    /// Blocks that the pool owns; they do not overlap.
    pub cidrs: Vec<Prefix>,
    /// Length in bits of the blocks that nodes get.
    pub node_prefix_length: u8,
}

impl PodPool {
    /// A pool with this name.
    pub fn new(name: impl Into<String>, spec: PodPoolSpec) -> Self {
        Self { metadata: named(name), spec }
    }

    /// The part of one family, if the pool has it.
    pub fn family(&self, family: Family) -> Option<&FamilyPool> {
        match family {
            Family::V4 => self.spec.ipv4.as_ref(),
            Family::V6 => self.spec.ipv6.as_ref(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let mut cidrs: Vec<Prefix> = Vec::new();
        for family in Family::BOTH {
            if let Some(part) = self.family(family) {
                check_family(family, part)?;
                cidrs.extend(&part.cidrs);
            }
        }
        if cidrs.is_empty() {
            return Err(FieldError::new("spec", "want ipv4, ipv6 or both"));
        }
        for (i, reserved) in self.spec.reserved.iter().enumerate() {
            if !cidrs.iter().any(|cidr| within(*reserved, *cidr)) {
                let message = format!("{reserved} is in no block of the pool");
                return Err(FieldError::new(format!("spec.reserved[{i}]"), message));
            }
        }
        self.check_exceptions(&cidrs)
    }

    /// An exception holds for whole blocks of nodes, and is said once.
    fn check_exceptions(&self, cidrs: &[Prefix]) -> Result<(), FieldError> {
        let exceptions = &self.spec.routing.exceptions;
        for (i, RoutingException { cidr, .. }) in exceptions.iter().enumerate() {
            let wrong = |message| Err(FieldError::new(format!("spec.routing.exceptions[{i}].cidr"), message));
            if !cidrs.iter().any(|block| overlap(*cidr, *block)) {
                return wrong(format!("{cidr} has no address of the pool"));
            }
            if let Some(part) = self.family(cidr.family())
                && cidr.len() > part.node_prefix_length
            {
                return wrong(format!(
                    "{cidr} is a part of a node's block of length {}",
                    part.node_prefix_length
                ));
            }
            if exceptions[..i].iter().any(|other| other.cidr == *cidr) {
                return wrong(format!("{cidr} is there already"));
            }
        }
        Ok(())
    }

    /// Whether packets of the pool's pods that leave the cluster get the node's address as their source.
    pub fn masquerades(&self) -> bool {
        self.spec.masquerade.unwrap_or(true)
    }
}

fn check_family(family: Family, part: &FamilyPool) -> Result<(), FieldError> {
    if part.cidrs.is_empty() {
        return Err(FieldError::new(format!("spec.{family}.cidrs"), "want at least one block"));
    }
    for (i, cidr) in part.cidrs.iter().enumerate() {
        let field = || format!("spec.{family}.cidrs[{i}]");
        if cidr.family() != family {
            return Err(FieldError::new(field(), format!("{cidr} is no {family} block")));
        }
        if let Some(other) = part.cidrs[..i].iter().find(|other| overlap(**other, *cidr)) {
            return Err(FieldError::new(field(), format!("{cidr} overlaps {other}")));
        }
        if part.node_prefix_length < cidr.len() || part.node_prefix_length > family.bits() {
            return Err(FieldError::new(
                format!("spec.{family}.nodePrefixLength"),
                format!(
                    "{}: want {} (the length of {cidr}) to {}",
                    part.node_prefix_length,
                    cidr.len(),
                    family.bits()
                ),
            ));
        }
    }
    Ok(())
}

/// Whether `inner` lies in `outer`.
pub(crate) fn within(inner: Prefix, outer: Prefix) -> bool {
    outer.contains(inner.addr()) && inner.len() >= outer.len()
}

/// Whether two blocks have an address in common.
pub(crate) fn overlap(a: Prefix, b: Prefix) -> bool {
    within(a, b) || within(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("valid")
    }

    fn pool() -> PodPool {
        let ipv4 = FamilyPool { cidrs: vec![prefix("10.42.0.0/16")], node_prefix_length: 24 };
        let ipv6 = FamilyPool { cidrs: vec![prefix("fd00:42::/104")], node_prefix_length: 120 };
        let reserved = vec![prefix("10.42.0.0/28")];
        let exception = |cidr| RoutingException { cidr: prefix(cidr), mode: RoutingMode::Tunnel };
        let exceptions = vec![exception("10.42.0.0/24"), exception("fd00::/16")];
        let routing = Routing { mode: RoutingMode::Auto, exceptions };
        let spec =
            PodPoolSpec { ipv4: Some(ipv4), ipv6: Some(ipv6), reserved, routing, masquerade: Some(false) };
        PodPool::new("default", spec)
    }

    #[test]
    fn a_sound_pool_is_accepted() {
        assert_eq!(pool().validate(), Ok(()));
    }

    #[test]
    fn without_a_word_the_way_is_chosen_and_the_source_translated() {
        let spec: PodPoolSpec =
            serde_json::from_str(r#"{"ipv4": {"cidrs": ["10.42.0.0/16"], "nodePrefixLength": 24}}"#)
                .expect("valid");
        assert_eq!(
            (spec.routing.mode, PodPool::new("p", spec.clone()).masquerades()),
            (RoutingMode::Auto, true)
        );
        let text = serde_json::to_string(&spec).expect("written");
        assert!(!text.contains("routing") && !text.contains("masquerade"), "{text}");
        let written = serde_json::to_value(pool().spec.routing).expect("written");
        assert_eq!(written["exceptions"][0], serde_json::json!({"cidr": "10.42.0.0/24", "mode": "tunnel"}));
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut PodPoolSpec);
        let cases: [(&str, Change); 10] = [
            ("spec", |spec| *spec = PodPoolSpec::default()),
            ("spec.ipv4.cidrs", |spec| spec.ipv4.as_mut().expect("set").cidrs.clear()),
            ("spec.ipv4.cidrs[0]", |spec| spec.ipv4 = spec.ipv6.clone()),
            ("spec.ipv4.cidrs[1]", |spec| {
                spec.ipv4.as_mut().expect("set").cidrs.push(prefix("10.42.3.0/24"))
            }),
            ("spec.ipv4.nodePrefixLength", |spec| spec.ipv4.as_mut().expect("set").node_prefix_length = 15),
            ("spec.ipv6.nodePrefixLength", |spec| spec.ipv6.as_mut().expect("set").node_prefix_length = 129),
            ("spec.reserved[1]", |spec| spec.reserved.push(prefix("10.43.0.0/28"))),
            ("spec.routing.exceptions[0].cidr", |spec| {
                spec.routing.exceptions[0].cidr = prefix("10.43.0.0/24");
            }),
            ("spec.routing.exceptions[1].cidr", |spec| {
                spec.routing.exceptions[1].cidr = prefix("10.42.1.0/25");
            }),
            ("spec.routing.exceptions[2].cidr", |spec| {
                spec.routing.exceptions.push(spec.routing.exceptions[0].clone());
            }),
        ];
        for (field, change) in cases {
            let mut pool = pool();
            change(&mut pool.spec);
            assert_eq!(pool.validate().expect_err(field).field, field);
        }
    }
}
