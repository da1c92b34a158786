// SPDX-License-Identifier: Apache-2.0
//! Both halves of the socket against each other, and against those who do not keep to it.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one event among many")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rhumb_bgp_feed::client::{Event, follow};
use rhumb_bgp_feed::frame::{Frames, encode};
use rhumb_bgp_feed::protocol::{Down, Hello, PROTOCOL, Role, StateChange, Up, Welcome};
use rhumb_bgp_feed::server::{Notice, Request, listen, serve};
use rhumb_bgp_feed::{
    Answer, Board, Instance, LocalRoute, MessageCounts, NextHop, PeerKey, PeerState, Question, Recipients,
    RouteAttributes, RouteKind, SessionState, Snapshot, Way, ask,
};
use rhumb_model::{Prefix, Revision, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Everything here answers at once; a test that waits longer has found a wait that nothing ends.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| what.to_owned()).expect("it comes in time")
}

/// A speaker that takes what it is given.
struct Speaker {
    board: Board,
    /// What it was given, whole, after each frame.
    given: mpsc::UnboundedReceiver<(&'static str, Snapshot)>,
    notices: mpsc::UnboundedReceiver<Notice>,
    task: JoinHandle<()>,
}

impl Speaker {
    /// Starts it; it refuses the frames whose count `refuses` holds for.
    fn start(path: &std::path::Path, refuses: fn(usize) -> bool) -> Self {
        let listener = listen(path).expect("free");
        let board = Board::default();
        let (requests, mut inbox) = mpsc::channel(4);
        let (give, given) = mpsc::unbounded_channel();
        let (notice, notices) = mpsc::unbounded_channel();
        let serving = serve(listener, board.clone(), "speaker 1".into(), requests, move |it| {
            notice.send(it).ok();
        });
        let work = async move {
            let (mut snapshot, mut count) = (Snapshot::default(), 0);
            while let Some(request) = inbox.recv().await {
                count += 1;
                let refuse = || Err::<(), String>("not today".into());
                let (outcome, reply, word) = match request {
                    Request::Snapshot { reply, .. } if refuses(count) => (refuse(), reply, "snapshot"),
                    Request::Delta { reply, .. } if refuses(count) => (refuse(), reply, "delta"),
                    Request::Snapshot { snapshot: whole, reply } => {
                        snapshot = *whole;
                        (Ok(()), reply, "snapshot")
                    }
                    Request::Delta { delta, reply } => {
                        (snapshot.apply(delta).map_err(|error| error.to_string()), reply, "delta")
                    }
                    Request::Ask { question, reply } => {
                        assert_eq!(question, Question::Peers);
                        reply.send(Answer::Peers(Vec::new())).ok();
                        continue;
                    }
                };
                if outcome.is_ok() {
                    give.send((word, snapshot.clone())).ok();
                }
                reply.send(outcome).ok();
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! { () = serving => {}, () = work => {} }
        });
        Self { board, given, notices, task }
    }

    async fn next(&mut self) -> (&'static str, Snapshot) {
        soon("what is given", self.given.recv()).await.expect("the speaker runs")
    }

    async fn stop(self) {
        self.task.abort();
        self.task.await.ok();
    }
}

/// An agent that wants things and hears of them.
struct Agent {
    wanted: watch::Sender<Option<Arc<Snapshot>>>,
    events: mpsc::Receiver<Event>,
}

impl Agent {
    fn start(path: PathBuf) -> Self {
        let (wanted, wishes) = watch::channel(None);
        let (tell, events) = mpsc::channel(4);
        tokio::spawn(follow(path, "agent 1".into(), wishes, tell));
        Self { wanted, events }
    }

    fn want(&self, snapshot: Snapshot) {
        self.wanted.send_replace(Some(Arc::new(snapshot)));
    }

    /// Waits for an event of which `pick` makes something.
    async fn hear<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            let event = soon(what, self.events.recv()).await.expect("the client runs");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    async fn applied(&mut self, revision: u64) {
        let applied = |event| match event {
            Event::Applied(at) => (at == Revision(revision)).then_some(()),
            _ => None,
        };
        self.hear("the revision to be applied", applied).await;
    }
}

fn snapshot(revision: u64, blocks: std::ops::Range<u32>) -> Snapshot {
    let route = |block: u32| LocalRoute {
        prefix: Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + block).into()),
        kind: RouteKind::Pod,
        attributes: RouteAttributes::default(),
        next_hop: NextHop::Own,
        discard: false,
        recipients: Recipients::All,
        exceptions: Default::default(),
    };
    let instance = Instance {
        name: "i".into(),
        asn: 65000,
        router_id: "192.0.2.1".parse().expect("valid"),
        listen: Vec::new(),
        cluster_id: None,
        multipath: 1,
        own: Vec::new(),
        peers: Vec::new(),
        routes: blocks.map(route).collect(),
        stations: Vec::new(),
    };
    Snapshot { revision: Revision(revision), instances: vec![instance] }
}

