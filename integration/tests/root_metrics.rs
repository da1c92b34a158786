// SPDX-License-Identifier: Apache-2.0
//! Metrics as Prometheus sees them: over HTTP, in its format to the letter, and the same as `rhumb metrics` shows.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rhumb_integration::lab::{AgentOptions, Lab, Node, Spec};
use serde_json::Value;

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7268);
const PATIENCE: Duration = Duration::from_secs(10);

type Labels = BTreeMap<String, String>;

/// What a scraper makes of the text.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

/// Reads the text format 0.0.4, and refuses what its description does not allow.
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line has an end");
    let mut scrape = Scrape::default();
    let mut done = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            assert!(is_name(name, ":"), "{line}");
            assert!(scrape.helps.insert(name.to_owned(), help.to_owned()).is_none(), "told twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "told twice: {line}");
            assert!(done.insert(name.to_owned()), "samples of {name} are not together");
            name.clone_into(&mut current);
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(name, current, "a sample outside of its metric: {line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(scrape.samples.insert((name, labels), value).is_none(), "told twice: {line}");
        }
    }
    scrape
}

fn sample(line: &str) -> (String, Labels, &str) {
    let end = line.find(['{', ' ']).expect("a name has an end");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, ":"), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label has a value");
            assert!(is_name(label, "") && !label.starts_with("__"), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after;
            match rest.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("neither comma nor end: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("a blank before the value");
    assert!(!value.contains(' '), "{line}");
    (name.to_owned(), labels, value)
}

fn is_name(name: &str, more: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The value up to its closing quote, and what is behind that.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, c @ ('"' | '\\'))) => c,
                other => panic!("unknown escape {other:?}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

/// Status, header and body of an answer.
fn http(node: &Node, to: SocketAddr, request: &str) -> (u16, String, String) {
    let text = node
        .namespace()
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
        .expect("answered");
    let (header, body) = text.split_once("\r\n\r\n").expect("a header");
    let status = header.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, header.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn a_scraper_and_the_command_line_see_the_same() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("scrape") }).expect("the lab is built");
    lab.start().expect("started");
    let node = lab.node(0);
    let [a, b] = ["a", "b"].map(|name| node.add_pod("default", name).expect("added"));
    a.namespace
        .run(|| {
            let socket = UdpSocket::bind((a.v4(), 0))?;
            socket.send_to(b"hello", (b.v4(), 9))?;
            socket.set_multicast_ttl_v4(1)?;
            socket.send_to(b"hello", ("224.0.0.251", 9))?;
            Ok(())
        })
        .expect("sent");
    let (status, header, body) = http(node, DEFAULT, "GET /metrics");
    assert_eq!(status, 200);
    assert!(header.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{header}");
    let scrape = parse(&body);

    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let key = (name.to_owned(), labels);
        *scrape.samples.get(&key).unwrap_or_else(|| panic!("no {key:?} in {body}"))
    };
    assert!(value("rhumb_drop_count_total", &[("direction", "from_pod"), ("reason", "multicast")]) >= 1.0);
    assert!(
        value("rhumb_forward_count_total", &[("direction", "from_pod"), ("reason", "forwarded_local")])
            >= 1.0
    );
    assert_eq!(value("rhumb_bpf_map_entries", &[("map", "pods")]), 4.0);
    assert_eq!(value("rhumb_bpf_map_capacity", &[("map", "pods")]), 65536.0);
    assert_eq!(value("rhumb_bpf_map_pressure", &[("map", "pods")]), 4.0 / 65536.0);
    assert_eq!(value("rhumb_attachments", &[]), 2.0);
    assert_eq!(value("rhumb_agent_ready", &[]), 1.0);
    assert_eq!(value("rhumb_reconcile_failing", &[("target", "link")]), 0.0);
    assert_eq!(value("rhumb_reconcile_objects", &[("target", "link")]), 2.0);
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(value(name, &[]) > 0.0, "{name}");
    }
    assert!(scrape.helps["rhumb_drop_count_total"].contains(" source_address: The pod used"));
    assert_eq!(scrape.kinds.keys().collect::<Vec<_>>(), scrape.helps.keys().collect::<Vec<_>>());

    let shown = node.show("metrics").expect("shown");
    let shown: BTreeSet<(String, Labels)> = shown.as_array().expect("a list").iter().map(named).collect();
    // Counters of other packets may have begun in between; nothing that was there is gone.
    let missing: Vec<_> = scrape.samples.keys().filter(|key| !shown.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let known = |name: &String| scrape.kinds.contains_key(name) || name.starts_with("rhumb_event_lost");
    assert!(shown.iter().all(|(name, _)| known(name)), "{shown:?}");

    assert_eq!(http(node, DEFAULT, "GET /").0, 404);
    assert_eq!(http(node, DEFAULT, "POST /metrics").0, 405);
    assert_eq!(http(node, DEFAULT, "HEAD /metrics").2, "");
    lab.close().expect("closed");
}

fn named(sample: &Value) -> (String, Labels) {
    let labels = serde_json::from_value::<Vec<(String, String)>>(sample["labels"].clone()).expect("pairs");
    (sample["name"].as_str().expect("a name").to_owned(), labels.into_iter().collect())
}

#[test]
fn metrics_can_be_elsewhere_or_nowhere() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("where") }).expect("the lab is built");
    lab.start().expect("started");
    let closed = |node: &Node, to: SocketAddr| {
        node.namespace().run(|| Ok(TcpStream::connect_timeout(&to, PATIENCE).is_err())).expect("tried")
    };
    let elsewhere = SocketAddr::new(lab.node(0).addresses[1], 9000);
    for (flag, open, shut) in
        [(elsewhere.to_string(), Some(elsewhere), DEFAULT), (String::new(), None, DEFAULT)]
    {
        let node = lab.node_mut(0);
        node.stop_agent().expect("stopped");
        let options =
            AgentOptions { args: vec![format!("--metrics-address={flag}")], ..AgentOptions::default() };
        node.start_agent_with(options).expect("started");
        if let Some(open) = open {
            parse(&http(node, open, "GET /metrics").2);
        }
        assert!(closed(node, shut), "{flag}");
    }
    lab.close().expect("closed");
}

/// As many connections as are served at a time.
const AT_ONCE: usize = 8;

#[test]
fn connections_that_ask_nothing_keep_no_scraper_out() {
    let mut lab = Lab::build(Spec { nodes: 1, ..Spec::named("slow") }).expect("the lab is built");
    lab.start().expect("started");
    let node = lab.node(0);
    let silent = || {
        let mut stream = TcpStream::connect_timeout(&DEFAULT, PATIENCE)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: no")?;
        Ok(stream)
    };
    let held: Vec<TcpStream> =
        (0..AT_ONCE).map(|_| node.namespace().run(silent).expect("connected")).collect();
    // Answered once their time is over: sooner than a client gives up.
    assert_eq!(http(node, DEFAULT, "GET /metrics").0, 200);
    for mut stream in held {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok(), "hung up on");
    }
    lab.close().expect("closed");
}
