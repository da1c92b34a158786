// SPDX-License-Identifier: Apache-2.0
//! Rtnetlink sockets: a blocking one for requests, one on the runtime for notices.
//!
//! The kernel works off a request within `send` and has its answer queued when `send` returns, so that waiting
//! without blocking gains nothing: what takes long (the lock of the network stack, the grace periods when a link
//! goes) is spent in `send`. That is why requests are made on threads of their own, never on the runtime's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkHeader, NetlinkPayload, NlasIterator,
    parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket as RawSocket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::MulticastGroup;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;

use crate::namespaces::enter;

use super::message::{Message, append, messages};

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

/// The objects in the answers to one request.
pub(crate) type Answered<T = RouteNetlinkMessage> = Result<Vec<T>, Refused>;

/// What carries datagrams to the kernel and back.
pub(crate) trait Wire {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Waits for a datagram, and says how long it is.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Wire for RawSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        RawSocket::send(self, datagram, 0).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.as_fd(), &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Socket<W = RawSocket> {
    raw: W,
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
}

impl<W: Wire> Socket<W> {
    /// Sends requests that are worked off in order, and takes their answers, one per request.
    /// A request that is refused does not keep those behind it from being worked off.
    pub(crate) fn exchange(&mut self, requests: Vec<Message>) -> io::Result<Vec<Answered>> {
        let mut answered = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            let mut count = 0;
            for request in requests.by_ref().take(BATCH) {
                self.sequence = self.sequence.wrapping_add(1);
                append(&mut datagram, request, NLM_F_ACK, self.sequence);
                count += 1;
            }
            self.raw.send(&datagram)?;
            self.collect(first, count, Some, &mut answered)?;
        }
        Ok(answered)
    }

    /// Sends one request and takes its answers.
    pub(crate) fn ask(&mut self, request: Message) -> io::Result<Answered> {
        let mut answered = self.exchange(vec![request])?;
        Ok(answered.pop().expect("one answer per request"))
    }

