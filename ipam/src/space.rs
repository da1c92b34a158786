// SPDX-License-Identifier: Apache-2.0
//! The addresses of a pool in one family.
//!
//! ```text
//!            hold                        release
//!   fresh ─────────► held ──────────────► idle ──── more than `remembered`, and cool ───► forgotten
//!   forgotten ──────►  ▲ ▲ ─────────────► kept                                               │
//!     ▲                │ └── cooled down ──┘ │ sticky time is over, or the pod's interface    │
//!     │                │                     ▼ left a newer address behind                   │
//!     │                └──── cooled down ── idle                                             │
//!     └──────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Least recently used first ([`Order`]): fresh (never used, lowest first), forgotten (in turn), idle in the order of
//! release, then kept in the order of release. Only held, idle and kept addresses have an entry; fresh and forgotten
//! ones are intervals. A held or released address outside of what may be leased is a stray: it is not leased anew,
//! and has no entry once it is released and cool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{Family, IfName, PodKey, PoolName, Timestamp};

use crate::bits::{from_bits, to_bits};
use crate::intervals::Intervals;
use crate::queue::{Queue, Released};
use crate::range::Extent;
use crate::{AllocateError, Order, Owner, Policy, Range, State, Usage};

#[derive(Debug, Clone)]
pub(crate) struct Space {
    family: Family,
    remembered: usize,
    extent: Extent,
    fresh: Intervals,
    forgotten: Intervals,
    /// Behind the forgotten address that was leased last: they take turns.
    turn: u128,
    entries: BTreeMap<IpAddr, Entry>,
    shelves: Shelves,
    /// The address that waits for this interface of this pod.
    kept_for: BTreeMap<(PodKey, IfName), IpAddr>,
    draining: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) owner: Owner,
    pub(crate) since: Timestamp,
    /// `None` while it is held.
    place: Option<(Shelf, Released)>,
}

impl Entry {
    pub(crate) fn released(&self) -> Option<Released> {
        self.place.map(|(_, released)| released)
    }
}

/// Where a released address waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shelf {
    Idle,
    Kept,
    Stray,
    KeptStray,
}

impl Shelf {
    const ALL: [Shelf; 4] = [Shelf::Idle, Shelf::Kept, Shelf::Stray, Shelf::KeptStray];
}

#[derive(Debug, Clone, Default)]
struct Shelves {
    idle: Queue,
    kept: Queue,
    stray: Queue,
    kept_stray: Queue,
}

impl Shelves {
    fn get(&mut self, shelf: Shelf) -> &mut Queue {
        match shelf {
            Shelf::Idle => &mut self.idle,
            Shelf::Kept => &mut self.kept,
            Shelf::Stray => &mut self.stray,
            Shelf::KeptStray => &mut self.kept_stray,
        }
    }

    fn len(&self) -> usize {
        self.idle.len() + self.kept.len() + self.stray.len() + self.kept_stray.len()
    }
}

impl Space {
    /// Keeps the order of release of at most `remembered` addresses that are cool.
    pub(crate) fn new(family: Family, remembered: usize) -> Self {
        Self {
            family,
            remembered,
            extent: Extent::default(),
            fresh: Intervals::default(),
            forgotten: Intervals::default(),
            turn: 0,
            entries: BTreeMap::new(),
            shelves: Shelves::default(),
            kept_for: BTreeMap::new(),
            draining: 0,
        }
    }

    pub(crate) fn has_ranges(&self) -> bool {
        self.extent.ranges > 0
    }

