// SPDX-License-Identifier: Apache-2.0
//! What the kernel side tells of single packets.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use rhumb_ebpf_common::event::{self, Limit};
use rhumb_ebpf_common::{Direction, Reason, Verdict, ethernet};
use rustix::time::{ClockId, clock_gettime};

use crate::entries::{to_addr, to_words};
use crate::object::WATCH;

const LIMITS: &str = "event_limits";

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Something that happened to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketEvent {
    /// When, as [`boot_clock`] counts.
    pub at: Duration,
    /// What became of the packet.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Which program saw it.
    pub direction: Direction,
    /// The interface that the program is attached to.
    pub ifindex: u32,
    /// Length of the frame as it came.
    pub length: u32,
    /// Type of the frame's payload.
    pub ethertype: u16,
    /// Sender and receiver, where the frame carries IP or ARP.
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// IP protocol number; for IPv6 the first next header.
    pub protocol: Option<u8>,
    /// What stands first in the packet's transport header.
    pub transport: Option<Transport>,
}

/// What tells packets of one pair of addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, with the flags of the segment.
    Tcp {
        /// Sender's and receiver's port.
        ports: (u16, u16),
        /// Bits of the TCP header (RFC 9293 §3.1).
        flags: u8,
    },
    /// UDP or SCTP: sender's and receiver's port.
    Ports(u16, u16),
    /// ICMP or ICMPv6: type and code.
    Icmp(u8, u8),
}

/// Which packets that are not dropped somebody wants to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only packets from or to one of these addresses, of which the kernel side takes two; all when there are more or
    /// none.
    pub addrs: Vec<IpAddr>,
    /// Only packets with this reason.
    pub reason: Option<Reason>,
}

/// Packets that were not told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold {
    /// Their reason.
    pub reason: Reason,
    /// How many there were too many of at a time.
    pub limited: u64,
    /// How many found the ring full.
    pub full: u64,
}

/// Why events cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A map cannot be opened.
    #[error("open map {map}")]
    Open {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The wish cannot be written.
    #[error("write map watch")]
    Watch(#[source] Box<MapError>),
    /// The events that were not told cannot be counted.
    #[error("read map event_limits")]
    Untold(#[source] Box<MapError>),
}

/// Time since boot, suspension included: the clock of events.
pub fn boot_clock() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// The events of the kernel side. There is one ring: of several readers each event reaches one.
///
/// The descriptor becomes readable when much waits; in between [`Events::next`] has what there is.
pub struct Events {
    ring: RingBuf<MapData>,
    watch: Array<MapData, event::Watch>,
    limits: PerCpuArray<MapData, Limit>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Events {
    pub(crate) fn open(maps: &Path) -> Result<Self, EventError> {
        let open = |map: &'static str| {
            let failed = move |source| EventError::Open { map, source: Box::new(source) };
            MapData::from_pin(maps.join(map)).and_then(Map::from_map_data).map_err(failed)
        };
        let failed = |map| move |source| EventError::Open { map, source: Box::new(source) };
        Ok(Self {
            ring: RingBuf::try_from(open("events")?).map_err(failed("events"))?,
            watch: Array::try_from(open(WATCH)?).map_err(failed(WATCH))?,
            limits: PerCpuArray::try_from(open(LIMITS)?).map_err(failed(LIMITS))?,
        })
    }

    /// The next event that waits. What programs of another version told and this one does not know is passed over.
    #[expect(clippy::should_implement_trait, reason = "there may be more after nothing was there")]
    pub fn next(&mut self) -> Option<PacketEvent> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = event::Event::from_bytes(&item).as_ref().and_then(decode) {
                return Some(event);
            }
        }
    }

    /// Lets the kernel side tell of more than drops until `until` on [`boot_clock`]; nothing ends that at once.
    ///
    /// # Errors
    /// [`EventError::Watch`] when the kernel does not take it.
    pub fn watch(&mut self, wish: Option<&Wish>, until: Duration) -> Result<(), EventError> {
        let watch = wish.map_or(event::Watch::NOBODY, |wish| encode(wish, until));
        self.watch.set(0, watch, 0).map_err(|source| EventError::Watch(Box::new(source)))
    }

    /// Packets that were not told of since the maps were made; reasons without any are left out.
    ///
    /// # Errors
    /// [`EventError::Untold`] when the kernel does not give them.
    pub fn untold(&self) -> Result<Vec<Untold>, EventError> {
        read(&self.limits)
    }
}

