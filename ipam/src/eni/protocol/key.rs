// SPDX-License-Identifier: Apache-2.0
//! By what two states are the same: everything that has an influence on what can happen, and nothing else.
//!
//! Numbers of NodeConfigs count by their order, times by whether what they are compared with is over.

use std::hash::{Hash, Hasher};

use rhumb_model::{Eni, EniId, Prefix, Timestamp};

use super::super::effects::Effect;
use super::super::{Action, Addresses, EniBlock, LAG, Memory, Record, Report};
use super::state::{Agent, Call, Known, Operator, Site, State};

/// Two lanes of 64 bits: that two of some million states agree by chance is not to be feared.
struct Lanes(u64, u64);

impl Lanes {
    fn value(&self) -> u128 {
        let mix = (self.0 ^ self.1.rotate_left(32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        u128::from(mix) << 64 | u128::from(self.1 ^ self.0 >> 31)
    }
}

impl Hasher for Lanes {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ value).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }

    fn finish(&self) -> u64 {
        unreachable!("all of its bits are read")
    }
}

/// What a state is, as a number; and the same with what was and may yet be shown or delivered instead of what is.
///
/// What there may still happen is in neither: of two states that are the same else, the one with more events left can
/// come to all that the other can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) newest: u128,
    pub(super) whole: u128,
}

