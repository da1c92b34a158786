// SPDX-License-Identifier: Apache-2.0
//! A state of the whole: EC2, the store, one operator, an agent on each node, and what may still happen.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use rhumb_model::{CardLimit, EniId, InstanceLimits, InstanceState, NodeName, PoolName, Prefix, Timestamp};

use super::super::agent::{Held, Newest, Share, share};
use super::super::testing::{eni_id, facts, inputs, node, pool};
use super::super::{Action, EniPolicy, Inputs, Key, LAG, Memory, NodeFacts, Record, Report, Unit};
use super::ec2::{Ec2, NAMES, name_of};

/// What the model leaves out, to show that it would be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    Nothing,
    /// The operator takes an answer to an older question for one to this.
    Generations,
    /// The agent goes back to an older NodeConfig.
    Order,
    /// EC2's views lag by more than is allowed for.
    BoundedLag,
    /// The numbers of a NodeConfig that is made anew begin with 1 again.
    Epochs,
    /// The agent says that it let a block go, and leases from it until it gets round to it.
    DropFirst,
    /// An agent that starts knows nothing of the leases there are.
    Journal,
    /// An agent that starts takes an older NodeConfig for the newest.
    FreshRead,
    /// One look that does not show a block is enough.
    SecondLook,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub(super) nodes: usize,
    /// Interfaces of a node, and blocks for pods of each.
    pub(super) interfaces: u8,
    pub(super) slots: u16,
    /// The unit of IPv4; with or without a /80.
    pub(super) unit: Unit,
    pub(super) ipv6: bool,
    /// The first block that is not to be had.
    pub(super) end: u8,
    /// How many blocks a node wants at most.
    pub(super) most: u32,
    pub(super) events: Events,
    pub(super) without: Without,
}

/// What happens seldom, and each time counts as one of the events there may be. Whatever else is possible happens at any
/// time and any number of times: plans, deliveries of what is newest, looks at what is, ends of calls and of pods, time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Events {
    /// A node wants another number of blocks.
    pub(super) demands: bool,
    /// A pod gets an address.
    pub(super) leases: bool,
    /// The operator or an agent dies.
    pub(super) crashes: bool,
    /// The reply of a call is lost, whether it had its effect or not.
    pub(super) lost: bool,
    /// A look shows EC2 as it was, or a version that is no longer the newest is delivered.
    pub(super) stale: bool,
    /// Somebody else detaches an interface.
    pub(super) thefts: bool,
    /// The instance ends, or the Node object goes or comes back.
    pub(super) turns: bool,
}

/// Parts that a step leaves as they are belong to both states.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) setting: Setting,
    /// How many events there may still be.
    pub(super) left: u8,
    pub(super) tick: u64,
    pub(super) ec2: Rc<Ec2>,
    /// What a look may show.
    pub(super) past: Rc<BTreeSet<Rc<Ec2>>>,
    pub(super) calls: Vec<Call>,
    pub(super) operator: Option<Rc<Operator>>,
    /// Whether some operator died.
    pub(super) succeeded: bool,
    pub(super) sites: Vec<Rc<Site>>,
}

/// A call on its way.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) action: Rc<Action>,
    pub(super) since: u64,
    /// Whether the operator that made it is there still.
    pub(super) is_awaited: bool,
}

