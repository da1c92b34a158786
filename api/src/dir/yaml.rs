// SPDX-License-Identifier: Apache-2.0
//! One YAML document into values, with errors that say where.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::FieldError;

/// What is wrong with a document, and where: line and column count from 1 within the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) position: Option<(usize, usize)>,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

/// Where a document ends by a line `...` and goes on all the same.
fn second_document(document: &str) -> Option<Fault> {
    let mut lines = document.lines().enumerate().skip_while(|(_, line)| !line.starts_with("..."));
    lines.next()?;
    let blank = |line: &str| line.trim().is_empty() || line.starts_with('#') || line.starts_with("...");
    let (number, _) = lines.find(|(_, line)| !blank(line))?;
    let message = "another document begins here: put a line `---` above it".to_owned();
    Some(Fault { position: Some((number + 1, 1)), field: None, message })
}

/// Reads a document without knowing its kind; refuses what JSON cannot say, and keys that stand twice.
pub(crate) fn read_value(document: &str) -> Result<Value, Fault> {
    let mut track = serde_path_to_error::Track::new();
    let yaml = serde_yaml_ng::Deserializer::from_str(document);
    match Plain.deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track)) {
        Ok(value) => Ok(value),
        Err(error) => {
            Err(second_document(document).unwrap_or_else(|| fault(&error, &track.path().to_string())))
        }
    }
}

/// Reads a document as a type.
pub(crate) fn read_typed<T: DeserializeOwned>(document: &str) -> Result<T, Fault> {
    let yaml = serde_yaml_ng::Deserializer::from_str(document);
    serde_path_to_error::deserialize(yaml).map_err(|error| {
        let path = error.path().to_string();
        let mut fault = fault(error.inner(), &path);
        // A type that refuses a text by itself knows no position, and that of the mapping around it is given.
        if !fault.message.starts_with("unknown field") {
            fault.position = fault.position.max(locate(document, &path));
        }
        fault
    })
}

/// Reads a value as a type.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        FieldError::new(path, error.inner().to_string())
    })
}

/// The fault of a field that was read well and is wrong all the same.
pub(crate) fn fault_at(document: &str, error: FieldError) -> Fault {
    Fault { position: locate(document, &error.field), field: Some(error.field), message: error.message }
}

/// No path in a message is longer than this many bytes.
const LONGEST_FIELD: usize = 100;

fn fault(error: &serde_yaml_ng::Error, path: &str) -> Fault {
    let position = error.location().map(|location| (location.line(), location.column()));
    let mut message = without_positions(&error.to_string());
    // The text repeats the path of the innermost value that was entered.
    if let Some((prefix, rest)) = message.split_once(": ")
        && path.starts_with(prefix.trim_end_matches('?').trim_end_matches('.'))
        && !prefix.is_empty()
    {
        message = rest.to_owned();
    }
    let mut field = path.trim_end_matches(['.', '?']).to_owned();
    if field.len() > LONGEST_FIELD {
        field.truncate(field.floor_char_boundary(LONGEST_FIELD));
        field.push_str("...");
    }
    Fault { position, field: Some(field).filter(|field| !field.is_empty()), message }
}

/// Takes ` at line 1 column 2` and ` at position 3` out of a message: such numbers count from the document's start.
fn without_positions(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" at ") {
        out.push_str(before);
        match skip_position(after) {
            Some(tail) => rest = tail,
            None => {
                out.push_str(" at ");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn skip_position(text: &str) -> Option<&str> {
    fn number(text: &str) -> Option<&str> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < text.len()).then_some(rest)
    }
    if let Some(rest) = text.strip_prefix("position ") {
        return number(rest);
    }
    number(number(text.strip_prefix("line ")?)?.strip_prefix(" column ")?)
}

/// Builds a JSON value and refuses keys that stand twice.
struct Plain;

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list, text, a number, true, false or null")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("want a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Plain)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = serde_json::Map::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key_seed(NewKey(&mut seen))? {
            values.insert(key, map.next_value_seed(Plain)?);
        }
        Ok(Value::Object(values))
    }
}

/// A key that did not stand in the mapping before. It refuses by itself, so that the error has the key's position.
struct NewKey<'a>(&'a mut BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text as key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.0.insert(key.to_owned()) {
            Ok(key.to_owned())
        } else {
            Err(E::custom(format_args!("key {key:?} stands twice")))
        }
    }
}

/// The position of the value at a path such as `spec.ipv4.cidrs[0]`, or of the nearest value above it.
fn locate(document: &str, path: &str) -> Option<(usize, usize)> {
    let steps: Vec<&str> = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
    (0..=steps.len()).rev().find_map(|depth| {
        let yaml = serde_yaml_ng::Deserializer::from_str(document);
        let error = Seek(&steps[..depth]).deserialize(yaml).err()?;
        let at = error.location()?;
        error.to_string().contains(FOUND).then_some((at.line(), at.column()))
    })
}

const FOUND: &str = "\u{1}found\u{1}";

/// Goes down a path and then fails on purpose: only errors carry a position.
struct Seek<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { FOUND } else { "more" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        let wanted = step.parse::<usize>().unwrap_or(usize::MAX);
        for _ in 0..wanted {
            if list.next_element::<serde::de::IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        list.next_element_seed(Seek(rest)).map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        while let Some(key) = map.next_key::<Key>()? {
            if key.0 == *step {
                map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Key(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_found_where_it_stands_again() {
        let fault = read_value("a:\n  b: 1\n  c: 2\n  b: 3\n").expect_err("twice");
        assert_eq!(fault.position, Some((4, 3)));
        assert_eq!(fault.message, "key \"b\" stands twice");
    }

    #[test]
    fn a_path_is_found_or_the_nearest_above_it() {
        let document = "---\nspec:\n  cidrs:\n  - a\n  - b\n  flow: {x: [1, 2]}\n";
        for (path, position) in [
            ("spec.cidrs[1]", (5, 5)),
            ("spec.flow.x[0]", (6, 14)),
            ("spec.cidrs[7]", (4, 3)),
            ("spec.absent", (3, 3)),
            ("absent", (2, 1)),
        ] {
            assert_eq!(locate(document, path), Some(position), "{path}");
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for (document, message) in
            [(".nan", "finite"), ("!tag x", "invalid type"), ("{[a]: 1}", "invalid type")]
        {
            let fault = read_value(document).expect_err(document);
            assert!(fault.message.contains(message), "{document}: {fault:?}");
        }
    }

    #[test]
    fn positions_are_taken_out_of_messages() {
        let text = "bad key at line 3 column 7, while parsing at line 1 column 1 at dawn at position 9";
        assert_eq!(without_positions(text), "bad key, while parsing at dawn");
    }
}
