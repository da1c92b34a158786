// SPDX-License-Identifier: Apache-2.0
//! BFD beside sessions with BIRD and FRR: a path that goes silent takes the routes with it within the detection time,
//! and a session that is to wait for BFD waits.

mod peers;

use std::time::{Duration, Instant};

use peers::{Bird, Frr, MS, Monitor, Net, Peer, Snapshot, Speaker, bfd, until, within};
use serde_json::json;

const THEIRS: &str = "10.200.1.0/24";

/// Three packets of 50 ms, and what a busy machine may add.
const NOTICED: Duration = Duration::from_millis(150 + 150);

fn snapshot() -> Snapshot {
    Snapshot::pair(|peer| peer["bfd"] = bfd())
}

fn silence_is_noticed(net: &Net, peer: &impl Peer) {
    let speaker = Speaker::start(net, "a", &snapshot());
    until("the session is established", || peer.is_established());
    until("BFD is up", || speaker.peer("tor")["bfd"] == "up");
    until("the kernel has the peer's route", || speaker.learned(THEIRS).is_some());
    let monitor = Monitor::start(net, "a");

    net.mute("b");
    let begin = Instant::now();
    until("the route goes", || monitor.removed(THEIRS).is_some());
    let took = monitor.removed(THEIRS).expect("it went").saturating_duration_since(begin);
    assert!(took <= NOTICED, "the route went after {took:?}");

    net.unmute("b");
    until("the session is back", || peer.is_established());
    until("the route is back", || speaker.learned(THEIRS).is_some());
}

#[test]
fn silence_of_bird_is_noticed() {
    let net = Net::pair();
    silence_is_noticed(&net, &Bird::pair(&net, "bfd on;"));
}

#[test]
fn silence_of_frr_is_noticed() {
    let net = Net::pair();
    silence_is_noticed(&net, &Frr::pair(&net, &["{} bfd 3 50 50"]));
}

#[test]
fn a_session_that_waits_for_bfd_is_not_tried_before() {
    let net = Net::pair();
    // BIRD waits to be connected to, and speaks BFD only when it is told so.
    let quiet = Bird::pair_config("passive on;");
    let bird = Bird::start(&net, "b", "p1", &quiet);
    let mut snapshot = snapshot();
    snapshot.0["instances"][0]["peers"][0]["bfd"]["hold"] = true.into();
    let speaker = Speaker::start(&net, "a", &snapshot);
    assert!(!within(MS * 3000, || bird.is_established()), "nobody has spoken BFD");
    assert_eq!(speaker.peer("tor")["bfd"], "down");
    let watch = "protocol bfd { neighbor 10.99.0.1 dev \"vb\" local 10.99.0.2;";
    bird.configure(&net, "b", &quiet.replace("protocol bfd {", watch));
    until("the session is established", || bird.is_established());
    assert_eq!(speaker.peer("tor")["bfd"], "up");
}

/// What becomes of FRR's routes when its bgpd is killed, and its bfdd says that the session is over.
fn bgpd_is_killed(lines: &[&str], check: impl FnOnce(&Speaker<'_>, &Monitor)) {
    let net = Net::pair();
    let graceful = [&["bgp graceful-restart", "{} bfd 3 50 50"], lines].concat();
    let mut frr = Frr::pair(&net, &graceful);
    let snapshot = Snapshot::pair(|peer| {
        peer["bfd"] = bfd();
        peer["graceful_restart"] = json!({ "restart_time": 120 });
    });
    let speaker = Speaker::start(&net, "a", &snapshot);
    until("the session is established", || frr.is_established());
    until("BFD is up", || speaker.peer("tor")["bfd"] == "up");
    until("the kernel has the peer's route", || speaker.learned(THEIRS).is_some());
    let monitor = Monitor::start(&net, "a");
    frr.kill("bgpd");
    until("BFD is over", || speaker.peer("tor")["bfd"] != "up");
    check(&speaker, &monitor);
}

#[test]
fn the_routes_of_frr_stay_while_its_bgpd_is_away() {
    bgpd_is_killed(&[], |speaker, monitor| {
        until("its restart is seen", || speaker.peer("tor")["restarting"] == true);
        // A route that goes with BFD goes within milliseconds.
        assert!(!within(MS * 500, || monitor.removed(THEIRS).is_some()));
    });
}

#[test]
fn the_routes_of_frr_that_sets_the_c_bit_go_with_its_bgpd() {
    bgpd_is_killed(&["{} bfd check-control-plane-failure"], |speaker, monitor| {
        until("the route goes", || monitor.removed(THEIRS).is_some());
        assert_eq!(speaker.peer("tor")["restarting"], false);
        let said = speaker.daemon.said();
        assert!(said.contains("fate=Independent"), "{said}");
    });
}
