// SPDX-License-Identifier: Apache-2.0
//! How full the maps are.

use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, Map, MapData, MapError, MapType};
use rhumb_ebpf_common::layout::{Address, Endpoint, Flow, FlowKey, HostPortKey, HostPortValue, Link, Remote};

use crate::entries::EntryError;
use crate::object::{Layout, MAPS};

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub map: &'static str,
    /// Entries that it has.
    pub entries: u32,
    /// Entries that it can have.
    pub capacity: u32,
}

/// Counts entries of maps. The kernel does not say how many there are, so they are walked through: a call for each
/// entry, at most as many as the map can have.
#[derive(Debug, Clone)]
pub struct Pressure {
    maps: PathBuf,
}

impl Pressure {
    pub(crate) fn new(maps: &Path) -> Self {
        Self { maps: maps.to_owned() }
    }

    /// Counts every map that entries come into and go from. Blocks for about half a microsecond per entry.
    ///
    /// # Errors
    /// [`EntryError`] names the map that cannot be opened or read.
    pub fn read(&self) -> Result<Vec<MapUse>, EntryError> {
        let mut all = Vec::new();
        for (map, layout) in MAPS {
            if let Some(count) = counter(map) {
                let entries = count(&self.maps, map, layout)?;
                all.push(MapUse { map, entries, capacity: layout.entries });
            }
        }
        Ok(all)
    }
}

type Count = fn(&Path, &'static str, Layout) -> Result<u32, EntryError>;

/// What counts the entries of a map; nothing for maps whose entries are always there.
fn counter(map: &str) -> Option<Count> {
    Some(match map {
        "pods" => count::<Address, Endpoint>,
        "links" => count::<u32, Link>,
        "host_ports" => count::<HostPortKey, HostPortValue>,
        "flows" => count::<FlowKey, Flow>,
        "ipcache" => count::<Address, Remote>,
        _ => return None,
    })
}

fn count<K: Pod, V: Pod>(maps: &Path, name: &'static str, layout: Layout) -> Result<u32, EntryError> {
    let failed = |source| EntryError::Open { map: name, source: Box::new(source) };
    let map = MapData::from_pin(maps.join(name)).and_then(Map::from_map_data).map_err(failed)?;
    if layout.kind == MapType::LpmTrie {
        let trie = LpmTrie::<_, K, V>::try_from(map).map_err(failed)?;
        walk(trie.keys(), name, layout)
    } else {
        let hash = HashMap::<_, K, V>::try_from(map).map_err(failed)?;
        walk(hash.keys(), name, layout)
    }
}

/// An entry that goes while it is passed begins the walk anew, so the walk has an end of its own.
fn walk<K>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    map: &'static str,
    layout: Layout,
) -> Result<u32, EntryError> {
    let mut entries = 0;
    for key in keys.take(usize::try_from(layout.entries).unwrap_or(usize::MAX)) {
        key.map_err(|source| EntryError::Read { map, source: Box::new(source) })?;
        entries += 1;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_that_can_fill_is_counted() {
        for (name, layout) in MAPS {
            let fills = matches!(layout.kind, MapType::Hash | MapType::LruHash | MapType::LpmTrie);
            assert_eq!(counter(name).is_some(), fills, "{name}");
        }
    }
}
