// SPDX-License-Identifier: Apache-2.0
//! The servers over loopback: what a lab does with them.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_cloud_fake::server::{Handle, Listen, Pace, Servers};
use rhumb_cloud_fake::{Config, Limits, Things};
use rhumb_model::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

async fn start() -> Servers {
    let world: Things = serde_json::from_value(json!({
        "vpcs": [{ "id": "vpc-1", "cidrs": ["10.0.0.0/16"] }],
        "subnets": [{ "id": "subnet-1", "vpc": "vpc-1", "zone": "eu-central-1a", "cidr": "10.0.0.0/24" }],
    }))
    .expect("a world");
    let config = Config { world, limits: Limits::none(), ..Config::default() };
    let handle = Handle::new(config.build(Timestamp(1_000)).expect("a double"));
    Servers::start(handle, Listen::loopback()).await.expect("listening")
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

/// One request on a connection of its own; `None` when it ends without a reply.
async fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Reply> {
    let mut stream = TcpStream::connect(to).await.expect("connects");
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

async fn control(servers: &Servers, method: &str, path: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = ask(servers.control(), method, path, &[], &body).await.expect("a reply");
    assert_eq!(reply.status, 200, "{method} {path}: {}", reply.body);
    serde_json::from_str(&reply.body).expect("JSON")
}

async fn launch(servers: &Servers) -> String {
    let made =
        control(servers, "POST", "/instances", json!({ "kind": "m5.large", "subnet": "subnet-1" })).await;
    control(servers, "POST", "/clock", json!({ "advance": 60_000 })).await;
    made["instances"][0].as_str().expect("an id").to_owned()
}

async fn ec2(servers: &Servers, query: &str) -> Option<Reply> {
    ask(servers.ec2(), "POST", "/", &[], &format!("Version=2016-11-15&{query}")).await
}

fn inside<'a>(xml: &'a str, name: &str) -> &'a str {
    let from = xml.split_once(&format!("<{name}>")).expect("the element is there").1;
    from.split_once('<').expect("it ends").0
}

#[tokio::test]
async fn hooks_are_told_to_who_comes_early_and_to_who_comes_late() {
    let servers = start().await;
    let early = TcpStream::connect(servers.hooks()).await.expect("connects");
    let instance = launch(&servers).await;
    let made = ec2(&servers, "Action=CreateNetworkInterface&SubnetId=subnet-1").await.expect("a reply").body;
    let (eni, mac) = (inside(&made, "networkInterfaceId"), inside(&made, "macAddress"));
    let attach =
        format!("Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex=1");
    assert_eq!(ec2(&servers, &attach).await.expect("a reply").status, 200);
    // The clock runs a thousand times as fast, and nobody asks: the hook comes in its time by itself.
    servers.handle().pace(Pace::Running(1_000.0));
    let late = TcpStream::connect(servers.hooks()).await.expect("connects");
    for stream in [early, late] {
        let mut lines = BufReader::new(stream).lines();
        for index in 0..2 {
            let line =
                tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("in time");
            let hook: Value = serde_json::from_str(&line.expect("reads").expect("a line")).expect("JSON");
            assert_eq!((&hook["event"], &hook["deviceIndex"]), (&json!("attached"), &json!(index)));
            assert_eq!(hook["instance"], json!(instance));
            if index == 1 {
                assert_eq!((hook["mac"].as_str(), hook["interface"].as_str()), (Some(mac), Some(eni)));
            }
        }
    }
}

#[tokio::test]
async fn metadata_need_a_token_whose_reply_says_how_long_it_lives() {
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    let servers = start().await;
    let instance = launch(&servers).await;
    let path = format!("/instances/{instance}/imds");
    let listens = control(&servers, "POST", &path, json!({ "listen": "127.0.0.1:0" })).await;
    let imds: SocketAddr = listens["address"].as_str().expect("an address").parse().expect("an address");
    let get = |token: &'static str| async move {
        let headers = [("x-aws-ec2-metadata-token", token)];
        ask(imds, "GET", "/latest/meta-data/instance-id", &headers, "").await.expect("a reply")
    };
    assert_eq!(get("").await.status, 401);
    assert_eq!(ask(imds, "PUT", "/latest/api/token", &[], "").await.expect("a reply").status, 400);
    let token = ask(imds, "PUT", "/latest/api/token", &[(TTL, "60")], "").await.expect("a reply");
    assert!(token.head.contains(&format!("{TTL}: 60")), "{}", token.head);
    let token: &'static str = token.body.leak();
    assert_eq!(get(token).await.body, instance);
    control(&servers, "POST", "/clock", json!({ "advance": 60_000 })).await;
    assert_eq!(get(token).await.status, 401, "a minute later it is over");
    assert_eq!(control(&servers, "GET", "/imds", Value::Null).await[&instance], listens["address"]);
}

