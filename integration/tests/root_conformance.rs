// SPDX-License-Identifier: Apache-2.0
//! The conformance runner sees what is wrong: every effect is looked for where it is not.

use rhumb_integration::conformance::{self, Options, Tally};

/// Effects that are not there after ADD of one container.
const NOT_AFTER_ADD: &[&str] = &[
    "50 distinct addresses",
    "${NODEIP}:18053/UDP reaches the container port 53, other node addresses do not",
    "address differs from the one just released, when the pool is large enough",
    "address free",
    "address free again",
    "address free, endpoint gone",
    "address of ${CID}-b free",
    "address of net1 free",
    "all addresses free",
    "all pairwise reachable",
    "both host ports closed",
    "client with a fixed source port is answered",
    "datapath attached to ${HOSTIF}",
    "different address",
    "eth0 gone from ${NS}",
    "eth0 has c2:11:22:33:44:55",
    "first and last address of the subnet and the gateway never appear",
    "first interface, address and connectivity unchanged",
    "foreign interface untouched",
    "host interface gone",
    "host interface of ${CID}-b gone",
    "host interfaces unchanged",
    "host side interface gone",
    "interface gone",
    "its address is used",
    "measured TCP rate to the container about 10 Mbit/s, from it about 20 Mbit/s",
    "no address allocated",
    "no address, interface or rule left",
    "no host interface left",
    "no qdisc or map entry left",
    "no routes, neighbours or map entries left",
    "no second address allocated",
    "no state left for this id",
    "node:18080/TCP reaches the container port 80",
    "nothing allocated",
    "nothing left",
    "nothing left in ${NS} or on the host",
    "pool empty, no endpoint left",
    "queued, address free after the agent is back",
    "recorder called with CHECK",
    "recorder called with DEL",
    "recorder called with GC",
    "recorder called with STATUS",
    "recorder saw ADD then DEL",
    "recorder saw identical stdin and CNI_* variables",
    "result has ${FREEIP}",
    "same client, same source port is answered by the new container",
    "the IPAM plugin was called again with DEL",
    "the agent knows the endpoint as x/a",
    "the other container still reaches the host and the world",
    "the other stale attachments are removed",
    "works after the later plugins were already deleted",
];

/// Effects that are not there after its DEL.
const NOT_AFTER_DEL: &[&str] = &[
    "${CID} of podnet still works",
    "${CID} still works",
    "after portmap ADD the host port reaches the container",
    "capability not declared in our list, ignored",
    "default route in ${NS} (per family)",
    "eth0 exists in ${NS} and is up",
    "eth0 of the new container still works",
    "eth0 still works",
    "host can ping the address",
    "host side interface of the result exists and is up",
    "its address, MAC and MTU equal the result",
    "mapping ignored",
    "nothing removed",
    "only the peer of eth0 in ${NS} is touched",
];

/// Both lists and the few effects that one container cannot lack make up all that there are.
const ALWAYS: &[&str] =
    &["no other interface was added to ${NS}", "result accepted by the portmap plugin as prevResult"];

#[test]
fn an_effect_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    std::fs::write(&cases, case_file()).expect("written");
    let mut out = Vec::new();
    let options = Options { cases, ..Options::default() };
    let tally = conformance::run(&options, &mut out).expect("the cases are run");
    let text = String::from_utf8(out).expect("text");
    assert_eq!(tally, Tally { passed: 0, failed: 2, unknown: 1 }, "{text}");
    for word in NOT_AFTER_ADD.iter().chain(NOT_AFTER_DEL) {
        assert!(text.contains(&format!("expected {word}\n")), "nobody missed {word:?}:\n{text}");
    }
    assert!(text.contains("unknown word: eth0 sings") && text.ends_with("\n0 passed, 2 failed\n"), "{text}");
}

#[test]
fn the_lists_are_complete() {
    let list = include_str!("../cases/cni-words.md");
    let effects = list.split("\n## ").find(|section| section.starts_with("effects")).expect("a section");
    let known = [NOT_AFTER_ADD, NOT_AFTER_DEL, ALWAYS].concat();
    for word in effects.lines().filter_map(|line| line.strip_prefix("- ")) {
        assert!(known.contains(&word), "{word}");
    }
}

fn case_file() -> String {
    let call = |command: &str, effects: &[&str]| {
        serde_json::json!({
            "env": {
                "CNI_COMMAND": command, "CNI_CONTAINERID": "${CID}", "CNI_NETNS": "${NS}", "CNI_IFNAME": "eth0",
                "CNI_PATH": "${PATH}",
            },
            "stdin": {"cniVersion": "${V}", "name": "podnet", "type": "${PLUGIN}"},
            "expect": {"exit": 0, "effects": effects},
        })
    };
    let case = |id: &str, steps: Vec<serde_json::Value>| serde_json::json!({"id": id, "name": id, "versions": ["1.1.0"], "basis": "spec", "steps": steps});
    serde_json::json!({
        "plugin": {"supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]},
        "cases": [
            case("WR1", vec![call("ADD", NOT_AFTER_ADD)]),
            case("WR2", vec![call("ADD", &[]), call("DEL", NOT_AFTER_DEL)]),
            case("WR3", vec![call("ADD", &["eth0 sings"])]),
        ],
    })
    .to_string()
}
