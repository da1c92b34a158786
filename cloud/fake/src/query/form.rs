// SPDX-License-Identifier: Apache-2.0
//! `application/x-www-form-urlencoded` with EC2's lists: `Filter.1.Name=…&Filter.1.Value.1=…` is a tree.

use std::collections::BTreeMap;

/// Parameters as EC2 nests them. A parameter that was given twice has its last value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    value: Option<String>,
    parts: BTreeMap<Part, Form>,
}

/// Numbers are in the order of numbers: the tenth filter comes after the second.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Index(u32),
    Name(String),
}

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a percent sign without two hexadecimal digits")]
    Escape,
    /// What the escapes stand for is no text.
    #[error("a parameter is not UTF-8")]
    Encoding,
    /// Deeper than any parameter of EC2, or too many of them.
    #[error("too many parameters, or nested too deep")]
    Size,
}

/// The deepest parameter of EC2 that this double reads has five parts.
const DEEPEST: usize = 8;
const MOST: usize = 10_000;

impl Form {
    /// Reads a body, or the query of a URI.
    ///
    /// # Errors
    /// [`FormError`] when it is no form.
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let mut form = Self::default();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        for (count, pair) in pairs.enumerate() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let parts: Vec<&str> = name.split('.').collect();
            if parts.len() > DEEPEST || count >= MOST {
                return Err(FormError::Size);
            }
            let mut at = &mut form;
            for part in parts {
                at = at.parts.entry(Part::of(part)).or_default();
            }
            at.value = Some(value);
        }
        Ok(form)
    }

    /// What is below a name.
    pub fn at(&self, name: &str) -> Option<&Form> {
        self.parts.get(&Part::of(name))
    }

    /// The text of a name; an empty text is none.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.at(name)?.value.as_deref().filter(|value| !value.is_empty())
    }

    /// Whether a name was given at all, maybe as an empty text.
    pub fn has(&self, name: &str) -> bool {
        self.at(name).is_some_and(|form| form.value.is_some() || !form.parts.is_empty())
    }

    /// The members of a list, in the order of their numbers.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &Form> {
        let parts = self.at(name).map(|form| &form.parts);
        let numbered = parts.into_iter().flatten().filter(|(part, _)| matches!(part, Part::Index(_)));
        numbered.map(|(_, form)| form)
    }

    /// The members of a list of texts.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.list(name).filter_map(|form| form.value.as_deref())
    }

    /// The names at the top.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Index(_) => None,
        })
    }
}

impl Part {
    fn of(text: &str) -> Self {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(index) if digits => Self::Index(index),
            Ok(_) | Err(_) => Self::Name(text.to_owned()),
        }
    }
}

fn decode(text: &str) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (pair, tail) = tail.split_at_checked(2).ok_or(FormError::Escape)?;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(FormError::Escape);
                bytes.push((digit(pair[0])? * 16 + digit(pair[1])?) as u8);
                rest = tail;
            }
            plain => bytes.push(plain),
        }
    }
    String::from_utf8(bytes).map_err(|_| FormError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_in_the_order_of_their_numbers() {
        let form = Form::parse("V.10=k&V.2=b&V.1=a&Filter.1.Name=x&Filter.1.Value.1=1&Filter.1.Value.2=2")
            .expect("form");
        assert_eq!(form.texts("V").collect::<Vec<_>>(), ["a", "b", "k"]);
        let filter = form.list("Filter").next().expect("one filter");
        assert_eq!(filter.text("Name"), Some("x"));
        assert_eq!(filter.texts("Value").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(form.names().collect::<Vec<_>>(), ["Filter", "V"]);
    }

    #[test]
    fn escapes_are_read_and_broken_ones_refused() {
        let form = Form::parse("A=a%20b+c%26%C3%A4&B=").expect("form");
        assert_eq!(form.text("A"), Some("a b c&ä"));
        assert!(form.has("B") && form.text("B").is_none() && !form.has("C"));
        assert_eq!(Form::parse("A=%2"), Err(FormError::Escape));
        assert_eq!(Form::parse("A=%+2"), Err(FormError::Escape));
        assert_eq!(Form::parse("A=%FF"), Err(FormError::Encoding));
        assert_eq!(Form::parse("a.b.c.d.e.f.g.h.i=1"), Err(FormError::Size));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(value in ".{1,40}") {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let form = Form::parse(&format!("Name={escaped}")).expect("form");
            prop_assert_eq!(form.text("Name"), Some(value.as_str()));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(text in ".{0,200}") {
            if let Ok(form) = Form::parse(&text) {
                prop_assert!(form.names().count() <= text.len());
            }
        }
    }
}
