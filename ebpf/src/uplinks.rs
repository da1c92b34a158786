// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rhumb_ebpf_common::layout;
use rhumb_model::Target;

use crate::entries::{Entries, EntryError, to_v6, v6_words};
use crate::{Epoch, IfIndex};

/// The addresses that packets of pods take when they leave by an uplink. A family without one is not masqueraded there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uplink {
    /// The node's IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The node's IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What the firewall mark of packets says that came in there and pass the host stack: the upper sixteen bits.
    pub mark: Option<u32>,
}

/// The uplinks of this node by interface index.
#[derive(Debug)]
pub struct Uplinks {
    entries: Entries<u32, layout::Uplink>,
    epoch: Epoch,
}

impl Uplinks {
    pub(crate) fn open(maps: &Path, epoch: Epoch) -> Result<Self, EntryError> {
        Ok(Self { entries: Entries::open(maps, "uplinks")?, epoch })
    }
}

impl Target for Uplinks {
    type Key = IfIndex;
    type Value = Uplink;
    type Error = EntryError;

    fn kind(&self) -> &'static str {
        "uplink"
    }

    async fn observe(&mut self) -> Result<BTreeMap<IfIndex, Uplink>, EntryError> {
        self.entries.all(|key, uplink| (IfIndex(*key), read(uplink)))
    }

    async fn put(&mut self, key: &IfIndex, value: &Uplink) -> Result<(), EntryError> {
        self.entries.put(key, &key.0, &write(value))?;
        self.epoch.advance()
    }

    async fn remove(&mut self, key: &IfIndex) -> Result<(), EntryError> {
        self.entries.remove(key, &key.0)?;
        self.epoch.advance()
    }
}

fn read(uplink: &layout::Uplink) -> Uplink {
    Uplink {
        v4: uplink.has(layout::Uplink::HAS_V4).then(|| Ipv4Addr::from_bits(u32::from_be(uplink.v4))),
        v6: uplink.has(layout::Uplink::HAS_V6).then(|| to_v6(uplink.v6)),
        mark: Some(uplink.mark).filter(|mark| *mark != 0),
    }
}

fn write(value: &Uplink) -> layout::Uplink {
    let mark = value.mark.unwrap_or_default() & layout::Uplink::MARK_MASK;
    let mut uplink = layout::Uplink { mark, ..layout::Uplink::default() };
    if let Some(v4) = value.v4 {
        uplink.flags |= layout::Uplink::HAS_V4;
        uplink.v4 = v4.to_bits().to_be();
    }
    if let Some(v6) = value.v6 {
        uplink.flags |= layout::Uplink::HAS_V6;
        uplink.v6 = v6_words(v6);
    }
    uplink
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_uplink_survives_the_map(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, place: u16) {
            let mark = (place != 0).then_some(u32::from(place) << 16);
            let uplink = Uplink { v4, v6, mark };
            prop_assert_eq!(read(&write(&uplink)), uplink);
        }
    }
}
