// SPDX-License-Identifier: Apache-2.0
//! What must not stand in a source: unfinished work, unsafe code outside its files, and in pure code a clock, the
//! environment or an order that changes from run to run.

use super::Finding;
use super::source::Source;

/// Marks of unfinished work, in two parts so that this file does not carry them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];

/// Files that may contain unsafe code: the ends of paths, or folders that end in `/`.
const UNSAFE: &[&str] = &[
    "cni/src/netns.rs",
    "ebpf/common/src/layout.rs",
    "ebpf/programs/src/act.rs",
    "ebpf/programs/src/call.rs",
    "ebpf/programs/src/lookup.rs",
    "ebpf/programs/src/packet.rs",
    "integration/src/bench/bpf.rs",
    "process/src/heap.rs",
    "routing/bgp/src/session/socket_option.rs",
    // A scheduling policy; the TTL and the link of a datagram.
    "routing/bfd/src/priority.rs",
    "routing/bfd/src/socket.rs",
];

/// What begins unsafe code.
const UNSAFE_WORDS: &[&str] = &[
    concat!("uns", "afe {"),
    concat!("uns", "afe fn"),
    concat!("uns", "afe impl"),
    concat!("uns", "afe extern"),
];

/// Folders of pure code.
const PURE: &[&str] = &["model/src/", "ebpf/common/src/"];

/// Names of pure files in every room.
const PURE_NAMES: &[&str] = &["plan.rs", "fsm.rs"];

/// What pure code does not do.
const IMPURE: &[(&str, &str)] = &[
    ("Instant::now", "time is an argument"),
    ("SystemTime::now", "time is an argument"),
    ("std::env", "settings are arguments"),
    ("HashMap", "its order changes from run to run"),
    ("tokio::", "waiting belongs to the caller"),
];

/// Unfinished work, unsafe code and impure code.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.is_rust() {
        return findings;
    }
    for (number, line) in source.text.lines().enumerate() {
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            findings.push(Finding::at(source, number, format!("{word}: finish it or open an issue")));
        }
        let code = line.split("//").next().unwrap_or_default();
        if !UNSAFE.contains(&source.path.as_str()) && UNSAFE_WORDS.iter().any(|word| code.contains(word)) {
            findings.push(Finding::at(source, number, "unsafe code outside the files that may contain it"));
        }
    }
    if is_pure(source) {
        for (number, line) in source.lines_before_tests() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some((word, why)) = IMPURE.iter().find(|(word, _)| code.contains(word)) {
                findings.push(Finding::at(source, number, format!("{word} in pure code: {why}")));
            }
        }
    }
    findings
}

fn is_pure(source: &Source) -> bool {
    PURE.iter().any(|folder| source.path.starts_with(folder)) || PURE_NAMES.contains(&source.name())
}

#[cfg(test)]
mod tests {
    use super::super::source::source;
    use super::*;

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            let text = format!("fn f() {{\n    // {word}\n}}\n");
            assert_eq!(check(&source("ipam/src/pool.rs", &text))[0].place, "ipam/src/pool.rs:2", "{word}");
        }
    }

    #[test]
    fn unsafe_code_is_found_outside_its_files() {
        let text = concat!("let x = uns", "afe { read(p) };\n");
        assert_eq!(check(&source("ipam/src/pool.rs", text)).len(), 1);
        assert_eq!(check(&source("cni/src/netns.rs", text)), []);
        assert_eq!(check(&source("ipam/src/pool.rs", concat!("// uns", "afe { in a comment }\n"))), []);
    }

    #[test]
    fn a_clock_in_pure_code_is_found_and_in_its_tests_allowed() {
        let text = "let now = Instant::now();\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
        assert_eq!(check(&source("model/src/diff.rs", text)).len(), 1);
        assert_eq!(check(&source("routing/src/plan.rs", text)).len(), 1);
        assert_eq!(check(&source("routing/src/link.rs", text)), []);
    }
}
