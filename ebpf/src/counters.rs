// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::path::Path;

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use rhumb_ebpf_common::layout::Count;
use rhumb_ebpf_common::{Direction, Reason};

/// What became of the packets of one direction for one reason, since the maps were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Why.
    pub reason: Reason,
    /// Which program saw them.
    pub direction: Direction,
    /// Packets; a segment that the device cuts up counts once.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
}

/// Why the counters cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read map counters")]
pub struct CounterError(#[from] MapError);

/// The counters of the kernel side.
pub(crate) struct Counters {
    map: PerCpuArray<MapData, Count>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    pub(crate) fn open(maps: &Path) -> Result<Self, CounterError> {
        let map = Map::from_map_data(MapData::from_pin(maps.join("counters"))?)?;
        Ok(Self { map: PerCpuArray::try_from(map)? })
    }

    /// All counters that ever counted, by direction and reason.
    pub(crate) fn read(&self) -> Result<Vec<Counter>, CounterError> {
        let mut counters = Vec::new();
        for direction in Direction::ALL {
            for reason in Reason::ALL {
                let values = self.map.get(&Count::index(*reason, direction), 0)?;
                let packets = values.iter().map(|value| value.packets).sum();
                let bytes = values.iter().map(|value| value.bytes).sum();
                if packets > 0 {
                    counters.push(Counter { reason: *reason, direction, packets, bytes });
                }
            }
        }
        Ok(counters)
    }
}
