// SPDX-License-Identifier: Apache-2.0
//! Our plan as the operator runs it: a look each minute and when the plan asks for one, calls at the pace of its buckets,
//! and agents that answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use rhumb_cloud_fake::{
    Action as Call, Answer, Assign, AssignV6, Attach, Change, Detach, NewInterface, NewReservation, Question,
    Refusal, Unassign, Want, Wants,
};
use rhumb_ipam::eni::agent::{Held, share};
use rhumb_ipam::eni::{
    Action, Addresses, EniPolicy, Fault, Inputs, Memory, NodeFacts, Record, Reply, Report, View, plan,
};
use rhumb_model::{EniStatus, NodeName, PoolName, Prefix, ReservationKind, Timestamp};

use super::pace::Pace;
use super::world::World;

/// Seconds between two looks at EC2, at least between two, and until the next after one that failed.
const PERIOD: u64 = 60;
const SOONEST: u64 = 5;
const LOOK_AGAIN: u64 = 5;

/// The operator and all agents.
pub(super) struct Ours {
    inputs: Inputs,
    memory: Memory,
    pace: Pace,
    names: Vec<NodeName>,
    leased: Vec<BTreeSet<IpAddr>>,
    looked: bool,
    look_at: u64,
    looked_at: u64,
    /// When the last plan wants a look.
    look_wanted: Option<Timestamp>,
    /// For each agent the NodeConfig, the number of its links and of its pods when it last spoke.
    spoken: Vec<Option<(u64, usize, usize)>>,
    /// Whether anything changed since the last plan that called for nothing.
    changed: bool,
    wake_at: Option<Timestamp>,
    plans: u32,
    planning: Duration,
}

