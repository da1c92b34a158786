// SPDX-License-Identifier: Apache-2.0
//! Instance types that are there without being asked for: the shapes that tests want. A world file adds others.

use std::collections::BTreeMap;

use rhumb_model::{CardLimit, InstanceLimits};

/// Type, interfaces, IPv4 slots of each, virtual processors, whether on Nitro, cards (AWS's table of ENI limits).
const KINDS: &[(&str, u8, u16, u16, bool, u8)] = &[
    ("t3.nano", 2, 2, 2, true, 1),
    ("t3.micro", 2, 2, 2, true, 1),
    ("t3.small", 3, 4, 2, true, 1),
    ("t3.medium", 3, 6, 2, true, 1),
    ("t3.large", 3, 12, 2, true, 1),
    ("t3.xlarge", 4, 15, 4, true, 1),
    ("m4.large", 2, 10, 2, false, 1),
    ("m4.4xlarge", 8, 30, 16, false, 1),
    ("m5.large", 3, 10, 2, true, 1),
    ("m5.xlarge", 4, 15, 4, true, 1),
    ("m5.2xlarge", 4, 15, 8, true, 1),
    ("m5.4xlarge", 8, 30, 16, true, 1),
    ("m5.16xlarge", 15, 50, 64, true, 1),
    ("m5.24xlarge", 15, 50, 96, true, 1),
    ("c5.large", 3, 10, 2, true, 1),
    ("c5.4xlarge", 8, 30, 16, true, 1),
    ("m6i.large", 3, 10, 2, true, 1),
    ("m7g.medium", 2, 4, 1, true, 1),
    ("c7g.2xlarge", 4, 15, 8, true, 1),
    ("m8g.48xlarge", 15, 50, 192, true, 1),
    ("m8i.96xlarge", 24, 64, 384, true, 1),
    ("p4d.24xlarge", 60, 50, 96, true, 4),
    ("p5.48xlarge", 64, 50, 192, true, 32),
];

pub(crate) fn table() -> BTreeMap<String, InstanceLimits> {
    KINDS
        .iter()
        .map(|&(kind, interfaces, slots, vcpus, prefixes, cards)| {
            let cards = (0..cards).map(|card| CardLimit { card, interfaces: interfaces / cards }).collect();
            let limits = InstanceLimits {
                interfaces,
                v4_per_interface: slots,
                v6_per_interface: slots,
                cards,
                prefixes,
                vcpus,
            };
            (kind.to_owned(), limits)
        })
        .collect()
}
