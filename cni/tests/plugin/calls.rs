// SPDX-License-Identifier: Apache-2.0
//! Calls of the plugin as a library, with an agent that answers by script. Names in tables are those of the project's
//! CNI case file.

use std::time::{Duration, Instant};

use crate::agent::{Agent, Answer, single_object};
use rhumb_cni::call::{SOCKET_VARIABLE, Variables};
use rhumb_cni::plugin::{Outcome, Patience, run};
use rhumb_cni::protocol::{AddRequest, AddressSource, Refusal, RefusalKind, Reply, Request};
use serde_json::{Value, json};

const NETNS: &str = "/proc/self/ns/net";

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("dir"))
    }

    fn socket(&self) -> std::path::PathBuf {
        self.0.path().join("agent.sock")
    }

    fn agent(&self) -> Agent {
        Agent::listen(&self.socket())
    }

    /// Calls the plugin with these variables and with `stdin` as it is.
    fn raw(&self, variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
        let socket = self.socket();
        let variables: Variables =
            variables.iter().copied().chain([(SOCKET_VARIABLE, socket.to_str().expect("text"))]).collect();
        let patience = Patience { call: Duration::from_secs(20), status: Duration::from_secs(2) };
        run(&variables, &mut &*stdin, patience)
    }

    /// Calls the plugin for `command` with every variable set, and the keys of `extra` beside the usual ones.
    fn call(&self, command: &str, extra: &Value) -> Outcome {
        self.call_with(command, &[], extra)
    }

    fn call_with(&self, command: &str, more: &[(&str, &str)], extra: &Value) -> Outcome {
        let path = self.0.path().to_str().expect("text");
        let mut variables = usual(command);
        variables.push(("CNI_PATH", path));
        variables.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        variables.extend(more);
        self.raw(&variables, conf(extra).to_string().as_bytes())
    }
}

fn usual(command: &str) -> Vec<(&str, &str)> {
    vec![("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", NETNS), ("CNI_IFNAME", "eth0")]
}

/// A configuration with the keys of `extra` beside the usual ones, or without those that are null there.
fn conf(extra: &Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "podnet", "type": "rhumb-cni"});
    let object = conf.as_object_mut().expect("object");
    object.append(&mut extra.as_object().expect("object").clone());
    object.retain(|_, value| !value.is_null());
    conf
}

fn code(outcome: &Outcome) -> u64 {
    assert!(!outcome.success, "{}", String::from_utf8_lossy(&outcome.stdout));
    let error = single_object(&outcome.stdout);
    for key in error.as_object().expect("object").keys() {
        assert!(["cniVersion", "code", "msg", "details"].contains(&key.as_str()), "{error}");
    }
    assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{error}");
    error["code"].as_u64().expect("code")
}

fn message(outcome: &Outcome) -> String {
    single_object(&outcome.stdout)["msg"].as_str().expect("msg").to_owned()
}

fn done(outcome: &Outcome) {
    assert!(outcome.success, "{}", String::from_utf8_lossy(&outcome.stdout));
    assert!(outcome.stdout.is_empty(), "{}", String::from_utf8_lossy(&outcome.stdout));
}

fn refusal(kind: RefusalKind) -> Answer {
    Answer::Say(Reply::Refused(Refusal { kind, message: "because".into(), details: "of this".into() }))
}

fn add_request(agent: &Agent) -> AddRequest {
    let mut asked = agent.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let Request::Add(add) = asked.remove(0).request else { unreachable!("only ADDs are asked here") };
    *add
}

