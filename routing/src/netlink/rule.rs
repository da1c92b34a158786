// SPDX-License-Identifier: Apache-2.0
//! Rules of rhumb as messages (linux/fib_rules.h).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rhumb_model::{Family, Prefix};

use super::message::{Message, request};
use crate::kernel::{PROTOCOL, PolicyRule};

fn about(rule: &PolicyRule) -> RuleMessage {
    let mut about = RuleMessage::default();
    about.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    about.header.action = RuleAction::ToTable;
    about.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(PROTOCOL.into()),
    ];
    if let Some(from) = rule.from {
        about.header.src_len = from.len();
        about.attributes.push(RuleAttribute::Source(from.addr()));
    }
    if let Some((mark, mask)) = rule.mark {
        about.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    let suppress = rule.suppress.map(|length| RuleAttribute::SuppressPrefixLen(length.into()));
    about.attributes.extend(suppress);
    about
}

/// Adds a rule.
pub(crate) fn add(rule: &PolicyRule) -> Message {
    request(RouteNetlinkMessage::NewRule(about(rule)), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes a rule; the kernel compares the protocol as well.
pub(crate) fn remove(rule: &PolicyRule) -> Message {
    request(RouteNetlinkMessage::DelRule(about(rule)), 0)
}

/// Reads a rule of rhumb; one that asks for more than ours do is somebody else's, whatever it says.
#[expect(clippy::wildcard_enum_match_arm, reason = "attributes that narrow no rule are left out one by one")]
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<PolicyRule> {
    let (RouteNetlinkMessage::NewRule(about) | RouteNetlinkMessage::DelRule(about)) = message else {
        return None;
    };
    let header = &about.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut rule = PolicyRule {
        family,
        priority: 0,
        from: None,
        mark: None,
        table: header.table.into(),
        suppress: None,
    };
    let (mut mark, mut mask, mut ours) = (None, u32::MAX, false);
    for attribute in &about.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => ours = u8::from(*protocol) == PROTOCOL,
            RuleAttribute::Source(addr) if Family::of(*addr) == family => {
                rule.from = Some(Prefix::containing(*addr, header.src_len));
            }
            RuleAttribute::FwMark(told) => mark = Some(*told),
            RuleAttribute::FwMask(told) => mask = *told,
            RuleAttribute::SuppressPrefixLen(length) => rule.suppress = u8::try_from(*length).ok(),
            RuleAttribute::Destination(_)
            | RuleAttribute::Source(_)
            | RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::Goto(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::L3MDev(true) => return None,
            _ => {}
        }
    }
    if header.tos != 0 || header.action != RuleAction::ToTable || header.flags.contains(RuleFlags::Invert) {
        return None;
    }
    rule.mark = mark.filter(|_| mask != 0).map(|mark| (mark, mask));
    ours.then_some(rule)
}