impl Ours {
    pub(super) fn new(world: &World, policy: EniPolicy, share: f64) -> Result<Self> {
        let pool = PoolName::new("vpc")?;
        let names = (0..world.nodes.len())
            .map(|number| NodeName::new(format!("n{number:05}")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut inputs = Inputs {
            cluster: "bench".to_owned(),
            pools: [(pool.clone(), policy)].into(),
            ..Inputs::default()
        };
        for (name, node) in names.iter().zip(&world.nodes) {
            let Some(instance) = world.fake.world().instance(&node.instance) else { continue };
            let facts = NodeFacts {
                pool: pool.clone(),
                instance: instance.as_ref().clone(),
                limits: world.fake.world().limits(&instance.kind).cloned(),
                kubelet_pods: None,
                leaving: false,
                scheduled: 0,
                record: Record::default(),
                report: None,
            };
            inputs.nodes.insert(name.clone(), facts);
        }
        let (leased, spoken) = (vec![BTreeSet::new(); names.len()], vec![None; names.len()]);
        let (memory, pace) = (Memory::default(), Pace::published(share));
        Ok(Self {
            inputs,
            memory,
            pace,
            names,
            leased,
            looked: false,
            look_at: 0,
            looked_at: 0,
            look_wanted: None,
            spoken,
            changed: true,
            wake_at: None,
            plans: 0,
            planning: Duration::ZERO,
        })
    }

    /// What a plan took of this machine, on average.
    pub(super) fn milliseconds_per_plan(&self) -> f64 {
        1e3 * self.planning.as_secs_f64() / f64::from(self.plans.max(1))
    }

    /// One second of the operator and of every agent.
    pub(super) fn step(&mut self, world: &mut World) {
        for node in 0..self.names.len() {
            self.agent(world, node);
        }
        let second = world.seconds();
        let is_wanted =
            self.look_wanted.is_some_and(|at| at <= world.now) && second >= self.looked_at + SOONEST;
        if second >= self.look_at || is_wanted {
            (self.looked_at, self.look_at) = (second, second + LOOK_AGAIN);
            if self.look(world).is_ok() {
                (self.looked, self.look_at) = (true, second + PERIOD);
                self.changed = true;
            }
        }
        let is_woken = self.wake_at.is_some_and(|at| at <= world.now);
        if !self.looked || !(self.changed || is_woken) {
            return;
        }
        // What a call gave is worked on at once: an interface that was made is attached in the same second.
        for _ in 0..2 {
            let now = world.now;
            let began = Instant::now();
            let plan = plan(&self.inputs, &mut self.memory, now);
            self.planning += began.elapsed();
            self.plans += 1;
            (self.changed, self.wake_at) = (!plan.actions.is_empty(), plan.wake_at);
            self.look_wanted = plan.look_at;
            for (name, node) in plan.nodes {
                if let Some(facts) = self.inputs.nodes.get_mut(&name)
                    && facts.record != node.record
                {
                    facts.record = node.record;
                    self.changed = true;
                }
            }
            for planned in plan.actions {
                let name = planned.action.call();
                if self.pace.take(name, second) {
                    self.memory.start(&planned.action, now);
                    let outcome = call(world, &planned.action);
                    self.memory.finish(&planned.action, &outcome, now);
                    if outcome == Err(Fault::Throttled) {
                        self.pace.refused(name, second);
                    }
                }
            }
        }
    }

    fn look(&mut self, world: &mut World) -> Result<(), Refusal> {
        let enis = world.describe()?;
        let Answer::Subnets(subnets) = world.call(Call::DescribeSubnets(Question::default()))? else {
            return Ok(());
        };
        let view = View {
            at: world.now,
            enis: enis.iter().map(|eni| (eni.id.clone(), eni.as_ref().clone())).collect(),
            subnets: subnets.items.into_iter().map(|subnet| (subnet.id.clone(), subnet)).collect(),
            ..View::default()
        };
        self.memory.see(view, &self.inputs);
        Ok(())
    }

    /// Leases for every pod that has none, and says how it stands.
    fn agent(&mut self, world: &mut World, node: usize) {
        let Some(facts) = self.inputs.nodes.get_mut(&self.names[node]) else { return };
        let ready: BTreeSet<_> = world
            .interfaces(node)
            .filter(|eni| eni.status == EniStatus::InUse)
            .map(|eni| eni.id.clone())
            .collect();
        let leased = &mut self.leased[node];
        let key = Some((facts.record.generation, ready.len(), world.nodes[node].pods));
        if self.spoken[node] == key {
            return;
        }
        self.spoken[node] = key;
        let look = |leased: &BTreeSet<IpAddr>| {
            share(&facts.record, &Held { leased, cooling: &BTreeSet::new(), ready: &ready })
        };
        let pods = world.nodes[node].pods;
        while leased.len() > pods {
            leased.pop_last().iter().for_each(|addr| world.disclaim(*addr));
        }
        let open = look(leased).open;
        let free = open.iter().flat_map(|block| (0..block.size()).filter_map(move |at| block.nth(at)));
        let free: Vec<IpAddr> =
            free.filter(|addr| !leased.contains(addr)).take(pods - leased.len()).collect();
        free.iter().for_each(|addr| world.claim(node, *addr));
        leased.extend(free);
        let share = look(leased);
        let report = Report {
            observed: share.observed,
            used: u32::try_from(leased.len()).unwrap_or(u32::MAX),
            cooling: 0,
            pending: u32::try_from(pods - leased.len()).unwrap_or(u32::MAX),
            idle: share.idle,
            released: share.released,
            declined: share.declined,
        };
        if facts.report.as_ref() != Some(&report) {
            facts.report = Some(report);
            self.changed = true;
        }
    }
}

/// Makes the call that was planned.
fn call(world: &mut World, action: &Action) -> Result<Reply, Fault> {
    let call = match action {
        Action::Create { subnet, groups, primary, addresses, prefixes_v6, tags, token, .. } => {
            let (addresses, prefixes) = wants(addresses);
            let wants =
                Wants { addresses, prefixes, prefixes_v6: Want::Count(*prefixes_v6), ..Wants::default() };
            Call::CreateNetworkInterface(NewInterface {
                groups: groups.clone(),
                primary: *primary,
                wants,
                tags: tags.clone(),
                token: Some(token.clone()),
                ..NewInterface::new(subnet.clone())
            })
        }
        Action::Attach { eni, instance, device_index, card, .. } => Call::AttachNetworkInterface(Attach {
            interface: eni.clone(),
            instance: instance.clone(),
            device_index: *device_index,
            card: *card,
        }),
        Action::SetDeleteOnTermination { eni, attachment } => Call::ModifyNetworkInterfaceAttribute(
            eni.clone(),
            Change::DeleteOnTermination(attachment.clone(), true),
        ),
        Action::SwitchOffSourceDestCheck { eni } => {
            Call::ModifyNetworkInterfaceAttribute(eni.clone(), Change::SourceDestCheck(false))
        }
        Action::SetGroups { eni, groups } => {
            Call::ModifyNetworkInterfaceAttribute(eni.clone(), Change::Groups(groups.clone()))
        }
        Action::Assign { eni, addresses, .. } => {
            let (addresses, prefixes) = wants(addresses);
            Call::AssignPrivateIpAddresses(Assign {
                interface: eni.clone(),
                addresses,
                prefixes,
                reassign: false,
            })
        }
        Action::AssignV6 { eni, .. } => Call::AssignIpv6Addresses(AssignV6 {
            interface: eni.clone(),
            addresses: Want::default(),
            prefixes: Want::Count(1),
        }),
        Action::Unassign { eni, blocks, .. } => {
            let (addresses, prefixes) = split(blocks);
            Call::UnassignPrivateIpAddresses(Unassign { interface: eni.clone(), addresses, prefixes })
        }
        Action::Detach { attachment, .. } => {
            Call::DetachNetworkInterface(Detach { attachment: attachment.clone(), force: false })
        }
        Action::Delete { eni } => Call::DeleteNetworkInterface(eni.clone()),
        Action::Reserve { subnet, cidr, tags } => Call::CreateSubnetCidrReservation(NewReservation {
            subnet: subnet.clone(),
            cidr: *cidr,
            kind: ReservationKind::Prefix,
            description: String::new(),
            tags: tags.clone(),
        }),
    };
    world.call(call).map(reply).map_err(|refusal| fault(&refusal))
}

fn reply(answer: Answer) -> Reply {
    if let Answer::Interface(eni) = answer {
        return Reply::Created(Box::new(eni.as_ref().clone()));
    }
    if let Answer::Attached(attachment, _) = answer {
        return Reply::Attached(attachment);
    }
    if let Answer::Assigned(_, addresses, prefixes) = answer {
        let single = addresses.into_iter().map(|addr| Prefix::host(IpAddr::V4(addr)));
        return Reply::Assigned(single.chain(prefixes).collect());
    }
    if let Answer::Reserved(made) = answer {
        return Reply::Reserved(made.id);
    }
    Reply::Done
}

fn fault(refusal: &Refusal) -> Fault {
    let code = refusal.code.to_string();
    match (code.as_str(), refusal.status) {
        ("RequestLimitExceeded", _) => Fault::Throttled,
        ("InsufficientFreeAddressesInSubnet" | "InsufficientCidrBlocks", _) => Fault::SubnetShort,
        ("InvalidIPAddress.InUse", _) => Fault::Taken,
        (_, 500..) => Fault::Unknown,
        _ => Fault::Stale { code },
    }
}

fn split(blocks: &[Prefix]) -> (Vec<std::net::Ipv4Addr>, Vec<Prefix>) {
    let (single, prefixes): (Vec<Prefix>, Vec<Prefix>) = blocks.iter().partition(|block| block.len() == 32);
    let addresses = single.iter().filter_map(|block| match block.addr() {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    });
    (addresses.collect(), prefixes)
}

fn wants(addresses: &Addresses) -> (Want<std::net::Ipv4Addr>, Want<Prefix>) {
    match addresses {
        Addresses::These(blocks) => {
            let (addresses, prefixes) = split(blocks);
            (Want::These(addresses), Want::These(prefixes))
        }
        Addresses::Any { addresses, prefixes } => (Want::Count(*addresses), Want::Count(*prefixes)),
    }
}
