// SPDX-License-Identifier: Apache-2.0
//! The agent's answers as tables.

use std::fmt::Write;

use serde_json::Value;

use crate::table::Table;

/// Renders the answer to `question`.
pub(crate) fn render(question: &str, answer: &Value, colour: bool) -> String {
    match question {
        "status" => status(answer, colour),
        "ct" => some(
            answer,
            colour,
            &[
                ("PROTOCOL", "protocol"),
                ("OPENER", "opener"),
                ("REPLIER", "replier"),
                ("STATE", "state"),
                ("REMAINS", "remains_seconds"),
                ("PACKETS", "packets"),
                ("BYTES", "bytes"),
                ("COURSE", "course"),
            ],
        ),
        "nat" => some(
            answer,
            colour,
            &[
                ("PROTOCOL", "protocol"),
                ("REMOTE", "remote"),
                ("NODE", "node"),
                ("POD", "pod"),
                ("REMAINS", "remains_seconds"),
            ],
        ),
        "pods" => list(
            answer,
            colour,
            &[
                ("POD", "pod"),
                ("ADDRESSES", "addresses"),
                ("STATE", "state"),
                ("ATTACHMENT", "attachment"),
                ("HOST LINK", "host_ifname"),
                ("MODE", "mode"),
            ],
        ),
        "ips" => list(
            answer,
            colour,
            &[
                ("ADDRESS", "address"),
                ("STATE", "state"),
                ("POOL", "pool"),
                ("POD", "pod"),
                ("ATTACHMENT", "attachment"),
            ],
        ),
        "routes" => list(
            answer,
            colour,
            &[
                ("PREFIX", "prefix"),
                ("NODE", "node"),
                ("WAY", "kind"),
                ("VIA", "via"),
                ("LINK", "dev"),
                ("SINCE", "since"),
                ("REASON", "reason"),
            ],
        ),
        "route_changes" => list(
            answer,
            colour,
            &[
                ("AGO", "ago"),
                ("PREFIX", "prefix"),
                ("NODE", "node"),
                ("FROM", "from"),
                ("TO", "to"),
                ("REASON", "reason"),
            ],
        ),
        "probes" => list(
            answer,
            colour,
            &[("ADDRESS", "address"), ("NODE", "node"), ("STATE", "state"), ("MISSES", "misses")],
        ),
        "ipcache" => list(
            answer,
            colour,
            &[
                ("PREFIX", "prefix"),
                ("TUNNEL", "tunnel"),
                ("IDENTITY", "identity"),
                ("MTU", "mtu"),
                ("FLAGS", "flags"),
            ],
        ),
        _ => list(
            answer,
            colour,
            &[
                ("ADDRESS", "address"),
                ("LINK", "ifname"),
                ("INDEX", "ifindex"),
                ("MAC", "mac"),
                ("FLAGS", "flags"),
            ],
        ),
    }
}

