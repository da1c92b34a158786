// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

/// Buckets of calls, refilled each second.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    buckets: BTreeMap<&'static str, f64>,
    rates: &'static [(&'static str, f64, f64)],
}

/// What EC2 lets an account do (developer guide, request throttling): capacity and calls per second.
const PUBLISHED: &[(&str, f64, f64)] = &[
    ("CreateNetworkInterface", 100.0, 5.0),
    ("DeleteNetworkInterface", 100.0, 5.0),
    ("AssignPrivateIpAddresses", 100.0, 5.0),
    ("UnassignPrivateIpAddresses", 100.0, 5.0),
    ("AssignIpv6Addresses", 100.0, 5.0),
    ("ModifyNetworkInterfaceAttribute", 100.0, 5.0),
    ("AttachNetworkInterface", 50.0, 5.0),
    ("DetachNetworkInterface", 50.0, 5.0),
];

/// Cilium's limit of its own for all calls together (`limit-ipam-api-qps`, `limit-ipam-api-burst`).
const ONE_FOR_ALL: &[(&str, f64, f64)] = &[("", 20.0, 4.0)];

impl Pace {
    pub(super) fn published() -> Self {
        Self::of(PUBLISHED)
    }

    pub(super) fn one_for_all() -> Self {
        Self::of(ONE_FOR_ALL)
    }

    fn of(rates: &'static [(&'static str, f64, f64)]) -> Self {
        Self { buckets: rates.iter().map(|(name, capacity, _)| (*name, *capacity)).collect(), rates }
    }

    /// A second has passed.
    pub(super) fn refill(&mut self) {
        for (name, capacity, per_second) in self.rates {
            if let Some(left) = self.buckets.get_mut(name) {
                *left = (*left + per_second).min(*capacity);
            }
        }
    }

    /// Whether the call may be made now.
    pub(super) fn take(&mut self, call: &str) -> bool {
        let Some(left) = self.buckets.get_mut(call) else { return false };
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }
}
