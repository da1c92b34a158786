// SPDX-License-Identifier: Apache-2.0

use super::{Document, table};

pub(super) const DOCUMENT: Document = Document {
    path: "docs/reference/reasons.md",
    source: "ebpf/common/src/reason.rs",
    make: |source| {
        let reasons = reasons(source);
        (!reasons.is_empty()).then(|| document(&reasons))
    },
};

const HEAD: &str = "\
<!-- Made by `cargo xtask gen` from ebpf/common/src/reason.rs. -->
# Why a packet went where it went

Every packet that a program of the datapath sees ends with exactly one reason, counted per program: `from_pod` (from a pod to the
node), `to_pod` (from the node to a pod), `from_wire` (from an uplink to the node), `from_tunnel` (out of the tunnel to the node),
`to_tunnel` (from the node into the tunnel). `rhumb metrics` prints the counters, `rhumb monitor` shows single packets. Numbers
are never reused.
";

/// A line of the table in `reason.rs`.
#[derive(Debug, PartialEq, Eq)]
struct Reason<'a> {
    number: &'a str,
    verdict: &'a str,
    text: &'a str,
    sentence: &'a str,
}

fn reasons(source: &str) -> Vec<Reason<'_>> {
    table(source, "reasons! {").filter_map(reason).collect()
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
