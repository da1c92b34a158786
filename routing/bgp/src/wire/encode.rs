// SPDX-License-Identifier: Apache-2.0
//! Writing UPDATEs: the attributes once, then as many destinations to a message as fit (RFC 4271 §4.3, RFC 4760, RFC 8654).

use std::iter::Peekable;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::slice;

use bytes::{BufMut, Bytes, BytesMut};
use rhumb_model::Family;

use super::header::{self, HEADER, Kind};
use super::nlri::{self, Paths};
use super::rules::{self, EXTENDED, OPTIONAL, PARTIAL, TRANSITIVE};
use super::values::{SEQUENCE, SET};
use super::{AsPath, Asn, Attributes, Negotiated, NextHop, Nlri, RawAttribute, Segment, family};

/// Why routes cannot be put into a message for a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// With these attributes not even one destination fits; a route that the peer has is to be withdrawn (RFC 8654 §4).
    #[error("put {octets} octets of attributes into messages of {maximum}")]
    TooLong {
        /// Octets of the attributes.
        octets: usize,
        /// Longest message on the session.
        maximum: usize,
    },
    /// The peer does not take such a next hop for the family (RFC 8950 §4).
    #[error("put {family} routes via {next_hop} into a message: not negotiated")]
    NextHop {
        /// Family of the destinations.
        family: Family,
        /// The next hop.
        next_hop: NextHop,
    },
}

/// LOCAL_PREF towards internal peers where a route has none (the value that speakers take by custom).
const LOCAL_PREF: u32 = 100;

/// Messages that announce the destinations of one family.
pub(super) fn announce(
    session: &Negotiated,
    attributes: &Attributes,
    next_hop: NextHop,
    family: Family,
    destinations: &[Nlri],
) -> Result<Vec<Bytes>, EncodeError> {
    let paths = paths(session, family);
    let mut common = BytesMut::with_capacity(128);
    match (family, next_hop) {
        (Family::V4, NextHop::V4(addr)) => {
            put_attributes(session, attributes, Some(addr), &mut common);
            let frame = Frame { withdrawn: false, multiprotocol: None, common: &common, paths };
            frame.fill(session.maximum(), destinations)
        }
        (Family::V4, NextHop::V6 { .. }) if !session.extended_next_hop.contains(&family) => {
            Err(EncodeError::NextHop { family, next_hop })
        }
        (Family::V6, NextHop::V4(_)) => Err(EncodeError::NextHop { family, next_hop }),
        (Family::V4 | Family::V6, NextHop::V6 { global, link_local }) => {
            put_attributes(session, attributes, None, &mut common);
            let mut prefix = family::pair(family).to_vec();
            let addrs: Vec<Ipv6Addr> = [global].into_iter().chain(link_local).collect();
            prefix.push(if addrs.len() == 1 { 16 } else { 32 });
            prefix.extend(addrs.iter().flat_map(Ipv6Addr::octets));
            prefix.push(0);
            let multiprotocol = Some((rules::MP_REACH_NLRI, prefix.as_slice()));
            Frame { withdrawn: false, multiprotocol, common: &common, paths }
                .fill(session.maximum(), destinations)
        }
    }
}

/// Messages that withdraw the destinations of one family; one message for none, which is the family's End-of-RIB.
pub(super) fn withdraw(session: &Negotiated, family: Family, destinations: &[Nlri]) -> Vec<Bytes> {
    let prefix = family::pair(family);
    let multiprotocol = match family {
        Family::V4 => None,
        Family::V6 => Some((rules::MP_UNREACH_NLRI, prefix.as_slice())),
    };
    let frame = Frame { withdrawn: true, multiprotocol, common: &[], paths: paths(session, family) };
    if destinations.is_empty() {
        return vec![frame.message(&[], 0)];
    }
    frame
        .fill(session.maximum(), destinations)
        .expect("a message without other attributes has room for a destination")
}

fn paths(session: &Negotiated, family: Family) -> Paths {
    if session.add_path_send.contains(&family) { Paths::Several } else { Paths::Single }
}

/// All of a message but its destinations.
struct Frame<'a> {
    /// Whether destinations outside of attributes are withdrawn.
    withdrawn: bool,
    /// The attribute that carries the destinations, and what is in front of them; `None` for IPv4 outside of attributes.
    multiprotocol: Option<(u8, &'a [u8])>,
    /// The other attributes.
    common: &'a [u8],
    paths: Paths,
}

