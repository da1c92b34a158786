// SPDX-License-Identifier: Apache-2.0
//! Other BGP speakers in network namespaces: BIRD, FRR, GoBGP, OpenBGPD and ExaBGP as Debian has them, and `rhumb-bgp`
//! itself, each with sockets and files of its own. All of it goes with the values.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]
#![allow(clippy::panic, reason = "only tests use this")]

mod bird;
pub(crate) mod cluster;
mod exabgp;
mod fabric;
mod frr;
mod gobgp;
mod monitor;
mod openbgpd;
mod overheard;
mod speaker;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub(crate) use bird::Bird;
pub(crate) use exabgp::Exabgp;
pub(crate) use fabric::{Fabric, NODES};
pub(crate) use frr::Frr;
pub(crate) use gobgp::Gobgp;
pub(crate) use monitor::Monitor;
pub(crate) use openbgpd::Openbgpd;
pub(crate) use overheard::{Overheard, Said};
use rhumb_integration::lab::{Changes, Lab, Namespace};
pub(crate) use speaker::{Snapshot, Speaker, bfd, peer, rule};

/// How long anything may take that is not measured: peers wait seconds before they connect again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) const MS: Duration = Duration::from_millis(1);

/// A condition is looked at this often when nothing is heard: not all that programs know is in a kernel or a log.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

thread_local! {
    /// What the net of this thread's test hears.
    static HEARD: RefCell<Weak<Changes>> = const { RefCell::new(Weak::new()) };
}

/// Our AS and the peer's: both need four octets.
pub(crate) const OUR_AS: u32 = 4_200_000_001;
pub(crate) const THEIR_AS: u32 = 4_200_000_002;

/// What both ends of a pair sign their segments with.
pub(crate) const KEY: &str = "s3cret";

/// What another speaker answers when it is asked.
pub(crate) trait Peer {
    /// Whether its session with us is established.
    fn is_established(&self) -> bool;

    /// What it knows of the route to a prefix, as it prints it; nothing when it has none.
    fn route(&self, prefix: &str) -> Option<String>;

    /// Asks us to send everything again; false: it never does.
    fn ask_again(&self) -> bool;

    /// How many UPDATE messages, or routes, it has been told so far: asked again, it is told more.
    fn told(&self) -> u64;
}

/// Namespaces with links between them, and a folder for what runs there.
pub(crate) struct Net {
    id: String,
    dir: tempfile::TempDir,
    namespaces: BTreeMap<String, Namespace>,
    changes: Arc<Changes>,
}

impl Net {
    /// Namespaces of routers: they forward.
    pub(crate) fn new(names: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("rhbgp{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&id).tempdir().expect("made");
        // The daemons give root away and still read their files.
        run(Command::new("chmod").arg("755").arg(dir.path()));
        let changes = Arc::new(Changes::default());
        changes.add_folder(dir.path()).expect("watched");
        HEARD.set(Arc::downgrade(&changes));
        let mut net = Self { id, dir, namespaces: BTreeMap::new(), changes };
        for name in names {
            net.add(name);
        }
        net
    }

    /// The namespaces of a lab by their names (`router`, `client`, `n1` and so on), and more routers, which are not linked
    /// yet. What the lab's programs write is heard, too.
    pub(crate) fn in_lab(lab: &Lab, names: &[&str]) -> Self {
        let mut net = Self::new(names);
        let nodes = lab.nodes().iter().map(|node| (node.name.as_str(), node.namespace()));
        for (name, namespace) in nodes.chain([("router", lab.router()), ("client", lab.client())]) {
            net.take(name, namespace.shared());
        }
        let folders = lab.nodes().iter().map(|node| lab.home().join(&node.name));
        for folder in folders.chain([lab.home().to_owned(), lab.store_dir().to_owned()]) {
            net.changes.add_folder(&folder).expect("watched");
        }
        net
    }

    /// Namespaces `a`, for us, and `b`, for the peer, with a link: 10.99.0.1, fd99::1 and fe80::a on `va` there,
    /// 10.99.0.2, fd99::2 and fe80::b on `vb` here.
    pub(crate) fn pair() -> Self {
        let net = Self::new(&["a", "b"]);
        net.link([
            ("a", "va", &["10.99.0.1/24", "fd99::1/64", "fe80::a/64"]),
            ("b", "vb", &["10.99.0.2/24", "fd99::2/64", "fe80::b/64"]),
        ]);
        net
    }

    fn add(&mut self, name: &str) {
        let namespace = Namespace::create(&format!("{}-{name}", self.id)).expect("these tests need root");
        for (sysctl, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/fib_multipath_hash_policy", "1"),
            ("net/ipv6/fib_multipath_hash_policy", "1"),
        ] {
            namespace.sysctl(sysctl, value).expect("written");
        }
        self.take(name, namespace);
    }

    fn take(&mut self, name: &str, namespace: Namespace) {
        self.changes.add_namespace(&namespace).expect("heard");
        self.namespaces.insert(name.to_owned(), namespace);
    }

    /// A link between two namespaces: of each end the namespace, its name and its addresses.
    pub(crate) fn link(&self, ends: [(&str, &str, &[&str]); 2]) {
        let [(a, a_name, _), (b, b_name, _)] = ends;
        let (a, b) = (self.namespace(a).name(), self.namespace(b).name());
        rhumb_integration::lab::ip(&format!(
            "link add {a_name} netns {a} type veth peer name {b_name} netns {b}"
        ))
        .expect("linked");
        for (namespace, name, addresses) in ends {
            let mut lines = String::new();
            if addresses.iter().any(|address| address.starts_with("fe80:")) {
                lines.push_str(&format!("link set {name} addrgenmode none\n"));
            }
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                lines.push_str(&format!("addr add {address} dev {name}{nodad}\n"));
            }
            lines.push_str(&format!("link set {name} up\n"));
            self.namespace(namespace).ip(&lines).expect("set up");
        }
    }

