// SPDX-License-Identifier: Apache-2.0
//! VXLAN devices as messages (linux/if_link.h).

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo};
use rtnetlink::LinkVxlan;

use super::changes::free_index;
use super::message::{Message, request};
use super::socket::Socket;
use super::{Talk, link};
use crate::kernel::{NewTunnel, Tunnel};

/// Makes a device with this index, which stays down.
fn create(tunnel: &NewTunnel, ifindex: u32) -> Message {
    let device = LinkVxlan::new(tunnel.name.as_str(), 0)
        .collect_metadata(true)
        .learning(false)
        .port(tunnel.port)
        // Nodes may leave out the sum that is optional, whether this one does or not.
        .udp_zero_csum6_rx(true)
        .index(ifindex)
        .mtu(tunnel.mtu)
        .address(tunnel.mac.octets().to_vec())
        .arp(false);
    request(RouteNetlinkMessage::NewLink(device.build()), NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes a device, and marks it as ours and switches it on by the same datagram, as pairs are made.
pub(super) fn make(socket: &mut Socket, tunnel: &NewTunnel) -> Talk<u32> {
    let ifindex = free_index(socket)?;
    let mut made = socket.exchange(vec![
        create(tunnel, ifindex),
        link::mark(ifindex, &tunnel.alias),
        link::set(ifindex, None, None),
    ])?;
    let finished: Vec<_> = made.split_off(1);
    made.pop().expect("one answer per request")?;
    if let Some(refused) = finished.into_iter().find_map(Result::err) {
        // A refusal of the removal is found by the next look.
        drop(socket.ask(link::delete(ifindex))?);
        return Err(refused.into());
    }
    Ok(ifindex)
}

/// Reads a VXLAN device; `None` for other links.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "attributes that nobody here asks for are many, and more come"
)]
pub(super) fn read(message: &RouteNetlinkMessage) -> Option<Tunnel> {
    let about = link::read(message)?;
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let infos = message.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::LinkInfo(infos) = attribute { Some(infos) } else { None }
    })?;
    let vxlan = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(vxlan)) => Some(vxlan),
        _ => None,
    })?;
    let mut tunnel = Tunnel {
        ifindex: about.ifindex,
        name: about.name,
        alias: about.alias,
        mac: about.mac,
        mtu: about.mtu,
        up: about.up,
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        port: 0,
        external: false,
        learning: false,
    };
    for attribute in vxlan {
        match attribute {
            InfoVxlan::Port(port) => tunnel.port = *port,
            InfoVxlan::CollectMetadata(external) => tunnel.external = *external,
            InfoVxlan::Learning(learning) => tunnel.learning = *learning,
            _ => {}
        }
    }
    Some(tunnel)
}
