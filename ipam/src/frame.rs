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
//!   frame   ┌──────────────┬──────────────┬─────────────────────────────────┐
//!           │ length (u32) │ crc32 (u32)  │ JSON array of records (length)  │
//!           └──────────────┴──────────────┴─────────────────────────────────┘
//! ```
//! Numbers are little-endian. The checksum covers the length and the payload. One append is one frame, so that a
//! batch is there as a whole or not at all, in whatever order the disk writes its sectors. No length is 0, so that
//! sectors of zeros are no frames.
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
const FRAME: usize = 8;
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

pub(crate) fn encode<R: Serialize>(records: &[R]) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0; FRAME];
    serde_json::to_writer(&mut frame, records).map_err(EncodeError::Json)?;
    let length = frame.len() - FRAME;
    if length > MAX_PAYLOAD {
        return Err(EncodeError::TooLong);
    }
    let length = u32::try_from(length).expect("MAX_PAYLOAD fits u32").to_le_bytes();
    let crc = checksum(length, &frame[FRAME..]).to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..FRAME].copy_from_slice(&crc);
    Ok(frame)
}

pub(crate) fn parse<R: DeserializeOwned>(bytes: &[u8]) -> Result<Parsed<R>, Damage> {
    check_header(bytes).map_err(|corruption| Damage { offset: 0, corruption })?;
    let mut parsed = Parsed { records: Vec::new(), good: HEADER };
    while let Some(payload) = payload_at(bytes, parsed.good) {
        let records: Vec<R> = serde_json::from_slice(payload)
            .map_err(|error| Damage { offset: parsed.good, corruption: Corruption::Record(error) })?;
        parsed.records.extend(records);
        parsed.good += FRAME + payload.len();
    }
    match damage_in(&bytes[parsed.good..]) {
        Some(corruption) => Err(Damage { offset: parsed.good, corruption }),
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
    if (1..tail.len()).any(|offset| payload_at(tail, offset).is_some()) {
        return Some(Corruption::Checksum);
    }
    let length = u32::from_le_bytes(*tail.first_chunk()?);
    // A torn write leaves the length as it was written, or zeros.
    (tail.len() >= FRAME && to_usize(length) > MAX_PAYLOAD).then_some(Corruption::Length { length })
}

/// The payload of the good frame at `offset`, if there is one.
fn payload_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let (length, rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let bytes_wanted = to_usize(u32::from_le_bytes(*length));
    if !(1..=MAX_PAYLOAD).contains(&bytes_wanted) {
        return None;
    }
    let payload = rest.get(..bytes_wanted)?;
    (checksum(*length, payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
