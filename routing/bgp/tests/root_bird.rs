// SPDX-License-Identifier: Apache-2.0
//! Good and broken UPDATEs, sent to a real BIRD and read by this codec: after each, BIRD has the routes that the codec
//! says, or has ended the session where the codec does, or the difference is one of those that are listed here.

mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use messages::{Session, Verdict, any_announcement, mutated, ours};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rhumb_bgp::wire::{Codec, Message, Negotiated, NextHop, Nlri, Notification, Update};
use rhumb_model::Prefix;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

const CASES: u32 = 400;

/// A BIRD in a namespace of its own, which takes sessions from every address of the loopback device.
struct Bird {
    name: String,
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Bird {
    fn start() -> Self {
        let name = format!("rhwire{}", std::process::id());
        let mut bird = Bird { name, dir: tempfile::tempdir().expect("made"), process: None };
        run(&["ip", "netns", "add", &bird.name]);
        run(&["ip", "-n", &bird.name, "link", "set", "lo", "up"]);
        let config = "
            log stderr all;
            router id 10.99.0.1;
            protocol device { }
            protocol bgp peers {
              local 127.0.0.1 as 65000;
              neighbor range 127.0.0.0/8 as 65001;
              multihop; passive; dynamic name \"peer\";
              ipv4 { import all; export none; };
              ipv6 { import all; export none; };
            }";
        fs::write(bird.path("bird.conf"), config).expect("written");
        let log = File::create(bird.path("log")).expect("made");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter", &format!("--net=/run/netns/{}", bird.name)]);
        command.args(["--", "bird", "-f", "-c"]).arg(bird.path("bird.conf"));
        command.arg("-s").arg(bird.path("control")).arg("-P").arg(bird.path("pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a copy")).stderr(log);
        bird.process = Some(command.spawn().expect("started"));
        until("BIRD hears", || bird.path("control").exists());
        bird
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("there");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
    }

    fn control(&self) -> BufReader<UnixStream> {
        let mut control = BufReader::new(UnixStream::connect(self.path("control")).expect("hears"));
        answer(&mut control);
        control
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("started");
    assert!(status.success(), "{words:?}");
}

/// Polls a condition of another program, which tells nobody of it.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lines up to the end of an answer: codes from 0000 on mean done, from 8000 on an error.
fn answer(control: &mut BufReader<UnixStream>) -> String {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        assert!(control.read_line(&mut line).expect("BIRD runs") > 0, "BIRD runs");
        let done = line.as_bytes().get(4) == Some(&b' ')
            && ["0", "8", "9"].iter().any(|code| line.starts_with(code));
        text.push_str(&line);
        if done {
            return text;
        }
    }
}

/// The routes that BIRD has of one of its peers.
fn routes(control: &mut BufReader<UnixStream>, peer: Ipv4Addr) -> BTreeSet<Prefix> {
    control.get_mut().write_all(format!("show route where from = {peer}\n").as_bytes()).expect("BIRD runs");
    let text = answer(control);
    // A line begins with a code and a sign, or with a space where the code is that of the line before.
    let lines = text.lines().filter_map(|line| line.strip_prefix(' ').or_else(|| line.get(5..)));
    let words = lines.filter_map(|line| line.split_whitespace().next());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A session with BIRD from one of the loopback addresses.
struct Peer {
    stream: TcpStream,
    codec: Codec,
    buffer: BytesMut,
}

impl Peer {
    fn open(addr: Ipv4Addr) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((addr, 0))).expect("an address of lo");
        connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 179))).expect("BIRD hears");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_millis(2))).expect("a socket");
        let mut peer = Peer { stream, codec: Codec::opening(), buffer: BytesMut::new() };
        let open = Session::External.open(65001, u32::from(addr));
        peer.send(&Message::Open(open.clone()));
        let theirs = peer.wait();
        let Message::Open(theirs) = theirs else { unreachable!("{theirs:?} in the place of an OPEN") };
        peer.codec = Codec::new(&Negotiated::of(&open, &theirs).expect("families in common"));
        peer.send(&Message::Keepalive);
        assert_eq!(peer.wait(), Message::Keepalive);
        peer
    }

    fn send(&mut self, message: &Message) {
        let octets = self.codec.encode(message).expect("fits").concat();
        self.stream.write_all(&octets).expect("BIRD reads");
    }

    fn wait(&mut self) -> Message {
        let begin = Instant::now();
        loop {
            if let Some(message) = self.next().expect("no NOTIFICATION") {
                return message;
            }
            assert!(begin.elapsed() < PATIENCE);
        }
    }

    /// What BIRD says within a moment; an error is why it ends the session.
    fn next(&mut self) -> Result<Option<Message>, Notification> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Err(Notification { code: 0, subcode: 0, data: b"closed".to_vec() }),
            Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => {
                return Err(Notification { code: 0, subcode: 0, data: error.to_string().into_bytes() });
            }
        }
        match self.codec.decode(&mut self.buffer)? {
            Some(Message::Notification(notification)) => Err(notification),
            message => Ok(message),
        }
    }
}

