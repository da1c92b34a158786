// SPDX-License-Identifier: Apache-2.0
//! What is on the wire between two speakers (RFC 4271 §4 and the extensions that `docs/bgp.md` lists), as values.

mod attributes;
mod capabilities;
mod codec;
mod decode;
mod encode;
mod family;
mod header;
mod message;
mod negotiated;
mod nlri;
mod notification;
mod number;
mod octets;
mod open;
mod path;
mod problem;
mod rules;
#[cfg(test)]
mod samples;
mod update;
mod values;

pub use attributes::{Attributes, Origin, RawAttribute};
pub use capabilities::{AddPath, Capabilities, Fqdn, GracefulRestart, LongLived};
pub use codec::Codec;
pub use encode::EncodeError;
pub use message::{Message, Open, RefreshKind, RouteRefresh};
pub use negotiated::Negotiated;
pub use notification::{Cease, Notification};
pub use number::{Asn, Community, LargeCommunity, NumberError, RouterId};
pub use path::{AsPath, Segment};
pub use problem::{Disposition, Problem};
pub use update::{NextHop, Nlri, Reach, Update, Withdrawn};
