// SPDX-License-Identifier: Apache-2.0
//! Numbers about EC2 and the nodes' addresses, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rhumb_api::EniWaiting;
use rhumb_cloud::Pacer;
use rhumb_ipam::eni::{Inputs, Plan, View};
use rhumb_model::{NodeName, PoolName, Timestamp};

/// What was planned last, as numbers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Arc<Mutex<Numbers>>);

#[derive(Debug, Default)]
struct Numbers {
    /// When EC2 was looked at last, or this operator began to.
    looked_at: Option<Timestamp>,
    /// By pool and state.
    addresses: BTreeMap<(PoolName, &'static str), u64>,
    /// By state.
    interfaces: BTreeMap<&'static str, u64>,
    /// Nodes that have less than they should, by reason.
    waiting: BTreeMap<String, u64>,
}

impl Figures {
    /// Notes since when EC2 is looked at: until the first look succeeds, its age is counted from here.
    pub(crate) fn begin(&self, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).looked_at = Some(now);
    }

    /// Notes what was just planned, and why other nodes get nothing.
    pub(crate) fn note(
        &self,
        inputs: &Inputs,
        view: &View,
        plan: &Plan,
        unserved: &BTreeMap<NodeName, Option<EniWaiting>>,
    ) {
        let mut numbers = Numbers::default();
        for why in unserved.values().flatten() {
            *numbers.waiting.entry(why.code.clone()).or_default() += 1;
        }
        for (name, node) in &plan.nodes {
            let Some(facts) = inputs.nodes.get(name) else { continue };
            let (used, cooling) =
                facts.report.as_ref().map_or((0, 0), |report| (report.used, report.cooling));
            let states =
                [("wanted", node.wanted), ("assigned", node.has), ("used", used), ("cooling", cooling)];
            for (state, count) in states {
                *numbers.addresses.entry((facts.pool.clone(), state)).or_default() += u64::from(count);
            }
            if let Some(verdict) = &node.verdict {
                *numbers.waiting.entry(verdict.code.to_string()).or_default() += 1;
            }
        }
        for eni in view.enis.values().filter(|eni| {
            eni.tags.get(rhumb_ipam::eni::TAG_CLUSTER).is_some_and(|cluster| *cluster == inputs.cluster)
        }) {
            let state = if eni.attachment.is_some() { "attached" } else { "free" };
            *numbers.interfaces.entry(state).or_default() += 1;
        }
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.looked_at = (view.at != Timestamp(0)).then_some(view.at).or(last.looked_at);
        *last = numbers;
    }

    /// All numbers in the text format of Prometheus.
    pub(crate) fn text(&self, pacer: &Pacer) -> String {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = Text::default();
        text.head(
            "rhumb_operator_ec2_requests_total",
            "counter",
            "Requests to EC2 that ended, by action and result.",
        );
        let report = pacer.report();
        for line in &report {
            for (outcome, count) in &line.ended {
                let labels = [("action", line.action.name()), ("result", outcome.word())];
                text.row("rhumb_operator_ec2_requests_total", &labels, *count);
            }
        }
        text.head("rhumb_operator_ec2_waiting", "gauge", "Requests that wait for their turn, by priority.");
        for line in &report {
            for (priority, count) in &line.waiting {
                let labels = [("action", line.action.name()), ("priority", priority.word())];
                text.row("rhumb_operator_ec2_waiting", &labels, count);
            }
        }
        text.head("rhumb_operator_ec2_wait_seconds", "gauge", "How long the last in the line will wait.");
        for line in &report {
            let seconds = line.estimated_wait.as_secs_f64();
            text.row("rhumb_operator_ec2_wait_seconds", &[("action", line.action.name())], seconds);
        }
        text.head(
            "rhumb_operator_ec2_waited_seconds_total",
            "counter",
            "How long requests waited for their turn.",
        );
        for line in &report {
            let seconds = line.waited.as_secs_f64();
            text.row("rhumb_operator_ec2_waited_seconds_total", &[("action", line.action.name())], seconds);
        }
        text.head(
            "rhumb_operator_ec2_rate_ratio",
            "gauge",
            "The part of the configured rate that is in force; below 1 after RequestLimitExceeded.",
        );
        for line in &report {
            text.row("rhumb_operator_ec2_rate_ratio", &[("action", line.action.name())], line.factor);
        }
        text.head("rhumb_operator_eni_addresses", "gauge", "IPv4 addresses of nodes, by pool and state.");
        for ((pool, state), count) in &numbers.addresses {
            text.row("rhumb_operator_eni_addresses", &[("pool", pool.as_str()), ("state", state)], count);
        }
        text.head("rhumb_operator_eni_interfaces", "gauge", "Interfaces of this cluster, by state.");
        for (state, count) in &numbers.interfaces {
            text.row("rhumb_operator_eni_interfaces", &[("state", state)], count);
        }
        text.head(
            "rhumb_operator_eni_nodes_waiting",
            "gauge",
            "Nodes that have fewer addresses than they should, or are not served at all, by reason.",
        );
        for (reason, count) in &numbers.waiting {
            text.row("rhumb_operator_eni_nodes_waiting", &[("reason", reason)], count);
        }
        text.head(
            "rhumb_operator_eni_look_age_seconds",
            "gauge",
            "Age of the last look at EC2 that succeeded; before the first, of the operator's start.",
        );
        if let Some(at) = numbers.looked_at {
            let age = Timestamp::from(SystemTime::now()).since(at).as_secs_f64();
            text.row("rhumb_operator_eni_look_age_seconds", &[], age);
        }
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a String takes everything");
    }

