// SPDX-License-Identifier: Apache-2.0
//! `/metrics` over HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::Scraper;

/// The form of the Prometheus text format.
const FORM: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Connections at a time; others wait to be accepted.
const MOST_AT_ONCE: usize = 8;
/// How long a connection may stay open; a scraper opens another.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a connection may take to ask: one that says nothing keeps no place from others for longer.
const QUESTION: Duration = Duration::from_secs(5);
/// An address that is taken is tried again after this time: an agent that is being replaced may still hold it.
const RETRY: Duration = Duration::from_secs(5);

/// Where metrics are served; nowhere when empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) Option<SocketAddr>);

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { Ok(Self(Some(text.parse()?))) }
    }
}

/// Serves until dropped. Pods need no metrics: an address that cannot be had is said in the log and tried again.
pub(crate) async fn serve(address: Address, scraper: Rc<Scraper>) {
    let Address(Some(address)) = address else { return };
    let listener = listen(address).await;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(tokio::time::timeout(LONGEST, converse(stream, Rc::clone(&scraper))));
                }
                Err(error) => warn!(%error, "connection for metrics not accepted"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "metrics served");
                return listener;
            }
            Err(error) if said => debug!(%address, %error, "metrics not served"),
            Err(error) => warn!(%address, %error, "metrics not served; trying again"),
        }
        said = true;
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(stream: TcpStream, scraper: Rc<Scraper>) {
    let answer = service_fn(move |request| answer(request, Rc::clone(&scraper)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(QUESTION);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        debug!(%error, "connection for metrics ended");
    }
}

async fn answer(request: Request<Incoming>, scraper: Rc<Scraper>) -> Result<Response<String>, Infallible> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match scraper.text().await {
            Some(text) => response(StatusCode::OK, FORM, text),
            None => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the agent is stopping\n".to_owned()),
        },
        (_, "/metrics") => {
            let mut refusal =
                response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refusal
        }
        _ => response(StatusCode::NOT_FOUND, PLAIN, "there is /metrics\n".to_owned()),
    })
}

fn response(status: StatusCode, form: HeaderValue, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, form);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_address_is_none() {
        assert_eq!("".parse(), Ok(Address(None)));
        assert_eq!("[::]:7268".parse::<Address>().expect("valid").0.expect("some").port(), 7268);
        assert!("here".parse::<Address>().is_err());
    }
}
