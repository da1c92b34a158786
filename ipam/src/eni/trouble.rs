// SPDX-License-Identifier: Apache-2.0
//! What calls that failed mean for the next ones. Nothing is given up for good: everything here ends by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_model::{EniId, NodeName, SubnetId, Timestamp};

use super::{Action, Addresses, Fault, Unit};

/// For how long a subnet that was short of a unit is not asked for it.
const SUBNET_COOL_DOWN: Duration = Duration::from_secs(120);
/// For how long addresses of a subnet are EC2's choice after one of ours was taken.
const BLIND: Duration = Duration::from_secs(120);
/// For how long a call that is refused, or beyond a quota, is not made.
const REFUSED: Duration = Duration::from_secs(60);
const QUOTA: Duration = Duration::from_secs(300);
/// For how long no reservation is asked for in a subnet where one was not to be had.
const UNRESERVED: Duration = Duration::from_secs(600);
/// After so many failures in a row a node waits, from `FIRST_WAIT` doubling to `LONGEST_WAIT`.
const PATIENCE: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// After so many calls in a row that EC2 could not answer, one call at a time asks whether it can.
const SILENCE: u32 = 5;
const PROBE_FIRST: Duration = Duration::from_secs(2);
const PROBE_LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    short: BTreeMap<(SubnetId, Unit), Timestamp>,
    /// Interfaces whose subnet had no /80.
    short_v6: BTreeMap<EniId, Timestamp>,
    blind: BTreeMap<SubnetId, Timestamp>,
    unreserved: BTreeMap<SubnetId, Timestamp>,
    refused: BTreeMap<&'static str, (Timestamp, String)>,
    /// By code: until when, and the call that was answered so.
    quotas: BTreeMap<String, (Timestamp, &'static str)>,
    nodes: BTreeMap<NodeName, NodeTrouble>,
    /// Calls in a row without an answer, and when the next may be made.
    silent: u32,
    probe_at: Timestamp,
}

#[derive(Debug, Clone, Default)]
struct NodeTrouble {
    failures: u32,
    until: Timestamp,
    last: String,
}

impl Trouble {
    /// EC2 is not silent.
    pub(super) fn answered(&mut self) {
        self.silent = 0;
    }

    pub(super) fn succeeded(&mut self, action: &Action) {
        self.silent = 0;
        self.refused.remove(action.call());
        if let Some(node) = action.node() {
            self.nodes.remove(node);
        }
    }

    pub(super) fn failed(&mut self, action: &Action, fault: &Fault, now: Timestamp) {
        if let Action::Reserve { subnet, .. } = action
            && fault.is_about_what_was_asked()
        {
            self.silent = 0;
            self.unreserved.insert(subnet.clone(), now.after(UNRESERVED));
            return;
        }
        match fault {
            // The pace is kept elsewhere, and the call was answered.
            Fault::Throttled => self.silent = 0,
            Fault::Unavailable | Fault::Unknown => {
                self.silent = self.silent.saturating_add(1);
                let wait = doubled(PROBE_FIRST, self.silent.saturating_sub(SILENCE), PROBE_LONGEST);
                self.probe_at = now.after(wait);
            }
            Fault::SubnetShort => {
                self.silent = 0;
                for (subnet, unit) in asked(action) {
                    self.short.insert((subnet.clone(), unit), now.after(SUBNET_COOL_DOWN));
                }
                if let Action::AssignV6 { eni, .. } = action {
                    self.short_v6.insert(eni.clone(), now.after(SUBNET_COOL_DOWN));
                }
            }
            Fault::Taken => {
                self.silent = 0;
                if let Action::Create { subnet, .. } | Action::Assign { subnet, .. } = action {
                    self.blind.insert(subnet.clone(), now.after(BLIND));
                }
                self.count(action, "Taken", now);
            }
            Fault::Stale { code } => {
                self.silent = 0;
                self.count(action, code, now);
            }
            Fault::Quota { code } => {
                self.silent = 0;
                self.quotas.insert(code.clone(), (now.after(QUOTA), action.call()));
            }
            Fault::Refused { code } => {
                self.silent = 0;
                if is_about_permission(code) {
                    self.refused.insert(action.call(), (now.after(REFUSED), code.clone()));
                } else {
                    self.count(action, code, now);
                }
            }
        }
    }

    fn count(&mut self, action: &Action, code: &str, now: Timestamp) {
        let Some(node) = action.node() else { return };
        let node = self.nodes.entry(node.clone()).or_default();
        node.failures = node.failures.saturating_add(1);
        node.last = format!("{} answered {code}", action.call());
        if let Some(more) = node.failures.checked_sub(PATIENCE) {
            node.until = now.after(doubled(FIRST_WAIT, more, LONGEST_WAIT));
        }
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.short.retain(|_, until| now < *until);
        self.short_v6.retain(|_, until| now < *until);
        self.blind.retain(|_, until| now < *until);
        self.unreserved.retain(|_, until| now < *until);
        self.refused.retain(|_, (until, _)| now < *until);
        self.quotas.retain(|_, (until, _)| now < *until);
        // A node that was left in peace for so long begins anew.
        self.nodes.retain(|_, node| now < node.until.after(LONGEST_WAIT) || node.until == Timestamp(0));
    }

    pub(super) fn is_short(&self, subnet: &SubnetId, unit: Unit, now: Timestamp) -> bool {
        self.short.get(&(subnet.clone(), unit)).is_some_and(|until| now < *until)
    }

