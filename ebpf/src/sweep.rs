// SPDX-License-Identifier: Apache-2.0
//! Removes flows and mappings whose time is over, a few at a time.
//!
//! Programs take what has expired for absent, so nothing waits for this but the room in the maps. A flow and its mapping
//! have one lifetime, and either brings the other back, so each map is swept by itself.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use aya::Pod;
use rhumb_ebpf_common::layout::{Ct, CtKey, Nat, NatKey};

use crate::entries::{Entries, EntryError};
use crate::tick;

/// For how many ticks more what has expired is left, so that it is not removed under a packet that is just renewing it.
const GRACE: u32 = 2;

/// Length of the keys of both maps.
const KEY: usize = size_of::<CtKey>();
const _: () = assert!(size_of::<NatKey>() == KEY);

/// What a round found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Flows and mappings that were looked at.
    pub seen: u64,
    /// Those that had expired and were removed.
    pub removed: u64,
}

/// The sweep of this node's flows and mappings.
#[derive(Debug, Clone)]
pub struct Sweep {
    maps: PathBuf,
    flows: u32,
}

impl Sweep {
    pub(crate) fn new(maps: &Path, flows: u32) -> Self {
        Self { maps: maps.to_owned(), flows }
    }

    /// Goes once through everything. After each `batch` entries, which take about a microsecond each, it calls `pause`,
    /// which may wait, and may end the round.
    ///
    /// # Errors
    /// [`EntryError`] when the kernel does not give or remove an entry; what was removed is gone.
    pub fn round(&self, batch: u64, mut pause: impl FnMut() -> ControlFlow<()>) -> Result<Swept, EntryError> {
        let mut swept = Swept::default();
        let mut look = || {
            swept.seen += 1;
            if swept.seen % batch.max(1) == 0 { pause() } else { ControlFlow::Continue(()) }
        };
        let now = tick::now();
        let is_over = |expires: u32| expires.saturating_add(GRACE) <= now;
        // The kernel begins anew when the key that it is to go on from is gone meanwhile: no round is longer than two.
        let limit = 2 * self.flows;
        let mut removed = sweep(&self.maps, "ct", limit, |flow: &Ct| is_over(flow.expires), &mut look)?;
        removed += sweep(&self.maps, "nat", limit, |nat: &Nat| is_over(nat.expires), &mut look)?;
        swept.removed = removed;
        Ok(swept)
    }
}

/// Removes the entries of a map that are over.
fn sweep<V: Pod>(
    maps: &Path,
    name: &'static str,
    limit: u32,
    is_over: impl Fn(&V) -> bool,
    look: &mut impl FnMut() -> ControlFlow<()>,
) -> Result<u64, EntryError> {
    let walked = Entries::<[u8; KEY], V>::open(maps, name)?;
    let mut changed = Entries::<[u8; KEY], V>::open(maps, name)?;
    let mut keys = walked.keys();
    let mut removed = 0;
    let mut next = keys.next();
    for _ in 0..limit {
        let Some(key) = next else { break };
        let key = key?;
        // Before the entry is removed, as the way goes on from it.
        next = keys.next();
        if changed.get(&key)?.is_some_and(|value| is_over(&value)) {
            changed.remove(&"of a flow", &key)?;
            removed += 1;
        }
        if look().is_break() {
            break;
        }
    }
    Ok(removed)
}
