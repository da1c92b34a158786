// SPDX-License-Identifier: Apache-2.0
//! A cluster of m5.large instances in an EC2 in memory, all of whose pods come at once, on a virtual clock.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use rhumb_cloud_fake::{
    Action, Answer, Fake, Launch, Limits, NewSubnet, NewVpc, Question, Refusal, Settings, Span, User,
};
use rhumb_model::{Eni, EniId, EniStatus, InstanceId, Prefix, SubnetId, Timestamp, VpcId, Zone};

use super::Conditions;

/// Interfaces of an m5.large, and addresses of one for pods.
pub(super) const INTERFACES: usize = 3;
pub(super) const SLOTS: usize = 9;
/// Nodes that one subnet holds with room to spare.
const NODES_PER_SUBNET: usize = 700;
const KIND: &str = "m5.large";

/// The cluster.
pub(super) struct World {
    pub(super) fake: Fake,
    pub(super) now: Timestamp,
    pub(super) nodes: Vec<Node>,
    start: Timestamp,
    vpc: VpcId,
}

/// One instance and its pods.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) instance: InstanceId,
    pub(super) subnet: SubnetId,
    /// Pods that want an address.
    pub(super) pods: usize,
}

impl World {
    pub(super) fn new(nodes: usize, pods: usize, conditions: Conditions) -> Result<Self> {
        let launched = Timestamp(1_000_000);
        // The pods come when everybody knows the instances.
        let start = Timestamp(launched.0 + 60_000);
        let settings = Settings {
            attach: conditions.attach,
            detach: conditions.attach,
            lag: conditions.lag,
            unknown: conditions.unknown,
            start: Span::ZERO,
            interface_quota: u32::MAX,
            usage_quota: u32::MAX,
            ..Settings::default()
        };
        let mut fake = Fake::new(settings, launched);
        fake.limit(Limits::none());
        let cidrs = (10..14u8).map(|second| format!("10.{second}.0.0/16").parse::<Prefix>());
        let vpc = NewVpc {
            id: None,
            cidrs: cidrs.collect::<Result<_, _>>()?,
            cidrs_v6: Vec::new(),
            tags: BTreeMap::new(),
        };
        let vpc = fake.world_mut().create_vpc(vpc)?;
        let mut all = Vec::new();
        for number in 0..nodes.div_ceil(NODES_PER_SUBNET) {
            let cidr = format!("10.{}.{}.0/17", 10 + number / 2, 128 * (number % 2)).parse::<Prefix>()?;
            let zone = Zone::new("eu-central-1a")?;
            let new =
                NewSubnet { id: None, vpc: vpc.clone(), zone, cidr, cidr_v6: None, tags: BTreeMap::new() };
            let subnet = fake.world_mut().create_subnet(new)?;
            let count = NODES_PER_SUBNET.min(nodes - all.len());
            let launch = Launch { count: u16::try_from(count)?, ..Launch::new(KIND, subnet.clone()) };
            let Answer::Launched(_, instances) = fake.ask(launched, Action::RunInstances(launch))? else {
                bail!("RunInstances gave another answer")
            };
            all.extend(instances.iter().map(|instance| Node {
                instance: instance.id.clone(),
                subnet: subnet.clone(),
                pods,
            }));
        }
        fake.limit(Limits::default());
        fake.advance(start);
        Ok(Self { fake, now: start, nodes: all, start, vpc })
    }

    /// Seconds since the pods came.
    pub(super) fn seconds(&self) -> u64 {
        self.now.since(self.start).as_secs()
    }

    pub(super) fn pass_a_second(&mut self) {
        self.now = Timestamp(self.now.0 + 1000);
        self.fake.advance(self.now);
    }

    /// What takes no time is done.
    pub(super) fn settle(&mut self) {
        self.fake.advance(self.now);
    }

    pub(super) fn call(&mut self, action: Action) -> Result<Answer, Refusal> {
        self.fake.call(self.now, &action.into()).outcome.ok()
    }

    /// A pod uses the address from now on: EC2's books note when it is unassigned meanwhile.
    pub(super) fn claim(&mut self, node: usize, addr: IpAddr) {
        let user = User { pod: addr.to_string(), instance: self.nodes[node].instance.clone() };
        self.fake.claim(&self.vpc, addr, user);
    }

    /// No pod uses it any more.
    pub(super) fn disclaim(&mut self, addr: IpAddr) {
        self.fake.disclaim(&self.vpc, addr);
    }

    /// So many pods are to be on each node.
    pub(super) fn set_pods(&mut self, pods: usize) {
        self.nodes.iter_mut().for_each(|node| node.pods = pods);
    }

    /// The interfaces that the node really has.
    pub(super) fn interfaces(&self, node: usize) -> impl Iterator<Item = &Eni> {
        self.fake.world().interfaces_of(&self.nodes[node].instance).map(AsRef::as_ref)
    }

    pub(super) fn primary(&self, node: usize) -> Result<EniId> {
        let mut interfaces = self.interfaces(node);
        interfaces.next().map(|eni| eni.id.clone()).context("every instance has an interface")
    }

    /// Addresses for pods on interfaces that are there.
    pub(super) fn usable(&self, node: usize) -> usize {
        let there = self.interfaces(node).filter(|eni| eni.status == EniStatus::InUse);
        there.map(|eni| eni.addresses.len() + 16 * eni.prefixes.len()).sum()
    }

    /// Whether every pod can have an address.
    pub(super) fn all_served(&self) -> bool {
        (0..self.nodes.len()).all(|node| self.usable(node) >= self.nodes[node].pods)
    }

    /// Addresses that interfaces have and no pod can be using.
    pub(super) fn idle(&self) -> usize {
        let held: usize =
            self.fake.world().interfaces().map(|eni| eni.addresses.len() + 16 * eni.prefixes.len()).sum();
        held - self.nodes.iter().map(|node| node.pods).sum::<usize>()
    }

    /// Every page of a describe of all interfaces; how many are looked at in one call is EC2's limit.
    pub(super) fn describe(&mut self) -> Result<Vec<std::sync::Arc<Eni>>, Refusal> {
        let mut all = Vec::new();
        let mut question = Question { page: Some(1000), ..Question::default() };
        loop {
            let answer = self.call(Action::DescribeNetworkInterfaces(question.clone()))?;
            let Answer::Interfaces(page) = answer else { return Ok(all) };
            all.extend(page.items);
            question.token = page.next;
            if question.token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Calls since the pods came, by action.
    pub(super) fn calls(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.fake.ledger().counts().iter();
        counts
            .filter(|(name, _)| **name != "RunInstances")
            .map(|(name, count)| (*name, count.calls))
            .collect()
    }
}
