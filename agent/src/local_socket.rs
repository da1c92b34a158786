// SPDX-License-Identifier: Apache-2.0
//! Where the command line is heard: a line with a JSON string that names what to show, answered by a JSON document; or
//! a line with an object that says which packets or changes to tell of, answered by lines of JSON until one side has
//! enough.

use std::rc::Rc;
use std::time::Duration;

use rhumb_ebpf::FlowTable;
use rhumb_routing::plan::Event;
use serde_json::json;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::metrics::Scraper;
use crate::monitor::{Join, LINES, Request};
use crate::node::{Input, show_change};
use crate::question::{Followed, Form, LONGEST, Question};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "rhumb.sock";

const DEADLINE: Duration = Duration::from_secs(10);
const MOST_AT_ONCE: usize = 16;
const MOST_WATCHERS: usize = 16;

/// Who is told of more than one thing.
#[derive(Debug)]
enum Watch {
    Packets(Request),
    Ways,
}

/// Serves until the node's loop is gone.
pub(crate) async fn serve(
    listener: UnixListener,
    inbox: mpsc::Sender<Input>,
    scraper: Rc<Scraper>,
    table: FlowTable,
    joins: mpsc::Sender<Join>,
) {
    let mut calls = JoinSet::new();
    let mut watchers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if calls.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    calls.spawn_local(tokio::time::timeout(DEADLINE, call(stream, inbox.clone(), Rc::clone(&scraper), table.clone())));
                }
                Err(error) => warn!(%error, "connection not accepted"),
            },
            Some(ended) = calls.join_next() => {
                let Ok(Ok(Some((stream, watch)))) = ended else { continue };
                // One too many is hung up on.
                if watchers.len() < MOST_WATCHERS {
                    watchers.spawn_local(watched(stream, watch, inbox.clone(), joins.clone()));
                }
            }
            Some(_) = watchers.join_next() => {}
            () = inbox.closed() => return,
        }
    }
}

/// Answers a question; whoever wants to watch is given back.
async fn call(
    stream: UnixStream,
    inbox: mpsc::Sender<Input>,
    scraper: Rc<Scraper>,
    table: FlowTable,
) -> Option<(UnixStream, Watch)> {
    converse(stream, inbox, &scraper, &table).await.unwrap_or_else(|error| {
        debug!(%error, "question of the command line not answered");
        None
    })
}

async fn converse(
    stream: UnixStream,
    inbox: mpsc::Sender<Input>,
    scraper: &Scraper,
    table: &FlowTable,
) -> std::io::Result<Option<(UnixStream, Watch)>> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    let longest = u64::try_from(LONGEST).expect("small");
    (&mut stream).take(longest).read_until(b'\n', &mut line).await?;
    let document = match Question::parse(&line)? {
        Question::Show(what) => {
            let (reply, answer) = oneshot::channel();
            inbox.send(Input::Show { what, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        }
        Question::Metrics { metrics: Form::Samples } => json!(scraper.samples().await.ok_or_else(gone)?),
        Question::Metrics { metrics: Form::Text } => json!(scraper.text().await.ok_or_else(gone)?),
        Question::Flows { flows } => {
            let table = table.clone();
            let read = tokio::task::spawn_blocking(move || flows.answer(&table)).await;
            read.map_err(|_| gone())?.map_err(std::io::Error::other)?
        }
        Question::Monitor { monitor } => {
            let request = monitor.try_into().map_err(std::io::Error::other)?;
            return Ok(Some((stream.into_inner(), Watch::Packets(request))));
        }
        Question::Follow { follow: Followed::RouteChanges } => {
            return Ok(Some((stream.into_inner(), Watch::Ways)));
        }
    };
    stream.write_all(document.to_string().as_bytes()).await?;
    Ok(None)
}

/// Passes lines on until there are no more or nobody reads them.
async fn watched(stream: UnixStream, watch: Watch, inbox: mpsc::Sender<Input>, joins: mpsc::Sender<Join>) {
    match watch {
        Watch::Packets(request) => {
            let (lines, heard) = mpsc::channel(LINES);
            if joins.send(Join { request, lines }).await.is_ok() {
                tell(stream, Lines::Packets(heard)).await;
            }
        }
        Watch::Ways => {
            let (reply, answer) = oneshot::channel();
            if inbox.send(Input::FollowWays { reply }).await.is_ok()
                && let Ok((past, changes)) = answer.await
            {
                tell(stream, Lines::Ways { past: past.into_iter(), changes }).await;
            }
        }
    }
}

/// Lines as they come.
enum Lines {
    Packets(mpsc::Receiver<Rc<str>>),
    Ways { past: std::vec::IntoIter<Event>, changes: broadcast::Receiver<Event> },
}

impl Lines {
    /// The next line, without its end; nothing when no more will come. Nothing is lost when the wait is cancelled.
    async fn next(&mut self) -> Option<Rc<str>> {
        match self {
            Lines::Packets(lines) => lines.recv().await,
            Lines::Ways { past, changes } => {
                if let Some(event) = past.next() {
                    return Some(show_change(&event).to_string().into());
                }
                match changes.recv().await {
                    Ok(event) => Some(show_change(&event).to_string().into()),
                    Err(RecvError::Lagged(missed)) => Some(json!({ "missed": missed }).to_string().into()),
                    Err(RecvError::Closed) => None,
                }
            }
        }
    }
}

async fn tell(mut stream: UnixStream, mut lines: Lines) {
    let (mut read, mut write) = stream.split();
    let mut nothing = [0; 1];
    loop {
        let line = tokio::select! {
            line = lines.next() => match line {
                Some(line) => line,
                None => return,
            },
            // A watcher says nothing more; the end of its side is the end.
            _ = read.read(&mut nothing) => return,
        };
        let line = format!("{line}\n");
        let written = tokio::select! {
            written = write.write_all(line.as_bytes()) => written,
            _ = read.read(&mut nothing) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

fn gone() -> std::io::Error {
    std::io::ErrorKind::ConnectionAborted.into()
}
