// SPDX-License-Identifier: Apache-2.0
//! The mappings of masqueraded flows, for people to look at.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rhumb_ebpf_common::ct::TICK_SHIFT;
use rhumb_ebpf_common::layout::{Address, Nat, NatKey};

use crate::entries::{Entries, EntryError, to_addr};
use crate::tick;

/// A mapping of a masqueraded flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// IP protocol number.
    pub protocol: u8,
    /// Who answers.
    pub remote: SocketAddr,
    /// What the answers are addressed to.
    pub node: SocketAddr,
    /// Whom they are for.
    pub pod: SocketAddr,
    /// When it is forgotten, unless another packet comes; nothing when it is over already and only not removed.
    pub expires_in: Option<Duration>,
}

pub(crate) fn read(maps: &Path) -> Result<Vec<Mapping>, EntryError> {
    let now = tick::now();
    let entries = Entries::<NatKey, Nat>::open(maps, "nat")?;
    let mappings = entries.walk().map(|entry| {
        let (key, nat) = entry?;
        let left = nat.expires.checked_sub(now).filter(|left| *left > 0);
        Ok(Mapping {
            protocol: key.protocol,
            remote: socket(key.remote, key.remote_port),
            node: socket(key.node, key.node_port),
            pod: socket(nat.pod, nat.pod_port),
            expires_in: left.map(|ticks| Duration::from_nanos(u64::from(ticks) << TICK_SHIFT)),
        })
    });
    mappings.collect()
}

fn socket(addr: Address, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(to_addr(addr), u16::from_be_bytes(port))
}
