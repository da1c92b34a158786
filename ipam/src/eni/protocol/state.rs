// SPDX-License-Identifier: Apache-2.0
//! A state of the whole, what may happen next in it, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{CardLimit, EniId, InstanceLimits, InstanceState, Prefix, Timestamp};

use super::super::agent::{Held, Newest, Share, share};
use super::super::testing::{facts, inputs, node};
use super::super::{Action, EniPolicy, Fault, Inputs, LAG, Memory, Record, Report, plan};
use super::ec2::{Ec2, Place, name_of};

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
}

/// How many old versions of an object may still be delivered.
const VERSIONS: usize = 2;
/// For how many ticks a node is gone before its NodeConfig is.
const GRACE: u64 = 2;

/// What may happen how often, and what the node may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Interfaces, and addresses for pods of each.
    pub(super) interfaces: u8,
    pub(super) slots: u16,
    /// How many addresses are wanted at most.
    pub(super) wanted: u32,
    /// How often operator or agent die.
    pub(super) crashes: u8,
    /// How often somebody else detaches an interface.
    pub(super) thefts: u8,
    /// How often the instance ends, or the Node object goes or comes back.
    pub(super) turns: u8,
    pub(super) without: Without,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) left: Bounds,
    pub(super) tick: u64,
    pub(super) ec2: Ec2,
    /// What a look may show.
    pub(super) past: BTreeSet<Ec2>,
    /// Calls on the way, and since when.
    pub(super) calls: Vec<(Action, u64)>,
    /// Versions of the NodeConfig; of generation 0 where it is deleted.
    pub(super) configs: Vec<Record>,
    pub(super) statuses: Vec<Report>,
    /// The instance that the Node object names.
    pub(super) node: Option<u8>,
    pub(super) operator: Option<Operator>,
    pub(super) agent: Option<Agent>,
    /// Addresses that pods have: the journal outlives the agent.
    pub(super) leased: BTreeSet<IpAddr>,
    /// Those whose interface somebody else took away.
    pub(super) cut: BTreeSet<IpAddr>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Operator {
    pub(super) memory: Memory,
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Plan(u32),
    Look(Ec2),
    Read(usize),
    ReadNode,
    Forget,
    Hear(usize),
    Say,
    Lease(IpAddr),
    Free(IpAddr),
    Call(usize, End),
    Detached(EniId),
    Tick,
    OperatorDies,
    OperatorStarts,
    AgentDies,
    AgentStarts,
    SomebodyDetaches(EniId),
    InstanceEnds,
    NodeGoes,
    NodeReturns,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    ReplyLost,
    Nothing,
}

impl State {
    /// A node whose agent has said that it read what EC2 holds.
    pub(super) fn first(ec2: Ec2, left: Bounds) -> Self {
        let mut state = Self {
            left,
            tick: 10,
            past: [ec2.clone()].into(),
            ec2,
            calls: Vec::new(),
            configs: vec![Record::default()],
            statuses: vec![Report::default()],
            node: Some(0),
            operator: None,
            agent: None,
            leased: BTreeSet::new(),
            cut: BTreeSet::new(),
        };
        state.start_operator();
        state.start_agent();
        let look = Step::Look(state.ec2.clone());
        state.does(&[look, Step::Plan(left.wanted), Step::Hear(1), Step::Say, Step::Read(1)])
    }

