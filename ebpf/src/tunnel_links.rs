// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aya::maps::{Array, Map, MapData};
use rhumb_ebpf_common::layout::Config;
use rhumb_model::Target;

use crate::entries::{EntryError, to_v6, v6_words};
use crate::{Epoch, IfIndex};

const MAP: &str = "config";

/// The tunnel that the programs send encapsulated packets into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLink {
    /// UDP port, by which pods' own encapsulated packets are known and refused.
    pub port: u16,
    /// Outer source towards IPv4 nodes: the address by which they know this node. Without it the route says.
    pub v4: Option<Ipv4Addr>,
    /// Outer source towards IPv6 nodes, likewise.
    pub v6: Option<Ipv6Addr>,
}

/// The tunnel of this node by interface index. There is at most one: putting another takes the place of the first.
pub struct TunnelLinks {
    map: Array<MapData, Config>,
    epoch: Epoch,
}

impl fmt::Debug for TunnelLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelLinks").finish_non_exhaustive()
    }
}

impl TunnelLinks {
    pub(crate) fn open(maps: &Path, epoch: Epoch) -> Result<Self, EntryError> {
        let map = MapData::from_pin(maps.join(MAP))
            .and_then(Map::from_map_data)
            .and_then(Array::try_from)
            .map_err(|source| EntryError::Open { map: MAP, source: Box::new(source) })?;
        Ok(Self { map, epoch })
    }

    fn read(&self) -> Result<Config, EntryError> {
        self.map.get(&0, 0).map_err(|source| EntryError::Read { map: MAP, source: Box::new(source) })
    }

    fn write(&mut self, key: &IfIndex, config: Config) -> Result<(), EntryError> {
        self.map.set(0, config, 0).map_err(|source| EntryError::Write {
            map: MAP,
            key: key.to_string(),
            source: Box::new(source),
        })?;
        self.epoch.advance()
    }
}

impl Target for TunnelLinks {
    type Key = IfIndex;
    type Value = TunnelLink;
    type Error = EntryError;

    fn kind(&self) -> &'static str {
        "tunnel link"
    }

    async fn observe(&mut self) -> Result<BTreeMap<IfIndex, TunnelLink>, EntryError> {
        Ok(link(&self.read()?).into_iter().collect())
    }

    async fn put(&mut self, key: &IfIndex, value: &TunnelLink) -> Result<(), EntryError> {
        let before = self.read()?;
        self.write(key, with(before, *key, value))
    }

    async fn remove(&mut self, key: &IfIndex) -> Result<(), EntryError> {
        let before = self.read()?;
        if before.tunnel != key.0 {
            return Ok(());
        }
        let Config { tunnel, tunnel_port, outer_v4, outer_v6, .. } = Config::NONE;
        self.write(key, Config { tunnel, tunnel_port, outer_v4, outer_v6, ..before })
    }
}

fn link(config: &Config) -> Option<(IfIndex, TunnelLink)> {
    let link = TunnelLink {
        port: u16::from_be_bytes(config.tunnel_port),
        v4: (config.outer_v4 != 0).then(|| Ipv4Addr::from_bits(u32::from_be(config.outer_v4))),
        v6: (config.outer_v6 != [0; 4]).then(|| to_v6(config.outer_v6)),
    };
    (config.tunnel != 0).then_some((IfIndex(config.tunnel), link))
}

fn with(before: Config, key: IfIndex, value: &TunnelLink) -> Config {
    Config {
        tunnel: key.0,
        tunnel_port: value.port.to_be_bytes(),
        outer_v4: value.v4.map_or(0, |addr| addr.to_bits().to_be()),
        outer_v6: value.v6.map_or([0; 4], v6_words),
        ..before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tunnel_survives_the_map(ifindex in 1u32.., port: u16, v4: Option<u32>, v6: Option<u128>) {
            let v4 = v4.filter(|bits| *bits != 0).map(Ipv4Addr::from_bits);
            let v6 = v6.filter(|bits| *bits != 0).map(Ipv6Addr::from_bits);
            let tunnel = TunnelLink { port, v4, v6 };
            let config = with(Config::NONE, IfIndex(ifindex), &tunnel);
            prop_assert_eq!(link(&config), Some((IfIndex(ifindex), tunnel)));
        }
    }

    #[test]
    fn nothing_written_is_no_tunnel() {
        assert_eq!(link(&Config::NONE), None);
    }
}
