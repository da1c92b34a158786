// SPDX-License-Identifier: Apache-2.0
//! All sessions, and whose a packet is (RFC 5880 §6.3, RFC 5881 §3, RFC 5883 §3).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use crate::config::{Config, Hops, Report, SessionKey};
use crate::fsm::Session;
use crate::packet::{Packet, State};

/// The TTL or hop limit of a packet that nobody has forwarded (RFC 5881 §5).
const NEVER_FORWARDED: u8 = 255;

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) ifindex: u32,
    pub(crate) ttl: u8,
    pub(crate) hops: Hops,
}

/// Why a packet is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// It came over a router to a session of one hop.
    Forwarded,
    /// No session has that name, or watches that end.
    Unknown,
    /// The session is another kind's or another link's.
    Elsewhere,
}

/// A session and what it needs to be spoken to; `W` is its way out.
#[derive(Debug)]
pub(crate) struct Entry<W> {
    pub(crate) key: SessionKey,
    pub(crate) session: Session,
    /// Index of the key's link, once it is known.
    pub(crate) ifindex: Option<u32>,
    /// When the other end has heard long enough that we are leaving.
    pub(crate) leaving: Option<Instant>,
    pub(crate) way: W,
}

/// Sessions by our names for them.
#[derive(Debug)]
pub(crate) struct Table<W> {
    entries: BTreeMap<NonZeroU32, Entry<W>>,
}

impl<W: Default> Table<W> {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// Adds a session, or gives other wishes to the one that is there. `name` is tried for a new one; false when it is
    /// taken.
    pub(crate) fn add(&mut self, key: SessionKey, config: Config, name: NonZeroU32) -> bool {
        if let Some(entry) = self.entries.values_mut().find(|entry| entry.key == key) {
            entry.leaving = None;
            entry.session.configure(config);
            entry.session.enable();
            return true;
        }
        if self.entries.contains_key(&name) {
            return false;
        }
        let session = Session::new(config, name);
        let entry = Entry { key, session, ifindex: None, leaving: None, way: W::default() };
        self.entries.insert(name, entry);
        true
    }

    /// Holds a session down, and forgets it when the other end has had the time to hear of it.
    pub(crate) fn remove(&mut self, key: &SessionKey, now: Instant) {
        let Some(entry) = self.entries.values_mut().find(|entry| entry.key == *key) else { return };
        if entry.leaving.is_none() {
            entry.leaving = Some(now + entry.session.given_up_after());
            entry.session.disable();
        }
    }

    /// Forgets sessions whose time to leave is over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.leaving.is_none_or(|at| now < at));
    }

    /// The session that a packet is for.
    pub(crate) fn find(&mut self, packet: &Packet, arrival: &Arrival) -> Result<&mut Entry<W>, Unwanted> {
        if arrival.hops == Hops::Single && arrival.ttl != NEVER_FORWARDED {
            return Err(Unwanted::Forwarded);
        }
        let Some(name) = NonZeroU32::new(packet.your_discriminator) else {
            return self.entries.values_mut().find(|entry| entry.watches(arrival)).ok_or(Unwanted::Unknown);
        };
        let entry = self.entries.get_mut(&name).ok_or(Unwanted::Unknown)?;
        if entry.is_at(arrival) { Ok(entry) } else { Err(Unwanted::Elsewhere) }
    }

    pub(crate) fn entries(&mut self) -> impl Iterator<Item = &mut Entry<W>> {
        self.entries.values_mut()
    }

    /// When a session has something to do next.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let of = |entry: &Entry<W>| [entry.session.deadline(now), entry.leaving].into_iter().flatten().min();
        self.entries.values().filter_map(of).min()
    }

    /// Whether a session of this kind and family is there.
    pub(crate) fn needs(&self, hops: Hops, v4: bool) -> bool {
        self.entries.values().any(|entry| entry.key.hops == hops && entry.key.peer.is_ipv4() == v4)
    }

    pub(crate) fn report(&self) -> Vec<Report> {
        let staying = self.entries.values().filter(|entry| entry.leaving.is_none());
        let mut reports: Vec<Report> = staying.map(Entry::report).collect();
        reports.sort_by(|a, b| a.key.cmp(&b.key));
        reports
    }
}

impl<W> Entry<W> {
    /// Whether a packet that does not name a session is for this one.
    fn watches(&self, arrival: &Arrival) -> bool {
        self.is_at(arrival)
            && self.key.peer == arrival.from
            && self.key.local.is_none_or(|local| local == arrival.to)
    }

    fn is_at(&self, arrival: &Arrival) -> bool {
        self.key.hops == arrival.hops
            && self.key.peer.is_ipv4() == arrival.from.is_ipv4()
            && (self.key.interface.is_none() || self.ifindex == Some(arrival.ifindex))
    }

    fn report(&self) -> Report {
        let (remote_discriminator, remote_state, remote_diagnostic) = self.session.remote();
        Report {
            key: self.key.clone(),
            state: self.session.state(),
            diagnostic: self.session.diagnostic(),
            remote_state: if remote_discriminator == 0 { State::Down } else { remote_state },
            remote_diagnostic,
            remote_fate: self.session.remote_fate(),
            discriminator: self.session.discriminator().get(),
            remote_discriminator,
            transmit_interval: self.session.transmit_interval(),
            detection_time: self.session.detection_time(),
        }
    }
}

#[cfg(test)]
mod tests;