#[test]
fn calls_that_the_protocol_refuses_never_reach_the_agent() {
    let room = Room::new();
    let agent = room.agent();
    // Case, command, variables to change (an empty one is unset), keys of the configuration (null drops one), code, words.
    type Row = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        Value,
        u64,
        &'static [&'static str],
    );
    let rows: Vec<Row> = vec![
        ("CN005", "ADD", &[("CNI_CONTAINERID", "")], json!({}), 4, &["CNI_CONTAINERID"]),
        ("CN006", "ADD", &[("CNI_NETNS", "")], json!({}), 4, &["CNI_NETNS"]),
        ("CN008", "CHECK", &[("CNI_CONTAINERID", "")], json!({}), 4, &["CNI_CONTAINERID"]),
        ("no netns", "CHECK", &[("CNI_NETNS", "")], json!({}), 4, &["CNI_NETNS"]),
        ("CN010", "CHECK", &[("CNI_IFNAME", "")], json!({}), 4, &["CNI_IFNAME"]),
        ("CN011", "DEL", &[("CNI_CONTAINERID", "")], json!({}), 4, &["CNI_CONTAINERID"]),
        ("no ifname", "DEL", &[("CNI_IFNAME", "")], json!({}), 4, &["CNI_IFNAME"]),
        (
            "CN013",
            "ADD",
            &[("CNI_NETNS", ""), ("CNI_IFNAME", "")],
            json!({}),
            4,
            &["CNI_NETNS", "CNI_IFNAME"],
        ),
        ("no path", "GC", &[("CNI_PATH", "")], json!({}), 4, &["CNI_PATH"]),
        ("CN015", "", &[], json!({}), 4, &["CNI_COMMAND"]),
        ("CN016", "NOPE", &[], json!({}), 4, &["NOPE"]),
        ("lower case", "add", &[], json!({}), 4, &[]),
        ("CN018", "ADD", &[("CNI_CONTAINERID", "-leading-dash")], json!({}), 4, &["CNI_CONTAINERID"]),
        ("CN020", "ADD", &[("CNI_CONTAINERID", "has space")], json!({}), 4, &[]),
        ("CN021", "ADD", &[("CNI_CONTAINERID", ".hidden")], json!({}), 4, &[]),
        ("slash", "DEL", &[("CNI_CONTAINERID", "../x")], json!({}), 4, &[]),
        ("CN025", "ADD", &[("CNI_IFNAME", ".")], json!({}), 4, &["CNI_IFNAME"]),
        ("CN026", "ADD", &[("CNI_IFNAME", "..")], json!({}), 4, &[]),
        ("CN028", "ADD", &[("CNI_IFNAME", "eth:0")], json!({}), 4, &[]),
        ("slash", "ADD", &[("CNI_IFNAME", "eth/0")], json!({}), 4, &[]),
        ("space", "ADD", &[("CNI_IFNAME", "eth 0")], json!({}), 4, &[]),
        ("long", "ADD", &[("CNI_IFNAME", "abcdefghijklmnop")], json!({}), 4, &[]),
        ("CN036", "ADD", &[], json!({"name": null}), 7, &["name"]),
        ("CN038", "ADD", &[], json!({"name": "-dash"}), 7, &["name"]),
        ("CN040", "ADD", &[], json!({"cniVersion": null}), 1, &[]),
        ("CN041", "ADD", &[], json!({"cniVersion": "0.1.0"}), 1, &[]),
        ("CN043", "ADD", &[], json!({"cniVersion": "9.9.9"}), 1, &[]),
        ("CN045", "CHECK", &[], json!({"cniVersion": "adsfsadf"}), 1, &[]),
        ("CN048", "ADD", &[], json!({"mtu": "not-a-number"}), 7, &["mtu"]),
        ("CN063", "ADD", &[("CNI_NETNS", "/proc/self/status")], json!({}), 5, &["not a network namespace"]),
        ("gone", "ADD", &[("CNI_NETNS", "/nowhere")], json!({}), 5, &["/nowhere"]),
        ("CN091", "CHECK", &[], json!({}), 7, &["prevResult"]),
        ("old", "CHECK", &[], json!({"cniVersion": "0.3.1", "prevResult": {}}), 1, &["CHECK"]),
        ("CN100", "GC", &[], json!({"cniVersion": "1.0.0", "cni.dev/valid-attachments": []}), 1, &["GC"]),
        ("no list", "GC", &[], json!({}), 7, &["cni.dev/valid-attachments"]),
        ("CN106", "STATUS", &[], json!({"cniVersion": "1.0.0"}), 1, &["STATUS"]),
        (
            "CN113",
            "ADD",
            &[],
            json!({"prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.5/16"}]}}),
            7,
            &["eth0"],
        ),
        (
            "CN125",
            "ADD",
            &[],
            json!({"runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80}]}}),
            7,
            &["hostPort"],
        ),
        ("CN133", "ADD", &[("CNI_ARGS", "FOO")], json!({}), 4, &["FOO"]),
        ("unknown", "ADD", &[("CNI_ARGS", "FOO=BAR")], json!({}), 4, &["FOO"]),
        (
            "two",
            "ADD",
            &[],
            json!({"runtimeConfig": {"ips": ["10.0.0.1", "10.0.0.2"]}}),
            2,
            &["ips", "10.0.0.2"],
        ),
        ("no ipam", "ADD", &[], json!({"ipam": {"type": "absent"}}), 7, &["absent"]),
        ("no path", "ADD", &[("CNI_PATH", "")], json!({"ipam": {"type": "absent"}}), 4, &["CNI_PATH"]),
    ];
    for (case, command, changes, extra, want, words) in rows {
        let outcome = room.call_with(command, changes, &extra);
        assert_eq!(code(&outcome), want, "{case}: {}", message(&outcome));
        for word in words {
            assert!(message(&outcome).contains(word), "{case}: {}", message(&outcome));
        }
        assert!(agent.asked().is_empty(), "{case}");
    }
}

