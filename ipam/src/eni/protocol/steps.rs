// SPDX-License-Identifier: Apache-2.0
//! What may happen next in a state, and what becomes of it.

use std::net::IpAddr;
use std::rc::Rc;

use rhumb_model::{EniId, Prefix};

use super::super::{Fault, LAG, Record, Report, plan};
use super::ec2::{Ec2, Place};
use super::state::{Call, Events, State, Without};

/// How many old versions of an object may still be delivered.
const VERSIONS: usize = 2;
/// For how many ticks a node is gone before its NodeConfig is.
const GRACE: u64 = 2;

/// Sites, versions and calls are named by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The operator plans, writes all NodeConfigs that change and begins all calls.
    Plan,
    /// It looks at EC2 as it is, or as it was.
    Look(Option<usize>),
    Read(usize, usize),
    ReadNode(usize),
    Forget(usize),
    Hear(usize, usize),
    /// The pool follows what was heard, where it did not at once.
    Drop(usize),
    Say(usize),
    Want(usize, u32),
    Lease(usize, IpAddr),
    Free(usize, IpAddr),
    Call(usize, End),
    Detached(EniId),
    Tick,
    OperatorDies,
    /// After the first of several NodeConfigs.
    OperatorDiesWriting,
    OperatorStarts,
    AgentDies(usize),
    AgentStarts(usize),
    SomebodyDetaches(EniId),
    InstanceEnds(usize),
    NodeGoes(usize),
    NodeReturns(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    ReplyLost,
    Nothing,
}

impl State {
    /// Everything that may happen next, within what is left.
    pub(super) fn steps(&self) -> Vec<Step> {
        let may = self.may();
        let mut steps = Vec::new();
        if let Some(operator) = &self.operator {
            steps.push(Step::Plan);
            if self.calls_are_new() {
                steps.push(Step::Look(None));
                let stale = if may.stale { self.past.len() } else { 0 };
                steps.extend((0..stale).map(|at| Step::Look(Some(at))));
            }
            if may.crashes {
                steps.push(Step::OperatorDies);
                steps.extend((self.sites.len() > 1).then_some(Step::OperatorDiesWriting));
            }
            for (at, known) in operator.known.iter().enumerate() {
                steps.extend((known.node != self.sites[at].node).then_some(Step::ReadNode(at)));
                steps.extend(known.gone.is_some().then_some(Step::Forget(at)));
            }
        } else {
            steps.push(Step::OperatorStarts);
        }
        for at in 0..self.sites.len() {
            self.steps_of(at, may, &mut steps);
        }
        for (number, call) in self.calls.iter().enumerate() {
            let ends: &[End] = match (call.is_awaited, may.lost) {
                (true, true) => &[End::Done, End::ReplyLost, End::Nothing],
                (true, false) => &[End::Done],
                // Nobody waits for it. It may not even have been sent.
                (false, _) => &[End::Done, End::Nothing],
            };
            steps.extend(ends.iter().map(|end| Step::Call(number, *end)));
        }
        for (id, nic) in &self.ec2.nics {
            match nic.place {
                Place::At(at) if at > 0 && may.thefts => steps.push(Step::SomebodyDetaches(id.clone())),
                Place::Leaving(_) => steps.push(Step::Detached(id.clone())),
                Place::At(_) | Place::Free => {}
            }
        }
        if self.calls_are_new() {
            steps.push(Step::Tick);
        }
        steps
    }

