// SPDX-License-Identifier: Apache-2.0
//! Whatever a runtime sends, the plugin ends with exactly one JSON object on stdout, or with success and nothing.

use std::sync::OnceLock;
use std::time::Duration;

use crate::agent::{Agent, single_object};
use proptest::prelude::*;
use rhumb_cni::call::Variables;
use rhumb_cni::plugin::{Outcome, Patience, run};
use serde_json::{Map, Value, json};

const NETNS: &str = "/proc/self/ns/net";

fn call(variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
    static AGENT: OnceLock<(tempfile::TempDir, Agent)> = OnceLock::new();
    let (room, _) = AGENT.get_or_init(|| {
        let room = tempfile::tempdir().expect("dir");
        let agent = Agent::listen(&room.path().join("agent.sock"));
        (room, agent)
    });
    let socket = room.path().join("agent.sock");
    let variables: Variables =
        variables.iter().copied().chain([("RHUMB_AGENT_SOCKET", socket.to_str().expect("text"))]).collect();
    let patience = Patience { call: Duration::from_secs(20), status: Duration::from_secs(20) };
    run(&variables, &mut &*stdin, patience)
}

fn usual<'a>(command: &'a str, args: &'a str) -> [(&'a str, &'a str); 6] {
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", NETNS),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
        ("CNI_ARGS", args),
    ]
}

/// Asserts what holds for every outcome, and gives back whether the call succeeded.
fn judge(command: &str, outcome: &Outcome) -> bool {
    if !outcome.success {
        let error = single_object(&outcome.stdout);
        assert!(error["code"].is_u64() && error["msg"].is_string(), "{error}");
    } else if matches!(command, "ADD" | "VERSION") {
        assert!(single_object(&outcome.stdout)["cniVersion"].is_string());
    } else {
        assert!(outcome.stdout.is_empty());
    }
    outcome.success
}

fn commands() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "NOPE"])
}

/// Text that means something somewhere in a configuration.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "1.1.0",
            "1.0.0",
            "0.4.0",
            "0.3.1",
            "podnet",
            "eth0",
            NETNS,
            "10.0.0.1/24",
            "fd00::1/64",
            "10.0.0.1",
            "0.0.0.0/0",
            "::/0",
            "tcp",
            "UDP",
            "02:00:00:00:00:01",
            "",
            "4",
            "6",
            "rhumb",
            "host-local",
            "/x",
            "c1",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
    ]
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::sample::select(vec![
            "mtu", "ipam", "type", "dns", "nameservers", "domain", "search", "options", "runtimeConfig",
            "portMappings", "hostPort", "HostPort", "containerPort", "protocol", "hostIP", "bandwidth",
            "ingressRate", "ingressBurst", "ips", "mac", "args", "cni", "prevResult", "cniVersion", "interfaces",
            "name", "sandbox", "address", "gateway", "interface", "routes", "dst", "gw", "version",
            "cni.dev/valid-attachments", "containerID", "ifname", "capabilities",
        ])
        .prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..70_000).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys(), inner), 0..6)
                .prop_map(|pairs| Value::Object(Map::from_iter(pairs))),
        ]
    })
}

/// A result that is nearly one.
fn results() -> impl Strategy<Value = Value> {
    let interface = (words(), words()).prop_map(|(name, sandbox)| json!({"name": name, "sandbox": sandbox}));
    let ip = (words(), values()).prop_map(|(address, index)| json!({"address": address, "interface": index}));
    let route = (words(), words()).prop_map(|(dst, gw)| json!({"dst": dst, "gw": gw}));
    (
        words(),
        prop::collection::vec(interface, 0..3),
        prop::collection::vec(ip, 0..3),
        prop::collection::vec(route, 0..3),
        any::<bool>(),
    )
        .prop_map(|(version, mut interfaces, ips, routes, has_container)| {
            if has_container {
                interfaces.push(json!({"name": "eth0", "sandbox": NETNS}));
            }
            json!({"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes})
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes(command in commands(), stdin in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(command, &call(&usual(command, ""), &stdin));
    }

    #[test]
    fn any_configuration(
        command in commands(),
        version in prop::sample::select(vec!["1.1.0", "1.0.0", "0.4.0", "0.3.1"]),
        extra in prop::collection::vec((keys(), values()), 0..8),
    ) {
        let mut conf = Map::from_iter([("cniVersion".to_owned(), version.into()), ("name".to_owned(), "podnet".into())]);
        conf.extend(extra.into_iter().filter(|(key, _)| key != "cniVersion" && key != "name"));
        judge(command, &call(&usual(command, ""), Value::Object(conf).to_string().as_bytes()));
    }

    #[test]
    fn any_torn_configuration(at in 0usize..400, byte: u8) {
        let mut stdin = json!({"cniVersion": "1.1.0", "name": "podnet", "runtimeConfig": {"ips": ["10.0.0.1"],
            "portMappings": [{"hostPort": 1, "containerPort": 1}], "bandwidth": {"ingressRate": 1, "ingressBurst": 1}},
            "dns": {"domain": "x"}, "prevResult": {"interfaces": [{"name": "eth0", "sandbox": NETNS}]}})
            .to_string()
            .into_bytes();
        let at = at % stdin.len();
        stdin[at] = byte;
        judge("ADD", &call(&usual("ADD", ""), &stdin));
        judge("ADD", &call(&usual("ADD", ""), &stdin[..at]));
    }

    #[test]
    fn any_previous_result(previous in prop_oneof![results(), values()], check: bool) {
        let command = if check { "CHECK" } else { "ADD" };
        let conf = json!({"cniVersion": "1.1.0", "name": "podnet", "prevResult": previous});
        let outcome = call(&usual(command, ""), conf.to_string().as_bytes());
        if judge(command, &outcome) && !check && !previous.is_null() {
            let result = single_object(&outcome.stdout);
            prop_assert_eq!(result.get("interfaces").and_then(Value::as_array).map(Vec::len),
                previous.get("interfaces").and_then(Value::as_array).map(Vec::len));
        }
    }

    #[test]
    fn any_args(args in "((IgnoreUnknown|K8S_POD_NAME|IP|MAC|FOO)=[^;=\u{0}]{0,20};?){0,4}|[^\u{0}]{0,40}") {
        let stdin = json!({"cniVersion": "1.1.0", "name": "podnet"}).to_string();
        judge("ADD", &call(&usual("ADD", &args), stdin.as_bytes()));
    }

    #[test]
    fn any_variables(container in "[^\u{0}]{0,20}", ifname in "[^\u{0}]{0,18}", netns in "[^\u{0}]{0,20}") {
        let stdin = json!({"cniVersion": "1.1.0", "name": "podnet"}).to_string();
        let mut variables = usual("ADD", "");
        variables[1].1 = &container;
        variables[3].1 = &ifname;
        judge("ADD", &call(&variables, stdin.as_bytes()));
        variables[2].1 = &netns;
        judge("ADD", &call(&variables, stdin.as_bytes()));
    }
}
