// SPDX-License-Identifier: Apache-2.0
//! Routes as messages (linux/rtnetlink.h).

use std::net::IpAddr;

use rhumb_model::{Family, Prefix};

use super::address::{AF_INET, AF_INET6, from_octets, octets};
use super::wire::{Request, attributes, attributes_after, u16_at, u32_at};
use crate::kernel::PROTOCOL;

pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const HEAD: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const NEXTHOP_IFINDEX: usize = 4;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
/// In a removal: of whatever scope.
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;

/// A route of the main table as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) dst: Prefix,
    pub(crate) metric: u32,
    pub(crate) kind: Kind,
    pub(crate) ifindex: Option<u32>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) onlink: bool,
    pub(crate) mtu: Option<u32>,
    pub(crate) protocol: u8,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unicast,
    Unreachable,
    Other,
}

fn head(family: u8, len: u8, protocol: u8, scope: u8, kind: u8, flags: u32) -> [u8; HEAD] {
    let mut head = [family, len, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, 0, 0, 0, 0];
    head[8..].copy_from_slice(&flags.to_ne_bytes());
    head
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// Asks for the routes of one family in the main table; `protocol` 0 asks for everybody's.
pub(crate) fn get(family: Family, protocol: u8) -> Request {
    Request::new(RTM_GETROUTE, 0, &head(number(family), 0, protocol, 0, 0, 0))
        .with_u32(RTA_TABLE, RT_TABLE_MAIN.into())
}

/// Puts a route; `flags` say whether it may be there or has to be.
pub(crate) fn put(route: &Told, flags: u16) -> Request {
    // IPv4 wants a narrower scope for what is reached without a gateway.
    let scope = if route.kind == Kind::Unicast && route.gateway.is_none() && route.dst.family() == Family::V4
    {
        RT_SCOPE_LINK
    } else {
        RT_SCOPE_UNIVERSE
    };
    let mut request = about(RTM_NEWROUTE, flags, route, scope);
    if let Some(mtu) = route.mtu {
        request = request.nest(RTA_METRICS, |metrics| metrics.with_u32(RTAX_MTU, mtu));
    }
    request
}

/// Removes a route of ours.
pub(crate) fn remove(route: &Told) -> Request {
    about(RTM_DELROUTE, 0, route, RT_SCOPE_NOWHERE)
}

fn about(message: u16, flags: u16, route: &Told, scope: u8) -> Request {
    let kind = match route.kind {
        Kind::Unicast => RTN_UNICAST,
        Kind::Unreachable => RTN_UNREACHABLE,
        Kind::Other => 0,
    };
    let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let head = head(number(route.dst.family()), route.dst.len(), PROTOCOL, scope, kind, onlink);
    let mut request = Request::new(message, flags, &head)
        .with(RTA_DST, &octets(route.dst.addr()))
        .with_u32(RTA_PRIORITY, route.metric);
    if let Some(gateway) = route.gateway {
        request = request.with(RTA_GATEWAY, &octets(gateway));
    }
    // The kernel keeps unreachable IPv6 routes on the loopback, whose index means nothing.
    if let (Some(ifindex), Kind::Unicast) = (route.ifindex, route.kind) {
        request = request.with_u32(RTA_OIF, ifindex);
    }
    request
}

/// The links that a default route of the main table leads to; none for other routes.
pub(crate) fn default_carriers(payload: &[u8]) -> Vec<u32> {
    let Some(told) = read(payload).filter(|told| told.dst.len() == 0) else { return Vec::new() };
    let several = attributes_after(payload, HEAD).find(|(kind, _)| *kind == RTA_MULTIPATH);
    let several = several.map(|(_, hops)| hops).unwrap_or_default();
    let unicast = told.ifindex.filter(|_| told.kind == Kind::Unicast);
    hops(several).filter_map(|hop| u32_at(hop, NEXTHOP_IFINDEX)).chain(unicast).collect()
}

/// The next hops of a route with several: length u16, flags u8, weight u8, index u32, attributes.
fn hops(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let hop = bytes.get(..length).filter(|hop| !hop.is_empty())?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(hop)
    })
}

/// Reads a route of the main table; `None` for other tables.
pub(crate) fn read(payload: &[u8]) -> Option<Told> {
    let [family, len, _, _, table, protocol, _, kind] = *payload.first_chunk::<8>()?;
    let family = match family {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    let mut told = Told {
        dst: family.default_route(),
        metric: 0,
        kind: Kind::Other,
        ifindex: None,
        gateway: None,
        onlink: u32_at(payload, 8)? & RTNH_F_ONLINK != 0,
        mtu: None,
        protocol,
    };
    let mut table = u32::from(table);
    for (kind, value) in attributes_after(payload, HEAD) {
        match kind {
            RTA_DST => told.dst = Prefix::containing(from_octets(value)?, len),
            RTA_OIF => told.ifindex = u32_at(value, 0),
            RTA_GATEWAY => told.gateway = from_octets(value),
            RTA_PRIORITY => told.metric = u32_at(value, 0)?,
            RTA_TABLE => table = u32_at(value, 0)?,
            RTA_METRICS => {
                told.mtu =
                    attributes(value).find(|(kind, _)| *kind == RTAX_MTU).and_then(|(_, mtu)| u32_at(mtu, 0));
            }
            _ => {}
        }
    }
    told.kind = match kind {
        // Several next hops have no single link.
        RTN_UNICAST if told.ifindex.is_some() => Kind::Unicast,
        RTN_UNREACHABLE => Kind::Unreachable,
        _ => Kind::Other,
    };
    (table == u32::from(RT_TABLE_MAIN)).then_some(told)
}