fn list(answer: &Value, colour: bool, columns: &[(&'static str, &str)]) -> String {
    let heads: Vec<&'static str> = columns.iter().map(|(head, _)| *head).collect();
    let mut table = Table::new(&heads);
    for item in answer.as_array().into_iter().flatten() {
        table.row(columns.iter().map(|(_, key)| cell(&item[*key])));
    }
    table.render(colour)
}

/// Some entries, and a last line when there are more.
fn some(answer: &Value, colour: bool, columns: &[(&'static str, &str)]) -> String {
    let mut text = list(&answer["entries"], colour, columns);
    if let Some(more @ 1..) = answer["more"].as_u64() {
        writeln!(text, "{more} more: choose with --address, or raise --most")
            .expect("a string takes every write");
    }
    text
}

/// A value as a person writes it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn status(answer: &Value, colour: bool) -> String {
    let ready = answer["ready"] == Value::Bool(true);
    let word = match (ready, colour) {
        (true, true) => "\x1b[32mready\x1b[0m",
        (true, false) => "ready",
        (false, true) => "\x1b[31mnot ready\x1b[0m",
        (false, false) => "not ready",
    };
    let mut text = format!(
        "{}  {word}  version {}  up {} s  memory {} KiB  revision {}/{}\n",
        cell(&answer["node"]),
        cell(&answer["version"]),
        answer["uptime_seconds"],
        answer["memory_kib"],
        answer["revision"]["reached"],
        answer["revision"]["desired"],
    );
    let told = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    for line in told("reasons").iter().chain(&told("dangers")) {
        writeln!(text, "  {}", cell(line)).expect("a string takes every write");
    }
    let columns: &[(&'static str, &str)] = &[
        ("POOL", "pool"),
        ("FAMILY", "family"),
        ("CAPACITY", "capacity"),
        ("USED", "used"),
        ("COOLING", "cooling"),
        ("FREE", "free"),
        ("PREFIXES", "prefixes"),
    ];
    text.push('\n');
    text.push_str(&list(&answer["pools"], colour, columns));
    let mut targets = Table::new(&["OBJECTS", "COUNT", "FAILING"]);
    let mut failing = String::new();
    for target in answer["targets"].as_array().into_iter().flatten() {
        let failed = target["failing"].as_array().map_or(&[][..], Vec::as_slice);
        targets.row([cell(&target["kind"]), target["objects"].to_string(), failed.len().to_string()]);
        for object in failed {
            let line =
                format!("{} {}: {}", cell(&target["kind"]), cell(&object["key"]), cell(&object["error"]));
            writeln!(failing, "  {line} (tried {} times)", object["attempts"])
                .expect("a string takes every write");
        }
    }
    text.push('\n');
    text.push_str(&targets.render(colour));
    text.push_str(&failing);
    if answer["flows"].as_array().is_some_and(|maps| !maps.is_empty()) {
        let columns: &[(&'static str, &str)] =
            &[("FLOWS", "map"), ("COUNT", "seen"), ("EXPIRED", "removed"), ("EVICTED", "evicted")];
        text.push('\n');
        text.push_str(&list(&answer["flows"], colour, columns));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_becomes_a_table() {
        let answer = json!([{
            "prefix": "10.1.0.0/24", "kind": "direct", "via": "192.0.2.1", "dev": null, "node": "b",
            "since": "7s", "reason": "the node is a neighbour",
        }]);
        let shown = render("routes", &answer, false);
        let lines: Vec<&str> = shown.lines().collect();
        let head = "PREFIX       NODE  WAY     VIA        LINK  SINCE  REASON";
        let row = "10.1.0.0/24  b     direct  192.0.2.1  -     7s     the node is a neighbour";
        assert_eq!(lines, [head, row]);
    }

    #[test]
    fn a_flow_is_a_row_and_what_is_left_out_is_said() {
        let answer = json!({"more": 7, "entries": [{
            "protocol": "tcp", "opener": "10.0.0.1:4000", "replier": "[fd00::7]:80", "state": "established",
            "remains_seconds": 5, "packets": [3, 2], "bytes": [300, 200], "course": [],
        }]});
        let shown = render("ct", &answer, false);
        let lines: Vec<&str> = shown.lines().collect();
        let row = "tcp       10.0.0.1:4000  [fd00::7]:80  established  5        3 2      300 200  -";
        assert_eq!(lines[1..], [row, "7 more: choose with --address, or raise --most"]);
    }

    #[test]
    fn a_failing_object_is_named_with_its_error() {
        let answer = json!({
            "node": "n", "version": "1", "ready": false, "reasons": ["no uplink"], "pools": [],
            "dangers": ["networkd removes rules"],
            "targets": [{"kind": "link", "objects": 0, "failing": [{"key": "c/eth0", "error": "busy", "attempts": 2}]}],
            "memory_kib": 1, "uptime_seconds": 1, "revision": {"desired": 2, "reached": 1},
        });
        let shown = render("status", &answer, false);
        assert!(shown.contains("n  not ready") && shown.contains("no uplink"), "{shown}");
        assert!(shown.contains("\n  networkd removes rules\n"), "{shown}");
        assert!(shown.contains("link c/eth0: busy (tried 2 times)"), "{shown}");
        assert!(!shown.contains("EVICTED"), "{shown}");
        let mut answer = answer;
        answer["flows"] = json!([{"map": "nat", "seen": 7, "removed": 5, "evicted": 3}]);
        let shown = render("status", &answer, false);
        assert!(shown.ends_with("FLOWS  COUNT  EXPIRED  EVICTED\nnat    7      5        3\n"), "{shown}");
    }
}
