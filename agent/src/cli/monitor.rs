// SPDX-License-Identifier: Apache-2.0
//! `rhumb monitor`: the agent's lines about packets, for people or as they are.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use clap::Args;
use rhumb_ebpf::Reason;
use serde_json::{Value, json};

use crate::Output;

/// Which packets to show; without a choice dropped and other ones.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// Only dropped packets.
    #[arg(long, conflicts_with = "traces")]
    drops: bool,

    /// Only packets that were not dropped.
    #[arg(long)]
    traces: bool,

    /// Only packets of this pod of the node.
    #[arg(long, value_name = "NS/NAME", value_parser = pod)]
    pod: Option<String>,

    /// Only packets with this reason.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,

    /// The newest drops that the agent remembers, at most this many, and then end.
    #[arg(long, value_name = "N", conflicts_with = "traces")]
    last: Option<usize>,
}

fn pod(value: &str) -> Result<String, &'static str> {
    match value.split('/').collect::<Vec<_>>()[..] {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(value.to_owned()),
        _ => Err("a pod is named NAMESPACE/NAME"),
    }
}

fn reason(value: &str) -> Result<Reason, String> {
    let known = Reason::ALL.iter().find(|reason| reason.text() == value);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.text()).collect();
        format!("the reasons are {}", names.join(", "))
    })
}

impl Filter {
    /// The agent's words for it.
    fn question(&self) -> Value {
        let mut request = json!({ "drops": !self.traces, "traces": !self.drops && self.last.is_none() });
        let parts = [
            ("pod", self.pod.clone().map(Value::from)),
            ("reason", self.reason.map(|reason| reason.text().into())),
            ("last", self.last.map(Value::from)),
        ];
        for (key, value) in parts {
            if let Some(value) = value {
                request[key] = value;
            }
        }
        json!({ "monitor": request })
    }
}

/// Prints what the agent tells until one of us has enough.
pub(crate) fn run(mut agent: UnixStream, filter: &Filter, form: Output, out: &mut impl Write) -> Result<()> {
    writeln!(agent, "{}", filter.question()).context("ask the agent")?;
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
    if filter.last.is_none() {
        bail!("the agent ended the connection: it is stopping, of another version, or has too many watchers");
    }
    Ok(())
}

/// A line for people.
fn text(told: &Value) -> String {
    let word = |key: &str| told[key].as_str().unwrap_or_default();
    if let Some(lost) = told["lost"].as_u64() {
        return format!("-- {lost} events lost here: this terminal reads too slowly\n");
    }
    if let Some(untold) = told["untold"].as_u64() {
        return format!("-- {untold} more packets with reason {}: too many to show each\n", word("reason"));
    }
    let time = word("time").split(['T', 'Z']).nth(1).unwrap_or_default();
    let mut text = format!(
        "{time}  {:<8}  {:<20}  {:<11}  {} → {}  {}",
        word("verdict"),
        word("reason"),
        word("direction"),
        end(&told["source"]),
        end(&told["destination"]),
        word("protocol"),
    );
    let flags: Vec<&str> =
        told["tcp_flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !flags.is_empty() {
        write!(text, " {}", flags.join(",")).expect("a string takes every write");
    }
    if let Some([kind, code]) = told["icmp"].as_array().map(Vec::as_slice) {
        write!(text, " type {kind} code {code}").expect("a string takes every write");
    }
    write!(text, ", {} bytes", told["length"]).expect("a string takes every write");
    let shown = [&told["source"], &told["destination"]].iter().any(|end| end["pod"] == told["pod"]);
    if !shown && let Some(pod) = told["pod"].as_str() {
        write!(text, ", at the link of {pod}").expect("a string takes every write");
    }
    text + "\n"
}

/// Address, port and pod of one end, in a column of its own.
fn end(end: &Value) -> String {
    let Some(address) = end["address"].as_str() else { return format!("{:<21}", "-") };
    let mut text = match end["port"].as_u64() {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    if let Some(pod) = end["pod"].as_str() {
        write!(text, " ({pod})").expect("a string takes every write");
    }
    format!("{text:<21}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter { drops: false, traces: false, pod: None, reason: None, last: None }
    }

    #[test]
    fn a_drop_is_one_line_with_all_that_is_known() {
        let told = json!({
            "time": "2026-11-20T16:18:00.123Z", "verdict": "drop", "reason": "source_address",
            "direction": "from_pod", "ifindex": 7, "interface": "rh1", "pod": "default/a", "protocol": "tcp",
            "source": {"address": "10.9.9.9", "port": 1000},
            "destination": {"address": "fd00::2", "port": 80, "pod": "default/b"},
            "tcp_flags": ["SYN"], "length": 74,
        });
        assert_eq!(
            text(&told),
            "16:18:00.123  drop      source_address        from_pod     10.9.9.9:1000         → \
             [fd00::2]:80 (default/b)  tcp SYN, 74 bytes, at the link of default/a\n"
        );
    }

    #[test]
    fn what_was_lost_is_said() {
        assert!(text(&json!({"lost": 3})).starts_with("-- 3 events lost"));
        let line = text(&json!({"untold": 4, "reason": "malformed"}));
        assert!(line.starts_with("-- 4 more packets with reason malformed"), "{line}");
    }

    #[test]
    fn the_question_says_what_was_chosen() {
        assert_eq!(filter().question(), json!({"monitor": {"drops": true, "traces": true}}));
        let chosen = Filter {
            drops: true,
            pod: Some("default/a".to_owned()),
            reason: Some(Reason::Malformed),
            last: Some(5),
            ..filter()
        };
        assert_eq!(
            chosen.question(),
            json!({"monitor": {
                "drops": true, "traces": false, "pod": "default/a", "reason": "malformed", "last": 5
            }})
        );
    }

    #[test]
    fn pods_and_reasons_are_checked_before_anybody_is_asked() {
        assert!(pod("default/a").is_ok() && pod("a").is_err() && pod("a/b/c").is_err() && pod("/a").is_err());
        assert_eq!(reason("malformed"), Ok(Reason::Malformed));
        assert!(reason("nonsense").expect_err("unknown").contains("source_address"));
    }
}
