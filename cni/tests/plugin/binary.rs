// SPDX-License-Identifier: Apache-2.0
//! The plugin as a runtime starts it: a process with variables and stdin.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::agent::{Agent, Answer, single_object};
use rhumb_cni::failpoint;
use rhumb_cni::protocol::{AddressSource, DelRequest, Refusal, RefusalKind, Reply, Request};
use rhumb_cni::queue::{Queue, directory_of};
use serde_json::{Value, json};

const NETNS: &str = "/proc/self/ns/net";

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::Builder::new().prefix("rhcni").tempdir().expect("dir"));
        std::fs::create_dir(room.path("bin")).expect("dir");
        std::fs::create_dir(room.path("log")).expect("dir");
        std::fs::create_dir(room.path("failpoints")).expect("dir");
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self) -> Agent {
        Agent::listen(&self.path("agent.sock"))
    }

    fn queue(&self) -> PathBuf {
        directory_of(&self.path("agent.sock"))
    }

    fn start(&self, command: &str, extra: &Value) -> Child {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rhumb-cni"))
            .env_clear()
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_NETNS", NETNS),
                ("CNI_IFNAME", "eth0"),
                ("CNI_ARGS", "K8S_POD_NAME=a"),
                ("PATH", "/usr/bin:/bin"),
            ])
            .env("CNI_PATH", self.path("bin"))
            .env("RECORDS", self.path("log"))
            .env("RHUMB_AGENT_SOCKET", self.path("agent.sock"))
            .env(failpoint::ENV, self.path("failpoints"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("plugin");
        let mut pipe = child.stdin.take().expect("pipe");
        // A plugin that was killed does not read.
        drop(pipe.write_all(conf(extra).as_bytes()));
        child
    }

    fn run(&self, command: &str, extra: &Value) -> Output {
        self.start(command, extra).wait_with_output().expect("ended")
    }

    /// An IPAM plugin that records its calls and then does `script`.
    fn ipam(&self, script: &str) {
        let recorder = "n=$(ls \"$RECORDS\" | wc -l)\ncat > \"$RECORDS/$n.stdin\"\nenv | grep ^CNI_ | sort > \"$RECORDS/$n.tmp\"\n\
                        mv \"$RECORDS/$n.tmp\" \"$RECORDS/$n.env\"";
        std::fs::write(self.path("bin/ipam"), format!("#!/bin/sh\n{recorder}\n{script}\n")).expect("script");
        std::fs::set_permissions(self.path("bin/ipam"), PermissionsExt::from_mode(0o755)).expect("mode");
    }

    /// The commands that the IPAM plugin was called with.
    fn ipam_calls(&self) -> Vec<String> {
        let mut calls: Vec<(usize, String)> = self
            .path("log")
            .read_dir()
            .expect("log")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.extension().is_some_and(|e| e == "env"))
            .map(|path| {
                let text = std::fs::read_to_string(&path).expect("record");
                let command = text.lines().find_map(|l| l.strip_prefix("CNI_COMMAND=")).expect("command");
                let number =
                    path.file_stem().and_then(|s| s.to_str()).expect("number").parse().expect("number");
                (number, command.to_owned())
            })
            .collect();
        calls.sort();
        calls.into_iter().map(|(_, command)| command).collect()
    }

    fn arm(&self, name: &str, action: &str) {
        std::fs::write(self.path("failpoints").join(name), action).expect("failpoint");
    }
}

fn conf(extra: &Value) -> String {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "podnet", "type": "rhumb-cni"});
    conf.as_object_mut().expect("object").append(&mut extra.as_object().expect("object").clone());
    conf.to_string()
}

const LEASE: &str = "case $CNI_COMMAND in ADD) echo '{\"cniVersion\": \"1.1.0\", \
    \"ips\": [{\"address\": \"192.0.2.7/24\", \"gateway\": \"192.0.2.1\"}], \
    \"routes\": [{\"dst\": \"0.0.0.0/0\"}, {\"dst\": \"198.51.100.0/24\", \"gw\": \"192.0.2.1\"}], \
    \"dns\": {\"domain\": \"ipam.example\"}}';; esac";

fn with_ipam(extra: Value) -> Value {
    let mut with = json!({"ipam": {"type": "ipam", "ranges": []}});
    with.as_object_mut().expect("object").append(&mut extra.as_object().expect("object").clone());
    with
}

fn code(output: &Output) -> u64 {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    single_object(&output.stdout)["code"].as_u64().expect("code")
}

