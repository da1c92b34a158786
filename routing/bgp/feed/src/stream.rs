// SPDX-License-Identifier: Apache-2.0

use std::io;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::frame::{FrameError, Frames};

/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side closed it.
    #[error("connection closed by the other side")]
    Closed,
    /// The other side took too long.
    #[error("the other side takes too long")]
    TimedOut,
    /// One side does not want the other.
    #[error("refused: {0}")]
    Refused(String),
    /// What came is no frame, or what is to go makes none.
    #[error("frame")]
    Frame(#[source] FrameError),
    /// The socket refused.
    #[error("socket")]
    Io(#[source] io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let kind = error.kind();
        if matches!(kind, UnexpectedEof | BrokenPipe | ConnectionReset) {
            StreamError::Closed
        } else if matches!(kind, WouldBlock | TimedOut) {
            StreamError::TimedOut
        } else {
            StreamError::Io(error)
        }
    }
}

/// The frames that come in. A wait that is given up loses nothing.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    frames: Frames,
}

impl Incoming {
    /// The next frame.
    pub(crate) async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<T, StreamError> {
        loop {
            if let Some(value) = self.frames.take().map_err(StreamError::Frame)? {
                return Ok(value);
            }
            let mut received = [0; READ];
            match stream.read(&mut received).await? {
                0 => return Err(StreamError::Closed),
                len => self.frames.push(&received[..len]),
            }
        }
    }
}