    /// Values of labels are names of pools, actions and words of ours: none needs an escape.
    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_cloud::{Action, Outcome};

    #[test]
    fn requests_are_counted_by_action_and_result() {
        let (figures, pacer) = (Figures::default(), Pacer::new(0.5));
        pacer.ended(Action::AttachNetworkInterface, Outcome::Done);
        pacer.ended(Action::AttachNetworkInterface, Outcome::Throttled);
        figures.note(&Inputs::default(), &View::default(), &Plan::default(), &BTreeMap::new());
        let text = figures.text(&pacer);
        let action = r#"action="AttachNetworkInterface""#;
        for row in [
            format!(r#"rhumb_operator_ec2_requests_total{{{action},result="ok"}} 1"#),
            format!(r#"rhumb_operator_ec2_requests_total{{{action},result="throttled"}} 1"#),
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in\n{text}");
        }
        assert!(text.lines().all(|line| line.starts_with('#') || line.split(' ').count() == 2), "{text}");
    }

    /// The value of the row that begins with this.
    fn value(text: &str, row: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok())
    }

    #[test]
    fn an_operator_that_has_seen_nothing_yet_says_for_how_long_and_who_waits() {
        const AGE: &str = "rhumb_operator_eni_look_age_seconds";
        let (figures, pacer) = (Figures::default(), Pacer::new(0.5));
        assert_eq!(value(&figures.text(&pacer), AGE), None, "nobody looks");
        let now = Timestamp::from(SystemTime::now());
        figures.begin(Timestamp(now.0 - 100_000));
        let why = |code: &str| Some(EniWaiting { code: code.to_owned(), message: String::new() });
        let name = |name: &str| NodeName::new(name).expect("valid");
        let unserved = [
            (name("a"), why("NoInstance")),
            (name("b"), why("Unreachable")),
            (name("c"), why("NoInstance")),
            (name("d"), None),
        ];
        figures.note(&Inputs::default(), &View::default(), &Plan::default(), &unserved.into());
        let text = figures.text(&pacer);
        assert!(value(&text, AGE).is_some_and(|age| age >= 100.0), "{text}");
        for (reason, count) in [("NoInstance", 2.0), ("Unreachable", 1.0)] {
            let row = format!("rhumb_operator_eni_nodes_waiting{{reason=\"{reason}\"}}");
            assert_eq!(value(&text, &row), Some(count), "{text}");
        }
        let view = View { at: now, ..View::default() };
        figures.note(&Inputs::default(), &view, &Plan::default(), &BTreeMap::new());
        assert!(value(&figures.text(&pacer), AGE).is_some_and(|age| age < 100.0));
    }

    #[test]
    fn the_reference_has_every_metric_with_its_kind_and_what_it_says() {
        let reference = include_str!("../../../docs/reference/metrics.md");
        let text = Figures::default().text(&Pacer::new(0.5));
        let help = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut count = 0;
        for ((name, says), (_, kind)) in help.zip(kinds) {
            let row = reference.lines().find(|line| line.starts_with(&format!("| `{name}` | {kind} |")));
            assert!(row.is_some_and(|row| row.ends_with(&format!("| {says} |"))), "{name}: {row:?}");
            count += 1;
        }
        assert_eq!(count, reference.matches("\n| `rhumb_operator_").count(), "and no other");
    }
}
