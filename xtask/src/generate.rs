// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask gen`: documents that are made from sources; `cargo xtask tidy` finds those that are out of date.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

const REASONS: &str = "ebpf/common/src/reason.rs";
const REFERENCE: &str = "docs/reference/reasons.md";

const HEAD: &str = "\
<!-- Made by `cargo xtask gen` from ebpf/common/src/reason.rs. -->
# Why a packet went where it went

Every packet that a program of the datapath sees ends with exactly one reason, counted per program: `from_pod` (from a pod to the
node), `to_pod` (from the node to a pod), `from_wire` (from an uplink to the node), `from_tunnel` (out of the tunnel to the node),
`to_tunnel` (from the node into the tunnel). `rhumb metrics` prints the counters. Numbers are never reused.
";

/// A line of the table in `reason.rs`.
#[derive(Debug, PartialEq, Eq)]
struct Reason<'a> {
    number: &'a str,
    verdict: &'a str,
    text: &'a str,
    sentence: &'a str,
}

/// Writes every generated document.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let path = root.join(REFERENCE);
    fs::create_dir_all(path.parent().context("the document is in a folder")?)?;
    fs::write(&path, reference(root)?).with_context(|| format!("write {REFERENCE}"))?;
    println!("wrote {REFERENCE}");
    Ok(())
}

/// The generated documents that are not as they would be written now.
pub(crate) fn stale(root: &Path) -> anyhow::Result<Vec<&'static str>> {
    let written = fs::read_to_string(root.join(REFERENCE)).unwrap_or_default();
    Ok(if written == reference(root)? { Vec::new() } else { vec![REFERENCE] })
}

fn reference(root: &Path) -> anyhow::Result<String> {
    let source = fs::read_to_string(root.join(REASONS)).with_context(|| format!("read {REASONS}"))?;
    let reasons = reasons(&source);
    if reasons.is_empty() {
        bail!("{REASONS} has no table of reasons");
    }
    Ok(document(&reasons))
}

fn reasons(source: &str) -> Vec<Reason<'_>> {
    let table = source.lines().skip_while(|line| *line != "reasons! {").take_while(|line| *line != "}");
    table.filter_map(reason).collect()
}

/// Reads `7 HostPortIn Redirect "host_port_in" "Sentence."`.
fn reason(line: &str) -> Option<Reason<'_>> {
    let (words, quoted) = line.trim().split_once(" \"")?;
    let (text, sentence) = quoted.strip_suffix('"')?.split_once("\" \"")?;
    let mut words = words.split(' ');
    let (number, _, verdict) = (words.next()?, words.next()?, words.next()?);
    Some(Reason { number, verdict, text, sentence })
}

fn document(reasons: &[Reason<'_>]) -> String {
    let mut document = HEAD.to_owned();
    let sections = [
        ("Drop", "Dropped", "The packet ends here."),
        ("Next", "Passed on", "The next program and then the host's stack see the packet."),
        ("Redirect", "Redirected", "Another interface takes the packet; the host's stack does not see it."),
    ];
    for (verdict, title, meaning) in sections {
        document += &format!("\n## {title}\n\n{meaning}\n\n| reason | number | |\n|---|---|---|\n");
        for Reason { number, text, sentence, .. } in reasons.iter().filter(|reason| reason.verdict == verdict)
        {
            document += &format!("| `{text}` | {number} | {sentence} |\n");
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "reasons! {\n    1 Local Redirect \"local\" \"Into a pod.\"\n\n    9 Bad Drop \"bad\" \"Broken.\"\n}\n";

    #[test]
    fn the_table_is_read_from_the_source() {
        let bad = Reason { number: "9", verdict: "Drop", text: "bad", sentence: "Broken." };
        assert_eq!(reasons(SOURCE)[1], bad);
        assert_eq!(reasons(SOURCE).len(), 2);
        assert_eq!(reasons("fn f() {}\n"), []);
    }

    #[test]
    fn every_reason_stands_below_its_verdict() {
        let document = document(&reasons(SOURCE));
        let dropped = document.find("## Dropped").expect("section");
        let bad = document.find("| `bad` | 9 | Broken. |").expect("row");
        let local = document.find("| `local` | 1 | Into a pod. |").expect("row");
        assert!(dropped < bad && bad < local);
    }
}
