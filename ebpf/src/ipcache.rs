// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use rhumb_ebpf_common::layout::{self, Address};
use rhumb_model::{Family, Prefix, Target};

use crate::Epoch;
use crate::entries::{EntryError, to_addr, to_words};

const MAP: &str = "ipcache";
/// Length that an IPv4 prefix of length 0 has in the map.
const V4_BITS: u32 = 96;

/// Addresses elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePrefix(pub Prefix);

impl fmt::Display for RemotePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is behind a prefix, and how packets reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remote {
    /// Where encapsulated packets are sent; without it the host's routes say the way.
    pub tunnel: Option<IpAddr>,
    /// Identity of whoever has the addresses; 0 when unknown.
    pub identity: u32,
    /// Largest IP packet that the way takes; 0 when the route says.
    pub mtu: u16,
    /// Whether the source of packets to it is never translated.
    pub keep_source: bool,
    /// Whether the addresses are those of a node, not of pods.
    pub node: bool,
    /// Whether pods may not send there: a service of the cloud's that the node keeps from them.
    pub denied: bool,
    /// Whether the way is by rules of the host that programs cannot ask: packets are left to its stack.
    pub stack: bool,
    /// Which node has the addresses, or whose they are, as a number that is the same for all of one node; 0 when unknown.
    /// The node with an outer address may send through the tunnel for what has its number.
    pub owner: u64,
}

/// What the datapath knows about addresses elsewhere; of several prefixes with an address the longest counts.
#[derive(Debug)]
pub struct Ipcache {
    map: LpmTrie<MapData, Address, layout::Remote>,
    epoch: Epoch,
}

impl Ipcache {
    pub(crate) fn open(maps: &Path, epoch: Epoch) -> Result<Self, EntryError> {
        let map = MapData::from_pin(maps.join(MAP))
            .and_then(Map::from_map_data)
            .and_then(LpmTrie::try_from)
            .map_err(|source| EntryError::Open { map: MAP, source: Box::new(source) })?;
        Ok(Self { map, epoch })
    }

    /// All prefixes with what is behind them.
    pub(crate) fn read(&self) -> Result<BTreeMap<RemotePrefix, Remote>, EntryError> {
        let mut all = BTreeMap::new();
        for entry in self.map.iter() {
            let (key, value) =
                entry.map_err(|source| EntryError::Read { map: MAP, source: Box::new(source) })?;
            all.insert(read_key(&key), read(&value));
        }
        Ok(all)
    }
}

impl Target for Ipcache {
    type Key = RemotePrefix;
    type Value = Remote;
    type Error = EntryError;

    fn kind(&self) -> &'static str {
        "ipcache"
    }

    async fn observe(&mut self) -> Result<BTreeMap<RemotePrefix, Remote>, EntryError> {
        self.read()
    }

    async fn put(&mut self, key: &RemotePrefix, value: &Remote) -> Result<(), EntryError> {
        self.map.insert(&write_key(key), write(key, value), 0).map_err(|source| EntryError::Write {
            map: MAP,
            key: key.to_string(),
            source: Box::new(source),
        })?;
        self.epoch.advance()
    }

    async fn remove(&mut self, key: &RemotePrefix) -> Result<(), EntryError> {
        match self.map.remove(&write_key(key)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(EntryError::Remove { map: MAP, key: key.to_string(), source: Box::new(source) });
            }
        }
        // Also of what was gone already: the try before this one may have ended between the two.
        self.epoch.advance()
    }
}

fn write_key(key: &RemotePrefix) -> Key<Address> {
    let more = if key.0.family() == Family::V4 { V4_BITS } else { 0 };
    Key::new(more + u32::from(key.0.len()), to_words(key.0.addr()))
}

/// An IPv6 prefix that holds IPv4 addresses in their IPv6 form is the entry of that IPv4 prefix.
fn read_key(key: &Key<Address>) -> RemotePrefix {
    let (length, words) = (key.prefix_len(), key.data());
    let addr = to_addr(words);
    let length = if addr.is_ipv4() { length.saturating_sub(V4_BITS) } else { length };
    RemotePrefix(Prefix::containing(addr, u8::try_from(length).unwrap_or(u8::MAX)))
}

fn read(value: &layout::Remote) -> Remote {
    Remote {
        tunnel: value.has(layout::Remote::TUNNEL).then(|| to_addr(value.tunnel)),
        identity: value.identity,
        mtu: value.mtu,
        keep_source: value.has(layout::Remote::KEEP_SOURCE),
        node: value.has(layout::Remote::NODE),
        denied: value.has(layout::Remote::DENIED),
        stack: value.has(layout::Remote::STACK),
        owner: u64::from(value.owner[1]) << 32 | u64::from(value.owner[0]),
    }
}

fn write(key: &RemotePrefix, value: &Remote) -> layout::Remote {
    let v4_addresses = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
    let flags = [
        (value.tunnel.is_some(), layout::Remote::TUNNEL),
        (value.keep_source, layout::Remote::KEEP_SOURCE),
        (value.node, layout::Remote::NODE),
        (value.denied, layout::Remote::DENIED),
        (value.stack, layout::Remote::STACK),
        (key.0.contains(v4_addresses) && u32::from(key.0.len()) < V4_BITS, layout::Remote::V6_ONLY),
    ];
    layout::Remote {
        tunnel: value.tunnel.map_or([0; 4], to_words),
        identity: value.identity,
        mtu: value.mtu,
        owner: [value.owner & 0xffff_ffff, value.owner >> 32].map(|word| word as u32),
        flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_route_of_ipv6_says_nothing_about_ipv4() {
        let flags = |text: &str| write(&RemotePrefix(text.parse().expect("valid")), &Remote::default()).flags;
        assert_eq!(flags("::/0"), layout::Remote::V6_ONLY);
        assert_eq!(flags("::/80"), layout::Remote::V6_ONLY);
        for other in ["fd00::/8", "0.0.0.0/0", "10.0.0.0/8", "::1/128"] {
            assert_eq!(flags(other), 0, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_prefix_survives_the_map(v4: bool, bits: u128, len in 0u8..=128) {
            let addr = if v4 {
                IpAddr::V4(u32::try_from(bits >> 96).expect("32 bits").into())
            } else {
                IpAddr::V6(bits.into())
            };
            let prefix = RemotePrefix(Prefix::containing(addr, if v4 { len % 33 } else { len }));
            prop_assert_eq!(read_key(&write_key(&prefix)), prefix);
        }

        #[test]
        fn what_is_there_survives_the_map(
            tunnel: Option<IpAddr>, identity: u32, mtu: u16, keep_source: bool, node: bool, denied: bool, stack: bool,
            owner: u64,
        ) {
            let tunnel = tunnel.map(|addr| addr.to_canonical());
            let remote = Remote { tunnel, identity, mtu, keep_source, node, denied, stack, owner };
            let key = RemotePrefix(Prefix::host(Ipv4Addr::LOCALHOST.into()));
            prop_assert_eq!(read(&write(&key, &remote)), remote);
        }
    }
}
