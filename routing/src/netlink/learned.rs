// SPDX-License-Identifier: Apache-2.0
//! Learned routes as messages, by the thousand (linux/rtnetlink.h).
//!
//! A route is put together byte by byte here: of a full table, all that differs from route to route is the prefix.
//! Only the last request of a datagram asks for an acknowledgement; the kernel works them off in order and tells of
//! refusals unasked, so that what comes before the acknowledgement says everything about the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket as RawSocket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rhumb_model::{Family, Prefix};
use rtnetlink::MulticastGroup;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{SockFilter, SockRef};

use super::message::{Message, request};
use super::route::ip;
use super::socket::{self, Listener, Refused, answers};
use super::{Host, Talk, link, on_own_thread};
use crate::kernel::{KernelError, Place};
use crate::learned::{
    LearnedRoute, METRIC, PRIORITY, PROTOCOL, Surroundings, Via, WayOut, Write, WriteAction,
};
use crate::namespaces::enter;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
/// In a removal: of whatever scope.
const SCOPE_NOWHERE: u8 = 255;
const TYPE_UNSPEC: u8 = 0;
const TYPE_UNICAST: u8 = 1;
const TYPE_BLACKHOLE: u8 = 6;
/// The table is told by its attribute, which has room for all numbers.
const TABLE_UNSPEC: u8 = 0;
const HEADER: usize = 16;

/// Requests of one datagram; their refusals must fit into the default receive buffer.
const BATCH: usize = 128;
const BUFFER: usize = 1 << 15;

