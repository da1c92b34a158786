// SPDX-License-Identifier: Apache-2.0
//! `rhumb monitor` from a user's seat: a packet that is lost is found, with names and reason.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rhumb_integration::lab::{Lab, Node, Pod, Spec};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);
/// A packet is sent again when it was not told of within this time: the watcher may not have been there yet.
const AGAIN: Duration = Duration::from_millis(300);

/// A running `rhumb monitor -o json`, ended when dropped.
struct Monitor {
    child: Child,
    lines: Receiver<Value>,
}

fn command(node: &Node, words: &str) -> Command {
    let program = std::env::current_exe().expect("the running program");
    let folder = program.ancestors().nth(2).expect("a folder of the build");
    let folder = std::env::var_os("RHUMB_BIN_DIR").map_or_else(|| folder.to_owned(), Into::into);
    let mut command = Command::new(folder.join("rhumb"));
    command.arg("--run-dir").arg(node.run_dir()).arg("monitor").args(words.split_whitespace());
    command
}

impl Monitor {
    fn start(node: &Node, words: &str) -> Self {
        let mut child = command(node, words)
            .args(["-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("rhumb starts");
        let out = BufReader::new(child.stdout.take().expect("the pipe was asked for"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("every line is JSON");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    /// Sends until a line comes for which `wanted` holds.
    fn until(&self, send: impl Fn(), wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            send();
            while let Ok(line) = self.lines.recv_timeout(AGAIN) {
                if wanted(&line) {
                    return line;
                }
                seen.push(line);
            }
        }
        panic!("nothing like it was told, only {seen:#?}")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

fn send(from: &Pod, source: IpAddr, to: IpAddr) {
    from.namespace
        .run(|| {
            let socket = UdpSocket::bind((source, 4000))?;
            socket.send_to(b"hello", (to, 53))?;
            Ok(())
        })
        .expect("sent");
}

#[test]
fn a_lost_packet_is_found_with_its_reason_and_the_names_of_pods() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("mon") }).expect("the lab is built");
    lab.start().expect("started");
    let node = lab.node(0);
    let [a, b] = ["a", "b"].map(|name| node.add_pod("default", name).expect("added"));
    let spoofed: [IpAddr; 2] = ["10.9.9.9", "fd99::9"].map(|text| text.parse().expect("an address"));
    a.namespace.ip("address add 10.9.9.9/32 dev lo\naddress add fd99::9/128 dev lo nodad").expect("added");

    let drops = Monitor::start(node, "--drops --pod default/a");
    for (source, own, to) in [(spoofed[0], a.v4(), b.v4()), (spoofed[1], a.v6(), b.v6())] {
        // The pod asks for its gateway with the source of the packet that waits, so an honest one goes first.
        send(&a, own, to);
        let line = drops.until(
            || send(&a, source, to),
            |line| line["protocol"] == "udp" && line["destination"]["address"] == json!(to),
        );
        for (key, value) in [
            ("verdict", json!("drop")),
            ("reason", json!("source_address")),
            ("direction", json!("from_pod")),
            ("pod", json!("default/a")),
            ("protocol", json!("udp")),
            ("source", json!({"address": source, "port": 4000})),
            ("destination", json!({"address": to, "port": 53, "pod": "default/b"})),
        ] {
            assert_eq!(line[key], value, "{line}");
        }
    }

    let traces = Monitor::start(node, "--traces --pod default/b");
    for (own, to) in [(a.v4(), b.v4()), (a.v6(), b.v6())] {
        let line = traces.until(
            || send(&a, own, to),
            |line| line["destination"]["address"] == json!(to) && line["protocol"] == "udp",
        );
        assert_eq!(
            (&line["verdict"], &line["reason"], &line["source"]["pod"]),
            (&json!("redirect"), &json!("forwarded_local"), &json!("default/a")),
            "{line}"
        );
    }

    let last = command(node, "--last 2 --reason source_address").output().expect("rhumb runs");
    let text = String::from_utf8_lossy(&last.stdout);
    assert!(last.status.success() && text.lines().count() == 2, "{text}");
    assert!(text.contains("[fd99::9]:4000") && text.contains("(default/b)  udp, "), "{text}");

    lab.node_mut(0).kill_agent().expect("killed");
    let deadline = Instant::now() + PATIENCE;
    while drops.lines.recv_timeout(AGAIN) != Err(RecvTimeoutError::Disconnected) {
        assert!(Instant::now() < deadline, "the monitor goes on without an agent");
    }
    lab.node_mut(0).start_agent().expect("started");
    let again = Monitor::start(lab.node(0), "--drops");
    again.until(|| send(&a, spoofed[0], b.v4()), |line| line["reason"] == "source_address");
    drop((drops, traces, again));
    lab.close().expect("closed");
}