/// The prefix behind all others of a case, which shows that BIRD has read them.
const MARK: &str = "203.0.113.77/32";

fn mark() -> Message {
    let attributes = rhumb_bgp::wire::Attributes {
        as_path: rhumb_bgp::wire::AsPath::sequence([rhumb_bgp::wire::Asn(65001)]),
        ..Default::default()
    };
    let nlri = vec![Nlri::from(MARK.parse::<Prefix>().expect("a prefix"))];
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let reach = vec![rhumb_bgp::wire::Reach { family: rhumb_model::Family::V4, next_hop, nlri }];
    Message::Update(Update { attributes: Some(attributes.into()), reach, ..Update::default() })
}

/// What BIRD has after a good message and a broken one, or why it ended the session.
fn bird_says(
    control: &mut BufReader<UnixStream>,
    addr: Ipv4Addr,
    good: &[u8],
    broken: &[u8],
) -> Result<BTreeSet<Prefix>, Notification> {
    let mut peer = Peer::open(addr);
    let octets = [good, broken, &peer.codec.encode(&mark()).expect("fits").concat()].concat();
    // BIRD may close before it has read all.
    if let Err(error) = peer.stream.write_all(&octets) {
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }
    let mark: Prefix = MARK.parse().expect("a prefix");
    let begin = Instant::now();
    loop {
        peer.next()?;
        let found = routes(control, addr);
        if found.contains(&mark) {
            return Ok(found.into_iter().filter(|prefix| *prefix != mark && !is_bogus(*prefix)).collect());
        }
        assert!(begin.elapsed() < PATIENCE, "neither a route nor an end: {broken:02x?}");
    }
}

