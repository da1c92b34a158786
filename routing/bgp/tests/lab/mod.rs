// SPDX-License-Identifier: Apache-2.0
//! Two network namespaces with a link between them: real BIRD in one, `rhumb-bgp` in the other. All goes with the lab.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::panic, clippy::print_stderr, reason = "only tests use this")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rhumb_bgp_feed::client::{self, Event};
use rhumb_bgp_feed::{
    Action, Answer, Changes, FamilyConfig, GracefulRestart, Instance, LocalRoute, Match, NextHop, Peer,
    PeerAddress, PeerAsn, PeerKey, PeerState, Policy, Question, Recipients, RouteAttributes, RouteKind, Rule,
    Secret, Snapshot, Timers, Ttl,
};
use rhumb_model::{Family, Revision};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// How long something may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// BIRD is at 10.99.0.1 and fd99::1 in AS 65001, the speaker at 10.99.0.2 and fd99::2 in AS 65002.
pub(crate) struct Lab {
    prefix: String,
    pub(crate) dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("a directory");
        let lab = Self { prefix: format!("rhbg{}x{count}", std::process::id()), dir };
        for end in ["a", "b"] {
            let name = lab.name(end);
            run(&["ip", "netns", "add", &name]);
            for key in ["all", "default"] {
                lab.exec(end, &format!("sysctl -qw net.ipv6.conf.{key}.accept_dad=0"));
            }
            run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        }
        let b = lab.name("b");
        lab.ip("a", &format!("link add va type veth peer name vb netns {b}"));
        for (end, number) in [("a", 1), ("b", 2)] {
            lab.ip(end, &format!("addr add 10.99.0.{number}/24 dev v{end}"));
            lab.ip(end, &format!("addr add fd99::{number}/64 dev v{end} nodad"));
            lab.ip(end, &format!("link set v{end} up"));
        }
        lab
    }

    fn name(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }

    pub(crate) fn ip(&self, end: &str, words: &str) -> String {
        let name = self.name(end);
        run(&["ip", "-n", &name].into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    }

    /// Runs a program in one of the namespaces.
    pub(crate) fn exec(&self, end: &str, words: &str) -> String {
        let net = format!("--net=/run/netns/{}", self.name(end));
        run(&["nsenter", &net].into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    }

    fn command(&self, end: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(end))).arg(program);
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts BIRD; `session` stands in its `protocol bgp`, `rest` beside it.
    pub(crate) fn bird(&self, session: &str, rest: &str) -> Bird {
        let (config, control) = (self.path("bird.conf"), self.path("bird.ctl"));
        let text = format!(
            "router id 10.99.0.1;\nprotocol device {{ scan time 10; }}\n{rest}\nprotocol bgp tor {{\n  \
             local as 65001;\n  connect delay time 1; connect retry time 1; error wait time 1, 2; \
             error forget time 5;\n{session}\n}}\n"
        );
        std::fs::write(&config, text).expect("written");
        // That of one that was killed is there, and nobody behind it.
        std::fs::remove_file(&control).ok();
        let mut command = self.command("a", "bird");
        command.arg("-f").arg("-c").arg(&config).arg("-s").arg(&control);
        let child = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()), "bird2");
        let bird = Bird { child, control };
        until("BIRD listens", || bird.control.exists().then_some(()));
        bird
    }

    /// Starts the speaker with its state kept in the lab.
    pub(crate) fn speaker(&self) -> Speaker {
        self.speaker_saying("debug")
    }

    /// The same with another level of words in its log.
    pub(crate) fn speaker_saying(&self, level: &str) -> Speaker {
        let mut command = self.command("b", env!("CARGO_BIN_EXE_rhumb-bgp"));
        let (socket, log) = (self.path("bgp.sock"), self.path("speaker.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        command.arg("--socket").arg(&socket).arg("--state-dir").arg(self.path("state"));
        command.env("RUST_LOG", level).stderr(log).stdout(Stdio::null());
        // A socket of one that was killed is there, and nobody behind it.
        std::fs::remove_file(&socket).ok();
        let child = Process::start(&mut command, "rhumb-bgp");
        until("the speaker listens", || socket.exists().then_some(()));
        Speaker { child, socket }
    }

    /// What `work` gives inside of one of the namespaces.
    fn inside<T: Send + 'static>(&self, end: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.name(end));
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("a namespace");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
                .expect("entered");
            work()
        });
        thread.join().expect("it does not panic")
    }

    /// A socket that listens in one of the namespaces.
    pub(crate) fn listen(&self, end: &str, address: &str) -> TcpListener {
        let address = address.to_owned();
        self.inside(end, || TcpListener::bind(address).expect("bound"))
    }

    /// A connection from one of the namespaces to BGP's port of another.
    pub(crate) fn connect(&self, end: &str, from: Ipv4Addr, to: Ipv4Addr) -> TcpStream {
        use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, connect, socket};
        self.inside(end, move || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
                bind(&socket, &SocketAddrV4::new(from, 0)).expect("bound");
                match connect(&socket, &SocketAddrV4::new(to, 179)) {
                    Ok(()) => return TcpStream::from(socket),
                    // The speaker takes a moment to listen.
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    }

    /// Starts a program in one of the namespaces.
    pub(crate) fn start(&self, end: &str, program: &str, words: &[&str]) -> Process {
        let mut command = self.command(end, program);
        Process::start(command.args(words).stdout(Stdio::null()).stderr(Stdio::null()), program)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("speaker.log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        for end in ["a", "b"] {
            let deleted = Command::new("ip").args(["netns", "del", &self.name(end)]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("namespace {} is left behind", self.name(end));
            }
        }
    }
}

