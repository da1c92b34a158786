// SPDX-License-Identifier: Apache-2.0
//! How often EC2 lets each action be called: token buckets per account and Region, as AWS publishes them.

use std::collections::BTreeMap;

use rhumb_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::call::Action;

/// Size and refill of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Calls that a full bucket has.
    pub capacity: f64,
    /// Calls that come back in a second.
    pub per_second: f64,
}

/// What throttling does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Everything times this; 0 lets nothing pass, `None` lets everything pass.
    pub scale: Option<f64>,
    /// Whether all actions of a category take from one bucket, instead of each from its own.
    pub shared: bool,
    /// Other buckets for some actions.
    pub actions: BTreeMap<String, Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { scale: Some(1.0), shared: false, actions: BTreeMap::new() }
    }
}

impl Limits {
    /// No throttling.
    pub fn none() -> Self {
        Self { scale: None, ..Self::default() }
    }
}

const fn rate(capacity: u32, per_second: u32) -> Rate {
    Rate { capacity: capacity as f64, per_second: per_second as f64 }
}

/// The category of an action and its published bucket (EC2 developer guide, request throttling).
fn published(action: &Action) -> (&'static str, Rate) {
    if action.is_unbounded() {
        return ("unbounded", rate(50, 10));
    }
    match action {
        Action::DescribeInstances(_)
        | Action::DescribeInstanceTypes(_)
        | Action::DescribeSubnets(_)
        | Action::DescribeVpcs(_)
        | Action::DescribeSecurityGroups(_)
        | Action::GetSecurityGroupsForVpc(..)
        | Action::DescribeRouteTables(_)
        | Action::DescribeAvailabilityZones
        | Action::DescribeTags(_)
        | Action::DescribeNetworkInterfaces(_)
        | Action::GetSubnetCidrReservations(..) => ("non-mutating", rate(100, 20)),
        Action::AttachNetworkInterface(_)
        | Action::DetachNetworkInterface(_)
        | Action::UnassignIpv6Addresses(_)
        | Action::DeleteSubnetCidrReservation(_) => ("mutating", rate(50, 5)),
        Action::CreateNetworkInterface(_)
        | Action::DeleteNetworkInterface(_)
        | Action::AssignPrivateIpAddresses(_)
        | Action::UnassignPrivateIpAddresses(_)
        | Action::AssignIpv6Addresses(_)
        | Action::ModifyNetworkInterfaceAttribute(..)
        | Action::TerminateInstances(_) => (action.name(), rate(100, 5)),
        Action::CreateTags(..) | Action::DeleteTags(..) => (action.name(), rate(100, 10)),
        Action::CreateSubnetCidrReservation(_) => (action.name(), rate(5, 1)),
        Action::RunInstances(_) => (action.name(), rate(5, 2)),
    }
}

/// The buckets as they are.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    limits: Limits,
    buckets: BTreeMap<&'static str, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Throttle {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, buckets: BTreeMap::new() }
    }

    /// Other limits from now on; the buckets are full again.
    pub(crate) fn set(&mut self, limits: Limits) {
        *self = Self::new(limits);
    }

    /// Takes a token; `false` is `RequestLimitExceeded`.
    pub(crate) fn take(&mut self, now: Timestamp, action: &Action) -> bool {
        let Some(scale) = self.limits.scale else { return true };
        let (category, rate) = published(action);
        let own = if action.is_unbounded() { unbounded(action) } else { action.name() };
        let key = if self.limits.shared { category } else { own };
        let rate = self.limits.actions.get(action.name()).copied().unwrap_or(rate);
        let capacity = rate.capacity * scale;
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: capacity, at: now });
        let earned = now.since(bucket.at).as_secs_f64() * rate.per_second * scale;
        bucket.tokens = (bucket.tokens + earned).min(capacity);
        bucket.at = bucket.at.max(now);
        let passes = bucket.tokens >= 1.0;
        if passes {
            bucket.tokens -= 1.0;
        }
        passes
    }
}

/// Unbounded describes have a bucket beside that of the bounded ones.
fn unbounded(action: &Action) -> &'static str {
    if matches!(action, Action::DescribeInstances(_)) {
        "DescribeInstances (unbounded)"
    } else if matches!(action, Action::DescribeNetworkInterfaces(_)) {
        "DescribeNetworkInterfaces (unbounded)"
    } else {
        "DescribeSecurityGroups (unbounded)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Attach, Question};

    fn attach() -> Action {
        Action::AttachNetworkInterface(Attach {
            interface: "eni-1".parse().expect("valid"),
            instance: "i-1".parse().expect("valid"),
            device_index: 1,
            card: 0,
        })
    }

    fn passed(throttle: &mut Throttle, now: u64, action: &Action, calls: u32) -> u32 {
        (0..calls).map(|_| u32::from(throttle.take(Timestamp(now), action))).sum()
    }

    #[test]
    fn fifty_attaches_pass_at_once_and_five_more_a_second() {
        let mut throttle = Throttle::new(Limits::default());
        assert_eq!(passed(&mut throttle, 0, &attach(), 60), 50);
        assert_eq!(passed(&mut throttle, 1_000, &attach(), 60), 5);
        assert_eq!(passed(&mut throttle, 100_000, &attach(), 60), 50, "no more than the bucket holds");
    }

    #[test]
    fn an_unbounded_describe_has_a_smaller_bucket() {
        let mut throttle = Throttle::new(Limits::default());
        let bounded = Action::DescribeInstances(Question { page: Some(100), ..Question::default() });
        assert_eq!(passed(&mut throttle, 0, &Action::DescribeInstances(Question::default()), 200), 50);
        assert_eq!(passed(&mut throttle, 0, &bounded, 200), 100);
    }

    #[test]
    fn categories_share_a_bucket_when_told() {
        let mut throttle = Throttle::new(Limits { shared: true, ..Limits::default() });
        assert_eq!(passed(&mut throttle, 0, &Action::DescribeAvailabilityZones, 60), 60);
        assert_eq!(passed(&mut throttle, 0, &Action::DescribeSubnets(Question::default()), 60), 40);
    }

    #[test]
    fn scale_and_single_actions_can_be_set() {
        let mut throttle = Throttle::new(Limits { scale: Some(0.1), ..Limits::default() });
        assert_eq!(passed(&mut throttle, 0, &attach(), 60), 5);
        assert_eq!(passed(&mut throttle, 1_000, &attach(), 60), 0, "half a token is none");
        assert_eq!(passed(&mut throttle, 2_000, &attach(), 60), 1);
        let own = BTreeMap::from([("AttachNetworkInterface".to_owned(), rate(2, 1))]);
        throttle.set(Limits { actions: own, ..Limits::default() });
        assert_eq!(passed(&mut throttle, 0, &attach(), 60), 2);
        throttle.set(Limits::none());
        assert_eq!(passed(&mut throttle, 0, &attach(), 1_000), 1_000);
    }
}
