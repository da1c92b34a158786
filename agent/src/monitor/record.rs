// SPDX-License-Identifier: Apache-2.0
//! A packet event in words, with the names of pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rhumb_ebpf::{PacketEvent, Reason, Transport, Verdict};
use serde::Serialize;

const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// The pods of this node, by what packets show of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The host's end by index: its name and the pod behind it.
    pub(crate) links: BTreeMap<u32, (String, String)>,
    /// Pods by address.
    pub(crate) pods: BTreeMap<IpAddr, String>,
}

impl Names {
    /// Addresses of the pod with this name.
    pub(super) fn addresses(&self, pod: &str) -> Vec<IpAddr> {
        self.pods.iter().filter(|(_, name)| *name == pod).map(|(addr, _)| *addr).collect()
    }
}

/// One end of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct End {
    pub(crate) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The pod of this node that has the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
}

/// What a watcher is told of one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) direction: &'static str,
    pub(crate) ifindex: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    /// The pod behind the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    pub(crate) protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destination: Option<End>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tcp_flags: Vec<&'static str>,
    /// Type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp: Option<(u8, u8)>,
    pub(crate) length: u32,
    #[serde(skip)]
    event: (Verdict, Reason),
}

impl Record {
    /// Puts an event in words; `boot` is when the clock of events began.
    pub(super) fn new(event: &PacketEvent, boot: SystemTime, names: &Names) -> Self {
        let (ports, flags, icmp) = match event.transport {
            Some(Transport::Tcp { ports, flags }) => (Some(ports), flags, None),
            Some(Transport::Ports(src, dst)) => (Some((src, dst)), 0, None),
            Some(Transport::Icmp(kind, code)) => (None, 0, Some((kind, code))),
            None => (None, 0, None),
        };
        let end = |address: IpAddr, port| End { address, port, pod: names.pods.get(&address).cloned() };
        let link = names.links.get(&event.ifindex);
        Self {
            time: rfc3339(boot + event.at),
            verdict: verdict(event.verdict),
            reason: event.reason.text(),
            direction: event.direction.text(),
            ifindex: event.ifindex,
            interface: link.map(|(ifname, _)| ifname.clone()),
            pod: link.map(|(_, pod)| pod.clone()),
            protocol: protocol(event),
            source: event.addrs.map(|(src, _)| end(src, ports.map(|(src, _)| src))),
            destination: event.addrs.map(|(_, dst)| end(dst, ports.map(|(_, dst)| dst))),
            tcp_flags: (0..8).filter(|bit| flags & 1 << bit != 0).map(|bit| TCP_FLAGS[bit]).collect(),
            icmp,
            length: event.length,
            event: (event.verdict, event.reason),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.event.0
    }

    pub(super) fn why(&self) -> Reason {
        self.event.1
    }

    /// Whether the pod sent it, or it is the pod's by one of its addresses.
    pub(super) fn concerns(&self, pod: &str) -> bool {
        let ends = [&self.source, &self.destination].into_iter().flatten().map(|end| &end.pod);
        ends.chain([&self.pod]).flatten().any(|name| name == pod)
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Redirect => "redirect",
        Verdict::Next => "pass",
        Verdict::Drop => "drop",
    }
}

fn protocol(event: &PacketEvent) -> String {
    let known = match event.protocol {
        Some(1) => "icmp",
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(58) => "icmpv6",
        Some(132) => "sctp",
        Some(other) => return format!("ip-{other}"),
        None if event.addrs.is_some() => "arp",
        None => return format!("ether-{:#06x}", event.ethertype),
    };
    known.to_owned()
}

/// The time in UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of the Gregorian calendar, of a day since 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let every = |year: u64, years| year.is_multiple_of(years);
    let leap = |year| every(year, 4) && (!every(year, 100) || every(year, 400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rhumb_ebpf::Direction;

    pub(crate) fn event(reason: Reason, src: &str, dst: &str) -> PacketEvent {
        let addr = |text: &str| text.parse().expect("an address");
        PacketEvent {
            at: Duration::from_millis(1_500),
            verdict: reason.verdict(),
            reason,
            direction: Direction::FromPod,
            ifindex: 7,
            length: 60,
            ethertype: 0x0800,
            addrs: Some((addr(src), addr(dst))),
            protocol: Some(6),
            transport: Some(Transport::Tcp { ports: (1000, 80), flags: 0x12 }),
        }
    }

    pub(crate) fn names() -> Names {
        let pods = [("10.0.0.1", "default/a"), ("fd00::1", "default/a"), ("10.0.0.2", "default/b")];
        Names {
            links: [(7, ("rh1".to_owned(), "default/a".to_owned()))].into(),
            pods: pods.map(|(addr, pod)| (addr.parse().expect("an address"), pod.to_owned())).into(),
        }
    }

    #[test]
    fn a_record_names_the_pods_of_the_node() {
        let event = event(Reason::SourceAddress, "10.9.9.9", "10.0.0.2");
        let record = Record::new(&event, UNIX_EPOCH, &names());
        let json = serde_json::to_value(&record).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({
                "time": "1970-01-01T00:00:01.500Z", "verdict": "drop", "reason": "source_address",
                "direction": "from_pod", "ifindex": 7, "interface": "rh1", "pod": "default/a",
                "protocol": "tcp", "source": {"address": "10.9.9.9", "port": 1000},
                "destination": {"address": "10.0.0.2", "port": 80, "pod": "default/b"},
                "tcp_flags": ["SYN", "ACK"], "length": 60,
            })
        );
        assert!(record.concerns("default/a") && record.concerns("default/b"));
        assert!(!record.concerns("default/c"));
    }

    #[test]
    fn what_is_not_ip_is_called_by_its_type() {
        let mut event = event(Reason::NotIp, "10.0.0.1", "10.0.0.2");
        (event.protocol, event.transport) = (None, None);
        assert_eq!(protocol(&event), "arp");
        (event.addrs, event.ethertype) = (None, 0x88cc);
        assert_eq!(protocol(&event), "ether-0x88cc");
        event.protocol = Some(89);
        assert_eq!(protocol(&event), "ip-89");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
