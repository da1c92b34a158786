// SPDX-License-Identifier: Apache-2.0
//! Samples, and counters for what happens in the agent itself.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Kind, Metric};

/// A value of a metric: counts are exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Measure(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<f64> for Value {
    fn from(measure: f64) -> Self {
        Value::Measure(measure)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Count(count) => to.serialize_u64(*count),
            Value::Measure(measure) => to.serialize_f64(*measure),
        }
    }
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    #[serde(rename = "name", serialize_with = "by_name")]
    pub(crate) metric: &'static Metric,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: Value,
}

fn by_name<S: Serializer>(metric: &Metric, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(metric.name)
}

impl Sample {
    pub(crate) fn new(
        metric: &'static Metric,
        labels: &[(&'static str, &str)],
        value: impl Into<Value>,
    ) -> Self {
        debug_assert!(labels.iter().map(|(name, _)| *name).eq(metric.labels.split_whitespace()));
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { metric, labels, value: value.into() }
    }
}

/// Counters of what happens in the agent. Only bounded words may be values of labels: never names of pods.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    counts: BTreeMap<(&'static str, Vec<String>), (&'static Metric, u64)>,
}

impl Registry {
    /// Counts `more`; `labels` are the values of the metric's labels, in their order.
    pub(crate) fn add(&mut self, metric: &'static Metric, labels: &[&str], more: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter);
        debug_assert_eq!(labels.len(), metric.labels.split_whitespace().count());
        let key = (metric.name, labels.iter().map(ToString::to_string).collect());
        self.counts.entry(key).or_insert((metric, 0)).1 += more;
    }

    /// All counts, those of one metric together.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Sample> {
        self.counts.iter().map(|((_, values), (metric, count))| {
            let labels = metric.labels.split_whitespace().zip(values.iter().cloned()).collect();
            Sample { metric, labels, value: (*count).into() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::catalogue::EVENT_LOST;

    #[test]
    fn what_is_counted_twice_is_one_sample() {
        let mut registry = Registry::default();
        for (cause, more) in [("rate", 1), ("full", 1), ("rate", 2)] {
            registry.add(&EVENT_LOST, &["malformed", cause], more);
        }
        let samples: Vec<Sample> = registry.samples().collect();
        assert_eq!(
            samples,
            [
                Sample::new(&EVENT_LOST, &[("reason", "malformed"), ("cause", "full")], 1),
                Sample::new(&EVENT_LOST, &[("reason", "malformed"), ("cause", "rate")], 3),
            ]
        );
        assert_eq!(
            serde_json::to_value(&samples[0]).expect("plain data"),
            serde_json::json!({
                "name": "rhumb_event_lost_total", "labels": [["reason", "malformed"], ["cause", "full"]], "value": 1
            })
        );
    }
}
