// SPDX-License-Identifier: Apache-2.0
//! Removes flows and mappings whose time is over, a few at a time, and finds out how many had to go before their time.
//!
//! Programs take what has expired for absent, so nothing waits for this but the room in the maps. A flow and its mapping
//! have one lifetime, and either brings the other back, so each map is swept by itself.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{Map, MapData, PerCpuArray};
use rhumb_ebpf_common::layout::{Churn, Ct, CtKey, Nat, NatKey};

use crate::entries::{Entries, EntryError};
use crate::tick;

/// For how many ticks more what has expired is left, so that it is not removed under a packet that is just renewing it.
const GRACE: u32 = 2;

/// Length of the keys of both maps.
const KEY: usize = size_of::<CtKey>();
const _: () = assert!(size_of::<NatKey>() == KEY);

/// What a round found in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// The map.
    pub map: &'static str,
    /// Entries that were looked at.
    pub seen: u64,
    /// Those that had expired and were removed.
    pub removed: u64,
    /// What programs did to the map until the round began, and until it ended.
    churn: [Churn; 2],
    /// How many entries the map can have.
    capacity: u64,
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

    /// Goes once through everything; what was found in each map that was gone through to its end. After each `batch`
    /// entries, which take about a microsecond each, it calls `pause`, which may wait, and may end the round.
    ///
    /// # Errors
    /// [`EntryError`] when the kernel does not give or remove an entry; what was removed is gone.
    pub fn round(
        &self,
        batch: u64,
        mut pause: impl FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Swept>, EntryError> {
        let mut seen = 0;
        let mut look = || {
            seen += 1;
            if seen % batch.max(1) == 0 { pause() } else { ControlFlow::Continue(()) }
        };
        let now = tick::now();
        let is_over = |expires: u32| expires.saturating_add(GRACE) <= now;
        let flows = self.sweep(("ct", Churn::CT), |flow: &Ct| is_over(flow.expires), &mut look)?;
        let mappings = self.sweep(("nat", Churn::NAT), |nat: &Nat| is_over(nat.expires), &mut look)?;
        Ok(flows.into_iter().chain(mappings).collect())
    }

    /// Removes the entries of a map that are over; nothing is said when the round was ended before.
    fn sweep<V: Pod>(
        &self,
        (map, number): (&'static str, u32),
        is_over: impl Fn(&V) -> bool,
        look: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Swept>, EntryError> {
        let walked = Entries::<[u8; KEY], V>::open(&self.maps, map)?;
        let mut changed = Entries::<[u8; KEY], V>::open(&self.maps, map)?;
        let before = self.churn(number)?;
        let (mut seen, mut removed) = (0, 0);
        let mut keys = walked.keys();
        let mut next = keys.next();
        // The kernel begins anew when the key that it is to go on from is gone meanwhile: no round is longer than two.
        for _ in 0..2 * self.flows {
            let Some(key) = next else { break };
            let key = key?;
            // Before the entry is removed, as the way goes on from it.
            next = keys.next();
            seen += 1;
            if changed.get(&key)?.is_some_and(|value| is_over(&value)) {
                changed.remove(&"of a flow", &key)?;
                removed += 1;
            }
            if look().is_break() {
                return Ok(None);
            }
        }
        let churn = [before, self.churn(number)?];
        Ok(Some(Swept { map, seen, removed, churn, capacity: u64::from(self.flows) }))
    }

    /// What programs put into a map and took out of it since the maps were made.
    fn churn(&self, number: u32) -> Result<Churn, EntryError> {
        const MAP: &str = "churn";
        let failed = |source| EntryError::Open { map: MAP, source: Box::new(source) };
        let map = MapData::from_pin(self.maps.join(MAP)).and_then(Map::from_map_data).map_err(failed)?;
        let map = PerCpuArray::<_, Churn>::try_from(map).map_err(failed)?;
        let values =
            map.get(&number, 0).map_err(|source| EntryError::Read { map: MAP, source: Box::new(source) })?;
        Ok(Churn {
            inserted: values.iter().map(|value| value.inserted).sum(),
            removed: values.iter().map(|value| value.removed).sum(),
        })
    }
}

/// How many entries had to make room for others before their time.
///
/// A map that forgets says nothing when it does. What was put into it, less what was taken out and less what is there, is
/// what was forgotten. While entries come and go the count of those that are there is not sharp, so each round gives a
/// number that is certainly not too high, and the highest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evictions {
    maps: BTreeMap<&'static str, Account>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    /// Entries that were put and not taken out by programs until the end of the first round, less those that were there.
    before: u64,
    /// Entries that rounds after it removed.
    removed: u64,
    evicted: u64,
}

impl Evictions {
    /// Takes note of a round; how many more entries of its map were evicted than was known.
    pub fn note(&mut self, swept: &Swept) -> u64 {
        let present = swept.seen.min(swept.capacity).saturating_sub(swept.removed);
        let [begun, ended] = swept.churn.map(|churn| churn.inserted.wrapping_sub(churn.removed));
        let Some(account) = self.maps.get_mut(swept.map) else {
            let before = ended.wrapping_sub(present);
            self.maps.insert(swept.map, Account { before, removed: 0, evicted: 0 });
            return 0;
        };
        account.removed += swept.removed;
        let taken = account.before.wrapping_add(account.removed).wrapping_add(present);
        // More may be there than was put until the round began: that is no eviction.
        let evicted = u64::try_from(begun.wrapping_sub(taken).cast_signed()).unwrap_or(0);
        let more = evicted.saturating_sub(account.evicted);
        account.evicted += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(seen: u64, removed: u64, churn: [(u64, u64); 2]) -> Swept {
        let churn = churn.map(|(inserted, removed)| Churn { inserted, removed });
        Swept { map: "ct", seen, removed, churn, capacity: 100 }
    }

    #[test]
    fn what_was_put_and_is_neither_there_nor_taken_out_was_evicted() {
        let mut evictions = Evictions::default();
        // Entries from before the count began are no riddle.
        assert_eq!(evictions.note(&swept(90, 5, [(10, 0), (10, 0)])), 0);
        assert_eq!(evictions.note(&swept(95, 0, [(20, 0), (20, 0)])), 0);
        assert_eq!(evictions.note(&swept(100, 10, [(50, 2), (50, 2)])), 23);
        assert_eq!(evictions.note(&swept(90, 0, [(50, 2), (50, 2)])), 0);
    }

    #[test]
    fn what_comes_during_a_round_is_no_eviction() {
        let mut evictions = Evictions::default();
        assert_eq!(evictions.note(&swept(10, 0, [(0, 0), (30, 0)])), 0);
        assert_eq!(evictions.note(&swept(60, 0, [(40, 0), (60, 0)])), 0);
        // A quiet round tells all: 20 were there and not seen in the first one, and are gone.
        assert_eq!(evictions.note(&swept(40, 0, [(80, 0), (80, 0)])), 20);
    }
}
