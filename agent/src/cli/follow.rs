// SPDX-License-Identifier: Apache-2.0
//! `rhumb route changes --follow`: the agent's lines about ways, for people or as they are.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Output;

/// Prints changes until one of us has enough.
pub(crate) fn run(mut agent: UnixStream, form: Output, out: &mut impl Write) -> Result<()> {
    writeln!(agent, "{}", json!({"follow": "route_changes"})).context("ask the agent")?;
    for line in BufReader::new(agent).lines() {
        let line = line.context("wait for the agent")?;
        let text = match form {
            Output::Json => line + "\n",
            Output::Table => {
                serde_json::from_str(&line).map(|told| text(&told)).context("read what the agent told")?
            }
        };
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("write to standard output")?,
        }
    }
    bail!("the agent ended the connection: it is stopping, of another version, or has too many watchers")
}

/// A line for people.
fn text(told: &Value) -> String {
    if let Some(missed) = told["missed"].as_u64() {
        return format!("-- {missed} changes missed here: this terminal reads too slowly\n");
    }
    let word = |key: &str| told[key].as_str().unwrap_or("none");
    format!(
        "{}  {} of {}: {} → {}, as {}\n",
        word("at"),
        word("prefix"),
        word("node"),
        word("from"),
        word("to"),
        word("reason"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let told = json!({
            "at": "2026-11-20T16:18:00.123Z", "prefix": "10.1.0.0/24", "node": "b", "from": null,
            "to": "tunnel to 192.0.2.1", "reason": "no direct way",
        });
        assert_eq!(
            text(&told),
            "2026-11-20T16:18:00.123Z  10.1.0.0/24 of b: none → tunnel to 192.0.2.1, as no direct way\n"
        );
        assert!(text(&json!({"missed": 3})).starts_with("-- 3 changes missed"));
    }
}
