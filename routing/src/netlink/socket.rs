// SPDX-License-Identifier: Apache-2.0
//! Rtnetlink sockets: a blocking one for requests, one on the runtime for notices.
//!
//! The kernel works off a request within `send` and has its answer queued when `send` returns, so that waiting
//! without blocking gains nothing: what takes long (the lock of the network stack, the grace periods when a link
//! goes) is spent in `send`. That is why requests are made on threads of their own, never on the runtime's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use netlink_sys::Socket as RawSocket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;

use crate::namespaces::enter;

use super::wire::{
    HEADER, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Request,
    attributes_after, messages, text,
};

/// Requests of one datagram; their answers must fit into the default receive buffer.
const BATCH: usize = 64;
/// The kernel fills a datagram of a dump up to this many bytes; no single message is longer.
const BUFFER: usize = 1 << 15;
/// Bytes of notices that may wait while the agent is busy.
const QUEUE: u32 = 1 << 20;
/// How often a dump that a change interrupted is begun anew.
const DUMP_ATTEMPTS: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel answered to a request that it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) errno: i32,
    /// The kernel's own words, where it has any.
    pub(crate) words: Option<String>,
}

/// An answer that carries an object.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
}

/// The answers to one request.
pub(crate) type Answered = Result<Vec<Answer>, Refused>;

#[derive(Debug)]
pub(crate) struct Socket {
    raw: RawSocket,
    sequence: u32,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut raw = RawSocket::new(NETLINK_ROUTE)?;
        let port = raw.bind_auto()?.port_number();
        raw.set_cap_ack(true)?;
        raw.set_ext_ack(true)?;
        raw.set_netlink_get_strict_chk(true)?;
        Ok(Self { raw, sequence: 0, port, buffer: vec![0; BUFFER] })
    }

    /// Opens a socket in `namespace`; the calling thread stays there, so it must be one that ends soon.
    pub(crate) fn open_in(namespace: &Arc<OwnedFd>) -> io::Result<Self> {
        enter(namespace)?;
        Self::open()
    }

    /// The socket's own address; the kernel names it in notices about what this socket changed.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests that are worked off in order, and takes their answers, one per request.
    /// A request that is refused does not keep those behind it from being worked off.
    pub(crate) fn exchange(&mut self, requests: Vec<Request>) -> io::Result<Vec<Answered>> {
        let mut answered = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            let mut count = 0;
            for request in requests.by_ref().take(BATCH) {
                self.sequence = self.sequence.wrapping_add(1);
                datagram.extend_from_slice(&request.flagged(NLM_F_ACK).finish(self.sequence));
                count += 1;
            }
            self.raw.send(&datagram, 0)?;
            self.collect(first, count, &mut answered)?;
        }
        Ok(answered)
    }

    /// Sends one request and takes its answers.
    pub(crate) fn ask(&mut self, request: Request) -> io::Result<Answered> {
        let mut answered = self.exchange(vec![request])?;
        Ok(answered.pop().expect("one answer per request"))
    }

    /// Takes all objects that `request` describes, as they were at one moment.
    pub(crate) fn dump(&mut self, request: &Request) -> io::Result<Answered> {
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let bytes = request.clone().flagged(NLM_F_DUMP).finish(self.sequence);
            self.raw.send(&bytes, 0)?;
            let mut answered = Vec::with_capacity(1);
            if !self.collect(self.sequence, 1, &mut answered)? {
                return Ok(answered.pop().expect("one answer per request"));
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Takes the answers to `count` requests from sequence number `first` on; says whether a dump was interrupted.
    fn collect(&mut self, first: u32, count: u32, into: &mut Vec<Answered>) -> io::Result<bool> {
        let mut open: Vec<Answer> = Vec::new();
        let mut interrupted = false;
        let mut done = 0;
        while done < count {
            let length = retry(|| recv(self.raw.as_fd(), &mut self.buffer[..], RecvFlags::empty()))?;
            for message in messages(&self.buffer[..length]) {
                // What remains of an exchange that was given up is not for this one.
                if message.sequence != first.wrapping_add(done) {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        into.push(ending(&message).map_or_else(|| Ok(std::mem::take(&mut open)), Err));
                        open.clear();
                        done += 1;
                    }
                    _ => open.push(Answer { payload: message.payload.to_vec() }),
                }
                if done == count {
                    break;
                }
            }
        }
        Ok(interrupted)
    }
}

/// A socket that hears notices, not yet on a runtime.
#[derive(Debug)]
pub(crate) struct Listener(RawSocket);

/// A socket that hears notices.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: AsyncFd<RawSocket>,
    buffer: Vec<u8>,
}

/// Notices were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Listener {
    /// Joins `groups` in `namespace`; the calling thread stays there, so it must be one that ends soon.
    pub(crate) fn open_in(namespace: &Arc<OwnedFd>, groups: &[u32]) -> io::Result<Self> {
        enter(namespace)?;
        let mut socket = RawSocket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(QUEUE)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        Ok(Self(socket))
    }

    /// Registers the socket with the current runtime.
    pub(crate) fn listen(self) -> io::Result<Listening> {
        #[expect(
            deprecated,
            reason = "the socket owns its descriptor; the constructor in its stead is unsafe"
        )]
        let socket = AsyncFd::new(self.0)?;
        Ok(Listening { socket, buffer: vec![0; BUFFER] })
    }
}

impl Listening {
    /// Waits for the next datagram and reads it.
    pub(crate) async fn receive<T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<Result<T, Overflow>> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let received = ready
                .try_io(|socket| Ok(recv(socket.get_ref().as_fd(), &mut buffer[..], RecvFlags::empty())?));
            match received {
                Ok(Ok((length, _))) => return Ok(Ok(read(&self.buffer[..length]))),
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    return Ok(Err(Overflow));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                // Not ready after all.
                Err(_) => {}
            }
        }
    }
}

/// Why the request was refused, if the last message of its answer says so.
fn ending(message: &Message<'_>) -> Option<Refused> {
    let errno = message.payload.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if errno == 0 {
        return None;
    }
    // An acknowledgement repeats the header of the request between the code and the attributes.
    let head = if message.kind == NLMSG_ERROR { 4 + HEADER } else { 4 };
    let words = attributes_after(message.payload, head)
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .and_then(|(_, value)| text(value))
        .map(str::to_owned);
    Some(Refused { errno: -errno, words })
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<(usize, usize)>) -> io::Result<usize> {
    loop {
        match call() {
            Ok((length, _)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, words: &str) -> Vec<u8> {
        let mut payload = code.to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        let bytes = Request::new(NLMSG_ERROR, 0, &payload).with_text(NLMSGERR_ATTR_MSG, words);
        bytes.finish(1)
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_kernel() {
        let bytes = error(-17, "File exists already");
        let message = messages(&bytes).next().expect("one message");
        let refused = ending(&message).expect("refused");
        assert_eq!(refused, Refused { errno: 17, words: Some("File exists already".to_owned()) });
    }

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        let bytes = error(0, "a warning");
        assert_eq!(ending(&messages(&bytes).next().expect("one message")), None);
    }
}