#[tokio::test]
async fn what_a_lab_asks_of_the_control_endpoint_is_done() {
    let servers = start().await;
    let instance = launch(&servers).await;
    let state = control(&servers, "GET", "/state", Value::Null).await;
    assert_eq!(state["instances"][0]["state"], "running");
    assert_eq!(state["interfaces"][0]["attachment"]["instance"], json!(instance));
    let address = state["interfaces"][0]["primary"].clone();
    let done = control(&servers, "POST", "/subnets/subnet-1/fragment", json!({ "count": 3 })).await;
    assert_eq!(done["count"], 3);
    assert_eq!(control(&servers, "POST", "/subnets/subnet-1/defragment", Value::Null).await["count"], 3);
    let claim = json!({ "vpc": "vpc-1", "address": address, "pod": "a", "instance": instance });
    control(&servers, "POST", "/claims", claim.clone()).await;
    assert_eq!(control(&servers, "GET", "/violations", Value::Null).await, json!([]));
    control(&servers, "DELETE", "/claims", claim).await;
    let claim = json!({ "vpc": "vpc-1", "address": "10.0.0.250", "pod": "a", "instance": "i-1" });
    control(&servers, "POST", "/claims", claim).await;
    assert_eq!(control(&servers, "GET", "/violations", Value::Null).await[0]["rule"], "notHeld");
    control(&servers, "PUT", "/settings", json!({ "attach": [5, 5] })).await;
    servers.handle().with(|fake, _| assert_eq!(fake.world().settings().attach, rhumb_cloud_fake::Span(5, 5)));
    control(&servers, "DELETE", &format!("/instances/{instance}"), Value::Null).await;
    control(&servers, "POST", "/clock", json!({ "advance": 60_000 })).await;
    let state = control(&servers, "GET", "/state", Value::Null).await;
    assert_eq!((&state["instances"][0]["state"], &state["interfaces"]), (&json!("terminated"), &json!([])));
    for (method, path, status) in
        [("GET", "/nothing", 404), ("POST", "/faults", 400), ("DELETE", "/instances/x", 400)]
    {
        let reply = ask(servers.control(), method, path, &[], "").await.expect("a reply");
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_call_may_be_cut_slow_or_garbled() {
    let servers = start().await;
    let fault = |fault: Value| json!({ "action": "DescribeVpcs", "times": 1, "fault": fault });
    control(&servers, "POST", "/faults", fault(json!({ "kind": "lostCall" }))).await;
    assert!(ec2(&servers, "Action=DescribeVpcs").await.is_none(), "the connection ends");
    control(&servers, "POST", "/faults", fault(json!({ "kind": "garbage", "status": 502 }))).await;
    let garbled = ec2(&servers, "Action=DescribeVpcs").await.expect("a reply");
    assert!(garbled.status == 502 && garbled.body.starts_with("<html>"), "{}", garbled.body);
    control(&servers, "POST", "/faults", fault(json!({ "kind": "slow", "millis": 5_000 }))).await;
    let slow = ec2(&servers, "Action=DescribeVpcs");
    tokio::pin!(slow);
    tokio::select! {
        _ = &mut slow => panic!("the clock stands"),
        () = async {
            while control(&servers, "GET", "/calls", Value::Null).await["actions"]["DescribeVpcs"]["calls"] != json!(3) {}
        } => {}
    }
    control(&servers, "POST", "/clock", json!({ "advance": 5_000 })).await;
    assert_eq!(slow.await.expect("a reply").status, 200);
    let unknown = ec2(&servers, "Action=DescribeMoon").await.expect("a reply");
    assert!(unknown.status == 400 && unknown.body.contains("<Code>InvalidAction</Code>"), "{}", unknown.body);
    assert!(unknown.head.contains("x-amzn-requestid: "), "{}", unknown.head);
}
