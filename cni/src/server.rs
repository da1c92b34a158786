// SPDX-License-Identifier: Apache-2.0
//! The agent's side of the socket: one request and one reply on each connection, blocking.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Uid;

use crate::frame::{self, Deadline, FrameError, PREFIX};
use crate::protocol::{Refusal, RefusalKind, Reply, Request};

/// A plugin has sent its whole request within this time, or it is hung up on.
pub const RECEIVE_PATIENCE: Duration = Duration::from_secs(5);
/// A plugin has taken its reply within this time, or it is hung up on.
pub const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// Descriptors that are taken from one message; the kernel closes what is beyond.
const DESCRIPTORS: usize = 8;

/// Why a connection has no request for the agent.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side is neither root nor the agent's own user.
    #[error("connection of user {uid}, who may not ask the agent")]
    Stranger {
        /// The user's number.
        uid: u32,
    },
    /// The credentials of the other side cannot be read.
    #[error("credentials of a connection")]
    Credentials(#[source] Errno),
    /// ADD came without a descriptor of the namespace.
    #[error("ADD without the descriptor of a network namespace")]
    NoNamespace,
    /// The request did not arrive.
    #[error("receive a request")]
    Frame(#[from] FrameError),
}

impl ReceiveError {
    /// What to answer before the connection is closed, where an answer helps the other side.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            ReceiveError::NoNamespace
            | ReceiveError::Frame(FrameError::Json(_) | FrameError::TooLong { .. }) => Some(Refusal {
                kind: RefusalKind::Io,
                message: self.to_string(),
                details: std::error::Error::source(self).map(ToString::to_string).unwrap_or_default(),
            }),
            ReceiveError::Stranger { .. }
            | ReceiveError::Credentials(_)
            | ReceiveError::Frame(FrameError::TimedOut | FrameError::Closed | FrameError::Io(_)) => None,
        }
    }
}

/// Reads the request of a connection, and the descriptor of the namespace that came with it. Blocks for at most
/// [`RECEIVE_PATIENCE`]. The descriptor is closed on exec; further descriptors are closed at once.
///
/// # Errors
/// [`ReceiveError`], whose [`ReceiveError::refusal`] says what to answer.
pub fn receive(stream: &UnixStream) -> Result<(Request, Option<OwnedFd>), ReceiveError> {
    let peer = socket_peercred(stream).map_err(ReceiveError::Credentials)?;
    if !may_ask(peer.uid, rustix::process::geteuid()) {
        return Err(ReceiveError::Stranger { uid: peer.uid.as_raw() });
    }
    let deadline = Deadline::after(RECEIVE_PATIENCE);
    let mut prefix = [0; PREFIX];
    let (have, netns) = receive_first(stream, &mut prefix, deadline)?;
    frame::fill(stream, &mut prefix[have..], deadline)?;
    let request = frame::read_body(stream, prefix, deadline)?;
    if matches!(request, Request::Add(_)) && netns.is_none() {
        return Err(ReceiveError::NoNamespace);
    }
    Ok((request, netns))
}

/// Answers a connection. Blocks for at most [`REPLY_PATIENCE`].
///
/// # Errors
/// [`FrameError`] when the other side went away or does not read, or the reply is too long.
pub fn reply(stream: &UnixStream, reply: &Reply) -> Result<(), FrameError> {
    frame::write(stream, &frame::encode(reply)?, Deadline::after(REPLY_PATIENCE))
}

/// Whether a user may ask an agent that runs as `own`.
fn may_ask(peer: Uid, own: Uid) -> bool {
    peer.is_root() || peer == own
}

