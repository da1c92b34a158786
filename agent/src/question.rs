// SPDX-License-Identifier: Apache-2.0
//! What the command line asks the agent: one line of JSON. Values and their parser, and nothing else, so that a fuzzer can
//! hold this file alone.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The longest question in bytes.
pub(crate) const LONGEST: usize = 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Question {
    Show(Show),
    Metrics { metrics: Form },
    Flows { flows: Flows },
    Monitor { monitor: Packets },
    Follow { follow: Followed },
}

/// What is answered at once, by one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Show {
    /// Readiness, pools and targets.
    Status,
    /// Attachments.
    Pods,
    /// Addresses that are leased or rest.
    Ips,
    /// Pod prefixes and the way to them.
    Routes,
    /// The last changes of ways.
    RouteChanges,
    /// Whether the agents of other nodes answer.
    Probes,
    /// The datapath's endpoint map.
    Endpoints,
    /// The datapath's map of prefixes elsewhere.
    Ipcache,
}

/// How metrics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// As a list of samples.
    Samples,
    /// As Prometheus reads them.
    Text,
}

/// Which of the datapath's maps of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Table {
    Ct,
    Nat,
}

/// Entries of such a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flows {
    pub(crate) table: Table,
    /// Only what has this address, also where it stands for a pod.
    #[serde(default)]
    pub(crate) address: Option<IpAddr>,
    /// At most this many.
    pub(crate) most: usize,
}

/// Packets, as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Packets {
    /// Dropped packets.
    pub(crate) drops: bool,
    /// Other packets.
    pub(crate) traces: bool,
    /// Only those of this pod, as `NAMESPACE/NAME`.
    pub(crate) pod: Option<String>,
    /// Only those with this reason.
    pub(crate) reason: Option<String>,
    /// This many of the kept drops, the newest, and nothing after them.
    pub(crate) last: Option<usize>,
}

/// What is told as it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Followed {
    /// The ways to other nodes' pods.
    RouteChanges,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// It is too long, or none of those above.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line.get(..LONGEST).unwrap_or(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_of_the_command_line_are_understood() {
        let parse = |text: &str| Question::parse(text.as_bytes()).ok();
        assert_eq!(parse("\"route_changes\"\n"), Some(Question::Show(Show::RouteChanges)));
        assert_eq!(parse(r#"{"metrics": "text"}"#), Some(Question::Metrics { metrics: Form::Text }));
        let flows = Flows { table: Table::Ct, address: None, most: 7 };
        assert_eq!(parse(r#"{"flows": {"table": "ct", "most": 7}}"#), Some(Question::Flows { flows }));
        let monitor = Packets { drops: true, ..Packets::default() };
        assert_eq!(parse(r#"{"monitor": {"drops": true}}"#), Some(Question::Monitor { monitor }));
        let follow = Followed::RouteChanges;
        assert_eq!(parse(r#"{"follow": "route_changes"}"#), Some(Question::Follow { follow }));
        for bad in
            ["", "\"nonsense\"", "{}", r#"{"flows": {"table": "ct"}}"#, r#"{"monitor": {"drop": true}}"#]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("\"{}\"", "a".repeat(LONGEST))), None);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_a_question_or_not(line: Vec<u8>) {
            drop(Question::parse(&line));
        }
    }
}
