// SPDX-License-Identifier: Apache-2.0
//! Questions of the command line, without a runtime.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::frame::{Frames, encode};
use crate::protocol::{Down, Hello, PROTOCOL, Role, Up, Welcome};
use crate::stream::StreamError;
use crate::{Answer, Question};

/// Asks the speaker that listens at `path`. Each step may take `patience`.
///
/// # Errors
/// When nobody listens there, or it is one of another version.
pub fn ask(
    path: &Path,
    software: &str,
    question: Question,
    patience: Duration,
) -> Result<Answer, StreamError> {
    let mut stream = UnixStream::connect(path).map_err(StreamError::Io)?;
    stream.set_read_timeout(Some(patience)).map_err(StreamError::Io)?;
    stream.set_write_timeout(Some(patience)).map_err(StreamError::Io)?;
    let mut frames = Frames::default();
    let hello = Hello { protocol: PROTOCOL, software: software.to_owned(), role: Role::Asker };
    stream.write_all(&encode(&hello).map_err(StreamError::Frame)?)?;
    let welcome: Welcome = next(&mut stream, &mut frames)?;
    if let Some(why) = welcome.refused {
        return Err(StreamError::Refused(why));
    }
    stream.write_all(&encode(&Down::Ask(question)).map_err(StreamError::Frame)?)?;
    match next(&mut stream, &mut frames)? {
        Up::Answer(answer) => Ok(*answer),
        Up::Applied(_) | Up::Refused { .. } | Up::Changes(_) | Up::Synced => {
            Err(StreamError::Refused("something else came in place of an answer".into()))
        }
    }
}

fn next<T: DeserializeOwned>(stream: &mut UnixStream, frames: &mut Frames) -> Result<T, StreamError> {
    loop {
        if let Some(value) = frames.take().map_err(StreamError::Frame)? {
            return Ok(value);
        }
        let mut received = [0; 16 << 10];
        match stream.read(&mut received) {
            Ok(0) => return Err(StreamError::Closed),
            Ok(len) => frames.push(&received[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
