// SPDX-License-Identifier: Apache-2.0
//! One TCP connection with its two buffers.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rhumb_model::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tracing::{debug, warn};

use crate::rib::Outgoing;
use crate::wire::{Codec, Message, Negotiated, Notification, RefreshKind, RouteRefresh};

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
    /// Our OPEN and the peer's, as they were on the wire.
    pub(super) opens: [Bytes; 2],
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
            opens: Default::default(),
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

    /// The next whole message of what was read.
    ///
    /// # Errors
    /// What the peer is to be told before the connection is closed.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Notification> {
        // Before the OPENs little can be in the buffer.
        let before = self.negotiated.is_none().then(|| self.input.clone());
        let message = self.codec.decode(&mut self.input)?;
        if let (Some(Message::Open(_)), Some(mut before)) = (&message, before) {
            before.truncate(before.len() - self.input.len());
            self.opens[1] = before.freeze();
        }
        Ok(message)
    }

    /// Queues a message that is no route.
    pub(super) fn queue(&mut self, message: &Message) {
        match self.codec.encode(message) {
            Ok(messages) => {
                if let (Message::Open(_), [open]) = (message, messages.as_slice()) {
                    self.opens[0] = open.clone();
                }
                self.queue_encoded(&messages);
            }
            Err(error) => debug!(%error, "a message cannot be written"),
        }
    }

    /// Queues what the peer is to be told next, and says in how many messages.
    pub(super) fn queue_routes(&mut self, outgoing: &Outgoing) -> Queued {
        let marks = self.negotiated.as_ref().is_some_and(|negotiated| negotiated.enhanced_route_refresh);
        let mark = |codec: &Codec, family: Family, kind: RefreshKind| {
            let message = Message::RouteRefresh(RouteRefresh { family, kind });
            if marks { codec.encode(&message).unwrap_or_default() } else { Vec::new() }
        };
        let messages = match outgoing {
            Outgoing::Announce { family, attributes, next_hop, nlri } => {
                self.codec.encode_update(attributes, next_hop, nlri).unwrap_or_else(|error| {
                    warn!(%error, "routes cannot be told: they are withdrawn");
                    self.codec.encode_withdraw(*family, nlri)
                })
            }
            Outgoing::Withdraw { family, nlri } => self.codec.encode_withdraw(*family, nlri),
            Outgoing::EndOfRib(family) => self.codec.encode_end_of_rib(*family),
            Outgoing::BeginOfRefresh(family) => mark(&self.codec, *family, RefreshKind::Begin),
            Outgoing::EndOfRefresh(family) => mark(&self.codec, *family, RefreshKind::End),
        };
        self.queue_encoded(&messages);
        let is_mark = matches!(outgoing, Outgoing::BeginOfRefresh(_) | Outgoing::EndOfRefresh(_));
        if is_mark {
            Queued { updates: 0, marks: messages.len() }
        } else {
            Queued { updates: messages.len(), marks: 0 }
        }
    }

    fn queue_encoded(&mut self, messages: &[Bytes]) {
        for message in messages {
            self.output.extend_from_slice(message);
        }
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

/// How many messages were queued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Queued {
    /// UPDATE.
    pub(super) updates: usize,
    /// ROUTE-REFRESH.
    pub(super) marks: usize,
}
