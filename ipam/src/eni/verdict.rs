// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;

use rhumb_model::{NodeName, Timestamp};

use super::{Planned, Record};

/// What is to be done now.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Calls to EC2, the most urgent first. None of them is under way.
    pub actions: Vec<Planned>,
    /// What each node's NodeConfig is to say.
    pub nodes: BTreeMap<NodeName, NodePlan>,
    /// When time alone changes something, at the earliest; always later than the plan.
    pub wake_at: Option<Timestamp>,
    /// When a look at EC2 would show what is waited for, at the earliest; `None`: the next regular one is soon enough.
    pub look_at: Option<Timestamp>,
}

/// What a node's NodeConfig is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// Blocks and interfaces; its generation is greater than that of the record that was read if anything differs.
    pub record: Record,
    /// How many pods the node can have addresses for.
    pub max_pods: u32,
    /// IPv4 addresses that it can have at most: of its instance type, its pool and its kubelet the least.
    pub most: u32,
    /// IPv4 addresses that it should have.
    pub wanted: u32,
    /// IPv4 addresses that it has, those that are on their way to EC2 or back not counted.
    pub has: u32,
    /// Of these, how many no pod has or waits for, and none rests.
    pub free: u32,
    /// Whether its pods have IPv6 addresses, or can get some: by its type, and by the subnets of its interfaces.
    pub ipv6: bool,
    /// A call that it needs and that is not planned yet: enough of its kind are under way, or for nodes that lack more.
    pub waits_for: Option<&'static str>,
    /// Why it has less than it should; `None` when it has enough, or soon will.
    pub verdict: Option<Verdict>,
}

/// Why a node has not the addresses that it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For programs.
    pub code: Code,
    /// For people: what is so, and what would help.
    pub text: String,
}

/// Makes the codes and the list of them, so that none is missing there.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a node has not the addresses that it should have, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// No subnet of the instance's zone is chosen.
    NoSubnet,
    /// No security group is chosen.
    NoSecurityGroup,
    /// The subnets have no addresses left.
    SubnetExhausted,
    /// The subnets have addresses left, but no whole /28.
    SubnetFragmented,
    /// The subnet has no IPv6.
    NoIpv6,
    /// The instance has all that its type allows.
    InstanceFull,
    /// The instance's type cannot have prefixes.
    NoPrefixes,
    /// Nobody knows the instance's type: it is taken for the smallest.
    UnknownType,
    /// `maxAllocate` is reached.
    MaxAllocate,
    /// The kubelet takes no more pods.
    KubeletLimit,
    /// The budget of interfaces in this hour is used up.
    Budget,
    /// Calls for this node failed again and again.
    Backoff,
    /// EC2 does not answer.
    Unreachable,
    /// A quota of the account or VPC is used up.
    Quota,
    /// EC2 refuses the call.
    Refused,
    /// EC2 no longer holds a block that the node has.
    BlockLost,
    /// The node is drained or about to go.
    Leaving,
    /// There is no instance that could take interfaces.
    InstanceState,
    /// Nobody knows which instance the node is, EC2 does not show it, or another node is said to be it as well.
    NoInstance,
    /// Calls for this node wait for their turn: EC2 refused to be asked so often.
    Throttled,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
