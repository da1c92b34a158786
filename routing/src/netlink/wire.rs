// SPDX-License-Identifier: Apache-2.0
//! Netlink messages as bytes (RFC 3549 §2.2; linux/netlink.h, linux/rtnetlink.h).
//!
//! ```text
//!   header: length u32 | type u16 | flags u16 | sequence u32 | port u32      all in host byte order
//!   family header (ifinfomsg, ifaddrmsg, rtmsg, tcmsg, …), then attributes: length u16 | type u16 | value | padding
//! ```

/// Bytes of a message header.
pub(crate) const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// The two highest bits of an attribute's type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

/// A message to the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Begins a message of type `kind` with its family header.
    pub(crate) fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(family_header);
        pad(&mut bytes);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.begin(kind);
        self.0.extend_from_slice(value);
        self.end(start);
        self
    }

    /// Adds a text with its terminating zero.
    pub(crate) fn with_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds a number in host byte order.
    pub(crate) fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nest(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.nest_after(kind | NESTED, &[], fill)
    }

    /// Adds an attribute that holds a structure and then attributes.
    pub(crate) fn nest_after(mut self, kind: u16, head: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.begin(kind);
        self.0.extend_from_slice(head);
        pad(&mut self.0);
        let mut filled = fill(self);
        filled.end(start);
        filled
    }

    /// The bytes to send, under this sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a request is far below 4 GiB");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    /// Adds flags to those of the header.
    pub(crate) fn flagged(mut self, flags: u16) -> Self {
        let old = u16::from_ne_bytes([self.0[6], self.0[7]]);
        self.0[6..8].copy_from_slice(&(old | flags).to_ne_bytes());
        self
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start).expect("an attribute is far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.0);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message from the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram; bytes that are no message end it.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            port: u32_at(message, 12)?,
            payload: &message[HEADER..],
        })
    })
}

/// The attributes in `bytes` by type and value; bytes that are no attribute end it.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_TYPE;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attributes behind a family header of `head` bytes.
pub(crate) fn attributes_after(payload: &[u8], head: usize) -> impl Iterator<Item = (u16, &[u8])> {
    attributes(payload.get(head..).unwrap_or_default())
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A text, without its terminating zero.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_built_is_read_back() {
        let bytes = Request::new(16, NLM_F_CREATE, &[7; 6])
            .with_text(3, "eth0")
            .nest(18, |info| info.with(1, b"veth").nest_after(2, &[9; 8], |peer| peer.with_u32(4, 1500)))
            .flagged(NLM_F_ACK)
            .finish(42);
        let message = messages(&bytes).next().expect("one message");
        assert_eq!((message.kind, message.sequence), (16, 42));
        assert_eq!(message.flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK);
        let outer: Vec<_> = attributes_after(message.payload, 8).collect();
        assert_eq!(text(outer[0].1), Some("eth0"));
        assert_eq!(outer[1].0, 18);
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(inner[0], (1, &b"veth"[..]));
        let peer = attributes_after(inner[1].1, 8).next().expect("one attribute");
        assert_eq!((peer.0, u32_at(peer.1, 0)), (4, Some(1500)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_without_harm(bytes: Vec<u8>) {
            for message in messages(&bytes) {
                prop_assert!(message.payload.len() < bytes.len());
            }
            for (_, value) in attributes(&bytes) {
                prop_assert!(value.len() < bytes.len());
            }
        }
    }
}
