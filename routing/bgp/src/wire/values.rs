// SPDX-License-Identifier: Apache-2.0
//! Values of path attributes, read into [`Attributes`]; flags and lengths were held against the rules before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::octets::{octet, take, word, words};
use super::rules::{self, Fault, Rule};
use super::{AsPath, Asn, Attributes, Community, LargeCommunity, NextHop, Origin, RouterId, Segment};

/// Types of segments (RFC 4271 §4.3, RFC 5065 §3).
pub(super) const SET: u8 = 1;
pub(super) const SEQUENCE: u8 = 2;
const CONFEDERATION_SEQUENCE: u8 = 3;
const CONFEDERATION_SET: u8 = 4;

/// What the attributes of a message say, before the parts for two-octet speakers are merged.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) attributes: Attributes,
    /// NEXT_HOP of the routes in the field of IPv4 destinations.
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) as4_path: Option<AsPath>,
    pub(super) as4_aggregator: Option<(Asn, Ipv4Addr)>,
}

/// Octets of a system in AS_PATH and AGGREGATOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Values {
    /// Takes the value of a known attribute that carries no destinations.
    pub(super) fn take(&mut self, code: u8, rule: Rule, value: &[u8], width: Width) -> Result<(), Fault> {
        let fault = |what| rule.fault(code, what);
        let short = || rule.fault(code, "bad length");
        let input = &mut &*value;
        let attributes = &mut self.attributes;
        match code {
            rules::ORIGIN => {
                attributes.origin = match value {
                    [0] => Origin::Igp,
                    [1] => Origin::Egp,
                    [2] => Origin::Incomplete,
                    _ => return Err(Fault::withdraw(Some(code), "no such origin", rules::BAD_ORIGIN)),
                };
            }
            rules::AS_PATH => {
                attributes.as_path = path(value, width, Confederations::Refused).map_err(fault)?
            }
            rules::AS4_PATH => {
                let path = path(value, Width::Four, Confederations::LeftOut).map_err(|what| match what {
                    // A set is an error of the route, not of the attribute (RFC 9774 §3).
                    SETS => Fault::withdraw(Some(code), what, rules::BAD_PATH),
                    _ => fault(what),
                })?;
                self.as4_path = Some(path);
            }
            rules::NEXT_HOP => {
                let addr = Ipv4Addr::from_bits(word(input).ok_or_else(short)?);
                if !is_host(addr.into()) {
                    return Err(Fault::withdraw(Some(code), "no address of a router", rules::BAD_NEXT_HOP));
                }
                self.next_hop = Some(addr);
            }
            rules::MULTI_EXIT_DISC => attributes.med = Some(word(input).ok_or_else(short)?),
            rules::LOCAL_PREF => attributes.local_pref = Some(word(input).ok_or_else(short)?),
            rules::ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
            rules::AGGREGATOR => {
                attributes.aggregator = Some(aggregator(input, width).ok_or_else(|| fault("AS 0"))?)
            }
            rules::AS4_AGGREGATOR => {
                self.as4_aggregator = Some(aggregator(input, Width::Four).ok_or_else(|| fault("AS 0"))?);
            }
            rules::COMMUNITIES => attributes.communities = words(value).map(Community).collect(),
            rules::ORIGINATOR_ID => attributes.originator_id = Some(RouterId(word(input).ok_or_else(short)?)),
            rules::CLUSTER_LIST => attributes.cluster_list = words(value).map(RouterId).collect(),
            rules::EXTENDED_COMMUNITIES => attributes.extended_communities = value.as_chunks().0.to_vec(),
            rules::LARGE_COMMUNITY => {
                attributes.large_communities = std::iter::from_fn(|| {
                    Some(LargeCommunity { global: word(input)?, local1: word(input)?, local2: word(input)? })
                })
                .collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// The attributes, with what speakers of two octets carried beside them (RFC 6793 §4.2.3).
    pub(super) fn merged(self) -> Attributes {
        let mut attributes = self.attributes;
        // A number of its own beside that of four octets was put by a speaker of two, after the others: both are stale.
        let stale = match (attributes.aggregator, self.as4_aggregator) {
            (Some((asn, _)), Some(_)) => asn != Asn::TRANS,
            (None, _) | (_, None) => false,
        };
        if !stale {
            attributes.aggregator = attributes.aggregator.map(|two| self.as4_aggregator.unwrap_or(two));
            if let Some(path) = self.as4_path {
                attributes.as_path = joined(attributes.as_path, path);
            }
        }
        attributes.canonical()
    }
}

/// Systems that spoke two octets are in front of those that `new` tells in four; a `new` that is longer than the whole is not believed.
fn joined(old: AsPath, new: AsPath) -> AsPath {
    let Some(mut missing) = old.len().checked_sub(new.len()) else { return old };
    let mut front = Vec::new();
    for segment in old.0 {
        if missing == 0 {
            break;
        }
        match segment {
            Segment::Sequence(mut systems) => {
                systems.truncate(missing);
                missing -= systems.len();
                front.push(Segment::Sequence(systems));
            }
            Segment::Set(systems) => {
                missing -= 1;
                front.push(Segment::Set(systems));
            }
        }
    }
    let mut rest = new.0;
    // One sequence where the parts meet, so that equal paths are equal values.
    if let (Some(Segment::Sequence(front)), Some(Segment::Sequence(first))) =
        (front.last_mut(), rest.first_mut())
        && front.len() + first.len() <= AsPath::SEGMENT
    {
        front.append(first);
        rest.remove(0);
    }
    front.append(&mut rest);
    AsPath(front)
}

/// What is done with segments of confederations, of which this speaker is never a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confederations {
    /// The path is malformed (RFC 5065 §5).
    Refused,
    /// Sequences are left out (RFC 6793 §6); sets are errors as others are.
    LeftOut,
}

/// The error of paths with sets (RFC 9774 §3).
const SETS: &str = "a set of systems";

fn path(mut value: &[u8], width: Width, confederations: Confederations) -> Result<AsPath, &'static str> {
    let mut segments = Vec::new();
    while !value.is_empty() {
        let (kind, count) = octet(&mut value).zip(octet(&mut value)).ok_or("a segment is cut short")?;
        if count == 0 {
            return Err("a segment is empty");
        }
        let octets = usize::from(count) * if width == Width::Two { 2 } else { 4 };
        let octets = take(&mut value, octets).ok_or("a segment is cut short")?;
        if kind == CONFEDERATION_SEQUENCE && confederations == Confederations::LeftOut {
            continue;
        }
        let systems = systems(octets, width);
        if systems.contains(&Asn(0)) {
            return Err("AS 0");
        }
        match kind {
            SEQUENCE => segments.push(Segment::Sequence(systems)),
            SET | CONFEDERATION_SET => return Err(SETS),
            CONFEDERATION_SEQUENCE => return Err("a segment of a confederation"),
            _ => return Err("a segment of unknown type"),
        }
    }
    Ok(AsPath(segments))
}