    fn steps_of(&self, at: usize, may: Events, steps: &mut Vec<Step>) {
        let site = &self.sites[at];
        let newest = |versions: usize| if may.stale { 0 } else { versions - 1 };
        if self.operator.is_some() {
            let versions = site.statuses.len();
            steps.extend((newest(versions)..versions).map(|version| Step::Read(at, version)));
        }
        if let Some(agent) = &site.agent {
            let versions = site.configs.len();
            steps.extend((newest(versions)..versions).map(|version| Step::Hear(at, version)));
            steps.push(Step::Say(at));
            steps.extend(agent.pool.is_some().then_some(Step::Drop(at)));
            if may.leases {
                let open = self.open(at).into_iter().map(|block| block.addr());
                steps.extend(
                    open.filter(|addr| !site.leased.contains(addr)).map(|addr| Step::Lease(at, addr)),
                );
            }
            steps.extend(site.leased.iter().map(|addr| Step::Free(at, *addr)));
            steps.extend((may.crashes).then_some(Step::AgentDies(at)));
        } else if self.ec2.hosts[at].runs {
            steps.push(Step::AgentStarts(at));
        }
        if may.demands {
            let others = (0..=self.setting.most).filter(|wanted| *wanted != site.wanted);
            steps.extend(others.map(|wanted| Step::Want(at, wanted)));
        }
        if may.turns {
            steps.push(if site.node.is_some() { Step::NodeGoes(at) } else { Step::NodeReturns(at) });
            steps.extend(self.ec2.hosts[at].runs.then_some(Step::InstanceEnds(at)));
        }
    }

    /// Which events there may be.
    fn may(&self) -> Events {
        if self.left > 0 { self.setting.events } else { Events::default() }
    }

    /// Whether what was may be shown or delivered instead of what is.
    pub(super) fn may_be_stale(&self) -> bool {
        self.may().stale
    }

    /// Whether all calls were made within the last step of time. A call has its effect within the time by which looks
    /// lag, or none: what is older has ended when there is a look, and before more time passes.
    fn calls_are_new(&self) -> bool {
        self.setting.without == Without::BoundedLag || self.calls.iter().all(|call| call.since == self.tick)
    }

    /// One event less; `None` when there may be none.
    fn spend(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    /// The state after a step; `None` when nothing changes.
    pub(super) fn after(&self, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Plan => next.plan()?,
            Step::Look(version) => {
                let seen = match version {
                    Some(version) => self.past.iter().nth(*version).filter(|seen| **seen != self.ec2)?,
                    None => &self.ec2,
                };
                if version.is_some() {
                    next.spend()?;
                }
                next.look(seen)?;
            }
            Step::Read(at, version) => {
                let statuses = &self.sites[*at].statuses;
                if *version + 1 < statuses.len() {
                    next.spend()?;
                }
                let known = &mut next.operator()?.known[*at];
                let status = Some(statuses[*version].clone());
                if known.status == status {
                    return None;
                }
                known.status = status;
            }
            Step::ReadNode(at) => {
                let known = &mut next.operator()?.known[*at];
                known.node = self.sites[*at].node;
                known.gone = known.node.is_none().then_some(known.gone.unwrap_or(self.tick));
            }
            Step::Forget(at) => next.forget(*at)?,
            Step::Hear(at, version) => next.hear(*at, *version)?,
            Step::Drop(at) => next.site(*at).agent.as_mut()?.pool = None,
            Step::Say(at) => {
                let report = self.says(*at)?;
                if self.sites[*at].statuses.last() == Some(&report) {
                    return None;
                }
                keep(&mut next.site(*at).statuses, report);
            }
            Step::Want(at, wanted) => {
                next.spend()?;
                next.site(*at).wanted = *wanted;
            }
            Step::Lease(at, addr) => {
                next.spend()?;
                next.site(*at).leased.insert(*addr);
            }
            Step::Free(at, addr) => {
                next.site(*at).leased.remove(addr);
            }
            Step::Call(number, end) => next.end(*number, *end)?,
            Step::Detached(id) => next.change(|ec2| ec2.free(id)),
            Step::Tick => {
                next.tick += 1;
                if self.setting.without != Without::BoundedLag {
                    next.past = Rc::new([Rc::clone(&next.ec2)].into());
                }
            }
            Step::OperatorDies => next.operator_dies()?,
            Step::OperatorDiesWriting => {
                next.write_one()?;
                next.operator_dies()?;
            }
            Step::OperatorStarts => next.start_operator(),
            Step::AgentDies(at) => {
                next.spend()?;
                next.site(*at).agent = None;
            }
            Step::AgentStarts(at) => next.start_agent(*at),
            Step::SomebodyDetaches(id) => next.steal(id)?,
            Step::InstanceEnds(at) => {
                next.spend()?;
                next.change(|ec2| ec2.terminate(*at));
                let site = next.site(*at);
                site.agent = None;
                site.leased.clear();
                site.cut.clear();
            }
            Step::NodeGoes(at) => {
                next.spend()?;
                next.site(*at).node = None;
            }
            Step::NodeReturns(at) => {
                next.spend()?;
                let host = next.ec2.hosts[*at];
                if !host.runs {
                    next.change(|ec2| ec2.launch(*at, host.instance + 1));
                }
                next.site(*at).node = Some(next.ec2.hosts[*at].instance);
            }
        }
        Some(next)
    }