fn peer(key: &str) -> PeerState {
    PeerState {
        key: PeerKey(key.into()),
        instance: "i".into(),
        address: "192.0.2.1".into(),
        remote_address: None,
        local_address: None,
        asn: Some(65001),
        router_id: None,
        session: SessionState::Established,
        since: Timestamp(1),
        hold_time: Some(90),
        established_count: 1,
        last_error: None,
        restarting: false,
        families: Vec::new(),
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        bfd: None,
    }
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("made");
    let path = folder.path().join("bgp.sock");
    (folder, path)
}

fn accepts_all(_: usize) -> bool {
    false
}

#[tokio::test]
async fn the_first_frame_is_all_and_the_next_only_what_changed() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut agent = Agent::start(path);
    agent.want(snapshot(1, 0..3));
    assert_eq!(speaker.next().await, ("snapshot", snapshot(1, 0..3)));
    agent.applied(1).await;
    agent.want(snapshot(2, 1..4));
    assert_eq!(speaker.next().await, ("delta", snapshot(2, 1..4)));
    agent.applied(2).await;
}

#[tokio::test]
async fn nothing_is_said_before_something_is_wanted() {
    let (_folder, path) = socket();
    let listener = listen(&path).expect("free");
    let agent = Agent::start(path);
    let early = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(early.is_err(), "a connection before anything is wanted");
    agent.want(snapshot(1, 0..1));
    soon("the connection", listener.accept()).await.expect("accepted");
}

#[tokio::test]
async fn a_speaker_that_comes_back_is_given_all_again() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut agent = Agent::start(path.clone());
    agent.want(snapshot(1, 0..2));
    speaker.next().await;
    agent.applied(1).await;
    speaker.stop().await;
    agent.hear("the loss", |event| matches!(event, Event::Lost(_)).then_some(())).await;
    agent.want(snapshot(2, 0..5));
    let mut speaker = Speaker::start(&path, accepts_all);
    assert_eq!(speaker.next().await, ("snapshot", snapshot(2, 0..5)));
    agent.applied(2).await;
}

#[tokio::test]
async fn an_agent_that_comes_back_takes_the_place_of_its_predecessor() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut first = Agent::start(path.clone());
    first.want(snapshot(7, 0..2));
    speaker.next().await;
    first.applied(7).await;
    let mut second = Agent::start(path);
    second.want(snapshot(1, 0..2));
    second.applied(1).await;
    first.hear("the loss", |event| matches!(event, Event::Lost(_)).then_some(())).await;
}

#[tokio::test]
async fn a_delta_that_is_refused_is_followed_by_all() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, |count| count == 2);
    let mut agent = Agent::start(path);
    agent.want(snapshot(1, 0..2));
    speaker.next().await;
    agent.applied(1).await;
    agent.want(snapshot(2, 0..3));
    assert_eq!(speaker.next().await, ("snapshot", snapshot(2, 0..3)));
    agent.applied(2).await;
}

#[tokio::test]
async fn a_snapshot_that_is_refused_is_reported_and_the_next_one_tried() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, |count| count == 1);
    let mut agent = Agent::start(path);
    agent.want(snapshot(1, 0..2));
    let refused = |event| match event {
        Event::Refused { revision, why } => Some((revision, why)),
        _ => None,
    };
    assert_eq!(agent.hear("the refusal", refused).await, (Revision(1), "not today".into()));
    agent.want(snapshot(2, 0..1));
    assert_eq!(speaker.next().await, ("snapshot", snapshot(2, 0..1)));
}

