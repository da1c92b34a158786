// SPDX-License-Identifier: Apache-2.0
//! What the agent wants to know about its node.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use rhumb_model::{IfName, Prefix};

use crate::kernel::{KernelError, Link};
use crate::netlink::Netlink;
use crate::plan::{Gateway, Reach};

/// A link that leads to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Name.
    pub ifname: IfName,
    /// Index.
    pub ifindex: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its addresses that are valid beyond the link, with the lengths of their subnets.
    pub addresses: Vec<IpNetwork>,
}

impl Uplink {
    /// Which addresses are neighbours on it.
    pub fn reach(&self) -> Reach {
        let on_link = self.addresses.iter().map(|address| Prefix::containing(address.ip(), address.prefix()));
        Reach {
            ifname: self.ifname.clone(),
            on_link: on_link.collect(),
            addresses: self.addresses.iter().map(|address| address.ip()).collect(),
            mtu: self.mtu,
        }
    }
}

/// The links that carry a default route of either family in the main table, by name.
///
/// # Errors
/// The kernel does not tell.
pub async fn uplinks(netlink: &Netlink) -> Result<Vec<Uplink>, KernelError> {
    let carriers = netlink.default_carriers().await?;
    select(netlink, |link| carriers.contains(&link.ifindex)).await
}

/// The links of these names that are there, by name.
///
/// # Errors
/// The kernel does not tell.
pub async fn uplinks_named(netlink: &Netlink, names: &[IfName]) -> Result<Vec<Uplink>, KernelError> {
    select(netlink, |link| names.contains(&link.name)).await
}

async fn select(netlink: &Netlink, wanted: impl Fn(&Link) -> bool) -> Result<Vec<Uplink>, KernelError> {
    let (links, mut addresses) = netlink.links_with_addresses().await?;
    let chosen = links.into_iter().filter(wanted).map(|link| {
        let addresses = addresses.remove(&link.ifindex).unwrap_or_default();
        (link.name.clone(), Uplink { ifname: link.name, ifindex: link.ifindex, mtu: link.mtu, addresses })
    });
    Ok(chosen.collect::<BTreeMap<_, _>>().into_values().collect())
}

/// The addresses of the node that are valid beyond their link, without those of the loopback's range.
///
/// # Errors
/// The kernel does not tell.
pub async fn addresses(netlink: &Netlink) -> Result<Vec<IpNetwork>, KernelError> {
    let (_, addresses) = netlink.links_with_addresses().await?;
    let addresses: BTreeSet<IpNetwork> = addresses.into_values().flatten().collect();
    Ok(addresses.into_iter().collect())
}

/// A link with all of its addresses, also those that mean something on it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressedLink {
    /// Name.
    pub ifname: IfName,
    /// Index.
    pub ifindex: u32,
    /// Its addresses with the lengths of their subnets.
    pub addresses: Vec<IpNetwork>,
}

/// All links of the node with their addresses.
///
/// # Errors
/// The kernel does not tell.
pub async fn addressed_links(netlink: &Netlink) -> Result<Vec<AddressedLink>, KernelError> {
    let (links, mut addresses) = netlink.links_with_all_addresses().await?;
    let with_addresses = |link: Link| AddressedLink {
        addresses: addresses.remove(&link.ifindex).unwrap_or_default(),
        ifname: link.name,
        ifindex: link.ifindex,
    };
    Ok(links.into_iter().map(with_addresses).collect())
}

/// The addresses of each of the node's links that are valid beyond it, by the link's name.
///
/// # Errors
/// The kernel does not tell.
pub async fn addresses_by_link(netlink: &Netlink) -> Result<BTreeMap<IfName, Vec<IpNetwork>>, KernelError> {
    let (links, mut addresses) = netlink.links_with_addresses().await?;
    let named =
        links.into_iter().map(|link| (link.name, addresses.remove(&link.ifindex).unwrap_or_default()));
    Ok(named.collect())
}

/// The next hops of the default routes of the main table that others put: of each family, all of those with the lowest
/// metric.
///
/// # Errors
/// The kernel does not tell.
pub async fn default_gateways(netlink: &Netlink) -> Result<BTreeSet<Gateway>, KernelError> {
    netlink.default_gateways().await
}

/// The link of this name, if it is there.
///
/// # Errors
/// The kernel does not tell.
pub async fn link(netlink: &Netlink, name: &IfName) -> Result<Option<Link>, KernelError> {
    netlink.link(name).await
}