/// A child that is killed when it goes out of scope.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command, what: &str) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{what}: {error} (these tests need root and {what})")))
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }

    /// SIGTERM, and gone.
    pub(crate) fn terminate(&mut self) {
        run(&["kill", &self.0.id().to_string()]);
        assert!(self.0.wait().expect("ended").success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Bird {
    pub(crate) child: Process,
    control: PathBuf,
}

impl Bird {
    /// What `birdc` says.
    pub(crate) fn say(&self, words: &str) -> String {
        let control = self.control.display().to_string();
        let mut all = vec!["birdc", "-s", &control];
        all.extend(words.split(' '));
        run(&all)
    }

    /// All routes that came from the speaker.
    pub(crate) fn routes(&self) -> String {
        self.say("show route all protocol tor")
    }

    pub(crate) fn has(&self, prefix: &str) -> bool {
        self.routes().lines().any(|line| line.starts_with(prefix))
    }

    /// Waits for a line of `birdc show protocols all tor`.
    pub(crate) fn until(&self, words: &str) {
        until(words, || self.say("show protocols all tor").contains(words).then_some(()));
    }
}

pub(crate) struct Speaker {
    pub(crate) child: Process,
    pub(crate) socket: PathBuf,
}

impl Speaker {
    pub(crate) fn ask(&self, question: Question) -> Answer {
        ask(&self.socket, question)
    }

    pub(crate) fn peer(&self) -> Option<PeerState> {
        let answer = self.ask(Question::Peers);
        let Answer::Peers(peers) = answer else { panic!("{answer:?}") };
        peers.into_iter().next()
    }

    /// Waits until the peer is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&PeerState) -> bool) -> PeerState {
        until(what, || self.peer().filter(|peer| wanted(peer)))
    }

    /// Feeds a configuration from now on.
    pub(crate) fn feed(&self, snapshot: Snapshot) -> Feeder {
        Feeder::start(self.socket.clone(), snapshot)
    }
}

pub(crate) fn ask(socket: &Path, question: Question) -> Answer {
    rhumb_bgp_feed::ask(socket, "test", question, PATIENCE).expect("an answer")
}

/// Plays the agent.
pub(crate) struct Feeder {
    wanted: watch::Sender<Option<Arc<Snapshot>>>,
    events: std::sync::mpsc::Receiver<Event>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Feeder {
    fn start(socket: PathBuf, snapshot: Snapshot) -> Self {
        let (wanted, receiver) = watch::channel(Some(Arc::new(snapshot)));
        let (tell, events) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (events_in, mut heard) = mpsc::channel(64);
                let pass = async {
                    while let Some(event) = heard.recv().await {
                        tell.send(event).ok();
                    }
                };
                tokio::join!(client::follow(socket, "test".to_owned(), receiver, events_in), pass);
            });
        });
        let feeder = Self { wanted, events, thread: Some(thread) };
        feeder.applied();
        feeder
    }

    fn applied(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Event::Applied(_) = self.events.recv_timeout(left).expect("the speaker takes it") {
                return;
            }
        }
    }

    /// Changes what is wanted.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.wanted.send_modify(|wanted| {
            let mut next = Snapshot::clone(wanted.as_ref().expect("something is wanted"));
            next.revision = next.revision.next();
            change(&mut next);
            *wanted = Some(Arc::new(next));
        });
        self.applied();
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.wanted.send_replace(None);
        // The client ends with the sender, which goes first.
        self.wanted = watch::channel(None).0;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// All routes are accepted, with these changes.
