// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rhumb_model::Family;

use super::{Down, Message, Peer, PeerUp, Statistic, View};
use crate::wire::{Codec, Message as Bgp, Notification};

/// The version of the protocol (RFC 7854 §4.1).
const VERSION: u8 = 3;
/// Octets of the header of all messages.
const HEADER: usize = 6;

/// Flags of a peer (RFC 7854 §4.2).
const IPV6: u8 = 0x80;
const POST_POLICY: u8 = 0x40;
const TWO_OCTETS: u8 = 0x20;

/// Types of information (RFC 7854 §4.4) and of the end (§4.5).
const DESCRIPTION: u16 = 1;
const NAME: u16 = 2;
const REASON: u16 = 1;

impl Message {
    /// The octets of the message.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_bytes(0, HEADER);
        match self {
            Message::Routes { peer, at, update } => {
                put_peer(peer, *at, &mut out);
                out.put_slice(update);
            }
            Message::Statistics { peer, at, numbers } => {
                put_peer(peer, *at, &mut out);
                out.put_u32(u32::try_from(numbers.len()).expect("a few"));
                numbers.iter().for_each(|number| put_statistic(*number, &mut out));
            }
            Message::PeerDown { peer, at, reason } => {
                put_peer(peer, *at, &mut out);
                put_down(reason, &mut out);
            }
            Message::PeerUp(up) => put_up(up, &mut out),
            Message::Initiation { name, description } => {
                put_information(DESCRIPTION, description.as_bytes(), &mut out);
                put_information(NAME, name.as_bytes(), &mut out);
            }
            Message::Termination(reason) => {
                put_information(REASON, &(*reason as u16).to_be_bytes(), &mut out)
            }
        }
        let length = u32::try_from(out.len()).expect("an UPDATE and a header").to_be_bytes();
        let kind = match self {
            Message::Routes { .. } => 0,
            Message::Statistics { .. } => 1,
            Message::PeerDown { .. } => 2,
            Message::PeerUp(_) => 3,
            Message::Initiation { .. } => 4,
            Message::Termination(_) => 5,
        };
        out[..HEADER].copy_from_slice(&[VERSION, length[0], length[1], length[2], length[3], kind]);
        out.freeze()
    }
}

/// The header of all messages about a peer (RFC 7854 §4.2). Peers are all of the one instance without a distinguisher.
fn put_peer(peer: &Peer, at: Duration, out: &mut BytesMut) {
    let family = if peer.address.is_ipv6() { IPV6 } else { 0 };
    let view = match peer.view {
        View::PrePolicy => 0,
        View::PostPolicy => POST_POLICY,
    };
    let width = if peer.two_octets { TWO_OCTETS } else { 0 };
    out.put_u8(0);
    out.put_u8(family | view | width);
    out.put_u64(0);
    put_address(peer.address, out);
    out.put_u32(peer.asn.0);
    out.put_u32(peer.router_id.0);
    // The field ends in 2106.
    out.put_u32(u32::try_from(at.as_secs()).unwrap_or(u32::MAX));
    out.put_u32(at.subsec_micros());
}

/// Sixteen octets; an IPv4 address is the last four.
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_bytes(0, 12);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn put_up(up: &PeerUp, out: &mut BytesMut) {
    put_peer(&up.peer, up.at, out);
    put_address(up.local.ip(), out);
    out.put_u16(up.local.port());
    out.put_u16(up.remote_port);
    out.put_slice(&up.sent);
    out.put_slice(&up.received);
}

fn put_down(reason: &Down, out: &mut BytesMut) {
    let told = |code: u8, notification: &Notification, out: &mut BytesMut| {
        out.put_u8(code);
        put_bgp(&Bgp::Notification(notification.clone()), out);
    };
    match reason {
        Down::Told(notification) => told(1, notification, out),
        Down::Event(event) => {
            out.put_u8(2);
            out.put_u16(*event);
        }
        Down::Heard(notification) => told(3, notification, out),
        Down::Closed => out.put_u8(4),
        Down::Unconfigured => out.put_u8(5),
    }
}

/// A message of BGP as one whole, with its header.
fn put_bgp(message: &Bgp, out: &mut BytesMut) {
    let encoded = Codec::opening().encode(message).expect("others than UPDATE have no errors");
    encoded.iter().for_each(|octets| out.put_slice(octets));
}

/// Type, length, value; what is longer than a length says is cut.
fn put_information(kind: u16, value: &[u8], out: &mut BytesMut) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u16(kind);
    out.put_u16(length);
    out.put_slice(&value[..usize::from(length)]);
}

fn put_statistic(number: Statistic, out: &mut BytesMut) {
    let by_family = |family: Family, number: u64| {
        let afi = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        [&[0, afi, 1][..], &number.to_be_bytes()].concat()
    };
    match number {
        Statistic::Routes(number) => put_information(7, &number.to_be_bytes(), out),
        Statistic::RoutesOf(family, number) => put_information(9, &by_family(family, number), out),
        Statistic::TreatedAsWithdraw(number) => put_information(11, &number.to_be_bytes(), out),
    }
}

#[cfg(test)]
mod tests;
