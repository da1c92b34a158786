// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rhumb_ebpf_common::layout::{self, Address};
use rhumb_model::{MacAddr, Target};

use crate::Epoch;
use crate::entries::{Entries, EntryError, to_addr, to_mac, to_words};

/// Address of a pod of this node; never an IPv4 address in its IPv6 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddr(pub IpAddr);

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How packets reach a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Interface index of the host end.
    pub ifindex: u32,
    /// Address of the pod's interface.
    pub mac: MacAddr,
    /// Address of the host end.
    pub host_mac: MacAddr,
    /// Whether a queue on the host end limits the rate, so that packets must pass it.
    pub shaped: bool,
}

/// The pods of this node by address.
#[derive(Debug)]
pub struct Endpoints {
    entries: Entries<Address, layout::Endpoint>,
    epoch: Epoch,
}

impl Endpoints {
    pub(crate) fn open(maps: &Path, epoch: Epoch) -> Result<Self, EntryError> {
        Ok(Self { entries: Entries::open(maps, "pods")?, epoch })
    }
}

impl Target for Endpoints {
    type Key = EndpointAddr;
    type Value = Endpoint;
    type Error = EntryError;

    fn kind(&self) -> &'static str {
        "endpoint"
    }

    async fn observe(&mut self) -> Result<BTreeMap<EndpointAddr, Endpoint>, EntryError> {
        self.entries.all(|key, value| {
            let endpoint = Endpoint {
                ifindex: value.ifindex,
                mac: to_mac(value.mac()),
                host_mac: to_mac(value.host_mac()),
                shaped: value.flags & layout::Endpoint::SHAPED != 0,
            };
            (EndpointAddr(to_addr(*key)), endpoint)
        })
    }

    async fn put(&mut self, key: &EndpointAddr, value: &Endpoint) -> Result<(), EntryError> {
        let entry = layout::Endpoint {
            ifindex: value.ifindex,
            flags: if value.shaped { layout::Endpoint::SHAPED } else { 0 },
            ethernet: layout::ethernet(value.mac.octets(), value.host_mac.octets()),
            ..Default::default()
        };
        self.entries.put(key, &to_words(key.0), &entry)?;
        self.epoch.advance()
    }

    async fn remove(&mut self, key: &EndpointAddr) -> Result<(), EntryError> {
        self.entries.remove(key, &to_words(key.0))?;
        self.epoch.advance()
    }
}
