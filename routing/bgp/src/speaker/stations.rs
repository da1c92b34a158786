// SPDX-License-Identifier: Apache-2.0
//! Monitoring stations (RFC 7854): what each was told of sessions, and its next batch when it takes one.
//!
//! A station is compared with what is, as peers are: sessions that came or went meanwhile are told as they are now, and
//! routes are those that [`Rib::next_monitored`] finds. One that is gone begins anew when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use rhumb_bgp_feed as feed;
use rhumb_bgp_feed::PeerKey;
use rhumb_model::Timestamp;
use tokio::sync::mpsc;
use tracing::warn;

use super::Speaker;
use super::peer::Peer;
use crate::bmp::{self, Down, Line, Message, Order, PeerUp, Statistic, Termination, View};
use crate::fsm::Cause;
use crate::rib::{Monitored, PeerId, Rib, StationId};
use crate::session::{Established, Number};
use crate::wire::{Codec, EncodeError, Negotiated, Notification};

/// Octets of a batch, about.
const BATCH: usize = 1 << 18;
/// Orders that may wait for a station's task: it is given one batch at a time, and a last word.
const ORDERS: usize = 2;
/// How long a station may take to be connected, and to take a batch.
const PATIENCE: Duration = Duration::from_secs(30);
/// Number of the event by which a new connection of a peer takes the place of its session (RFC 4271 §8.1.4).
const CONNECTION_CONFIRMED: u16 = 17;

/// Stations by instance and address.
#[derive(Debug, Default)]
pub(super) struct Stations {
    all: BTreeMap<(String, SocketAddr), Station>,
    last: StationId,
}

/// One station.
#[derive(Debug)]
struct Station {
    number: StationId,
    config: feed::Station,
    orders: mpsc::Sender<Order>,
    /// The connection that is there.
    connection: Option<u64>,
    can_take: bool,
    /// What it was told of sessions on this connection; `None`: not even who we are.
    told: Option<BTreeMap<PeerKey, Told>>,
    numbers_at: Option<Instant>,
}

/// A session that a station was told of.
#[derive(Debug)]
struct Told {
    session: Number,
    id: PeerId,
    peer: bmp::Peer,
    writer: Writer,
}

/// Writes UPDATEs as the peer's would be.
#[derive(Debug)]
struct Writer {
    plain: Codec,
    /// The same with local preference, which routes of external peers have only after policy.
    internal: Codec,
}

/// How the last session of a peer ended.
#[derive(Debug, Clone)]
pub(super) struct LastEnd(pub(super) Number, pub(super) Cause);

impl Stations {
    /// When numbers are due.
    pub(super) fn next(&self) -> Option<Instant> {
        let connected = self.all.values().filter(|station| station.can_take);
        connected.filter_map(|station| station.numbers_at).min()
    }
}

