// SPDX-License-Identifier: Apache-2.0
//! What the programs remember of flows, for people to read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rhumb_ebpf_common::ct::{Side, TICK_SHIFT, state};
use rhumb_ebpf_common::layout::{Address, Ct, CtKey, Nat, NatKey};

use crate::entries::{Entries, EntryError, to_addr};
use crate::tick;

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sent the first packet; for an ICMP echo the port is the identifier.
    pub opener: SocketAddr,
    /// The other side.
    pub replier: SocketAddr,
    /// Name of its state.
    pub state: &'static str,
    /// For how long it is remembered without another packet; zero when it waits to be removed.
    pub remains: Duration,
    /// What is done to its packets.
    pub course: Vec<Course>,
    /// Packets from the opener, and to it.
    pub packets: [u64; 2],
    /// Bytes from the opener, and to it.
    pub bytes: [u64; 2],
}

/// What is done to the packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// The opener's packets leave the node with this source.
    Masqueraded(SocketAddr),
    /// The opener called this host port.
    HostPort(SocketAddr),
    /// Packets of this address go through the host's stack.
    Stack(SocketAddr),
}

/// A mapping of a masqueraded flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Mapping {
    /// IP protocol number.
    pub protocol: u8,
    /// Who answers.
    pub remote: SocketAddr,
    /// What the answers are addressed to.
    pub node: SocketAddr,
    /// Whom they are for.
    pub pod: SocketAddr,
    /// For how long it is remembered without another packet.
    pub remains: Duration,
}

/// Reads flows and mappings for somebody who wants some of them. Each is a call of the kernel or two, so a full map
/// takes a while; only what is wanted is kept.
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
    pub fn flows(
        &self,
        most: usize,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Result<(Vec<Flow>, usize), EntryError> {
        let now = tick::now();
        let entries = Entries::<CtKey, Ct>::open(&self.maps, "ct")?;
        choose(entries.walk(|key, flow| read(key, flow, now)), most, wanted)
    }

    /// Up to `most` mappings for which `wanted` holds, and how many more there are.
    ///
    /// # Errors
    /// [`EntryError`] when the map cannot be opened or read.
    pub fn mappings(
        &self,
        most: usize,
        wanted: impl Fn(&Mapping) -> bool,
    ) -> Result<(Vec<Mapping>, usize), EntryError> {
        let now = tick::now();
        let entries = Entries::<NatKey, Nat>::open(&self.maps, "nat")?;
        choose(entries.walk(|key, nat| read_mapping(key, nat, now)), most, wanted)
    }
}

fn choose<T>(
    all: impl Iterator<Item = Result<T, EntryError>>,
    most: usize,
    wanted: impl Fn(&T) -> bool,
) -> Result<(Vec<T>, usize), EntryError> {
    let (mut chosen, mut more) = (Vec::new(), 0);
    for item in all {
        let item = item?;
        if !wanted(&item) {
            continue;
        }
        if chosen.len() < most {
            chosen.push(item);
        } else {
            more += 1;
        }
    }
    Ok((chosen, more))
}

fn read_mapping(key: &NatKey, nat: &Nat, now: u32) -> Mapping {
    Mapping {
        protocol: key.protocol,
        remote: socket((key.remote, key.remote_port)),
        node: socket((key.node, key.node_port)),
        pod: socket((nat.pod, nat.pod_port)),
        remains: remains(nat.expires, now),
    }
}

fn read(key: &CtKey, flow: &Ct, now: u32) -> Flow {
    let opener = flow.opener();
    let sent = [flow.sent(opener), flow.sent(opener.other())];
    let known = socket((flow.nat_addr, flow.nat_port));
    let stack = |side: Side| flow.has(side.stack()).then(|| Course::Stack(socket(key.side(side))));
    let course = [
        flow.has(Ct::MASQUERADED).then_some(Course::Masqueraded(known)),
        flow.has(Ct::HOST_PORT).then_some(Course::HostPort(known)),
        stack(Side::Low),
        stack(Side::High),
    ];
    Flow {
        protocol: key.protocol,
        opener: socket(key.side(opener)),
        replier: socket(key.side(opener.other())),
        state: state::text(flow.state),
        remains: remains(flow.expires, now),
        course: course.into_iter().flatten().collect(),
        packets: sent.map(|sent| sent.packets),
        bytes: sent.map(|sent| sent.bytes),
    }
}

fn socket((addr, port): (Address, [u8; 2])) -> SocketAddr {
    SocketAddr::new(to_addr(addr), u16::from_be_bytes(port))
}

fn remains(expires: u32, now: u32) -> Duration {
    Duration::from_nanos(u64::from(expires.saturating_sub(now)) << TICK_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::to_words;
    use rhumb_ebpf_common::ct::Signal;

    #[test]
    fn a_flow_is_told_from_its_openers_side() {
        let end = |text: &str, port: u16| (to_words(text.parse().expect("an address")), port.to_be_bytes());
        let (pod, far) = (end("10.1.0.2", 40_000), end("198.51.100.9", 443));
        for (opener, replier) in [(pod, far), (far, pod)] {
            let (key, side) = CtKey::of_sides(opener, replier, 6);
            let mut flow = Ct::first(6, side, Signal::OPEN, 100);
            flow.count(side, 60);
            flow.translate(Ct::MASQUERADED, to_words([192, 0, 2, 1].into()), 40_001_u16.to_be_bytes());
            let told = read(&key, &flow, 110);
            assert_eq!((told.opener, told.replier), (socket(opener), socket(replier)));
            assert_eq!((told.state, told.packets, told.bytes), ("opening", [1, 0], [60, 0]));
            let node = "192.0.2.1:40001".parse().expect("an address");
            assert_eq!(told.course, [Course::Masqueraded(node)]);
            assert_eq!(told.remains.as_secs(), 53);
        }
    }
}
