// SPDX-License-Identifier: Apache-2.0
//! What agents say to each other.
//!
//! ```text
//!   0        4        5       6      7         8          16
//!   ┌────────┬────────┬───────┬──────┬─────────┬───────────┬──────────────────┐
//!   │ rhPB   │ version│ kind  │ 0    │ length  │ number    │ name of the node │
//!   └────────┴────────┴───────┴──────┴─────────┴───────────┴──────────────────┘
//! ```
//! The name is that of the node which is asked, in question and answer. Nothing comes after it: an answer is as long
//! as its question, and neither can be made longer.

use rhumb_model::NodeName;

const MAGIC: [u8; 4] = *b"rhPB";
const VERSION: u8 = 1;
const HEADER: usize = 16;

/// The longest datagram in bytes.
pub const LONGEST: usize = HEADER + 253;

/// A question or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Which of them.
    pub kind: Kind,
    /// Chosen by who asks, and hard to guess for anybody else.
    pub number: u64,
    /// Who is asked.
    pub node: NodeName,
}

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From who wants to know.
    Question,
    /// Back.
    Answer,
}

/// Why bytes are no datagram of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Somebody else's.
    #[error("no probe of rhumb")]
    Foreign,
    /// Of another version.
    #[error("probe of version {0}")]
    Version(u8),
    /// Neither question nor answer.
    #[error("unknown kind {0} of probe")]
    Kind(u8),
    /// Other than it says itself.
    #[error("probe of the wrong length, or with bytes that are not used")]
    Shape,
    /// Not a node's name.
    #[error("probe of a node that cannot be")]
    Node,
}

impl Datagram {
    /// Reads a datagram.
    ///
    /// # Errors
    /// Says what is wrong with it; it wants no answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, DatagramError> {
        let Some((header, name)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(DatagramError::Foreign);
        };
        let [m0, m1, m2, m3, version, kind, zero, length, number @ ..] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(DatagramError::Foreign);
        }
        if version != VERSION {
            return Err(DatagramError::Version(version));
        }
        let kind = match kind {
            1 => Kind::Question,
            2 => Kind::Answer,
            other => return Err(DatagramError::Kind(other)),
        };
        if zero != 0 || usize::from(length) != name.len() {
            return Err(DatagramError::Shape);
        }
        let name = std::str::from_utf8(name).map_err(|_| DatagramError::Node)?;
        let node = NodeName::new(name).map_err(|_| DatagramError::Node)?;
        Ok(Self { kind, number: u64::from_be_bytes(number), node })
    }

    /// The bytes of a datagram.
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = self.node.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(HEADER + name.len());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, if self.kind == Kind::Question { 1 } else { 2 }, 0]);
        bytes.push(u8::try_from(name.len()).expect("a node's name has at most 253 bytes"));
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(name);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question() -> Datagram {
        Datagram { kind: Kind::Question, number: 0x0102_0304_0506_0708, node: "n1".parse().expect("valid") }
    }

    #[test]
    fn a_question_is_eighteen_bytes_for_a_short_name_and_its_answer_too() {
        let bytes = question().to_bytes();
        assert_eq!(bytes, b"rhPB\x01\x01\x00\x02\x01\x02\x03\x04\x05\x06\x07\x08n1");
        let answer = Datagram { kind: Kind::Answer, ..question() }.to_bytes();
        assert_eq!((answer.len(), answer[5]), (bytes.len(), 2));
    }

    #[test]
    fn what_is_not_ours_is_said() {
        let with = |place: usize, byte: u8| {
            let mut bytes = question().to_bytes();
            bytes[place] = byte;
            Datagram::parse(&bytes)
        };
        assert_eq!(with(0, b'x'), Err(DatagramError::Foreign));
        assert_eq!(with(4, 2), Err(DatagramError::Version(2)));
        assert_eq!(with(5, 3), Err(DatagramError::Kind(3)));
        assert_eq!(with(6, 1), Err(DatagramError::Shape));
        assert_eq!(with(7, 3), Err(DatagramError::Shape));
        assert_eq!(with(16, b'N'), Err(DatagramError::Node));
        assert_eq!(with(16, 0xff), Err(DatagramError::Node));
        assert_eq!(Datagram::parse(&question().to_bytes()[..15]), Err(DatagramError::Foreign));
        let long = [question().to_bytes(), b"x".to_vec()].concat();
        assert_eq!(Datagram::parse(&long), Err(DatagramError::Shape));
        let nobody = [&question().to_bytes()[..7], &[0; 9]].concat();
        assert_eq!(Datagram::parse(&nobody), Err(DatagramError::Node));
    }

    proptest! {
        #[test]
        fn bytes_that_are_understood_are_written_the_same(
            number: u64, answer: bool, name in "[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", more: Vec<u8>,
        ) {
            let kind = if answer { Kind::Answer } else { Kind::Question };
            let datagram = Datagram { kind, number, node: name.parse().expect("a subdomain") };
            prop_assert_eq!(Datagram::parse(&datagram.to_bytes()), Ok(datagram.clone()));
            prop_assert!(datagram.to_bytes().len() <= LONGEST);
            let any = [&datagram.to_bytes()[..8], &more].concat();
            if let Ok(read) = Datagram::parse(&any) {
                prop_assert_eq!(read.to_bytes(), any);
            }
        }
    }
}
