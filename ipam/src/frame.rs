// SPDX-License-Identifier: Apache-2.0
//! The bytes of a journal.
//!
//! ```text
//!   file    ┌───────────────────────┬─────────┬─────────┬─ ─ ─
//!           │ header                │ frame   │ frame   │
//!           └───────────────────────┴─────────┴─────────┴─ ─ ─
//!   header  ┌───────────────────────┬───────────────────┐
//!           │ magic "rhumbjnl" (8)  │ version 1 (u32)   │
//!           └───────────────────────┴───────────────────┘
//!   frame   ┌──────────────┬──────────────┬──────────────┬─────────────────────────────────┐
//!           │ length (u32) │ crc32 (u32)  │ number (u32) │ JSON array of records (length)  │
//!           └──────────────┴──────────────┴──────────────┴─────────────────────────────────┘
//! ```
//! Integers are little-endian. The checksum covers length, number and payload. Frames are numbered from 0, so that
//! none can be lost, doubled or moved unseen. One append is one frame, so that a batch is there as a whole or not at
//! all, in whatever order the disk writes its sectors. No length is 0, so that sectors of zeros are no frames.
//!
//! What follows the last good frame is a torn tail when no good frame begins anywhere in it: the write that a crash
//! cut short. A good frame behind a bad one means that the journal was damaged after it was written.

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 8] = *b"rhumbjnl";
const VERSION: u32 = 1;

/// Length of the file's header in bytes.
pub(crate) const HEADER: usize = 12;
/// Length of a frame without its payload in bytes.
const FRAME: usize = 12;
/// No payload is longer than this many bytes.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;

/// Why bytes are no journal.
#[derive(Debug, thiserror::Error)]
pub enum Corruption {
    /// The file does not begin as a journal does.
    #[error("this is no journal: the first bytes are wrong")]
    Magic,
    /// The file was written by a version of rhumb that this one does not know.
    #[error("version {found} of the format is unknown")]
    Version {
        /// The version.
        found: u32,
    },
    /// A record was changed after it was written.
    #[error("the checksum is wrong, and good records follow")]
    Checksum,
    /// A record was lost, doubled or moved after it was written.
    #[error("record batch {found} follows where {expected} should")]
    Order {
        /// The number that should follow.
        expected: u32,
        /// The number that follows.
        found: u32,
    },
    /// A length that is never written.
    #[error("a length of {length} bytes is impossible")]
    Length {
        /// The length.
        length: u32,
    },
    /// The bytes are as they were written, and are no records.
    #[error("the record is unknown")]
    Record(#[source] serde_json::Error),
}

/// What a journal's bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed<R> {
    pub(crate) records: Vec<R>,
    /// How many good frames.
    pub(crate) frames: u32,
    /// Header and good frames in bytes; what follows is a torn tail.
    pub(crate) good: usize,
}

/// Damage, and where it begins.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) offset: usize,
    pub(crate) corruption: Corruption,
}

pub(crate) fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// Why records make no frame.
#[derive(Debug)]
pub(crate) enum EncodeError {
    Json(serde_json::Error),
    TooLong,
}

/// The frame with this number.
pub(crate) fn encode<R: Serialize>(records: &[R], number: u32) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; FRAME];
    serde_json::to_writer(&mut frame, records).map_err(EncodeError::Json)?;
    let payload = frame.len() - FRAME;
    if payload > MAX_PAYLOAD {
        return Err(EncodeError::TooLong);
    }
    let length = u32::try_from(payload).expect("MAX_PAYLOAD fits u32").to_le_bytes();
    let number = number.to_le_bytes();
    let crc = checksum(length, number, &frame[FRAME..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..8].copy_from_slice(&crc);
    frame[8..FRAME].copy_from_slice(&number);
    Ok(frame)
}

pub(crate) fn parse<R: DeserializeOwned>(bytes: &[u8]) -> Result<Parsed<R>, Damage> {
    let damage = |offset| move |corruption| Damage { offset, corruption };
    check_header(bytes).map_err(damage(0))?;
    let mut parsed = Parsed { records: Vec::new(), frames: 0, good: HEADER };
    while let Some((number, payload)) = frame_at(bytes, parsed.good) {
        if number != parsed.frames {
            return Err(damage(parsed.good)(Corruption::Order { expected: parsed.frames, found: number }));
        }
        let records: Vec<R> =
            serde_json::from_slice(payload).map_err(Corruption::Record).map_err(damage(parsed.good))?;
        parsed.records.extend(records);
        parsed.frames = parsed.frames.wrapping_add(1);
        parsed.good += FRAME + payload.len();
    }
    match damage_in(&bytes[parsed.good..]) {
        Some(corruption) => Err(damage(parsed.good)(corruption)),
        None => Ok(parsed),
    }
}

/// A header is never torn: it is on disk before the file gets its name.
fn check_header(bytes: &[u8]) -> Result<(), Corruption> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(Corruption::Magic)?;
    let (version, _) = rest.split_first_chunk::<4>().ok_or(Corruption::Magic)?;
    if *magic != MAGIC {
        return Err(Corruption::Magic);
    }
    match u32::from_le_bytes(*version) {
        VERSION => Ok(()),
        found => Err(Corruption::Version { found }),
    }
}

/// What is wrong with the bytes behind the last good frame; `None` for a torn tail, or nothing at all.
fn damage_in(tail: &[u8]) -> Option<Corruption> {
    if (1..tail.len()).any(|offset| begins_at(tail, offset)) {
        return Some(Corruption::Checksum);
    }
    let length = u32::from_le_bytes(*tail.first_chunk()?);
    // A torn write leaves the length as it was written, or zeros.
    (tail.len() >= FRAME && to_usize(length) > MAX_PAYLOAD).then_some(Corruption::Length { length })
}

/// Whether a good frame begins at `offset`. Looks for the brackets first: a checksum at every offset takes long.
fn begins_at(bytes: &[u8], offset: usize) -> bool {
    outline_at(bytes, offset).is_some_and(|outline| {
        outline.payload.first() == Some(&b'[') && outline.payload.last() == Some(&b']') && outline.is_good()
    })
}

/// Number and payload of the good frame at `offset`, if there is one.
fn frame_at(bytes: &[u8], offset: usize) -> Option<(u32, &[u8])> {
    let outline = outline_at(bytes, offset).filter(Outline::is_good)?;
    Some((u32::from_le_bytes(outline.number), outline.payload))
}

/// A frame that is there in full, good or bad.
struct Outline<'a> {
    length: [u8; 4],
    crc: [u8; 4],
    number: [u8; 4],
    payload: &'a [u8],
}

impl Outline<'_> {
    fn is_good(&self) -> bool {
        checksum(self.length, self.number, self.payload) == u32::from_le_bytes(self.crc)
    }
}

fn outline_at(bytes: &[u8], offset: usize) -> Option<Outline<'_>> {
    let (length, rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let wanted = to_usize(u32::from_le_bytes(*length));
    let payload = rest.get(..wanted).filter(|_| (1..=MAX_PAYLOAD).contains(&wanted))?;
    Some(Outline { length: *length, crc: *crc, number: *number, payload })
}

fn checksum(length: [u8; 4], number: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(&number);
    hasher.update(payload);
    hasher.finalize()
}

fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
