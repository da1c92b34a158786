// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, Mutex as Lock};

use super::*;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A metadata service that answers each request by `answer(head)`, and notes the first line of each.
struct Service {
    address: SocketAddr,
    asked: Arc<Lock<Vec<String>>>,
    task: AbortHandle,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn start(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Lock::new(Vec::new()));
        let notes = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut head).await.expect("read");
                }
                let head = String::from_utf8(head).expect("text");
                notes.lock().expect("whole").push(head.lines().next().unwrap_or_default().to_owned());
                match answer(&head) {
                    Some(text) => stream.write_all(text.as_bytes()).await.expect("written"),
                    None => silent.push(stream),
                }
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("whole").clone()
    }
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn token(text: &str) -> Option<String> {
    let head = "HTTP/1.1 200 OK\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 60\r\n";
    Some(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()))
}

fn status(code: u16) -> Option<String> {
    Some(format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n"))
}

fn instance(head: &str) -> Option<String> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let macs = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01";
    match path {
        "/latest/api/token" if head.contains("X-aws-ec2-metadata-token-ttl-seconds: 60\r\n") => {
            token("secret")
        }
        _ if !head.contains("X-aws-ec2-metadata-token: secret\r\n") => status(401),
        "/latest/meta-data/mac" => ok("02:00:00:00:00:01"),
        "/latest/meta-data/instance-id" => ok("i-0a1b2c3d"),
        "/latest/meta-data/instance-type" => ok("m5.large"),
        "/latest/meta-data/placement/availability-zone" => ok("eu-central-1a"),
        _ if path == format!("{macs}/subnet-id") => ok("subnet-1"),
        _ if path == format!("{macs}/vpc-id") => ok("vpc-1\n"),
        _ => status(404),
    }
}

#[tokio::test]
async fn an_instance_is_told_who_it_is_with_one_token() {
    let service = Service::start(instance).await;
    let identity = Imds::new(service.address).identity().await.expect("told");
    assert_eq!(identity.id.as_str(), "i-0a1b2c3d");
    assert_eq!((identity.kind.as_str(), identity.zone.as_str()), ("m5.large", "eu-central-1a"));
    assert_eq!((identity.subnet.as_str(), identity.vpc.as_str()), ("subnet-1", "vpc-1"));
    let tokens = service.asked().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!((tokens, service.asked().len()), (1, 7));
}

#[tokio::test]
async fn what_is_not_there_is_absent_and_may_come() {
    let service =
        Service::start(|head| if head.contains("/vpc-id") { status(404) } else { instance(head) }).await;
    let error = Imds::new(service.address).identity().await.expect_err("absent");
    assert!(matches!(&error, ImdsError::Absent { path } if path.ends_with("/vpc-id")), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn whoever_asks_again_has_another_token() {
    let puts = Arc::new(Lock::new(0));
    let service = Service::start(move |head| {
        let mut puts = puts.lock().expect("whole");
        if head.starts_with("PUT") {
            *puts += 1;
            return token(&format!("t{puts}"));
        }
        // The first token is forgotten by the service.
        let taken = head.contains("token: t2\r\n") || head.contains("token: t3\r\n");
        if taken { instance(&head.replace(&format!("t{puts}"), "secret")) } else { status(401) }
    })
    .await;
    let imds = Imds::new(service.address);
    let error = imds.identity().await.expect_err("refused");
    assert!(matches!(error, ImdsError::Refused { status: 401, .. }) && error.is_retryable(), "{error}");
    for _ in 0..2 {
        assert_eq!(imds.identity().await.expect("told").id.as_str(), "i-0a1b2c3d");
    }
    let asked = service.asked();
    assert_eq!((asked.iter().filter(|line| line.starts_with("PUT")).count(), asked.len()), (3, 2 + 7 + 7));
}

#[tokio::test]
async fn a_service_that_takes_no_token_is_refusing() {
    let service = Service::start(|head| if head.starts_with("PUT") { token("t") } else { status(401) }).await;
    let error = Imds::new(service.address).identity().await.expect_err("refused");
    assert!(matches!(error, ImdsError::Refused { status: 401, .. }), "{error}");
    assert_eq!(service.asked().len(), 2, "not asked on and on");
    let service = Service::start(|_| status(403)).await;
    let error = Imds::new(service.address).identity().await.expect_err("switched off");
    assert!(matches!(error, ImdsError::Refused { status: 403, .. }) && !error.is_retryable(), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("HttpEndpoint: enabled")), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let service = Service::start(|_| None).await;
    let error = Imds::new(service.address).identity().await.expect_err("silent");
    assert!(matches!(error, ImdsError::Timeout { .. }) && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_token_that_would_break_the_next_request_is_refused() {
    let service = Service::start(|_| token("a\r\nb")).await;
    let error = Imds::new(service.address).identity().await.expect_err("refused");
    assert!(matches!(error, ImdsError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn a_value_that_is_no_id_is_named() {
    let service =
        Service::start(|head| if head.contains("instance-id") { ok("not an id") } else { instance(head) })
            .await;
    let error = Imds::new(service.address).identity().await.expect_err("refused");
    assert_eq!(error.to_string(), "the metadata service's instance-id");
}
