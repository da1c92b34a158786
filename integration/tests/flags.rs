// SPDX-License-Identifier: Apache-2.0
//! The tables of flags in `docs/operations.md` have every flag of each program, with its default, and no other.

use std::collections::BTreeMap;
use std::process::Command;

use rhumb_integration::lab::Binaries;

const DOCUMENT: &str = include_str!("../../docs/operations.md");

/// The flags of a program, and the default of each that has one, as `--help` prints them.
fn flags(program: &str) -> BTreeMap<String, Option<String>> {
    let binaries = Binaries::find().expect("programs are beside the test");
    let output = Command::new(binaries.path(program)).arg("--help").output();
    let output = output.expect("run `cargo build --workspace` first");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut flags = BTreeMap::new();
    let mut current = None;
    for line in text.lines().map(str::trim_start) {
        if let Some(flag) = line.strip_prefix("--") {
            let end = flag.find([' ', '=']).unwrap_or(flag.len());
            current = Some(flag[..end].to_owned());
            flags.insert(flag[..end].to_owned(), None);
        }
        if let (Some(name), Some((_, default))) = (&current, line.split_once("[default: ")) {
            let default = default.split(']').next().expect("a part");
            flags.insert(name.clone(), Some(default.trim_matches('"').to_owned()));
        }
    }
    flags
}

/// The rows of flags under headings that begin so: names, and what the second column says.
fn rows(heading: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    let mut within = false;
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            within = line.trim_start_matches('#').trim() == heading;
        }
        let Some(row) = line.strip_prefix("| `--").filter(|_| within) else { continue };
        let (names, rest) = row.split_once(" | ").expect("a second column");
        let default = rest.split(" | ").next().expect("a part").trim_matches([' ', '|', '`']);
        for name in names.split("`--").filter_map(|name| name.split([' ', '`']).next()) {
            rows.insert(name.to_owned(), default.to_owned());
        }
    }
    rows
}

#[test]
fn the_document_has_the_flags_of_every_program_with_their_defaults() {
    for (program, heading) in [
        ("rhumb-agent", "Flags of the agent"),
        ("rhumb-operator", "Flags of the operator"),
        ("rhumb-bgp", "Flags of the BGP speaker"),
    ] {
        let (flags, rows) = (flags(program), rows(heading));
        assert!(flags.len() > 3, "{program}: {flags:?}");
        let names = |rows: &mut dyn Iterator<Item = &String>| rows.cloned().collect::<Vec<_>>();
        assert_eq!(names(&mut rows.keys()), names(&mut flags.keys()), "{program}");
        for (name, default) in &flags {
            if let Some(default) = default.as_ref().filter(|default| !default.is_empty()) {
                assert_eq!(&rows[name], default, "{program} --{name}");
            }
        }
    }
}
