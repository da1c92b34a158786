// SPDX-License-Identifier: Apache-2.0
//! BFD with BIRD and FRR at the other end, on the real kernel: over one hop in both families, by link-local address and
//! over several hops; up, down within the detection time, up again, and held down by either end.

mod lab;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::{Lab, MS, Speaker, until};
use rhumb_bfd::{Change, Diagnostic, Fate, Hops, SessionKey, State};

/// The interval of both ends, and what one of three that are missing means.
const INTERVAL: Duration = Duration::from_millis(50);
const DETECTION: Duration = Duration::from_millis(150);

/// What a busy machine may add.
const MARGIN: Duration = Duration::from_millis(100);

fn key(peer: &str, interface: Option<&str>, hops: Hops) -> SessionKey {
    let peer: IpAddr = peer.parse().expect("valid");
    let local = match hops {
        Hops::Single => None,
        Hops::Multi => Some(if peer.is_ipv4() { "10.98.0.1" } else { "fd98::1" }.parse().expect("valid")),
    };
    SessionKey { peer, local, interface: interface.map(|name| name.parse().expect("valid")), hops }
}

/// One session of each sort.
fn keys() -> [SessionKey; 5] {
    [
        key("10.99.0.2", None, Hops::Single),
        key("fd99::2", Some("va"), Hops::Single),
        key("fe80::b", Some("va"), Hops::Single),
        key("10.98.0.2", None, Hops::Multi),
        key("fd98::2", None, Hops::Multi),
    ]
}

/// Addresses behind the link, for the sessions over several hops.
fn far_addresses(lab: &Lab) {
    for (side, own, other) in [("a", 1, 2), ("b", 2, 1)] {
        lab.ip_in(side, &format!("addr add 10.98.0.{own}/32 dev lo"));
        lab.ip_in(side, &format!("addr add fd98::{own}/128 dev lo nodad"));
        lab.ip_in(side, &format!("route add 10.98.0.{other}/32 via 10.99.0.{other}"));
        lab.ip_in(side, &format!("-6 route add fd98::{other}/128 via fd99::{other}"));
    }
}

fn bird_with_all(lab: &mut Lab) {
    lab.bird(
        r#"protocol bfd bfd1 {
            interface "vb" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; };
            multihop { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; };
            neighbor 10.99.0.1 dev "vb" local 10.99.0.2;
            neighbor fd99::1 dev "vb" local fd99::2;
            neighbor fe80::a dev "vb" local fe80::b;
            neighbor 10.98.0.1 local 10.98.0.2 multihop on;
            neighbor fd98::1 local fd98::2 multihop on;
        }"#,
    );
}

fn frr_with_all(lab: &mut Lab) {
    let times = "transmit-interval 50\n receive-interval 50\n detect-multiplier 3\n no shutdown\n";
    let peers = [
        "10.99.0.1 interface vb",
        "fd99::1 local-address fd99::2 interface vb",
        "fe80::a local-address fe80::b interface vb",
        "10.98.0.1 multihop local-address 10.98.0.2",
        "fd98::1 multihop local-address fd98::2",
    ];
    let peers: String = peers.iter().map(|peer| format!(" peer {peer}\n {times}")).collect();
    lab.frr(&format!("bfd\n{peers}"));
}

/// Waits until every session said `change` once.
fn all_say(speaker: &Speaker, keys: &[SessionKey], change: Change) {
    let mut waiting = keys.to_vec();
    while !waiting.is_empty() {
        let (key, seen) = speaker.next();
        assert_eq!(seen, change, "{key}");
        let before = waiting.len();
        waiting.retain(|waiting| *waiting != key);
        assert_ne!(waiting.len(), before, "{key} says it again");
    }
}

/// Up, silent within the detection time when the other side is muted, and up again.
fn rises_falls_and_rises(lab: &Lab, speaker: &Speaker) {
    let keys = keys();
    for key in &keys {
        speaker.add(key, INTERVAL);
    }
    all_say(speaker, &keys, Change::Up);
    speaker.quiet_for(DETECTION * 4);
    until("all timers are agreed", || {
        let reports = speaker.report();
        reports.len() == 5
            && reports.iter().all(|report| {
                (report.state, report.remote_state) == (State::Up, State::Up)
                    && report.transmit_interval == Some(INTERVAL)
                    && report.detection_time == Some(DETECTION)
                    // Neither BIRD nor FRR, as it is set up here, sets the C bit.
                    && report.remote_fate == Fate::Shared
            })
    });

    lab.mute("b");
    let begin = Instant::now();
    all_say(speaker, &keys, Change::Down(Diagnostic::DETECTION_TIME_EXPIRED));
    let took = begin.elapsed();
    assert!(took <= DETECTION + MARGIN, "the silence was noticed after {took:?}");

    lab.unmute("b");
    all_say(speaker, &keys, Change::Up);

    // The other way round, the other end says that it hears nothing.
    lab.mute("a");
    let begin = Instant::now();
    all_say(speaker, &keys, Change::Down(Diagnostic::NEIGHBOUR_SIGNALED_DOWN));
    let took = begin.elapsed();
    assert!(took <= DETECTION + MARGIN, "the other end's word came after {took:?}");
    lab.unmute("a");
    all_say(speaker, &keys, Change::Up);
}

