// SPDX-License-Identifier: Apache-2.0
//! What it costs the speaker and the agent that learned routes are told over the socket between them.
//!
//! `cargo run --release -p rhumb-bgp-feed --example feed_cost [ROUTES] [CHANGES_A_SECOND]`. Times are those of the
//! processor, of one thread each: the speaker's board and server, and the agent's client, which keeps the prefixes.
#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc as threads};
use std::time::{Duration, Instant};

use rhumb_bgp_feed::client::{Event, follow};
use rhumb_bgp_feed::protocol::StateChange;
use rhumb_bgp_feed::server::{Request, listen, serve};
use rhumb_bgp_feed::{Board, PeerKey, Snapshot, Way};
use rhumb_model::{Prefix, Revision};
use tokio::sync::{mpsc, watch};

/// How long each part is watched.
const PART: Duration = Duration::from_secs(5);

/// Processor time of both ends in nanoseconds, as they last said.
static SPEAKER: AtomicU64 = AtomicU64::new(0);
static AGENT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().unwrap_or(0));
    let routes: u32 = arguments.next().unwrap_or(100_000);
    let changes: u32 = arguments.next().unwrap_or(1000).clamp(1, 1_000_000);
    let board = Board::default();
    let ways = [1, 2].map(|number| {
        let gateways = vec![(IpAddr::from([192, 0, 2, number]), None)];
        Arc::new(Way { gateways, peers: vec![PeerKey("tor".to_owned())] })
    });
    let prefix = |number: u32| Prefix::containing(Ipv4Addr::from(0x0a00_0000 + number * 256).into(), 24);
    (0..routes).for_each(|number| board.put_learned("default", prefix(number), &ways[0]));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bgp.sock");
    let (synced, is_synced) = threads::channel();
    let (server, client) = (board.clone(), path.clone());
    std::thread::spawn(move || run(speak(server, &path)));
    std::thread::spawn(move || run(hear(client, synced)));
    let began = Instant::now();
    is_synced.recv().expect("told");
    println!("{routes} routes told in {:.0?}", began.elapsed());
    said("all of them", [0, 0]);

    let before = now();
    std::thread::sleep(PART);
    said("nothing, 5 s", before);

    let before = now();
    let began = Instant::now();
    let mut changed = 0;
    while began.elapsed() < PART {
        let due = u32::try_from(began.elapsed().as_millis()).unwrap_or(0) * changes / 1000;
        for number in changed..due {
            let way = &ways[(number / routes + 1) as usize % 2];
            board.put_learned("default", prefix(number % routes), way);
        }
        changed = due;
        std::thread::sleep(Duration::from_millis(1));
    }
    said(&format!("{changed} changes in 5 s"), before);
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

async fn speak(board: Board, path: &std::path::Path) {
    let (requests, mut asked) = mpsc::channel(1);
    let answer = async {
        while let Some(request) = asked.recv().await {
            match request {
                Request::Snapshot { reply, .. } | Request::Delta { reply, .. } => drop(reply.send(Ok(()))),
                Request::Ask { .. } => {}
            }
        }
    };
    let listener = listen(path).expect("bound");
    tokio::join!(serve(listener, board, "cost".to_owned(), requests, |_| {}), answer, note(&SPEAKER));
}

async fn hear(path: std::path::PathBuf, synced: threads::Sender<()>) {
    let snapshot = Snapshot { revision: Revision::default(), instances: Vec::new() };
    let (_wanted, wishes) = watch::channel(Some(Arc::new(snapshot)));
    let (events, mut heard) = mpsc::channel(16);
    let mut learned = BTreeSet::new();
    let keep = async {
        while let Some(event) = heard.recv().await {
            match event {
                Event::Changes(changes) => {
                    learned.extend(changes.into_iter().filter_map(|change| match change {
                        StateChange::Learned(learned) => Some(learned.prefix),
                        StateChange::LearnedGone { .. } | StateChange::Peer(_) | StateChange::PeerGone(_) => {
                            None
                        }
                    }))
                }
                Event::Synced => {
                    AGENT.store(processor_time(), Ordering::Relaxed);
                    synced.send(()).ok();
                }
                Event::Connected(_) | Event::Lost(_) | Event::Applied(_) | Event::Refused { .. } => {}
            }
        }
    };
    tokio::join!(follow(path, "cost".to_owned(), wishes, events), keep, note(&AGENT));
}

/// Says now and then how long this thread has been on a processor.
async fn note(place: &AtomicU64) {
    loop {
        place.store(processor_time(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

fn now() -> [u64; 2] {
    // What was noted last is a quarter of a second old at most.
    std::thread::sleep(Duration::from_millis(300));
    [&SPEAKER, &AGENT].map(|place| place.load(Ordering::Relaxed))
}

fn said(what: &str, before: [u64; 2]) {
    let after = now();
    let [speaker, agent] = [0, 1].map(|at| Duration::from_nanos(after[at].saturating_sub(before[at])));
    println!("{what:24} speaker {speaker:>10.2?} agent {agent:>10.2?}");
}
