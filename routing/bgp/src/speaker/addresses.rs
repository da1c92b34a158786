// SPDX-License-Identifier: Apache-2.0
//! This node's own addresses: which a peer is told as next hop, and which link is shared with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhumb_model::{Family, IfName};
use rhumb_routing::host::AddressedLink;

use crate::rib::OwnAddresses;

/// Links with their addresses, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Links(pub(crate) BTreeMap<u32, Link>);

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: IfName,
    /// Its addresses in the kernel's order.
    pub(crate) addresses: Vec<IpNetwork>,
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Links {
    pub(crate) fn of(links: Vec<AddressedLink>) -> Self {
        let link =
            |link: AddressedLink| (link.ifindex, Link { name: link.ifname, addresses: link.addresses });
        Links(links.into_iter().map(link).collect())
    }

    pub(crate) fn name(&self, index: u32) -> Option<&IfName> {
        self.0.get(&index).map(|link| &link.name)
    }

    pub(crate) fn index(&self, name: &IfName) -> Option<u32> {
        self.0.iter().find(|(_, link)| link.name == *name).map(|(index, _)| *index)
    }

    /// The first address of a family that is valid beyond the link.
    pub(crate) fn address_of(&self, name: &IfName, family: Family) -> Option<IpAddr> {
        let link = self.0.values().find(|link| link.name == *name)?;
        link.global(family)
    }

    /// The link that has `address` in a subnet of its own; of several, the one with the smallest subnet.
    pub(crate) fn shared_with(&self, address: IpAddr) -> Option<u32> {
        let subnets =
            self.0.iter().flat_map(|(index, link)| link.addresses.iter().map(move |it| (*index, it)));
        let shared = subnets.filter(|(_, subnet)| subnet.contains(address) && !is_link_local(subnet.ip()));
        shared.max_by_key(|(_, subnet)| subnet.prefix()).map(|(index, _)| index)
    }

    /// Our addresses towards a peer: the one of the session, and others of the link of that address or, for
    /// link-local ones, of the link that is shared.
    pub(crate) fn own(&self, local: IpAddr, shared: Option<u32>) -> OwnAddresses {
        let has_local = |link: &&Link| link.addresses.iter().any(|subnet| subnet.ip() == local);
        let link = shared.and_then(|index| self.0.get(&index)).or_else(|| self.0.values().find(has_local));
        let mut own = OwnAddresses::default();
        if let Some(link) = link {
            for family in Family::BOTH {
                match link.global(family) {
                    Some(IpAddr::V4(address)) => own.v4 = Some(address),
                    Some(IpAddr::V6(address)) => own.v6 = Some(address),
                    None => {}
                }
            }
            if shared.is_some() {
                own.link_local = link.addresses.iter().find_map(|subnet| match subnet.ip() {
                    IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
                    IpAddr::V6(_) | IpAddr::V4(_) => None,
                });
            }
        }
        match local {
            IpAddr::V4(local) => own.v4 = Some(local),
            IpAddr::V6(local) if local.is_unicast_link_local() => own.link_local = Some(local),
            IpAddr::V6(local) => own.v6 = Some(local),
        }
        own
    }
}

impl Link {
    /// The first address of a family that others know this node by.
    fn global(&self, family: Family) -> Option<IpAddr> {
        let addresses = self.addresses.iter().map(|subnet| subnet.ip());
        let is_own = |address: &IpAddr| is_link_local(*address) || address.is_loopback();
        addresses.into_iter().find(|address| Family::of(*address) == family && !is_own(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        let link = |name: &str, addresses: &[&str]| Link {
            name: IfName::new(name).unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        Links(BTreeMap::from([
            (1, link("lo", &["127.0.0.1/8", "::1/128", "192.0.2.9/32"])),
            (2, link("eth0", &["10.99.0.1/24", "fd99::1/64", "fe80::a/64"])),
            (3, link("eth1", &["fe80::b/64"])),
        ]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_on_a_link_is_told_all_addresses_of_that_link() {
        let shared = links().shared_with(ip("10.99.0.2"));
        assert_eq!(shared, Some(2));
        let own = links().own(ip("10.99.0.1"), shared);
        assert_eq!(own.v4.map(IpAddr::V4), Some(ip("10.99.0.1")));
        assert_eq!(own.v6.map(IpAddr::V6), Some(ip("fd99::1")));
        assert_eq!(own.link_local.map(IpAddr::V6), Some(ip("fe80::a")));
    }

    #[test]
    fn an_unnumbered_link_has_its_link_local_address_alone() {
        let own = links().own(ip("fe80::b"), Some(3));
        assert_eq!((own.v4, own.v6), (None, None));
        assert_eq!(own.link_local.map(IpAddr::V6), Some(ip("fe80::b")));
    }

    #[test]
    fn a_peer_far_away_is_told_the_address_of_the_session() {
        assert_eq!(links().shared_with(ip("198.51.100.7")), None);
        let own = links().own(ip("192.0.2.9"), None);
        assert_eq!(own.v4.map(IpAddr::V4), Some(ip("192.0.2.9")));
        assert_eq!((own.v6, own.link_local), (None, None), "::1 is an address of every node");
    }

    #[test]
    fn the_loopback_link_has_the_addresses_that_others_know() {
        let lo = IfName::new("lo").unwrap();
        assert_eq!(links().address_of(&lo, Family::V4), Some(ip("192.0.2.9")));
        assert_eq!(links().address_of(&lo, Family::V6), None);
    }
}
