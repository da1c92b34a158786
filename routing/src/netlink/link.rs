// SPDX-License-Identifier: Apache-2.0
//! Links and namespace numbers as messages (linux/if_link.h, linux/veth.h, linux/net_namespace.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use rhumb_model::{IfName, MacAddr};

use super::wire::{NLM_F_CREATE, NLM_F_EXCL, Request, attributes, attributes_after, text, u32_at};
use crate::kernel::{Link, Pair, Peer};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_GETNSID: u16 = 90;

const HEAD: usize = 16;
const IFF_UP: u32 = 1;
const AF_UNSPEC: u8 = 0;
const AF_INET6: u16 = 10;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

fn head(ifindex: u32, up: Option<bool>) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    if let Some(up) = up {
        head[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
        head[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    head
}

/// Asks for all links.
pub(crate) fn get_all() -> Request {
    Request::new(RTM_GETLINK, 0, &head(0, None)).with_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

/// Asks for the link of this name.
pub(crate) fn get_by_name(name: &IfName) -> Request {
    get_all().with_text(IFLA_IFNAME, name.as_str())
}

/// Asks for the link with this index.
pub(crate) fn get_by_index(ifindex: u32) -> Request {
    Request::new(RTM_GETLINK, 0, &head(ifindex, None)).with_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

/// Makes a pair whose host's end gets this index; both ends stay down (the pod's end cannot be up before its peer is
/// there).
pub(crate) fn create_pair(pair: &Pair, ifindex: u32, namespace: BorrowedFd<'_>) -> Request {
    let fd = namespace.as_raw_fd().cast_unsigned();
    Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head(ifindex, None))
        .with_text(IFLA_IFNAME, pair.host.as_str())
        .with_u32(IFLA_MTU, pair.mtu)
        .with(IFLA_ADDRESS, &pair.host_mac.octets())
        .nest(IFLA_LINKINFO, |info| {
            info.with(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |data| {
                data.nest_after(VETH_INFO_PEER, &head(0, None), |peer| {
                    peer.with_text(IFLA_IFNAME, pair.key.ifname.as_str())
                        .with_u32(IFLA_MTU, pair.mtu)
                        .with(IFLA_ADDRESS, &pair.mac.octets())
                        .with_u32(IFLA_NET_NS_FD, fd)
                })
            })
        })
}

/// Marks the link as ours, keeps the kernel from giving it a link-local address of its own, and switches it on.
pub(crate) fn adopt(ifindex: u32, alias: &str) -> Request {
    Request::new(RTM_SETLINK, 0, &head(ifindex, Some(true)))
        .with(IFLA_IFALIAS, alias.as_bytes())
        .nest(IFLA_AF_SPEC, |spec| {
            spec.nest(AF_INET6, |v6| v6.with(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]))
        })
}

/// Changes what is `Some`, and switches the link on.
pub(crate) fn set(ifindex: u32, mac: Option<MacAddr>, mtu: Option<u32>) -> Request {
    let mut request = Request::new(RTM_SETLINK, 0, &head(ifindex, Some(true)));
    if let Some(mac) = mac {
        request = request.with(IFLA_ADDRESS, &mac.octets());
    }
    if let Some(mtu) = mtu {
        request = request.with_u32(IFLA_MTU, mtu);
    }
    request
}

/// Switches on the link of this name.
pub(crate) fn switch_on(name: &IfName) -> Request {
    Request::new(RTM_SETLINK, 0, &head(0, Some(true))).with_text(IFLA_IFNAME, name.as_str())
}

/// Deletes the link with this index.
pub(crate) fn delete(ifindex: u32) -> Request {
    Request::new(RTM_DELLINK, 0, &head(ifindex, None))
}

/// Puts the link into a group.
pub(crate) fn set_group(ifindex: u32, group: u32) -> Request {
    Request::new(RTM_SETLINK, 0, &head(ifindex, None)).with_u32(IFLA_GROUP, group)
}

/// Deletes all links of a group.
pub(crate) fn delete_group(group: u32) -> Request {
    Request::new(RTM_DELLINK, 0, &head(0, None)).with_u32(IFLA_GROUP, group)
}

/// Reads a link; `None` for names that no [`IfName`] can hold.
pub(crate) fn read(payload: &[u8]) -> Option<Link> {
    let ifindex = ifindex(payload)?;
    let up = u32_at(payload, 8)? & IFF_UP != 0;
    let (mut name, mut alias, mut mac, mut mtu) = (None, None, None, 0);
    let (mut peer, mut netns) = (None, None);
    for (kind, value) in attributes_after(payload, HEAD) {
        match kind {
            IFLA_IFNAME => name = text(value).and_then(|name| IfName::new(name).ok()),
            IFLA_IFALIAS => alias = text(value).map(str::to_owned),
            IFLA_ADDRESS => mac = value.try_into().ok().and_then(|octets| MacAddr::new(octets).ok()),
            IFLA_MTU => mtu = u32_at(value, 0)?,
            IFLA_LINK => peer = u32_at(value, 0),
            IFLA_LINK_NETNSID => netns = u32_at(value, 0).map(u32::cast_signed),
            _ => {}
        }
    }
    let peer = peer.filter(|peer| *peer != 0).map(|ifindex| Peer { ifindex, netns });
    Some(Link { ifindex, name: name?, alias, mac, mtu, up, peer })
}

/// The index alone.
pub(crate) fn ifindex(payload: &[u8]) -> Option<u32> {
    u32_at(payload, 4)
}

/// Whether the message is about the link itself, not about one protocol family's part of it: a link that leaves a
/// bridge is told of as deleted, too.
pub(crate) fn is_whole(payload: &[u8]) -> bool {
    payload.first() == Some(&AF_UNSPEC)
}

/// Asks which number the namespace has.
pub(crate) fn get_namespace_number(namespace: BorrowedFd<'_>) -> Request {
    Request::new(RTM_GETNSID, 0, &[0; 4]).with_u32(NETNSA_FD, namespace.as_raw_fd().cast_unsigned())
}

/// Reads the number of a namespace; `None` when it has none.
pub(crate) fn read_namespace_number(payload: &[u8]) -> Option<i32> {
    let value = attributes(payload.get(4..)?).find(|(kind, _)| *kind == NETNSA_NSID)?.1;
    u32_at(value, 0).map(u32::cast_signed).filter(|number| *number >= 0)
}
