// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write;

/// The Prometheus text form of samples that came as JSON.
pub(crate) fn text(samples: &serde_json::Value) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for sample in samples.as_array().into_iter().flatten() {
        let labels: Vec<String> = sample["labels"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pair| format!("{}={}", pair[0].as_str().unwrap_or_default(), pair[1]))
            .collect();
        let name = sample["name"].as_str().unwrap_or_default();
        if name != last {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            writeln!(text, "# TYPE {name} {kind}").expect("a string takes every write");
            last = name.to_owned();
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(text, "{name}{labels} {}", sample["value"]).expect("a string takes every write");
    }
    text
}
