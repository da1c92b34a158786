// SPDX-License-Identifier: Apache-2.0
//! `/metrics` over HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info, warn};

/// The form of the Prometheus text format.
const FORM: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Connections at a time; others wait to be accepted.
const MOST_AT_ONCE: usize = 8;
/// How long a connection may stay open; a scraper opens another.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a connection may take to ask.
const QUESTION: Duration = Duration::from_secs(5);
/// An address that is taken is tried again after this time: an operator that is being replaced may still hold it.
const RETRY: Duration = Duration::from_secs(5);

/// Serves what `text` says until dropped; without an address, nothing.
pub(crate) async fn serve(address: Option<SocketAddr>, text: impl Fn() -> String) {
    let Some(address) = address else { return std::future::pending().await };
    let listener = listen(address).await;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => connections.push(tokio::time::timeout(LONGEST, converse(stream, &text))),
                Err(error) => warn!(%error, "connection for metrics not accepted"),
            },
            Some(_) = connections.next() => {}
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "metrics served");
                return listener;
            }
            Err(error) => warn!(%address, %error, "metrics not served; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(stream: TcpStream, text: &impl Fn() -> String) {
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        let answer = answer(request.method(), request.uri().path(), text);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(QUESTION);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        debug!(%error, "connection for metrics ended");
    }
}

fn answer(method: &Method, path: &str, text: &impl Fn() -> String) -> Response<String> {
    let (status, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there is /metrics\n".to_owned()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, FORM);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_served_and_only_read() {
        let text = || "a 1\n".to_owned();
        let metrics = answer(&Method::GET, "/metrics", &text);
        assert_eq!((metrics.status(), metrics.body().as_str()), (StatusCode::OK, "a 1\n"));
        assert_eq!(answer(&Method::POST, "/metrics", &text).status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer(&Method::GET, "/", &text).status(), StatusCode::NOT_FOUND);
    }
}
