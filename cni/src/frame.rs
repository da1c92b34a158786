// SPDX-License-Identifier: Apache-2.0
//! Frames on a stream, each with a deadline: length in bytes (u32, big-endian), then that many bytes of JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_FRAME;

/// Bytes of the length in front of a frame.
pub(crate) const PREFIX: usize = 4;

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
    /// The other side took too long.
    #[error("deadline passed")]
    TimedOut,
    /// The other side closed the connection.
    #[error("connection closed by the other side")]
    Closed,
    /// The socket refused.
    #[error("socket")]
    Io(#[source] io::Error),
}

/// A point in time after which nobody waits any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// The point `patience` from now.
    pub(crate) fn after(patience: Duration) -> Self {
        Self(Instant::now() + patience)
    }

    /// What remains, or [`FrameError::TimedOut`] when nothing does.
    pub(crate) fn remaining(self) -> Result<Duration, FrameError> {
        let left = self.0.saturating_duration_since(Instant::now());
        // A timeout below the kernel's unit would be rounded down to none at all.
        if left < Duration::from_millis(1) { Err(FrameError::TimedOut) } else { Ok(left) }
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let kind = error.kind();
        if matches!(kind, WouldBlock | TimedOut) {
            FrameError::TimedOut
        } else if matches!(kind, UnexpectedEof | BrokenPipe | ConnectionReset) {
            FrameError::Closed
        } else {
            FrameError::Io(error)
        }
    }
}

/// The bytes of a frame that holds `value`.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
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

/// Reads a frame.
pub(crate) fn read<T: DeserializeOwned>(stream: &UnixStream, deadline: Deadline) -> Result<T, FrameError> {
    let mut prefix = [0; PREFIX];
    fill(stream, &mut prefix, deadline)?;
    read_body(stream, prefix, deadline)
}

/// Reads what follows the length of a frame.
pub(crate) fn read_body<T: DeserializeOwned>(
    stream: &UnixStream,
    prefix: [u8; PREFIX],
    deadline: Deadline,
) -> Result<T, FrameError> {
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > MAX_FRAME {
        return Err(FrameError::TooLong { len });
    }
    let mut body = vec![0; len];
    fill(stream, &mut body, deadline)?;
    serde_json::from_slice(&body).map_err(FrameError::Json)
}

/// Reads until `buffer` is full.
pub(crate) fn fill(mut stream: &UnixStream, buffer: &mut [u8], deadline: Deadline) -> Result<(), FrameError> {
    let mut have = 0;
    while have < buffer.len() {
        stream.set_read_timeout(Some(deadline.remaining()?)).map_err(FrameError::Io)?;
        match stream.read(&mut buffer[have..]) {
            Ok(0) => return Err(FrameError::Closed),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes all of `bytes`.
pub(crate) fn write(mut stream: &UnixStream, bytes: &[u8], deadline: Deadline) -> Result<(), FrameError> {
    let mut sent = 0;
    while sent < bytes.len() {
        stream.set_write_timeout(Some(deadline.remaining()?)).map_err(FrameError::Io)?;
        match stream.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Reply, Request};
    use proptest::prelude::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    #[test]
    fn a_frame_survives_the_stream() {
        let (a, b) = UnixStream::pair().expect("pair");
        write(&a, &encode(&Request::Status).expect("short"), soon()).expect("room");
        assert_eq!(read::<Request>(&b, soon()).expect("whole"), Request::Status);
    }

    #[test]
    fn a_frame_longer_than_allowed_is_neither_sent_nor_read() {
        assert!(matches!(encode(&"x".repeat(MAX_FRAME)), Err(FrameError::TooLong { .. })));
        let (a, b) = UnixStream::pair().expect("pair");
        write(&a, &u32::MAX.to_be_bytes(), soon()).expect("room");
        assert!(matches!(read::<Reply>(&b, soon()), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_silent_and_a_gone_peer_are_told_apart() {
        let (a, b) = UnixStream::pair().expect("pair");
        write(&a, &[0, 0], soon()).expect("room");
        let short = Deadline::after(Duration::from_millis(20));
        assert!(matches!(read::<Reply>(&b, short), Err(FrameError::TimedOut)));
        drop(a);
        assert!(matches!(read::<Reply>(&b, soon()), Err(FrameError::Closed)));
        assert!(matches!(write(&b, &[0], soon()), Err(FrameError::Closed)));
    }

    #[test]
    fn a_full_peer_is_waited_for_until_the_deadline() {
        let (a, _b) = UnixStream::pair().expect("pair");
        let short = Deadline::after(Duration::from_millis(20));
        assert!(matches!(write(&a, &vec![0; 8 << 20], short), Err(FrameError::TimedOut)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), honest: bool) {
            let (a, b) = UnixStream::pair().expect("pair");
            if honest {
                let len = u32::try_from(bytes.len()).expect("short");
                write(&a, &len.to_be_bytes(), soon()).expect("room");
            }
            write(&a, &bytes, soon()).expect("room");
            drop(a);
            drop(read::<Request>(&b, soon()));
        }
    }
}
