// SPDX-License-Identifier: Apache-2.0
//! The filters of describes: any of the values, all of the filters, `*` and `?` as wild cards.

use crate::call::{Filter, Tags};
use crate::refusal::Refusal;

/// What an object has under a filter's name; `None` when there is no filter of that name for such objects.
pub(crate) type Values = Option<Vec<String>>;

/// Whether an object passes all filters.
///
/// # Errors
/// `InvalidParameterValue` for a filter that there is not.
pub(crate) fn pass(filters: &[Filter], values: impl Fn(&str) -> Values) -> Result<bool, Refusal> {
    for filter in filters {
        let has = values(&filter.name)
            .ok_or_else(|| Refusal::value(format!("The filter '{}' is invalid", filter.name)))?;
        if !has.iter().any(|value| filter.values.iter().any(|wanted| matches(wanted, value))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an object has under `tag:KEY` and `tag-key`; `None` for other names.
pub(crate) fn tag_values(name: &str, tags: &Tags) -> Values {
    if name == "tag-key" {
        return Some(tags.keys().cloned().collect());
    }
    let key = name.strip_prefix("tag:")?;
    Some(tags.get(key).into_iter().cloned().collect())
}

/// Whether a text is what a pattern says: `*` is any text, `?` any character, and after `\` both are themselves.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: the `*` takes one character more.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            None if t == text.len() => return true,
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') if t < text.len() => Some(1),
            Some('\\') if pattern.len() > p + 1 => (pattern.get(p + 1) == text.get(t)).then_some(2),
            Some(literal) => (text.get(t) == Some(literal)).then_some(1),
            None => None,
        };
        match (step, retry) {
            (Some(width), _) => (p, t) = (p + width, t + 1),
            (None, Some((after, from))) if from < text.len() => {
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            (None, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same rule, written as it is read.
    fn model(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => model(rest, text),
            (Some(('*', rest)), Some((_, tail))) => model(rest, text) || model(pattern, tail),
            (Some(('\\', [literal, rest @ ..])), Some((found, tail))) => {
                literal == found && model(rest, tail)
            }
            (Some(('?', rest)), Some((_, tail))) => model(rest, tail),
            (Some((literal, rest)), Some((found, tail))) => literal == found && model(rest, tail),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    #[test]
    fn wild_cards_and_escapes() {
        assert!(matches("10.0.*", "10.0.3.4") && matches("*", "") && matches("a?c", "abc"));
        assert!(matches(r"a\*c", "a*c") && !matches(r"a\*c", "abc"));
        assert!(!matches("a?", "a") && !matches("", "a") && matches("*b*", "abc"));
        assert!(matches(r"\\", r"\") && matches("a**", "a"));
    }

    #[test]
    fn an_unknown_filter_is_refused_and_tags_are_compared() {
        let tags = Tags::from([("a".to_owned(), "1".to_owned())]);
        let filter =
            |name: &str, value: &str| Filter { name: name.to_owned(), values: vec![value.to_owned()] };
        let passes = |filters: &[Filter]| pass(filters, |name| tag_values(name, &tags));
        assert_eq!(passes(&[filter("tag:a", "1"), filter("tag-key", "a")]), Ok(true));
        assert_eq!(passes(&[filter("tag:a", "1"), filter("tag:b", "*")]), Ok(false));
        assert_eq!(passes(&[filter("colour", "1")]).expect_err("refused").code, "InvalidParameterValue");
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_rule(pattern in r"[ab*?\\]{0,8}", text in r"[ab*]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), model(&chars(&pattern), &chars(&text)));
        }
    }
}
