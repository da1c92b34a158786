// SPDX-License-Identifier: Apache-2.0
//! Network namespaces for the tests on the real kernel: one is the host, the others are pods. They go with the lab.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, clippy::print_stderr, reason = "only tests use this")]

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::TryRecvError;

use rhumb_model::{AttachmentKey, IfName, MacAddr, Prefix};
use rhumb_routing::{LinkSpec, Namespaces, Netlink};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) fn key(text: &str) -> AttachmentKey {
    text.parse().expect("valid")
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().expect("valid")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("valid")
}

pub(crate) fn spec(host: &str, seed: u64, mtu: u32) -> LinkSpec {
    let (mac, host_mac) = (MacAddr::from_seed(seed), MacAddr::from_seed(seed + 1));
    LinkSpec { host: name(host), mac, host_mac, mtu }
}

pub(crate) struct Lab {
    prefix: String,
    made: Vec<String>,
}

impl Lab {
    /// A host, and these pods.
    pub(crate) fn new(pods: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self { prefix: format!("rhrt{}x{count}", std::process::id()), made: Vec::new() };
        for name in ["host"].iter().chain(pods) {
            lab.add(name);
        }
        lab
    }

    pub(crate) fn add(&mut self, name: &str) {
        let full = self.full(name);
        run(&["ip", "netns", "add", &full]);
        self.made.push(full);
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let full = self.full(name);
        run(&["ip", "netns", "del", &full]);
        self.made.retain(|made| *made != full);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        format!("/run/netns/{}", self.full(name)).into()
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What `ip` says in one of the namespaces.
    pub(crate) fn ip(&self, name: &str, words: &str) -> String {
        let full = self.full(name);
        let words: Vec<&str> = ["ip", "-n", &full].into_iter().chain(words.split(' ')).collect();
        run(&words)
    }

    /// What `tc` says in one of the namespaces.
    pub(crate) fn tc(&self, name: &str, words: &str) -> String {
        let full = self.full(name);
        let words: Vec<&str> = ["tc", "-n", &full].into_iter().chain(words.split(' ')).collect();
        run(&words)
    }

    /// Runs a program in one of the namespaces.
    pub(crate) fn exec(&self, name: &str, words: &str) -> String {
        let net = format!("--net={}", self.path(name).display());
        let words: Vec<&str> = ["nsenter", &net].into_iter().chain(words.split(' ')).collect();
        run(&words)
    }

    /// Lets `ip` do one thing per line.
    pub(crate) fn batch(&self, name: &str, lines: &str) {
        let full = self.full(name);
        let mut child = Command::new("ip")
            .args(["-n", &full, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("these tests need iproute2");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("taken");
        assert!(child.wait().expect("ended").success());
    }

    /// Begins to watch what changes in one of the namespaces; what changes from now on is told.
    pub(crate) fn monitor(&self, name: &str, of: &str) -> Monitor {
        let full = self.full(name);
        let mut child = Command::new("stdbuf")
            .args(["-oL", "ip", "-n", &full, "monitor", of])
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need iproute2");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut monitor = Monitor { child, lines };
        // A route of the loopback that comes and goes until the monitor tells of it.
        std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                while is_done.try_recv() == Err(TryRecvError::Empty) {
                    self.ip(name, "route replace unreachable 203.0.113.0/24");
                    self.ip(name, "route del unreachable 203.0.113.0/24");
                }
            });
            monitor.until("203.0.113.0/24");
            drop(done);
        });
        self.ip(name, "route add unreachable 198.51.100.0/24");
        self.ip(name, "route del unreachable 198.51.100.0/24");
        monitor.until("Deleted unreachable 198.51.100.0/24");
        monitor
    }

    /// Makes a pair with one end in each of two namespaces.
    pub(crate) fn link_into(&self, one: &str, name: &str, other: &str, peer: &str) {
        let full = self.full(other);
        self.ip(one, &format!("link add {name} type veth peer name {peer} netns {full}"));
        self.ip(one, &format!("link set {name} up"));
        self.ip(other, &format!("link set {peer} up"));
    }

    /// Everything in a namespace, without what changes by itself.
    pub(crate) fn everything(&self, name: &str) -> String {
        let mut all = String::new();
        for words in
            ["-o link show", "-o -4 addr show", "-4 route show table all", "-6 route show", "rule show"]
        {
            all += &self.ip(name, words);
        }
        all + &self.tc(name, "qdisc show")
    }

    /// Opens each pod's namespace for the interface `eth0` of a container of the pod's name.
    pub(crate) fn open(&self, namespaces: &Namespaces, pods: &[&str]) {
        for pod in pods {
            namespaces.open(key(&format!("{pod}/eth0")), &self.path(pod)).expect("a namespace");
        }
    }

    /// Runs `work` on a runtime of its own in the host's namespace.
    pub(crate) fn run(&self, work: impl AsyncFnOnce(Netlink, Namespaces) + Send) {
        let path = self.path("host");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let host = File::open(path).expect("the host's namespace");
                move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
                runtime.expect("a runtime").block_on(async {
                    let namespaces = Namespaces::new();
                    let netlink = Netlink::new(namespaces.clone()).expect("netlink");
                    work(netlink, namespaces).await;
                });
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.made {
            let deleted = Command::new("ip").args(["netns", "del", name]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("namespace {name} is left behind");
            }
        }
    }
}

/// Tells what changes.
pub(crate) struct Monitor {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Monitor {
    /// The lines up to the first with `part`.
    pub(crate) fn until(&mut self, part: &str) -> Vec<String> {
        let mut told = Vec::new();
        for line in self.lines.by_ref() {
            told.push(line.expect("readable"));
            if told.last().is_some_and(|line| line.contains(part)) {
                return told;
            }
        }
        panic!("the monitor ended after {told:?}");
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a command and gives what it prints.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; these tests need iproute2", words[0]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error} (these tests need root)", words.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