pub(crate) fn all(changes: Changes) -> Policy {
    let rule = Rule { name: "all".to_owned(), matches: Match::default(), action: Action::Accept(changes) };
    Policy { rules: vec![rule] }
}

/// BIRD as the speaker's peer: short timers, MD5 and graceful restart.
pub(crate) fn tor() -> Peer {
    let family = |family| FamilyConfig {
        family,
        max_prefixes: Some(100),
        extended_next_hop: false,
        next_hop_self: false,
        send_paths: 1,
        receive_paths: false,
    };
    Peer {
        key: PeerKey("tor".to_owned()),
        address: PeerAddress::Ip([10, 99, 0, 1].into()),
        asn: PeerAsn::Number(65001),
        port: 179,
        local_asn: None,
        local_address: None,
        source_interface: None,
        md5: Some(Secret::new("s3cret")),
        ttl: Ttl::Direct,
        passive: false,
        timers: Timers { hold_time: 9, keepalive: 3, connect_retry: 2 },
        families: Family::BOTH.into_iter().map(family).collect(),
        graceful_restart: Some(GracefulRestart { restart_time: 30, long_lived_stale_time: 0 }),
        import: all(Changes::default()),
        export: all(Changes::default()),
        route_reflector_client: false,
        bfd: None,
        shutdown: None,
    }
}

pub(crate) fn route(prefix: &str, communities: &[u32], large: &[[u32; 3]]) -> LocalRoute {
    LocalRoute {
        prefix: prefix.parse().expect("a prefix"),
        kind: RouteKind::PodCidr,
        attributes: RouteAttributes {
            communities: communities.iter().copied().collect::<BTreeSet<_>>(),
            large_communities: large.iter().copied().collect(),
            ..RouteAttributes::default()
        },
        next_hop: NextHop::Own,
        discard: false,
        recipients: Recipients::All,
        exceptions: BTreeMap::new(),
    }
}

/// An instance with this peer and two pod CIDRs.
pub(crate) fn snapshot(peer: Peer) -> Snapshot {
    let instance = Instance {
        name: "default".to_owned(),
        asn: 65002,
        router_id: [10, 99, 0, 2].into(),
        listen: vec!["0.0.0.0:179".parse().expect("valid"), "[::]:179".parse().expect("valid")],
        cluster_id: None,
        multipath: 2,
        own: Vec::new(),
        peers: vec![peer],
        routes: vec![
            route("10.200.1.0/24", &[65002 << 16 | 5], &[[65002, 5, 6]]),
            route("fd00:200:1::/64", &[], &[]),
        ],
        stations: Vec::new(),
    };
    Snapshot { revision: Revision(1), instances: vec![instance] }
}

/// Waits until there is something.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// The same for what may take longer.
pub(crate) fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command and gives what it prints.
pub(crate) fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", words[0]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error} (these tests need root)", words.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
