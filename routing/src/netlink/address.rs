// SPDX-License-Identifier: Apache-2.0
//! Addresses as messages (linux/if_addr.h).
//!
//! They are made without the builders of `rtnetlink`: those give an IPv4 address a broadcast address that nobody
//! asked for, and know neither its flags nor its owner.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{Message, request};
use crate::kernel::PROTOCOL;

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

fn about(ifindex: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = address.prefix();
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(address.ip()), AddressAttribute::Address(address.ip())];
    message
}

fn put(ifindex: u32, address: IpNetwork, flags: AddressFlags) -> Message {
    let mut message = about(ifindex, address);
    message.attributes.push(AddressAttribute::Flags(flags));
    message.attributes.push(AddressAttribute::Protocol(PROTOCOL.into()));
    request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Asks for the addresses of one link, or of all for index 0; of one family, or of both.
pub(crate) fn get(family: AddressFamily, ifindex: u32) -> Message {
    let mut message = AddressMessage::default();
    message.header.family = family;
    message.header.index = ifindex;
    request(RouteNetlinkMessage::GetAddress(message), 0)
}

/// Adds an address of ours.
pub(crate) fn add(ifindex: u32, address: IpNetwork) -> Message {
    // Without detection of duplicates an IPv6 address is usable at once.
    put(ifindex, address, AddressFlags::Nodad | AddressFlags::Noprefixroute)
}

/// Gives the link the address of a pod's gateway, with the route to its subnet.
pub(crate) fn add_gateway(ifindex: u32) -> Message {
    let address = ipnetwork::Ipv6Network::new(GATEWAY, GATEWAY_LEN).expect("64 is a length");
    put(ifindex, address.into(), AddressFlags::Nodad)
}

/// Removes an address.
pub(crate) fn remove(ifindex: u32, address: IpNetwork) -> Message {
    request(RouteNetlinkMessage::DelAddress(about(ifindex, address)), 0)
}

/// Reads an address.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<Told> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = message
    else {
        return None;
    };
    let (mut local, mut address, mut protocol) = (None::<IpAddr>, None, 0);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(told) => local = Some(*told),
            AddressAttribute::Address(told) => address = Some(*told),
            AddressAttribute::Protocol(told) => protocol = u8::from(*told),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side; IPv6 has no IFA_LOCAL otherwise.
    let address = IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?;
    let global = message.header.scope == AddressScope::Universe;
    Some(Told { ifindex: message.header.index, address, protocol, global })
}
