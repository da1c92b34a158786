// SPDX-License-Identifier: Apache-2.0
//! Two network namespaces with a link between them, and in the second one a BIRD or an FRR that speaks BFD. All of it
//! goes with the value.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, reason = "only tests use this")]

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rhumb_bfd::{Bfd, Change, Config, Event, Report, SessionKey};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long anything may take that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Two namespaces, `a` for our BFD and `b` for the other end.
pub(crate) struct Lab {
    name: String,
    dir: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Lab {
    /// 10.99.0.1, fd99::1 and fe80::a on `va` of the one, 10.99.0.2, fd99::2 and fe80::b on `vb` of the other.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rhbfd{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, dir: tempfile::tempdir().expect("made"), processes: Vec::new() };
        run(Command::new("chmod").arg("755").arg(lab.dir.path()));
        for side in ["a", "b"] {
            lab.ip(&format!("netns add {}", lab.namespace(side)));
            lab.exec(side, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
            lab.ip_in(side, "link set lo up");
        }
        lab.link();
        lab
    }

    /// Puts the link between the two, with its addresses.
    pub(crate) fn link(&self) {
        let [a, b] = ["a", "b"].map(|side| self.namespace(side));
        self.ip(&format!("link add va netns {a} type veth peer name vb netns {b}"));
        for (side, number) in [("a", 1), ("b", 2)] {
            self.ip_in(side, &format!("link set v{side} addrgenmode none"));
            self.ip_in(side, &format!("addr add 10.99.0.{number}/24 dev v{side}"));
            self.ip_in(side, &format!("addr add fd99::{number}/64 dev v{side} nodad"));
            self.ip_in(side, &format!("addr add fe80::{side}/64 dev v{side} nodad"));
            self.ip_in(side, &format!("link set v{side} up"));
        }
    }

    /// Removes the link.
    pub(crate) fn unlink(&self) {
        self.ip_in("a", "link del va");
    }

    fn namespace(&self, side: &str) -> String {
        format!("{}{side}", self.name)
    }

    fn ip(&self, words: &str) {
        run(Command::new("ip").args(words.split(' ')));
    }

    pub(crate) fn ip_in(&self, side: &str, words: &str) {
        run(Command::new("ip").args(["-n", &self.namespace(side)]).args(words.split(' ')));
    }

    fn command(&self, side: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(side))).args(["--", program]);
        command
    }

    pub(crate) fn exec(&self, side: &str, words: &str) -> String {
        let mut words = words.split(' ');
        run(self.command(side, words.next().expect("a program")).args(words))
    }

    /// Drops everything that one side sends, or lets it through again.
    pub(crate) fn mute(&self, side: &str) {
        let rules = "add table inet mute; add chain inet mute out { type filter hook output priority 0; policy drop; }";
        run(self.command(side, "nft").arg(rules));
    }

    pub(crate) fn unmute(&self, side: &str) {
        run(self.command(side, "nft").arg("delete table inet mute"));
    }

    /// Starts our BFD on the first side.
    pub(crate) fn bfd(&self) -> Speaker {
        let (sender, events) = channel();
        let path = format!("/run/netns/{}", self.namespace("a"));
        let bfd = std::thread::spawn(move || {
            let namespace = File::open(path).expect("there");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            // Nobody listens when the test is over.
            Bfd::start(move |event| drop(sender.send(event))).expect("started")
        });
        Speaker { bfd: bfd.join().expect("started"), events }
    }

    /// Starts a program of the second side, which runs before ordinary ones as our thread does: a busy machine is not
    /// to be taken for a failure of the path.
    fn start(&mut self, program: &str, args: &[&str]) {
        let log = File::create(self.dir.path().join("log")).expect("made");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "chrt", "-r", "1", "nsenter"]);
        command.arg(format!("--net=/run/netns/{}", self.namespace("b"))).args(["--", program]).args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a copy")).stderr(log);
        self.processes.push(command.spawn().expect("started"));
    }

    /// Starts BIRD with this configuration behind a router id and the devices.
    pub(crate) fn bird(&mut self, config: &str) {
        let file = self.file("bird.conf", &format!("router id 10.99.0.2; protocol device {{}}\n{config}\n"));
        let (control, pid) = (self.file("bird.ctl", ""), self.file("bird.pid", ""));
        fs::remove_file(&control).expect("there");
        self.start("bird", &["-f", "-c", &file, "-s", &control, "-P", &pid]);
        until("BIRD hears", || Path::new(&control).exists());
    }

    /// What BIRD answers.
    pub(crate) fn birdc(&self, words: &str) -> String {
        let control = self.dir.path().join("bird.ctl");
        run(Command::new("birdc").arg("-s").arg(control).args(words.split(' ')))
    }

    /// Starts FRR's zebra and bfdd.
    pub(crate) fn frr(&mut self, config: &str) {
        let state = self.frr_state();
        run(Command::new("install").args(["-d", "-o", "frr", "-g", "frr", &state]));
        let name = self.name.clone();
        for (daemon, config) in [("zebra", ""), ("bfdd", config)] {
            let file = self.file(&format!("{daemon}.conf"), config);
            self.start(&format!("/usr/lib/frr/{daemon}"), &["-N", &name, "-f", &file]);
            let socket = format!("{state}/{daemon}.vty");
            until("FRR hears", || Path::new(&socket).exists());
            if daemon == "zebra" {
                until("zebra hears", || Path::new(&format!("{state}/zserv.api")).exists());
            }
        }
    }

    /// What FRR answers.
    pub(crate) fn vtysh(&self, lines: &[&str]) -> String {
        let mut command = Command::new("vtysh");
        run(command.args(["-N", &self.name]).args(lines.iter().flat_map(|line| ["-c", line])))
    }

    fn frr_state(&self) -> String {
        format!("/var/run/frr/{}", self.name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
        if Path::new(&self.frr_state()).exists() {
            fs::remove_dir_all(self.frr_state()).ok();
        }
        for side in ["a", "b"] {
            Command::new("ip").args(["netns", "del", &self.namespace(side)]).status().ok();
        }
    }
}

/// Our BFD and what it tells.
pub(crate) struct Speaker {
    pub(crate) bfd: Bfd,
    events: Receiver<Event>,
}

impl Speaker {
    pub(crate) fn add(&self, key: &SessionKey, interval: Duration) {
        self.bfd.add(key.clone(), Config::new(interval, interval, 3).expect("in range"));
    }

    /// The next event of any session.
    pub(crate) fn next(&self) -> (SessionKey, Change) {
        let event = self.events.recv_timeout(PATIENCE).expect("an event within patience");
        (event.key, event.change)
    }

    /// Nothing is told for this time.
    pub(crate) fn quiet_for(&self, time: Duration) {
        assert_eq!(self.events.recv_timeout(time), Err(RecvTimeoutError::Timeout));
    }

    pub(crate) fn report(&self) -> Vec<Report> {
        let (sender, answer) = channel();
        self.bfd.report(move |reports| drop(sender.send(reports)));
        answer.recv_timeout(PATIENCE).expect("an answer")
    }
}

/// Polls a condition of another program, which tells nobody of it.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(MS * 20);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
