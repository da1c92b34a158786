// SPDX-License-Identifier: Apache-2.0
//! The number that ends what flows keep of their ways: it moves whenever something changes that a way may depend on.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, Map, MapData, MapError};
use rhumb_ebpf_common::ct::MOMENT;
use rhumb_ebpf_common::layout;
use rustix::time::{ClockId, clock_getres};

use crate::entries::EntryError;
use crate::object::EPOCH;

/// The number by which programs know that what flows keep is of before. Clones share it.
///
/// The map stays when programs are replaced and when the process ends, so that all programs see what any process says. Of
/// two processes at once the number may move by less than both say; what flows keep ends all the same.
#[derive(Clone)]
pub struct Epoch {
    map: Arc<Mutex<Array<MapData, layout::Epoch>>>,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").finish_non_exhaustive()
    }
}

impl Epoch {
    pub(crate) fn open(maps: &Path) -> Result<Self, EntryError> {
        let map = MapData::from_pin(maps.join(EPOCH))
            .and_then(Map::from_map_data)
            .and_then(Array::try_from)
            .map_err(|source| EntryError::Open { map: EPOCH, source: Box::new(source) })?;
        Ok(Self { map: Arc::new(Mutex::new(map)) })
    }

    /// Ends what flows keep of their ways: the next packet of each asks anew. To be called after the change.
    ///
    /// # Errors
    /// [`EntryError`] when the kernel does not take it; what flows keep then ends with the moment.
    pub fn advance(&self) -> Result<(), EntryError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |source: MapError| EntryError::Read { map: EPOCH, source: Box::new(source) };
        let number = map.get(&0, 0).map_err(read)?.number.wrapping_add(1);
        map.set(0, layout::Epoch { number, shift: shift() }, 0).map_err(|source| EntryError::Write {
            map: EPOCH,
            key: "0".to_owned(),
            source: Box::new(source),
        })
    }
}

/// How many ticks of the kernel a moment has, as a power of two.
fn shift() -> u32 {
    // The grain of the coarse clocks is a tick.
    let grain = clock_getres(ClockId::MonotonicCoarse);
    shift_of(u64::try_from(grain.tv_nsec).unwrap_or(0))
}

/// As [`shift`], for a tick of so many nanoseconds.
fn shift_of(tick: u64) -> u32 {
    (MOMENT / tick.max(1)).checked_ilog2().unwrap_or(0).min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_no_longer_than_it_may_be_unless_a_tick_is() {
        for (hertz, shift) in [(1_000, 3), (300, 1), (250, 1), (100, 0)] {
            assert_eq!(shift_of(1_000_000_000 / hertz), shift, "{hertz}");
        }
        assert_eq!(shift_of(0), 23);
    }
}
