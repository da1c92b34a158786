// SPDX-License-Identifier: Apache-2.0
//! What must come in the end: with nothing more going wrong, and everybody doing his part in turn, each node has what it
//! wants, or a reason why not, and EC2 holds nothing that nobody wants.

use std::collections::BTreeSet;

use rhumb_model::{EniId, Prefix};

use super::super::plan;
use super::ec2::{Nic, Place};
use super::key::keys;
use super::state::State;
use super::steps::{End, Step};

/// Within so many rounds.
const ROUNDS: usize = 60;

/// States that come to a good end, by their keys.
#[derive(Debug, Default)]
pub(super) struct Fair(BTreeSet<u128>);

impl Fair {
    /// Goes on from the state by rounds until all is as it should be.
    pub(super) fn ends_well(&mut self, state: &State) -> Result<(), String> {
        let mut state = State { left: 0, ..state.clone() };
        let mut way = Vec::new();
        for _ in 0..ROUNDS {
            let key = keys(&state).newest;
            if self.0.contains(&key) {
                self.0.extend(way);
                return Ok(());
            }
            way.push(key);
            if state.complaint().is_none() {
                self.0.extend(way);
                return Ok(());
            }
            state = state.round();
            state.check()?;
        }
        let complaint = state.complaint().unwrap_or_default();
        let records: Vec<_> = state.sites.iter().map(|site| site.config()).collect();
        Err(format!("for ever: {complaint}\nEC2 has {:#?}, NodeConfigs say {records:#?}", state.ec2))
    }

    /// How many states are known to.
    pub(super) fn states(&self) -> usize {
        self.0.len()
    }
}

impl State {
    /// The state that it comes to by itself.
    pub(super) fn settled(self) -> Self {
        let mut rounds = std::iter::successors(Some(self), |state| Some(state.clone().round()));
        rounds.by_ref().take(ROUNDS).find(|state| state.complaint().is_none()).expect("it comes to an end")
    }

    /// Everybody does his part once, and what is under way ends.
    fn round(mut self) -> Self {
        while !self.calls.is_empty() {
            self = self.takes(&Step::Call(0, End::Done));
        }
        let leaving = |(id, nic): (&EniId, &Nic)| matches!(nic.place, Place::Leaving(_)).then(|| id.clone());
        let leaving: Vec<EniId> = self.ec2.nics.iter().filter_map(leaving).collect();
        for id in leaving {
            self = self.takes(&Step::Detached(id));
        }
        if self.operator.is_none() {
            self.start_operator();
        }
        for at in 0..self.sites.len() {
            if self.sites[at].agent.is_none() && self.ec2.hosts[at].runs {
                self.start_agent(at);
            }
            let newest = self.sites[at].configs.len() - 1;
            for step in [Step::Hear(at, newest), Step::Drop(at), Step::Say(at)] {
                self = self.takes(&step);
            }
        }
        self = self.takes(&Step::Tick).takes(&Step::Look(None));
        for at in 0..self.sites.len() {
            let newest = self.sites[at].statuses.len() - 1;
            for step in [Step::ReadNode(at), Step::Read(at, newest), Step::Forget(at)] {
                self = self.takes(&step);
            }
        }
        self.takes(&Step::Plan)
    }

    /// The state after a step, or the same.
    fn takes(self, step: &Step) -> Self {
        self.after(step).unwrap_or(self)
    }

    /// What is not as it should be in the end.
    fn complaint(&self) -> Option<String> {
        if !self.calls.is_empty() {
            return Some("a call is under way".to_owned());
        }
        // An instance that is gone is left alone for as long as it has a Node object, with what was its own.
        let is_left_alone = |at: usize| self.sites[at].node.is_some() && !self.ec2.hosts[at].runs;
        let nobodys = |nic: &Nic| !matches!(nic.place, Place::At(_)) && !is_left_alone(nic.node);
        if let Some((id, _)) = self.ec2.later().find(|(_, nic)| nobodys(nic)) {
            return Some(format!("nobody has {id}"));
        }
        (0..self.sites.len()).find_map(|at| match (self.sites[at].node, self.ec2.hosts[at].runs) {
            (Some(_), true) => self.complaint_of(at),
            (Some(_), false) => None,
            (None, _) => {
                (self.sites[at].config().generation > 0).then(|| "a NodeConfig without a node".to_owned())
            }
        })
    }

    fn complaint_of(&self, at: usize) -> Option<String> {
        let site = &self.sites[at];
        let record = site.config();
        let agent = site.agent.as_ref().filter(|agent| agent.record == *record && agent.pool.is_none());
        if agent.is_none() {
            return Some("the agent has not heard the newest".to_owned());
        }
        if record.blocks.iter().any(|block| block.releasing.is_some()) {
            return Some("something is on its way back".to_owned());
        }
        let told: BTreeSet<Prefix> = record.blocks.iter().map(|block| block.cidr).collect();
        let linked = || self.ec2.linked(at).flat_map(|(_, nic)| nic.blocks.iter().copied());
        if told != linked().collect() {
            return Some("EC2 holds something else than the node was told".to_owned());
        }
        let size = self.setting.unit.size();
        let (v4, v6): (Vec<Prefix>, Vec<Prefix>) = linked().partition(|block| block.addr().is_ipv4());
        let has = size * u32::try_from(v4.len()).expect("few");
        let wanted = self.wanted(at).max(site.used());
        let idle = |block: &&Prefix| !site.leased.iter().any(|addr| block.contains(*addr));
        if has >= wanted + size && v4.iter().any(|block| idle(&block)) {
            return Some(format!("{has} addresses for {wanted}"));
        }
        let lacks = has < wanted || (self.setting.ipv6 && v6.is_empty());
        (lacks && !self.is_told_why(at)).then(|| format!("{has} addresses for {wanted}, {} /80", v6.len()))
    }

    /// Whether the operator says why the node has less than it wants.
    fn is_told_why(&self, at: usize) -> bool {
        let Some(operator) = &self.operator else { return false };
        let mut memory = operator.memory.clone();
        let plan = plan(&self.inputs(operator), &mut memory, self.now());
        plan.nodes.get(&Self::name(at)).is_some_and(|planned| planned.verdict.is_some())
    }
}
