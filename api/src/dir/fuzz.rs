// SPDX-License-Identifier: Apache-2.0
//! Bytes that nobody meant as objects, and objects with a few bytes changed: nothing may panic, and what is changed
//! in one document is never changed in another.

use proptest::prelude::*;
use serde_json::json;

use super::document::{self, Document, Form};
use super::text;

/// A file with every trait that the parsers care about.
const SEED: &str = "# head
apiVersion: rhumb.io/v1alpha1
kind: PodPool
metadata: {name: default, labels: &l {a: \"b\"}}
spec:
  ipv4: {cidrs: [10.42.0.0/16], nodePrefixLength: 24}
  ipv6:
    cidrs:
      - fd00:42::/104
    nodePrefixLength: 120
  reserved: [\"10.42.0.0/28\"]
--- # second
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  annotations:
    x: |-
      'text'
      # no comment
    y: !!str 1.10
spec:
  containers:
    - {name: c, image: \"i\", ports: [{containerPort: 80}]}
---
apiVersion: rhumb.io/v1alpha1
kind: NodeState
metadata: {name: node-1, resourceVersion: '3-00'}
status:
  addresses: [192.168.100.1, \"fd00:192::1\"]
  pools: [{pool: default, family: ipv4, capacity: 254, used: 3, cooling: 0, free: 251}]
  conditions:
    - {type: Ready, status: \"True\", reason: x}
    - type: Other
      status: Unknown
      message: >
        folded
        text

# tail
...
";

/// One change of a file.
#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Insert(usize, String),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let words = [
        "---\n",
        "...\n",
        "- ",
        ": ",
        "? ",
        "&a ",
        "*a",
        "*l",
        "<<: ",
        "!x ",
        "!!binary ",
        "|\n",
        ">-\n",
        "'",
        "\"",
        "{",
        "}",
        "[",
        "]",
        "#",
        "\t",
        "\r\n",
        "\u{feff}",
        "%YAML 1.1\n",
        "null",
        "~",
        "1e400",
        "0x",
        "\\",
        "@",
        "`",
    ];
    let words = prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<usize>(), words).prop_map(|(at, word)| Mutation::Insert(at, word)),
        (any::<usize>(), 1usize..40).prop_map(|(at, len)| Mutation::Remove(at, len)),
        (any::<usize>(), 1usize..200).prop_map(|(at, len)| Mutation::Repeat(at, len)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let at = |at: &usize| at % (bytes.len() + 1);
        match mutation {
            Mutation::Set(place, byte) => {
                let at = at(place);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Mutation::Insert(place, word) => {
                let at = at(place);
                bytes.splice(at..at, word.bytes());
            }
            Mutation::Remove(place, len) => {
                let at = at(place);
                bytes.drain(at..(at + len).min(bytes.len()));
            }
            Mutation::Repeat(place, len) => {
                let at = at(place);
                let copy = bytes[at..(at + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

/// What a document says, for comparing.
fn gist(text: &str) -> String {
    match document::read(text) {
        Document::Object(id, stored) => format!("{id} {}", stored.version),
        Document::Foreign => "foreign".to_owned(),
        Document::Broken(id, fault) => format!("{id:?} {fault:?}"),
    }
}

/// Reads every document of a file; replaces and removes each in turn and reads again.
fn try_all(bytes: &[u8]) {
    let Ok(file) = std::str::from_utf8(bytes) else { return };
    let sections = text::sections(file);
    let before: Vec<String> = sections.iter().map(|section| gist(&file[section.range.clone()])).collect();
    let value =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "new", "labels": {"a": "b\n"}}});
    let document = document::write(value, None, Form::Yaml);
    for (changed, section) in sections.iter().enumerate() {
        // Only good documents are ever replaced.
        if !matches!(document::read(&file[section.range.clone()]), Document::Object(..)) {
            continue;
        }
        let replaced = text::replace(file, section, &document);
        let mut after: Vec<String> =
            text::sections(&replaced).into_iter().map(|section| gist(&replaced[section.range])).collect();
        assert_eq!(after.len(), before.len(), "{file:?} became {replaced:?}");
        assert_eq!(after.remove(changed), gist(&document), "{replaced:?}");
        let mut others = before.clone();
        others.remove(changed);
        assert_eq!(after, others, "{file:?} became {replaced:?}");
        let removed = text::remove(file, section);
        let after: Vec<String> =
            text::sections(&removed).into_iter().map(|section| gist(&removed[section.range])).collect();
        assert_eq!(after, others, "{file:?} became {removed:?}");
    }
}

#[test]
fn the_seed_is_good() {
    let sections = text::sections(SEED);
    let gists: Vec<String> = sections.into_iter().map(|section| gist(&SEED[section.range])).collect();
    assert!(gists[0].starts_with("PodPool default 0-"), "{gists:?}");
    assert!(gists[1].starts_with("Pod default/web-0 0-"), "{gists:?}");
    assert!(gists[2].starts_with("NodeState node-1 3-"), "{gists:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_all(&bytes);
    }

    #[test]
    fn arbitrary_yaml_never_panics(file in "(---|\\.\\.\\.|[a-c]: |- |[\n \t\r#:{}\\[\\]&*!|>'\"%@,?~]|[0-9.]|\u{e4}|\u{feff}){0,60}") {
        try_all(file.as_bytes());
    }

    #[test]
    fn mutated_objects_never_panic(mutations in prop::collection::vec(mutation(), 1..6)) {
        try_all(&mutate(SEED.as_bytes().to_vec(), &mutations));
    }
}