/// Reads the first bytes and the descriptors that lie beside them.
fn receive_first(
    stream: &UnixStream,
    buffer: &mut [u8],
    deadline: Deadline,
) -> Result<(usize, Option<OwnedFd>), FrameError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    loop {
        stream.set_read_timeout(Some(deadline.remaining()?)).map_err(FrameError::Io)?;
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let bytes = match recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Err(FrameError::Closed),
            Ok(message) => message.bytes,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(std::io::Error::from(error).into()),
        };
        let mut first = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                // What is not kept is closed here.
                for descriptor in descriptors {
                    first.get_or_insert(descriptor);
                }
            }
        }
        return Ok((bytes, first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{AddRequest, AddressSource, DelRequest};
    use rhumb_model::AttachmentKey;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::fs::File;
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;

    fn key() -> AttachmentKey {
        "c/eth0".parse().expect("key")
    }

    fn add() -> Request {
        Request::Add(Box::new(AddRequest {
            key: key(),
            network: "podnet".into(),
            netns: "/ns".into(),
            pod: None,
            addresses: AddressSource::Pool { requested: vec![] },
            mac: None,
            mtu: None,
            port_mappings: vec![],
            bandwidth: None,
        }))
    }

    fn send(stream: &UnixStream, bytes: &[u8], files: &[&File]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = files.iter().map(|f| f.as_fd()).collect();
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        assert_eq!(
            sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()),
            Ok(bytes.len())
        );
    }

    #[test]
    fn the_first_descriptor_arrives_and_the_others_are_closed() {
        for count in [1, 2, DESCRIPTORS, 20] {
            let (plugin, agent) = UnixStream::pair().expect("pair");
            // The writer of each pipe is at its end once every copy of it is closed.
            let pipes: Vec<_> = (0..count).map(|_| std::io::pipe().expect("pipe")).collect();
            let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
            let writers: Vec<File> = writers.into_iter().map(|w| File::from(OwnedFd::from(w))).collect();
            send(&plugin, &frame::encode(&add()).expect("short"), &writers.iter().collect::<Vec<_>>());
            drop(writers);

            let (request, netns) = receive(&agent).expect("whole");
            assert_eq!(request, add());
            let netns = netns.expect("came along");
            assert!(rustix::io::fcntl_getfd(&netns).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
            File::from(netns).write_all(b"me").expect("first pipe");
            let mut texts = readers.into_iter().map(|mut reader| {
                let mut text = String::new();
                reader.read_to_string(&mut text).expect("text");
                text
            });
            assert_eq!(texts.next().as_deref(), Some("me"));
            assert!(texts.all(|text| text.is_empty()));
        }
    }

    #[test]
    fn an_add_without_namespace_is_answered_with_a_refusal() {
        let (plugin, agent) = UnixStream::pair().expect("pair");
        send(&plugin, &frame::encode(&add()).expect("short"), &[]);
        let error = receive(&agent).expect_err("refused");
        assert!(matches!(error, ReceiveError::NoNamespace));
        assert_eq!(error.refusal().expect("an answer").kind, RefusalKind::Io);
    }

    #[test]
    fn only_root_and_the_agents_own_user_may_ask() {
        let user = Uid::from_raw;
        for (peer, own, allowed) in [(0, 0, true), (0, 7, true), (7, 7, true), (7, 0, false), (7, 8, false)] {
            assert_eq!(may_ask(user(peer), user(own)), allowed, "{peer} {own}");
        }
    }

    #[test]
    fn a_request_in_pieces_arrives_whole() {
        let (plugin, agent) = UnixStream::pair().expect("pair");
        let request = Request::Del(DelRequest { key: key(), network: "podnet".into() });
        let bytes = frame::encode(&request).expect("short");
        let sender = std::thread::spawn(move || {
            for byte in bytes {
                (&plugin).write_all(&[byte]).expect("room");
            }
            plugin
        });
        assert_eq!(receive(&agent).expect("whole").0, request);
        let plugin = sender.join().expect("sent");
        reply(&agent, &Reply::Done).expect("room");
        let soon = Deadline::after(Duration::from_secs(10));
        assert_eq!(frame::read::<Reply>(&plugin, soon).expect("whole"), Reply::Done);
    }

    #[test]
    fn what_is_no_request_is_refused_with_words_and_a_closed_connection_without() {
        let (plugin, agent) = UnixStream::pair().expect("pair");
        send(&plugin, &frame::encode(&"hello").expect("short"), &[]);
        assert!(receive(&agent).expect_err("refused").refusal().is_some());
        drop(plugin);
        let error = receive(&agent).expect_err("closed");
        assert!(matches!(error, ReceiveError::Frame(FrameError::Closed)) && error.refusal().is_none());
    }
}
