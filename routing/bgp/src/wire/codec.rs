// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::Arc;

use bgpkit_parser::models::{
    AsnLength, BgpError, BgpMessage, BgpNotificationMessage, BgpRouteRefreshMessage,
};
use bytes::{Bytes, BytesMut};
use rhumb_model::Family;

use super::header::{self, HEADER, Kind, STANDARD};
use super::octets::{octet, short};
use super::{
    Attributes, EncodeError, Message, Negotiated, NextHop, Nlri, Notification, RefreshKind, RouteRefresh,
    decode, encode, family, open,
};

/// Octets to messages and back, as one session speaks them.
///
/// A connection begins with [`Codec::opening`]; once both OPENs are known, [`Codec::new`] takes over, on the same buffer.
#[derive(Debug, Clone)]
pub struct Codec {
    /// `None` before the OPENs were exchanged.
    session: Option<Negotiated>,
    /// Families that are ignored since their routes could not be read (RFC 7606 §2).
    disabled: BTreeSet<Family>,
}

impl Codec {
    /// The codec of a connection whose OPENs are still to come.
    pub fn opening() -> Self {
        Codec { session: None, disabled: BTreeSet::new() }
    }

    /// The codec of a session.
    pub fn new(session: &Negotiated) -> Self {
        Codec { session: Some(session.clone()), disabled: BTreeSet::new() }
    }

    /// Longest message that may be sent or received, in octets.
    pub fn maximum(&self) -> usize {
        self.session.as_ref().map_or(STANDARD, Negotiated::maximum)
    }

    /// Takes the next message from the front of `buffer`; `None` until one is whole. Messages that a speaker has to ignore
    /// are skipped: refreshes of families that are not on the session, and marks of refreshes that were not negotiated
    /// (RFC 2918 §4, RFC 7313 §5).
    ///
    /// # Errors
    /// What the peer is to be told before the connection is closed; nothing more can be read from it.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, Notification> {
        while let Some((kind, whole)) = header::parse(buffer, self.maximum())? {
            if buffer.len() < whole {
                return Ok(None);
            }
            let message = buffer.split_to(whole);
            if let Some(message) = self.message(kind, &message)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn message(&mut self, kind: Kind, message: &[u8]) -> Result<Option<Message>, Notification> {
        let body = &message[HEADER..];
        match (kind, &self.session) {
            (Kind::Open, _) => Ok(Some(Message::Open(open::decode(body)?))),
            (Kind::Notification, _) => {
                let [code, subcode, data @ ..] = body else { return Ok(None) };
                let notification = Notification { code: *code, subcode: *subcode, data: data.to_vec() };
                Ok(Some(Message::Notification(notification)))
            }
            (Kind::Keepalive, _) => Ok(Some(Message::Keepalive)),
            (Kind::Update | Kind::RouteRefresh, None) => {
                Err(Notification::unexpected_in_open_sent(kind as u8))
            }
            (Kind::Update, Some(session)) => {
                Ok(Some(Message::Update(decode::update(session, &mut self.disabled, body)?)))
            }
            (Kind::RouteRefresh, Some(session)) => Ok(refresh(session, message)?.map(Message::RouteRefresh)),
        }
    }

    /// The octets of a message: one message, or as many as an UPDATE needs.
    ///
    /// # Errors
    /// As [`Codec::encode_update`]; other messages than UPDATE have none.
    pub fn encode(&self, message: &Message) -> Result<Vec<Bytes>, EncodeError> {
        let message = match message {
            Message::Update(update) => {
                let mut messages = Vec::new();
                for withdrawn in &update.withdrawn {
                    messages.extend(match withdrawn.nlri.as_slice() {
                        [] => self.encode_end_of_rib(withdrawn.family),
                        nlri => self.encode_withdraw(withdrawn.family, nlri),
                    });
                }
                for reach in &update.reach {
                    let attributes = update.attributes.clone().unwrap_or_default();
                    messages.extend(self.encode_update(&attributes, &reach.next_hop, &reach.nlri)?);
                }
                return Ok(messages);
            }
            Message::Open(message) => open::encode(message),
            Message::Notification(message) => BgpMessage::Notification(BgpNotificationMessage {
                error: BgpError::new(message.code, message.subcode),
                data: message.data[..message.data.len().min(self.maximum() - HEADER - 2)].to_vec(),
            }),
            Message::Keepalive => BgpMessage::KeepAlive,
            Message::RouteRefresh(message) => {
                let [high, low, subtype, safi] = family::octets(message.family, message.kind as u8);
                let afi = u16::from_be_bytes([high, low]);
                BgpMessage::RouteRefresh(BgpRouteRefreshMessage { afi, subtype, safi, data: Vec::new() })
            }
        };
        Ok(vec![
            message
                .encode(AsnLength::Bits32)
                .expect("values of these messages have bounds within the wire's"),
        ])
    }

    /// Messages that announce the destinations, filled to the longest that is allowed; none for a family that is not on the
    /// session. To internal peers LOCAL_PREF is always sent, to external ones never, nor are ORIGINATOR_ID and CLUSTER_LIST.
    ///
    /// # Errors
    /// [`EncodeError`] where the peer cannot be told of these routes; what it was told of them before is to be withdrawn.
    pub fn encode_update(
        &self,
        attributes: &Arc<Attributes>,
        next_hop: &NextHop,
        nlri: &[Nlri],
    ) -> Result<Vec<Bytes>, EncodeError> {
        let mut messages = Vec::new();
        for part in nlri.chunk_by(|one, next| one.prefix.family() == next.prefix.family()) {
            let family = part[0].prefix.family();
            if let Some(session) = self.speaking(family) {
                messages.append(&mut encode::announce(session, attributes, *next_hop, family, part)?);
            }
        }
        Ok(messages)
    }

    /// Messages that withdraw the destinations, all of `family`; none for a family that is not on the session.
    pub fn encode_withdraw(&self, family: Family, nlri: &[Nlri]) -> Vec<Bytes> {
        match self.speaking(family) {
            Some(session) if !nlri.is_empty() => encode::withdraw(session, family, nlri),
            Some(_) | None => Vec::new(),
        }
    }

    /// The End-of-RIB of a family (RFC 4724 §2); none for a family that is not on the session.
    pub fn encode_end_of_rib(&self, family: Family) -> Vec<Bytes> {
        self.speaking(family).map(|session| encode::withdraw(session, family, &[])).unwrap_or_default()
    }

    fn speaking(&self, family: Family) -> Option<&Negotiated> {
        self.session.as_ref().filter(|session| session.families.contains(&family))
    }
}

/// Reads a ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2); `None` for those that are to be ignored.
fn refresh(session: &Negotiated, message: &[u8]) -> Result<Option<RouteRefresh>, Notification> {
    let input = &mut &message[HEADER..];
    let Some(((afi, subtype), safi)) = short(input).zip(octet(input)).zip(octet(input)) else {
        return Ok(None);
    };
    let kind = match subtype {
        0 => RefreshKind::Request,
        1 | 2 if !session.enhanced_route_refresh => return Ok(None),
        1 => RefreshKind::Begin,
        2 => RefreshKind::End,
        _ => return Ok(None),
    };
    if !input.is_empty() {
        return Err(match kind {
            RefreshKind::Request => {
                Notification::bad_length(u16::try_from(message.len()).expect("read from two octets"))
            }
            RefreshKind::Begin | RefreshKind::End => Notification::bad_refresh_length(message),
        });
    }
    let family = family::of(afi, safi).filter(|family| session.families.contains(family));
    Ok(family.map(|family| RouteRefresh { family, kind }))
}

#[cfg(test)]
mod tests;