/// Packets that were not told of.
pub(crate) fn untold(maps: &Path) -> Result<Vec<Untold>, EventError> {
    let failed = |source| EventError::Open { map: LIMITS, source: Box::new(source) };
    let map = MapData::from_pin(maps.join(LIMITS)).and_then(Map::from_map_data).map_err(failed)?;
    read(&PerCpuArray::try_from(map).map_err(failed)?)
}

fn read(limits: &PerCpuArray<MapData, Limit>) -> Result<Vec<Untold>, EventError> {
    let mut untold = Vec::new();
    for reason in Reason::ALL {
        let limits = limits
            .get(&u32::from(*reason as u8), 0)
            .map_err(|source| EventError::Untold(Box::new(source)))?;
        let limited = limits.iter().map(|limit| limit.limited).sum();
        let full = limits.iter().map(|limit| limit.full).sum();
        if limited > 0 || full > 0 {
            untold.push(Untold { reason: *reason, limited, full });
        }
    }
    Ok(untold)
}

fn encode(wish: &Wish, until: Duration) -> event::Watch {
    let addrs = match wish.addrs[..] {
        [one] => [to_words(one); 2],
        [one, other] => [to_words(one), to_words(other)],
        _ => [[0; 4]; 2],
    };
    event::Watch {
        until: u64::try_from(until.as_nanos()).unwrap_or(u64::MAX),
        addrs,
        reason: wish.reason.map_or(0, |reason| reason as u8),
        padding: [0; 7],
    }
}

fn decode(event: &event::Event) -> Option<PacketEvent> {
    let ports = (u16::from_be_bytes(event.src_port), u16::from_be_bytes(event.dst_port));
    let [kind, code] = event.src_port;
    let is_ip = event.ethertype == ethernet::IPV4 || event.ethertype == ethernet::IPV6;
    let transport = match event.protocol {
        TCP => Some(Transport::Tcp { ports, flags: event.tcp_flags }),
        UDP | SCTP => Some(Transport::Ports(ports.0, ports.1)),
        ICMP | ICMPV6 => Some(Transport::Icmp(kind, code)),
        _ => None,
    };
    Some(PacketEvent {
        at: Duration::from_nanos(event.time),
        verdict: verdict(event.verdict)?,
        reason: Reason::from_number(event.reason)?,
        direction: Direction::ALL.into_iter().find(|known| *known as u8 == event.direction)?,
        ifindex: event.ifindex,
        length: event.length,
        ethertype: u16::from_be_bytes(event.ethertype),
        addrs: (is_ip || event.ethertype == ethernet::ARP).then(|| (to_addr(event.src), to_addr(event.dst))),
        protocol: is_ip.then_some(event.protocol),
        transport: transport.filter(|_| is_ip),
    })
}

fn verdict(number: u8) -> Option<Verdict> {
    [Verdict::Redirect, Verdict::Next, Verdict::Drop].into_iter().find(|known| *known as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_told_is_not_guessed_at() {
        let known = event::Event {
            reason: Reason::Malformed as u8,
            verdict: Verdict::Drop as u8,
            ..Default::default()
        };
        assert!(decode(&known).is_some());
        assert_eq!(decode(&event::Event { reason: 255, ..known }), None);
        assert_eq!(decode(&event::Event { direction: 255, ..known }), None);
        assert_eq!(decode(&event::Event { verdict: 255, ..known }), None);
    }

    #[test]
    fn a_wish_for_more_addresses_than_fit_is_one_for_all() {
        let addrs: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|a| a.parse().expect("valid")).into();
        let wish = |count: usize| Wish { addrs: addrs[..count].to_vec(), reason: None };
        assert_eq!(encode(&wish(3), Duration::ZERO).addrs, [[0; 4]; 2]);
        assert_eq!(encode(&wish(1), Duration::ZERO).addrs, [to_words(addrs[0]); 2]);
        assert_eq!(encode(&wish(2), Duration::from_nanos(5)).until, 5);
    }
}