impl Speaker {
    /// Has the stations of an instance, and no others.
    pub(super) fn put_stations(&mut self, instance: &str, wanted: &[feed::Station]) {
        let is_wanted = |station: &Station| wanted.contains(&station.config);
        let all = self.stations.all.iter();
        let gone = all.filter(|((of, _), station)| of == instance && !is_wanted(station));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove_station(&key, Termination::ClosedForGood);
        }
        for config in wanted {
            let key = (instance.to_owned(), config.address);
            if self.stations.all.contains_key(&key) {
                continue;
            }
            self.stations.last += 1;
            let number = self.stations.last;
            let (orders, inbox) = mpsc::channel(ORDERS);
            let lines = self.station_lines.clone();
            let task =
                bmp::Station { number, address: config.address, orders: inbox, patience: PATIENCE, lines };
            self.running.spawn(task.run());
            let station = Station {
                number,
                config: *config,
                orders,
                connection: None,
                can_take: false,
                told: None,
                numbers_at: None,
            };
            self.stations.all.insert(key, station);
        }
    }

    fn remove_station(&mut self, key: &(String, SocketAddr), why: Termination) {
        let Some(station) = self.stations.all.remove(key) else { return };
        if let Some(rib) = self.ribs.get_mut(&key.0) {
            rib.unmonitor(station.number);
        }
        station.send(Message::Termination(why).encode());
    }

    /// Takes leave of all stations.
    pub(super) fn close_stations(&mut self) {
        let keys: Vec<_> = self.stations.all.keys().cloned().collect();
        keys.iter().for_each(|key| self.remove_station(key, Termination::Closed));
    }

    /// What a station's task says.
    pub(super) fn station_said(&mut self, number: StationId, line: Line) {
        let Some(((instance, _), station)) =
            self.stations.all.iter_mut().find(|(_, station)| station.number == number)
        else {
            return;
        };
        match line {
            Line::Ready(connection) => {
                if station.connection != Some(connection) {
                    (station.connection, station.told) = (Some(connection), None);
                    station.numbers_at = station.numbers_after(Instant::now());
                }
                station.can_take = true;
            }
            Line::Gone(_) => {
                (station.connection, station.can_take, station.told) = (None, false, None);
                if let Some(rib) = self.ribs.get_mut(instance) {
                    rib.unmonitor(number);
                }
            }
        }
    }

    /// Gives every station its next batch that takes one.
    pub(super) fn pump_stations(&mut self) {
        for ((instance, _), station) in &mut self.stations.all {
            if !station.can_take {
                continue;
            }
            let Some(rib) = self.ribs.get_mut(instance) else { continue };
            let mut batch = BytesMut::new();
            if station.told.is_none() {
                let description = concat!("rhumb-bgp ", env!("CARGO_PKG_VERSION")).to_owned();
                let name = self.options.host.clone();
                batch.extend_from_slice(&Message::Initiation { name, description }.encode());
            }
            let told = station.told.get_or_insert_default();
            compare(instance, &self.peers, told, rib, station.number, &station.config, &mut batch);
            let now = Instant::now();
            if station.numbers_at.is_some_and(|at| at <= now) {
                for (key, told) in &*told {
                    let Some(peer) = self.peers.get(key) else { continue };
                    batch.extend_from_slice(&numbers(peer, told, rib).encode());
                }
                station.numbers_at = station.numbers_after(now);
            }
            let told = station.told.get_or_insert_default();
            while batch.len() < BATCH
                && let Some((id, news)) = rib.next_monitored(station.number)
            {
                let Some(of) = told.values().find(|told| told.id == id) else { continue };
                news.iter().for_each(|one| of.write(one, &mut batch));
            }
            if !batch.is_empty() {
                station.can_take = false;
                station.send(batch.freeze());
            }
        }
    }
}

impl Station {
    fn send(&self, batch: bytes::Bytes) {
        if let Some(connection) = self.connection
            && self.orders.try_send(Order::Send(connection, batch)).is_err()
        {
            // It is told of its end by the end of the channel then.
            warn!(station = %self.config.address, "a monitoring station takes no more");
        }
    }

    fn numbers_after(&self, now: Instant) -> Option<Instant> {
        let interval = Duration::from_secs(self.config.statistics.into());
        (!interval.is_zero()).then(|| now + interval)
    }
}

