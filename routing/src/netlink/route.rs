// SPDX-License-Identifier: Apache-2.0
//! Routes as messages (linux/rtnetlink.h).

use std::net::IpAddr;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rhumb_model::{Family, Prefix};
use rtnetlink::RouteMessageBuilder;

use super::message::{Message, request};
use crate::kernel::PROTOCOL;

/// Number of the main table.
pub(crate) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A route as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) dst: Prefix,
    pub(crate) metric: u32,
    pub(crate) kind: Kind,
    pub(crate) ifindex: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) onlink: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) protocol: u8,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unicast,
    Unreachable,
    Other,
}

/// Asks for the routes of one family in the main table; `protocol` 0 asks for everybody's.
pub(crate) fn get(family: Family, protocol: u8) -> Message {
    let about = RouteMessageBuilder::<IpAddr>::new().protocol(protocol.into()).kind(RouteType::Unspec);
    let mut about = about.build();
    about.header.address_family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    request(RouteNetlinkMessage::GetRoute(about), 0)
}

/// Puts a route; `flags` say whether it may be there or has to be.
pub(crate) fn put(route: &Told, flags: u16) -> Message {
    // IPv4 wants a narrower scope for what is reached without a gateway.
    let scope = if route.kind == Kind::Unicast && route.gateway.is_none() && route.dst.family() == Family::V4
    {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    let mut about = about(route, scope);
    if let Some(mtu) = route.mtu {
        about.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    about.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    request(RouteNetlinkMessage::NewRoute(about), flags)
}

/// Removes a route of ours.
pub(crate) fn remove(route: &Told) -> Message {
    // In a removal: of whatever scope.
    request(RouteNetlinkMessage::DelRoute(about(route, RouteScope::NoWhere)), 0)
}

fn about(route: &Told, scope: RouteScope) -> RouteMessage {
    let kind = match route.kind {
        Kind::Unicast => RouteType::Unicast,
        Kind::Unreachable => RouteType::Unreachable,
        Kind::Other => RouteType::Unspec,
    };
    let mut about = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.dst.addr(), route.dst.len())
        .expect("a prefix is no longer than its address")
        .protocol(PROTOCOL.into())
        .scope(scope)
        .kind(kind)
        .priority(route.metric);
    if route.onlink {
        about = about.onlink();
    }
    // The kernel keeps unreachable IPv6 routes on the loopback, whose index means nothing.
    if let (Some(ifindex), Kind::Unicast) = (route.ifindex, route.kind) {
        about = about.output_interface(ifindex);
    }
    let mut about = about.build();
    // Of a gateway of the other family the builder would make another attribute, or an error.
    about.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    about
}

/// The links that a default route of the main table leads to; none for other routes.
pub(crate) fn default_carriers(message: &RouteNetlinkMessage) -> Vec<u32> {
    let (RouteNetlinkMessage::NewRoute(about), Some(told)) = (message, read(message)) else {
        return Vec::new();
    };
    if told.dst.len() != 0 {
        return Vec::new();
    }
    let several = about.attributes.iter().filter_map(|attribute| {
        if let RouteAttribute::MultiPath(hops) = attribute { Some(hops) } else { None }
    });
    let unicast = told.ifindex.filter(|_| told.kind == Kind::Unicast);
    several.flatten().map(|hop| hop.interface_index).chain(unicast).collect()
}

/// An address of either family.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

/// Asks for the routes of one family and one protocol in all tables.
pub(crate) fn get_everywhere(family: Family, protocol: u8) -> Message {
    let mut message = get(family, protocol);
    if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetRoute(about)) = &mut message.payload {
        about.header.table = RouteHeader::RT_TABLE_UNSPEC;
    }
    message
}

/// Makes a request about a route of the main table one about a route of this table.
pub(crate) fn in_table(mut message: Message, table: u32) -> Message {
    if let NetlinkPayload::InnerMessage(
        RouteNetlinkMessage::NewRoute(about) | RouteNetlinkMessage::DelRoute(about),
    ) = &mut message.payload
    {
        about.header.table = RouteHeader::RT_TABLE_UNSPEC;
        about.attributes.push(RouteAttribute::Table(table));
    }
    message
}

/// Reads a route of the main table; `None` for other tables.
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<Told> {
    read_with_table(message).filter(|(table, _)| *table == MAIN).map(|(_, told)| told)
}

/// Reads a route of whatever table, with the number of that.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
pub(crate) fn read_with_table(message: &RouteNetlinkMessage) -> Option<(u32, Told)> {
    let (RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message)) = message else {
        return None;
    };
    let header = &message.header;
    let family = match header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut told = Told {
        dst: family.default_route(),
        metric: 0,
        kind: Kind::Other,
        ifindex: None,
        gateway: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        mtu: None,
        source: None,
        protocol: header.protocol.into(),
    };
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => {
                told.dst = Prefix::containing(ip(dst)?, header.destination_prefix_length);
            }
            RouteAttribute::Oif(ifindex) => told.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(gateway) => told.gateway = ip(gateway),
            RouteAttribute::PrefSource(source) => told.source = ip(source),
            RouteAttribute::Priority(metric) => told.metric = *metric,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Metrics(metrics) => {
                told.mtu = metrics
                    .iter()
                    .find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    told.kind = match header.kind {
        // Several next hops have no single link.
        RouteType::Unicast if told.ifindex.is_some() => Kind::Unicast,
        RouteType::Unreachable => Kind::Unreachable,
        _ => Kind::Other,
    };
    // A destination that was not understood is not the default one.
    let whole = told.dst.len() == header.destination_prefix_length;
    whole.then_some((table, told))
}
