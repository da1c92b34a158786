// SPDX-License-Identifier: Apache-2.0
//! Notices of the kernel about what changed on the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use netlink_sys::Socket as RawSocket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::unix::AsyncFd;

use super::changes::FIRST_INDEX;
use super::wire::{Message, messages};
use super::{Host, Netlink, Talk, address, link, on_own_thread, route};
use crate::kernel::{KernelError, PROTOCOL, Place};
use crate::links;
use crate::namespaces::enter;

pub(super) const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// The longest notice is that of a link with all its statistics.
const BUFFER: usize = 1 << 15;
/// Bytes of notices that may wait while the agent is busy.
const QUEUE: u32 = 1 << 20;

/// A socket that hears notices, not yet on a runtime.
#[derive(Debug)]
pub(super) struct Listener(RawSocket);

/// A socket that hears notices.
#[derive(Debug)]
pub(super) struct Listening {
    socket: AsyncFd<RawSocket>,
    buffer: Vec<u8>,
}

/// Notices were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow;

impl Listener {
    /// Joins `groups` in `namespace`; the calling thread stays there, so it must be one that ends soon.
    pub(super) fn open_in(namespace: &Arc<OwnedFd>, groups: &[u32]) -> io::Result<Self> {
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
    pub(super) fn listen(self) -> io::Result<Listening> {
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
    pub(super) async fn receive<T>(
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

/// What changed on the host, by others than this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// A link that is not a pod's came, went or changed; or a pod's went or was switched off. The kernel takes addresses
    /// and routes of such a link along without a notice of their own.
    pub links: bool,
    /// A global address came or went.
    pub addresses: bool,
    /// A default route, or a route of rhumb, came, went or changed.
    pub routes: bool,
}

impl Notices {
    const ALL: Notices = Notices { links: true, addresses: true, routes: true };

    /// Whether nothing changed that concerns rhumb.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn and(self, other: Notices) -> Notices {
        Notices {
            links: self.links || other.links,
            addresses: self.addresses || other.addresses,
            routes: self.routes || other.routes,
        }
    }

    fn of(message: &Message<'_>) -> Notices {
        let mut notices = Notices::default();
        match message.kind {
            link::RTM_NEWLINK => {
                notices.links = link::read(message.payload).is_none_or(|link| {
                    // Between its making and its marking, a pair is known only by the index that was chosen for it.
                    let being_made = link.alias.is_none() && !link.up && link.ifindex >= FIRST_INDEX;
                    !being_made && !(link.up && links::is_ours(&link))
                });
            }
            link::RTM_DELLINK => notices.links = true,
            address::RTM_NEWADDR | address::RTM_DELADDR => {
                notices.addresses = address::read(message.payload).is_some_and(|told| told.global);
            }
            route::RTM_NEWROUTE | route::RTM_DELROUTE => {
                notices.routes = route::read(message.payload)
                    .is_some_and(|told| told.protocol == PROTOCOL || told.dst.len() == 0);
            }
            _ => {}
        }
        notices
    }
}

/// A stream of notices; they are coarse, because whoever hears one looks again.
#[derive(Debug)]
pub struct Events {
    listening: Listening,
    host: Host,
}

impl Events {
    /// Begins to listen; what changes from now on is heard.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub async fn open(netlink: &Netlink) -> Result<Self, KernelError> {
        let host = netlink.host.clone();
        let namespace = host.namespace.clone();
        let groups =
            [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE];
        let opened: Talk<Listener> = on_own_thread(move || Ok(Listener::open_in(&namespace, &groups)?)).await;
        let listening = opened.and_then(|listener| Ok(listener.listen()?));
        Ok(Self { listening: listening.map_err(|error| error.at(&Place::Host))?, host })
    }

    /// Waits for the next change that concerns rhumb. When the kernel had to drop notices, everything counts as
    /// changed. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The socket is unusable; a new one has to be opened.
    pub async fn next(&mut self) -> Result<Notices, KernelError> {
        loop {
            let host = &self.host;
            let heard = self.listening.receive(|datagram| {
                messages(datagram)
                    .filter(|message| !host.is_own_port(message.port))
                    .fold(Notices::default(), |notices, message| notices.and(Notices::of(&message)))
            });
            match heard.await {
                Ok(Ok(notices)) if notices.is_empty() => {}
                Ok(Ok(notices)) => return Ok(notices),
                Ok(Err(Overflow)) => return Ok(Notices::ALL),
                Err(cause) => return Err(KernelError::Socket { place: Place::Host, cause }),
            }
        }
    }
}
