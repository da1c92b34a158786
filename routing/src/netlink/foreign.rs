// SPDX-License-Identifier: Apache-2.0
//! Routes of others in all tables, and the rules that choose a table, as messages (linux/rtnetlink.h,
//! linux/fib_rules.h).

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rhumb_model::{Family, Prefix};

use super::message::{Message, request};
use super::route::ip;
use crate::fabric::Rule;
use crate::kernel::PROTOCOL;

/// The table of the host's own addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u32 = 255;

/// A route of others as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) table: u32,
    pub(crate) dst: Prefix,
    pub(crate) metric: u32,
    /// Next hops that are usable: link, and gateway where there is one. Empty: it leads nowhere.
    pub(crate) hops: Vec<(u32, Option<IpAddr>)>,
}

fn family_word(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn family_of(word: AddressFamily) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| family_word(*family) == word)
}

/// Asks for the routes of one family in all tables.
pub(crate) fn get_routes(family: Family) -> Message {
    let mut about = RouteMessage::default();
    about.header.address_family = family_word(family);
    request(RouteNetlinkMessage::GetRoute(about), 0)
}

/// Asks for the rules of one family.
pub(crate) fn get_rules(family: Family) -> Message {
    let mut about = RuleMessage::default();
    about.header.family = family_word(family);
    request(RouteNetlinkMessage::GetRule(about), 0)
}

/// Reads a route that is not ours.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
pub(crate) fn read_route(message: &RouteNetlinkMessage) -> Option<Told> {
    let (RouteNetlinkMessage::NewRoute(about) | RouteNetlinkMessage::DelRoute(about)) = message else {
        return None;
    };
    let header = &about.header;
    let family = family_of(header.address_family)?;
    if u8::from(header.protocol) == PROTOCOL || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut told =
        Told { table: header.table.into(), dst: family.default_route(), metric: 0, hops: Vec::new() };
    let (mut ifindex, mut gateway, mut several) = (None, None, None);
    for attribute in &about.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => {
                told.dst = Prefix::containing(ip(dst)?, header.destination_prefix_length);
            }
            RouteAttribute::Table(number) => told.table = *number,
            RouteAttribute::Priority(metric) => told.metric = *metric,
            RouteAttribute::Oif(number) => ifindex = Some(*number),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = gateway_of(attribute),
            RouteAttribute::MultiPath(hops) => several = Some(hops),
            _ => {}
        }
    }
    if told.dst.len() != header.destination_prefix_length || header.kind != RouteType::Unicast {
        return (told.dst.len() == header.destination_prefix_length).then_some(told);
    }
    // Nobody answers for pods in a subnet of the node's own address.
    let subnet = header.protocol == RouteProtocol::Kernel && gateway.is_none();
    let unusable = RouteFlags::Dead | RouteFlags::Linkdown;
    if let Some(hops) = several {
        let unusable = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
        let usable = hops.iter().filter(|hop| !hop.flags.intersects(unusable));
        told.hops.extend(usable.map(|hop| (hop.interface_index, hop.attributes.iter().find_map(gateway_of))));
    } else if let Some(ifindex) = ifindex.filter(|_| !subnet && !header.flags.intersects(unusable)) {
        told.hops.push((ifindex, gateway));
    }
    Some(told)
}

/// A gateway, also one of the other family.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => ip(gateway),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

/// Whether a message is about a rule.
pub(crate) fn is_rule(message: &RouteNetlinkMessage) -> bool {
    matches!(message, RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_))
}

/// Reads a rule that looks at nothing but the destination. Others hold for some packets to pods and not for others,
/// so that nothing follows for the prefix.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that do not narrow a rule are left out one by one"
)]
pub(crate) fn read_rule(message: &RouteNetlinkMessage) -> Option<(Family, Rule)> {
    let RouteNetlinkMessage::NewRule(about) = message else { return None };
    let header = &about.header;
    let family = family_of(header.family)?;
    let mut rule =
        Rule { priority: 0, dst: family.default_route(), table: Some(header.table.into()), suppressed: None };
    if header.src_len != 0 || header.tos != 0 || header.flags.contains(RuleFlags::Invert) {
        return None;
    }
    for attribute in &about.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = Some(*table),
            RuleAttribute::Destination(addr) => rule.dst = Prefix::containing(*addr, header.dst_len),
            // The kernel tells -1 where nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(length) => rule.suppressed = u8::try_from(*length).ok(),
            RuleAttribute::Source(_)
            | RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::TunId(_)
            | RuleAttribute::L3MDev(true) => return None,
            _ => {}
        }
    }
    match header.action {
        RuleAction::ToTable => {}
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => rule.table = None,
        RuleAction::Unspec | RuleAction::Goto | RuleAction::Nop | RuleAction::Other(_) | _ => return None,
    }
    // The kernel looks first at what is its own; no route to pods is there.
    (rule.table != Some(LOCAL_TABLE)).then_some((family, rule))
}