/// Tells of sessions that came or went.
fn compare(
    instance: &str,
    peers: &BTreeMap<PeerKey, Peer>,
    told: &mut BTreeMap<PeerKey, Told>,
    rib: &mut Rib,
    station: StationId,
    config: &feed::Station,
    batch: &mut BytesMut,
) {
    let session = |key: &PeerKey| peers.get(key).and_then(|peer| peer.session.as_ref());
    told.retain(|key, told| {
        let stays = session(key).is_some_and(|session| session.number == told.session);
        if !stays {
            let end = peers.get(key).map(|peer| peer.last_end.as_ref());
            let reason = match end {
                None => Down::Unconfigured,
                Some(Some(LastEnd(number, cause))) if *number == told.session => reason(cause),
                Some(_) => Down::Closed,
            };
            batch.extend_from_slice(&Message::PeerDown { peer: told.peer, at: now(), reason }.encode());
        }
        stays
    });
    for (key, peer) in peers.iter().filter(|(_, peer)| peer.instance == instance) {
        let Some(session) = peer.session.as_ref().filter(|_| !told.contains_key(key)) else { continue };
        let views = [(config.pre_policy, View::PrePolicy), (config.post_policy, View::PostPolicy)];
        let views: BTreeSet<View> =
            views.iter().filter(|(wanted, _)| *wanted).map(|(_, view)| *view).collect();
        let of = Told::new(peer, session);
        let [sent, received] = session.opens.clone();
        let up = PeerUp {
            peer: of.peer,
            at: peer.since.since(Timestamp::default()),
            local: session.local,
            remote_port: session.remote.port(),
            sent,
            received,
        };
        batch.extend_from_slice(&Message::PeerUp(Box::new(up)).encode());
        rib.monitor(station, peer.id, views);
        told.insert(key.clone(), of);
    }
}

impl Told {
    fn new(peer: &Peer, session: &Established) -> Self {
        let negotiated = &session.negotiated;
        // Paths are written with four octets whatever the peer's are (RFC 7854 §4.2, flag A).
        let plain = Negotiated {
            asn4: true,
            add_path_send: negotiated.add_path_receive.clone(),
            ..negotiated.clone()
        };
        let internal = Negotiated { peer_asn: plain.asn, ..plain.clone() };
        Told {
            session: session.number,
            id: peer.id,
            peer: bmp::Peer {
                address: session.remote.ip(),
                asn: negotiated.peer_asn,
                router_id: negotiated.peer_router_id,
                view: View::PrePolicy,
                two_octets: false,
            },
            writer: Writer { plain: Codec::new(&plain), internal: Codec::new(&internal) },
        }
    }

    fn write(&self, news: &Monitored, batch: &mut BytesMut) {
        let (view, updates) = match news {
            Monitored::Announce { view, family, attributes, next_hop, nlri } => {
                let codec =
                    if attributes.local_pref.is_some() { &self.writer.internal } else { &self.writer.plain };
                let updates =
                    codec.encode_update(attributes, next_hop, nlri).unwrap_or_else(|error: EncodeError| {
                        warn!(%error, "routes are not told to a monitoring station");
                        self.writer.plain.encode_withdraw(*family, nlri)
                    });
                (view, updates)
            }
            Monitored::Withdraw { view, family, nlri } => {
                (view, self.writer.plain.encode_withdraw(*family, nlri))
            }
            Monitored::EndOfRib(view, family) => (view, self.writer.plain.encode_end_of_rib(*family)),
        };
        let peer = bmp::Peer { view: *view, ..self.peer };
        for update in updates {
            // When a route came is not kept, and 0 says so (RFC 7854 §4.2).
            batch.extend_from_slice(&Message::Routes { peer, at: Duration::ZERO, update }.encode());
        }
    }
}

fn numbers(peer: &Peer, told: &Told, rib: &Rib) -> Message {
    let families = peer.session.iter().flat_map(|session| &session.negotiated.families);
    let counts: Vec<_> =
        families.map(|family| (*family, u64::from(rib.counts(peer.id, *family).received))).collect();
    let mut numbers = vec![Statistic::Routes(counts.iter().map(|(_, count)| count).sum())];
    numbers.extend(counts.iter().map(|(family, count)| Statistic::RoutesOf(*family, *count)));
    numbers.push(Statistic::TreatedAsWithdraw(peer.withdrawn_by_errors));
    Message::Statistics { peer: told.peer, at: now(), numbers }
}

fn reason(cause: &Cause) -> Down {
    match cause {
        Cause::ConnectionFailed => Down::Closed,
        Cause::HoldTimerExpired => Down::Told(Notification::hold_timer_expired()),
        Cause::Received(text) => Down::Heard(text.clone()),
        Cause::Sent(text) => Down::Told(text.clone()),
        Cause::Collision => Down::Event(CONNECTION_CONFIRMED),
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
