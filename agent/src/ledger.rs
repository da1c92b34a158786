// SPDX-License-Identifier: Apache-2.0
//! The truth of this node: which attachments there are, and which addresses they hold.
//!
//! One journal holds both, so that one write makes an attachment and its leases durable together. What is in memory
//! is the fold of the journal; nobody is told of an attachment before its record is on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rhumb_ipam::{
    AllocateError, AppendError, Journal, Lease, OpenError, Order, Owner, Policy, Pool, Range, Record, Repair,
    Request, RestoreError,
};
use rhumb_model::{AttachmentKey, Family, PoolName, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::endpoint::Endpoint;

/// How long a sticky address waits for its pod to come back.
pub(crate) const STICKY_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A journal below this size in bytes is not worth compacting, nor one that has not doubled since.
const COMPACT_AT: u64 = 1 << 20;

/// One record of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// The kernel's boot id: attachments of another boot are gone.
    Boot { id: String },
    /// An attachment was made, or changed.
    Attached { endpoint: Box<Endpoint>, leases: Vec<Lease> },
    /// An attachment was removed, and its addresses were released.
    Detached { key: AttachmentKey, at: Timestamp },
    /// An address that was released before the journal was last compacted.
    Resting { address: Record },
}

/// The ledger could not be opened, or not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("open the journal of attachments")]
    Open(#[from] OpenError),
    #[error("take over the leases of the journal")]
    Restore(#[from] RestoreError),
    #[error("write the journal of attachments")]
    Write(#[from] AppendError),
}

/// What opening found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The journal's tail was torn and cut.
    pub(crate) repaired: Option<Repair>,
    /// Attachments of an earlier boot, now released.
    pub(crate) forgotten: usize,
}

/// Attachments and leases of this node.
#[derive(Debug)]
pub(crate) struct Ledger {
    journal: Journal<Event>,
    boot: String,
    /// Size in bytes at which the journal is compacted next.
    compact_at: u64,
    pool: Pool,
    /// Whether the pool is named by what is leased, and not by a flag.
    follows: bool,
    endpoints: BTreeMap<AttachmentKey, Endpoint>,
}

impl Ledger {
    /// Reads the journal at `path`, or begins one. `boot` is the kernel's boot id. Where it `follows`, the pool takes the
    /// name of the last lease.
    pub(crate) fn open(
        path: &Path,
        pool: Pool,
        follows: bool,
        boot: &str,
        now: Timestamp,
    ) -> Result<(Self, Found), LedgerError> {
        let (journal, opened) = Journal::open(path)?;
        let (boot, endpoints) = (boot.to_owned(), BTreeMap::new());
        let mut ledger = Self { journal, boot, compact_at: COMPACT_AT, pool, follows, endpoints };
        let forgotten = ledger.fold(opened.records, now)?;
        ledger.compact()?;
        Ok((ledger, Found { repaired: opened.repaired, forgotten }))
    }

    fn fold(&mut self, events: Vec<Event>, now: Timestamp) -> Result<usize, RestoreError> {
        let mut boot = None;
        for event in events {
            match event {
                Event::Boot { id } => boot = Some(id),
                Event::Attached { endpoint, leases } => {
                    for lease in leases {
                        self.follow(&lease);
                        self.pool.restore(lease)?;
                    }
                    self.endpoints.insert(endpoint.key.clone(), *endpoint);
                }
                Event::Detached { key, at } => {
                    self.endpoints.remove(&key);
                    self.pool.release(&key, at);
                }
                Event::Resting { address } => {
                    match &address {
                        Record::Leased { lease } | Record::Released { lease, .. } => self.follow(lease),
                    }
                    self.pool.replay(address)?;
                }
            }
        }
        if boot.is_none_or(|id| id == self.boot) {
            return Ok(0);
        }
        let gone = std::mem::take(&mut self.endpoints);
        for key in gone.keys() {
            self.pool.release(key, now);
        }
        Ok(gone.len())
    }

    fn follow(&mut self, lease: &Lease) {
        if self.follows && lease.pool != *self.pool.name() {
            self.pool.rename(lease.pool.clone());
        }
    }

    /// Names the pool that addresses are leased from.
    pub(crate) fn set_pool(&mut self, name: PoolName) {
        self.pool.rename(name);
    }

    /// Every attachment.
    pub(crate) fn endpoints(&self) -> &BTreeMap<AttachmentKey, Endpoint> {
        &self.endpoints
    }

    /// The pool of this node.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Sets what may be leased.
    pub(crate) fn set_ranges(&mut self, ranges: &[Range]) {
        self.pool.set_ranges(ranges);
    }

    /// Sets the families of which every attachment gets an address, also while nothing of them may be leased.
    pub(crate) fn set_families(&mut self, families: &[Family]) {
        self.pool.set_families(families);
    }

    /// Sets for how long a released address stays out of use, and which comes first.
    pub(crate) fn set_lending(&mut self, cool_down: Duration, order: Order) {
        self.pool.set_policy(Policy { cool_down, sticky_for: STICKY_FOR, order });
    }

    /// Leases addresses in memory; they count once [`Ledger::attach`] has written them.
    pub(crate) fn lease(
        &mut self,
        owner: &Owner,
        wanted: &[IpAddr],
        now: Timestamp,
    ) -> Result<Vec<Lease>, AllocateError> {
        self.pool.lease(owner, &Request { wanted: wanted.to_vec() }, now)
    }

    /// Gives back a lease that was never written.
    pub(crate) fn unlease(&mut self, key: &AttachmentKey, now: Timestamp) {
        if !self.endpoints.contains_key(key) {
            self.pool.release(key, now);
        }
    }

    /// Writes attachments, new or changed, with what they lease, as one durable step.
    pub(crate) fn attach(&mut self, endpoints: Vec<Endpoint>) -> Result<(), AppendError> {
        let events: Vec<Event> = endpoints.iter().map(|endpoint| self.attached(endpoint)).collect();
        self.journal.append(&events)?;
        self.endpoints.extend(endpoints.into_iter().map(|endpoint| (endpoint.key.clone(), endpoint)));
        Ok(())
    }

    /// Writes that attachments are gone, as one durable step, and frees their addresses. Absence is success.
    pub(crate) fn detach(&mut self, keys: &[AttachmentKey], now: Timestamp) -> Result<(), AppendError> {
        let known = keys.iter().filter(|key| self.endpoints.contains_key(*key));
        let events: Vec<Event> = known.map(|key| Event::Detached { key: key.clone(), at: now }).collect();
        if events.is_empty() {
            return Ok(());
        }
        self.journal.append(&events)?;
        for key in keys {
            self.endpoints.remove(key);
            self.pool.release(key, now);
        }
        if self.journal.bytes() > self.compact_at
            && let Err(error) = self.compact()
        {
            // What was to be written is written: a journal that stays long is no reason to refuse.
            warn!(error = &error as &dyn std::error::Error, "journal not compacted");
        }
        Ok(())
    }

    fn attached(&self, endpoint: &Endpoint) -> Event {
        let leases = self.pool.leases_of(&endpoint.key);
        Event::Attached { endpoint: Box::new(endpoint.clone()), leases }
    }

    fn compact(&mut self) -> Result<(), AppendError> {
        let boot = Event::Boot { id: self.boot.clone() };
        let resting = self.pool.snapshot().into_iter().filter_map(|address| match address {
            Record::Released { .. } => Some(Event::Resting { address }),
            // Held addresses stand with their attachments.
            Record::Leased { .. } => None,
        });
        let attached = self.endpoints.values().map(|endpoint| self.attached(endpoint));
        let events: Vec<Event> = std::iter::once(boot).chain(resting).chain(attached).collect();
        self.journal.compact(&events)?;
        self.compact_at = COMPACT_AT.max(2 * self.journal.bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::{endpoint, request};
    use rhumb_ipam::{Order, Policy};
    use rhumb_model::PoolName;
    use std::time::Duration;

    const POLICY: Policy = Policy {
        cool_down: Duration::from_secs(30),
        sticky_for: Duration::from_secs(3600),
        order: Order::LongestFree,
    };

    fn open(path: &Path, boot: &str, now: u64) -> (Ledger, Found) {
        let pool = Pool::new(PoolName::new("default").expect("valid"), POLICY);
        let (mut ledger, found) = Ledger::open(path, pool, false, boot, Timestamp(now)).expect("opened");
        ledger.set_ranges(&[Range { prefix: "10.1.0.0/29".parse().expect("valid"), reserved: Vec::new() }]);
        (ledger, found)
    }

    fn add(ledger: &mut Ledger, key: &str, now: u64) -> IpAddr {
        let request = request(key);
        let owner = Endpoint::owner(&request.key, None, false);
        let leases = ledger.lease(&owner, &[], Timestamp(now)).expect("leased");
        let addr = leases[0].addr;
        ledger.attach(vec![endpoint(key, &[&addr.to_string()])]).expect("written");
        addr
    }

    #[test]
    fn attachments_and_leases_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut ledger, _) = open(&path, "boot", 0);
        let first = add(&mut ledger, "a/eth0", 0);
        let second = add(&mut ledger, "b/eth0", 0);
        ledger.detach(&["a/eth0".parse().expect("valid")], Timestamp(1)).expect("written");
        let endpoints = ledger.endpoints().clone();
        drop(ledger);
        let (mut ledger, found) = open(&path, "boot", 2);
        assert_eq!((found.forgotten, ledger.endpoints()), (0, &endpoints));
        // The address of `a` still cools down, that of `b` is held.
        let third = add(&mut ledger, "c/eth0", 2);
        assert!(third != first && third != second);
    }

    #[test]
    fn a_pool_that_no_flag_names_is_called_after_the_last_lease() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let name = |text: &str| PoolName::new(text).expect("valid");
        let (mut ledger, _) = open(&path, "boot", 0);
        add(&mut ledger, "a/eth0", 0);
        ledger.set_pool(name("vpc"));
        add(&mut ledger, "b/eth0", 0);
        ledger.detach(&["b/eth0".parse().expect("valid")], Timestamp(1)).expect("written");
        drop(ledger);
        let again = |follows| {
            Ledger::open(&path, Pool::new(name("default"), POLICY), follows, "boot", Timestamp(2)).map(
                |(ledger, _)| (ledger.pool().name().clone(), ledger.pool().entries(Timestamp(2)).count()),
            )
        };
        assert!(matches!(again(false), Err(LedgerError::Restore(RestoreError::OtherPool { .. }))));
        assert_eq!(again(true).expect("opened"), (name("vpc"), 2));
        // All that was written anew has the new name.
        assert_eq!(again(true).expect("opened"), (name("vpc"), 2));
    }

    #[test]
    fn another_boot_releases_everything() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut ledger, _) = open(&path, "one", 0);
        add(&mut ledger, "a/eth0", 0);
        drop(ledger);
        let (ledger, found) = open(&path, "two", 1);
        assert_eq!(found.forgotten, 1);
        assert!(ledger.endpoints().is_empty());
        drop(ledger);
        assert_eq!(open(&path, "two", 2).1.forgotten, 0);
    }

    #[test]
    fn what_was_never_written_is_not_held_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let (mut ledger, _) = open(&path, "boot", 0);
        let owner = Endpoint::owner(&"a/eth0".parse().expect("valid"), None, false);
        ledger.lease(&owner, &[], Timestamp(0)).expect("leased");
        drop(ledger);
        let (ledger, _) = open(&path, "boot", 1);
        assert_eq!(ledger.pool().entries(Timestamp(1)).count(), 0);
    }
}