impl Frame<'_> {
    /// Splits the destinations over messages of at most `maximum` octets.
    fn fill(&self, maximum: usize, mut destinations: &[Nlri]) -> Result<Vec<Bytes>, EncodeError> {
        // Header of an attribute with a long value, whether or not it becomes one.
        let wrapped = self.multiprotocol.map_or(0, |(_, prefix)| 4 + prefix.len());
        let room = maximum.saturating_sub(HEADER + 4 + self.common.len() + wrapped);
        let mut messages = Vec::with_capacity(1);
        while !destinations.is_empty() {
            let mut octets = 0;
            let fits = |nlri: &&Nlri| {
                octets += nlri::size(nlri, self.paths);
                octets <= room
            };
            let count = destinations.iter().take_while(fits).count();
            if count == 0 {
                return Err(EncodeError::TooLong { octets: self.common.len(), maximum });
            }
            let (now, later) = destinations.split_at(count);
            let octets = now.iter().map(|nlri| nlri::size(nlri, self.paths)).sum();
            messages.push(self.message(now, octets));
            destinations = later;
        }
        Ok(messages)
    }

    /// One message with these destinations, which take so many octets.
    fn message(&self, destinations: &[Nlri], octets: usize) -> Bytes {
        let value = self.multiprotocol.map_or(0, |(_, prefix)| prefix.len() + octets);
        let wrapped = match self.multiprotocol {
            None => 0,
            Some(_) if value > 255 => 4 + value,
            Some(_) => 3 + value,
        };
        let attributes = wrapped + self.common.len();
        let classic = if self.multiprotocol.is_none() { octets } else { 0 };
        let whole = HEADER + 4 + attributes + classic;
        let mut out = BytesMut::with_capacity(whole);
        let put =
            |out: &mut BytesMut| destinations.iter().for_each(|nlri| nlri::encode(nlri, self.paths, out));
        header::put(Kind::Update, whole, &mut out);
        put_length(if self.withdrawn { classic } else { 0 }, &mut out);
        if self.withdrawn && self.multiprotocol.is_none() {
            put(&mut out);
        }
        put_length(attributes, &mut out);
        if let Some((code, prefix)) = self.multiprotocol {
            // In front of the others, where it is found whatever is wrong with them (RFC 7606 §5.1).
            put_header(OPTIONAL, code, value, &mut out);
            out.put_slice(prefix);
            put(&mut out);
        }
        out.put_slice(self.common);
        if !self.withdrawn && self.multiprotocol.is_none() {
            put(&mut out);
        }
        debug_assert_eq!(out.len(), whole);
        out.freeze()
    }
}

fn put_length(octets: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(octets).expect("shorter than the message"));
}

/// Flags, code and length; the length has two octets only where it needs them (RFC 4271 §4.3).
fn put_header(flags: u8, code: u8, length: usize, out: &mut BytesMut) {
    match u8::try_from(length) {
        Ok(length) => out.put_slice(&[flags, code, length]),
        Err(_) => {
            out.put_slice(&[flags | EXTENDED, code]);
            // What does not fit is refused by its size before it is sent.
            out.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        }
    }
}

