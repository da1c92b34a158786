// SPDX-License-Identifier: Apache-2.0
//! The addresses that this node may give to its pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::{AttachmentKey, Family, PoolName, Timestamp};

use crate::queue::Released;
use crate::space::Space;
use crate::{AllocateError, Lease, Owner, Range, Record, Request, RestoreError, State, Usage};

/// How many cool addresses of a family keep their place in the order of release. The ones before them are leased
/// in turn, so that the memory of a large IPv6 range stays bounded.
const REMEMBERED: usize = 256;

/// How long released addresses wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// For how long a released address is leased to no other owner, 30 s unless told otherwise.
    pub cool_down: Duration,
    /// For how long a sticky address waits for its pod, 24 h unless told otherwise.
    pub sticky_for: Duration,
    /// Which of the addresses that are free comes first.
    pub order: Order,
}

/// Which of the addresses that are free comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The one that was not used for longest.
    #[default]
    LongestFree,
    /// The lowest: pods stay together, and whole blocks become free of them.
    Lowest,
}

impl Default for Policy {
    fn default() -> Self {
        let (cool_down, sticky_for) = (Duration::from_secs(30), Duration::from_secs(24 * 60 * 60));
        Self { cool_down, sticky_for, order: Order::LongestFree }
    }
}

/// The addresses of one pool on one node.
///
/// Every call takes the time. When it goes back, what was released later than that counts as released now.
#[derive(Debug, Clone)]
pub struct Pool {
    name: PoolName,
    policy: Policy,
    /// IPv4, IPv6.
    spaces: [Space; 2],
    /// Families of which every owner gets an address.
    families: Vec<Family>,
    held: BTreeMap<AttachmentKey, Vec<IpAddr>>,
    releases: u64,
    latest: Timestamp,
}