#[test]
fn bird_is_watched_in_every_way_and_watches_us() {
    let mut lab = Lab::new();
    far_addresses(&lab);
    bird_with_all(&mut lab);
    let speaker = lab.bfd();
    rises_falls_and_rises(&lab, &speaker);
    assert_eq!(lab.birdc("show bfd sessions").matches(" Up ").count(), 5);
}

#[test]
fn frr_is_watched_in_every_way_and_watches_us() {
    let mut lab = Lab::new();
    far_addresses(&lab);
    frr_with_all(&mut lab);
    let speaker = lab.bfd();
    rises_falls_and_rises(&lab, &speaker);
    assert_eq!(lab.vtysh(&["show bfd peers brief"]).matches(" up ").count(), 5);
}

#[test]
fn frr_that_is_shut_down_says_that_nothing_failed() {
    let mut lab = Lab::new();
    lab.frr("bfd\n peer 10.99.0.1 interface vb\n transmit-interval 50\n receive-interval 50\n no shutdown\n");
    let speaker = lab.bfd();
    let key = key("10.99.0.2", None, Hops::Single);
    speaker.add(&key, INTERVAL);
    assert_eq!(speaker.next(), (key.clone(), Change::Up));
    let peer = ["configure terminal", "bfd", "peer 10.99.0.1 interface vb"];
    lab.vtysh(&[&peer[..], &["shutdown"]].concat());
    assert_eq!(speaker.next(), (key.clone(), Change::AdminDown));
    lab.vtysh(&[&peer[..], &["no shutdown"]].concat());
    assert_eq!(speaker.next(), (key, Change::Up));
}

#[test]
fn a_session_that_we_leave_is_down_by_will_and_not_by_silence() {
    let mut lab = Lab::new();
    lab.frr("bfd\n peer 10.99.0.1 interface vb\n transmit-interval 50\n receive-interval 50\n no shutdown\n");
    let speaker = lab.bfd();
    let key = key("10.99.0.2", Some("va"), Hops::Single);
    let why = |lab: &Lab| {
        let told = lab.vtysh(&["show bfd peers"]);
        let line = told.lines().find_map(|line| line.trim().strip_prefix("Diagnostics: ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no diagnostics in {told}"))
    };
    for _ in 0..2 {
        speaker.add(&key, INTERVAL);
        assert_eq!(speaker.next(), (key.clone(), Change::Up));
        speaker.bfd.remove(&key);
        assert_eq!(speaker.report(), []);
        until("FRR hears of it", || why(&lab) == "neighbor signaled session down");
        speaker.quiet_for(DETECTION);
    }
    speaker.add(&key, INTERVAL);
    assert_eq!(speaker.next(), (key, Change::Up));
    drop(speaker);
    until("FRR hears of the end", || why(&lab) == "neighbor signaled session down");
}

#[test]
fn other_timers_are_agreed_while_the_session_stays_up() {
    let mut lab = Lab::new();
    bird_with_all(&mut lab);
    let speaker = lab.bfd();
    let key = key("10.99.0.2", Some("va"), Hops::Single);
    speaker.add(&key, INTERVAL);
    assert_eq!(speaker.next(), (key.clone(), Change::Up));
    for interval in [MS * 200, MS * 20, MS * 300] {
        speaker.add(&key, interval);
        let slower = interval.max(INTERVAL);
        until("the timers are agreed", || {
            let report = &speaker.report()[0];
            (report.transmit_interval, report.detection_time) == (Some(slower), Some(slower * 3))
        });
    }
    speaker.quiet_for(MS * 900);
}

#[test]
fn a_link_that_is_made_anew_is_watched_again() {
    let mut lab = Lab::new();
    bird_with_all(&mut lab);
    let speaker = lab.bfd();
    let key = key("fe80::b", Some("va"), Hops::Single);
    speaker.add(&key, INTERVAL);
    assert_eq!(speaker.next(), (key.clone(), Change::Up));
    lab.unlink();
    assert_eq!(speaker.next(), (key.clone(), Change::Down(Diagnostic::DETECTION_TIME_EXPIRED)));
    lab.link();
    assert_eq!(speaker.next(), (key, Change::Up));
}