    pub(crate) fn namespace(&self, name: &str) -> &Namespace {
        &self.namespaces[name]
    }

    /// What a program printed in one of the namespaces.
    pub(crate) fn exec(&self, namespace: &str, words: &[&str]) -> String {
        run(self.namespace(namespace).command(words[0]).args(&words[1..]))
    }

    /// The same, when it succeeds.
    fn try_exec(&self, namespace: &str, words: &[&str]) -> Option<String> {
        let output = self.namespace(namespace).command(words[0]).args(&words[1..]).output().expect("run");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Drops everything that one of the namespaces sends or passes on: it is dead to all others, and no link goes down.
    pub(crate) fn mute(&self, namespace: &str) {
        let chain = |hook: &str| {
            format!("add chain inet mute {hook} {{ type filter hook {hook} priority 0; policy drop; }}")
        };
        let rules = format!("add table inet mute; {}; {}", chain("output"), chain("forward"));
        self.exec(namespace, &["nft", &rules]);
    }

    pub(crate) fn unmute(&self, namespace: &str) {
        self.exec(namespace, &["nft", "delete table inet mute"]);
    }

    /// Routes of a table of one of the namespaces, both families, one line each.
    pub(crate) fn routes(&self, namespace: &str, table: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            // A table that was never used is an error.
            let told = self
                .try_exec(namespace, &["ip", family, "route", "show", "table", table])
                .unwrap_or_default();
            // Next hops of one route follow it, indented.
            lines.extend(told.replace("\n\t", " ").lines().map(str::to_owned));
        }
        lines
    }

    /// The route of a namespace to exactly this prefix, in a table.
    pub(crate) fn kernel_route(&self, namespace: &str, table: &str, prefix: &str) -> Option<String> {
        self.routes(namespace, table).into_iter().find(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&prefix) || (words.get(1) == Some(&prefix) && words[0] == "blackhole")
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder; its path as text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }

    /// Starts a program in a namespace; what it says goes to a file beside its configuration.
    fn start(
        &self,
        namespace: &str,
        label: &str,
        program: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Daemon {
        let path = self.path(&format!("{label}.log"));
        let log = File::options().create(true).append(true).open(&path).expect("made");
        let mut command = Command::new("setpriv");
        // BFD inside of these programs is not to take a busy machine for a failure.
        command.args(["--pdeathsig", "KILL", "--", "chrt", "-r", "1", "nsenter"]);
        command.arg(format!("--net={}", self.namespace(namespace).path().display()));
        command.args(["--", program]).args(args).envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a copy")).stderr(log);
        Daemon { child: command.spawn().expect("started"), log: path, program: program.to_owned() }
    }
}

/// A program that runs; killed on drop.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    program: String,
}

impl Daemon {
    /// Polls a condition while it runs: programs of others tell nobody how far they are.
    fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{} ended with {ended:?}: {}", self.program, self.said());
            assert!(begin.elapsed() < PATIENCE, "{}: not {what}: {}", self.program, self.said());
            wait_for_a_change();
        }
    }

    /// What it wrote.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Ends it by SIGTERM.
    pub(crate) fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for a condition: looks again whenever something has changed in the net.
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(PATIENCE, condition), "{what}: not within {PATIENCE:?}");
}

/// Waits until there is something.
pub(crate) fn until_found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, || {
        found = look();
        found.is_some()
    });
    found.expect("waited for")
}

fn wait_for_a_change() {
    let heard = HEARD.with_borrow(Weak::upgrade).expect("the test has a net");
    heard.wait(LOOK_AGAIN).expect("waited");
}

/// Whether a condition comes true in time.
pub(crate) fn within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() >= patience {
            return false;
        }
        wait_for_a_change();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Whether a route, as some program prints it, has a community and a large one.
pub(crate) fn has(route: &str, community: &str, large: &str) -> bool {
    // Each program writes lists in its own way.
    let plain: String = route.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ':' }).collect();
    let mut parts: Vec<&str> = plain.split(':').collect();
    parts.retain(|part| !part.is_empty());
    let plain = format!(":{}:", parts.join(":"));
    [community, large].iter().all(|word| plain.contains(&format!(":{word}:")))
}
