// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::FieldError;

/// Chooses objects by their labels, in the manner of Kubernetes: all that is said must hold, and an empty selector
/// chooses everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels with the value that each must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What must hold.
    pub operator: LabelOperator,
    /// The values that `In` and `NotIn` are about; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// Its value is one of those given.
    In,
    /// Its value is none of those given, or there is none.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is chosen.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }

    pub(crate) fn check(&self) -> Result<(), FieldError> {
        for (i, expression) in self.match_expressions.iter().enumerate() {
            let wants = matches!(expression.operator, LabelOperator::In | LabelOperator::NotIn);
            let field = format!("matchExpressions[{i}].values");
            match (wants, expression.values.is_empty()) {
                (true, true) => return Err(FieldError::new(field, "want at least one value")),
                (false, false) => {
                    let message = format!("{:?} is about no value", expression.operator);
                    return Err(FieldError::new(field, message));
                }
                (true, false) | (false, true) => {}
            }
            let values: BTreeSet<&String> = expression.values.iter().collect();
            if values.len() < expression.values.len() {
                return Err(FieldError::new(field, "a value is there twice"));
            }
        }
        Ok(())
    }
}

impl LabelExpression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> Selector {
        serde_json::from_str(text).expect("valid")
    }

    #[test]
    fn an_object_is_chosen_when_all_holds() {
        let labels =
            BTreeMap::from([("rack".to_owned(), "a".to_owned()), ("role".to_owned(), "edge".to_owned())]);
        for (text, chosen) in [
            ("{}", true),
            (r#"{"matchLabels": {"rack": "a"}}"#, true),
            (r#"{"matchLabels": {"rack": "b"}}"#, false),
            (r#"{"matchLabels": {"rack": "a", "zone": "z"}}"#, false),
            (r#"{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["b", "a"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["a"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["z"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "role", "operator": "Exists"}]}"#, true),
            (r#"{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}"#, false),
            (r#"{"matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}"#, false),
            (
                r#"{"matchLabels": {"rack": "a"}, "matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}"#,
                true,
            ),
        ] {
            assert_eq!(selector(text).matches(&labels), chosen, "{text}");
        }
    }

    #[test]
    fn values_are_given_where_they_mean_something() {
        for text in [
            r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", "b"]}]}"#,
        ] {
            assert_eq!(selector(text).check().expect_err(text).field, "matchExpressions[0].values", "{text}");
        }
    }
}
