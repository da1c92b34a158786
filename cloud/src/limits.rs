// SPDX-License-Identifier: Apache-2.0
//! What an instance type can have, without asking the cloud, and how many pods that makes.
//!
//! `limits/types.txt` is made by `cargo xtask limits` from what `DescribeInstanceTypes` answers; its head says from
//! which data and of what date. A type that is newer than the table is asked for
//! ([`crate::Provider::instance_limits`]); until the answer is there, [`conservative`] holds.

use rhumb_model::{CardLimit, InstanceLimits};

/// One line per type, sorted: `TYPE CARDS V4 V6 PREFIXES VCPUS`. CARDS is the number of interfaces of card 0, 1, …,
/// joined by `+`, or `NxM` for N cards of M each; PREFIXES is `y` or `n`.
const TYPES: &str = include_str!("limits/types.txt");

/// What instances of this type can have; `None` when the table does not have it.
pub fn of(kind: &str) -> Option<InstanceLimits> {
    let lines: Vec<&str> = TYPES.lines().filter(|line| !line.starts_with('#')).collect();
    let found = lines.binary_search_by(|line| name(line).cmp(kind)).ok()?;
    parse(lines.get(found)?)
}

/// What an instance of a type that nobody knows surely can have: the smallest type has as much.
pub fn conservative() -> InstanceLimits {
    InstanceLimits {
        interfaces: 2,
        v4_per_interface: 2,
        v6_per_interface: 1,
        cards: vec![CardLimit { card: 0, interfaces: 2 }],
        prefixes: false,
        vcpus: 1,
    }
}

/// In which unit pods get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// One by one.
    Address,
    /// Sixteen at once (`/28`).
    Prefix,
}

/// Pods that use the node's own address: the two that every node has (kube-proxy and the network's own).
const HOST_NETWORK: u32 = 2;
/// Above this, EKS advises no node to go: below 30 vCPUs, and from there on.
const CAPS: (u32, u32) = (110, 250);

/// How many pods a node can have, if all but the first `reserved` interfaces of card 0 carry pods:
/// interfaces × (slots - 1) × addresses of a slot + 2, for prefixes at most 110 (250 from 30 vCPUs on), as EKS does.
pub fn max_pods(limits: &InstanceLimits, unit: Unit, reserved: u8) -> u32 {
    let interfaces = u32::from(limits.interfaces.saturating_sub(reserved));
    let slots = interfaces * u32::from(limits.v4_per_interface.saturating_sub(1));
    match unit {
        Unit::Address => slots + HOST_NETWORK,
        Unit::Prefix => {
            let cap = if limits.vcpus < 30 { CAPS.0 } else { CAPS.1 };
            (slots * 16 + HOST_NETWORK).min(cap)
        }
    }
}

fn name(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn parse(line: &str) -> Option<InstanceLimits> {
    let mut fields = line.split(' ').skip(1);
    let cards = cards(fields.next()?)?;
    let v4_per_interface = fields.next()?.parse().ok()?;
    let v6_per_interface = fields.next()?.parse().ok()?;
    let prefixes = fields.next()? == "y";
    let vcpus = fields.next()?.parse().ok()?;
    let interfaces = cards.iter().map(|card| card.interfaces).sum();
    Some(InstanceLimits { interfaces, v4_per_interface, v6_per_interface, cards, prefixes, vcpus })
}

fn cards(field: &str) -> Option<Vec<CardLimit>> {
    let each: Vec<u8> = match field.split_once('x') {
        Some((cards, interfaces)) => vec![interfaces.parse().ok()?; cards.parse().ok()?],
        None => field.split('+').map(|interfaces| interfaces.parse().ok()).collect::<Option<_>>()?,
    };
    (0_u8..).zip(each).map(|(card, interfaces)| Some(CardLimit { card, interfaces })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(kind: &str) -> InstanceLimits {
        of(kind).expect("in the table")
    }

    #[test]
    fn every_line_of_the_table_can_be_read_and_found() {
        let lines: Vec<&str> = TYPES.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 1300, "{}", lines.len());
        assert!(lines.windows(2).all(|pair| name(pair[0]) < name(pair[1])), "sorted, each once");
        for line in lines {
            let limits = known(name(line));
            assert!(
                limits.interfaces >= 2 && limits.v4_per_interface >= 2 && !limits.cards.is_empty(),
                "{line}"
            );
            assert!(limits.vcpus >= 1, "{line}");
        }
    }

    #[test]
    fn known_types_have_what_the_guide_says() {
        let shape = |kind: &str| {
            let limits = known(kind);
            (limits.interfaces, limits.v4_per_interface, limits.cards.len(), limits.prefixes)
        };
        assert_eq!(shape("m5.large"), (3, 10, 1, true));
        assert_eq!(shape("t3.medium"), (3, 6, 1, true));
        assert_eq!(shape("c7g.2xlarge"), (4, 15, 1, true));
        assert_eq!(shape("m4.4xlarge"), (8, 30, 1, false));
        assert_eq!(shape("p5.48xlarge"), (64, 50, 32, true));
        assert_eq!(shape("m5.metal"), (15, 50, 1, true));
        assert_eq!(of("m99.huge"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn pods_are_counted_as_amazon_counts_them() {
        let addresses = [
            ("t3.nano", 4),
            ("t3.medium", 17),
            ("m5.large", 29),
            ("m5.xlarge", 58),
            ("m5.4xlarge", 234),
            ("m5.16xlarge", 737),
        ];
        for (kind, pods) in addresses {
            assert_eq!(max_pods(&known(kind), Unit::Address, 0), pods, "{kind}");
        }
        assert_eq!(max_pods(&known("t3.nano"), Unit::Prefix, 0), 34);
        assert_eq!(max_pods(&known("m7g.medium"), Unit::Prefix, 0), 98);
        assert_eq!(max_pods(&known("m5.large"), Unit::Prefix, 0), 110);
        assert_eq!(max_pods(&known("m5.16xlarge"), Unit::Prefix, 0), 250);
    }

    #[test]
    fn an_interface_kept_for_the_node_costs_its_pods() {
        assert_eq!(max_pods(&known("m5.large"), Unit::Address, 1), 20);
        assert_eq!(max_pods(&known("m5.xlarge"), Unit::Address, 1), 44);
        assert_eq!(max_pods(&conservative(), Unit::Address, 0), 4);
    }
}