#[test]
fn stdin_that_is_no_configuration_is_not_decoded() {
    let room = Room::new();
    for stdin in ["", "[]", "{", "null", "{} {}"] {
        assert_eq!(code(&room.raw(&usual("ADD"), stdin.as_bytes())), 6, "{stdin:?}");
    }
}

#[test]
fn an_error_is_said_in_the_version_of_the_configuration_and_names_the_one_it_refuses() {
    let room = Room::new();
    let refused = single_object(&room.call("ADD", &json!({"cniVersion": "9.9.9"})).stdout);
    assert_eq!(refused["cniVersion"], "1.1.0");
    assert!(refused["details"].as_str().is_some_and(|d| d.contains("9.9.9")), "{refused}");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        for (command, extra) in [("ADD", json!({"name": "-"})), ("NOPE", json!({}))] {
            let mut extra = extra;
            extra["cniVersion"] = version.into();
            assert_eq!(single_object(&room.call(command, &extra).stdout)["cniVersion"], version);
        }
    }
}

#[test]
fn version_needs_neither_stdin_nor_agent() {
    let room = Room::new();
    for stdin in ["", "{\"cniVersion\": \"1.1.0\"}", "junk"] {
        let outcome = room.raw(&[("CNI_COMMAND", "VERSION")], stdin.as_bytes());
        assert!(outcome.success);
        assert_eq!(
            single_object(&outcome.stdout),
            json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
        );
    }
}

#[test]
fn add_says_its_result_in_the_version_asked() {
    let room = Room::new();
    let agent = room.agent();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let dns = json!({"nameservers": ["10.96.0.10"], "domain": "cluster.local",
            "search": ["x.svc.cluster.local"], "options": ["ndots:5"]});
        let outcome = room.call("ADD", &json!({"cniVersion": version, "dns": dns}));
        assert!(outcome.success);
        let result = single_object(&outcome.stdout);
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"], dns);
        assert_eq!(result["interfaces"][0]["name"], "rh0123456789");
        assert!(result["interfaces"][0].get("sandbox").is_none());
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], NETNS);
        assert_eq!(result["interfaces"][1].get("mtu").is_some(), version == "1.1.0");
        assert_eq!(result["ips"][1].get("version"), version.starts_with('0').then_some(&json!("6")));
        assert_eq!(result["ips"][0]["interface"], 1);
    }
    for asked in agent.asked() {
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(NETNS).expect("namespace"));
        assert_eq!(asked.netns, Some(inode));
    }
}

