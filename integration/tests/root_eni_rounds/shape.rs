// SPDX-License-Identifier: Apache-2.0
//! The two kinds of nodes: one that has single addresses, and one that has whole blocks of both families.

use serde_json::{Value, json};

/// A kind of node, its pool, and how it ends.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Of the lab.
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    /// As many as it has addresses for.
    pub(crate) pods: usize,
    /// Those, and two that need none.
    pub(crate) max_pods: u64,
    /// How many addresses a pod has.
    pub(crate) families: usize,
    /// How many addresses are to be ready beyond those of pods.
    pub(crate) spare: u128,
    /// How many blocks an empty node has.
    pub(crate) ready: usize,
    /// How many interfaces are made to fill it.
    pub(crate) made: usize,
    /// Steps around these are not walked through.
    absent: &'static [&'static str],
    /// The step around this one is walked through when the node begins, and never again.
    first: &'static str,
    /// Whether its instance ends by notice, with all pods, or by hand, while it is filled.
    pub(crate) spot: bool,
}

/// Three interfaces with nine addresses each besides their own.
pub(crate) const ADDRESSES: Shape = Shape {
    name: "enirnd",
    kind: "m5.large",
    pods: 27,
    max_pods: 29,
    families: 1,
    spare: 2,
    ready: 2,
    made: 2,
    absent: &["AssignIpv6Addresses", "SourceDestCheck", "Groups", "CreateSubnetCidrReservation"],
    first: "",
    spot: false,
};

/// Two interfaces with one /28 each, and a /80 on the first.
pub(crate) const PREFIXES: Shape = Shape {
    name: "enirpf",
    kind: "t3.micro",
    pods: 32,
    max_pods: 34,
    families: 2,
    spare: 0,
    ready: 1,
    made: 1,
    absent: &[],
    first: "AssignIpv6Addresses",
    spot: true,
};

/// Two security groups, of which the pool of blocks names one after the other.
const GROUPS: [&str; 2] = ["sg-1", "sg-2"];

impl Shape {
    /// Whether its rounds pass a step.
    pub(crate) fn walks(&self, point: &str) -> bool {
        !self.absent.iter().any(|absent| point.ends_with(absent))
    }

    /// Whether a step is passed once in the life of the node.
    pub(crate) fn is_first(&self, point: &str) -> bool {
        !self.first.is_empty() && point.ends_with(self.first)
    }

    /// What EC2's double begins with.
    pub(crate) fn world(&self) -> Value {
        let dual = self.families == 2;
        let v6 = |block: &str| if dual { json!([block]) } else { json!([]) };
        let subnet = json!({"id": "subnet-1", "vpc": "vpc-1", "zone": "eu-central-1a", "cidr": "10.20.0.0/22",
            "cidrV6": if dual { json!("fd00:20:0:1::/64") } else { Value::Null }});
        json!({
            "settings": {"attach": [1_000, 10_000], "detach": [1_000, 10_000], "start": [0, 0]},
            "world": {
                "vpcs": [{"id": "vpc-1", "cidrs": ["10.20.0.0/16"], "cidrsV6": v6("fd00:20::/56")}],
                "subnets": [subnet],
                "groups": GROUPS.map(|id| json!({"id": id, "vpc": "vpc-1", "name": id})),
                "instances": [{"kind": self.kind, "subnet": "subnet-1", "spot": self.spot,
                    "addressesV6": u8::from(dual), "tags": {"node": "n1"}}],
            },
        })
    }

    /// The pool as it is in a round: people want other groups each time, and one more block kept for prefixes than is.
    pub(crate) fn pool(&self, round: usize, kept: u128) -> Value {
        let mut spec = json!({"preAllocate": self.spare, "settleSeconds": 5, "coolDownSeconds": 1,
            "releaseDelaySeconds": 5, "interfaceBudgetPerHour": 1000});
        if self.families == 2 {
            let more = json!({"mode": "prefixes", "ipv6": true, "sourceDestCheck": false,
                "reservePrefixes": 1 + kept,
                "securityGroups": {"ids": [GROUPS[round % GROUPS.len()]], "primary": true}});
            if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
                spec.extend(more);
            }
        }
        json!({"apiVersion": "rhumb.io/v1alpha1", "kind": "ENIPool", "metadata": {"name": "vpc"}, "spec": spec})
    }
}