/// One node: its objects, its agent and its pods.
#[derive(Debug, Clone, Default)]
pub(super) struct Site {
    /// How many blocks it wants.
    pub(super) wanted: u32,
    /// Versions of the NodeConfig; of generation 0 where it is deleted.
    pub(super) configs: Vec<Record>,
    pub(super) statuses: Vec<Report>,
    /// The instance that the Node object names.
    pub(super) node: Option<u8>,
    pub(super) agent: Option<Agent>,
    /// Addresses that pods have: the journal outlives the agent.
    pub(super) leased: BTreeSet<IpAddr>,
    /// Those whose interface somebody else took away.
    pub(super) cut: BTreeSet<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Operator {
    pub(super) memory: Memory,
    pub(super) known: Vec<Known>,
}

/// What the operator knows of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) config: Record,
    pub(super) status: Option<Report>,
    pub(super) node: Option<u8>,
    /// The instance as the last look showed it.
    pub(super) seen: Option<(u8, bool)>,
    /// Since when the node is missed.
    pub(super) gone: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Agent {
    pub(super) newest: Newest,
    pub(super) record: Record,
    /// What it still leases from, where that is not the record.
    pub(super) pool: Option<Record>,
    pub(super) knows_leases: bool,
}

impl Site {
    pub(super) fn config(&self) -> &Record {
        self.configs.last().expect("never empty")
    }

    /// What the agent says about a record.
    fn share(&self, ec2: &Ec2, node: usize, record: &Record) -> Share {
        let ready: BTreeSet<EniId> = ec2.linked(node).map(|(id, _)| id.clone()).collect();
        let none = BTreeSet::new();
        let knows = self.agent.as_ref().is_some_and(|agent| agent.knows_leases);
        let leased = if knows { &self.leased } else { &none };
        share(record, &Held { leased, cooling: &none, ready: &ready })
    }

    /// Pods by IPv4.
    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.leased.iter().filter(|addr| addr.is_ipv4()).count()).expect("few")
    }
}

impl State {
    /// Nodes whose agents have said that they read what EC2 holds, which is nothing for pods.
    pub(super) fn first(setting: Setting, left: u8) -> Self {
        let ec2 = Rc::new(Ec2::new(setting.nodes, setting.unit, setting.end));
        let site = Site {
            configs: vec![Record::default()],
            statuses: vec![Report::default()],
            node: Some(0),
            ..Site::default()
        };
        let mut state = Self {
            setting,
            left,
            tick: 10,
            past: Rc::new([Rc::clone(&ec2)].into()),
            ec2,
            calls: Vec::new(),
            operator: None,
            succeeded: false,
            sites: (0..setting.nodes).map(|_| Rc::new(site.clone())).collect(),
        };
        state.start_operator();
        (0..setting.nodes).for_each(|site| state.start_agent(site));
        state
    }

