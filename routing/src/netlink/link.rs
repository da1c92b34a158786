// SPDX-License-Identifier: Apache-2.0
//! Links and namespace numbers as messages (linux/if_link.h, linux/veth.h, linux/net_namespace.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rhumb_model::{IfName, MacAddr};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::message::{Message, request};
use crate::kernel::{Link, Pair, Peer};

pub(crate) const RTM_DELLINK: u16 = 17;

fn get(link: LinkMessageBuilder<LinkUnspec>) -> Message {
    let link = link.append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request(RouteNetlinkMessage::GetLink(link.build()), 0)
}

fn change(link: LinkMessageBuilder<LinkUnspec>) -> Message {
    request(RouteNetlinkMessage::SetLink(link.build()), 0)
}

/// Asks for all links.
pub(crate) fn get_all() -> Message {
    get(LinkUnspec::new_with_index(0))
}

/// Asks for the link of this name.
pub(crate) fn get_by_name(name: &IfName) -> Message {
    get(LinkUnspec::new_with_name(name.as_str()))
}

/// Asks for the link with this index.
pub(crate) fn get_by_index(ifindex: u32) -> Message {
    get(LinkUnspec::new_with_index(ifindex))
}

/// Makes a pair whose host's end gets this index; both ends stay down (the pod's end cannot be up before its peer is
/// there).
pub(crate) fn create_pair(pair: &Pair, ifindex: u32, namespace: BorrowedFd<'_>) -> Message {
    let name = pair.key.ifname.as_str();
    let peer = LinkUnspec::new_with_name(name).mtu(pair.mtu).address(pair.mac.octets().to_vec());
    let peer = peer.setns_by_fd(namespace.as_raw_fd()).build();
    let host = LinkVeth::new(pair.host.as_str(), name)
        .index(ifindex)
        .mtu(pair.mtu)
        .address(pair.host_mac.octets().to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    request(RouteNetlinkMessage::NewLink(host.build()), NLM_F_CREATE | NLM_F_EXCL)
}

/// Marks the link as ours, keeps the kernel from giving it a link-local address of its own, and switches it on.
pub(crate) fn adopt(ifindex: u32, alias: &str) -> Message {
    change(marked(ifindex, alias).up())
}

/// As [`adopt`], but leaves the link switched off: one that has its carrier at once would get the address before it is
/// kept from it.
pub(crate) fn mark(ifindex: u32, alias: &str) -> Message {
    change(marked(ifindex, alias))
}

fn marked(ifindex: u32, alias: &str) -> LinkMessageBuilder<LinkUnspec> {
    let no_address = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let link = LinkUnspec::new_with_index(ifindex).alias(alias);
    link.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![no_address]))
}

/// Changes what is `Some`, and switches the link on.
pub(crate) fn set(ifindex: u32, mac: Option<MacAddr>, mtu: Option<u32>) -> Message {
    let mut link = LinkUnspec::new_with_index(ifindex).up();
    if let Some(mac) = mac {
        link = link.address(mac.octets().to_vec());
    }
    if let Some(mtu) = mtu {
        link = link.mtu(mtu);
    }
    change(link)
}

/// Switches on the link of this name.
pub(crate) fn switch_on(name: &IfName) -> Message {
    change(LinkUnspec::new_with_name(name.as_str()).up())
}

/// Deletes the link with this index.
pub(crate) fn delete(ifindex: u32) -> Message {
    request(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(ifindex).build()), 0)
}

/// Puts the link into a group.
pub(crate) fn set_group(ifindex: u32, group: u32) -> Message {
    change(LinkUnspec::new_with_index(ifindex).link_group(group))
}

/// Deletes all links of a group.
pub(crate) fn delete_group(group: u32) -> Message {
    request(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(0).link_group(group).build()), 0)
}

/// Reads a link; `None` for names that no [`IfName`] can hold.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let (mut name, mut alias, mut mac, mut mtu) = (None, None, None, 0);
    let (mut peer, mut netns) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(told) => name = IfName::new(told).ok(),
            LinkAttribute::IfAlias(told) => alias = Some(told.clone()),
            LinkAttribute::Address(told) => {
                mac = told.as_slice().try_into().ok().and_then(|octets| MacAddr::new(octets).ok());
            }
            LinkAttribute::Mtu(told) => mtu = *told,
            LinkAttribute::Link(told) => peer = Some(*told),
            LinkAttribute::LinkNetNsId(told) => netns = Some(*told),
            _ => {}
        }
    }
    let peer = peer.filter(|peer| *peer != 0).map(|ifindex| Peer { ifindex, netns });
    let up = message.header.flags.contains(LinkFlags::Up);
    Some(Link { ifindex: message.header.index, name: name?, alias, mac, mtu, up, peer })
}

/// Reads a link and the address that its hardware came with; where it has none, the address that it has.
pub(crate) fn read_hardware(message: &RouteNetlinkMessage) -> Option<(MacAddr, Link)> {
    let link = read(message)?;
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let permanent = message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::PermAddress(octets) = attribute else { return None };
        octets.as_slice().try_into().ok().and_then(|octets| MacAddr::new(octets).ok())
    });
    Some((permanent.or(link.mac)?, link))
}

/// The index of a link that was deleted. A message about one protocol family's part of a link says less: a link
/// that leaves a bridge is told of as deleted, too.
pub(crate) fn read_deleted(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::DelLink(message) = message else { return None };
    (message.header.interface_family == AddressFamily::Unspec).then_some(message.header.index)
}

/// Asks which number the namespace has.
pub(crate) fn get_namespace_number(namespace: BorrowedFd<'_>) -> Message {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned())];
    request(RouteNetlinkMessage::GetNsId(message), 0)
}

/// Reads the number of a namespace; `None` when it has none.
pub(crate) fn read_namespace_number(message: &RouteNetlinkMessage) -> Option<i32> {
    let RouteNetlinkMessage::NewNsId(message) = message else { return None };
    let number = |attribute: &NsidAttribute| {
        if let NsidAttribute::Id(number) = attribute { Some(*number) } else { None }
    };
    message.attributes.iter().find_map(number).filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;
    use crate::netlink::message::{append, objects};

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, last]).expect("an address of one station")
    }

    /// What is read of a link with these addresses, as the kernel sends it.
    fn hardware(address: &[u8], permanent: Option<&[u8]>) -> Option<(MacAddr, Option<MacAddr>)> {
        let mut link = LinkMessage::default();
        link.attributes =
            vec![LinkAttribute::IfName("eth1".to_owned()), LinkAttribute::Address(address.to_vec())];
        link.attributes.extend(permanent.map(|octets| LinkAttribute::PermAddress(octets.to_vec())));
        let mut datagram = Vec::new();
        append(&mut datagram, request(RouteNetlinkMessage::NewLink(link), 0), 0, 1);
        let told = objects(&datagram, |_| true).next().expect("one link");
        read_hardware(&told).map(|(hardware, link)| (hardware, link.mac))
    }

    #[test]
    fn a_link_is_known_by_the_address_that_its_hardware_came_with() {
        let (given, permanent) = (mac(7), mac(1));
        let told = hardware(&given.octets(), Some(&permanent.octets()));
        assert_eq!(told, Some((permanent, Some(given))), "whatever it was given since");
        assert_eq!(hardware(&given.octets(), None), Some((given, Some(given))), "no hardware behind it");
        assert_eq!(hardware(&given.octets(), Some(&[0; 6])), Some((given, Some(given))), "none that is one");
        assert_eq!(hardware(&[], Some(&permanent.octets())), Some((permanent, None)));
        assert_eq!(hardware(&[], None), None, "no Ethernet");
    }
}
