// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 for the three servers: whole bodies in, whole bodies out, and connections that end without a reply.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// No request of EC2 is larger than this.
const LARGEST: usize = 1 << 20;

/// A request with its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// The caller's connection ends without a reply.
#[derive(Debug, thiserror::Error)]
#[error("the connection is to end here")]
pub(super) struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Answers every request by `answer`, until dropped.
pub(super) async fn serve<F, Fut>(listener: TcpListener, answer: F)
where
    F: Fn(Asked) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<String>, Cut>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let answer = answer.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer.clone();
                        async move {
                            match read(request).await {
                                Some(asked) => answer(asked).await,
                                None => Ok(plain(StatusCode::BAD_REQUEST, "the request cannot be read\n")),
                            }
                        }
                    });
                    let mut server = http1::Builder::new();
                    server.timer(TokioTimer::new());
                    // A connection that ends is the caller's affair, or what a fault wanted.
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn read(request: Request<Incoming>) -> Option<Asked> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > LARGEST {
            return None;
        }
    }
    Some(Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8(bytes).ok()?,
    })
}

pub(super) fn plain(status: StatusCode, text: &str) -> Response<String> {
    reply(status, HeaderValue::from_static("text/plain; charset=utf-8"), text.to_owned())
}

pub(super) fn reply(status: StatusCode, form: HeaderValue, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, form);
    response
}
