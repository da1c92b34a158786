// SPDX-License-Identifier: Apache-2.0
//! A peer as the speaker's owner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::{FamilyState, PeerState, SessionState};
use rhumb_model::{Family, Timestamp};
use tokio::sync::mpsc;
use tracing::warn;

use super::restart::Kept;
use crate::fsm::State;
use crate::rib::{PeerId, Rib};
use crate::session::{Command, Counters, Established, Settings, TaskId};

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) instance: String,
    pub(crate) id: PeerId,
    pub(crate) config: feed::Peer,
    pub(crate) settings: Settings,
    pub(crate) task: TaskId,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) state: State,
    pub(crate) since: Timestamp,
    pub(crate) session: Option<Established>,
    /// Its socket takes another batch.
    pub(crate) can_take: bool,
    /// The table may have something for it.
    pub(crate) has_news: bool,
    /// Families whose end was heard in this session.
    pub(crate) ended: BTreeSet<Family>,
    /// Families of which stale routes are kept, and for how long.
    pub(crate) kept: BTreeMap<Family, Kept>,
    /// Families whose last time ran out in this session before their end was heard (RFC 9494 §4.2).
    pub(crate) over: BTreeSet<Family>,
    /// It told too many routes, and its session is ending.
    pub(crate) is_refused: bool,
    pub(crate) established_count: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) bfd: Option<super::bfd::Watched>,
    /// How its last session ended.
    pub(super) last_end: Option<super::stations::LastEnd>,
    /// UPDATEs that were treated as withdrawals (RFC 7606).
    pub(crate) withdrawn_by_errors: u32,
    /// What was published of it is not true any more.
    pub(crate) is_changed: bool,
}

impl Peer {
    pub(crate) fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            warn!(peer = %self.config.key, "the task of a peer takes no commands");
        }
    }

    /// What its published state is.
    pub(crate) fn published(&self, rib: &Rib) -> PeerState {
        let (received, sent) = self.counters.read();
        let session = self.session.as_ref();
        let families: BTreeSet<Family> = match session {
            Some(session) => session.negotiated.families.clone(),
            None => self.kept.keys().copied().collect(),
        };
        PeerState {
            key: self.config.key.clone(),
            instance: self.instance.clone(),
            address: self.config.address.to_string(),
            remote_address: session.map(|session| session.remote.ip()),
            local_address: session.map(|session| session.local.ip()),
            asn: session.map(|session| session.negotiated.peer_asn.0),
            router_id: session.map(|session| Ipv4Addr::from_bits(session.negotiated.peer_router_id.0)),
            session: match self.state {
                State::Idle => SessionState::Idle,
                State::Connect => SessionState::Connect,
                State::Active => SessionState::Active,
                State::OpenSent => SessionState::OpenSent,
                State::OpenConfirm => SessionState::OpenConfirm,
                State::Established => SessionState::Established,
            },
            since: self.since,
            hold_time: session.map(|session| session.negotiated.hold_time),
            established_count: self.established_count,
            last_error: self.last_error.clone(),
            restarting: session.is_none() && !self.kept.is_empty(),
            families: families.iter().map(|family| self.family(rib, *family)).collect(),
            received,
            sent,
            bfd: self.bfd.as_ref().map(|bfd| bfd.state),
        }
    }

    fn family(&self, rib: &Rib, family: Family) -> FamilyState {
        let counts = rib.counts(self.id, family);
        FamilyState {
            family,
            received: counts.received.into(),
            accepted: counts.accepted.into(),
            stale: counts.stale.into(),
            advertised: counts.advertised.into(),
            end_of_rib: self.ended.contains(&family),
        }
    }

    /// Its address, if it is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let configured = self.settings.endpoint.address;
        let found = self.session.as_ref().map(|session| session.remote.ip());
        found.or((configured != crate::session::NOWHERE).then_some(configured))
    }
}
