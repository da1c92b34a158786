// SPDX-License-Identifier: Apache-2.0
//! All interleavings, up to a bound, of an operator, an agent and EC2 that hand two addresses to and fro.
//!
//! Operator and agent are the real ones ([`super::plan()`], [`super::agent::share`]). Either may die at any step and loses
//! what it has in memory; a call may have its effect late, or have it and lose its reply; a look shows EC2 as it was at
//! any time within [`LAG`]; what one side wrote reaches the other late, twice, or in another order. Whoever starts reads
//! the store as it is.
//!
//! Time goes in steps of [`LAG`]; numbers that only grow are compared by their distance, so that the states are finite.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::net::IpAddr;

use rhumb_model::{Prefix, Timestamp};

use super::agent::{Held, Newest, share};
use super::effects::Effect;
use super::testing::{attached, eni, eni_id, facts, inputs, m5_large, node, subnet, subnet_id};
use super::{
    Action, Addresses, EniPolicy, Fault, Inputs, LAG, Memory, Record, Reply, Report, View, Word, plan,
};

/// What the model leaves out, to show that it would be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The operator takes an answer to an older question for one to this.
    Generations,
    /// The agent goes back to an older NodeConfig.
    Order,
    /// EC2's views lag by more than is allowed for.
    BoundedLag,
}

/// How many old versions of an object may still be delivered.
const VERSIONS: usize = 2;
const CRASHES: u8 = 1;
/// How many states are looked at: half a minute on one core, without optimisation.
const STATES: usize = 12_000;

#[derive(Debug, Clone)]
struct State {
    tick: u64,
    ec2: BTreeSet<Prefix>,
    /// What a look may show.
    past: BTreeSet<BTreeSet<Prefix>>,
    /// Calls on the way, and since when.
    calls: Vec<(Action, u64)>,
    configs: Vec<Record>,
    statuses: Vec<Report>,
    operator: Option<Operator>,
    agent: Option<Agent>,
    /// Addresses that pods have: the journal outlives the agent.
    leased: BTreeSet<IpAddr>,
    crashes: u8,
}

#[derive(Debug, Clone, Default)]
struct Operator {
    memory: Memory,
    config: Record,
    status: Option<Report>,
}

#[derive(Debug, Clone, Default)]
struct Agent {
    newest: Newest,
    record: Record,
}

fn host(text: &str) -> Prefix {
    format!("{text}/32").parse().expect("valid")
}

/// The two addresses that the subnet has left.
fn pair() -> BTreeSet<Prefix> {
    [host("10.0.0.5"), host("10.0.0.6")].into()
}