fn done(output: &Output) {
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

fn refusal(kind: RefusalKind) -> Answer {
    Answer::Say(Reply::Refused(Refusal { kind, message: "because".into(), details: String::new() }))
}

fn queued(directory: &Path) -> usize {
    let Ok(entries) = directory.read_dir() else { return 0 };
    entries.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().ends_with(".json"))).count()
}

fn drain(directory: &Path) -> Vec<DelRequest> {
    let queue = Queue::open(directory).expect("lock");
    queue.drain(|_| Ok::<_, std::convert::Infallible>(())).expect("disk").done
}

#[test]
fn version_is_printed_without_stdin() {
    let output = Command::new(env!("CARGO_BIN_EXE_rhumb-cni"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .output()
        .expect("plugin");
    assert!(output.status.success());
    assert_eq!(single_object(&output.stdout)["supportedVersions"].as_array().map(Vec::len), Some(4));
}

#[test]
fn without_a_command_the_plugin_says_so_as_an_error_object() {
    let output = Command::new(env!("CARGO_BIN_EXE_rhumb-cni")).env_clear().stdin(Stdio::null()).output();
    assert_eq!(code(&output.expect("plugin")), 4);
}

#[test]
fn the_namespace_itself_reaches_the_agent() {
    let room = Room::new();
    let agent = room.agent();
    let output = room.run("ADD", &json!({}));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(single_object(&output.stdout)["interfaces"][1]["sandbox"], NETNS);
    let inode = std::fs::metadata(NETNS).expect("namespace").ino();
    assert_eq!(agent.asked()[0].netns, Some(inode));
}

#[test]
fn del_of_an_absent_agent_is_queued_and_succeeds() {
    let room = Room::new();
    done(&room.run("DEL", &json!({})));
    done(&room.run("DEL", &json!({})));
    assert_eq!(queued(&room.queue()), 1);
    // What the agent left behind when it was killed: a socket that nobody listens at.
    drop(UnixListener::bind(room.path("agent.sock")).expect("socket"));
    done(&room.run("DEL", &json!({})));
    let want = DelRequest { key: "c1/eth0".parse().expect("key"), network: "podnet".into() };
    assert_eq!(drain(&room.queue()), [want]);
    assert_eq!(queued(&room.queue()), 0);
}

#[test]
fn del_of_a_running_agent_is_not_queued() {
    let room = Room::new();
    let agent = room.agent();
    done(&room.run("DEL", &json!({})));
    assert!(matches!(agent.asked()[0].request, Request::Del(_)));
    assert!(!room.queue().exists());
}

#[test]
fn del_that_cannot_be_queued_is_to_be_tried_again() {
    let room = Room::new();
    std::fs::write(room.queue(), "a file where the directory would be").expect("file");
    assert_eq!(code(&room.run("DEL", &json!({}))), 11);
}

#[test]
fn del_of_an_agent_that_hangs_up_is_asked_again() {
    let room = Room::new();
    let agent = room.agent().then([Answer::HangUp]);
    done(&room.run("DEL", &json!({})));
    assert_eq!(agent.asked().len(), 2);
    assert_eq!(queued(&room.queue()), 0);
    drop(agent);
    let _agent = room.agent().then([Answer::HangUp, Answer::HangUp]);
    assert_eq!(code(&room.run("DEL", &json!({}))), 11);
    assert_eq!(queued(&room.queue()), 0);
}

#[test]
fn del_of_an_agent_that_dies_over_it_is_queued() {
    let room = Room::new();
    let agent = room.agent().then([Answer::Die]);
    done(&room.run("DEL", &json!({})));
    assert_eq!((agent.asked().len(), queued(&room.queue())), (1, 1));
}

#[test]
fn a_plugin_that_saw_no_agent_asks_the_one_that_starts_meanwhile() {
    let room = Room::new();
    // The agent starts: it drains, listens, and only then lets go of the queue.
    let queue = Queue::open(&room.queue()).expect("lock");
    let mut child = room.start("DEL", &json!({}));
    wait_until_locked_out(&mut child);
    assert!(queue.drain(|_| Ok::<_, std::convert::Infallible>(())).expect("disk").done.is_empty());
    let agent = room.agent();
    drop(queue);
    done(&child.wait_with_output().expect("ended"));
    assert_eq!(agent.asked().len(), 1);
    assert_eq!(queued(&room.queue()), 0);
}

/// Waits until a thread of the process waits for a file lock.
fn wait_until_locked_out(process: &mut Child) {
    let pid = process.id().to_string();
    while !std::fs::read_to_string("/proc/locks")
        .expect("locks")
        .lines()
        .any(|line| line.contains("->") && line.split_whitespace().any(|word| word == pid))
    {
        assert!(process.try_wait().expect("child").is_none(), "the plugin ended without waiting");
        std::thread::yield_now();
    }
}

#[test]
fn no_del_is_lost_while_the_agent_comes_and_goes() {
    let room = Room::new();
    let mut seen = 0;
    for round in 0..6 {
        let children: Vec<_> = (0..6)
            .map(|i| {
                let child = Command::new(env!("CARGO_BIN_EXE_rhumb-cni"))
                    .env_clear()
                    .envs([("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")])
                    .env("CNI_CONTAINERID", format!("c{round}-{i}"))
                    .env("RHUMB_AGENT_SOCKET", room.path("agent.sock"))
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn();
                let mut child = child.expect("plugin");
                let mut pipe = child.stdin.take().expect("pipe");
                pipe.write_all(conf(&json!({})).as_bytes()).expect("pipe");
                child
            })
            .collect();
        let queue = Queue::open(&room.queue()).expect("lock");
        seen += queue.drain(|_| Ok::<_, std::convert::Infallible>(())).expect("disk").done.len();
        let agent = room.agent();
        drop(queue);
        let mut failed = 0;
        for child in children {
            if !child.wait_with_output().expect("ended").status.success() {
                failed += 1;
            }
        }
        assert_eq!(failed, 0);
        // The plugins of the round have ended, so the agent stops with nobody waiting.
        seen += agent.asked().len();
    }
    assert_eq!(seen + drain(&room.queue()).len(), 36);
}

#[test]
fn the_ipam_plugin_gets_the_same_stdin_and_variables_in_every_operation() {
    let room = Room::new();
    room.ipam(LEASE);
    let agent = room.agent();
    let output = room.run("ADD", &with_ipam(json!({})));
    assert!(output.status.success(), "{output:?}");
    let result = single_object(&output.stdout);
    assert_eq!(result["ips"][0]["address"], "192.0.2.7/24");
    assert_eq!(result["dns"], json!({"domain": "ipam.example"}));
    let Request::Add(add) = &agent.asked()[0].request else { panic!("no ADD") };
    let AddressSource::Delegated { addresses, routes } = &add.addresses else { panic!("{add:?}") };
    assert_eq!(addresses[0].to_string(), "192.0.2.7/24");
    assert_eq!(routes.iter().map(|r| r.dst.to_string()).collect::<Vec<_>>(), ["198.51.100.0/24"]);

    done(&room.run("CHECK", &with_ipam(json!({"prevResult": result}))));
    done(&room.run("DEL", &with_ipam(json!({"prevResult": result}))));
    done(&room.run("GC", &with_ipam(json!({"cni.dev/valid-attachments": []}))));
    done(&room.run("STATUS", &with_ipam(json!({}))));
    assert_eq!(room.ipam_calls(), ["ADD", "CHECK", "DEL", "GC", "STATUS"]);

    let read = |name: &str| std::fs::read_to_string(room.path("log").join(name)).expect("record");
    assert_eq!(read("0.stdin"), conf(&with_ipam(json!({}))));
    let bin = room.path("bin");
    let want = format!(
        "CNI_ARGS=K8S_POD_NAME=a\nCNI_COMMAND=ADD\nCNI_CONTAINERID=c1\nCNI_IFNAME=eth0\nCNI_NETNS={NETNS}\nCNI_PATH={}\n",
        bin.display()
    );
    assert_eq!(read("0.env"), want);
}

#[test]
fn dns_of_the_configuration_goes_before_that_of_the_ipam_plugin() {
    let room = Room::new();
    room.ipam(LEASE);
    let _agent = room.agent();
    let output = room.run("ADD", &with_ipam(json!({"dns": {"search": ["own.example"]}})));
    assert_eq!(single_object(&output.stdout)["dns"], json!({"search": ["own.example"]}));
}

#[test]
fn addresses_are_given_back_when_the_add_fails_after_them() {
    let room = Room::new();
    room.ipam(LEASE);
    let agent = room.agent().then([refusal(RefusalKind::InterfaceExists)]);
    assert_eq!(code(&room.run("ADD", &with_ipam(json!({})))), 101);
    drop(agent);
    assert_eq!(code(&room.run("ADD", &with_ipam(json!({})))), 11);
    room.arm("plugin.add.before_send", "error");
    assert_eq!(code(&room.run("ADD", &with_ipam(json!({})))), 5);
    assert_eq!(room.ipam_calls(), ["ADD", "DEL", "ADD", "DEL", "ADD", "DEL"]);
}

#[test]
fn results_without_address_or_sense_are_refused_and_given_back() {
    let room = Room::new();
    let agent = room.agent();
    for (script, want) in [
        ("echo '{}'", 5),
        ("echo oops", 6),
        ("echo '[]'", 6),
        ("echo '{\"ips\": [{\"address\": \"x\"}]}'", 6),
        ("", 6),
    ] {
        room.ipam(script);
        assert_eq!(code(&room.run("ADD", &with_ipam(json!({})))), want, "{script}");
    }
    assert!(agent.asked().is_empty());
    assert_eq!(room.ipam_calls().len(), 10);
}

#[test]
fn the_error_of_the_ipam_plugin_is_passed_on() {
    let room = Room::new();
    room.ipam("echo '{\"cniVersion\": \"1.1.0\", \"code\": 99, \"msg\": \"sulking\", \"details\": \"much\"}'; exit 1");
    let agent = room.agent();
    for (command, extra) in [
        ("ADD", json!({})),
        ("STATUS", json!({})),
        ("GC", json!({"cni.dev/valid-attachments": []})),
        ("DEL", json!({})),
    ] {
        let output = room.run(command, &with_ipam(extra));
        assert_eq!(code(&output), 99, "{command}");
        let error = single_object(&output.stdout);
        assert_eq!((&error["msg"], &error["details"]), (&json!("sulking"), &json!("much")));
    }
    // An ADD without addresses does not reach the agent.
    assert_eq!(agent.asked().len(), 3);
}

#[test]
fn the_ipam_plugin_is_asked_to_collect_also_when_the_agent_is_absent() {
    let room = Room::new();
    room.ipam("");
    assert_eq!(code(&room.run("GC", &with_ipam(json!({"cni.dev/valid-attachments": []})))), 11);
    assert_eq!(room.ipam_calls(), ["GC"]);
}

#[test]
fn addresses_go_back_after_the_attachment_is_removed_or_queued() {
    let room = Room::new();
    room.ipam("");
    let agent = room.agent().then([refusal(RefusalKind::Io)]);
    assert_eq!(code(&room.run("DEL", &with_ipam(json!({})))), 5);
    assert!(room.ipam_calls().is_empty());
    drop(agent);
    done(&room.run("DEL", &with_ipam(json!({}))));
    assert_eq!((room.ipam_calls(), queued(&room.queue())), (vec!["DEL".to_owned()], 1));
}

#[test]
fn a_status_without_its_ipam_plugin_is_not_available() {
    let room = Room::new();
    let _agent = room.agent();
    assert_eq!(code(&room.run("STATUS", &with_ipam(json!({})))), 50);
}

#[test]
fn failpoints_of_the_plugin_act_before_and_after_the_agent() {
    for (command, point, reached) in [
        ("ADD", "plugin.add.before_send", 0),
        ("ADD", "plugin.add.after_reply", 1),
        ("DEL", "plugin.del.before_send", 0),
        ("DEL", "plugin.del.after_reply", 1),
    ] {
        let room = Room::new();
        let agent = room.agent();
        assert!(failpoint::ALL.contains(&point));
        room.arm(&format!("{point}@c1"), "error");
        assert_eq!(code(&room.run(command, &json!({}))), 5, "{point}");
        assert_eq!(agent.asked().len(), reached, "{point}");
        room.arm(point, "kill");
        let output = room.run(command, &json!({}));
        assert!(output.status.code().is_none() && output.stdout.is_empty(), "{point}: {output:?}");
        assert_eq!(agent.asked().len(), reached, "{point}");
        assert!(room.run(command, &json!({})).status.success(), "{point}");
    }
}

#[test]
fn a_killed_plugin_leaves_the_queue_usable() {
    let room = Room::new();
    let queue = Queue::open(&room.queue()).expect("lock");
    let mut child = room.start("DEL", &json!({}));
    wait_until_locked_out(&mut child);
    child.kill().expect("running");
    child.wait().expect("ended");
    drop(queue);
    done(&room.run("DEL", &json!({})));
    assert_eq!(drain(&room.queue()).len(), 1);
}

#[test]
fn status_ends_in_time_when_the_ipam_plugin_hangs() {
    let room = Room::new();
    room.ipam("exec sleep 1000");
    let _agent = room.agent();
    let start = std::time::Instant::now();
    assert_eq!(code(&room.run("STATUS", &with_ipam(json!({})))), 50);
    assert!(start.elapsed() < Duration::from_secs(5));
}