    pub(super) fn short_until(&self, subnet: &SubnetId, unit: Unit) -> Option<Timestamp> {
        self.short.get(&(subnet.clone(), unit)).copied()
    }

    pub(super) fn short_v6_until(&self, eni: &EniId, now: Timestamp) -> Option<Timestamp> {
        self.short_v6.get(eni).copied().filter(|until| now < *until)
    }

    pub(super) fn is_unreserved(&self, subnet: &SubnetId, now: Timestamp) -> bool {
        self.unreserved.get(subnet).is_some_and(|until| now < *until)
    }

    pub(super) fn is_blind(&self, subnet: &SubnetId, now: Timestamp) -> bool {
        self.blind.get(subnet).is_some_and(|until| now < *until)
    }

    /// Why the call is not to be made, if it was refused.
    pub(super) fn refused(&self, call: &str, now: Timestamp) -> Option<&str> {
        self.refused.get(call).filter(|(until, _)| now < *until).map(|(_, code)| code.as_str())
    }

    /// The quota that the call would go beyond: that of the call that met it, or of whatever takes addresses.
    pub(super) fn quota(&self, call: &str, now: Timestamp) -> Option<&str> {
        let limits =
            |code: &str, met_by: &str| call == met_by || is_of_addresses(code) && takes_addresses(call);
        let mut live = self.quotas.iter().filter(|(_, (until, _))| now < *until);
        live.find(|(code, (_, met_by))| limits(code, met_by)).map(|(code, _)| code.as_str())
    }

    /// Until when the node waits, and what was answered last.
    pub(super) fn waits(&self, node: &NodeName, now: Timestamp) -> Option<(Timestamp, &str)> {
        let node = self.nodes.get(node).filter(|node| now < node.until)?;
        Some((node.until, &node.last))
    }

    /// `Some` while EC2 is silent: when the next single call may be made.
    pub(super) fn silent(&self) -> Option<Timestamp> {
        (self.silent >= SILENCE).then_some(self.probe_at)
    }

    /// What will be over when, in seconds from now, and what counts towards more: all that it means for later plans.
    #[cfg(test)]
    pub(super) fn ahead(&self, now: Timestamp) -> impl std::hash::Hash {
        let seconds = |until: &Timestamp| until.since(now).as_secs();
        let subnets =
            self.blind.iter().chain(&self.unreserved).map(|(id, until)| (id.clone(), seconds(until)));
        let short = self.short.iter().map(|(key, until)| (key.clone(), seconds(until)));
        let short_v6 = self.short_v6.iter().map(|(id, until)| (id.clone(), seconds(until)));
        let refused = self.refused.iter().map(|(call, (until, _))| (*call, seconds(until)));
        let nodes = self
            .nodes
            .iter()
            .map(|(name, it)| (name.clone(), it.failures.min(PATIENCE + 6), seconds(&it.until)));
        (
            subnets.collect::<Vec<_>>(),
            (short.collect::<Vec<_>>(), short_v6.collect::<Vec<_>>()),
            refused.collect::<Vec<_>>(),
            nodes.collect::<Vec<_>>(),
            (self.silent.min(SILENCE + 4), seconds(&self.probe_at)),
            self.quotas
                .iter()
                .map(|(code, (until, call))| (code.clone(), seconds(until), *call))
                .collect::<Vec<_>>(),
        )
    }

    /// When something of this ends, at the earliest.
    pub(super) fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        let subnets = self
            .short
            .values()
            .chain(self.short_v6.values())
            .chain(self.blind.values())
            .chain(self.unreserved.values())
            .copied();
        let calls = self
            .refused
            .values()
            .map(|(until, _)| *until)
            .chain(self.quotas.values().map(|(until, _)| *until));
        let nodes = self.nodes.values().map(|node| node.until);
        subnets.chain(calls).chain(nodes).chain(self.silent()).filter(|at| *at > now).min()
    }
}

impl Fault {
    /// Whether EC2 answered, and another call of the same kind may well succeed.
    fn is_about_what_was_asked(&self) -> bool {
        match self {
            Self::SubnetShort | Self::Taken | Self::Stale { .. } | Self::Quota { .. } => true,
            Self::Refused { code } => !is_about_permission(code),
            Self::Throttled | Self::Unavailable | Self::Unknown => false,
        }
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// Credentials and rights, which are mended for all nodes at once or not at all.
fn is_about_permission(code: &str) -> bool {
    matches!(
        code,
        "UnauthorizedOperation"
            | "AuthFailure"
            | "Blocked"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "OptInRequired"
            | "SignatureDoesNotMatch"
    )
}

/// Network Address Usage is what a VPC has of addresses and prefixes, whichever call takes them. All other quotas are of
/// things that one call makes.
fn is_of_addresses(code: &str) -> bool {
    code.starts_with("NetworkAddressUsage")
}

fn takes_addresses(call: &str) -> bool {
    matches!(call, "CreateNetworkInterface" | "AssignPrivateIpAddresses" | "AssignIpv6Addresses")
}

/// Which units of which subnet the call asked for.
fn asked(action: &Action) -> Vec<(&SubnetId, Unit)> {
    let (Action::Create { subnet, addresses, .. } | Action::Assign { subnet, addresses, .. }) = action else {
        return Vec::new();
    };
    let prefixes = match addresses {
        Addresses::These(blocks) => blocks.iter().any(|block| block.len() < 32),
        Addresses::Any { prefixes, .. } => *prefixes > 0,
    };
    vec![(subnet, if prefixes { Unit::Prefix } else { Unit::Address })]
}
