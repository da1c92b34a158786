// SPDX-License-Identifier: Apache-2.0
//! The plugin's side of the socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::frame::{self, Deadline, FrameError};
use crate::protocol::{Reply, Request};

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens at the socket.
    #[error("agent is not there")]
    NotThere(#[source] Errno),
    /// The socket cannot be reached.
    #[error("connect to the agent")]
    Connect(#[source] Errno),
    /// The agent was there and went away before it answered.
    #[error("agent went away before it answered")]
    Lost,
    /// The agent did not answer in time.
    #[error("agent did not answer in time")]
    TimedOut,
    /// The request or the reply did not pass.
    #[error("talk to the agent")]
    Frame(#[source] FrameError),
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Closed => ClientError::Lost,
            FrameError::TimedOut => ClientError::TimedOut,
            FrameError::TooLong { .. } | FrameError::Json(_) | FrameError::Io(_) => ClientError::Frame(error),
        }
    }
}

/// A connection to the agent that has said nothing yet.
#[derive(Debug)]
pub(crate) struct Connection(UnixStream);

impl Connection {
    /// Connects to the agent.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> Result<Self, ClientError> {
        let fd: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(ClientError::Connect)?;
        // While the agent's queue of connections is full, connect waits for at most the time to send.
        set_socket_timeout(&fd, Timeout::Send, Some(deadline.remaining()?)).map_err(ClientError::Connect)?;
        let address = SocketAddrUnix::new(path).map_err(ClientError::Connect)?;
        loop {
            return match connect(&fd, &address) {
                Ok(()) => Ok(Self(fd.into())),
                Err(Errno::INTR) => continue,
                Err(e @ (Errno::NOENT | Errno::NOTDIR | Errno::CONNREFUSED)) => Err(ClientError::NotThere(e)),
                Err(Errno::AGAIN) => Err(ClientError::TimedOut),
                Err(e) => Err(ClientError::Connect(e)),
            };
        }
    }

    /// Asks, with the namespace as a descriptor, and waits for the answer.
    pub(crate) fn ask(
        self,
        request: &Request,
        netns: Option<&OwnedFd>,
        deadline: Deadline,
    ) -> Result<Reply, ClientError> {
        let bytes = frame::encode(request)?;
        let sent = match netns {
            Some(netns) => self.send_with(&bytes, netns.as_fd(), deadline)?,
            None => 0,
        };
        frame::write(&self.0, &bytes[sent..], deadline)?;
        Ok(frame::read(&self.0, deadline)?)
    }

    fn send_with(&self, bytes: &[u8], fd: BorrowedFd<'_>, deadline: Deadline) -> Result<usize, ClientError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let descriptors = [fd];
        loop {
            self.0.set_write_timeout(Some(deadline.remaining()?)).map_err(FrameError::Io)?;
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(error) => return Err(FrameError::from(std::io::Error::from(error)).into()),
            }
        }
    }
}
