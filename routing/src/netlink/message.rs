// SPDX-License-Identifier: Apache-2.0
//! Messages to and from the kernel, and the datagrams that carry them (RFC 3549 §2.2).

use netlink_packet_core::{
    Emitable, NLA_ALIGNTO, NLM_F_REQUEST, NLMSG_ALIGNTO, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;

/// A message with its header.
pub(crate) type Message = NetlinkMessage<RouteNetlinkMessage>;

/// The longest family header; all are multiples of [`NLA_ALIGNTO`].
const LONGEST_HEADER: usize = 32;

/// Asks the kernel for something.
pub(crate) fn request(about: RouteNetlinkMessage, flags: u16) -> Message {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    Message::new(header, NetlinkPayload::InnerMessage(about))
}

/// Adds a request to a datagram under this sequence number.
pub(crate) fn append(datagram: &mut Vec<u8>, mut request: Message, flags: u16, sequence: u32) {
    request.header.flags |= flags;
    request.header.sequence_number = sequence;
    request.finalize();
    let start = datagram.len();
    datagram.resize(start + request.buffer_len(), 0);
    request.serialize(&mut datagram[start..]);
}

/// The messages of a datagram whose header is `wanted`; bytes that are no message end it, messages of unknown types
/// are left out.
pub(crate) fn messages(
    mut bytes: &[u8],
    wanted: impl Fn(&NetlinkHeader) -> bool,
) -> impl Iterator<Item = Message> {
    let each = std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(bytes).ok()?.length() as usize;
        let message = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(NLMSG_ALIGNTO.into())..).unwrap_or_default();
        Some((NetlinkHeader::parse(&NetlinkBuffer::new(message)).ok()?, message))
    });
    each.filter(move |(header, _)| wanted(header)).filter_map(|(header, message)| read(header, message))
}

/// The objects that the wanted messages of a datagram are about.
pub(crate) fn objects(
    datagram: &[u8],
    wanted: impl Fn(&NetlinkHeader) -> bool,
) -> impl Iterator<Item = RouteNetlinkMessage> {
    messages(datagram, wanted).filter_map(|message| {
        if let NetlinkPayload::InnerMessage(object) = message.payload { Some(object) } else { None }
    })
}

/// Reads a message. What it says in words that the library does not understand is left out, so that no object is
/// overlooked for something that nobody here asks for.
fn read(header: NetlinkHeader, bytes: &[u8]) -> Option<Message> {
    let error = match Message::deserialize(bytes) {
        Ok(message) => return Some(message),
        Err(error) => error,
    };
    tracing::debug!(kind = header.message_type, %error, "part of a message is not understood");
    let payload = &bytes[header.buffer_len()..];
    let parse = |payload: &[u8]| RouteNetlinkMessage::deserialize(&header, payload);
    // Without attributes an object is as long as the header of its family.
    let ends = (0..=payload.len().min(LONGEST_HEADER)).step_by(NLA_ALIGNTO);
    let end = ends.into_iter().find(|end| parse(&payload[..*end]).is_ok())?;
    let mut understood = payload[..end].to_vec();
    for attribute in NlasIterator::new(&payload[end..]).map_while(Result::ok) {
        let before = understood.len();
        understood.extend_from_slice(&attribute.into_inner()[..attribute.length().into()]);
        understood.resize(understood.len().next_multiple_of(NLA_ALIGNTO), 0);
        if parse(&understood).is_err() {
            understood.truncate(before);
        }
    }
    Some(Message::new(header, NetlinkPayload::InnerMessage(parse(&understood).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::DefaultNla;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};

    const IFLA_MTU: u16 = 4;
    const IFLA_XDP: u16 = 43;

    fn link(attributes: Vec<LinkAttribute>) -> Message {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = attributes;
        request(RouteNetlinkMessage::NewLink(link), 0)
    }

    #[test]
    fn attributes_that_are_not_understood_lose_neither_their_object_nor_the_next() {
        let name = LinkAttribute::IfName("odd".to_owned());
        let alias = LinkAttribute::IfAlias("odder".to_owned());
        let odd = |kind, value: &[u8]| LinkAttribute::Other(DefaultNla::new(kind, value.to_vec()));
        let mut datagram = Vec::new();
        let attributes =
            vec![odd(IFLA_MTU, &[1]), name.clone(), odd(IFLA_XDP, &[5, 0, 4, 0, 1]), alias.clone()];
        append(&mut datagram, link(attributes), 0, 1);
        append(&mut datagram, link(vec![]), 0, 2);
        assert!(Message::deserialize(&datagram).is_err());
        let read: Vec<_> = messages(&datagram, |_| true).map(|message| message.payload).collect();
        assert_eq!(read, [link(vec![name, alias]).payload, link(vec![]).payload]);
    }

    #[test]
    fn a_message_of_an_unknown_type_is_left_out() {
        let mut datagram = Vec::new();
        append(&mut datagram, link(vec![]), 0, 1);
        append(&mut datagram, link(vec![]), 0, 2);
        NetlinkBuffer::new(&mut datagram).set_message_type(999);
        let read: Vec<_> =
            messages(&datagram, |_| true).map(|message| message.header.sequence_number).collect();
        assert_eq!(read, [2]);
    }
}
