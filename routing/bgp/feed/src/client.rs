// SPDX-License-Identifier: Apache-2.0
//! The agent's half of the socket: keeps the speaker at what is wanted, and passes on what the speaker says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhumb_model::Revision;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::Snapshot;
use crate::frame::encode;
use crate::protocol::{Down, Hello, PROTOCOL, Role, StateChange, Up, Welcome};
use crate::stream::{Incoming, StreamError};

/// How long the speaker may take to accept, to say who it is, or to take a frame.
const PATIENCE: Duration = Duration::from_secs(30);

/// A speaker that is not there is looked for again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// Words of the speaker that wait for the side that answers or waits for them: acknowledgements of one frame.
const OUTCOMES: usize = 1;

/// What becomes known through the socket.
#[derive(Debug)]
pub enum Event {
    /// The speaker answers; what it is and its version. What was known of it is known anew from here on.
    Connected(String),
    /// It does not, and why. Said once for tries in a row that end alike.
    Lost(StreamError),
    /// The speaker has taken over what was wanted at this revision.
    Applied(Revision),
    /// The speaker did not take over a snapshot, and why; the earlier one stays in force.
    Refused {
        /// The snapshot's revision.
        revision: Revision,
        /// Why.
        why: String,
    },
    /// What is now.
    Changes(Vec<StateChange>),
    /// All that is was told once since the connection.
    Synced,
}

/// Keeps the speaker at what is wanted, until nobody says what is wanted or hears what happens.
///
/// Nothing is said before something is wanted. While the speaker works at one change, all later ones become the next.
/// A full queue of events makes the speaker wait, never this side grow.
pub async fn follow(
    path: PathBuf,
    software: String,
    mut wanted: watch::Receiver<Option<Arc<Snapshot>>>,
    events: mpsc::Sender<Event>,
) {
    let mut told = None;
    while wanted.wait_for(Option::is_some).await.is_ok() {
        let ended = match converse(&path, &software, &mut wanted, &events, &mut told).await {
            Ok(()) => return,
            Err(error) => error,
        };
        // Tries in a row that end alike are one event.
        let text = ended.to_string();
        if told.as_ref() != Some(&text) {
            told = Some(text);
            if events.send(Event::Lost(ended)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection, from its beginning to its end; `Ok` when nobody wants anything any more.
async fn converse(
    path: &Path,
    software: &str,
    wanted: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    events: &mpsc::Sender<Event>,
    told: &mut Option<String>,
) -> Result<(), StreamError> {
    let hello = Hello { protocol: PROTOCOL, software: software.to_owned(), role: Role::Feeder };
    let opened = tokio::time::timeout(PATIENCE, open(path, &hello)).await;
    let (speaker, incoming, read, write) = opened.map_err(|_| StreamError::TimedOut)??;
    *told = None;
    if events.send(Event::Connected(speaker)).await.is_err() {
        return Ok(());
    }
    let (outcomes, heard) = mpsc::channel(OUTCOMES);
    // Both directions at once: two sides that only write would wait for each other.
    tokio::select! {
        ended = hear(read, incoming, outcomes, events) => ended,
        ended = say(write, heard, wanted, events) => ended,
    }
}

async fn open(
    path: &Path,
    hello: &Hello,
) -> Result<(String, Incoming, OwnedReadHalf, OwnedWriteHalf), StreamError> {
    let (mut read, mut write) = UnixStream::connect(path).await.map_err(StreamError::Io)?.into_split();
    write.write_all(&encode(hello).map_err(StreamError::Frame)?).await?;
    let mut incoming = Incoming::default();
    let welcome: Welcome = incoming.next(&mut read).await?;
    match welcome.refused {
        None => Ok((welcome.software, incoming, read, write)),
        Some(why) => Err(StreamError::Refused(why)),
    }
}

/// Whether the speaker took over a frame, or why not.
type Outcome = Result<(), String>;

async fn hear(
    mut read: OwnedReadHalf,
    mut incoming: Incoming,
    outcomes: mpsc::Sender<Outcome>,
    events: &mpsc::Sender<Event>,
) -> Result<(), StreamError> {
    loop {
        let event = match incoming.next(&mut read).await? {
            Up::Applied(revision) => {
                if outcomes.send(Ok(())).await.is_err() {
                    return Ok(());
                }
                Event::Applied(revision)
            }
            Up::Refused { why, .. } => {
                if outcomes.send(Err(why)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Up::Changes(changes) => Event::Changes(changes),
            Up::Synced => Event::Synced,
            Up::Answer(_) => return Err(StreamError::Refused("an answer that nobody asked for".into())),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn say(
    mut write: OwnedWriteHalf,
    mut heard: mpsc::Receiver<Outcome>,
    wanted: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    events: &mpsc::Sender<Event>,
) -> Result<(), StreamError> {
    // What the speaker has of us on this connection.
    let mut has: Option<Arc<Snapshot>> = None;
    loop {
        let Some(next) = wanted.borrow_and_update().clone() else { return Ok(()) };
        let down = match &has {
            Some(has) => Down::Delta(has.delta(&next)),
            None => Down::Snapshot(Box::new(Snapshot::clone(&next))),
        };
        let bytes = encode(&down).map_err(StreamError::Frame)?;
        let written = tokio::time::timeout(PATIENCE, write.write_all(&bytes)).await;
        written.map_err(|_| StreamError::TimedOut)??;
        match (heard.recv().await, down) {
            (None, _) => return Err(StreamError::Closed),
            (Some(Ok(())), _) => has = Some(next),
            (Some(Err(_)), Down::Delta(_)) => {
                // It does not fit what is there; all of it does.
                has = None;
                continue;
            }
            (Some(Err(why)), Down::Snapshot(_) | Down::Ask(_)) => {
                has = None;
                if events.send(Event::Refused { revision: next.revision, why }).await.is_err() {
                    return Ok(());
                }
            }
        }
        if wanted.changed().await.is_err() {
            return Ok(());
        }
    }
}
