// SPDX-License-Identifier: Apache-2.0
//! Interfaces that a cloud gave the node: switched on, with an MTU and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use rhumb_model::{IfName, Target};

use crate::kernel::{Address, Change, Kernel, KernelError, PROTOCOL, Place};
use crate::netlink::Netlink;

/// Why an interface of the host could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel did not do it.
    #[error("set up interface {ifname}")]
    Kernel {
        /// Its name.
        ifname: IfName,
        /// Why.
        #[source]
        cause: KernelError,
    },
    /// Interfaces or addresses could not be listed.
    #[error("list interfaces and their addresses")]
    Observe {
        /// Why.
        #[source]
        cause: KernelError,
    },
}

impl InterfaceError {
    fn is_retryable(&self) -> bool {
        match self {
            InterfaceError::Kernel { cause, .. } | InterfaceError::Observe { cause } => cause.is_retryable(),
        }
    }
}

/// What an interface is to be, besides switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// MTU in bytes; `None` leaves it as it is.
    pub mtu: Option<u32>,
}

/// Interfaces of the host that others made. Ours are those that were put since the start; one that is removed stays as
/// it is, because nobody knows who else relies on it by now.
#[derive(Debug)]
pub struct Interfaces<K = Netlink> {
    kernel: K,
    ours: BTreeMap<IfName, InterfaceSpec>,
}

impl<K: Kernel> Interfaces<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, ours: BTreeMap::new() }
    }
}

impl<K: Kernel> Target for Interfaces<K> {
    type Key = IfName;
    type Value = InterfaceSpec;
    type Error = InterfaceError;

    fn kind(&self) -> &'static str {
        "interface"
    }

    fn is_retryable(error: &InterfaceError) -> bool {
        error.is_retryable()
    }

    async fn observe(&mut self) -> Result<BTreeMap<IfName, InterfaceSpec>, InterfaceError> {
        let host = self.kernel.host_links().await.map_err(|cause| InterfaceError::Observe { cause })?;
        let on = host.links.iter().filter(|link| link.up);
        let there = on.filter_map(|link| {
            let wanted = self.ours.get(&link.name)?;
            Some((link.name.clone(), InterfaceSpec { mtu: wanted.mtu.map(|_| link.mtu) }))
        });
        Ok(there.collect())
    }

    async fn put(&mut self, key: &IfName, value: &InterfaceSpec) -> Result<(), InterfaceError> {
        self.ours.insert(key.clone(), *value);
        let change = Change::SetLink { ifname: key.clone(), mac: None, mtu: value.mtu };
        let applied =
            self.kernel.apply(Place::Host, vec![change]).await.pop().expect("one result per change");
        applied.map_err(|cause| InterfaceError::Kernel { ifname: key.clone(), cause })
    }

    async fn remove(&mut self, key: &IfName) -> Result<(), InterfaceError> {
        self.ours.remove(key);
        Ok(())
    }
}

/// An address of an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    /// The interface.
    pub ifname: IfName,
    /// The address with the length of its subnet.
    pub address: IpNetwork,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.address, self.ifname)
    }
}

/// Addresses of the host that rhumb put, known by their protocol number; they bring no route to their subnet. Where
/// another program has put the same address already that serves as well, and stays when it is not wanted any more.
#[derive(Debug)]
pub struct HostAddresses<K = Netlink> {
    kernel: K,
    /// Those that others put.
    leaned_on: BTreeSet<HostAddress>,
}

impl<K: Kernel> HostAddresses<K> {
    /// Takes a kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, leaned_on: BTreeSet::new() }
    }

    async fn look(&self) -> Result<Vec<Address>, InterfaceError> {
        self.kernel.host_addresses().await.map_err(|cause| InterfaceError::Observe { cause })
    }

    async fn change(&self, change: Change) -> Result<(), KernelError> {
        self.kernel.apply(Place::Host, vec![change]).await.pop().expect("one result per change")
    }
}

impl<K: Kernel> Target for HostAddresses<K> {
    type Key = HostAddress;
    type Value = ();
    type Error = InterfaceError;

    fn kind(&self) -> &'static str {
        "host address"
    }

    fn is_retryable(error: &InterfaceError) -> bool {
        error.is_retryable()
    }

    async fn observe(&mut self) -> Result<BTreeMap<HostAddress, ()>, InterfaceError> {
        let all = self.look().await?;
        let named = all.into_iter().map(|there| {
            let key = HostAddress { ifname: there.ifname, address: there.address };
            (key, there.protocol == PROTOCOL)
        });
        let ours = named.filter(|(key, ours)| *ours || self.leaned_on.contains(key));
        Ok(ours.map(|(key, _)| (key, ())).collect())
    }

    async fn put(&mut self, key: &HostAddress, (): &()) -> Result<(), InterfaceError> {
        let add = Change::AddAddress(key.ifname.clone(), key.address);
        match self.change(add).await {
            Err(error) if error.is_present() => {
                let same = |there: &Address| there.ifname == key.ifname && there.address == key.address;
                if self.look().await?.iter().any(|there| same(there) && there.protocol != PROTOCOL) {
                    self.leaned_on.insert(key.clone());
                }
                Ok(())
            }
            result => result.map_err(|cause| InterfaceError::Kernel { ifname: key.ifname.clone(), cause }),
        }
    }

    async fn remove(&mut self, key: &HostAddress) -> Result<(), InterfaceError> {
        if self.leaned_on.remove(key) {
            return Ok(());
        }
        let remove = Change::RemoveAddress(key.ifname.clone(), key.address);
        match self.change(remove).await {
            Err(error) if error.is_absent() => Ok(()),
            result => result.map_err(|cause| InterfaceError::Kernel { ifname: key.ifname.clone(), cause }),
        }
    }
}
