// SPDX-License-Identifier: Apache-2.0
//! Notices of the kernel about what changed on the host.

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;

use super::changes::FIRST_INDEX;
use super::fabric::Watch;
use super::message::objects;
use super::socket::{Listener, Listening, Overflow};
use super::{Host, Netlink, Talk, address, link, on_own_thread, route, rule};
use crate::kernel::{KernelError, PROTOCOL, Place};
use crate::links;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Neigh,
];

/// What changed on the host, by others than this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// A link that is not a pod's came, went or changed; or a pod's went or was switched off. The kernel takes
    /// addresses and routes of such a link along without a notice of their own.
    pub links: bool,
    /// A global address came or went.
    pub addresses: bool,
    /// A default route, or a route or rule of rhumb, came, went or changed.
    pub routes: bool,
    /// A route of others to a watched prefix, a rule, or whether a watched neighbour answers.
    pub fabric: bool,
}

impl Notices {
    const ALL: Notices = Notices { links: true, addresses: true, routes: true, fabric: true };

    /// Whether nothing changed that concerns rhumb.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn and(self, other: Notices) -> Notices {
        Notices {
            links: self.links || other.links,
            addresses: self.addresses || other.addresses,
            routes: self.routes || other.routes,
            fabric: self.fabric || other.fabric,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what nobody here asks for is much, and more comes")]
    fn of(object: &RouteNetlinkMessage, watch: &Watch) -> Notices {
        let mut notices = Notices { fabric: watch.concerns(object), ..Notices::default() };
        match object {
            RouteNetlinkMessage::NewLink(_) => {
                notices.links = link::read(object).is_none_or(|link| {
                    // Between its making and its marking, a pair is known only by the index that was chosen for it.
                    let being_made = link.alias.is_none() && !link.up && link.ifindex >= FIRST_INDEX;
                    let well = link.up && links::is_ours(&link);
                    !being_made && !well
                });
            }
            RouteNetlinkMessage::DelLink(_) => notices.links = true,
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                notices.addresses = address::read(object).is_some_and(|told| told.global);
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                notices.routes = route::read_with_table(object).is_some_and(|(table, told)| {
                    told.protocol == PROTOCOL || (told.dst.len() == 0 && table == route::MAIN)
                });
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                notices.routes = rule::read(object).is_some();
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
        let opened: Talk<Listener> = on_own_thread(move || Ok(Listener::open_in(&namespace, &GROUPS)?)).await;
        let listening = opened.and_then(|listener| Ok(listener.listen()?));
        Ok(Self { listening: listening.map_err(|error| error.at(&Place::Host))?, host })
    }

    /// Waits for the next change that concerns rhumb. When the kernel had to drop notices, everything counts as
    /// changed. Nothing is lost when the wait is cancelled.
    ///
    /// # Errors
    /// The socket is unusable; a new one has to be opened.
    pub async fn next(&mut self) -> Result<Notices, KernelError> {
        self.next_after(|| ()).await
    }

    /// As [`Events::next`]; calls `at_once` for whatever is heard before it is looked at, also for changes that this
    /// process made and for those that do not concern rhumb: packets may go another way after any of them.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn next_after(&mut self, mut at_once: impl FnMut()) -> Result<Notices, KernelError> {
        loop {
            let host = &self.host;
            let heard = self.listening.receive(|datagram| {
                at_once();
                objects(datagram, |header| !host.is_own_port(header.port_number))
                    .fold(Notices::default(), |notices, object| {
                        notices.and(Notices::of(&object, &host.watch))
                    })
            });
            match heard.await {
                Ok(Ok(notices)) if notices.is_empty() => {}
                Ok(Ok(notices)) => return Ok(notices),
                Ok(Err(Overflow)) => {
                    at_once();
                    return Ok(Notices::ALL);
                }
                Err(cause) => return Err(KernelError::Socket { place: Place::Host, cause }),
            }
        }
    }
}
