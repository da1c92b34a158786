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

Every agent serves them over HTTP at `--metrics-address`, path `/metrics`, in the Prometheus text format 0.0.4; `rhumb metrics` prints the
same. A metric without a value is left out: counters of reasons that never came, for example.

`direction` is the program that saw the packet; the values of `reason` are in `docs/reference/reasons.md`. No label carries the name of a pod:
`rhumb monitor` names them.

| metric | type | labels | |
|---|---|---|---|
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
    document
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
        assert!(text.ends_with("| `b` | gauge |  | Says b. |\n"), "{text}");
    }

    #[test]
    fn a_source_without_a_table_makes_no_document() {
        assert_eq!((DOCUMENT.make)("fn f() {}\n"), None);
    }
}
