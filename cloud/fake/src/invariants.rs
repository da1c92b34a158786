// SPDX-License-Identifier: Apache-2.0
//! What must hold whatever is called, checked after every call by what the call changed.
//!
//! The books here are kept apart from the allocators of the world, from nothing but the changes of interfaces: an
//! allocator that gives an address twice is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{Eni, EniId, EniStatus, InstanceId, Prefix, Timestamp, VpcId};
use serde::Serialize;

use crate::ledger::{Entry, Ledger};
use crate::state::{InterfaceChange, World};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When it was seen.
    pub at: Timestamp,
    /// What was broken.
    pub rule: Broken,
    /// What it is about, in words.
    pub text: String,
    /// The calls before it that named the same objects, the latest last.
    pub history: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}: {}", self.at, self.rule, self.text)?;
        self.history.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Broken {
    /// Two interfaces have the same address.
    AddressTwice,
    /// An address that a pod uses was taken from its interface, or the interface went.
    InUseUnassigned,
    /// A pod uses an address that no interface of its instance has.
    NotHeld,
    /// Two pods use the same address.
    UsedTwice,
    /// An interface was nobody's for longer than allowed.
    Leaked,
    /// An action was called more often in a second than allowed.
    TooManyCalls,
}

/// Who uses an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct User {
    /// The pod, in the words of the test.
    pub pod: String,
    /// Where it runs.
    pub instance: InstanceId,
}

/// The books by which the rules are checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Invariants {
    held: BTreeMap<(VpcId, Prefix), EniId>,
    used: BTreeMap<(VpcId, IpAddr), User>,
    /// Interfaces that nobody has, by since when.
    idle: BTreeSet<(Timestamp, EniId)>,
    since: BTreeMap<EniId, Timestamp>,
    /// Longest time that an interface may be nobody's; `None` for ever.
    pub(crate) longest_idle: Option<Duration>,
    /// Most calls of an action in a second of the virtual clock.
    pub(crate) most_calls: BTreeMap<String, u32>,
    violations: Vec<Violation>,
}

impl Invariants {
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Checks what a call, or time, changed.
    pub(crate) fn check(&mut self, world: &World, ledger: &Ledger, changes: Vec<InterfaceChange>) {
        let now = world.now();
        for change in changes {
            self.change(world, ledger, &change);
        }
        let Some(longest) = self.longest_idle else { return };
        while let Some((since, id)) = self.idle.first().cloned()
            && now.since(since) > longest
        {
            self.idle.pop_first();
            let text = format!("{id} is nobody's since {since}, which is longer than {longest:?}");
            self.break_rule(now, ledger, Broken::Leaked, text, &[id.as_str()]);
        }
    }

    fn change(&mut self, world: &World, ledger: &Ledger, change: &InterfaceChange) {
        let now = world.now();
        let before = change.before.as_deref().map(blocks).unwrap_or_default();
        let after = change.after.as_deref().map(blocks).unwrap_or_default();
        let Some(eni) = change.after.as_deref().or(change.before.as_deref()) else { return };
        for block in before.difference(&after) {
            if self.held.get(&(eni.vpc.clone(), *block)) == Some(&eni.id) {
                self.held.remove(&(eni.vpc.clone(), *block));
            }
            self.check_use(world, ledger, eni, *block);
        }
        for block in after.difference(&before) {
            if let Some(holder) = self.overlap(&eni.vpc, *block, &eni.id) {
                let text = format!("{block} is of {} and of {holder}", eni.id);
                self.break_rule(now, ledger, Broken::AddressTwice, text, &[eni.id.as_str(), holder.as_str()]);
            }
            self.held.insert((eni.vpc.clone(), *block), eni.id.clone());
        }
        self.note_idle(now, eni, change.after.is_some());
    }

    /// Addresses of a block that goes away must have no user, unless the whole instance goes.
    fn check_use(&mut self, world: &World, ledger: &Ledger, eni: &Eni, block: Prefix) {
        let range = (eni.vpc.clone(), block.addr())..=(eni.vpc.clone(), block.last());
        let used: Vec<(IpAddr, User)> =
            self.used.range(range).map(|((_, address), user)| (*address, user.clone())).collect();
        for (address, user) in used {
            if world.instance(&user.instance).is_none_or(|instance| instance.state.is_final()) {
                self.disclaim(&eni.vpc, address);
                continue;
            }
            let text = format!(
                "{address} was taken from {} while {} on {} uses it",
                eni.id, user.pod, user.instance
            );
            self.break_rule(
                world.now(),
                ledger,
                Broken::InUseUnassigned,
                text,
                &[eni.id.as_str(), user.instance.as_str()],
            );
        }
    }