    /// Something happens in EC2; looks may still show how it was before.
    fn change(&mut self, what: impl FnOnce(&mut Ec2)) {
        what(Rc::make_mut(&mut self.ec2));
        Rc::make_mut(&mut self.past).insert(Rc::clone(&self.ec2));
        for (at, site) in self.sites.iter_mut().enumerate().filter(|(_, site)| !site.cut.is_empty()) {
            Rc::make_mut(site).cut.retain(|addr| !self.ec2.serves(at, *addr));
        }
    }

    fn look(&mut self, seen: &Ec2) -> Option<()> {
        let now = self.now();
        let mut shared = self.operator.take()?;
        let operator = Rc::make_mut(&mut shared);
        for (known, host) in operator.known.iter_mut().zip(&seen.hosts) {
            known.seen = Some((host.instance, host.runs));
        }
        let inputs = self.inputs(operator);
        operator.memory.see(seen.view(now), &inputs);
        if self.setting.without == Without::SecondLook {
            let lag = u64::try_from(LAG.as_millis()).expect("short");
            operator.memory.absent.values_mut().for_each(|since| since.0 -= lag);
        }
        self.operator = Some(shared);
        Some(())
    }

    fn hear(&mut self, at: usize, version: usize) -> Option<()> {
        let without = self.setting.without;
        if version + 1 < self.sites[at].configs.len() {
            self.spend()?;
        }
        let record = self.sites[at].configs[version].clone();
        let agent = self.site(at).agent.as_mut()?;
        let is_taken =
            record.generation == 0 || agent.newest.take(record.generation) || without == Without::Order;
        if !is_taken || agent.record == record {
            return None;
        }
        let before = std::mem::replace(&mut agent.record, record);
        if without == Without::DropFirst {
            agent.pool.get_or_insert(before);
        }
        Some(())
    }

    fn operator_dies(&mut self) -> Option<()> {
        self.spend()?;
        (self.operator, self.succeeded) = (None, true);
        self.calls.iter_mut().for_each(|call| call.is_awaited = false);
        Some(())
    }

    fn steal(&mut self, id: &EniId) -> Option<()> {
        self.spend()?;
        let nic = self.ec2.nics.get(id)?.clone();
        self.change(|ec2| ec2.free(id));
        let site = self.site(nic.node);
        let cut = site.leased.iter().filter(|addr| nic.blocks.iter().any(|block| block.contains(**addr)));
        site.cut.extend(cut);
        Some(())
    }

    fn plan(&mut self) -> Option<()> {
        let now = self.now();
        let mut shared = self.operator.take()?;
        let operator = Rc::make_mut(&mut shared);
        let inputs = self.inputs(operator);
        let plan = plan(&inputs, &mut operator.memory, now);
        let mut changes = false;
        for (at, known) in operator.known.iter_mut().enumerate() {
            if let Some(planned) = plan.nodes.get(&Self::name(at)) {
                changes |= self.write(at, &mut known.config, &planned.record);
            }
        }
        for planned in plan.actions {
            operator.memory.start(&planned.action, now);
            self.calls.push(Call { action: Rc::new(planned.action), since: self.tick, is_awaited: true });
            changes = true;
        }
        self.operator = Some(shared);
        changes.then_some(())
    }

