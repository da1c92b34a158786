// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rhumb_model::Timestamp;

/// When an address was released: the time, then a running number that orders equal times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Released {
    pub(crate) at: Timestamp,
    pub(crate) number: u64,
}

/// Released addresses, the one that waits longest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    by_release: BTreeMap<Released, IpAddr>,
}

impl Queue {
    pub(crate) fn insert(&mut self, released: Released, addr: IpAddr) {
        self.by_release.insert(released, addr);
    }

    pub(crate) fn remove(&mut self, released: Released) {
        self.by_release.remove(&released);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_release.len()
    }

    pub(crate) fn front(&self) -> Option<(Released, IpAddr)> {
        self.by_release.first_key_value().map(|(&released, &addr)| (released, addr))
    }

    /// The first, when it was released at least `wait` before `now`.
    pub(crate) fn first_before(&self, wait: Duration, now: Timestamp) -> Option<IpAddr> {
        self.front().filter(|(released, _)| released.at.after(wait) <= now).map(|(_, addr)| addr)
    }

    /// Takes out what was released after `now`, in the order of release.
    pub(crate) fn take_after(&mut self, now: Timestamp) -> Vec<(Released, IpAddr)> {
        let Some(next) = now.0.checked_add(1) else { return Vec::new() };
        self.by_release.split_off(&Released { at: Timestamp(next), number: 0 }).into_iter().collect()
    }

    /// In the order of release.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Released, IpAddr)> + '_ {
        self.by_release.iter().map(|(&released, &addr)| (released, addr))
    }
}
