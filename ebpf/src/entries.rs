// SPDX-License-Identifier: Apache-2.0
//! A hash map with its entries in the words of the user side.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use rhumb_ebpf_common::layout::Address;
use rhumb_model::MacAddr;

/// Why an entry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The pinned map cannot be opened.
    #[error("open map {map}")]
    Open {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The entries cannot be read.
    #[error("read map {map}")]
    Read {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// An entry cannot be written.
    #[error("write entry {key} of map {map}")]
    Write {
        /// Name of the map.
        map: &'static str,
        /// The key.
        key: String,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// An entry cannot be removed.
    #[error("remove entry {key} of map {map}")]
    Remove {
        /// Name of the map.
        map: &'static str,
        /// The key.
        key: String,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
}

/// A pinned hash map.
#[derive(Debug)]
pub(crate) struct Entries<K, V> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod, V: Pod> Entries<K, V> {
    pub(crate) fn open(maps: &Path, name: &'static str) -> Result<Self, EntryError> {
        let map = MapData::from_pin(maps.join(name))
            .and_then(Map::from_map_data)
            .and_then(HashMap::try_from)
            .map_err(|source| EntryError::Open { map: name, source: Box::new(source) })?;
        Ok(Self { name, map })
    }

    /// All entries one after the other, without keeping them.
    pub(crate) fn walk(&self) -> impl Iterator<Item = Result<(K, V), EntryError>> {
        self.map.iter().map(|entry| {
            entry.map_err(|source| EntryError::Read { map: self.name, source: Box::new(source) })
        })
    }

    /// All entries, translated.
    pub(crate) fn all<Key: Ord, Value>(
        &self,
        translate: impl Fn(&K, &V) -> (Key, Value),
    ) -> Result<BTreeMap<Key, Value>, EntryError> {
        let mut all = BTreeMap::new();
        for entry in self.map.iter() {
            let (key, value) =
                entry.map_err(|source| EntryError::Read { map: self.name, source: Box::new(source) })?;
            let (key, value) = translate(&key, &value);
            all.insert(key, value);
        }
        Ok(all)
    }

    /// All keys, in no order; those that come and go meanwhile may be among them or not.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Result<K, EntryError>> {
        let failed = |source| EntryError::Read { map: self.name, source: Box::new(source) };
        self.map.keys().map(move |key| key.map_err(failed))
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, EntryError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(EntryError::Read { map: self.name, source: Box::new(source) }),
        }
    }

    pub(crate) fn put(&mut self, text: &impl ToString, key: &K, value: &V) -> Result<(), EntryError> {
        let map = self.name;
        self.map.insert(key, value, 0).map_err(|source| EntryError::Write {
            map,
            key: text.to_string(),
            source: Box::new(source),
        })
    }

    pub(crate) fn remove(&mut self, text: &impl ToString, key: &K) -> Result<(), EntryError> {
        let map = self.name;
        match self.map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(EntryError::Remove { map, key: text.to_string(), source: Box::new(source) }),
        }
    }
}

/// The address as the maps have it.
pub(crate) fn to_words(addr: IpAddr) -> Address {
    match addr {
        IpAddr::V4(v4) => v6_words(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => v6_words(v6),
    }
}

/// The IPv6 address as the maps have it.
pub(crate) fn v6_words(addr: Ipv6Addr) -> Address {
    let o = addr.octets();
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]))
}

/// The address out of a map.
pub(crate) fn to_addr(words: Address) -> IpAddr {
    to_v6(words).to_canonical()
}

/// The IPv6 address out of a map.
pub(crate) fn to_v6(words: Address) -> Ipv6Addr {
    Ipv6Addr::from_bits(words.iter().fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word))))
}

/// The hardware address out of a map. What no interface may carry becomes an address that nobody wishes for, so that
/// the entry is written anew.
pub(crate) fn to_mac(octets: [u8; 6]) -> MacAddr {
    MacAddr::new(octets).unwrap_or_else(|_| MacAddr::from_seed(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn addresses_survive_the_map(addr: std::net::Ipv4Addr) {
            prop_assert_eq!(to_addr(to_words(IpAddr::V4(addr))), IpAddr::V4(addr));
        }
    }

    #[test]
    fn the_families_do_not_collide() {
        let v4: IpAddr = "10.0.0.1".parse().expect("valid");
        let v6: IpAddr = "::a00:1".parse().expect("valid");
        assert_ne!(to_words(v4), to_words(v6));
        assert_eq!(to_addr(to_words(v6)), v6);
    }
}
