// SPDX-License-Identifier: Apache-2.0
//! Frames on a stream: length in bytes (u32, big-endian), then that many bytes of JSON. No I/O here.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame in bytes: a snapshot of 100,000 routes fits.
pub const MAX_FRAME: usize = 64 << 20;

/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;

/// Why a frame did not pass.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It is longer than a frame may be.
    #[error("frame of {len} bytes, at most {MAX_FRAME} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Its JSON is not what it must be.
    #[error("JSON of the frame")]
    Json(#[source] serde_json::Error),
}

/// The bytes of a frame that holds `value`.
///
/// # Errors
/// When it would be too long.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, value).map_err(FrameError::Json)?;
    let len = bytes.len() - PREFIX;
    if len > MAX_FRAME {
        return Err(FrameError::TooLong { len });
    }
    let prefix = u32::try_from(len).expect("no frame is longer than MAX_FRAME").to_be_bytes();
    bytes[..PREFIX].copy_from_slice(&prefix);
    Ok(bytes)
}

/// Makes frames of what a stream gives. It holds no more than was received, whatever a length promises.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// How much of the front was taken.
    taken: usize,
}

impl Frames {
    /// Appends what was received.
    pub fn push(&mut self, received: &[u8]) {
        self.bytes.extend_from_slice(received);
    }

    /// Takes the next frame, when it is there in full.
    ///
    /// # Errors
    /// When it is too long or not of this type; the stream is of no use then.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let waiting = &self.bytes[self.taken..];
        let Some((prefix, rest)) = waiting.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(FrameError::TooLong { len });
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let value = serde_json::from_slice(body).map_err(FrameError::Json)?;
        self.taken += PREFIX + len;
        if self.taken == self.bytes.len() {
            // A large snapshot's memory is not kept for the small frames that follow.
            *self = Self::default();
        } else if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        Ok(Some(value))
    }

    /// Whether a part of a frame is there.
    pub fn is_within_frame(&self) -> bool {
        self.bytes.len() > self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Down, Up};
    use proptest::prelude::*;

    #[test]
    fn a_frame_longer_than_allowed_is_neither_made_nor_awaited() {
        assert!(matches!(encode(&"x".repeat(MAX_FRAME)), Err(FrameError::TooLong { .. })));
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_be_bytes());
        assert!(matches!(frames.take::<Up>(), Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            texts in proptest::collection::vec(".{0,40}", 0..8),
            cut in 1..30_usize,
        ) {
            let mut stream = Vec::new();
            for text in &texts {
                stream.extend(encode(text).expect("short"));
            }
            let (mut frames, mut got) = (Frames::default(), Vec::<String>::new());
            for part in stream.chunks(cut) {
                frames.push(part);
                while let Some(text) = frames.take().expect("sound") {
                    got.push(text);
                }
            }
            prop_assert_eq!(got, texts);
            prop_assert!(!frames.is_within_frame());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), honest: bool) {
            let mut frames = Frames::default();
            if honest {
                frames.push(&u32::try_from(bytes.len()).expect("short").to_be_bytes());
            }
            frames.push(&bytes);
            if honest {
                let read = frames.take::<Down>();
                prop_assert!(!matches!(read, Ok(None)), "{:?}", read);
            } else {
                while let Ok(Some(_)) = frames.take::<Down>() {}
            }
        }
    }
}