    /// The state after these steps, each of which is possible.
    pub(super) fn does(self, steps: &[Step]) -> Self {
        steps.iter().fold(self, |state, step| {
            state.after(step).unwrap_or_else(|| panic!("{step:?}: nothing changes"))
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.tick * u64::try_from(LAG.as_millis()).expect("short"))
    }

    fn inputs(&self, operator: &Operator, wanted: u32) -> Inputs {
        let policy = EniPolicy {
            pre_allocate: 0,
            min_allocate: wanted,
            max_allocate: Some(wanted.max(1)),
            settle: Duration::ZERO,
            release_delay: Duration::ZERO,
            ..EniPolicy::default()
        };
        let (Some(instance), Some((seen, runs))) = (operator.node, operator.seen) else {
            return inputs(policy, []);
        };
        if instance != seen {
            return inputs(policy, []);
        }
        let limits = InstanceLimits {
            interfaces: self.left.interfaces,
            v4_per_interface: self.left.slots + 1,
            v6_per_interface: 1,
            cards: vec![CardLimit { card: 0, interfaces: self.left.interfaces }],
            prefixes: false,
            vcpus: 2,
        };
        let mut facts = facts(&name_of(instance), limits);
        facts.instance.state = if runs { InstanceState::Running } else { InstanceState::Terminated };
        facts.record = operator.config.clone();
        facts.report = operator.status.clone();
        if let Some(report) = &mut facts.report {
            // Pods count by their leases alone: wanting less than they have is the harder case.
            report.used = 0;
            if self.left.without == Without::Generations {
                let blocks = facts.record.blocks.iter();
                let asked: BTreeMap<Prefix, u64> =
                    blocks.filter_map(|block| Some((block.cidr, block.releasing?))).collect();
                for word in report.released.iter_mut().chain(&mut report.declined) {
                    word.generation = asked.get(&word.cidr).copied().unwrap_or(word.generation);
                }
            }
        }
        inputs(policy, [("a", facts)])
    }

    fn start_operator(&mut self) {
        let config = self.configs.last().cloned().unwrap_or_default();
        self.operator = Some(Operator { config, node: self.node, ..Operator::default() });
    }

    fn start_agent(&mut self) {
        let record = self.configs.last().cloned().unwrap_or_default();
        let mut newest = Newest::default();
        newest.take(record.generation);
        self.agent = Some(Agent { newest, record });
    }

    pub(super) fn share(&self) -> Option<Share> {
        let ready: BTreeSet<EniId> = self.ec2.linked().map(|(id, _)| id.clone()).collect();
        let held = Held { leased: &self.leased, cooling: &BTreeSet::new(), ready: &ready };
        self.agent.as_ref().map(|agent| share(&agent.record, &held))
    }

    /// Everything that may happen next.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let dies = self.left.crashes > 0;
        if let Some(operator) = &self.operator {
            steps.extend((0..=self.left.wanted).map(Step::Plan));
            steps.extend(self.past.iter().cloned().map(Step::Look));
            steps.extend((0..self.statuses.len()).map(Step::Read));
            if operator.node != self.node {
                steps.push(Step::ReadNode);
            }
            if operator.gone.is_some() {
                steps.push(Step::Forget);
            }
            steps.extend(dies.then_some(Step::OperatorDies));
        } else {
            steps.push(Step::OperatorStarts);
        }
        if self.agent.is_some() {
            steps.extend((0..self.configs.len()).map(Step::Hear));
            steps.push(Step::Say);
            let open = self.share().map(|share| share.open).unwrap_or_default();
            let open = open.into_iter().map(|block| block.addr());
            steps.extend(open.filter(|addr| !self.leased.contains(addr)).map(Step::Lease));
            steps.extend(self.leased.iter().copied().map(Step::Free));
            steps.extend(dies.then_some(Step::AgentDies));
        } else if self.ec2.runs {
            steps.push(Step::AgentStarts);
        }
        for call in 0..self.calls.len() {
            steps.extend([End::Done, End::ReplyLost, End::Nothing].map(|end| Step::Call(call, end)));
        }
        for (id, nic) in self.ec2.later() {
            match nic.place {
                Place::At(_) if self.left.thefts > 0 => steps.push(Step::SomebodyDetaches(id.clone())),
                Place::Leaving(_) => steps.push(Step::Detached(id.clone())),
                Place::At(_) | Place::Free => {}
            }
        }
        if self.left.turns > 0 {
            steps.push(if self.node.is_some() { Step::NodeGoes } else { Step::NodeReturns });
            steps.extend(self.ec2.runs.then_some(Step::InstanceEnds));
        }
        // A call has its effect within the time by which looks lag, or none.
        if self.calls.iter().all(|(_, since)| *since == self.tick) || self.left.without == Without::BoundedLag
        {
            steps.push(Step::Tick);
        }
        steps
    }