#[tokio::test]
async fn what_is_there_is_told_at_once_and_then_what_changes() {
    let (_folder, path) = socket();
    let speaker = Speaker::start(&path, accepts_all);
    speaker.board.put_peer(peer("a"));
    let mut agent = Agent::start(path);
    agent.want(snapshot(1, 0..0));
    let mut seen = Vec::new();
    let synced = |event| match event {
        Event::Changes(changes) => {
            seen.extend(changes);
            None
        }
        Event::Synced => Some(()),
        _ => None,
    };
    agent.hear("everything", synced).await;
    assert_eq!(seen, [StateChange::Peer(Box::new(peer("a")))]);
    speaker.board.remove_peer(&PeerKey("a".into()));
    let changes = |event| match event {
        Event::Changes(changes) => Some(changes),
        _ => None,
    };
    let gone = agent.hear("the change", changes).await;
    assert_eq!(gone, [StateChange::PeerGone(PeerKey("a".into()))]);
}

#[tokio::test]
async fn a_large_snapshot_and_much_news_pass_each_other() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let way = Arc::new(Way { gateways: Vec::new(), peers: Vec::new() });
    for block in 0..20_000_u32 {
        let prefix = Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + block).into());
        speaker.board.put_learned("i", prefix, &way);
    }
    let mut agent = Agent::start(path);
    agent.want(snapshot(1, 0..20_000));
    let mut learned = 0;
    let mut left = 2;
    let both = |event| {
        match event {
            Event::Changes(changes) => learned += changes.len(),
            Event::Synced | Event::Applied(_) => left -= 1,
            Event::Connected(_) | Event::Lost(_) | Event::Refused { .. } => {}
        }
        (left == 0).then_some(())
    };
    agent.hear("both directions", both).await;
    assert_eq!(learned, 20_000);
    assert_eq!(speaker.next().await.1.instances[0].routes.len(), 20_000);
}

#[tokio::test]
async fn a_client_of_another_version_is_told_so() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    let mut hello =
        serde_json::json!(Hello { protocol: PROTOCOL + 1, software: "agent 2".into(), role: Role::Feeder });
    hello["a field of the future"] = true.into();
    stream.write_all(&encode(&hello).expect("short")).await.expect("written");
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.expect("read");
    let mut frames = Frames::default();
    frames.push(&answer);
    let welcome: Welcome = frames.take().expect("sound").expect("whole");
    assert_eq!(welcome.protocol, PROTOCOL);
    let why = welcome.refused.expect("refused");
    assert!(why.contains("agent 2 speaks version 2") && why.contains("speaker 1 version 1"), "{why}");
    assert!(matches!(soon("the notice", speaker.notices.recv()).await, Some(Notice::Refused(_))));
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_let_go_and_others_are_served() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.ok();
    assert_eq!(answer, b"");
    assert!(matches!(soon("the notice", speaker.notices.recv()).await, Some(Notice::Failed(_))));
    let agent = Agent::start(path);
    agent.want(snapshot(1, 0..1));
    speaker.next().await;
}

#[tokio::test]
async fn a_feeder_that_does_not_read_keeps_nobody_from_asking() {
    let (_folder, path) = socket();
    let speaker = Speaker::start(&path, accepts_all);
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    let hello = Hello { protocol: PROTOCOL, software: "deaf".into(), role: Role::Feeder };
    stream.write_all(&encode(&hello).expect("short")).await.expect("written");
    let way = Arc::new(Way { gateways: Vec::new(), peers: Vec::new() });
    for block in 0..50_000_u32 {
        let prefix = Prefix::host(std::net::Ipv4Addr::from(0x0a00_0000 + block).into());
        speaker.board.put_learned("i", prefix, &way);
    }
    let asked = tokio::task::spawn_blocking(move || ask(&path, "rhumb", Question::Peers, PATIENCE));
    let answer = soon("the answer", asked).await.expect("no panic").expect("answered");
    assert_eq!(answer, Answer::Peers(Vec::new()));
    drop(stream);
}

#[tokio::test]
async fn an_asker_cannot_feed() {
    let (_folder, path) = socket();
    let mut speaker = Speaker::start(&path, accepts_all);
    let mut stream = UnixStream::connect(&path).await.expect("connected");
    let hello = Hello { protocol: PROTOCOL, software: "sly".into(), role: Role::Asker };
    stream.write_all(&encode(&hello).expect("short")).await.expect("written");
    let down = Down::Snapshot(Box::new(snapshot(1, 0..1)));
    stream.write_all(&encode(&down).expect("short")).await.expect("written");
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.ok();
    let mut frames = Frames::default();
    frames.push(&answer);
    assert!(frames.take::<Welcome>().expect("sound").is_some());
    assert!(frames.take::<Up>().expect("sound").is_none());
    assert!(speaker.given.try_recv().is_err());
}
