// SPDX-License-Identifier: Apache-2.0
//! Changes over one socket: names become indices, changes become requests, answers become results.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rhumb_model::IfName;
use rustix::io::Errno;

use super::message::Message;
use super::socket::{Refused, Socket};
use super::{Break, Host, Talk, address, find, link, qdisc, route, rule};
use crate::kernel::{Change, KernelError, NextHop, PROTOCOL, Pair, Place, Route};
use crate::namespaces::{enter, in_own_thread};

/// Indices that rhumb chooses lie above those that the kernel hands out in order.
pub(super) const FIRST_INDEX: u32 = 1 << 16;
const INDEX_BITS: u32 = 24;
/// How many indices are tried before giving up; the first is free unless the machine has millions of links.
const INDEX_ATTEMPTS: usize = 8;

/// Makes changes in the namespace of `socket`, one result each.
pub(super) fn apply(
    socket: &mut Socket,
    place: &Place,
    changes: &[Change],
) -> Talk<Vec<Result<(), KernelError>>> {
    let mut known = Indices { socket, place, found: BTreeMap::new() };
    let mut requests = Vec::with_capacity(changes.len());
    let mut results: Vec<Option<Result<(), KernelError>>> = Vec::with_capacity(changes.len());
    for change in changes {
        if let (Change::AddAddress(ifname, IpNetwork::V6(_)), Place::Pod(_)) = (change, place) {
            enable_ipv6(ifname);
        }
        match request(&mut known, change)? {
            Ok(request) => {
                requests.push(request);
                results.push(None);
            }
            Err(error) => results.push(Some(Err(error))),
        }
    }
    let mut answered = socket.exchange(requests)?.into_iter();
    let mut next = |change| {
        let answer = answered.next().expect("one answer per request");
        answer.map(drop).map_err(|refused| meant(change, refused))
    };
    Ok(changes.iter().zip(results).map(|(change, result)| result.unwrap_or_else(|| next(change))).collect())
}

/// Switches IPv6 on for a link of the calling thread's namespace, where it is off (some runtimes do that in the
/// namespaces of pods, some people on hosts) and addresses are refused therefore. What a thread sees below
/// `/proc/sys/net` is of its own namespace.
fn enable_ipv6(ifname: &IfName) {
    let setting = format!("/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6");
    if std::fs::read(&setting).is_ok_and(|value| value.starts_with(b"1"))
        && let Err(error) = std::fs::write(&setting, "0")
    {
        tracing::warn!(%ifname, %error, "IPv6 stays switched off");
    }
}

/// What the kernel means by a refusal. To the removal of a queueing discipline, it calls the handle invalid when
/// another one is at the root, or the default one that has none.
fn meant(change: &Change, mut refused: Refused) -> KernelError {
    if matches!(change, Change::RemoveBucket(_)) && refused.errno == Errno::INVAL.raw_os_error() {
        refused.errno = Errno::NOENT.raw_os_error();
    }
    refused.into()
}

/// The indices of links by name, asked for once per job.
struct Indices<'a> {
    socket: &'a mut Socket,
    place: &'a Place,
    found: BTreeMap<IfName, u32>,
}

impl Indices<'_> {
    fn of(&mut self, name: &IfName) -> Talk<Result<u32, KernelError>> {
        if let Some(ifindex) = self.found.get(name) {
            return Ok(Ok(*ifindex));
        }
        let Some(link) = find(self.socket, name)? else {
            return Ok(Err(KernelError::NoLink { ifname: name.clone(), place: self.place.clone() }));
        };
        self.found.insert(name.clone(), link.ifindex);
        Ok(Ok(link.ifindex))
    }
}

fn request(known: &mut Indices<'_>, change: &Change) -> Talk<Result<Message, KernelError>> {
    Ok(match change {
        Change::SetLink { ifname, mac, mtu } => {
            known.of(ifname)?.map(|ifindex| link::set(ifindex, *mac, *mtu))
        }
        Change::AddGateway(ifname) => known.of(ifname)?.map(address::add_gateway),
        Change::AddAddress(ifname, address) => {
            known.of(ifname)?.map(|ifindex| address::add(ifindex, *address))
        }
        Change::RemoveAddress(ifname, address) => {
            known.of(ifname)?.map(|ifindex| address::remove(ifindex, *address))
        }
        Change::AddRoute(route) => {
            told(known, route)?.map(|told| route::put(&told, NLM_F_CREATE | NLM_F_EXCL))
        }
        Change::ReplaceRoute(route) => {
            told(known, route)?.map(|told| route::put(&told, NLM_F_CREATE | NLM_F_REPLACE))
        }
        Change::RemoveRoute(route) => told(known, route)?.map(|told| route::remove(&told)),
        Change::AddTableRoute(table, route) => told(known, route)?
            .map(|told| route::in_table(route::put(&told, NLM_F_CREATE | NLM_F_EXCL), *table)),
        Change::ReplaceTableRoute(table, route) => told(known, route)?
            .map(|told| route::in_table(route::put(&told, NLM_F_CREATE | NLM_F_REPLACE), *table)),
        Change::RemoveTableRoute(table, route) => {
            told(known, route)?.map(|told| route::in_table(route::remove(&told), *table))
        }
        Change::AddRule(rule) => Ok(rule::add(rule)),
        Change::RemoveRule(rule) => Ok(rule::remove(rule)),
        Change::PutBucket(ifname, bucket) => known.of(ifname)?.map(|ifindex| qdisc::put(ifindex, bucket)),
        Change::RemoveBucket(ifname) => known.of(ifname)?.map(qdisc::remove),
    })
}

