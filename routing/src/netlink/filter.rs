// SPDX-License-Identifier: Apache-2.0
//! BPF programs at links as filters of `clsact` (linux/pkt_sched.h, linux/pkt_cls.h).
//!
//! On a link with the older `ingress` in its place the kernel takes both hooks for ingress. So nothing is asked of an
//! egress hook before it is known that the link has a `clsact`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rhumb_model::IfName;
use rustix::io::Errno;

use super::message::{Message, request};
use super::socket::{Refused, Socket};
use super::{Talk, link, names, qdisc};
use crate::kernel::{FilterFound, Hook, KernelError, Link, NewFilter, Place};

/// "rh" as the priority and as the handle: by these, and the name, ours are known.
const PRIORITY: u16 = 0x7268;
const HANDLE: TcHandle = TcHandle { major: 0, minor: 0x7268 };
const NAME: &str = "rhumb";
const ETH_P_ALL: u16 = 3;
const CLSACT: &str = "clsact";
const INGRESS: &str = "ingress";
/// The handle of whatever is at [`TcHandle::CLSACT`].
const CLASSIFIER: TcHandle = TcHandle { major: u16::MAX, minor: 0 };

/// All filters of ours.
pub(super) fn all(socket: &mut Socket) -> Talk<Vec<FilterFound>> {
    let classifiers = socket.dump(&qdisc::get_all(), read_classifier)??;
    if classifiers.is_empty() {
        return Ok(Vec::new());
    }
    let names = names(socket)?;
    let hooks: Vec<_> = classifiers
        .iter()
        .flat_map(|(ifindex, hooks)| hooks.iter().map(|hook| (*ifindex, *hook)))
        .filter_map(|(ifindex, hook)| Some((names.get(&ifindex)?.clone(), ifindex, hook)))
        .collect();
    let answered = socket.exchange(hooks.iter().map(|(_, ifindex, hook)| get(*ifindex, *hook)).collect())?;
    let mut found = Vec::new();
    for ((ifname, ifindex, hook), answered) in hooks.into_iter().zip(answered) {
        match answered {
            Ok(objects) => found.extend(objects.iter().find_map(read_program).map(|program| FilterFound {
                ifname,
                ifindex,
                hook,
                program,
            })),
            Err(refused) if is_of_others(&refused) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(found)
}

/// Puts filters, one result each.
pub(super) fn put_all(socket: &mut Socket, filters: &[NewFilter]) -> Talk<Vec<Result<(), KernelError>>> {
    let indices: BTreeSet<u32> = filters.iter().map(|filter| filter.ifindex).collect();
    let links = find_all(socket, indices.iter().map(|ifindex| link::get_by_index(*ifindex)).collect())?;
    let links: BTreeMap<u32, IfName> = links.into_iter().map(|link| (link.ifindex, link.name)).collect();
    let is_there = |filter: &NewFilter| links.get(&filter.ifindex) == Some(&filter.ifname);
    let indices = filters.iter().filter(|filter| is_there(filter)).map(|filter| filter.ifindex).collect();
    let classifiers = classifiers(socket, indices, NLM_F_CREATE)?;
    let request = |filter: &NewFilter| {
        let no_link = || KernelError::NoLink { ifname: filter.ifname.clone(), place: Place::Host };
        let classifier = classifiers.get(&filter.ifindex).filter(|_| is_there(filter));
        match classifier.ok_or_else(no_link)? {
            // What an `ingress` has room for.
            Err(refused) if is_invalid(refused) && filter.hook == Hook::Ingress => {}
            Err(refused) if is_invalid(refused) => {
                return Err(with_errno(refused.clone(), Errno::EXIST).into());
            }
            Err(refused) => return Err(refused.clone().into()),
            Ok(()) => {}
        }
        Ok(put(filter))
    };
    each(socket, filters, request, KernelError::from)
}

/// Removes filters of ours, one result each.
pub(super) fn remove_all(
    socket: &mut Socket,
    hooks: &[(IfName, Hook)],
) -> Talk<Vec<Result<(), KernelError>>> {
    let names: BTreeSet<&IfName> = hooks.iter().map(|(ifname, _)| ifname).collect();
    let links = find_all(socket, names.into_iter().map(link::get_by_name).collect())?;
    let links: BTreeMap<IfName, u32> = links.into_iter().map(|link| (link.name, link.ifindex)).collect();
    let egress = hooks.iter().filter(|(_, hook)| *hook == Hook::Egress);
    let egress = egress.filter_map(|(ifname, _)| links.get(ifname).copied()).collect();
    let classifiers = classifiers(socket, egress, 0)?;
    let absent =
        |refused: Refused| if is_of_others(&refused) { with_errno(refused, Errno::NOENT) } else { refused };
    let request = |(ifname, hook): &(IfName, Hook)| {
        let no_link = || KernelError::NoLink { ifname: ifname.clone(), place: Place::Host };
        let ifindex = *links.get(ifname).ok_or_else(no_link)?;
        if let (Hook::Egress, Some(Err(refused))) = (hook, classifiers.get(&ifindex)) {
            return Err(absent(refused.clone()).into());
        }
        Ok(request(RouteNetlinkMessage::DelTrafficFilter(about(ifindex, *hook)), 0))
    };
    each(socket, hooks, request, |refused| absent(refused).into())
}

/// One request per item where there is one to make, one result per item.
fn each<T>(
    socket: &mut Socket,
    items: &[T],
    request: impl Fn(&T) -> Result<Message, KernelError>,
    meant: impl Fn(Refused) -> KernelError,
) -> Talk<Vec<Result<(), KernelError>>> {
    let mut requests = Vec::with_capacity(items.len());
    let asked: Vec<Result<(), KernelError>> =
        items.iter().map(|item| request(item).map(|request| requests.push(request))).collect();
    let mut answered = socket.exchange(requests)?.into_iter();
    let result = |asked: Result<(), KernelError>| {
        asked?;
        answered.next().expect("one answer per request").map(drop).map_err(&meant)
    };
    Ok(asked.into_iter().map(result).collect())
}

/// Those of the links asked for that are there.
fn find_all(socket: &mut Socket, requests: Vec<Message>) -> Talk<Vec<Link>> {
    let mut links = Vec::with_capacity(requests.len());
    for answered in socket.exchange(requests)? {
        match answered {
            Ok(objects) => links.extend(objects.iter().find_map(link::read)),
            Err(refused) if KernelError::from(refused.clone()).is_absent() => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Ok(links)
}

/// Whether each of these links has a `clsact`; made where there is nothing, if `flags` say so. Without the flags for
/// "replace" and "exclusive" the kernel takes one that is there for what was asked for, and calls another kind
/// invalid.
fn classifiers(
    socket: &mut Socket,
    links: BTreeSet<u32>,
    flags: u16,
) -> Talk<BTreeMap<u32, Result<(), Refused>>> {
    let answered = socket.exchange(links.iter().map(|ifindex| clsact(*ifindex, flags)).collect())?;
    Ok(links.into_iter().zip(answered.into_iter().map(|answered| answered.map(drop))).collect())
}

fn is_invalid(refused: &Refused) -> bool {
    refused.errno == Errno::INVAL.raw_os_error()
}

/// Whether the refusal to a request for a filter of ours says that others are where it could be: another kind of
/// queueing discipline or of filter, or filters shared with other links. Or nothing.
fn is_of_others(refused: &Refused) -> bool {
    is_invalid(refused)
        || refused.errno == Errno::OPNOTSUPP.raw_os_error()
        || KernelError::from(refused.clone()).is_absent()
}

fn with_errno(refused: Refused, errno: Errno) -> Refused {
    Refused { errno: errno.raw_os_error(), ..refused }
}

pub(super) fn clsact(ifindex: u32, flags: u16) -> Message {
    let mut about = TcMessage::with_index(ifindex.cast_signed());
    about.header.handle = CLASSIFIER;
    about.header.parent = TcHandle::CLSACT;
    about.attributes = vec![TcAttribute::Kind(CLSACT.to_owned())];
    request(RouteNetlinkMessage::NewQueueDiscipline(about), flags)
}

fn get(ifindex: u32, hook: Hook) -> Message {
    request(RouteNetlinkMessage::GetTrafficFilter(about(ifindex, hook)), 0)
}

/// Describes our filter at a hook.
fn about(ifindex: u32, hook: Hook) -> TcMessage {
    let minor = match hook {
        Hook::Ingress => TcHandle::MIN_INGRESS,
        Hook::Egress => TcHandle::MIN_EGRESS,
    };
    let mut about = TcMessage::with_index(ifindex.cast_signed());
    about.header.handle = HANDLE;
    about.header.parent = TcHandle { major: u16::MAX, minor };
    about.header.info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    about.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
    about
}

fn put(filter: &NewFilter) -> Message {
    let mut about = about(filter.ifindex, filter.hook);
    let options = [
        TcFilterBpfOption::ProgFd(filter.fd.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(NAME.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    about.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).into()));
    request(RouteNetlinkMessage::NewTrafficFilter(about), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Reads which hooks a link has filters at, if the message is about where they are.
pub(super) fn read_classifier(message: &RouteNetlinkMessage) -> Option<(u32, &'static [Hook])> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    if message.header.parent != TcHandle::CLSACT {
        return None;
    }
    let hooks: &[Hook] = match kind(message)? {
        CLSACT => &[Hook::Ingress, Hook::Egress],
        INGRESS => &[Hook::Ingress],
        _ => return None,
    };
    Some((message.header.index.cast_unsigned(), hooks))
}

/// Reads the kernel's number of the program of a filter of ours; `None` for anything else.
pub(super) fn read_program(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    if kind(message)? != TcFilterBpf::KIND || message.header.handle != HANDLE {
        return None;
    }
    let options = || {
        let lists = message.attributes.iter().filter_map(|attribute| {
            if let TcAttribute::Options(options) = attribute { Some(options) } else { None }
        });
        lists.flatten()
    };
    let is_name = |option: &TcOption| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name == NAME);
    let id = |option: &TcOption| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option { Some(*id) } else { None }
    };
    options().any(is_name).then(|| options().find_map(id))?
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Kind(kind) = attribute { Some(kind.as_str()) } else { None }
    })
}