/// Path attributes, ordered by code (RFC 4271 §5), but that with the destinations.
fn put_attributes(
    session: &Negotiated,
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    out: &mut BytesMut,
) {
    let wide = session.asn4;
    let large = attributes.as_path.systems().any(|asn| asn.0 > u16::MAX.into());
    let internal = session.is_internal();
    let mut writer = Writer { out, unknown: attributes.unknown.iter().peekable() };
    let mut put = |flags, code, length, write: &dyn Fn(&mut BytesMut)| writer.put(flags, code, length, write);
    let path = &attributes.as_path;
    put(TRANSITIVE, rules::ORIGIN, 1, &|out| out.put_u8(attributes.origin as u8));
    put(TRANSITIVE, rules::AS_PATH, path_size(path, wide), &|out| put_path(path, wide, out));
    if let Some(addr) = next_hop {
        put(TRANSITIVE, rules::NEXT_HOP, 4, &|out| out.put_slice(&addr.octets()));
    }
    if let Some(med) = attributes.med {
        put(OPTIONAL, rules::MULTI_EXIT_DISC, 4, &|out| out.put_u32(med));
    }
    if internal {
        let preference = attributes.local_pref.unwrap_or(LOCAL_PREF);
        put(TRANSITIVE, rules::LOCAL_PREF, 4, &|out| out.put_u32(preference));
    }
    if attributes.atomic_aggregate {
        put(TRANSITIVE, rules::ATOMIC_AGGREGATE, 0, &|_| ());
    }
    if let Some((asn, addr)) = attributes.aggregator {
        put(OPTIONAL | TRANSITIVE, rules::AGGREGATOR, if wide { 8 } else { 6 }, &|out| {
            put_system(asn, wide, out);
            out.put_slice(&addr.octets());
        });
    }
    let communities = &attributes.communities;
    if !communities.is_empty() {
        put(OPTIONAL | TRANSITIVE, rules::COMMUNITIES, 4 * communities.len(), &|out| {
            communities.iter().for_each(|community| out.put_u32(community.0));
        });
    }
    if let Some(originator) = attributes.originator_id.filter(|_| internal) {
        put(OPTIONAL, rules::ORIGINATOR_ID, 4, &|out| out.put_u32(originator.0));
    }
    let clusters = &attributes.cluster_list;
    if internal && !clusters.is_empty() {
        put(OPTIONAL, rules::CLUSTER_LIST, 4 * clusters.len(), &|out| {
            clusters.iter().for_each(|cluster| out.put_u32(cluster.0));
        });
    }
    let extended = &attributes.extended_communities;
    if !extended.is_empty() {
        put(OPTIONAL | TRANSITIVE, rules::EXTENDED_COMMUNITIES, 8 * extended.len(), &|out| {
            extended.iter().for_each(|community| out.put_slice(community));
        });
    }
    if !wide && large {
        put(OPTIONAL | TRANSITIVE, rules::AS4_PATH, path_size(path, true), &|out| put_path(path, true, out));
    }
    if let Some((asn, addr)) = attributes.aggregator.filter(|(asn, _)| !wide && asn.0 > u16::MAX.into()) {
        put(OPTIONAL | TRANSITIVE, rules::AS4_AGGREGATOR, 8, &|out| {
            put_system(asn, true, out);
            out.put_slice(&addr.octets());
        });
    }
    let large = &attributes.large_communities;
    if !large.is_empty() {
        put(OPTIONAL | TRANSITIVE, rules::LARGE_COMMUNITY, 12 * large.len(), &|out| {
            for community in large {
                [community.global, community.local1, community.local2]
                    .into_iter()
                    .for_each(|part| out.put_u32(part));
            }
        });
    }
    writer.put_unknown(|_| true);
}

/// Writes attributes in the order in which they come, those that this speaker does not know at their places between them.
struct Writer<'a> {
    out: &'a mut BytesMut,
    unknown: Peekable<slice::Iter<'a, RawAttribute>>,
}

impl Writer<'_> {
    fn put(&mut self, flags: u8, code: u8, length: usize, write: &dyn Fn(&mut BytesMut)) {
        self.put_unknown(|raw| raw.code < code);
        put_header(flags, code, length, self.out);
        write(self.out);
    }

    fn put_unknown(&mut self, due: impl Fn(&RawAttribute) -> bool) {
        while let Some(raw) = self.unknown.next_if(|raw| due(raw)) {
            // Whoever passes an attribute on without knowing it says so (RFC 4271 §5).
            put_header(raw.flags | PARTIAL, raw.code, raw.value.len(), self.out);
            self.out.put_slice(&raw.value);
        }
    }
}

/// Segments as they go to the wire: at most 255 systems each.
fn pieces(path: &AsPath) -> impl Iterator<Item = (u8, &[Asn])> {
    path.0.iter().flat_map(|segment| {
        let kind = match segment {
            Segment::Set(_) => SET,
            Segment::Sequence(_) => SEQUENCE,
        };
        segment.systems().chunks(AsPath::SEGMENT).map(move |systems| (kind, systems))
    })
}

fn path_size(path: &AsPath, wide: bool) -> usize {
    pieces(path).map(|(_, systems)| 2 + systems.len() * if wide { 4 } else { 2 }).sum()
}

fn put_path(path: &AsPath, wide: bool, out: &mut BytesMut) {
    for (kind, systems) in pieces(path) {
        out.put_u8(kind);
        out.put_u8(u8::try_from(systems.len()).expect("a piece has at most 255"));
        systems.iter().for_each(|asn| put_system(*asn, wide, out));
    }
}

fn put_system(asn: Asn, wide: bool, out: &mut BytesMut) {
    if wide { out.put_u32(asn.0) } else { out.put_u16(asn.two_octets()) }
}

#[cfg(test)]
mod tests;
