// SPDX-License-Identifier: Apache-2.0
//! Addresses as messages (linux/if_addr.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::wire::{NLM_F_CREATE, NLM_F_EXCL, Request, attributes_after, u32_at};
use crate::kernel::PROTOCOL;

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const HEAD: usize = 8;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// The address of every pod's gateway: the host's end of its pair.
pub(crate) const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Length in bits of the link-local subnet.
pub(crate) const GATEWAY_LEN: u8 = 64;

/// An address as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) ifindex: u32,
    pub(crate) address: IpNetwork,
    pub(crate) protocol: u8,
    pub(crate) global: bool,
}

pub(crate) fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The octets in wire order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address with these octets.
pub(crate) fn from_octets(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
}

fn head(family: u8, len: u8, ifindex: u32) -> [u8; HEAD] {
    let mut head = [family, len, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    head[4..].copy_from_slice(&ifindex.to_ne_bytes());
    head
}

fn about(kind: u16, flags: u16, ifindex: u32, address: IpNetwork) -> Request {
    Request::new(kind, flags, &head(family_of(address.ip()), address.prefix(), ifindex))
        .with(IFA_LOCAL, &octets(address.ip()))
        .with(IFA_ADDRESS, &octets(address.ip()))
}

/// Asks for the addresses of one link, or of all for index 0; of one family, or of both for family 0.
pub(crate) fn get(family: u8, ifindex: u32) -> Request {
    Request::new(RTM_GETADDR, 0, &head(family, 0, ifindex))
}

/// Adds an address of ours.
pub(crate) fn add(ifindex: u32, address: IpNetwork) -> Request {
    // Without detection of duplicates an IPv6 address is usable at once.
    about(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, address)
        .with_u32(IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE)
        .with(IFA_PROTO, &[PROTOCOL])
}

/// Gives the link the address of a pod's gateway, with the route to its subnet.
pub(crate) fn add_gateway(ifindex: u32) -> Request {
    let address = ipnetwork::Ipv6Network::new(GATEWAY, GATEWAY_LEN).expect("64 is a length");
    about(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, address.into())
        .with_u32(IFA_FLAGS, IFA_F_NODAD)
        .with(IFA_PROTO, &[PROTOCOL])
}

/// Removes an address.
pub(crate) fn remove(ifindex: u32, address: IpNetwork) -> Request {
    about(RTM_DELADDR, 0, ifindex, address)
}

/// Reads an address.
pub(crate) fn read(payload: &[u8]) -> Option<Told> {
    let [_, len, _, scope] = *payload.first_chunk::<4>()?;
    let (mut local, mut address, mut protocol) = (None, None, 0);
    for (kind, value) in attributes_after(payload, HEAD) {
        match kind {
            IFA_LOCAL => local = from_octets(value),
            IFA_ADDRESS => address = from_octets(value),
            IFA_PROTO => protocol = *value.first()?,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side; IPv6 has no IFA_LOCAL otherwise.
    let address = IpNetwork::new(local.or(address)?, len).ok()?;
    Some(Told { ifindex: u32_at(payload, 4)?, address, protocol, global: scope == RT_SCOPE_UNIVERSE })
}
