// SPDX-License-Identifier: Apache-2.0
//! Where the CNI plugin is heard: one connection, one request, one reply.
//!
//! Bytes are read and written on threads of the runtime's pool with the plugin's own blocking code; what a request
//! means is decided by the node's loop. GC is a series of removals, put together here.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;

use rhumb_api::{AnnotationError, ObjectKey, Pod, Store, pod_addressing};
use rhumb_cni::protocol::{DelRequest, GcRequest, Refusal, RefusalKind, Reply, Request};
use rhumb_cni::server;
use rhumb_model::{AttachmentKey, PodKey};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{debug, warn};

use crate::node::{Input, Wishes};

/// At most this many requests are under way; more wait in the socket's backlog.
const MOST_AT_ONCE: usize = 128;

/// Serves until `stopping`, then hears no more and returns when every call under way is answered. `path` is the
/// socket's: it goes first, so that plugins queue their DELs from then on.
pub(crate) async fn serve<S: Store>(
    listener: UnixListener,
    path: PathBuf,
    store: Rc<OnceCell<S>>,
    inbox: mpsc::Sender<Input>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            accepted = listener.accept(), if calls.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    calls.spawn_local(call(stream, Rc::clone(&store), inbox.clone()));
                }
                Err(error) => warn!(%error, "connection not accepted"),
            },
            Some(_) = calls.join_next() => {}
        }
    }
    if let Err(error) = std::fs::remove_file(&path) {
        warn!(%error, "socket not removed");
    }
    drop(listener);
    while calls.join_next().await.is_some() {}
}

async fn call<S: Store>(stream: tokio::net::UnixStream, store: Rc<OnceCell<S>>, inbox: mpsc::Sender<Input>) {
    let stream = match stream.into_std().and_then(|stream| stream.set_nonblocking(false).map(|()| stream)) {
        Ok(stream) => stream,
        Err(error) => return warn!(%error, "connection not usable"),
    };
    let received = spawn_blocking(move || receive(stream)).await;
    let Ok(Some((stream, request, netns))) = received else { return };
    let reply = answer(request, netns, store.get(), &inbox).await;
    let sent = spawn_blocking(move || server::reply(&stream, &reply)).await;
    if let Ok(Err(error)) = sent {
        // The runtime may have given the plugin up; it will ask again or send DEL.
        debug!(error = &error as &dyn std::error::Error, "reply not delivered");
    }
}

fn receive(stream: UnixStream) -> Option<(UnixStream, Request, Option<OwnedFd>)> {
    match server::receive(&stream) {
        Ok((request, netns)) => Some((stream, request, netns)),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "request not understood");
            if let Some(refusal) = error.refusal()
                && let Err(error) = server::reply(&stream, &Reply::Refused(refusal))
            {
                debug!(error = &error as &dyn std::error::Error, "refusal not delivered");
            }
            None
        }
    }
}

async fn answer<S: Store>(
    request: Request,
    netns: Option<OwnedFd>,
    store: Option<&S>,
    inbox: &mpsc::Sender<Input>,
) -> Reply {
    match request {
        Request::Add(request) => {
            let Some(netns) = netns else {
                return refused(RefusalKind::InvalidConfig, "no network namespace came with the request");
            };
            let Some(store) = store else {
                return refused(RefusalKind::TryAgain, "the agent waits for its object store");
            };
            let wishes = match &request.pod {
                Some(pod) => match wishes(store, pod).await {
                    Ok(wishes) => wishes,
                    Err(refusal) => return Reply::Refused(refusal),
                },
                None => Wishes::default(),
            };
            ask(inbox, |reply| Input::Add { request, netns, wishes, reply }).await
        }
        Request::Del(DelRequest { key, .. }) => ask(inbox, |reply| Input::Del { key, reply }).await,
        Request::Check(request) => {
            ask(inbox, |reply| Input::Check { request: Box::new(request), netns, reply }).await
        }
        Request::Gc(request) => collect(request, inbox).await,
        Request::Status => ask(inbox, |reply| Input::Status { reply }).await,
    }
}

async fn ask(inbox: &mpsc::Sender<Input>, input: impl FnOnce(oneshot::Sender<Reply>) -> Input) -> Reply {
    let (reply, answer) = oneshot::channel();
    let stopping = || refused(RefusalKind::TryAgain, "the agent is stopping");
    if inbox.send(input(reply)).await.is_err() {
        return stopping();
    }
    answer.await.unwrap_or_else(|_| stopping())
}

/// GC: removes what is stale, goes on after an error, and names every attachment that stayed.
async fn collect(request: GcRequest, inbox: &mpsc::Sender<Input>) -> Reply {
    let (reply, stale) = oneshot::channel();
    let GcRequest { network, keep } = request;
    if inbox.send(Input::Stale { network, keep, reply }).await.is_err() {
        return refused(RefusalKind::TryAgain, "the agent is stopping");
    }
    let stale = stale.await.unwrap_or_default();
    let removals = stale.into_iter().map(|key| remove(key, inbox));
    let failed: Vec<String> = futures::future::join_all(removals).await.into_iter().flatten().collect();
    if failed.is_empty() {
        return Reply::Done;
    }
    Reply::Refused(Refusal {
        kind: RefusalKind::Incomplete,
        message: format!("{} attachments are not removed", failed.len()),
        details: failed.join("; "),
    })
}

async fn remove(key: AttachmentKey, inbox: &mpsc::Sender<Input>) -> Option<String> {
    let name = key.to_string();
    match ask(inbox, |reply| Input::Del { key, reply }).await {
        Reply::Done | Reply::Added(_) => None,
        Reply::Refused(refusal) => Some(format!("{name}: {refusal}")),
    }
}

/// What the Pod object asks for; a pod without an object asks for nothing.
async fn wishes<S: Store>(store: &S, pod: &PodKey) -> Result<Wishes, Refusal> {
    match store.get::<Pod>(&ObjectKey::from(pod)).await {
        Ok(Some(object)) => {
            let wanted =
                pod_addressing(&object).map_err(|error: AnnotationError| refusal(&error.to_string()))?;
            Ok(Wishes { addresses: wanted.requested, sticky: wanted.sticky })
        }
        Ok(None) => Ok(Wishes::default()),
        Err(error) => Err(Refusal {
            kind: RefusalKind::TryAgain,
            message: format!("read pod {pod}: {error}"),
            details: String::new(),
        }),
    }
}

fn refusal(message: &str) -> Refusal {
    Refusal { kind: RefusalKind::InvalidConfig, message: message.to_owned(), details: String::new() }
}

fn refused(kind: RefusalKind, message: &str) -> Reply {
    Reply::Refused(Refusal { kind, ..refusal(message) })
}