    /// The state after a step; `None` when nothing changes.
    pub(super) fn after(&self, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Plan(wanted) => next.plan(*wanted)?,
            Step::Look(seen) => {
                let operator = next.operator.as_mut()?;
                operator.seen = Some((seen.instance, seen.runs));
                let inputs = self.inputs(operator, 0);
                operator.memory.see(seen.view(self.now()), &inputs);
            }
            Step::Read(version) => {
                next.operator.as_mut()?.status = Some(self.statuses.get(*version)?.clone());
            }
            Step::ReadNode => {
                let operator = next.operator.as_mut()?;
                operator.node = self.node;
                operator.gone = self.node.is_none().then_some(operator.gone.unwrap_or(self.tick));
            }
            Step::Forget => next.forget()?,
            Step::Hear(version) => {
                let record = self.configs.get(*version)?.clone();
                let agent = next.agent.as_mut()?;
                let is_deleted = record.generation == 0;
                if is_deleted || agent.newest.take(record.generation) || self.left.without == Without::Order {
                    agent.record = record;
                }
            }
            Step::Say => {
                let share = self.share()?;
                let report = Report {
                    observed: share.observed,
                    idle: share.idle,
                    released: share.released,
                    declined: share.declined,
                    ..Report::default()
                };
                if self.statuses.last() == Some(&report) {
                    return None;
                }
                keep(&mut next.statuses, report);
            }
            Step::Lease(addr) => {
                next.leased.insert(*addr);
            }
            Step::Free(addr) => {
                next.leased.remove(addr);
            }
            Step::Call(number, end) => next.end(*number, *end),
            Step::Detached(id) => next.change(|ec2| {
                if let Some(nic) = ec2.nics.get_mut(id) {
                    nic.place = Place::Free;
                }
            }),
            Step::Tick => {
                next.tick += 1;
                if self.left.without != Without::BoundedLag {
                    next.past = [next.ec2.clone()].into();
                }
            }
            Step::OperatorDies => (next.operator, next.left.crashes) = (None, next.left.crashes - 1),
            Step::AgentDies => (next.agent, next.left.crashes) = (None, next.left.crashes - 1),
            Step::OperatorStarts => next.start_operator(),
            Step::AgentStarts => next.start_agent(),
            Step::SomebodyDetaches(id) => next.steal(id),
            Step::InstanceEnds => {
                next.left.turns -= 1;
                next.change(Ec2::terminate);
                (next.agent, next.leased, next.cut) = (None, BTreeSet::new(), BTreeSet::new());
            }
            Step::NodeGoes => (next.node, next.left.turns) = (None, next.left.turns - 1),
            Step::NodeReturns => {
                next.left.turns -= 1;
                if !next.ec2.runs {
                    next.change(|ec2| ec2.launch(ec2.instance + 1));
                }
                next.node = Some(next.ec2.instance);
            }
        }
        Some(next)
    }

    /// Something happens in EC2; looks may still show how it was before.
    fn change(&mut self, what: impl FnOnce(&mut Ec2)) {
        what(&mut self.ec2);
        self.past.insert(self.ec2.clone());
        let ec2 = &self.ec2;
        self.cut.retain(|addr| !ec2.serves(*addr));
    }

    fn steal(&mut self, id: &EniId) {
        self.left.thefts -= 1;
        let blocks = self.ec2.nics.get(id).map(|nic| nic.blocks.clone()).unwrap_or_default();
        self.change(|ec2| {
            if let Some(nic) = ec2.nics.get_mut(id) {
                nic.place = Place::Free;
            }
        });
        let cut = self.leased.iter().filter(|addr| blocks.contains(&Prefix::host(**addr)));
        self.cut.extend(cut);
    }

    fn plan(&mut self, wanted: u32) -> Option<()> {
        let now = self.now();
        let inputs = self.inputs(self.operator.as_ref()?, wanted);
        let operator = self.operator.as_mut()?;
        let plan = plan(&inputs, &mut operator.memory, now);
        if let Some(planned) = plan.nodes.get(&node("a"))
            && planned.record != operator.config
        {
            // Only over the version that it read.
            if self.configs.last() != Some(&operator.config) {
                return None;
            }
            let mut record = planned.record.clone();
            if self.left.without == Without::Epochs && operator.config.generation == 0 {
                record.generation = 1;
            }
            operator.config = record.clone();
            keep(&mut self.configs, record);
            return Some(());
        }
        let call = plan.actions.into_iter().next()?;
        operator.memory.start(&call.action, now);
        self.calls.push((call.action, self.tick));
        Some(())
    }

    /// Deletes what there is of a node that has been gone for long enough.
    fn forget(&mut self) -> Option<()> {
        let operator = self.operator.as_mut()?;
        let is_over = operator.gone.is_some_and(|since| self.tick >= since + GRACE);
        if !is_over || operator.config.generation == 0 || self.configs.last() != Some(&operator.config) {
            return None;
        }
        operator.config = Record::default();
        keep(&mut self.configs, Record::default());
        keep(&mut self.statuses, Report::default());
        Some(())
    }

    fn end(&mut self, number: usize, end: End) {
        let (action, _) = self.calls.remove(number);
        let mut outcome = Err(Fault::Unknown);
        if end != End::Nothing {
            self.change(|ec2| outcome = ec2.call(&action));
        }
        if end == End::ReplyLost {
            outcome = Err(Fault::Unknown);
        }
        let now = self.now();
        // An operator that started since knows nothing of the call.
        let operator =
            self.operator.as_mut().filter(|it| it.memory.flying.values().any(|mine| *mine == action));
        if let Some(operator) = operator {
            operator.memory.finish(&action, &outcome, now);
        }
    }

    /// What must hold in every state.
    pub(super) fn check(&self) -> Result<(), String> {
        for addr in &self.leased {
            if !self.ec2.serves(*addr) && !self.cut.contains(addr) {
                return Err(format!("a pod has {addr}, which EC2 does not hold"));
            }
        }
        let mut once = BTreeSet::new();
        for block in self.ec2.nics.values().flat_map(|nic| &nic.blocks) {
            if !once.insert(*block) {
                return Err(format!("{block} was given twice"));
            }
        }
        Ok(())
    }

    /// With nobody dying and everything delivered, the node ends with exactly what is wanted, and EC2 with no more.
    pub(super) fn settles(&self, wanted: u32) -> Result<(), String> {
        let mut state = self.clone();
        (state.left.thefts, state.left.turns, state.left.crashes) = (0, 0, 0);
        for _ in 0..60 {
            state.leased.clear();
            while !state.calls.is_empty() {
                state.end(0, End::Done);
                state.check()?;
            }
            let leaving: Vec<EniId> = state.ec2.nics.keys().cloned().collect();
            for id in leaving {
                if state.ec2.nics.get(&id).is_some_and(|nic| matches!(nic.place, Place::Leaving(_))) {
                    state = state.does(&[Step::Detached(id)]);
                }
            }
            if state.operator.is_none() {
                state.start_operator();
            }
            if state.agent.is_none() && state.ec2.runs {
                state.start_agent();
            }
            for step in
                [Step::Hear(usize::MAX), Step::Say, Step::Tick, Step::ReadNode, Step::Read(usize::MAX)]
            {
                state = state.takes(step);
            }
            let look = Step::Look(state.ec2.clone());
            for step in [look, Step::Forget, Step::Plan(wanted), Step::Plan(wanted), Step::Plan(wanted)] {
                state = state.takes(step);
            }
            state.check()?;
            if state.is_settled(wanted) {
                return Ok(());
            }
        }
        let record = state.configs.last().expect("never empty");
        Err(format!("{wanted} wanted: EC2 has {:?}, the NodeConfig says {:?}", state.ec2, record.blocks))
    }

    /// The state after a step, or the same; of versions the newest for one that there is not.
    fn takes(self, step: Step) -> Self {
        let step = if let Step::Hear(_) = step {
            Step::Hear(self.configs.len() - 1)
        } else if let Step::Read(_) = step {
            Step::Read(self.statuses.len() - 1)
        } else {
            step
        };
        self.after(&step).unwrap_or(self)
    }

    fn is_settled(&self, wanted: u32) -> bool {
        let record = self.configs.last().expect("never empty");
        let is_quiet = self.calls.is_empty() && record.blocks.iter().all(|block| block.releasing.is_none());
        let leaks = self.ec2.later().any(|(_, nic)| nic.place == Place::Free);
        let held: BTreeSet<Prefix> = record.blocks.iter().map(|block| block.cidr).collect();
        let linked: BTreeSet<Prefix> =
            self.ec2.linked().flat_map(|(_, nic)| nic.blocks.iter().copied()).collect();
        match (self.node, self.ec2.runs) {
            (Some(_), true) => {
                let has_read = self.agent.as_ref().is_some_and(|agent| agent.record == *record);
                held == linked
                    && held.len() == usize::try_from(wanted).expect("few")
                    && is_quiet
                    && !leaks
                    && has_read
            }
            // An instance that is gone is left alone for as long as it has a Node object.
            (Some(_), false) => self.calls.is_empty(),
            (None, _) => record.generation == 0 && self.calls.is_empty() && !leaks,
        }
    }
}

fn keep<T>(versions: &mut Vec<T>, newest: T) {
    versions.push(newest);
    if versions.len() > VERSIONS {
        versions.remove(0);
    }
}