    /// The state where nodes want so many blocks.
    pub(super) fn wanting(mut self, wanted: &[u32]) -> Self {
        wanted.iter().enumerate().for_each(|(at, wanted)| self.site(at).wanted = *wanted);
        self
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.tick * u64::try_from(LAG.as_millis()).expect("short"))
    }

    /// What the plan is made of, as far as the operator knows it.
    pub(super) fn inputs(&self, operator: &Operator) -> Inputs {
        let mut all = inputs(EniPolicy::default(), []);
        all.orphan_age = Duration::ZERO;
        all.pools.clear();
        for (site, known) in operator.known.iter().enumerate() {
            let (Some(instance), Some((seen, runs))) = (known.node, known.seen) else { continue };
            if instance == seen {
                let (name, facts) = (node(NAMES[site]), self.facts(site, known, instance, runs));
                all.pools.insert(facts.pool.clone(), self.policy(site));
                all.nodes.insert(name, facts);
            }
        }
        all
    }

    fn policy(&self, site: usize) -> EniPolicy {
        EniPolicy {
            unit: Some(self.setting.unit),
            ipv6: self.setting.ipv6,
            pre_allocate: 0,
            min_allocate: self.wanted(site),
            settle: Duration::ZERO,
            release_delay: Duration::ZERO,
            interfaces_per_hour: u32::MAX,
            ..EniPolicy::default()
        }
    }

    /// How many addresses the node wants, pods or not.
    pub(super) fn wanted(&self, site: usize) -> u32 {
        self.sites[site].wanted * self.setting.unit.size()
    }

    fn facts(&self, site: usize, known: &Known, instance: u8, runs: bool) -> NodeFacts {
        let limits = InstanceLimits {
            interfaces: self.setting.interfaces,
            v4_per_interface: self.setting.slots + 1,
            v6_per_interface: self.setting.slots + 1,
            cards: vec![CardLimit { card: 0, interfaces: self.setting.interfaces }],
            prefixes: true,
            vcpus: 2,
        };
        let mut facts = facts(&name_of(site, instance), limits);
        if site > 0 {
            facts.pool = PoolName::new(NAMES[site]).expect("valid");
        } else {
            facts.pool = pool();
        }
        facts.instance.state = if runs { InstanceState::Running } else { InstanceState::Terminated };
        facts.record = known.config.clone();
        facts.report = known.status.clone();
        if self.setting.without == Without::Generations
            && let Some(report) = &mut facts.report
        {
            for word in report.released.iter_mut().chain(&mut report.declined) {
                let asked = facts.record.blocks.iter().find(|block| block.cidr == word.cidr);
                word.generation = asked.and_then(|block| block.releasing).unwrap_or(word.generation);
            }
        }
        facts
    }

    pub(super) fn start_operator(&mut self) {
        let known = self.sites.iter().map(|site| Known {
            config: site.config().clone(),
            node: site.node,
            ..Known::default()
        });
        self.operator = Some(Rc::new(Operator { known: known.collect(), ..Operator::default() }));
    }

    pub(super) fn start_agent(&mut self, site: usize) {
        let without = self.setting.without;
        let site = self.site(site);
        let is_fresh = without != Without::FreshRead;
        let record = if is_fresh { site.configs.last() } else { site.configs.first() };
        let record = record.expect("never empty").clone();
        let knows_leases = without != Without::Journal;
        let mut newest = Newest::default();
        newest.take(record.generation);
        site.agent = Some(Agent { newest, record, pool: None, knows_leases });
    }

    /// What the agent says.
    pub(super) fn says(&self, site: usize) -> Option<Report> {
        let it = &self.sites[site];
        let share = it.share(&self.ec2, site, &it.agent.as_ref()?.record);
        Some(Report {
            observed: share.observed,
            used: it.used(),
            idle: share.idle,
            released: share.released,
            declined: share.declined,
            ..Report::default()
        })
    }

    /// What the agent leases from.
    pub(super) fn open(&self, site: usize) -> Vec<Prefix> {
        let it = &self.sites[site];
        let Some(agent) = &it.agent else { return Vec::new() };
        it.share(&self.ec2, site, agent.pool.as_ref().unwrap_or(&agent.record)).open
    }

    /// The name of an interface that nobody ever heard of: names do not come again while somebody remembers them.
    pub(super) fn new_eni(&self) -> EniId {
        let memory = self.operator.as_ref().map(|operator| &operator.memory);
        let is_known = |id: &EniId| {
            self.past.iter().any(|ec2| ec2.nics.contains_key(id))
                || self.calls.iter().any(|call| call.action.key() == Key::Eni(id.clone()))
                || self.sites.iter().flat_map(|site| &site.configs).any(|it| it.interfaces.contains(id))
                || memory.is_some_and(|memory| {
                    memory.view().enis.contains_key(id) || memory.absent.keys().any(|(eni, _)| eni == id)
                })
        };
        let names = (1..).map(|n| eni_id(&format!("s{n}")));
        names.into_iter().find(|id| !is_known(id)).expect("numbers do not end")
    }

    /// The node, to be changed.
    pub(super) fn site(&mut self, at: usize) -> &mut Site {
        Rc::make_mut(&mut self.sites[at])
    }

    /// The operator, to be changed; `None` when there is none.
    pub(super) fn operator(&mut self) -> Option<&mut Operator> {
        self.operator.as_mut().map(Rc::make_mut)
    }

    pub(super) fn name(site: usize) -> NodeName {
        node(NAMES[site])
    }
}
