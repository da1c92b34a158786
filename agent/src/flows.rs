// SPDX-License-Identifier: Apache-2.0
//! The flows and mappings of the datapath, as the command line asks for them.

use std::net::SocketAddr;

use rhumb_ebpf::{Course, EntryError, Flow, FlowTable, Mapping};
use serde_json::{Value, json};

use crate::question::{Flows, Table};

impl Flows {
    fn has(&self, sockets: impl IntoIterator<Item = SocketAddr>) -> bool {
        self.address.is_none_or(|addr| sockets.into_iter().any(|socket| socket.ip() == addr))
    }

    fn wants_flow(&self, flow: &Flow) -> bool {
        let courses = flow.course.iter().map(|course| match course {
            Course::Masqueraded(socket) | Course::HostPort(socket) | Course::Stack(socket) => *socket,
        });
        self.has([flow.opener, flow.replier].into_iter().chain(courses))
    }

    fn wants_mapping(&self, mapping: &Mapping) -> bool {
        self.has([mapping.remote, mapping.node, mapping.pod])
    }

    /// The entries, and how many more there are. Reads the whole map, which takes a while.
    ///
    /// # Errors
    /// [`EntryError`] when the map cannot be read.
    pub(crate) fn answer(self, tables: &FlowTable) -> Result<Value, EntryError> {
        let (entries, more): (Vec<Value>, usize) = match self.table {
            Table::Ct => {
                let (flows, more) = tables.flows(self.most, |flow| self.wants_flow(flow))?;
                (flows.iter().map(show_flow).collect(), more)
            }
            Table::Nat => {
                let (mappings, more) = tables.mappings(self.most, |mapping| self.wants_mapping(mapping))?;
                (mappings.iter().map(show_mapping).collect(), more)
            }
        };
        Ok(json!({ "entries": entries, "more": more }))
    }
}

fn show_flow(flow: &Flow) -> Value {
    let course = flow.course.iter().map(|course| {
        let (word, socket) = match course {
            Course::Masqueraded(socket) => ("masqueraded", socket),
            Course::HostPort(socket) => ("host-port", socket),
            Course::Stack(socket) => ("stack", socket),
        };
        format!("{word}={socket}")
    });
    json!({
        "protocol": protocol(flow.protocol), "opener": flow.opener, "replier": flow.replier, "state": flow.state,
        "remains_seconds": flow.remains.as_secs(), "packets": flow.packets, "bytes": flow.bytes,
        "course": course.collect::<Vec<_>>(),
    })
}

fn show_mapping(mapping: &Mapping) -> Value {
    json!({
        "protocol": protocol(mapping.protocol), "remote": mapping.remote, "node": mapping.node,
        "pod": mapping.pod, "remains_seconds": mapping.remains.as_secs(),
    })
}

/// The name of an IP protocol that the datapath follows.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("ip-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("valid")
    }

    fn flow() -> Flow {
        Flow {
            protocol: 6,
            opener: socket("10.0.0.1:4000"),
            replier: socket("192.0.2.7:80"),
            state: "established",
            remains: Duration::from_secs(8000),
            course: vec![Course::Masqueraded(socket("198.51.100.1:5000"))],
            packets: [3, 2],
            bytes: [300, 200],
        }
    }

    fn mapping() -> Mapping {
        Mapping {
            protocol: 6,
            remote: socket("192.0.2.7:80"),
            node: socket("198.51.100.1:5000"),
            pod: socket("10.0.0.1:4000"),
            remains: Duration::from_secs(8000),
        }
    }

    #[test]
    fn what_is_there_is_found_by_each_of_its_addresses() {
        let request = |address| Flows { table: Table::Ct, address, most: 1 };
        let wants = |text: &str| {
            let request = request(Some(text.parse().expect("an address")));
            [request.wants_flow(&flow()), request.wants_mapping(&mapping())]
        };
        for own in ["10.0.0.1", "192.0.2.7", "198.51.100.1"] {
            assert_eq!(wants(own), [true; 2], "{own}");
        }
        assert_eq!(wants("10.0.0.2"), [false; 2]);
        assert!(request(None).wants_flow(&flow()));
    }

    #[test]
    fn flows_and_mappings_are_shown_with_all_that_is_known() {
        assert_eq!(
            show_flow(&flow()),
            json!({
                "protocol": "tcp", "opener": "10.0.0.1:4000", "replier": "192.0.2.7:80", "state": "established",
                "remains_seconds": 8000, "packets": [3, 2], "bytes": [300, 200],
                "course": ["masqueraded=198.51.100.1:5000"],
            })
        );
        assert_eq!(
            show_mapping(&mapping()),
            json!({
                "protocol": "tcp", "remote": "192.0.2.7:80", "node": "198.51.100.1:5000", "pod": "10.0.0.1:4000",
                "remains_seconds": 8000,
            })
        );
    }
}