/// Prefixes of which BIRD takes some from nobody, whatever the message; they are not compared.
fn is_bogus(prefix: Prefix) -> bool {
    match prefix.addr() {
        IpAddr::V4(addr) => prefix.len() > 0 && matches!(addr.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(addr) => {
            let low = addr.to_bits() >> 32 == 0 && prefix.len() > 0;
            low || addr.is_multicast() || addr.is_unicast_link_local() || addr == Ipv6Addr::LOCALHOST
        }
    }
}

fn prefixes(texts: &BTreeSet<String>) -> BTreeSet<Prefix> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

/// A loop is no error of the message: it is the table that takes no such routes (RFC 4271 §9.1.2).
const LOOP: &str = "the own AS is in the path";

/// What is left of the good message's routes after the broken one, as the codec reads both; `None` where the session ends.
fn codec_says(good: &[u8], broken: &[u8]) -> (Option<BTreeSet<Prefix>>, Vec<String>) {
    let mut left = match ours(Session::External, good).0 {
        Verdict::Routes(routes) => prefixes(&routes.reached),
        other @ (Verdict::Reset | Verdict::Withdraw(_)) => {
            unreachable!("a good message is read as {other:?}")
        }
    };
    let (verdict, mut problems) = ours(Session::External, broken);
    match verdict {
        Verdict::Reset => return (None, problems),
        Verdict::Withdraw(gone) => left.retain(|prefix| !prefixes(&gone).contains(prefix)),
        Verdict::Routes(routes) => {
            left.retain(|prefix| !prefixes(&routes.withdrawn).contains(prefix));
            left.extend(prefixes(&routes.reached));
            if routes.values.is_some_and(|values| values.path.contains(&65000)) {
                problems.push(LOOP.to_owned());
            }
        }
    }
    left.retain(|prefix| !is_bogus(*prefix));
    (Some(left), problems)
}

#[test]
fn bird_and_the_codec_do_the_same_about_broken_messages() {
    let bird = Bird::start();
    bird.enter();
    let mut control = bird.control();
    let mut runner = TestRunner::deterministic();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4);
    let strategy = (any_announcement(Session::External), changes);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    for case in 1..=CASES {
        let (good, changes) = strategy.new_tree(&mut runner).expect("a message").current();
        let broken = mutated(&good, &changes);
        let (ours, problems) = codec_says(&good, &broken);
        let theirs = bird_says(&mut control, Ipv4Addr::from_bits(0x7f01_0000 + case), &good, &broken);
        let alike = match (&ours, &theirs) {
            (None, Err(_)) => true,
            (Some(ours), Ok(theirs)) => ours == theirs,
            (None, Ok(_)) | (Some(_), Err(_)) => false,
        };
        let kind = match (alike, &theirs) {
            (true, Err(_)) => Some("alike: the session ends"),
            (true, Ok(_)) if problems.is_empty() => Some("alike: no error"),
            (true, Ok(_)) => Some("alike: an error that is lived with"),
            (false, _) => explained(ours.as_ref(), &theirs, &problems),
        };
        match kind {
            Some(kind) => *seen.entry(kind).or_default() += 1,
            None => unknown.push(format!("{broken:02x?}\n  ours {ours:?} {problems:?}\n  BIRD {theirs:?}")),
        }
    }
    println!("{seen:#?}");
    assert!(
        unknown.is_empty(),
        "{} differences, among them\n{}",
        unknown.len(),
        unknown[..unknown.len().min(12)].join("\n")
    );
    for needed in ["alike: the session ends", "alike: no error", "alike: an error that is lived with"] {
        assert!(seen.contains_key(needed), "{needed}: {seen:?}");
    }
}

/// The rule that a difference comes from.
fn explained(
    ours: Option<&BTreeSet<Prefix>>,
    theirs: &Result<BTreeSet<Prefix>, Notification>,
    problems: &[String],
) -> Option<&'static str> {
    let we = |what: &str| problems.iter().any(|problem| problem.contains(what));
    match (ours, theirs) {
        // RFC 7606 §2: of AFI/SAFI disable and session reset, BIRD has the latter alone.
        (Some(_), Err(_)) if we("disabled") => Some("a family is given up"),
        // RFC 4271 §6.3 stands where RFC 7606 says nothing; BIRD withdraws the routes.
        (None, Ok(_)) if we("unrecognized well-known") => Some("an unknown well-known attribute"),
        // RFC 7606 §7.5, §7.9, §7.10: discarded, whatever it looks like; BIRD looks at the flags first.
        (Some(_), Ok(theirs)) if theirs.is_empty() && we("does not belong on this session") => {
            Some("an attribute out of place")
        }
        (Some(_), Ok(theirs)) if theirs.is_empty() && we(LOOP) => Some("a loop"),
        // RFC 7606 §3 c: a withdraw is enough, as the destinations are read all the same.
        (Some(_), Err(_)) if we("attribute 14: flags") || we("attribute 15: flags") => {
            Some("flags of an attribute with destinations")
        }
        // RFC 4271 §6.3: an address of 240.0.0.0/4 is no host; BIRD has no opinion before it looks for a way there.
        (Some(ours), Ok(_)) if ours.is_empty() && we("no address of a router") => Some("a reserved next hop"),
        _ => None,
    }
}