    pub(crate) fn get(&self, addr: IpAddr) -> Option<&Entry> {
        self.entries.get(&addr)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Entry)> + '_ {
        self.entries.iter().map(|(&addr, entry)| (addr, entry))
    }

    pub(crate) fn set_ranges(&mut self, ranges: &[Range]) {
        let extent = Extent::of(self.family, ranges);
        if extent == self.extent {
            return;
        }
        self.extent = extent;
        self.forgotten.intersect(&self.extent.usable);
        self.fresh = self.extent.usable.clone();
        self.fresh.subtract(&self.forgotten);
        let addrs: Vec<IpAddr> = self.entries.keys().copied().collect();
        self.draining = 0;
        for addr in addrs {
            let bits = to_bits(addr);
            self.fresh.remove(bits, bits);
            match self.unshelve(addr) {
                Some((shelf, released)) => {
                    let kept = matches!(shelf, Shelf::Kept | Shelf::KeptStray);
                    self.shelve(addr, self.shelf(addr, kept), released);
                }
                None => self.draining += usize::from(!self.lends(addr)),
            }
        }
    }

    /// Catches up with the time: what was kept for long enough is idle, what is of no use any more is forgotten.
    pub(crate) fn settle(&mut self, policy: &Policy, now: Timestamp) {
        for kept in [Shelf::Kept, Shelf::KeptStray] {
            while let Some(addr) = self.shelves.get(kept).first_before(policy.sticky_for, now) {
                self.stop_keeping(addr);
            }
        }
        while self.shelves.idle.len() > self.remembered
            && let Some(addr) = self.shelves.idle.first_before(policy.cool_down, now)
        {
            self.forget(addr);
        }
        // Without any range it is not known yet what is a stray.
        while self.has_ranges()
            && let Some(addr) = self.shelves.stray.first_before(policy.cool_down, now)
        {
            self.forget(addr);
        }
    }

    /// Lets nothing be released later than `now`, in the order in which it was released: the clock went back.
    pub(crate) fn forget_times_after(&mut self, now: Timestamp) {
        for shelf in Shelf::ALL {
            for (released, addr) in self.shelves.get(shelf).take_after(now) {
                self.shelve(addr, shelf, Released { at: now, number: released.number });
            }
        }
    }

    /// The address that `owner` gets: the wanted one, the one kept for it, or the least recently used one.
    pub(crate) fn pick(
        &self,
        pool: &PoolName,
        owner: &Owner,
        wanted: Option<IpAddr>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<IpAddr, AllocateError> {
        if let Some(addr) = wanted {
            return self.check_wanted(pool, owner, addr, policy, now).map(|()| addr);
        }
        let unused =
            || self.fresh.min().or_else(|| self.next_forgotten()).map(|bits| from_bits(self.family, bits));
        let cool = |queue: &Queue| queue.first_before(policy.cool_down, now);
        let free = || match policy.order {
            Order::LongestFree => unused().or_else(|| cool(&self.shelves.idle)),
            Order::Lowest => self.lowest(policy, now),
        };
        self.kept_for(owner).or_else(free).or_else(|| cool(&self.shelves.kept)).ok_or_else(|| {
            AllocateError::Exhausted {
                pool: pool.clone(),
                family: self.family,
                capacity: self.extent.capacity,
                next_free_in: self.next_free_in(policy, now),
            }
        })
    }

    /// The lowest address that nobody has and that has rested.
    fn lowest(&self, policy: &Policy, now: Timestamp) -> Option<IpAddr> {
        let unused = self.fresh.min().into_iter().chain(self.forgotten.min());
        let unused = unused.map(|bits| from_bits(self.family, bits));
        let rested =
            self.shelves.idle.iter().take_while(|(released, _)| released.at.after(policy.cool_down) <= now);
        unused.chain(rested.map(|(_, addr)| addr)).min()
    }

    /// Gives the address to `owner`, whoever had it.
    pub(crate) fn hold(&mut self, addr: IpAddr, owner: Owner, since: Timestamp) {
        if self.next_forgotten() == Some(to_bits(addr)) {
            self.turn = to_bits(addr).saturating_add(1);
        }
        self.take_out(addr);
        self.draining += usize::from(!self.lends(addr));
        self.entries.insert(addr, Entry { owner, since, place: None });
    }

    /// Puts the address where released ones wait; `owner` had it since `since`.
    pub(crate) fn release(&mut self, addr: IpAddr, owner: Owner, since: Timestamp, released: Released) {
        self.take_out(addr);
        let waits_for =
            owner.pod.clone().filter(|_| owner.sticky).map(|pod| (pod, owner.attachment.ifname.clone()));
        self.entries.insert(addr, Entry { owner, since, place: None });
        let shelf = self.shelf(addr, waits_for.is_some());
        self.shelve(addr, shelf, released);
        if let Some(key) = waits_for
            && let Some(older) = self.kept_for.insert(key, addr)
        {
            self.stop_keeping(older);
        }
    }

    pub(crate) fn usage(&self, policy: &Policy, now: Timestamp) -> Usage {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let warm = |released: Released| now < released.at.after(policy.cool_down);
        let expired =
            self.shelves.kept.iter().take_while(|(released, _)| released.at.after(policy.sticky_for) <= now);
        let (expired, expired_warm) =
            expired.fold((0, 0), |(all, warm_ones), (r, _)| (all + 1, warm_ones + usize::from(warm(r))));
        let cooling =
            self.shelves.idle.iter().rev().take_while(|(released, _)| warm(*released)).count() + expired_warm;
        let held = count(self.entries.len() - self.shelves.len() - self.draining);
        let kept = count(self.shelves.kept.len() - expired);
        let cooling = count(cooling);
        Usage {
            ranges: self.extent.ranges,
            capacity: self.extent.capacity,
            held,
            cooling,
            kept,
            free: self.extent.capacity.saturating_sub(held + cooling + kept),
            draining: count(self.draining),
        }
    }

    /// The state of an entry; `None` for one that is free and only remembered for its turn.
    pub(crate) fn state(entry: &Entry, policy: &Policy, now: Timestamp) -> Option<State> {
        let Some((shelf, released)) = entry.place else { return Some(State::Held) };
        let kept = released.at.after(policy.sticky_for);
        let cool = released.at.after(policy.cool_down);
        match shelf {
            Shelf::Kept | Shelf::KeptStray if now < kept => Some(State::Kept { until: kept }),
            Shelf::Idle | Shelf::Kept | Shelf::Stray | Shelf::KeptStray => {
                (now < cool).then_some(State::Cooling { until: cool })
            }
        }
    }

    fn check_wanted(
        &self,
        pool: &PoolName,
        owner: &Owner,
        addr: IpAddr,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(), AllocateError> {
        let pool = pool.clone();
        if !self.extent.covered.contains(to_bits(addr)) {
            return Err(AllocateError::NotInPool { addr, pool });
        }
        if !self.lends(addr) {
            return Err(AllocateError::Reserved { addr, pool });
        }
        let Some(entry) = self.entries.get(&addr) else { return Ok(()) };
        let state = Self::state(entry, policy, now);
        match (state, entry.owner.pod.clone()) {
            (Some(State::Held), _) => {
                Err(AllocateError::Taken { addr, pool, holder: entry.owner.attachment.clone() })
            }
            _ if entry.owner.is_same_as(owner) => Ok(()),
            (Some(State::Kept { until }), Some(pod)) => {
                Err(AllocateError::Kept { addr, pool, pod, free_in: until.since(now) })
            }
            (Some(State::Cooling { until } | State::Kept { until }), _) => {
                Err(AllocateError::Cooling { addr, pool, free_in: until.since(now) })
            }
            (None, _) => Ok(()),
        }
    }

    fn kept_for(&self, owner: &Owner) -> Option<IpAddr> {
        let pod = owner.pod.clone().filter(|_| owner.sticky)?;
        let addr = *self.kept_for.get(&(pod, owner.attachment.ifname.clone()))?;
        self.lends(addr).then_some(addr)
    }

    fn next_free_in(&self, policy: &Policy, now: Timestamp) -> Option<Duration> {
        let first = [&self.shelves.idle, &self.shelves.kept].into_iter().filter_map(Queue::front).min()?;
        Some(first.0.at.after(policy.cool_down).since(now))
    }

    fn next_forgotten(&self) -> Option<u128> {
        self.forgotten.first_from(self.turn).or(self.forgotten.min())
    }

    fn lends(&self, addr: IpAddr) -> bool {
        self.extent.usable.contains(to_bits(addr))
    }

    fn shelf(&self, addr: IpAddr, kept: bool) -> Shelf {
        match (kept, self.lends(addr)) {
            (false, true) => Shelf::Idle,
            (true, true) => Shelf::Kept,
            (false, false) => Shelf::Stray,
            (true, false) => Shelf::KeptStray,
        }
    }

    fn shelve(&mut self, addr: IpAddr, shelf: Shelf, released: Released) {
        self.shelves.get(shelf).insert(released, addr);
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.place = Some((shelf, released));
        }
    }

    fn unshelve(&mut self, addr: IpAddr) -> Option<(Shelf, Released)> {
        let (shelf, released) = self.entries.get_mut(&addr)?.place.take()?;
        self.shelves.get(shelf).remove(released);
        Some((shelf, released))
    }

    /// Leaves no trace of the address, so that it can be put somewhere.
    fn take_out(&mut self, addr: IpAddr) {
        let bits = to_bits(addr);
        self.fresh.remove(bits, bits);
        self.forgotten.remove(bits, bits);
        let place = self.unshelve(addr);
        let Some(entry) = self.entries.remove(&addr) else { return };
        if place.is_none() {
            self.draining -= usize::from(!self.lends(addr));
        }
        self.drop_claim(addr, &entry.owner);
    }

    fn forget(&mut self, addr: IpAddr) {
        self.take_out(addr);
        if self.lends(addr) {
            let bits = to_bits(addr);
            self.forgotten.insert(bits, bits);
        }
    }

    /// The pod has waited for too long, or left a newer address behind. The entry says so, and hence a snapshot.
    fn stop_keeping(&mut self, addr: IpAddr) {
        let Some((_, released)) = self.unshelve(addr) else { return };
        self.shelve(addr, self.shelf(addr, false), released);
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.owner.sticky = false;
            let owner = entry.owner.clone();
            self.drop_claim(addr, &owner);
        }
    }

    fn drop_claim(&mut self, addr: IpAddr, owner: &Owner) {
        let Some(pod) = owner.pod.clone() else { return };
        let key = (pod, owner.attachment.ifname.clone());
        if self.kept_for.get(&key) == Some(&addr) {
            self.kept_for.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