/// What the state is.
pub(super) fn keys(state: &State) -> Keys {
    let mut to = Lanes(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    let numbers = Numbers::of(state);
    (&state.ec2, state.succeeded).hash(&mut to);
    let number = |it: &Call| (call(&it.action), (state.tick - it.since).min(2), it.is_awaited);
    let mut calls: Vec<_> = state.calls.iter().map(number).collect();
    calls.sort();
    calls.hash(&mut to);
    for site in &state.sites {
        site_key(site, &numbers, &mut to);
    }
    if let Some(operator) = &state.operator {
        operator_key(operator, state, &numbers, &mut to);
    }
    let newest = to.value();
    state.past.hash(&mut to);
    for site in &state.sites {
        site.configs.iter().for_each(|it| numbers.record(it, &mut to));
        site.statuses.iter().for_each(|it| numbers.report(it, &mut to));
    }
    Keys { newest, whole: to.value() }
}

/// The numbers of NodeConfigs that somebody knows, in their order.
struct Numbers(Vec<u64>);

impl Numbers {
    fn of(state: &State) -> Self {
        let mut all = vec![0];
        let mut record = |record: &Record| {
            all.push(record.generation);
            all.extend(record.blocks.iter().filter_map(|block| block.releasing));
        };
        let agents = || state.sites.iter().filter_map(|site| site.agent.as_ref());
        let known = || state.operator.iter().flat_map(|operator| &operator.known);
        state.sites.iter().flat_map(|site| &site.configs).for_each(&mut record);
        agents().flat_map(|agent| agent.pool.iter().chain([&agent.record])).for_each(&mut record);
        known().for_each(|known| record(&known.config));
        all.extend(agents().filter_map(|agent| agent.newest.0));
        let statuses = state.sites.iter().flat_map(|site| &site.statuses);
        for report in statuses.chain(known().filter_map(|known| known.status.as_ref())) {
            all.push(report.observed);
            all.extend(report.released.iter().chain(&report.declined).map(|word| word.generation));
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    fn rank(&self, number: u64) -> usize {
        self.0.binary_search(&number).expect("every number was taken")
    }

    fn record(&self, record: &Record, to: &mut Lanes) {
        self.rank(record.generation).hash(to);
        record.blocks.len().hash(to);
        for EniBlock { cidr, interface, releasing, unassigning } in &record.blocks {
            (cidr, interface, releasing.map(|number| self.rank(number)), unassigning).hash(to);
        }
        record.interfaces.hash(to);
    }

    fn report(&self, report: &Report, to: &mut Lanes) {
        (self.rank(report.observed), report.used, &report.idle).hash(to);
        for words in [&report.released, &report.declined] {
            words.len().hash(to);
            words.iter().for_each(|word| (word.cidr, self.rank(word.generation)).hash(to));
        }
    }
}

fn site_key(site: &Site, numbers: &Numbers, to: &mut Lanes) {
    (site.wanted, site.node, &site.leased, &site.cut).hash(to);
    numbers.record(site.config(), to);
    site.statuses.last().iter().for_each(|it| numbers.report(it, to));
    let Some(Agent { newest, record, pool, knows_leases }) = &site.agent else {
        return false.hash(to);
    };
    (newest.0.map(|number| numbers.rank(number)), knows_leases, pool.is_some()).hash(to);
    numbers.record(record, to);
    pool.iter().for_each(|pool| numbers.record(pool, to));
}

fn operator_key(operator: &Operator, state: &State, numbers: &Numbers, to: &mut Lanes) {
    for Known { config, status, node, seen, gone } in &operator.known {
        numbers.record(config, to);
        status.is_some().hash(to);
        status.iter().for_each(|it| numbers.report(it, to));
        (node, seen, gone.map(|since| (state.tick - since).min(2))).hash(to);
    }
    memory_key(&operator.memory, state.now(), to);
}

fn memory_key(memory: &Memory, now: Timestamp, to: &mut Lanes) {
    let seen = memory.view().at;
    // Compared are the last look, or a later one, and what it says is so since then.
    let over = |since: Timestamp| (since.after(LAG) <= seen, since.after(LAG) <= now);
    let ahead = |until: Timestamp| until.since(now).as_secs();
    for eni in memory.view().enis.values() {
        eni_key(eni, to);
        memory.orphan_since(&eni.id).map(over).hash(to);
    }
    let mut flying: Vec<_> = memory.flying.values().map(call).collect();
    flying.sort();
    flying.hash(to);
    for (key, until) in memory.unsure.iter().chain(&memory.early) {
        (format!("{key:?}"), ahead(*until)).hash(to);
    }
    for (block, since) in &memory.absent {
        (block, over(*since)).hash(to);
    }
    for (at, it) in &memory.effects {
        (over(*at).1, effect(it)).hash(to);
    }
    memory.trouble.ahead(now).hash(to);
}

fn eni_key(eni: &Eni, to: &mut Lanes) {
    let there = eni.attachment.as_ref();
    let there = there.map(|it| (&it.instance, it.device_index, it.delete_on_termination));
    (&eni.id, eni.status, there, &eni.addresses, &eni.prefixes, &eni.prefixes_v6).hash(to);
}

/// What of a call matters.
fn call(action: &Action) -> (&'static str, String, Vec<Prefix>) {
    let blocks = match action {
        Action::Create { addresses, .. } | Action::Assign { addresses, .. } => these(addresses),
        Action::Unassign { blocks, .. } => blocks.clone(),
        Action::Attach { .. }
        | Action::AssignV6 { .. }
        | Action::SetDeleteOnTermination { .. }
        | Action::SwitchOffSourceDestCheck { .. }
        | Action::SetGroups { .. }
        | Action::Reserve { .. }
        | Action::Detach { .. }
        | Action::Delete { .. } => Vec::new(),
    };
    let which = if let Action::Create { node, token, .. } = action {
        format!("{node} {token}")
    } else {
        format!("{:?}", action.key())
    };
    (action.call(), which, blocks)
}

/// No blocks where EC2 is to choose.
fn these(addresses: &Addresses) -> Vec<Prefix> {
    match addresses {
        Addresses::These(blocks) => blocks.clone(),
        Addresses::Any { .. } => Vec::new(),
    }
}

fn effect(effect: &Effect) -> (u8, Option<EniId>, Vec<Prefix>) {
    match effect {
        Effect::Created(eni) => (0, Some(eni.id.clone()), Vec::new()),
        Effect::Attached { eni, .. } => (1, Some(eni.clone()), Vec::new()),
        Effect::DeletedOnTermination(eni) => (2, Some(eni.clone()), Vec::new()),
        Effect::Unchecked(eni) => (3, Some(eni.clone()), Vec::new()),
        Effect::Assigned { eni, blocks } => (4, Some(eni.clone()), blocks.clone()),
        Effect::Unassigned { eni, blocks } => (5, Some(eni.clone()), blocks.clone()),
        Effect::Detached(eni) => (6, Some(eni.clone()), Vec::new()),
        Effect::Deleted(eni) => (7, Some(eni.clone()), Vec::new()),
        Effect::Reserved(made) => (8, None, vec![made.cidr]),
        Effect::Regrouped { eni, .. } => (9, Some(eni.clone()), Vec::new()),
    }
}