/// A socket that takes many routes at once.
#[derive(Debug)]
pub(crate) struct Bulk {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What became of a datagram.
enum Answered {
    /// These were refused, by their place in the datagram.
    All(Vec<(usize, Refused)>),
    /// There was no room for all answers.
    Lost,
}

impl Bulk {
    /// Opens a socket in `namespace`; the calling thread stays there, so it must be one that ends soon.
    fn open_in(namespace: &Arc<OwnedFd>) -> io::Result<Self> {
        enter(namespace)?;
        let mut raw = RawSocket::new(NETLINK_ROUTE)?;
        raw.bind_auto()?;
        raw.set_cap_ack(true)?;
        raw.set_ext_ack(true)?;
        Ok(Self { raw, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Makes changes in order, and returns the places of those that were refused.
    fn write(&mut self, table: u32, writes: &[Write]) -> io::Result<Vec<(usize, Refused)>> {
        let mut refused = Vec::new();
        for (number, batch) in writes.chunks(BATCH).enumerate() {
            let start = number * BATCH;
            match self.exchange(table, batch)? {
                Answered::All(of_batch) => {
                    refused.extend(of_batch.into_iter().map(|(at, why)| (start + at, why)));
                }
                Answered::Lost => {
                    for (at, write) in batch.iter().enumerate() {
                        refused.extend(self.once_more(table, write)?.map(|why| (start + at, why)));
                    }
                }
            }
        }
        Ok(refused)
    }

    /// Makes a change alone whose answer was lost. What it adds may be there already, by the first try.
    fn once_more(&mut self, table: u32, write: &Write) -> io::Result<Option<Refused>> {
        match self.exchange(table, std::slice::from_ref(write))? {
            Answered::All(refused) => {
                let present = Errno::EXIST.raw_os_error();
                let meant = refused.into_iter().find(|(_, refused)| refused.errno != present);
                Ok(meant.map(|(_, refused)| refused))
            }
            Answered::Lost => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Sends one datagram and takes its answers.
    fn exchange(&mut self, table: u32, writes: &[Write]) -> io::Result<Answered> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(writes.len() * 80);
        for (at, write) in writes.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let last = at + 1 == writes.len();
            append(&mut datagram, table, write, self.sequence, if last { NLM_F_ACK } else { 0 });
        }
        self.raw.send(&datagram, 0)?;
        let mut refused = Vec::new();
        let mut lost = false;
        loop {
            // The kernel has queued all answers when `send` returns.
            let flags = if lost { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let length = match recv(self.raw.as_fd(), &mut self.buffer[..], flags) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::NOBUFS) => {
                    lost = true;
                    continue;
                }
                Err(Errno::AGAIN) if lost => return Ok(Answered::Lost),
                Err(error) => return Err(error.into()),
            };
            for (sequence, answer) in answers(&self.buffer[..length]) {
                let at = sequence.wrapping_sub(first) as usize;
                // What remains of an exchange that was given up is not for this one.
                let Some(write) = writes.get(at) else { continue };
                if let Some(why) = answer.filter(|why| !is_absent(write, why)) {
                    refused.push((at, why));
                }
                if at + 1 == writes.len() && !lost {
                    return Ok(Answered::All(refused));
                }
            }
        }
    }
}

/// Whether the kernel says of a removal that there is nothing to remove.
fn is_absent(write: &Write, refused: &Refused) -> bool {
    write.action == WriteAction::Remove
        && [Errno::SRCH, Errno::NOENT].iter().any(|errno| errno.raw_os_error() == refused.errno)
}

/// Adds a change of a route to a datagram.
fn append(datagram: &mut Vec<u8>, table: u32, write: &Write, sequence: u32, flags: u16) {
    let start = datagram.len();
    let (kind, flags, route) = match &write.action {
        WriteAction::Add(route) => (RTM_NEWROUTE, flags | NLM_F_CREATE | NLM_F_EXCL, Some(&**route)),
        WriteAction::Replace(route) => (RTM_NEWROUTE, flags | NLM_F_CREATE | NLM_F_REPLACE, Some(&**route)),
        WriteAction::Remove => (RTM_DELROUTE, flags, None),
    };
    datagram.extend([0; 4]);
    datagram.extend(kind.to_ne_bytes());
    datagram.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    datagram.extend(sequence.to_ne_bytes());
    datagram.extend([0; 4]);
    let family = write.prefix.family();
    let (scope, route_type) = match route {
        None => (SCOPE_NOWHERE, TYPE_UNSPEC),
        Some(LearnedRoute::Discard) => (SCOPE_UNIVERSE, TYPE_BLACKHOLE),
        // IPv4 wants a narrower scope for what is reached without a gateway.
        Some(LearnedRoute::Via(via))
            if family == Family::V4 && via.iter().all(|via| via.gateway.is_none()) =>
        {
            (SCOPE_LINK, TYPE_UNICAST)
        }
        Some(LearnedRoute::Via(_)) => (SCOPE_UNIVERSE, TYPE_UNICAST),
    };
    datagram.extend([number(family), write.prefix.len(), 0, 0, TABLE_UNSPEC, PROTOCOL, scope, route_type]);
    datagram.extend([0; 4]);
    attribute(datagram, RTA_DST, octets(&write.prefix.addr()).as_ref());
    attribute(datagram, RTA_TABLE, &table.to_ne_bytes());
    attribute(datagram, RTA_PRIORITY, &METRIC.to_ne_bytes());
    match route {
        Some(LearnedRoute::Via(via)) if via.len() == 1 => {
            attribute(datagram, RTA_OIF, &via[0].ifindex.to_ne_bytes());
            gateway(datagram, family, via[0].gateway);
        }
        Some(LearnedRoute::Via(via)) => several(datagram, family, via),
        Some(LearnedRoute::Discard) | None => {}
    }
    let length = u32::try_from(datagram.len() - start).expect("a request is short");
    datagram[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// All next hops, of equal weight.
fn several(datagram: &mut Vec<u8>, family: Family, hops: &[Via]) {
    let start = datagram.len();
    datagram.extend([0; 4]);
    for via in hops {
        let hop = datagram.len();
        datagram.extend([0; 4]);
        datagram.extend(via.ifindex.to_ne_bytes());
        gateway(datagram, family, via.gateway);
        close(datagram, hop);
    }
    close(datagram, start);
    datagram[start + 2..start + 4].copy_from_slice(&RTA_MULTIPATH.to_ne_bytes());
}

/// Writes the length of what began at `start`.
fn close(datagram: &mut [u8], start: usize) {
    let length = u16::try_from(datagram.len() - start).expect("as many next hops as u8 counts");
    datagram[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

fn gateway(datagram: &mut Vec<u8>, family: Family, gateway: Option<IpAddr>) {
    let Some(gateway) = gateway else { return };
    let own = octets(&gateway);
    if Family::of(gateway) == family {
        attribute(datagram, RTA_GATEWAY, own.as_ref());
    } else {
        let of = u16::from(number(Family::of(gateway)));
        attribute(datagram, RTA_VIA, &[&of.to_ne_bytes(), own.as_ref()].concat());
    }
}

fn attribute(datagram: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("values here are short");
    datagram.extend(length.to_ne_bytes());
    datagram.extend(kind.to_ne_bytes());
    datagram.extend(value);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn word(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The octets of an address, on the stack.
fn octets(address: &IpAddr) -> impl AsRef<[u8]> + use<> {
    struct Octets([u8; 16], usize);
    impl AsRef<[u8]> for Octets {
        fn as_ref(&self) -> &[u8] {
            &self.0[..self.1]
        }
    }
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            Octets(octets, 4)
        }
        IpAddr::V6(address) => Octets(address.octets(), 16),
    }
}

/// Asks for the routes of one family in a table; protocol 0 asks for everybody's.
fn get_routes(family: Family, table: u32, protocol: u8) -> Message {
    let mut about = RouteMessage::default();
    about.header.address_family = word(family);
    about.header.protocol = protocol.into();
    about.attributes = vec![RouteAttribute::Table(table)];
    request(RouteNetlinkMessage::GetRoute(about), 0)
}

/// A route as the kernel tells it.
#[derive(Debug)]
struct Told {
    dst: Prefix,
    metric: u32,
    protocol: u8,
    kind: RouteType,
    via: Vec<Via>,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
fn read(message: &RouteNetlinkMessage, table: u32) -> Option<Told> {
    let RouteNetlinkMessage::NewRoute(about) = message else { return None };
    let header = &about.header;
    let family = Family::BOTH.into_iter().find(|family| word(*family) == header.address_family)?;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let dst = family.default_route();
    let mut told =
        Told { dst, metric: 0, protocol: header.protocol.into(), kind: header.kind, via: Vec::new() };
    let (mut found, mut ifindex, mut gateway) = (u32::from(header.table), None, None);
    for attribute in &about.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => {
                told.dst = Prefix::containing(ip(dst)?, header.destination_prefix_length);
            }
            RouteAttribute::Table(number) => found = *number,
            RouteAttribute::Priority(metric) => told.metric = *metric,
            RouteAttribute::Oif(number) => ifindex = Some(*number),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = gateway_of(attribute),
            RouteAttribute::MultiPath(hops) => {
                let usable = |flags: RouteNextHopFlags| {
                    !flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)
                };
                told.via.extend(hops.iter().filter(|hop| usable(hop.flags)).map(|hop| Via {
                    ifindex: hop.interface_index,
                    gateway: hop.attributes.iter().find_map(gateway_of),
                }));
            }
            _ => {}
        }
    }
    let usable = !header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    told.via.extend(ifindex.filter(|_| usable).map(|ifindex| Via { ifindex, gateway }));
    told.via.sort_unstable();
    // A destination that was not understood is not the default one.
    (found == table && told.dst.len() == header.destination_prefix_length).then_some(told)
}

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

/// A rule of ours.
fn rule(family: Family, priority: u32, table: u32, suppressed: Option<u32>) -> Message {
    let mut about = RuleMessage::default();
    about.header.family = word(family);
    about.header.action = RuleAction::ToTable;
    about.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(PROTOCOL.into()),
    ];
    about.attributes.extend(suppressed.map(RuleAttribute::SuppressPrefixLen));
    request(RouteNetlinkMessage::NewRule(about), NLM_F_CREATE | NLM_F_EXCL)
}

impl Host {
    pub(crate) async fn put_learned_rules(&self, table: u32) -> Result<(), KernelError> {
        self.job(move |socket| {
            let main = u32::from(RouteHeader::RT_TABLE_MAIN);
            for family in Family::BOTH {
                let rules =
                    vec![rule(family, PRIORITY, main, Some(0)), rule(family, PRIORITY + 1, table, None)];
                for answered in socket.exchange(rules)? {
                    let fine = [Errno::EXIST, Errno::AFNOSUPPORT].map(Errno::raw_os_error);
                    match answered {
                        Err(refused) if !fine.contains(&refused.errno) => return Err(refused.into()),
                        Ok(_) | Err(_) => {}
                    }
                }
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn learned_routes(
        &self,
        table: u32,
    ) -> Result<BTreeMap<Prefix, Option<LearnedRoute>>, KernelError> {
        let told = self.job(move |socket| routes(socket, table, PROTOCOL, |_| true)).await?;
        let route = |told: Told| {
            let is_discard = told.kind == RouteType::BlackHole;
            let is_via = told.kind == RouteType::Unicast && !told.via.is_empty();
            let route = if is_discard { LearnedRoute::Discard } else { LearnedRoute::Via(told.via) };
            (told.metric == METRIC && (is_discard || is_via)).then_some(route)
        };
        Ok(told.into_iter().map(|told| (told.dst, route(told))).collect())
    }

    pub(crate) async fn write_learned(
        &self,
        table: u32,
        bulk: Option<Bulk>,
        writes: Vec<Write>,
    ) -> Result<(Bulk, Vec<(Prefix, KernelError)>), KernelError> {
        let namespace = self.namespace.clone();
        let work = move || {
            let mut bulk = bulk.map_or_else(|| Bulk::open_in(&namespace), Ok)?;
            let refused = bulk.write(table, &writes)?;
            let refused = refused.into_iter().map(|(at, why)| (writes[at].prefix, why.into()));
            Ok((bulk, refused.collect()))
        };
        let written: Talk<_> = on_own_thread(work).await;
        written.map_err(|error| error.at(&Place::Host))
    }

    pub(crate) async fn surroundings(
        &self,
        addresses: BTreeSet<IpAddr>,
    ) -> Result<Surroundings, KernelError> {
        self.job(move |socket| {
            let main = u32::from(RouteHeader::RT_TABLE_MAIN);
            let wanted = |told: &Told| {
                told.protocol != PROTOCOL && addresses.iter().any(|address| told.dst.contains(*address))
            };
            let ways = routes(socket, main, 0, wanted)?.into_iter().map(|told| {
                let via = if told.kind == RouteType::Unicast { told.via } else { Vec::new() };
                WayOut { dst: told.dst, metric: told.metric, via }
            });
            let carriers = socket.dump(&link::get_all(), |message| {
                let RouteNetlinkMessage::NewLink(about) = message else { return None };
                let carries = about.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
                carries.then_some(about.header.index)
            })??;
            let own = super::addresses(socket, 0)?.into_iter().map(|told| told.address.ip());
            Ok(Surroundings::new(ways.collect(), carriers.into_iter().collect(), own.collect()))
        })
        .await
    }

    /// Runs a job with a socket of the host.
    async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut socket::Socket) -> Talk<T> + Send + 'static,
    ) -> Result<T, KernelError> {
        let host = self.clone();
        let job = tokio::task::spawn_blocking(move || host.with(work));
        let result = job.await.unwrap_or_else(|error| Err(io::Error::other(error).into()));
        result.map_err(|error| error.at(&Place::Host))
    }

    pub(crate) async fn listen_for_learned(&self) -> Result<Listening, KernelError> {
        let namespace = self.namespace.clone();
        let opened: Talk<Listener> = on_own_thread(move || {
            let listener = Listener::open_in(&namespace, &GROUPS)?;
            SockRef::from(&listener).attach_filter(&but_learned())?;
            Ok(listener)
        })
        .await;
        let listening = opened.and_then(|listener| Ok(listener.listen()?));
        Ok(Listening(listening.map_err(|error| error.at(&Place::Host))?))
    }
}

fn routes(
    socket: &mut socket::Socket,
    table: u32,
    protocol: u8,
    wanted: impl Fn(&Told) -> bool,
) -> Talk<Vec<Told>> {
    let mut routes = Vec::new();
    for family in Family::BOTH {
        let read = |message: &_| read(message, table).filter(&wanted);
        // A table that never had a route is refused; so is a family that the kernel does not know.
        if let Ok(told) = socket.dump(&get_routes(family, table, protocol), read)? {
            routes.extend(told);
        }
    }
    Ok(routes)
}

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// A socket filter that leaves out notices of learned routes: of a full table there is one for every route, and
/// whoever wrote them knows.
fn but_learned() -> [SockFilter; 7] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // The filter reads in the order of the network, the kernel wrote in its own.
    let kind = |kind: u16| u32::from(kind.to_be());
    let protocol = u32::try_from(HEADER + 5).expect("small");
    [
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_EQUAL, 1, 0, kind(RTM_NEWROUTE)),
        SockFilter::new(JUMP_EQUAL, 0, 2, kind(RTM_DELROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, protocol),
        SockFilter::new(JUMP_EQUAL, 1, 0, PROTOCOL.into()),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Hears of changes that concern next hops.
#[derive(Debug)]
pub(crate) struct Listening(socket::Listening);

impl Listening {
    pub(crate) async fn next(&mut self) -> Result<(), KernelError> {
        // Lost notices are a reason to look, too.
        let heard = self.0.receive(|_| ()).await;
        heard.map(drop).map_err(|cause| KernelError::Socket { place: Place::Host, cause })
    }
}

#[cfg(test)]
mod tests;
