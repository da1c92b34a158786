// SPDX-License-Identifier: Apache-2.0
//! The flows of the datapath, as the command line asks for them.

use std::net::{IpAddr, SocketAddr};

use rhumb_ebpf::{EntryError, Flow, FlowTable, Translation};
use serde::Deserialize;
use serde_json::{Value, json};

/// Which flows somebody wants to see.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Only those of this address, also when it stands for a pod.
    #[serde(default)]
    address: Option<IpAddr>,
    /// At most this many.
    most: usize,
}

impl Request {
    fn wants(&self, flow: &Flow) -> bool {
        let translated = flow.translated.map(|(_, socket)| socket);
        let sockets = [Some(flow.opener), Some(flow.replier), translated];
        self.address.is_none_or(|addr| sockets.iter().flatten().any(|socket| socket.ip() == addr))
    }

    /// The flows, and how many more there are. Reads the whole map, which takes a while.
    ///
    /// # Errors
    /// [`EntryError`] when the map cannot be read.
    pub(crate) fn answer(self, table: &FlowTable) -> Result<Value, EntryError> {
        let (flows, more) = table.read(self.most, |flow| self.wants(flow))?;
        Ok(json!({ "flows": flows.iter().map(show).collect::<Vec<_>>(), "more": more }))
    }
}

fn show(flow: &Flow) -> Value {
    let mut flags = Vec::new();
    match flow.translated {
        Some((Translation::HostPort, _)) => flags.push("host-port"),
        Some((Translation::Masquerade, _)) => flags.push("masqueraded"),
        None => {}
    }
    if flow.by_stack {
        flags.push("by-stack");
    }
    let end = |socket: SocketAddr| json!({"address": socket.ip(), "port": socket.port()});
    json!({
        "protocol": protocol(flow.protocol), "opener": end(flow.opener), "replier": end(flow.replier),
        "state": flow.state, "age_seconds": flow.age.as_secs(),
        "expires_in_seconds": flow.expires_in.map(|left| left.as_secs()),
        "packets": flow.packets, "bytes": flow.bytes,
        "known_as": flow.translated.map(|(_, socket)| end(socket)), "flags": flags,
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

    fn flow() -> Flow {
        let socket = |text: &str| text.parse().expect("valid");
        Flow {
            protocol: 6,
            opener: socket("10.0.0.1:4000"),
            replier: socket("192.0.2.7:80"),
            state: "established",
            age: Duration::from_secs(5),
            expires_in: Some(Duration::from_secs(8000)),
            packets: [3, 2],
            bytes: [300, 200],
            translated: Some((Translation::Masquerade, socket("198.51.100.1:5000"))),
            by_stack: false,
        }
    }

    #[test]
    fn a_flow_is_found_by_each_of_its_addresses() {
        let wants = |text: &str| {
            let address = Some(text.parse().expect("an address"));
            Request { address, most: 1 }.wants(&flow())
        };
        assert!(wants("10.0.0.1") && wants("192.0.2.7") && wants("198.51.100.1") && !wants("10.0.0.2"));
        assert!(Request { address: None, most: 1 }.wants(&flow()));
    }

    #[test]
    fn a_flow_is_shown_with_all_that_is_known() {
        assert_eq!(
            show(&flow()),
            json!({
                "protocol": "tcp", "opener": {"address": "10.0.0.1", "port": 4000},
                "replier": {"address": "192.0.2.7", "port": 80}, "state": "established", "age_seconds": 5,
                "expires_in_seconds": 8000, "packets": [3, 2], "bytes": [300, 200],
                "known_as": {"address": "198.51.100.1", "port": 5000}, "flags": ["masqueraded"],
            })
        );
    }
}
