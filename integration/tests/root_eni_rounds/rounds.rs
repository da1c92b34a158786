// SPDX-License-Identifier: Apache-2.0
//! The rounds of a node: who dies where, and what EC2 does meanwhile.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::shape::Shape;

/// How often a node is filled and emptied.
pub(crate) const ROUNDS: usize = 20;

/// One time that a node is filled and emptied.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: usize,
    /// Steps at which the operator dies.
    pub(crate) operator: Vec<String>,
    /// Steps at which the agent or a plugin dies.
    pub(crate) node: Vec<String>,
    pub(crate) weather: Weather,
}

/// What goes wrong with calls that the round is about.
#[derive(Debug)]
pub(crate) struct Weather {
    /// What happens to them, and to how many; nothing in fair weather.
    pub(crate) fault: Option<(Value, u32)>,
    /// How EC2's books then say that such a call ended.
    pub(crate) outcome: &'static str,
    /// By how many milliseconds describes are behind, at most.
    pub(crate) lag: u64,
}

impl Weather {
    fn of(round: usize) -> Self {
        let error = |code: &str, status: u16| json!({"kind": "error", "code": code, "status": status});
        let (fault, outcome, lag) = match round % 7 {
            0 => (Some((json!({"kind": "lostReply"}), 1)), "done, reply lost", 0),
            1 => (Some((error("RequestLimitExceeded", 503), 3)), "RequestLimitExceeded", 0),
            2 => (None, "ok", 10_000),
            3 => (Some((error("InternalError", 500), 2)), "InternalError", 0),
            4 => (Some((json!({"kind": "lostCall"}), 1)), "call lost", 10_000),
            5 => (Some((json!({"kind": "slow", "millis": 20_000}), 2)), "ok", 0),
            _ => (Some((json!({"kind": "hang"}), 1)), "done, hung", 0),
        };
        Self { fault, outcome, lag }
    }
}

impl Round {
    /// All rounds of a shape, in which each step that it walks through is one where a program dies.
    pub(crate) fn all(shape: &Shape, named: &BTreeSet<String>) -> Vec<Self> {
        let mut walked: Vec<&String> = named.iter().filter(|point| shape.walks(point)).collect();
        // Both sides of a call are in one round.
        walked.sort_by_key(|point| (step(point), *point));
        let (first, walked): (Vec<&String>, Vec<&String>) =
            walked.into_iter().partition(|point| shape.is_first(point));
        let (operator, node): (Vec<&String>, Vec<&String>) =
            walked.into_iter().partition(|point| point.starts_with("operator."));
        let part = |points: &[&String], round: usize, rounds: usize| -> Vec<String> {
            let size = points.len().div_ceil(rounds);
            let mut parts = points.chunks(size).cycle();
            parts.nth(round).into_iter().flatten().map(|point| (*point).clone()).collect()
        };
        let of_operator = |number: usize| match (number, first.as_slice()) {
            (_, []) => part(&operator, number, ROUNDS),
            (0, first) => first.iter().map(|point| (*point).clone()).collect(),
            (later, _) => part(&operator, later - 1, ROUNDS - 1),
        };
        (0..ROUNDS)
            .map(|number| Self {
                number,
                operator: of_operator(number),
                node: part(&node, number, ROUNDS),
                weather: Weather::of(number),
            })
            .collect()
    }

    /// The calls to EC2 in the middle of which the operator dies; describes, where it dies beside all others.
    pub(crate) fn calls(&self) -> BTreeSet<&str> {
        let calls = self.operator.iter().map(|point| step(point).split('.').next().unwrap_or_default());
        calls.map(|call| if call.starts_with(char::is_uppercase) { call } else { "Describe*" }).collect()
    }
}

/// What a step of the operator is before or after.
fn step(point: &str) -> &str {
    point.splitn(4, '.').nth(3).unwrap_or(point)
}