    /// The first of the NodeConfigs that would be written.
    fn write_one(&mut self) -> Option<()> {
        let now = self.now();
        let mut shared = self.operator.take()?;
        let operator = Rc::make_mut(&mut shared);
        let inputs = self.inputs(operator);
        let plan = plan(&inputs, &mut operator.memory, now);
        let mut known = operator.known.iter_mut().enumerate();
        known
            .any(|(at, known)| {
                let planned = plan.nodes.get(&Self::name(at));
                planned.is_some_and(|planned| self.write(at, &mut known.config, &planned.record))
            })
            .then(|| self.operator = Some(shared))
    }

    /// Writes a NodeConfig over the version that was read, and only over that.
    fn write(&mut self, at: usize, known: &mut Record, planned: &Record) -> bool {
        let without = self.setting.without;
        let is_newest = self.sites[at].config() == known;
        if planned == known || !is_newest {
            return false;
        }
        let mut record = planned.clone();
        if without == Without::Epochs && known.generation == 0 {
            record.generation = 1;
        }
        known.clone_from(&record);
        keep(&mut self.site(at).configs, record);
        true
    }

    /// Deletes what there is of a node that has been gone for long enough.
    fn forget(&mut self, at: usize) -> Option<()> {
        let known = &mut self.operator.as_mut().map(Rc::make_mut)?.known[at];
        let is_over = known.gone.is_some_and(|since| self.tick >= since + GRACE);
        if !is_over || known.config.generation == 0 || *self.sites[at].config() != known.config {
            return None;
        }
        known.config = Record::default();
        let site = self.site(at);
        keep(&mut site.configs, Record::default());
        keep(&mut site.statuses, Report::default());
        Some(())
    }

    fn end(&mut self, number: usize, end: End) -> Option<()> {
        let Call { action, is_awaited, .. } = self.calls.remove(number);
        if is_awaited && end != End::Done {
            self.spend()?;
        }
        let mut outcome = Err(Fault::Unknown);
        if end != End::Nothing {
            let new = self.new_eni();
            self.change(|ec2| outcome = ec2.call(&action, new));
        }
        if end == End::ReplyLost {
            outcome = Err(Fault::Unknown);
        }
        let now = self.now();
        // An operator that started since knows nothing of the call.
        if let Some(operator) = self.operator().filter(|_| is_awaited) {
            operator.memory.finish(&action, &outcome, now);
        }
        Some(())
    }

    /// What must hold in every state.
    pub(super) fn check(&self) -> Result<(), String> {
        for (at, site) in self.sites.iter().enumerate() {
            for addr in &site.leased {
                if !self.ec2.serves(at, *addr) && !site.cut.contains(addr) {
                    return Err(format!("a pod has {addr}, which EC2 does not hold"));
                }
                if self.sites[..at].iter().any(|other| other.leased.contains(addr)) {
                    return Err(format!("pods of two nodes have {addr}"));
                }
            }
            for block in self.open(at) {
                if !self.ec2.serves(at, block.addr()) {
                    return Err(format!("{block} is leased from, which EC2 does not hold"));
                }
            }
            if let Some(agent) = &site.agent
                && agent.record.generation > 0
                && let Some(addr) = site.leased.iter().find(|addr| !holds(&agent.record, **addr))
            {
                return Err(format!("the agent lost {addr}, which a pod has"));
            }
        }
        let blocks: Vec<Prefix> = self.ec2.nics.values().flat_map(|nic| nic.blocks.iter().copied()).collect();
        for (at, block) in blocks.iter().enumerate() {
            if blocks[..at].iter().any(|other| other.overlaps(*block)) {
                return Err(format!("{block} was given twice"));
            }
        }
        let made = |at: usize| self.ec2.later().filter(|(_, nic)| nic.node == at).count();
        if !self.succeeded && (0..self.sites.len()).any(|at| made(at) >= usize::from(self.setting.interfaces))
        {
            return Err("an interface was made for which the instance has no place".to_owned());
        }
        Ok(())
    }
}

fn holds(record: &Record, addr: IpAddr) -> bool {
    record.blocks.iter().any(|block| block.cidr.contains(addr))
}

fn keep<T>(versions: &mut Vec<T>, newest: T) {
    versions.push(newest);
    if versions.len() > VERSIONS {
        versions.remove(0);
    }
}
