// SPDX-License-Identifier: Apache-2.0
//! Where the command line is heard: a line with a JSON string that names what to show, answered by a JSON document.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::node::{Input, Show};

/// Name of the socket in the run directory.
pub(crate) const SOCKET: &str = "rhumb.sock";

const LONGEST_QUESTION: u64 = 256;
const DEADLINE: Duration = Duration::from_secs(10);
const MOST_AT_ONCE: usize = 16;

/// Serves until the node's loop is gone.
pub(crate) async fn serve(listener: UnixListener, inbox: mpsc::Sender<Input>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if calls.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    calls.spawn_local(tokio::time::timeout(DEADLINE, call(stream, inbox.clone())));
                }
                Err(error) => warn!(%error, "connection not accepted"),
            },
            Some(_) = calls.join_next() => {}
            () = inbox.closed() => return,
        }
    }
}

async fn call(stream: UnixStream, inbox: mpsc::Sender<Input>) {
    if let Err(error) = converse(stream, inbox).await {
        debug!(%error, "question of the command line not answered");
    }
}

async fn converse(stream: UnixStream, inbox: mpsc::Sender<Input>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LONGEST_QUESTION).read_line(&mut line).await?;
    let what: Show = serde_json::from_str(&line)?;
    let (reply, answer) = oneshot::channel();
    let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
    inbox.send(Input::Show { what, reply }).await.map_err(|_| gone())?;
    let document = answer.await.map_err(|_| gone())?;
    stream.write_all(document.to_string().as_bytes()).await
}