impl Pool {
    /// A pool without ranges.
    pub fn new(name: PoolName, policy: Policy) -> Self {
        Self {
            name,
            policy,
            spaces: Family::BOTH.map(|family| Space::new(family, REMEMBERED)),
            families: Vec::new(),
            held: BTreeMap::new(),
            releases: 0,
            latest: Timestamp::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// Gives it another name; its leases go along.
    pub fn rename(&mut self, name: PoolName) {
        self.name = name;
    }

    /// Changes how long released addresses wait, also those that wait already.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Replaces the ranges. Leases outside of them stay until they are released, and are not leased anew.
    pub fn set_ranges(&mut self, ranges: &[Range]) {
        for space in &mut self.spaces {
            space.set_ranges(ranges);
        }
    }

    /// Names the families of which every owner gets an address: while one of them has no range, nobody gets any. None at
    /// first: then those that have a range are enough.
    pub fn set_families(&mut self, families: &[Family]) {
        self.families = families.to_vec();
    }

    /// Leases one address of every family that has a range or was named, IPv4 first; all of them or none.
    ///
    /// An attachment that has leases gets these again, whatever it asks for. A sticky owner gets the address that
    /// is kept for the pod's interface of this name; otherwise the least recently used address is leased.
    ///
    /// # Errors
    /// [`AllocateError`] says which address or which family cannot be had, and nothing was changed.
    pub fn lease(
        &mut self,
        owner: &Owner,
        request: &Request,
        now: Timestamp,
    ) -> Result<Vec<Lease>, AllocateError> {
        self.settle(now);
        let held = self.leases_of(&owner.attachment);
        if !held.is_empty() {
            return Ok(held);
        }
        let picked = self.pick(owner, request, now)?;
        for &addr in &picked {
            self.space_mut(addr).hold(addr, owner.clone(), now);
        }
        self.held.insert(owner.attachment.clone(), picked);
        Ok(self.leases_of(&owner.attachment))
    }

    /// Takes every address of the attachment back, and says which; none is success.
    pub fn release(&mut self, attachment: &AttachmentKey, now: Timestamp) -> Vec<Lease> {
        self.settle(now);
        let leases = self.leases_of(attachment);
        self.held.remove(attachment);
        for lease in &leases {
            self.put_back(lease, now);
        }
        leases
    }

    /// What the attachment has, IPv4 first.
    pub fn leases_of(&self, attachment: &AttachmentKey) -> Vec<Lease> {
        let addrs = self.held.get(attachment).into_iter().flatten();
        addrs
            .filter_map(|&addr| {
                let entry = self.space(addr).get(addr)?;
                Some(self.to_lease(addr, &entry.owner, entry.since))
            })
            .collect()
    }

    /// Takes a lease from the journal, inside or outside of the ranges. The same lease again is success.
    ///
    /// # Errors
    /// [`RestoreError`] when another attachment has the address, or the lease is of another pool.
    pub fn restore(&mut self, lease: Lease) -> Result<(), RestoreError> {
        self.check_pool(&lease)?;
        if let Some(holder) = self.holder(lease.addr)
            && *holder != lease.owner.attachment
        {
            return Err(RestoreError::DoubleLease {
                addr: lease.addr,
                owner: lease.owner.attachment,
                holder: holder.clone(),
            });
        }
        let held = self.held.entry(lease.owner.attachment.clone()).or_default();
        if let Err(place) = held.binary_search(&lease.addr) {
            held.insert(place, lease.addr);
        }
        self.space_mut(lease.addr).hold(lease.addr, lease.owner, lease.since);
        Ok(())
    }

    /// Takes a lease from the journal that has ended: the address cools down, or is kept, from `released` on.
    ///
    /// Without effect when another attachment has the address, or the lease is of another pool.
    pub fn restore_released(&mut self, lease: Lease, released: Timestamp) {
        let owner = &lease.owner.attachment;
        if self.check_pool(&lease).is_err() || self.holder(lease.addr).is_some_and(|holder| holder != owner) {
            return;
        }
        if let Some(held) = self.held.get_mut(owner) {
            held.retain(|addr| *addr != lease.addr);
            if held.is_empty() {
                self.held.remove(owner);
            }
        }
        self.latest = self.latest.max(released);
        self.put_back(&lease, released);
    }

    /// Takes a record from the journal, in the order in which they were written.
    ///
    /// # Errors
    /// As [`Pool::restore`].
    pub fn replay(&mut self, record: Record) -> Result<(), RestoreError> {
        match record {
            Record::Leased { lease } => self.restore(lease),
            Record::Released { lease, released } => {
                self.check_pool(&lease)?;
                self.restore_released(lease, released);
                Ok(())
            }
        }
    }

    /// The records that make a pool like this one: for [`crate::Journal::compact`].
    pub fn snapshot(&self) -> Vec<Record> {
        let mut held = Vec::new();
        let mut released = BTreeMap::new();
        for (addr, entry) in self.spaces.iter().flat_map(Space::iter) {
            let lease = self.to_lease(addr, &entry.owner, entry.since);
            match entry.released() {
                None => held.push(Record::Leased { lease }),
                Some(at) => drop(released.insert(at, Record::Released { lease, released: at.at })),
            }
        }
        held.extend(released.into_values());
        held
    }

    /// Every address that is not free, in order: its state, its owner or last owner, and since when it is in this
    /// state.
    pub fn entries(&self, now: Timestamp) -> impl Iterator<Item = (IpAddr, State, &Owner, Timestamp)> + '_ {
        self.spaces.iter().flat_map(Space::iter).filter_map(move |(addr, entry)| {
            let state = Space::state(entry, &self.policy, now)?;
            let since = entry.released().map_or(entry.since, |released| released.at);
            Some((addr, state, &entry.owner, since))
        })
    }

    /// How full it is in one family.
    pub fn usage(&self, family: Family, now: Timestamp) -> Usage {
        self.spaces[index(family)].usage(&self.policy, now)
    }

    fn pick(&self, owner: &Owner, request: &Request, now: Timestamp) -> Result<Vec<IpAddr>, AllocateError> {
        let wanted = self.wanted_by_family(request)?;
        if !self.spaces.iter().any(Space::has_ranges) {
            return Err(AllocateError::NoRange { pool: self.name.clone() });
        }
        let is_due = |family: Family, space: &Space| space.has_ranges() || self.families.contains(&family);
        Family::BOTH
            .into_iter()
            .zip(&self.spaces)
            .zip(wanted)
            .filter(|((family, space), wanted)| is_due(*family, space) || wanted.is_some())
            .map(|((_, space), wanted)| space.pick(&self.name, owner, wanted, &self.policy, now))
            .collect()
    }

    fn wanted_by_family(&self, request: &Request) -> Result<[Option<IpAddr>; 2], AllocateError> {
        let mut wanted = [None; 2];
        for &addr in &request.wanted {
            let place = &mut wanted[index(Family::of(addr))];
            match *place {
                Some(first) if first != addr => {
                    return Err(AllocateError::TwoOfAFamily { pool: self.name.clone(), first, second: addr });
                }
                Some(_) | None => *place = Some(addr),
            }
        }
        Ok(wanted)
    }

    fn settle(&mut self, now: Timestamp) {
        for space in &mut self.spaces {
            if now < self.latest {
                space.forget_times_after(now);
            }
            space.settle(&self.policy, now);
        }
        self.latest = now;
    }

    fn put_back(&mut self, lease: &Lease, at: Timestamp) {
        self.releases += 1;
        let released = Released { at, number: self.releases };
        self.space_mut(lease.addr).release(lease.addr, lease.owner.clone(), lease.since, released);
    }

    fn holder(&self, addr: IpAddr) -> Option<&AttachmentKey> {
        let entry = self.space(addr).get(addr)?;
        entry.released().is_none().then_some(&entry.owner.attachment)
    }

    fn check_pool(&self, lease: &Lease) -> Result<(), RestoreError> {
        if lease.pool == self.name {
            return Ok(());
        }
        Err(RestoreError::OtherPool { addr: lease.addr, pool: self.name.clone(), other: lease.pool.clone() })
    }

    fn to_lease(&self, addr: IpAddr, owner: &Owner, since: Timestamp) -> Lease {
        Lease { addr, pool: self.name.clone(), owner: owner.clone(), since }
    }

    fn space(&self, addr: IpAddr) -> &Space {
        &self.spaces[index(Family::of(addr))]
    }

    fn space_mut(&mut self, addr: IpAddr) -> &mut Space {
        &mut self.spaces[index(Family::of(addr))]
    }
}

/// The place of a family in [`Pool`]'s spaces.
fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