#[test]
fn add_tells_the_agent_everything_that_is_wished() {
    let room = Room::new();
    let agent = room.agent();
    let more = [
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;FOO=BAR;IP=10.0.0.9"),
        ("CNI_CONTAINERID", "a1._-Z"),
        ("CNI_IFNAME", "abcdefghijklmno"),
    ];
    let extra = json!({"mtu": 1400, "capabilities": {"mac": true}, "runtimeConfig": {
        "mac": "c2:11:22:33:44:55", "ips": ["10.0.0.5/24"], "aliases": ["x"],
        "portMappings": [{"hostPort": 18053, "containerPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000}}});
    assert!(room.call_with("ADD", &more, &extra).success);
    let add = serde_json::to_value(add_request(&agent)).expect("json");
    assert_eq!(
        add,
        json!({
            "key": {"container": "a1._-Z", "ifname": "abcdefghijklmno"}, "network": "podnet", "netns": NETNS,
            "pod": {"namespace": "x", "name": "a"}, "addresses": {"from": "pool", "requested": ["10.0.0.5"]},
            "mac": "c2:11:22:33:44:55", "mtu": 1400,
            "port_mappings": [{"host_port": 18053, "container_port": 53, "protocol": "udp", "host_ip": "10.0.0.1"}],
            "bandwidth": {"ingress": {"rate": 1000, "burst": 2000}, "egress": null},
        })
    );
}

#[test]
fn each_refusal_of_the_agent_has_its_code() {
    let room = Room::new();
    let table = [
        (RefusalKind::UnknownContainer, 3, 50),
        (RefusalKind::Io, 5, 50),
        (RefusalKind::InvalidConfig, 7, 50),
        (RefusalKind::TryAgain, 11, 50),
        (RefusalKind::NotAvailable, 50, 50),
        (RefusalKind::LimitedConnectivity, 51, 51),
        (RefusalKind::InterfaceExists, 101, 50),
        (RefusalKind::Differs, 102, 50),
        (RefusalKind::AddressUnavailable, 103, 50),
        (RefusalKind::Incomplete, 104, 50),
    ];
    for (kind, add, status) in table {
        let _agent = room.agent().then([refusal(kind), refusal(kind)]);
        let outcome = room.call("ADD", &json!({}));
        assert_eq!(code(&outcome), add, "{kind:?}");
        let error = single_object(&outcome.stdout);
        assert_eq!((&error["msg"], &error["details"]), (&json!("because"), &json!("of this")));
        assert_eq!(code(&room.call("STATUS", &json!({}))), status, "{kind:?}");
    }
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let room = Room::new();
    let _agent = room.agent().then([Answer::Say(Reply::Done)]);
    assert_eq!(code(&room.call("ADD", &json!({}))), 5);
}

#[test]
fn an_agent_that_is_absent_hangs_up_or_stays_silent_is_to_be_tried_again() {
    let room = Room::new();
    let check = json!({"prevResult": {"interfaces": [{"name": "eth0", "sandbox": NETNS}]}});
    let gc = json!({"cni.dev/valid-attachments": []});
    for (command, extra) in [("ADD", &json!({})), ("CHECK", &check), ("GC", &gc)] {
        assert_eq!(code(&room.call(command, extra)), 11, "{command}");
        let agent = room.agent().then([Answer::HangUp]);
        assert_eq!(code(&room.call(command, extra)), 11, "{command}");
        drop(agent);
        let _agent = room.agent().then([Answer::Never]);
        let socket = room.socket();
        let mut variables = usual(command);
        variables.extend([(SOCKET_VARIABLE, socket.to_str().expect("text")), ("CNI_PATH", "/")]);
        let short = Patience { call: Duration::from_millis(100), status: Duration::from_millis(100) };
        let stdin = conf(extra).to_string();
        let outcome = run(&variables.into_iter().collect(), &mut stdin.as_bytes(), short);
        assert_eq!(code(&outcome), 11, "{command}");
    }
}

#[test]
fn status_answers_in_time_whether_the_agent_is_absent_or_silent() {
    let room = Room::new();
    assert_eq!(code(&room.call("STATUS", &json!({}))), 50);
    let agent = room.agent();
    done(&room.call("STATUS", &json!({})));
    drop(agent);
    let _agent = room.agent().then([Answer::Never]);
    let start = Instant::now();
    assert_eq!(code(&room.call("STATUS", &json!({}))), 50);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// The result of another plugin with a bridge, the host's end and the container's end.
fn bridge_result(version: &str) -> Value {
    let mut ip = json!({"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2});
    if version.starts_with('0') {
        ip["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"}, {"name": "veth3243", "mac": "55:44:33:22:11:11"},
            {"name": "eth0", "mac": "98:88:77:66:55:44", "sandbox": NETNS},
        ],
        "ips": [ip], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.1.0.1"]}, "other": {"b": 1, "a": [2]},
    })
}

#[test]
fn chained_add_passes_the_result_on_unchanged() {
    let room = Room::new();
    let agent = room.agent();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let previous = bridge_result(version);
        let outcome = room.call(
            "ADD",
            &json!({"cniVersion": version, "prevResult": previous, "dns": {"domain": "own"}, "ipam": {"type": "absent"}}),
        );
        assert!(outcome.success, "{}", String::from_utf8_lossy(&outcome.stdout));
        assert_eq!(single_object(&outcome.stdout), previous);
        let want = AddressSource::Chained {
            addresses: vec!["10.1.0.5/16".parse().expect("address")],
            host_ifname: None,
        };
        assert_eq!(add_request(&agent).addresses, want);
    }
}

#[test]
fn chained_add_knows_the_addresses_without_interface_and_the_only_host_end() {
    let room = Room::new();
    let agent = room.agent();
    let mut previous = bridge_result("1.1.0");
    previous["ips"][0].as_object_mut().expect("ip").remove("interface");
    previous["interfaces"].as_array_mut().expect("list").remove(0);
    assert!(room.call("ADD", &json!({"prevResult": previous})).success);
    let want = AddressSource::Chained {
        addresses: vec!["10.1.0.5/16".parse().expect("address")],
        host_ifname: Some("veth3243".parse().expect("name")),
    };
    assert_eq!(add_request(&agent).addresses, want);
}

#[test]
fn chained_add_says_the_result_in_the_version_of_the_configuration() {
    let room = Room::new();
    let _agent = room.agent();
    let outcome = room.call("ADD", &json!({"cniVersion": "0.4.0", "prevResult": bridge_result("1.0.0")}));
    assert_eq!(single_object(&outcome.stdout), bridge_result("0.4.0"));
}

#[test]
fn check_asks_for_what_belongs_to_the_interface() {
    let room = Room::new();
    let agent = room.agent();
    let mut previous = bridge_result("1.1.0");
    previous["ips"].as_array_mut().expect("list").push(json!({"address": "10.1.0.1/16", "interface": 0}));
    for (netns, with_fd) in [(NETNS, true), ("/nowhere", false)] {
        previous["interfaces"][2]["sandbox"] = netns.into();
        done(&room.call_with("CHECK", &[("CNI_NETNS", netns)], &json!({"prevResult": previous})));
        let asked = agent.asked().remove(0);
        assert_eq!(asked.netns.is_some(), with_fd);
        assert_eq!(
            serde_json::to_value(&asked.request).expect("json"),
            json!({
                "command": "CHECK", "key": {"container": "c1", "ifname": "eth0"}, "network": "podnet",
                "addresses": ["10.1.0.5/16"], "routes": [{"dst": "0.0.0.0/0", "gw": null, "mtu": null}],
                "host_interfaces": ["cni0", "veth3243"],
            })
        );
    }
    let other = room.call_with("CHECK", &[("CNI_IFNAME", "net1")], &json!({"prevResult": previous}));
    assert_eq!(code(&other), 7);
}

#[test]
fn the_result_of_an_add_passes_its_own_check() {
    let room = Room::new();
    let agent = room.agent();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let result = single_object(&room.call("ADD", &json!({"cniVersion": version})).stdout);
        done(&room.call("CHECK", &json!({"cniVersion": version, "prevResult": result})));
        let Request::Check(check) = agent.asked().remove(1).request else { panic!("no CHECK") };
        assert_eq!(check.addresses.len(), 2);
        assert_eq!(check.host_interfaces[0].as_str(), "rh0123456789");
    }
}

#[test]
fn gc_names_what_stays() {
    let room = Room::new();
    let agent = room.agent().then([refusal(RefusalKind::Incomplete)]);
    let list = json!([{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]);
    assert_eq!(code(&room.call("GC", &json!({"cni.dev/valid-attachments": list}))), 104);
    done(&room.call("GC", &json!({"cni.dev/attachments": list})));
    for asked in agent.asked() {
        let Request::Gc(gc) = asked.request else { panic!("no GC") };
        assert_eq!(gc.network, "podnet");
        assert_eq!(gc.keep.iter().map(ToString::to_string).collect::<Vec<_>>(), ["c1/eth0", "c1/net1"]);
    }
}

#[test]
fn del_needs_nothing_that_only_an_add_reads() {
    let room = Room::new();
    let agent = room.agent();
    let extra = json!({"mtu": "x", "prevResult": [1], "runtimeConfig": 1, "dns": 2, "args": 3});
    for netns in ["", "/nowhere"] {
        done(&room.call_with("DEL", &[("CNI_NETNS", netns), ("CNI_ARGS", "FOO")], &extra));
        let asked = agent.asked().remove(0);
        assert!(matches!(asked.request, Request::Del(_)) && asked.netns.is_none());
    }
}

#[test]
fn a_request_longer_than_a_frame_is_not_sent() {
    let room = Room::new();
    let agent = room.agent();
    let list: Vec<_> =
        (0..20_000).map(|i| json!({"containerID": format!("{i:064}"), "ifname": "eth0"})).collect();
    assert_eq!(code(&room.call("GC", &json!({"cni.dev/valid-attachments": list}))), 5);
    assert!(agent.asked().is_empty());
}

#[test]
fn the_socket_in_the_configuration_goes_before_the_variable() {
    let (room, other) = (Room::new(), Room::new());
    let (agent, unused) = (other.agent(), room.agent());
    done(&room.call("STATUS", &json!({"agentSocket": other.socket()})));
    assert_eq!((agent.asked().len(), unused.asked().len()), (1, 0));
}

#[test]
fn a_socket_variable_without_an_absolute_path_is_refused() {
    let variables: Variables = [("CNI_COMMAND", "STATUS"), (SOCKET_VARIABLE, "x.sock")].into_iter().collect();
    let outcome = run(&variables, &mut conf(&json!({})).to_string().as_bytes(), Patience::default());
    assert_eq!(code(&outcome), 4);
    assert!(message(&outcome).contains(SOCKET_VARIABLE));
}
