// SPDX-License-Identifier: Apache-2.0
//! What an instance type can have, without asking the cloud.
//!
//! `limits/types.txt` is made by `cargo xtask limits` from what `DescribeInstanceTypes` answers; its head says from
//! which data and of what date. A type that is newer than the table is asked for
//! ([`crate::Provider::instance_limits`]).

use rhumb_model::{CardLimit, InstanceLimits};

/// One line per type, sorted: `TYPE CARDS V4 V6 PREFIXES VCPUS`. CARDS is the number of interfaces of card 0, 1, …,
/// joined by `+`, or `NxM` for N cards of M each; PREFIXES is `y` or `n`.
const TYPES: &str = include_str!("limits/types.txt");

/// What instances of this type can have; `None` when the table does not have it.
pub fn of(kind: &str) -> Option<InstanceLimits> {
    parse(TYPES.lines().find(|line| name(line) == kind)?)
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
}
