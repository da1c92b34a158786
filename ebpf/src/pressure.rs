// SPDX-License-Identifier: Apache-2.0
//! How full the maps are.

use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, Map, MapData, MapError, MapType};
use rhumb_ebpf_common::layout::{
    Address, Ct, CtKey, Endpoint, Fragment, FragmentKey, HostPortKey, HostPortValue, Link, Nat, NatKey,
    Remote, Uplink,
};

use crate::entries::EntryError;
use crate::object::MAPS;

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
                all.push(count(&self.maps, map, layout.kind)?);
            }
        }
        Ok(all)
    }
}

type Count = fn(&Path, &'static str, MapType) -> Result<MapUse, EntryError>;

/// What counts the entries of a map; nothing for maps whose entries are always there.
fn counter(map: &str) -> Option<Count> {
    Some(match map {
        "pods" => count::<Address, Endpoint>,
        "links" => count::<u32, Link>,
        "host_ports" => count::<HostPortKey, HostPortValue>,
        "ct" => count::<CtKey, Ct>,
        "nat" => count::<NatKey, Nat>,
        "uplinks" => count::<u32, Uplink>,
        "fragments" => count::<FragmentKey, Fragment>,
        "ipcache" => count::<Address, Remote>,
        _ => return None,
    })
}

fn count<K: Pod, V: Pod>(maps: &Path, name: &'static str, kind: MapType) -> Result<MapUse, EntryError> {
    let failed = |source| EntryError::Open { map: name, source: Box::new(source) };
    let data = MapData::from_pin(maps.join(name)).map_err(failed)?;
    // The size of some maps is a setting, so the map itself is asked.
    let capacity = data.info().map_err(failed)?.max_entries();
    let map = Map::from_map_data(data).map_err(failed)?;
    let entries = if kind == MapType::LpmTrie {
        walk(LpmTrie::<_, K, V>::try_from(map).map_err(failed)?.keys(), name, capacity)
    } else {
        walk(HashMap::<_, K, V>::try_from(map).map_err(failed)?.keys(), name, capacity)
    }?;
    Ok(MapUse { map: name, entries, capacity })
}

/// An entry that goes while it is passed begins the walk anew, so the walk has an end of its own.
fn walk<K>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    map: &'static str,
    capacity: u32,
) -> Result<u32, EntryError> {
    let mut entries = 0;
    for key in keys.take(usize::try_from(capacity).unwrap_or(usize::MAX)) {
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
