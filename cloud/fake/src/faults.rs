// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, by a script: which calls, and how.

use rhumb_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::call::Action;
use crate::random::Random;
use crate::refusal::Refusal;

/// Lets something go wrong with some calls. What is left out matches everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The name of an action, for example `AttachNetworkInterface`; one that ends in `*` is a beginning.
    #[serde(default)]
    pub action: Option<String>,
    /// An id that the call names: of an instance, an interface, an attachment or a subnet.
    #[serde(default)]
    pub subject: Option<String>,
    /// Of the calls that match so far, how many are let pass first.
    #[serde(default)]
    pub skip: u32,
    /// To how many calls it then happens; `None` for all.
    #[serde(default)]
    pub times: Option<u32>,
    /// In which share of these, by the seed; `None` for each.
    #[serde(default)]
    pub probability: Option<f64>,
    /// From when, in milliseconds of the virtual clock.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Until when, this moment not included.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// What happens.
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Fault {
    /// EC2 refuses; nothing has happened.
    #[serde(rename_all = "camelCase")]
    Error {
        /// Code.
        code: String,
        /// Text.
        #[serde(default)]
        message: String,
        /// HTTP status, 400 when left out.
        #[serde(default)]
        status: Option<u16>,
    },
    /// Something in front of EC2 answers, with text that is no XML; nothing has happened.
    #[serde(rename_all = "camelCase")]
    Garbage {
        /// HTTP status.
        status: u16,
    },
    /// The call is done, and the connection ends before the reply.
    LostReply,
    /// The connection ends before the call is done.
    LostCall,
    /// The call is done, and no reply comes while the connection stays.
    Hang,
    /// The call is done, and the reply comes later by so many milliseconds.
    #[serde(rename_all = "camelCase")]
    Slow {
        /// Milliseconds.
        millis: u64,
    },
}

impl Default for Fault {
    fn default() -> Self {
        let message = "An internal error has occurred.".to_owned();
        Self::Error { code: "InternalError".to_owned(), message, status: Some(500) }
    }
}

impl Fault {
    /// The refusal that an [`Fault::Error`] gives.
    pub(crate) fn refusal(code: &str, message: &str, status: Option<u16>) -> Refusal {
        let message = if message.is_empty() { code } else { message };
        Refusal { code: code.to_owned().into(), message: message.to_owned(), status: status.unwrap_or(400) }
    }
}

/// The rules in force, each with how often it matched.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    random: Random,
    rules: Vec<(Rule, u32)>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ 0xfa17), rules: Vec::new() }
    }

    pub(crate) fn add(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(rule, _)| rule)
    }

    /// What happens to this call: the first rule decides that has something for it. `subjects` are the ids that the
    /// call names, and those that these belong to.
    pub(crate) fn decide(&mut self, now: Timestamp, action: &Action, subjects: &[String]) -> Option<Fault> {
        for (rule, matched) in &mut self.rules {
            if !applies(rule, now, action, subjects) {
                continue;
            }
            let number = *matched;
            *matched += 1;
            let within = number >= rule.skip && rule.times.is_none_or(|times| number - rule.skip < times);
            if within && rule.probability.is_none_or(|share| self.random.chance(share)) {
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

fn applies(rule: &Rule, now: Timestamp, action: &Action, subjects: &[String]) -> bool {
    let named = rule.action.as_deref().is_none_or(|wanted| match wanted.strip_suffix('*') {
        Some(beginning) => action.name().starts_with(beginning),
        None => action.name() == wanted,
    });
    named
        && rule.subject.as_ref().is_none_or(|subject| subjects.contains(subject))
        && rule.from.is_none_or(|from| from <= now)
        && rule.until.is_none_or(|until| now < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Action {
        Action::DescribeAvailabilityZones
    }

    fn decided(rule: Rule, calls: u64) -> Vec<u64> {
        let mut faults = Faults::new(1);
        faults.add(rule);
        (0..calls)
            .filter(|at| faults.decide(Timestamp(*at), &zones(), &["i-1".to_owned()]).is_some())
            .collect()
    }

    #[test]
    fn a_rule_counts_the_calls_that_match_it() {
        assert_eq!(decided(Rule { skip: 2, times: Some(3), ..Rule::default() }, 10), [2, 3, 4]);
        assert_eq!(
            decided(Rule { from: Some(Timestamp(4)), until: Some(Timestamp(6)), ..Rule::default() }, 10),
            [4, 5]
        );
    }

    #[test]
    fn a_rule_names_an_action_and_an_object() {
        let action = |name: &str| Rule { action: Some(name.to_owned()), ..Rule::default() };
        let subject = |id: &str| Rule { subject: Some(id.to_owned()), ..Rule::default() };
        assert_eq!(decided(action("Describe*"), 2).len(), 2);
        assert_eq!(decided(action("DescribeSubnets"), 2).len(), 0);
        assert_eq!((decided(subject("i-1"), 2).len(), decided(subject("i-2"), 2).len()), (2, 0));
    }

    #[test]
    fn a_share_of_calls_is_decided_by_the_seed() {
        let rule = Rule { probability: Some(0.5), ..Rule::default() };
        let hits = decided(rule.clone(), 1_000);
        assert!((400..600).contains(&hits.len()), "{}", hits.len());
        assert_eq!(hits, decided(rule, 1_000));
    }

    #[test]
    fn a_script_is_read_from_text() {
        let text = r#"[{"action":"AttachNetworkInterface","times":1,"fault":{"kind":"lostReply"}},
            {"fault":{"kind":"error","code":"UnauthorizedOperation","status":403}},
            {"fault":{"kind":"slow","millis":50}},{"fault":{"kind":"garbage","status":500}}]"#;
        let rules: Vec<Rule> = serde_json::from_str(text).expect("a script");
        assert_eq!(rules[0].fault, Fault::LostReply);
        assert!(matches!(&rules[1].fault, Fault::Error { status: Some(403), .. }));
    }
}
