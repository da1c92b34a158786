// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rhumb_ebpf_common::layout::Link;
use rhumb_model::{MacAddr, Target};

use crate::Epoch;
use crate::entries::{Entries, EntryError, to_mac, to_v6, v6_words};

/// Interface index of the host end of a pod's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who is behind a host end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodLink {
    /// The address that the pod may use as IPv4 source.
    pub v4: Option<Ipv4Addr>,
    /// The address that the pod may use as IPv6 source, besides link-local ones for neighbour discovery.
    pub v6: Option<Ipv6Addr>,
    /// Address of the pod's interface.
    pub mac: MacAddr,
    /// Address of the host end.
    pub host_mac: MacAddr,
    /// Whether another plugin forwards, so that only the source is checked.
    pub chained: bool,
    /// Whether host ports lead to the pod.
    pub host_ports: bool,
    /// Index of the interface that the IPv4 address is good on, where it is not good on others: what leaves with it
    /// leaves there.
    pub interface: Option<u32>,
}

/// The links of this node's pods by interface index.
#[derive(Debug)]
pub struct PodLinks {
    entries: Entries<u32, Link>,
    epoch: Epoch,
}

impl PodLinks {
    pub(crate) fn open(maps: &Path, epoch: Epoch) -> Result<Self, EntryError> {
        Ok(Self { entries: Entries::open(maps, "links")?, epoch })
    }
}

impl Target for PodLinks {
    type Key = IfIndex;
    type Value = PodLink;
    type Error = EntryError;

    fn kind(&self) -> &'static str {
        "pod link"
    }

    async fn observe(&mut self) -> Result<BTreeMap<IfIndex, PodLink>, EntryError> {
        self.entries.all(|key, link| (IfIndex(*key), read(link)))
    }

    async fn put(&mut self, key: &IfIndex, value: &PodLink) -> Result<(), EntryError> {
        self.entries.put(key, &key.0, &write(value))?;
        self.epoch.advance()
    }

    async fn remove(&mut self, key: &IfIndex) -> Result<(), EntryError> {
        self.entries.remove(key, &key.0)?;
        self.epoch.advance()
    }
}

fn read(link: &Link) -> PodLink {
    PodLink {
        v4: link.has(Link::HAS_V4).then(|| Ipv4Addr::from_bits(u32::from_be(link.v4))),
        v6: link.has(Link::HAS_V6).then(|| to_v6(link.v6)),
        mac: to_mac(link.mac),
        host_mac: to_mac(link.host_mac),
        chained: link.has(Link::CHAINED),
        host_ports: link.has(Link::HOST_PORTS),
        interface: Some(link.interface).filter(|ifindex| *ifindex != 0),
    }
}

fn write(value: &PodLink) -> Link {
    let flags = [
        (value.v4.is_some(), Link::HAS_V4),
        (value.v6.is_some(), Link::HAS_V6),
        (value.chained, Link::CHAINED),
        (value.host_ports, Link::HOST_PORTS),
    ];
    Link {
        v4: value.v4.map_or(0, |v4| v4.to_bits().to_be()),
        v6: value.v6.map_or([0; 4], v6_words),
        flags: flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum(),
        mac: value.mac.octets(),
        host_mac: value.host_mac.octets(),
        interface: value.interface.unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_link_survives_the_map(
            v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, seed: u64, chained: bool, host_ports: bool,
            interface in prop::option::of(1..u32::MAX),
        ) {
            let (mac, host_mac) = (MacAddr::from_seed(seed), MacAddr::from_seed(!seed));
            let link = PodLink { v4, v6, mac, host_mac, chained, host_ports, interface };
            prop_assert_eq!(read(&write(&link)), link);
        }
    }
}
