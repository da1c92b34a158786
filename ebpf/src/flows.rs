// SPDX-License-Identifier: Apache-2.0
//! The flows that the datapath remembers, for people to look at.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rhumb_ebpf_common::ct::{Side, TICK_SHIFT, state};
use rhumb_ebpf_common::layout::{Address, Ct, CtKey};

use crate::entries::{Entries, EntryError, to_addr};
use crate::tick;

/// A flow between two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// The side that sent the first packet; of an ICMP echo the port is its identifier.
    pub opener: SocketAddr,
    /// The other side.
    pub replier: SocketAddr,
    /// How far it has come, in a word.
    pub state: &'static str,
    /// Since when it is remembered.
    pub age: Duration,
    /// When it is forgotten, unless another packet comes; nothing when it is over already and only not removed.
    pub expires_in: Option<Duration>,
    /// Packets from the opener, and to it.
    pub packets: [u64; 2],
    /// Bytes from the opener, and to it.
    pub bytes: [u64; 2],
    /// By which address and port the other side knows the pod, where that is not the pod's own.
    pub translated: Option<(Translation, SocketAddr)>,
    /// Whether packets of either side go through the host's stack.
    pub by_stack: bool,
}

/// Why the other side knows a pod by another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// The opener called a host port.
    HostPort,
    /// The pod is masqueraded.
    Masquerade,
}

/// Reads flows out of the map. Each is a call of the kernel or two, so a full map takes a while.
#[derive(Debug, Clone)]
pub struct FlowTable {
    maps: PathBuf,
}

impl FlowTable {
    pub(crate) fn new(maps: &Path) -> Self {
        Self { maps: maps.to_owned() }
    }

    /// Up to `most` flows for which `wanted` holds, and how many more there are.
    ///
    /// # Errors
    /// [`EntryError`] when the map cannot be opened or read.
    pub fn read(
        &self,
        most: usize,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<(Vec<Flow>, usize), EntryError> {
        let entries = Entries::<CtKey, Ct>::open(&self.maps, "ct")?;
        let now = tick::now();
        let (mut flows, mut more) = (Vec::new(), 0);
        for entry in entries.walk() {
            let (key, value) = entry?;
            let flow = read(&key, &value, now);
            if !wanted(&flow) {
                continue;
            }
            if flows.len() < most { flows.push(flow) } else { more += 1 }
        }
        Ok((flows, more))
    }
}

fn read(key: &CtKey, value: &Ct, now: u32) -> Flow {
    let opener = value.opener();
    let translation = if value.has(Ct::HOST_PORT) {
        Some(Translation::HostPort)
    } else {
        value.has(Ct::MASQUERADED).then_some(Translation::Masquerade)
    };
    Flow {
        protocol: key.protocol,
        opener: socket(key.side(opener)),
        replier: socket(key.side(opener.other())),
        state: state::text(value.state),
        age: ticks(now.saturating_sub(value.created)),
        expires_in: value.expires.checked_sub(now).filter(|left| *left > 0).map(ticks),
        packets: value.packets,
        bytes: value.bytes,
        translated: translation.map(|why| (why, socket((value.nat_addr, value.nat_port)))),
        by_stack: value.flags & (Side::Low.stack() | Side::High.stack()) != 0,
    }
}

fn socket((addr, port): (Address, [u8; 2])) -> SocketAddr {
    SocketAddr::new(to_addr(addr), u16::from_be_bytes(port))
}

fn ticks(count: u32) -> Duration {
    Duration::from_nanos(u64::from(count) << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::to_words;

    fn side(text: &str) -> (Address, [u8; 2]) {
        let socket: SocketAddr = text.parse().expect("valid");
        (to_words(socket.ip()), socket.port().to_be_bytes())
    }

    #[test]
    fn a_flow_reads_the_same_whichever_side_is_low() {
        for (opener, replier) in [("10.0.0.1:4000", "10.0.0.2:80"), ("[fd00::2]:4000", "[fd00::1]:80")] {
            let (key, low) = CtKey::of_sides(side(opener), side(replier), 6);
            let flags = if low == Side::High { Ct::OPENER_HIGH } else { 0 };
            let value = Ct { expires: 107, created: 95, flags, state: state::ESTABLISHED, ..Ct::default() };
            let flow = read(&key, &value, 100);
            assert_eq!(
                (flow.opener.to_string(), flow.replier.to_string()),
                (opener.to_owned(), replier.to_owned())
            );
            assert_eq!((flow.age, flow.expires_in), (ticks(5), Some(ticks(7))));
            assert_eq!((flow.state, flow.translated, flow.by_stack), ("established", None, false));
            assert_eq!(read(&key, &value, 107).expires_in, None);
        }
    }

    #[test]
    fn a_translated_flow_says_why_and_to_what() {
        let (key, _) = CtKey::of_sides(side("10.0.0.1:4000"), side("192.0.2.7:80"), 17);
        let (nat_addr, nat_port) = side("198.51.100.1:5000");
        let value = Ct { flags: Ct::MASQUERADED, nat_addr, nat_port, ..Ct::default() };
        let expected = (Translation::Masquerade, "198.51.100.1:5000".parse().expect("valid"));
        assert_eq!(read(&key, &value, 0).translated, Some(expected));
    }
}
