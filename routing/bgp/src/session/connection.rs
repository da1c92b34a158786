// SPDX-License-Identifier: Apache-2.0
//! One TCP connection with its two buffers.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use crate::wire::{Codec, Message, Negotiated};

/// Octets that are read at a time.
const READ: usize = 1 << 16;
/// A buffer that is empty and larger than this is given back.
const KEEP: usize = 1 << 12;
/// How long a connection that we closed stays open for its last message to arrive.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) codec: Codec,
    pub(super) input: BytesMut,
    output: BytesMut,
    /// What both OPENs have in common, once the peer's has come.
    pub(super) negotiated: Option<Negotiated>,
    /// A batch of routes is in `output`.
    pub(super) has_batch: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Connection {
            stream,
            codec: Codec::opening(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            negotiated: None,
            has_batch: false,
        }
    }

    /// Waits until the peer can be read from, or written to if there is something to write.
    ///
    /// Cancelling it loses nothing.
    pub(super) async fn ready(&self, interest: Want) {
        let interest = match (interest, self.output.is_empty()) {
            (Want::Read, true) => Interest::READABLE,
            (Want::Read, false) => Interest::READABLE | Interest::WRITABLE,
            (Want::WriteOnly, false) => Interest::WRITABLE,
            (Want::WriteOnly, true) => return std::future::pending().await,
        };
        // What went wrong is seen by the read or write that follows.
        drop(self.stream.ready(interest).await);
    }

    /// Reads what is there, up to a limit.
    ///
    /// # Errors
    /// When the connection broke; its end is an error, too.
    pub(super) fn read(&mut self) -> io::Result<()> {
        self.input.reserve(READ);
        let enough = self.input.len() + READ;
        while self.input.len() < enough {
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives memory back that an idle session does not need.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEEP {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() && self.output.capacity() > KEEP {
            self.output = BytesMut::new();
        }
    }

    pub(super) fn queue(&mut self, message: &Message) {
        let encoded = self.codec.encode(message);
        self.queue_encoded(&encoded);
    }

    pub(super) fn queue_encoded(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    /// Writes what the kernel takes.
    ///
    /// # Errors
    /// When the connection broke.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(written) => drop(self.output.split_to(written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the kernel has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Closes it such that what was sent last arrives: a close with something unread would take it back.
    pub(super) async fn linger(mut self) {
        let end = async {
            if !self.output.is_empty() {
                self.stream.write_all(&self.output).await?;
            }
            self.stream.shutdown().await?;
            let mut rest = [0; 512];
            while self.stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether the peer is still there makes no difference any more.
        drop(tokio::time::timeout(LINGER, end).await);
    }
}

/// What a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    WriteOnly,
}
