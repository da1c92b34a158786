// SPDX-License-Identifier: Apache-2.0
//! The Prometheus text format, version 0.0.4 (prometheus.io, "Exposition formats").

use std::fmt::Write as _;

use super::registry::{Sample, Value};
use super::{Kind, Metric};

/// Renders samples; those of one metric come together whatever order they are in.
pub(crate) fn render(metrics: &[&Metric], samples: &[Sample]) -> String {
    let mut text = String::new();
    for metric in metrics {
        let mut own = samples.iter().filter(|sample| sample.metric.name == metric.name).peekable();
        if own.peek().is_none() {
            continue;
        }
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = metric.describe().replace('\\', r"\\").replace('\n', r"\n");
        writeln!(text, "# HELP {} {help}\n# TYPE {} {kind}", metric.name, metric.name)
            .expect("a string takes every write");
        for sample in own {
            line(&mut text, sample);
        }
    }
    text
}

fn line(text: &mut String, sample: &Sample) {
    text.push_str(sample.metric.name);
    for (number, (name, value)) in sample.labels.iter().enumerate() {
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let before = if number == 0 { '{' } else { ',' };
        write!(text, "{before}{name}=\"{value}\"").expect("a string takes every write");
    }
    if !sample.labels.is_empty() {
        text.push('}');
    }
    match sample.value {
        Value::Count(count) => writeln!(text, " {count}"),
        Value::Measure(measure) => writeln!(text, " {measure}"),
    }
    .expect("a string takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    static ODD: Metric =
        Metric { name: "odd_total", kind: Kind::Counter, labels: "a b", help: "Back\\slash\nand line." };
    static PLAIN: Metric = Metric { name: "plain", kind: Kind::Gauge, labels: "", help: "A share." };
    static EMPTY: Metric = Metric { name: "empty", kind: Kind::Gauge, labels: "", help: "Nothing." };

    #[test]
    fn whatever_is_in_a_value_stays_in_its_line() {
        let samples = [
            Sample::new(&ODD, &[("a", "x\"y\\z\n"), ("b", "")], 3),
            Sample::new(&PLAIN, &[], 0.5),
            Sample::new(&ODD, &[("a", ""), ("b", "")], u64::MAX),
        ];
        assert_eq!(
            render(&[&PLAIN, &EMPTY, &ODD], &samples),
            "# HELP plain A share.\n# TYPE plain gauge\nplain 0.5\n\
             # HELP odd_total Back\\\\slash\\nand line.\n# TYPE odd_total counter\n\
             odd_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 3\nodd_total{a=\"\",b=\"\"} 18446744073709551615\n"
        );
    }
}