impl State {
    fn first() -> Self {
        let mut state = Self {
            tick: 10,
            ec2: BTreeSet::from([host("10.0.0.5")]),
            past: BTreeSet::new(),
            calls: Vec::new(),
            configs: vec![Record::default()],
            statuses: vec![Report::default()],
            operator: None,
            agent: None,
            leased: BTreeSet::new(),
            crashes: CRASHES,
        };
        state.past.insert(state.ec2.clone());
        state.start_operator();
        state.start_agent();
        // The first address is published, and the agent has said so.
        for step in [Step::Look(state.ec2.clone()), Step::Plan(1), Step::Hear(1), Step::Say, Step::Read(1)] {
            state = state.after(&step, Without::Nothing).expect("possible");
        }
        state
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.tick * u64::try_from(LAG.as_millis()).expect("short"))
    }

    fn view(&self, ec2: &BTreeSet<Prefix>) -> View {
        let mut view = View { at: self.now(), ..View::default() };
        view.subnets.insert(subnet_id("a"), subnet("a", "10.0.0.0/28"));
        let mut primary = attached(eni("p", "a", "10.0.0.4"), "a", 0);
        for block in ec2 {
            if let IpAddr::V4(addr) = block.addr() {
                primary.addresses.push(addr);
            }
        }
        let mut others = eni("x", "a", "10.0.0.7");
        others.addresses = (8..15u8).map(|last| [10, 0, 0, last].into()).collect();
        view.enis = [primary, others].map(|eni| (eni.id.clone(), eni)).into();
        view
    }

    fn inputs(operator: &Operator, wanted: u32, without: Without) -> Inputs {
        let mut node = facts("a", m5_large());
        node.record = operator.config.clone();
        node.report = operator.status.clone();
        if let (Without::Generations, Some(report)) = (without, &mut node.report) {
            let asked: BTreeMap<Prefix, u64> =
                node.record.blocks.iter().filter_map(|block| Some((block.cidr, block.releasing?))).collect();
            for word in report.released.iter_mut().chain(&mut report.declined) {
                word.generation = asked.get(&word.cidr).copied().unwrap_or(word.generation);
            }
        }
        let policy = EniPolicy {
            pre_allocate: 0,
            min_allocate: wanted,
            max_allocate: Some(wanted.max(1)),
            settle: std::time::Duration::ZERO,
            release_delay: std::time::Duration::ZERO,
            ..EniPolicy::default()
        };
        // Pods count by their leases alone: wanting less than they have is the harder case.
        if let Some(report) = &mut node.report {
            report.used = 0;
        }
        inputs(policy, [("a", node)])
    }

    fn start_operator(&mut self) {
        let config = self.configs.last().cloned().unwrap_or_default();
        self.operator = Some(Operator { config, ..Operator::default() });
    }

    fn start_agent(&mut self) {
        let record = self.configs.last().cloned().unwrap_or_default();
        let mut newest = Newest::default();
        newest.take(&record);
        self.agent = Some(Agent { newest, record });
    }

    fn share(&self) -> Option<super::agent::Share> {
        let ready = BTreeSet::from([eni_id("p")]);
        let held = Held { leased: &self.leased, cooling: &BTreeSet::new(), ready: &ready };
        self.agent.as_ref().map(|agent| share(&agent.record, &held))
    }

    /// Everything that may happen next.
    fn steps(&self, without: Without) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(operator) = &self.operator {
            steps.extend((0..=2).map(Step::Plan));
            steps.extend(self.past.iter().cloned().map(Step::Look));
            steps.extend((0..self.statuses.len()).map(Step::Read));
            if self.crashes > 0 {
                steps.push(Step::OperatorDies);
            }
            debug_assert!(operator.memory.flying.len() <= 1, "one interface");
        } else {
            steps.push(Step::OperatorStarts);
        }
        if self.agent.is_some() {
            steps.extend((0..self.configs.len()).map(Step::Hear));
            steps.push(Step::Say);
            let open = self.share().map(|share| share.open).unwrap_or_default();
            steps.extend(
                open.into_iter()
                    .map(|block| block.addr())
                    .filter(|addr| !self.leased.contains(addr))
                    .map(Step::Lease),
            );
            if self.crashes > 0 {
                steps.push(Step::AgentDies);
            }
            steps.extend(self.leased.iter().copied().map(Step::Free));
        } else {
            steps.push(Step::AgentStarts);
        }
        for call in 0..self.calls.len() {
            steps.extend([End::Done, End::ReplyLost, End::Nothing].map(|end| Step::Call(call, end)));
        }
        // A call has its effect within the time by which looks lag, or none.
        if self.calls.iter().all(|(_, since)| *since == self.tick) || without == Without::BoundedLag {
            steps.push(Step::Tick);
        }
        steps
    }

    /// The state after a step; `None` when nothing changes.
    fn after(&self, step: &Step, without: Without) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Plan(wanted) => next.plan(*wanted, without)?,
            Step::Look(seen) => {
                let view = self.view(seen);
                let operator = next.operator.as_mut()?;
                let inputs = Self::inputs(operator, 0, without);
                operator.memory.see(view, &inputs);
            }
            Step::Read(version) => {
                next.operator.as_mut()?.status = Some(self.statuses.get(*version)?.clone());
            }
            Step::Hear(version) => {
                let record = self.configs.get(*version)?.clone();
                let agent = next.agent.as_mut()?;
                if agent.newest.take(&record) || without == Without::Order {
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
            Step::Call(number, end) => next.end(*number, *end)?,
            Step::Tick => {
                next.tick += 1;
                if without != Without::BoundedLag {
                    next.past = BTreeSet::from([next.ec2.clone()]);
                }
            }
            Step::OperatorDies => (next.operator, next.crashes) = (None, next.crashes - 1),
            Step::AgentDies => (next.agent, next.crashes) = (None, next.crashes - 1),
            Step::OperatorStarts => next.start_operator(),
            Step::AgentStarts => next.start_agent(),
        }
        Some(next)
    }

    fn plan(&mut self, wanted: u32, without: Without) -> Option<()> {
        let now = self.now();
        let operator = self.operator.as_mut()?;
        let inputs = Self::inputs(operator, wanted, without);
        let plan = plan(&inputs, &mut operator.memory, now);
        let record = plan.nodes.get(&node("a"))?.record.clone();
        if record != operator.config {
            // Only over the version that it read.
            if self.configs.last() != Some(&operator.config) {
                return None;
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

    fn end(&mut self, number: usize, end: End) -> Option<()> {
        let (action, _) = self.calls.remove(number);
        let mut reply = Reply::Done;
        if end != End::Nothing {
            let blocks = moved(&action);
            if let Action::Unassign { .. } = &action {
                self.ec2.retain(|block| !blocks.contains(block));
            } else {
                self.ec2.extend(&blocks);
                reply = Reply::Assigned(blocks);
            }
            self.past.insert(self.ec2.clone());
        }
        let now = self.now();
        let outcome = match end {
            End::Done => Ok(reply),
            End::ReplyLost | End::Nothing => Err(Fault::Unknown),
        };
        // An operator that started since knows nothing of the call.
        let operator =
            self.operator.as_mut().filter(|it| it.memory.flying.values().any(|mine| *mine == action));
        if let Some(operator) = operator {
            operator.memory.finish(&action, &outcome, now);
        }
        Some(())
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        for addr in &self.leased {
            if !self.ec2.contains(&Prefix::host(*addr)) {
                return Err(format!("a pod has {addr}, which EC2 does not hold"));
            }
        }
        if !self.ec2.is_subset(&pair()) {
            return Err(format!("{:?} were assigned", self.ec2));
        }
        Ok(())
    }

    /// With nobody dying and everything delivered, the node ends with exactly what is wanted.
    fn settles(&self, wanted: u32) -> Result<(), String> {
        let mut state = self.clone();
        for _ in 0..40 {
            for addr in state.leased.clone() {
                state.leased.remove(&addr);
            }
            while !state.calls.is_empty() {
                state.end(0, End::Done);
                state.check()?;
            }
            if state.operator.is_none() {
                state.start_operator();
            }
            if state.agent.is_none() {
                state.start_agent();
            }
            let (configs, statuses) = (state.configs.len() - 1, state.statuses.len() - 1);
            let steps = [Step::Hear(configs), Step::Say, Step::Tick];
            for step in steps {
                state = state.after(&step, Without::Nothing).unwrap_or(state);
            }
            let latest = state.statuses.len().max(statuses + 1) - 1;
            let seen = state.ec2.clone();
            for step in [Step::Read(latest), Step::Look(seen), Step::Plan(wanted)] {
                state = state.after(&step, Without::Nothing).unwrap_or(state);
            }
            state.check()?;
            if state.is_settled(wanted) {
                return Ok(());
            }
        }
        let record = state.configs.last().expect("never empty");
        Err(format!("{wanted} wanted: EC2 holds {:?}, the NodeConfig says {:?}", state.ec2, record.blocks))
    }

    fn is_settled(&self, wanted: u32) -> bool {
        let record = self.configs.last().expect("never empty");
        let held: BTreeSet<Prefix> = record.blocks.iter().map(|block| block.cidr).collect();
        let is_quiet = self.calls.is_empty() && record.blocks.iter().all(|block| block.releasing.is_none());
        let count = u32::try_from(self.ec2.len()).expect("few");
        held == self.ec2 && count == wanted && is_quiet
    }

    /// The state without what has no influence on what can happen.
    fn key(&self) -> String {
        let top = self.configs.last().map_or(0, |config| config.generation);
        let mut key = String::new();
        let mut put = |part: &dyn std::fmt::Debug| write!(key, "{part:?};").expect("text");
        let age = |at: Timestamp| self.now().since(at).as_secs().min(3 * LAG.as_secs());
        let record = |it: &Record| {
            let block = |it: &super::EniBlock| {
                (it.cidr.last(), it.releasing.map(|number| top - number), it.unassigning)
            };
            (top - it.generation, it.blocks.iter().map(block).collect::<Vec<_>>())
        };
        let words =
            |it: &[Word]| it.iter().map(|word| (word.cidr.last(), top - word.generation)).collect::<Vec<_>>();
        let report =
            |it: &Report| (top - it.observed, it.idle.clone(), words(&it.released), words(&it.declined));
        let call = |it: &Action| (it.call(), moved(it));
        put(&(&self.ec2, &self.past, &self.leased, self.crashes));
        put(&self.calls.iter().map(|(action, since)| (call(action), self.tick - since)).collect::<Vec<_>>());
        put(&self.configs.iter().map(record).collect::<Vec<_>>());
        put(&self.statuses.iter().map(report).collect::<Vec<_>>());
        put(&self.agent.as_ref().map(|agent| (record(&agent.record), agent.newest == Newest::default())));
        if let Some(Operator { memory, config, status }) = &self.operator {
            put(&(record(config), status.as_ref().map(report)));
            let view = memory.view().enis.get(&eni_id("p")).map(|eni| eni.addresses.clone());
            put(&(view, age(memory.view().at)));
            put(&memory.flying.values().map(call).collect::<Vec<_>>());
            put(&memory.unsure.values().map(|at| at.since(self.now()).as_secs()).collect::<Vec<_>>());
            let absent = memory.absent.iter().map(|((_, block), at)| (block.last(), age(*at)));
            put(&absent.collect::<Vec<_>>());
            let effect = |(at, effect): &(Timestamp, Effect)| {
                if let Effect::Assigned { blocks, .. } | Effect::Unassigned { blocks, .. } = effect {
                    (age(*at), matches!(effect, Effect::Assigned { .. }), blocks.clone())
                } else {
                    panic!("{effect:?}: no such call here")
                }
            };
            put(&memory.effects.iter().map(effect).collect::<Vec<_>>());
        }
        key
    }
}

/// The blocks that a call gives or takes.
fn moved(action: &Action) -> Vec<Prefix> {
    if let Action::Assign { addresses: Addresses::These(blocks), .. } | Action::Unassign { blocks, .. } =
        action
    {
        return blocks.clone();
    }
    panic!("{action:?}: no such call here")
}

fn keep<T>(versions: &mut Vec<T>, newest: T) {
    versions.push(newest);
    if versions.len() > VERSIONS {
        versions.remove(0);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Plan(u32),
    Look(BTreeSet<Prefix>),
    Read(usize),
    Hear(usize),
    Say,
    Lease(IpAddr),
    Free(IpAddr),
    Call(usize, End),
    Tick,
    OperatorDies,
    OperatorStarts,
    AgentDies,
    AgentStarts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    ReplyLost,
    Nothing,
}

/// What was found: how many states, and the way to the first that must not be.
struct Found {
    states: usize,
    wrong: Option<String>,
}

/// Walks through the states, the nearest first, up to so many; every `sample`th must settle.
fn explore(first: State, without: Without, most: usize, sample: usize) -> Found {
    let mut seen = BTreeSet::from([hash(&first.key())]);
    // Who came from where, for the way.
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(0, first)]);
    while let Some((from, state)) = queue.pop_front() {
        for step in state.steps(without) {
            let Some(next) = state.after(&step, without) else { continue };
            if !seen.insert(hash(&next.key())) {
                continue;
            }
            let number = ways.len();
            ways.push((from, Some(step)));
            let settled =
                || if number.is_multiple_of(sample) { next.settles(0).and(next.settles(2)) } else { Ok(()) };
            if let Err(wrong) = next.check().and_then(|()| settled()) {
                let wrong = format!("{wrong}\n{}", way(&ways, number));
                return Found { states: number, wrong: Some(wrong) };
            }
            if number >= most {
                return Found { states: number, wrong: None };
            }
            queue.push_back((number, next));
        }
    }
    Found { states: ways.len(), wrong: None }
}

fn way(ways: &[(usize, Option<Step>)], mut at: usize) -> String {
    let mut steps = Vec::new();
    while let (from, Some(step)) = &ways[at] {
        steps.push(format!("  {step:?}"));
        at = *from;
    }
    steps.reverse();
    steps.join("\n")
}

/// 128 bits: that two of some hundred thousand states agree by chance is not to be feared.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// A published address that the agent has just let go, which the operator has read.
fn let_go() -> State {
    let mut state = State::first();
    for step in [Step::Plan(0), Step::Hear(1), Step::Say, Step::Read(1)] {
        state = state.after(&step, Without::Nothing).expect("possible");
    }
    state
}

#[test]
fn no_address_is_unassigned_in_use_or_stuck_whoever_dies_whenever() {
    let found = explore(State::first(), Without::Nothing, STATES, 50);
    assert_eq!(found.wrong, None);
    assert!(found.states >= STATES, "only {} states", found.states);
}

#[test]
fn nor_from_the_middle_of_handing_one_back() {
    let found = explore(let_go(), Without::Nothing, STATES, 50);
    assert_eq!(found.wrong, None);
}

#[test]
fn without_generations_the_model_finds_an_address_unassigned_in_use() {
    let found = explore(let_go(), Without::Generations, 4 * STATES, usize::MAX);
    let wrong = found.wrong.expect("found");
    assert!(wrong.contains("EC2 does not hold"), "{wrong}");
}

#[test]
fn without_order_the_model_finds_an_address_unassigned_in_use() {
    let found = explore(let_go(), Without::Order, 4 * STATES, usize::MAX);
    let wrong = found.wrong.expect("found");
    assert!(wrong.contains("EC2 does not hold"), "{wrong}");
}

#[test]
fn where_looks_lag_more_than_allowed_the_model_finds_an_address_that_ec2_does_not_hold() {
    let found = explore(let_go(), Without::BoundedLag, 4 * STATES, usize::MAX);
    let wrong = found.wrong.expect("found");
    assert!(wrong.contains("EC2 does not hold"), "{wrong}");
}