    fn note_idle(&mut self, now: Timestamp, eni: &Eni, is: bool) {
        let idle = is && eni.status == EniStatus::Available;
        match (idle, self.since.get(&eni.id).copied()) {
            (true, None) => {
                self.since.insert(eni.id.clone(), now);
                self.idle.insert((now, eni.id.clone()));
            }
            (false, Some(since)) => {
                self.since.remove(&eni.id);
                self.idle.remove(&(since, eni.id.clone()));
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Another interface that has an address of a block. Blocks of one kind are equal or apart, so a few keys tell.
    fn overlap(&self, vpc: &VpcId, block: Prefix, own: &EniId) -> Option<EniId> {
        let range = (vpc.clone(), block)..=(vpc.clone(), Prefix::host(block.last()));
        let wider = Prefix::containing(block.addr(), if block.addr().is_ipv4() { 28 } else { 80 });
        let inside = self.held.range(range).map(|(_, holder)| holder);
        let around = self.held.get(&(vpc.clone(), wider)).into_iter();
        inside.chain(around).find(|holder| *holder != own).cloned()
    }

    /// A pod begins to use an address.
    pub(crate) fn claim(&mut self, world: &World, ledger: &Ledger, vpc: &VpcId, address: IpAddr, user: User) {
        let now = world.now();
        let holder = self.holder(vpc, address).and_then(|id| world.interface(id));
        let owner = holder.and_then(|eni| eni.attachment.as_ref()).and_then(|found| found.instance.as_ref());
        if owner != Some(&user.instance) {
            let has = holder.map_or("nobody".to_owned(), |eni| eni.id.to_string());
            let text = format!("{} on {} uses {address}, which {has} has", user.pod, user.instance);
            self.break_rule(now, ledger, Broken::NotHeld, text, &[user.instance.as_str(), &has]);
        }
        let instance = user.instance.clone();
        let text = format!("{address} is used by {} on {}", user.pod, user.instance);
        match self.used.insert((vpc.clone(), address), user) {
            Some(before) if before.pod != self.used[&(vpc.clone(), address)].pod => {
                let text = format!("{text} and by {} on {}", before.pod, before.instance);
                let subjects = [instance.as_str(), before.instance.as_str()];
                self.break_rule(now, ledger, Broken::UsedTwice, text, &subjects);
            }
            Some(_) | None => {}
        }
    }

    /// A pod uses an address no longer.
    pub(crate) fn disclaim(&mut self, vpc: &VpcId, address: IpAddr) {
        self.used.remove(&(vpc.clone(), address));
    }

    /// All pods of an instance are gone with it.
    pub(crate) fn disclaim_all(&mut self, instance: &InstanceId) {
        self.used.retain(|_, user| user.instance != *instance);
    }

    fn holder(&self, vpc: &VpcId, address: IpAddr) -> Option<&EniId> {
        let block = if address.is_ipv4() { 28 } else { 80 };
        let of = |prefix| self.held.get(&(vpc.clone(), prefix));
        of(Prefix::host(address)).or_else(|| of(Prefix::containing(address, block)))
    }

    /// A call was counted.
    pub(crate) fn count(&mut self, now: Timestamp, ledger: &Ledger, action: &str, in_second: u32) {
        if self.most_calls.get(action).is_some_and(|most| in_second == most + 1) {
            let text = format!("{action} was called {in_second} times in second {}", now.0 / 1000);
            self.break_rule(now, ledger, Broken::TooManyCalls, text, &[]);
        }
    }

    fn break_rule(&mut self, at: Timestamp, ledger: &Ledger, rule: Broken, text: String, subjects: &[&str]) {
        let history = ledger.about(subjects, 12).map(Entry::to_string).collect();
        self.violations.push(Violation { at, rule, text, history });
    }
}

/// Everything that an interface has, as blocks.
fn blocks(eni: &Eni) -> BTreeSet<Prefix> {
    let v4 =
        std::iter::once(&eni.primary).chain(&eni.addresses).map(|address| Prefix::host(IpAddr::V4(*address)));
    let v6 = eni.addresses_v6.iter().map(|address| Prefix::host(IpAddr::V6(*address)));
    v4.chain(v6).chain(eni.prefixes.iter().copied()).chain(eni.prefixes_v6.iter().copied()).collect()
}
