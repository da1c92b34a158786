// SPDX-License-Identifier: Apache-2.0
//! OPEN on the wire (RFC 4271 §4.2, §6.2; RFC 5492, RFC 9072). Written by bgpkit-parser, read here: a reader has to hold every
//! length against the message, and to tell the peer by code and subcode what was wrong.

use std::net::Ipv4Addr;

use bgpkit_parser::models::{BgpMessage, BgpOpenMessage, OptParam, ParamValue};

use super::octets::{array, octet, short, take, word};
use super::{Asn, Capabilities, Notification, Open, RouterId};

/// The version of the protocol that both speak (RFC 4271 §4.2).
const VERSION: u8 = 4;
/// The only optional parameter that is left: capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// In the place of a length and of a type: lengths of two octets follow (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// 2/0: a length does not fit (RFC 4271 §6.2).
fn malformed() -> Notification {
    Notification::open(0, [])
}

/// Reads the body of an OPEN.
///
/// # Errors
/// What the peer is to be told: 2/0 for lengths that do not fit, 2/1 for another version, 2/2 for AS 0 (RFC 7607) or
/// numbers that contradict each other, 2/3 for the identifier 0, 2/4 for another parameter than capabilities, 2/6 for a
/// hold time of one or two seconds.
pub(super) fn decode(mut body: &[u8]) -> Result<Open, Notification> {
    let body = &mut body;
    let version = octet(body).ok_or_else(malformed)?;
    if version != VERSION {
        return Err(Notification::open(1, u16::from(VERSION).to_be_bytes()));
    }
    let header: Option<(u16, u16, u32)> = (|| Some((short(body)?, short(body)?, word(body)?)))();
    let (asn, hold_time, router_id) = header.ok_or_else(malformed)?;
    let capabilities = parameters(body)?;
    let asn = system(Asn(asn.into()), capabilities.asn4)?;
    if router_id == 0 {
        return Err(Notification::bad_identifier());
    }
    if matches!(hold_time, 1 | 2) {
        return Err(Notification::unacceptable_hold_time());
    }
    Ok(Open { asn, hold_time, router_id: RouterId(router_id), capabilities })
}

/// The AS of the two places that tell it (RFC 6793 §4.1): the field has AS_TRANS where the number needs four octets, and
/// AS_TRANS is nobody's number.
fn system(field: Asn, capability: Option<Asn>) -> Result<Asn, Notification> {
    let asn = capability.unwrap_or(field);
    let agree = field == Asn::TRANS || field == asn;
    if asn.0 == 0 || asn == Asn::TRANS || !agree {
        return Err(Notification::bad_peer_as());
    }
    Ok(asn)
}

fn parameters(input: &mut &[u8]) -> Result<Capabilities, Notification> {
    let mut length = usize::from(octet(input).ok_or_else(malformed)?);
    let extended = length != 0 && input.first() == Some(&EXTENDED);
    if extended {
        let header: Option<[u8; 3]> = array(input);
        let [_, high, low] = header.ok_or_else(malformed)?;
        length = usize::from(u16::from_be_bytes([high, low]));
    }
    if input.len() != length {
        return Err(malformed());
    }
    let mut capabilities = Capabilities::default();
    while !input.is_empty() {
        let kind = octet(input).ok_or_else(malformed)?;
        let length = if extended { short(input).map(usize::from) } else { octet(input).map(usize::from) };
        let value = length.and_then(|length| take(input, length)).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::open(4, []));
        }
        capabilities.read(value).ok_or_else(malformed)?;
    }
    Ok(capabilities)
}

/// The whole message. Parameters of more than 255 octets make it an extended one (RFC 9072 §2).
pub(super) fn encode(open: &Open) -> BgpMessage {
    let capabilities = open.capabilities.items();
    let parameter = (!capabilities.is_empty())
        .then_some(OptParam { param_type: CAPABILITIES, param_value: ParamValue::Capacities(capabilities) });
    BgpMessage::Open(BgpOpenMessage {
        version: VERSION,
        asn: open.asn.two_octets().into(),
        hold_time: open.hold_time,
        bgp_identifier: Ipv4Addr::from_bits(open.router_id.0),
        extended_length: false,
        opt_params: parameter.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests;