fn systems(octets: &[u8], width: Width) -> Vec<Asn> {
    match width {
        Width::Two => octets.as_chunks().0.iter().map(|two| Asn(u16::from_be_bytes(*two).into())).collect(),
        Width::Four => words(octets).map(Asn).collect(),
    }
}

/// AS and address; `None` for AS 0 (RFC 7607 §2).
fn aggregator(input: &mut &[u8], width: Width) -> Option<(Asn, Ipv4Addr)> {
    let asn = match width {
        Width::Two => super::octets::short(input)?.into(),
        Width::Four => word(input)?,
    };
    (asn != 0).then_some((Asn(asn), Ipv4Addr::from_bits(word(input)?)))
}

/// Whether packets can be sent to the address as to a router (RFC 4271 §6.3).
fn is_host(addr: IpAddr) -> bool {
    let reserved = match addr {
        IpAddr::V4(addr) => addr.octets()[0] == 0 || addr.octets()[0] >= 240,
        IpAddr::V6(addr) => addr.to_ipv4_mapped().is_some(),
    };
    !(reserved || addr.is_unspecified() || addr.is_loopback() || addr.is_multicast())
}

/// A next hop from MP_REACH_NLRI, in one form for what speakers send on links without global addresses; `None` where no
/// router can have the address (RFC 2545 §3, RFC 8950 §3).
pub(super) fn next_hop(octets: &[u8]) -> Option<NextHop> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        let addr = Ipv4Addr::from(octets);
        return is_host(addr.into()).then_some(NextHop::V4(addr));
    }
    let addr = |octets: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?));
    let (first, second) = octets.split_at_checked(16)?;
    // What is not link-local has no meaning in the second place.
    let link_local = addr(second).filter(Ipv6Addr::is_unicast_link_local);
    let global = addr(first).filter(|addr| !addr.is_unspecified()).or(link_local)?;
    is_host(global.into()).then_some(NextHop::V6 { global, link_local })
}

#[cfg(test)]
mod tests;