    /// Reads all objects that `request` describes, as they were at one moment. A list that changed while it was read is
    /// read anew, a bounded number of times.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Message,
        read: impl Fn(&RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Answered<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            append(&mut datagram, request.clone(), NLM_F_DUMP, self.sequence);
            self.raw.send(&datagram)?;
            let mut answered = Vec::with_capacity(1);
            if !self.collect(self.sequence, 1, |object| read(&object), &mut answered)? {
                return Ok(answered.pop().expect("one answer per request"));
            }
        }
        let words = format!("a list changed while it was read, {DUMP_ATTEMPTS} times in a row");
        Err(io::Error::new(io::ErrorKind::Interrupted, words))
    }

    /// Takes the answers to `count` requests from sequence number `first` on; says whether a dump was interrupted.
    fn collect<T>(
        &mut self,
        first: u32,
        count: u32,
        read: impl Fn(RouteNetlinkMessage) -> Option<T>,
        into: &mut Vec<Answered<T>>,
    ) -> io::Result<bool> {
        let mut open = Vec::new();
        let mut interrupted = false;
        let mut done = 0;
        while done < count {
            let length = self.raw.receive(&mut self.buffer)?;
            for message in messages(&self.buffer[..length], |_| true) {
                // What remains of an exchange that was given up is not for this one.
                if message.header.sequence_number != first.wrapping_add(done) {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(object) => open.extend(read(object)),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => {
                        let objects = std::mem::take(&mut open);
                        into.push(refusal(&message.payload).map_or(Ok(objects), Err));
                        done += 1;
                    }
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
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
///
/// It is not a connection of `rtnetlink`: that one drops a message when it does not understand an attribute of it,
/// and reads on without bound while nobody takes what it read. Here, a link with an odd attribute is heard, too,
/// and what waits is in the kernel, which says so when it has no room left.
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
    pub(crate) fn open_in(namespace: &Arc<OwnedFd>, groups: &[MulticastGroup]) -> io::Result<Self> {
        enter(namespace)?;
        let mut socket = RawSocket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(QUEUE)?;
        for group in groups {
            socket.add_membership(*group as u32)?;
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

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The answers in a datagram: to which request each is, and why that was refused, if it was.
pub(crate) fn answers(datagram: &[u8]) -> impl Iterator<Item = (u32, Option<Refused>)> {
    messages(datagram, |_| true).filter_map(|message| {
        let sequence = message.header.sequence_number;
        matches!(message.payload, NetlinkPayload::Error(_)).then(|| (sequence, refusal(&message.payload)))
    })
}

/// Why the request was refused, if the last message of its answer says so.
fn refusal(ending: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Refused> {
    let (code, attributes) = match ending {
        // An acknowledgement repeats the header of the request before the attributes.
        NetlinkPayload::Error(error) => {
            (error.raw_code(), error.header.get(NetlinkHeader::default().buffer_len()..))
        }
        NetlinkPayload::Done(done) => (done.code, Some(&done.extended_ack[..])),
        NetlinkPayload::InnerMessage(_) | NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {
            return None;
        }
    };
    let words = NlasIterator::new(attributes.unwrap_or_default())
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok());
    (code != 0).then_some(Refused { errno: -code, words })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use netlink_packet_core::{DefaultNla, DoneMessage, ErrorMessage};
    use netlink_packet_route::link::LinkMessage;

    use super::*;
    use crate::netlink::link;
    use crate::netlink::message::request;

    /// A kernel of two links whose first dumps are interrupted, each after the first link.
    #[derive(Default)]
    struct Busy {
        interrupted: usize,
        asked: usize,
        waiting: Vec<Vec<u8>>,
    }

    impl Busy {
        fn tell(&mut self, mut message: Message, flags: u16, sequence: u32) {
            let mut datagram = Vec::new();
            message.header.flags = 0;
            append(&mut datagram, message, flags, sequence);
            self.waiting.insert(0, datagram);
        }
    }

    impl Wire for Busy {
        fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
            let sequence = messages(datagram, |_| true).next().expect("one request").header.sequence_number;
            self.asked += 1;
            // What an interrupted dump tells of is gone when it is begun anew.
            let (last, links) =
                if self.asked > self.interrupted { (0, [1, 2]) } else { (NLM_F_DUMP_INTR, [11, 12]) };
            for (index, flags) in links.into_iter().zip([0, last]) {
                let mut link = LinkMessage::default();
                link.header.index = index;
                self.tell(request(RouteNetlinkMessage::NewLink(link), 0), flags, sequence);
            }
            let done = NetlinkPayload::Done(DoneMessage::default());
            self.tell(Message::new(NetlinkHeader::default(), done), last, sequence);
            Ok(())
        }

        fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let datagram = self.waiting.pop().expect("nothing is read that was not asked for");
            buffer[..datagram.len()].copy_from_slice(&datagram);
            Ok(datagram.len())
        }
    }

    fn links_of(kernel: Busy) -> (io::Result<Answered<u32>>, Busy) {
        let mut socket = Socket { raw: kernel, sequence: 0, port: 0, buffer: vec![0; BUFFER] };
        let index = |object: &RouteNetlinkMessage| {
            if let RouteNetlinkMessage::NewLink(link) = object { Some(link.header.index) } else { None }
        };
        (socket.dump(&link::get_all(), index), socket.raw)
    }

    #[test]
    fn a_dump_that_a_change_interrupted_is_begun_anew() {
        for interrupted in [0, 1, DUMP_ATTEMPTS - 1] {
            let (told, kernel) = links_of(Busy { interrupted, ..Busy::default() });
            assert_eq!(told.expect("told"), Ok(vec![1, 2]));
            assert_eq!((kernel.asked, kernel.waiting.len()), (interrupted + 1, 0));
        }
    }

    #[test]
    fn a_dump_that_is_interrupted_every_time_ends_with_an_error() {
        let (told, kernel) = links_of(Busy { interrupted: usize::MAX, ..Busy::default() });
        let error = told.expect_err("never whole");
        assert_eq!(error.to_string(), "a list changed while it was read, 16 times in a row");
        assert_eq!((error.kind(), kernel.asked), (io::ErrorKind::Interrupted, DUMP_ATTEMPTS));
    }

    fn error(code: i32, words: &str) -> NetlinkPayload<RouteNetlinkMessage> {
        let words = DefaultNla::new(NLMSGERR_ATTR_MSG, format!("{words}\0").into_bytes());
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(code);
        error.header = vec![0; NetlinkHeader::default().buffer_len() + words.buffer_len()];
        words.emit(&mut error.header[NetlinkHeader::default().buffer_len()..]);
        NetlinkPayload::Error(error)
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_kernel() {
        let refused = refusal(&error(-17, "File exists already")).expect("refused");
        assert_eq!(refused, Refused { errno: 17, words: Some("File exists already".to_owned()) });
    }

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        assert_eq!(refusal(&error(0, "a warning")), None);
    }
}
