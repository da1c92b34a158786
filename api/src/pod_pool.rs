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
        Ok(())
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
        PodPool::new("default", PodPoolSpec { ipv4: Some(ipv4), ipv6: Some(ipv6), reserved })
    }

    #[test]
    fn a_sound_pool_is_accepted() {
        assert_eq!(pool().validate(), Ok(()));
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut PodPoolSpec);
        let cases: [(&str, Change); 7] = [
            ("spec", |spec| *spec = PodPoolSpec::default()),
            ("spec.ipv4.cidrs", |spec| spec.ipv4.as_mut().expect("set").cidrs.clear()),
            ("spec.ipv4.cidrs[0]", |spec| spec.ipv4 = spec.ipv6.clone()),
            ("spec.ipv4.cidrs[1]", |spec| {
                spec.ipv4.as_mut().expect("set").cidrs.push(prefix("10.42.3.0/24"))
            }),
            ("spec.ipv4.nodePrefixLength", |spec| spec.ipv4.as_mut().expect("set").node_prefix_length = 15),
            ("spec.ipv6.nodePrefixLength", |spec| spec.ipv6.as_mut().expect("set").node_prefix_length = 129),
            ("spec.reserved[1]", |spec| spec.reserved.push(prefix("10.43.0.0/28"))),
        ];
        for (field, change) in cases {
            let mut pool = pool();
            change(&mut pool.spec);
            assert_eq!(pool.validate().expect_err(field).field, field);
        }
    }
}
