// SPDX-License-Identifier: Apache-2.0

use super::{Document, table};

pub(super) const DOCUMENT: Document = Document {
    path: "docs/reference/metrics.md",
    source: "agent/src/metrics/catalogue.rs",
    make: |source| {
        let metrics: Vec<Metric<'_>> = table(source, "metrics! {").filter_map(metric).collect();
        (!metrics.is_empty()).then(|| document(&metrics))
    },
};

const HEAD: &str = "\
<!-- Made by `cargo xtask gen` from agent/src/metrics/catalogue.rs. -->
# Metrics

Every agent serves those of the first table over HTTP at `--metrics-address`, path `/metrics`, in the Prometheus text format 0.0.4; `rhumb metrics` prints the
same. A metric without a value is left out: counters of reasons that never came, for example.

`direction` is the program that saw the packet; the values of `reason` are in `docs/reference/reasons.md`. No label carries the name of a pod:
`rhumb monitor` names them.

| metric | type | labels | |
|---|---|---|---|
";

/// A test beside `operator/src/eni/figures.rs` compares it with what is served.
const OPERATOR: &str = "
## Of the operator

`rhumb-operator --metrics-address` serves these the same way while it leads; docs/operations.md says what to make of them. `action` is one of
EC2; the values of `reason` are those of `rhumb ip explain`.

| metric | type | labels | |
|---|---|---|---|
| `rhumb_operator_ec2_requests_total` | counter | `action`, `result` | Requests to EC2 that ended, by action and result. |
| `rhumb_operator_ec2_waiting` | gauge | `action`, `priority` | Requests that wait for their turn, by priority. |
| `rhumb_operator_ec2_wait_seconds` | gauge | `action` | How long the last in the line will wait. |
| `rhumb_operator_ec2_waited_seconds_total` | counter | `action` | How long requests waited for their turn. |
| `rhumb_operator_ec2_rate_ratio` | gauge | `action` | The part of the configured rate that is in force; below 1 after RequestLimitExceeded. |
| `rhumb_operator_eni_addresses` | gauge | `pool`, `state` | IPv4 addresses of nodes, by pool and state. |
| `rhumb_operator_eni_interfaces` | gauge | `state` | Interfaces of this cluster, by state. |
| `rhumb_operator_eni_nodes_waiting` | gauge | `reason` | Nodes that have fewer addresses than they should, or are not served at all, by reason. |
| `rhumb_operator_eni_look_age_seconds` | gauge |  | Age of the last look at EC2 that succeeded; before the first, of the operator's start. |
";

/// A line of the table in `catalogue.rs`.
#[derive(Debug, PartialEq, Eq)]
struct Metric<'a> {
    kind: &'a str,
    name: &'a str,
    labels: &'a str,
    sentence: &'a str,
}

/// Reads `COUNT Counter "name" "label label" "Sentence."`.
fn metric(line: &str) -> Option<Metric<'_>> {
    let (words, quoted) = line.trim().split_once(" \"")?;
    let (_, kind) = words.split_once(' ')?;
    let mut quoted = quoted.strip_suffix('"')?.split("\" \"");
    let (name, labels, sentence) = (quoted.next()?, quoted.next()?, quoted.next()?);
    Some(Metric { kind, name, labels, sentence })
}

fn document(metrics: &[Metric<'_>]) -> String {
    let mut document = HEAD.to_owned();
    for Metric { kind, name, labels, sentence } in metrics {
        let labels: Vec<String> = labels.split_whitespace().map(|label| format!("`{label}`")).collect();
        let kind = kind.to_lowercase();
        document += &format!("| `{name}` | {kind} | {} | {sentence} |\n", labels.join(", "));
    }
    document + OPERATOR
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "metrics! {\n    A Counter \"a_total\" \"x y\" \"Says a.\"\n    B Gauge \"b\" \"\" \"Says b.\"\n}\n";

    #[test]
    fn every_metric_has_its_row() {
        let text = (DOCUMENT.make)(SOURCE).expect("a table");
        assert!(text.contains("| `a_total` | counter | `x`, `y` | Says a. |\n"), "{text}");
        assert!(text.contains("| `b` | gauge |  | Says b. |\n\n"), "{text}");
    }

    #[test]
    fn a_source_without_a_table_makes_no_document() {
        assert_eq!((DOCUMENT.make)("fn f() {}\n"), None);
    }
}
