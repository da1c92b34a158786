// SPDX-License-Identifier: Apache-2.0
//! `rhumb-bgp` with each of the other speakers: a session that is signed, ASes of four octets, routes of both families
//! both ways with their communities, everything again when asked, and a withdrawal.

mod peers;

use peers::{Bird, Exabgp, Frr, Gobgp, Net, Openbgpd, Peer, Snapshot, Speaker, has, until};
use serde_json::{Value, json};

const OURS: [&str; 2] = ["10.100.1.0/24", "fd00:100:1::/64"];
const THEIRS: [&str; 2] = ["10.200.1.0/24", "fd00:200:1::/64"];

fn speaks_with(net: &Net, peer: &impl Peer, snapshot: &Snapshot) {
    let mut speaker = Speaker::start(net, "a", snapshot);
    until("the session is established", || peer.is_established());
    for prefix in OURS {
        until("the peer has our route and what is on it", || {
            peer.route(prefix).is_some_and(|route| has(&route, "65001:100", "4200000001:1:2"))
        });
    }
    for prefix in THEIRS {
        // The import policy takes only what has both communities.
        until("we have the peer's route", || speaker.best(prefix).is_some());
        until("the kernel has it", || speaker.learned(prefix).is_some());
    }
    let before = peer.told();
    if peer.ask_again() {
        until("the peer is told all again", || peer.told() > before);
        for prefix in OURS {
            assert!(peer.route(prefix).is_some(), "{prefix} is still there");
        }
    }
    assert!(peer.is_established());
    speaker.daemon.terminate();
    until("our routes are withdrawn with the session", || {
        OURS.iter().all(|prefix| peer.route(prefix).is_none())
    });
}

fn pair() -> Snapshot {
    Snapshot::pair(|_| {})
}

#[test]
fn bird() {
    let net = Net::pair();
    speaks_with(&net, &Bird::pair(&net, ""), &pair());
}

#[test]
fn frr() {
    let net = Net::pair();
    speaks_with(&net, &Frr::pair(&net, &[]), &pair());
}

#[test]
fn gobgp() {
    let net = Net::pair();
    speaks_with(&net, &Gobgp::pair(&net), &pair());
}

#[test]
fn openbgpd_with_a_session_for_each_family() {
    let net = Net::pair();
    let mut snapshot = Snapshot::pair(|peer| drop_family(peer, "ipv6"));
    let mut v6 = snapshot.0["instances"][0]["peers"][0].clone();
    v6["key"] = "tor6".into();
    v6["address"] = json!({ "ip": "fd99::2" });
    v6["families"] = Snapshot::pair(|_| {}).0["instances"][0]["peers"][0]["families"].clone();
    drop_family(&mut v6, "ipv4");
    snapshot.add_peer(v6);
    speaks_with(&net, &Openbgpd::pair(&net), &snapshot);
}

#[test]
fn exabgp() {
    let net = Net::pair();
    speaks_with(&net, &Exabgp::pair(&net), &pair());
}

fn drop_family(peer: &mut Value, family: &str) {
    let families = peer["families"].as_array_mut().expect("a list");
    families.retain(|config| config["family"] != family);
}
