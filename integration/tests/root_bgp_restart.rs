// SPDX-License-Identifier: Apache-2.0
//! `rhumb-bgp` is killed and comes back (RFC 4724): the peer keeps its routes, the kernel keeps ours, and no packet of
//! running streams is lost; also with BFD, where the peer is set up for both.

mod peers;

use std::net::IpAddr;

use peers::{Bird, Frr, Monitor, Net, Peer, Snapshot, Speaker, bfd, until};
use rhumb_integration::lab::Stream;
use serde_json::json;

/// How BIRD has to be told of both.
const GRACEFUL: &str = "graceful restart on; bfd graceful;";

/// From the client to the pod.
const POD: [&str; 2] = ["10.100.1.2", "fd00:100:1::2"];
const OURS: [&str; 2] = ["10.100.1.0/24", "fd00:100:1::/64"];
const THEIRS: [&str; 2] = ["10.200.1.0/24", "fd00:200:1::/64"];

fn snapshot() -> Snapshot {
    Snapshot::pair(|peer| {
        peer["graceful_restart"] = json!({ "restart_time": 120 });
    })
}

/// With BFD that notices silence in `interval` times three.
fn with_bfd(interval: u32) -> Snapshot {
    let mut snapshot = snapshot();
    let peer = &mut snapshot.0["instances"][0]["peers"][0];
    peer["bfd"] = bfd();
    (peer["bfd"]["transmit_ms"], peer["bfd"]["receive_ms"]) = (interval.into(), interval.into());
    snapshot
}

/// When the speaker is there again.
#[derive(PartialEq)]
enum Back {
    /// After the peer has noticed.
    Late,
    /// Before it can.
    AtOnce,
}

/// Both kernels have routes of both families.
fn forwards(net: &Net, speaker: &Speaker<'_>) {
    for prefix in THEIRS {
        until("our kernel has the peer's route", || speaker.learned(prefix).is_some());
    }
    for prefix in OURS {
        until("the peer's kernel has ours", || net.kernel_route("b", "main", prefix).is_some());
    }
}

fn killed_and_back(net: &Net, peer: &impl Peer, snapshot: &Snapshot, back: Back) {
    let mut speaker = Speaker::start(net, "a", snapshot);
    until("the session is established", || peer.is_established());
    forwards(net, &speaker);
    let watches = snapshot.0["instances"][0]["peers"][0]["bfd"].is_object();
    if watches {
        until("BFD is up", || speaker.peer("tor")["bfd"] == "up");
    }
    until("End-of-RIB is heard", || {
        let families = speaker.peer("tor")["families"].clone();
        families.as_array().is_some_and(|all| all.len() == 2 && all.iter().all(|it| it["end_of_rib"] == true))
    });
    let streams = POD.map(|pod| {
        let pod: IpAddr = pod.parse().expect("valid");
        Stream::start(net.namespace("client"), net.namespace("pod"), pod).expect("connected")
    });
    let monitors = ["a", "b"].map(|namespace| Monitor::start(net, namespace));

    assert!(speaker.has_saved(), "it is no matter of time");
    speaker.daemon.kill();
    if back == Back::Late {
        until("the peer notices", || !peer.is_established());
    }
    for prefix in OURS {
        assert!(peer.route(prefix).is_some(), "{prefix} is kept");
    }
    speaker.restart();
    until("the session is established again", || peer.is_established());
    forwards(net, &speaker);
    until("nothing is stale", || {
        let families = speaker.peer("tor")["families"].clone();
        families.as_array().is_some_and(|all| {
            all.len() == 2 && all.iter().all(|it| it["end_of_rib"] == true && it["stale"] == 0)
        })
    });

    for stream in streams {
        let report = stream.stop().expect("the stream holds");
        assert!(report.chunks > 0);
        report.nothing_lost().expect("no packet is lost");
    }
    for (monitor, prefixes) in monitors.iter().zip([THEIRS, OURS]) {
        for prefix in prefixes {
            assert!(monitor.removed(prefix).is_none(), "{prefix} was removed from a kernel");
        }
    }
}

#[test]
fn bird_keeps_our_routes_while_we_are_away() {
    let net = Net::pair_with_hosts();
    killed_and_back(&net, &Bird::pair(&net, "graceful restart on;"), &snapshot(), Back::Late);
}

#[test]
fn frr_keeps_our_routes_while_we_are_away() {
    let net = Net::pair_with_hosts();
    killed_and_back(&net, &Frr::pair(&net, &[]), &snapshot(), Back::Late);
}

#[test]
fn bird_with_bfd_keeps_our_routes_when_bfd_is_graceful() {
    let net = Net::pair_with_hosts();
    killed_and_back(&net, &Bird::pair(&net, GRACEFUL), &with_bfd(50), Back::Late);
}

#[test]
fn bird_with_bfd_keeps_our_routes_when_we_are_back_before_it_notices() {
    let net = Net::pair_with_hosts();
    killed_and_back(&net, &Bird::pair(&net, GRACEFUL), &with_bfd(1000), Back::AtOnce);
}

#[test]
fn frr_with_bfd_keeps_our_routes_when_it_heeds_the_c_bit() {
    let net = Net::pair_with_hosts();
    let lines = ["{} bfd 3 50 50", "{} bfd check-control-plane-failure"];
    killed_and_back(&net, &Frr::pair(&net, &lines), &with_bfd(50), Back::Late);
}

#[test]
fn frr_with_bfd_keeps_our_routes_when_we_are_back_before_it_notices() {
    let net = Net::pair_with_hosts();
    let lines = ["{} bfd 3 1000 1000", "{} bfd check-control-plane-failure"];
    killed_and_back(&net, &Frr::pair(&net, &lines), &with_bfd(1000), Back::AtOnce);
}

#[test]
fn a_peer_without_the_bfd_that_we_have_is_kept_waiting_for_a_moment_only() {
    let net = Net::pair_with_hosts();
    let bird = Bird::pair(&net, "graceful restart on;");
    let snapshot = with_bfd(50);
    let mut speaker = Speaker::start(&net, "a", &snapshot);
    until("the session is established", || bird.is_established());
    speaker.daemon.kill();
    until("the peer notices", || !bird.is_established());
    speaker.restart();
    until("the session is established again", || bird.is_established());
}