fn told(known: &mut Indices<'_>, route: &Route) -> Talk<Result<route::Told, KernelError>> {
    let mut told = route::Told {
        dst: route.dst,
        metric: route.metric,
        kind: route::Kind::Unreachable,
        ifindex: None,
        gateway: None,
        onlink: false,
        mtu: route.mtu,
        source: route.source,
        protocol: PROTOCOL,
    };
    match &route.next_hop {
        NextHop::Link { ifname, gateway, onlink } => {
            told.kind = route::Kind::Unicast;
            told.gateway = *gateway;
            told.onlink = *onlink;
            if let Some(ifname) = ifname {
                match known.of(ifname)? {
                    Ok(ifindex) => told.ifindex = Some(ifindex),
                    Err(error) => return Ok(Err(error)),
                }
            }
        }
        NextHop::Unreachable => {}
        NextHop::Other => told.kind = route::Kind::Other,
    }
    Ok(Ok(told))
}

/// Makes pairs; the calling thread is in the namespace of some pod afterwards.
pub(super) fn create_pairs(
    host: &Host,
    pairs: &[(Pair, Option<Arc<OwnedFd>>)],
) -> Vec<Result<u32, KernelError>> {
    let create = |(pair, namespace): &(Pair, Option<Arc<OwnedFd>>)| {
        let namespace = namespace.as_ref().ok_or_else(|| KernelError::NotOpen { key: pair.key.clone() })?;
        let mut pod = Socket::open_in(namespace)
            .map_err(|error| Break::Socket(error).at(&Place::Pod(pair.key.clone())))?;
        let made = host.with(|socket| create_pair(socket, &mut pod, pair, namespace, &host.namespace));
        made.map_err(|error| error.at(&Place::Host))
    };
    pairs.iter().map(create).collect()
}

/// Makes a pair and marks it as ours by one datagram, which the kernel works off even if this process is killed
/// meanwhile: no end is ever left without its owner's mark. The mark's request means the new link by an index that
/// nobody else has, so that it meets nothing when the first is refused. The gateway's address comes last: where it
/// is, the pair is whole.
fn create_pair(
    host: &mut Socket,
    pod: &mut Socket,
    pair: &Pair,
    pod_namespace: &Arc<OwnedFd>,
    host_namespace: &Arc<OwnedFd>,
) -> Talk<u32> {
    let ifindex = free_index(host)?;
    let made = host.exchange(vec![
        link::create_pair(pair, ifindex, pod_namespace.as_fd()),
        link::adopt(ifindex, &pair.alias),
    ])?;
    let mut made = made.into_iter();
    made.next().expect("one answer per request")?;
    let mut finish = || -> Talk<()> {
        made.next().expect("one answer per request")?;
        let loopback = IfName::new("lo").expect("a valid name");
        for answered in pod.exchange(vec![link::switch_on(&loopback), link::switch_on(&pair.key.ifname)])? {
            answered?;
        }
        match host.ask(address::add_gateway(ifindex))? {
            Err(refused) if refused.errno == Errno::ACCESS.raw_os_error() => {
                // IPv6 is switched off for new links of this host; a pair needs it all the same.
                in_own_thread(|| enter(host_namespace).map(|()| enable_ipv6(&pair.host)))?;
                host.ask(address::add_gateway(ifindex))??;
            }
            answered => drop(answered?),
        }
        Ok(())
    };
    let finished = finish();
    if finished.is_err() {
        // A refusal of the removal is found by the next look.
        drop(host.ask(link::delete(ifindex))?);
    }
    finished.map(|()| ifindex)
}

pub(super) fn free_index(socket: &mut Socket) -> Talk<u32> {
    for attempt in 0..INDEX_ATTEMPTS {
        let random = RandomState::new().hash_one(attempt);
        let ifindex = FIRST_INDEX + u32::try_from(random >> (64 - INDEX_BITS)).expect("24 bits fit");
        match socket.ask(link::get_by_index(ifindex))? {
            Ok(_) => {}
            Err(refused) if KernelError::from(refused.clone()).is_absent() => return Ok(ifindex),
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(Break::Socket(std::io::ErrorKind::AddrInUse.into()))
}
