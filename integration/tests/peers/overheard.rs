// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rhumb_model::Prefix;
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket, sockopt};

use super::Net;

const PORT: [u8; 2] = 179_u16.to_be_bytes();
/// Room in bytes for all that passes while a test does not look.
const ROOM: usize = 256 << 20;
/// GRACEFUL_SHUTDOWN (RFC 8326 §5).
const SHUTDOWN: [u8; 4] = [0xff, 0xff, 0, 0];

/// What somebody said in a BGP session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    /// This is reached, but others are to be preferred.
    Shun(Prefix),
    /// This is reached.
    Reach(Prefix),
    /// This is not reached any more.
    Withdraw(Prefix),
    /// A NOTIFICATION: code, subcode, and what follows, as far as it is text.
    End(u8, u8, String),
}

/// The frames of a namespace, of which BGP sessions are read.
pub(crate) struct Overheard(OwnedFd);

impl Overheard {
    /// Begins to listen on all links of a namespace.
    pub(crate) fn begin(net: &Net, namespace: &str) -> Self {
        let open = || Ok(socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL))?);
        let socket = net.namespace(namespace).run(open).expect("these tests need root");
        sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).expect("set");
        Self(socket)
    }

    /// What each of these addresses has said since, in its order.
    pub(crate) fn take(&self, from: &[IpAddr]) -> BTreeMap<IpAddr, Vec<Said>> {
        let mut streams: BTreeMap<(IpAddr, u16), Stream> = BTreeMap::new();
        let mut buffer = vec![0; 1 << 17];
        while let Ok((length, _)) = recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
            if let Some(segment) = segment(&buffer[..length]).filter(|it| from.contains(&it.from)) {
                streams.entry((segment.from, segment.port)).or_default().take(&segment);
            }
        }
        let mut said: BTreeMap<IpAddr, Vec<Said>> = BTreeMap::new();
        for ((address, _), stream) in streams {
            said.entry(address).or_default().extend(messages(&stream.octets));
        }
        said
    }
}

/// A segment of a BGP session.
struct Segment<'a> {
    from: IpAddr,
    /// The port of the two that is not BGP's.
    port: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let ip = frame.get(14..)?;
    let (from, protocol, header, length) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let from = <[u8; 4]>::try_from(ip.get(12..16)?).ok()?;
            let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            (IpAddr::from(from), ip[9], usize::from(ip[0] & 15) * 4, length)
        }
        [0x86, 0xdd] => {
            let from = <[u8; 16]>::try_from(ip.get(8..24)?).ok()?;
            (IpAddr::from(from), ip[6], 40, 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])))
        }
        _ => return None,
    };
    let tcp = ip.get(header..length).filter(|_| protocol == 6)?;
    let offset = usize::from(*tcp.get(12)? >> 4) * 4;
    let (near, far) = ([tcp[0], tcp[1]], [tcp[2], tcp[3]]);
    let port = if near == PORT { far } else { near };
    let payload = tcp.get(offset..).filter(|_| near == PORT || far == PORT)?;
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    Some(Segment { from, port: u16::from_be_bytes(port), sequence, payload })
}

/// One direction of a connection.
#[derive(Default)]
struct Stream {
    next: Option<u32>,
    octets: Vec<u8>,
}

impl Stream {
    /// Nothing is lost or comes out of order on these links; what is sent once more is passed over.
    fn take(&mut self, segment: &Segment<'_>) {
        if segment.payload.is_empty() || self.next.is_some_and(|next| next != segment.sequence) {
            return;
        }
        let length = u32::try_from(segment.payload.len()).expect("short");
        self.next = Some(segment.sequence.wrapping_add(length));
        self.octets.extend_from_slice(segment.payload);
    }
}

/// The messages of a stream that begins with one (RFC 4271 §4.1).
fn messages(mut octets: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some((header, _)) = octets.split_at_checked(19) {
        assert_eq!(header[..16], [255; 16], "a message begins with its marker");
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let Some(body) = octets.get(19..length) else { break };
        match header[18] {
            2 => update(body, &mut said),
            3 => said.push(Said::End(body[0], body[1], String::from_utf8_lossy(&body[2..]).into_owned())),
            _ => {}
        }
        octets = &octets[length..];
    }
    said
}

/// An UPDATE (RFC 4271 §4.3, RFC 4760 §3, §4) of IPv4 or IPv6 unicast routes.
fn update(body: &[u8], said: &mut Vec<Said>) {
    let (gone, rest) = block(body);
    let (mut attributes, reached) = block(rest);
    let mut withdrawn = prefixes(gone, false);
    let mut announced = prefixes(reached, false);
    let mut shunned = false;
    while let [flags, kind, first, rest @ ..] = attributes {
        let long = flags & 0x10 != 0;
        let (length, rest) = match (long, rest) {
            (true, [second, rest @ ..]) => (usize::from(u16::from_be_bytes([*first, *second])), rest),
            _ => (usize::from(*first), rest),
        };
        let (value, rest) = rest.split_at(length);
        match kind {
            8 => shunned = value.chunks(4).any(|community| community == SHUTDOWN),
            14 => {
                let hops = 4 + usize::from(value[3]);
                announced.extend(prefixes(&value[hops + 1..], value[1] == 2));
            }
            15 => withdrawn.extend(prefixes(&value[3..], value[1] == 2)),
            _ => {}
        }
        attributes = rest;
    }
    said.extend(withdrawn.into_iter().map(Said::Withdraw));
    said.extend(announced.into_iter().map(if shunned { Said::Shun } else { Said::Reach }));
}

/// Octets behind their length, and what follows.
fn block(octets: &[u8]) -> (&[u8], &[u8]) {
    octets[2..].split_at(usize::from(u16::from_be_bytes([octets[0], octets[1]])))
}

fn prefixes(mut octets: &[u8], v6: bool) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    while let [length, rest @ ..] = octets {
        let (significant, rest) = rest.split_at(usize::from(length.div_ceil(8)));
        let mut address = [0; 16];
        address[..significant.len()].copy_from_slice(significant);
        let [a, b, c, d, ..] = address;
        let address = if v6 { Ipv6Addr::from(address).into() } else { Ipv4Addr::from([a, b, c, d]).into() };
        prefixes.push(Prefix::containing(address, *length));
        octets = rest;
    }
    prefixes
}
