// SPDX-License-Identifier: Apache-2.0
//! The metadata services over HTTP. Only version 2: a token first, then everything with it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Response, StatusCode};
use rhumb_model::{InstanceId, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Handle;
use super::http::{self, Asked, Cut, plain};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Six hours, the longest that a token lives.
const LONGEST: u64 = 21_600;

/// The listeners of all instances; they end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    tasks: Mutex<JoinSet<()>>,
    addresses: Mutex<BTreeMap<InstanceId, SocketAddr>>,
}

impl Listeners {
    pub(super) async fn start(
        &self,
        handle: Handle,
        instance: InstanceId,
        listen: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), address);
        let service = Arc::new(Service { handle, instance, tokens: Mutex::default() });
        let serve = http::serve(listener, move |asked| {
            let service = Arc::clone(&service);
            async move { service.answer(&asked) }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(serve);
        Ok(address)
    }

    pub(super) fn addresses(&self) -> BTreeMap<InstanceId, SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Debug)]
struct Service {
    handle: Handle,
    instance: InstanceId,
    /// Tokens that were given, with the end of their lives.
    tokens: Mutex<BTreeMap<String, Timestamp>>,
}

impl Service {
    fn answer(&self, asked: &Asked) -> Result<Response<String>, Cut> {
        let path = asked.path.strip_prefix("/latest/").unwrap_or_default();
        let now = self.handle.now();
        if let Some(status) =
            self.handle.with(|fake, now| fake.metadata().window(now, &self.instance, &asked.path))
        {
            return Ok(plain(StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND), ""));
        }
        match (&asked.method, path) {
            (&Method::PUT, "api/token") => Ok(self.token(now, &asked.headers)),
            (&Method::GET, _) if !self.knows(now, &asked.headers) => Ok(plain(StatusCode::UNAUTHORIZED, "")),
            (&Method::GET, _) => {
                let found = self.handle.with(|fake, _| fake.ask_metadata(&self.instance, path));
                Ok(match found {
                    Some(text) => plain(StatusCode::OK, &text),
                    None => plain(StatusCode::NOT_FOUND, ""),
                })
            }
            _ => Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "")),
        }
    }

    fn token(&self, now: Timestamp, headers: &HeaderMap) -> Response<String> {
        let seconds = headers.get(TTL).and_then(|value| value.to_str().ok()?.parse().ok());
        // A request that came through a proxy gets no token.
        let forwarded = headers.contains_key("x-forwarded-for");
        let Some(seconds) = seconds.filter(|seconds| (1..=LONGEST).contains(seconds) && !forwarded) else {
            return plain(StatusCode::BAD_REQUEST, "");
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = format!("{}-{}", self.instance, tokens.len() + 1);
        tokens.insert(token.clone(), now.after(Duration::from_secs(seconds)));
        let mut response = plain(StatusCode::OK, &token);
        response.headers_mut().insert(TTL, HeaderValue::from(seconds));
        response
    }

    fn knows(&self, now: Timestamp, headers: &HeaderMap) -> bool {
        let token = headers.get(TOKEN).and_then(|value| value.to_str().ok());
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        token.and_then(|token| tokens.get(token)).is_some_and(|ends| now < *ends)
    }
}
