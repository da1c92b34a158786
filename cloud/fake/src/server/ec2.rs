// SPDX-License-Identifier: Apache-2.0
//! EC2 over HTTP.

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use tokio::net::TcpListener;

use super::Handle;
use super::http::{self, Asked, Cut};
use crate::fake::Outcome;
use crate::query::{Form, failure, parse, success};
use crate::refusal::Refusal;

const REQUEST_ID: &str = "x-amzn-requestid";
/// What stands in front of EC2 says when there is nothing behind it.
const GARBAGE: &str = "<html><body><h1>Service Unavailable</h1></body>\n";

pub(super) async fn serve(listener: TcpListener, handle: Handle) {
    http::serve(listener, move |asked| answer(handle.clone(), asked)).await;
}

async fn answer(handle: Handle, asked: Asked) -> Result<Response<String>, Cut> {
    let text = if asked.body.is_empty() { &asked.query } else { &asked.body };
    let form = Form::parse(text).map_err(|error| Refusal::new("MalformedQueryString", error.to_string()));
    let call = form.and_then(|form| parse(&form));
    let number = handle.with(|fake, _| fake.ledger().calls());
    let request = request_id(number);
    let call = match call {
        Ok(call) => call,
        Err(refusal) => return Ok(refused(&refusal, &request)),
    };
    // The answer is written while nothing else can happen: it looks up what it names.
    let (outcome, due) = handle.with(|fake, now| {
        let reply = fake.call(now, &call);
        let written = match reply.outcome {
            Outcome::Answered(answer) => {
                Written::Done(success(fake.world(), call.action.name(), &answer, &request))
            }
            Outcome::Refused(refusal) => Written::Refused(refusal),
            Outcome::Garbage(status) => Written::Garbage(status),
            Outcome::LostReply | Outcome::LostCall => Written::Cut,
            Outcome::Hung => Written::Hung,
        };
        (written, now.after(reply.after))
    });
    handle.reach(due).await;
    match outcome {
        Written::Done(body) => Ok(xml(StatusCode::OK, body, &request)),
        Written::Refused(refusal) => Ok(refused(&refusal, &request)),
        Written::Garbage(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok(http::reply(status, HeaderValue::from_static("text/html"), GARBAGE.to_owned()))
        }
        Written::Cut => Err(Cut),
        Written::Hung => std::future::pending().await,
    }
}

enum Written {
    Done(String),
    Refused(Refusal),
    Garbage(u16),
    Cut,
    Hung,
}

fn refused(refusal: &Refusal, request: &str) -> Response<String> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    xml(status, failure(refusal, request), request)
}

/// SDKs read the id of a request from the header, people from the body.
fn xml(status: StatusCode, body: String, request: &str) -> Response<String> {
    let mut response = http::reply(status, HeaderValue::from_static("text/xml;charset=UTF-8"), body);
    if let Ok(id) = HeaderValue::from_str(request) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn request_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}
