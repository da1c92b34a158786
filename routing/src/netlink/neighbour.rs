// SPDX-License-Identifier: Apache-2.0
//! Neighbours as messages (linux/neighbour.h).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::{Message, request};
use crate::fabric::Neighbour;

/// A neighbour as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) ifindex: u32,
    pub(crate) addr: IpAddr,
    /// `None`: it was forgotten, or nobody ever asked.
    pub(crate) state: Option<Neighbour>,
}

/// Asks for all neighbours.
pub(crate) fn get_all() -> Message {
    request(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), 0)
}

/// Lets the kernel find out whether a neighbour answers: by asking at once whoever answered before, else by looking
/// for it as if a packet waited.
pub(crate) fn probe(ifindex: u32, addr: IpAddr, state: Option<Neighbour>) -> Message {
    let mut about = NeighbourMessage::default();
    about.header.ifindex = ifindex;
    let dst = match addr {
        IpAddr::V4(addr) => {
            about.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(addr)
        }
        IpAddr::V6(addr) => {
            about.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(addr)
        }
    };
    about.attributes.push(NeighbourAttribute::Destination(dst));
    let flags = match state {
        Some(Neighbour::Known | Neighbour::Confirmed) => {
            about.header.state = NeighbourState::Probe;
            NLM_F_REPLACE
        }
        Some(Neighbour::Asked | Neighbour::Failed) | None => {
            about.header.flags = NeighbourFlags::Use;
            NLM_F_CREATE
        }
    };
    request(RouteNetlinkMessage::NewNeighbour(about), flags)
}

/// Reads a neighbour, also one that is forgotten.
pub(crate) fn read(message: &RouteNetlinkMessage) -> Option<Told> {
    let (RouteNetlinkMessage::NewNeighbour(about) | RouteNetlinkMessage::DelNeighbour(about)) = message
    else {
        return None;
    };
    let state = match about.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => {
            Some(Neighbour::Confirmed)
        }
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Some(Neighbour::Known),
        NeighbourState::Incomplete => Some(Neighbour::Asked),
        NeighbourState::Failed => Some(Neighbour::Failed),
        NeighbourState::None | NeighbourState::Other(_) | _ => None,
    };
    let forgotten = matches!(message, RouteNetlinkMessage::DelNeighbour(_));
    let addr = about.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::Destination(addr) = attribute { ip(addr) } else { None }
    })?;
    Some(Told { ifindex: about.header.ifindex, addr, state: state.filter(|_| !forgotten) })
}

fn ip(addr: &NeighbourAddress) -> Option<IpAddr> {
    match addr {
        NeighbourAddress::Inet(addr) => Some((*addr).into()),
        NeighbourAddress::Inet6(addr) => Some((*addr).into()),
        NeighbourAddress::Other(_) | _ => None,
    }
}
