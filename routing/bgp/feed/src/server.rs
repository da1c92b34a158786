// SPDX-License-Identifier: Apache-2.0
//! The speaker's half of the socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rhumb_model::Revision;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::board::{Board, Reader};
use crate::frame::encode;
use crate::protocol::{Down, Hello, PROTOCOL, Role, Up, Welcome};
use crate::stream::{Incoming, StreamError};
use crate::{Answer, Delta, Question, Snapshot};

/// Connections at once; more wait in the socket's own queue.
const MOST_AT_ONCE: usize = 16;

/// A client that takes nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a client may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// Changes within this time after a batch are told as one; the first after a pause is told at once.
const PACE: Duration = Duration::from_millis(50);

/// What clients want of the speaker. Whoever drops a reply refuses.
#[derive(Debug)]
pub enum Request {
    /// All that is to be done, in place of whatever was.
    Snapshot {
        /// What is to be done.
        snapshot: Box<Snapshot>,
        /// Whether it was taken over, or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// What is to be done otherwise; [`Snapshot::apply`] knows whether it fits.
    Delta {
        /// What is to be done otherwise.
        delta: Delta,
        /// Whether it was taken over, or why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A question.
    Ask {
        /// The question.
        question: Question,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
}

/// Listens at `path` in place of whoever listened there before; only the owner of the process may connect.
///
/// # Errors
/// When the kernel refuses.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What happened on the socket that is worth a line in a log.
#[derive(Debug)]
pub enum Notice {
    /// A feeder came; what it is and its version.
    Fed(String),
    /// A client was not let in, and why.
    Refused(String),
    /// A connection ended by an error.
    Failed(StreamError),
}

/// Serves clients until nobody takes requests any more. `software` is what the speaker is and its version.
pub async fn serve(
    listener: UnixListener,
    board: Board,
    software: String,
    requests: mpsc::Sender<Request>,
    notice: impl Fn(Notice),
) {
    let mut calls: JoinSet<Result<(), StreamError>> = JoinSet::new();
    let feeders = watch::Sender::new(0_u64);
    loop {
        tokio::select! {
            accepted = listener.accept(), if calls.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    let call = Call {
                        incoming: Incoming::default(),
                        board: board.clone(),
                        requests: requests.clone(),
                        feeders: feeders.clone(),
                    };
                    let software = software.clone();
                    calls.spawn(call.run(stream, software));
                }
                Err(error) => notice(Notice::Failed(StreamError::Io(error))),
            },
            Some(ended) = calls.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(StreamError::Refused(why))) => notice(Notice::Refused(why)),
                Ok(Err(error)) => notice(Notice::Failed(error)),
                Err(_) => {}
            },
            () = requests.closed() => return,
        }
    }
}

/// One connection.
struct Call {
    incoming: Incoming,
    board: Board,
    requests: mpsc::Sender<Request>,
    feeders: watch::Sender<u64>,
}

impl Call {
    async fn run(mut self, mut stream: UnixStream, software: String) -> Result<(), StreamError> {
        let hello = tokio::time::timeout(HELLO, self.incoming.next::<Hello>(&mut stream));
        let hello = hello.await.map_err(|_| StreamError::TimedOut)??;
        let refused = (hello.protocol != PROTOCOL).then(|| {
            format!(
                "{} speaks version {} of the feed, {software} version {PROTOCOL}",
                hello.software, hello.protocol
            )
        });
        let welcome = Welcome { protocol: PROTOCOL, software, refused: refused.clone() };
        send(&mut stream, &welcome).await?;
        match (refused, hello.role) {
            (Some(why), _) => Err(StreamError::Refused(why)),
            (None, Role::Asker) => self.answer(stream).await,
            (None, Role::Feeder) => self.be_fed(stream).await,
        }
    }

    async fn answer(mut self, mut stream: UnixStream) -> Result<(), StreamError> {
        loop {
            let question = match self.incoming.next(&mut stream).await {
                Ok(Down::Ask(question)) => question,
                Ok(Down::Snapshot(_) | Down::Delta(_)) => {
                    return Err(StreamError::Refused("an asker tried to feed".into()));
                }
                Err(StreamError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            };
            let (reply, answer) = oneshot::channel();
            self.request(Request::Ask { question, reply }).await?;
            let answer =
                answer.await.unwrap_or_else(|_| Answer::Refused("the speaker does not answer".into()));
            send(&mut stream, &Up::Answer(Box::new(answer))).await?;
        }
    }

    async fn be_fed(mut self, mut stream: UnixStream) -> Result<(), StreamError> {
        let mut newest = self.feeders.subscribe();
        self.feeders.send_modify(|number| *number += 1);
        newest.mark_unchanged();
        let mut reader = self.board.reader();
        self.tell(&mut stream, &reader).await?;
        send(&mut stream, &Up::Synced).await?;
        let mut quiet = tokio::time::Instant::now() + PACE;
        loop {
            let news = async {
                tokio::time::sleep_until(quiet).await;
                reader.changed().await;
            };
            let down = tokio::select! {
                biased;
                _ = newest.changed() => return Ok(()),
                down = self.incoming.next(&mut stream) => Some(down),
                () = news => None,
            };
            match down {
                Some(Ok(down)) => {
                    let up = self.take(down).await?;
                    send(&mut stream, &up).await?;
                }
                Some(Err(StreamError::Closed)) => return Ok(()),
                Some(Err(error)) => return Err(error),
                None => {
                    self.tell(&mut stream, &reader).await?;
                    quiet = tokio::time::Instant::now() + PACE;
                }
            }
        }
    }

    /// Tells all that the reader has not seen.
    async fn tell(&self, stream: &mut UnixStream, reader: &Reader) -> Result<(), StreamError> {
        loop {
            let changes = reader.take();
            if changes.is_empty() {
                return Ok(());
            }
            send(stream, &Up::Changes(changes)).await?;
        }
    }

    /// Passes on what a feeder said.
    async fn take(&self, down: Down) -> Result<Up, StreamError> {
        let (reply, outcome) = oneshot::channel();
        let (revision, request): (Revision, Request) = match down {
            Down::Snapshot(snapshot) => (snapshot.revision, Request::Snapshot { snapshot, reply }),
            Down::Delta(delta) => (delta.to, Request::Delta { delta, reply }),
            Down::Ask(_) => return Err(StreamError::Refused("a feeder asked".into())),
        };
        self.request(request).await?;
        Ok(match outcome.await.unwrap_or_else(|_| Err("the speaker does not answer".into())) {
            Ok(()) => Up::Applied(revision),
            Err(why) => Up::Refused { revision, why },
        })
    }

    async fn request(&self, request: Request) -> Result<(), StreamError> {
        self.requests.send(request).await.map_err(|_| StreamError::Closed)
    }
}

/// Writes a frame within the deadline. What was written in part is never continued: the connection ends.
async fn send(stream: &mut UnixStream, value: &impl serde::Serialize) -> Result<(), StreamError> {
    let bytes = encode(value).map_err(StreamError::Frame)?;
    match tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await {
        Ok(written) => written.map_err(StreamError::from),
        Err(_) => Err(StreamError::TimedOut),
    }
}
