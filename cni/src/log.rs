// SPDX-License-Identifier: Apache-2.0
//! Log lines on stderr, which runtimes keep; stdout belongs to the result.

use std::error::Error;
use std::io::Write;

/// Says that something went wrong that does not decide the answer.
pub(crate) fn warn(message: &str, subject: &dyn std::fmt::Display, error: &dyn Error) {
    let line = format!("WARN {message} subject={subject} error={:?}\n", chain(error));
    // There is nowhere else to say that stderr is closed.
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// The texts of an error and of its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let causes = causes(error);
    if !causes.is_empty() {
        text.push_str(": ");
        text.push_str(&causes);
    }
    text
}

/// The texts of an error's causes.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts.join(": ")
}
