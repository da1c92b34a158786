// SPDX-License-Identifier: Apache-2.0
//! A namespace and a bpffs directory for one test, gone when it ends.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod frame;
pub(crate) mod router;
pub(crate) mod two_nodes;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rhumb_ebpf::{Config, Counter, Datapath, Direction, Hook, Reason, Targets};
use rhumb_ebpf_common::layout::VERSION;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed with everything in it when dropped.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("rheb{}-{serial}", std::process::id());
        command("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        namespace.run("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs a command inside; its output, or a panic with what it said.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> String {
        self.inside(|| command(program, args))
    }

    /// Runs `ip` with words separated by spaces.
    pub(crate) fn ip(&self, words: &str) -> String {
        self.run("ip", &words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs several lines of `ip` at once: starting a program takes long on an emulated processor.
    pub(crate) fn ip_all(&self, lines: &str) {
        self.inside(|| {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut ip = ip.spawn().expect("ip runs");
            ip.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("ip reads");
            let done = ip.wait_with_output().expect("ip ends");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "ip -batch (root is needed): {said}{lines}");
        });
    }

    /// Whether a command inside succeeds.
    pub(crate) fn succeeds(&self, words: &str) -> bool {
        self.inside(|| {
            let mut words = words.split_whitespace();
            let program = words.next().expect("a program");
            Command::new(program).args(words).output().expect("it runs").status.success()
        })
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("the namespace is there");
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a network namespace");
                work()
            });
            thread.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn ifindex(&self, name: &str) -> u32 {
        // The namespace is that of the thread, which `/proc/net` does not look at.
        self.inside(|| std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{name}")))
            .expect("the interface is there")
            .split_whitespace()
            .nth(1)
            .and_then(|index| index.parse().ok())
            .expect("an index")
    }

    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/{key}"), value).expect("the kernel takes it"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// A datapath in a directory of its own, removed when dropped.
pub(crate) struct Ground {
    pub(crate) datapath: Option<Datapath>,
    pub(crate) config: Config,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/rhebpf{}-{serial}", std::process::id()));
        let mut ground = Self { datapath: None, config: Config { bpffs, flows: 4_096 } };
        ground.reopen();
        ground
    }

    pub(crate) fn reopen(&mut self) {
        self.datapath = None;
        let opened = Datapath::open(&self.config);
        self.datapath = Some(opened.unwrap_or_else(|error| {
            panic!("this test needs root and BPF: {error}: {:?}", std::error::Error::source(&error))
        }));
    }

    pub(crate) fn datapath(&self) -> &Datapath {
        self.datapath.as_ref().expect("open")
    }

    /// Where the program of a hook is pinned.
    pub(crate) fn pin(&self, hook: Hook) -> String {
        format!("{}/v{VERSION}/programs/{hook}", self.config.bpffs.display())
    }

    /// Attaches a program in a namespace as it is done on kernels without tcx.
    pub(crate) fn filter(&self, node: &Namespace, ifname: &str, hook: Hook) {
        let side = match hook {
            Hook::ToPod | Hook::ToWire | Hook::ToTunnel => "egress",
            Hook::FromPod | Hook::FromWire | Hook::FromTunnel => "ingress",
        };
        if !node.succeeds(&format!("tc qdisc add dev {ifname} clsact")) {
            assert!(node.run("tc", &["qdisc", "show", "dev", ifname]).contains("clsact"));
        }
        let program = self.pin(hook);
        let filter = format!("filter add dev {ifname} {side} bpf direct-action object-pinned {program}");
        node.run("tc", &filter.split(' ').collect::<Vec<_>>());
    }

    /// Removes every entry of a map.
    pub(crate) fn forget(&self, map: &str) {
        let pin = self.config.bpffs.join(format!("v{VERSION}/maps")).join(map);
        let pin = pin.to_str().expect("text").to_owned();
        let entries = command("bpftool", &["-j", "map", "dump", "pinned", &pin]);
        let entries: Vec<Vec<String>> = entries
            .split("\"key\":[")
            .skip(1)
            .map(|entry| {
                let end = entry.find(']').expect("an end");
                entry[..end].split(',').map(|byte| byte.trim_matches('"').to_owned()).collect()
            })
            .collect();
        assert!(!entries.is_empty());
        for key in entries {
            let mut words = vec!["map", "delete", "pinned", &pin, "key"];
            words.extend(key.iter().map(String::as_str));
            command("bpftool", &words);
        }
    }

    pub(crate) fn targets(&self) -> Targets {
        self.datapath().targets().expect("targets open")
    }

    pub(crate) fn count(&self, hook: Hook, reason: Reason) -> u64 {
        let direction = match hook {
            Hook::FromPod => Direction::FromPod,
            Hook::ToPod => Direction::ToPod,
            Hook::FromWire => Direction::FromWire,
            Hook::ToWire => Direction::ToWire,
            Hook::FromTunnel => Direction::FromTunnel,
            Hook::ToTunnel => Direction::ToTunnel,
        };
        self.counters()
            .iter()
            .find(|counter| (counter.direction, counter.reason) == (direction, reason))
            .map_or(0, |counter| counter.packets)
    }

    pub(crate) fn counters(&self) -> Vec<Counter> {
        self.datapath().counters().expect("counters")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.datapath = None;
        let _gone = std::fs::remove_dir_all(&self.config.bpffs);
    }
}

pub(crate) fn command(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{program} {}: {text}{} (root is needed)",
        args.join(" "),
        String::from_utf8_lossy(&done.stderr)
    );
    text
}
