// SPDX-License-Identifier: Apache-2.0
//! Both sides connect at once (RFC 4271 §6.8): BIRD and FRR, with the higher and with the lower identifier. What either
//! side says is held back until both connections are there and all four OPENs are on their way; one session comes of
//! it, on the connection that the higher side has made, and it stays.

mod peers;

use std::time::Duration;

use peers::{Bird, Frr, Net, Peer, Snapshot, Speaker, until, within};
use serde_json::Value;

/// Long enough for a session that two connections would end to have ended.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Who has the higher identifier, and so the connection that stays. The peer's is 10.99.0.2.
#[derive(Clone, Copy, PartialEq)]
enum Higher {
    We,
    They,
}

/// Connections, by who has made them.
const OURS: &str = "ours";
const THEIRS: &str = "theirs";

/// Keeps back what comes in at one end: segments with something in them are dropped, and sent again by the kernel.
struct Hold<'a> {
    net: &'a Net,
    end: &'static str,
}

impl<'a> Hold<'a> {
    fn new(net: &'a Net, end: &'static str) -> Self {
        // Where the kernel can be told: what is dropped is sent again within a second. Else it takes a little longer.
        net.namespace(end).sysctl("net/ipv4/tcp_rto_max_ms", "1000").ok();
        let called = |connection| if (end == "a") == (connection == THEIRS) { "dport" } else { "sport" };
        let mut rules = "add table inet hold; \
             add chain inet hold input { type filter hook input priority 0; }; \
             add chain inet hold syn; add rule inet hold input jump syn; "
            .to_owned();
        for connection in [OURS, THEIRS] {
            rules.push_str(&format!(
                "add counter inet hold {connection}-held; add counter inet hold {connection}-open; \
                 add chain inet hold {connection}; \
                 add rule inet hold input tcp {} 179 tcp flags & psh == psh jump {connection}; \
                 add rule inet hold {connection} counter name {connection}-held drop; ",
                called(connection)
            ));
        }
        if end == "a" {
            rules.push_str("add rule inet hold syn tcp dport 179 tcp flags & (syn | ack) == syn drop; ");
        }
        let hold = Self { net, end };
        hold.nft(&rules);
        hold
    }

    fn nft(&self, rules: &str) {
        self.net.exec(self.end, &["nft", rules]);
    }

    /// How many segments a counter has seen.
    fn count(&self, counter: &str) -> u64 {
        let told = self.net.exec(self.end, &["nft", "-j", &format!("list counter inet hold {counter}")]);
        let told: Value = serde_json::from_str(&told).expect("nft prints JSON");
        told["nftables"][1]["counter"]["packets"].as_u64().expect("a number")
    }

    /// Waits until something was held back on a connection: an OPEN is first.
    fn holds(&self, connection: &str) {
        until("an OPEN is on its way", || self.count(&format!("{connection}-held")) > 0);
    }

    /// Lets connections come.
    fn calls(&self) {
        self.nft("flush chain inet hold syn");
    }

    /// Lets the OPEN of a connection through, of which shorter messages are held back still, and waits for that.
    fn opens(&self, connection: &str) {
        self.nft(&format!(
            "flush chain inet hold {connection}; \
             add rule inet hold {connection} ip length > 110 counter name {connection}-open accept; \
             add rule inet hold {connection} drop"
        ));
        until("an OPEN comes", || self.count(&format!("{connection}-open")) > 0);
    }

    /// Lets all of a connection through.
    fn passes(&self, connection: &str) {
        self.nft(&format!("flush chain inet hold {connection}"));
    }
}

/// Connections at our end: the port is ours where the peer has called.
fn connections(net: &Net) -> Vec<&'static str> {
    let told = net.exec("a", &["ss", "-Htn", "state", "established"]);
    let local = told.lines().filter_map(|line| line.split_whitespace().nth(2));
    local.map(|local| if local.ends_with(":179") { THEIRS } else { OURS }).collect()
}

fn collide(net: &Net, start: impl FnOnce() -> Box<dyn Peer>, higher: Higher) {
    let (here, there) = (Hold::new(net, "a"), Hold::new(net, "b"));
    let mut snapshot = Snapshot::pair(|peer| {
        peer["timers"] = serde_json::json!({ "hold_time": 3, "keepalive": 1, "connect_retry": 1 });
    });
    let id = if higher == Higher::We { "10.99.0.9" } else { "10.99.0.1" };
    snapshot.0["instances"][0]["router_id"] = id.into();
    let (kept, closed) = if higher == Higher::We { (OURS, THEIRS) } else { (THEIRS, OURS) };
    let peer = start();
    let speaker = Speaker::start(net, "a", &snapshot);
    there.holds(OURS);
    here.calls();
    for (end, connection) in [(&here, OURS), (&here, THEIRS), (&there, THEIRS)] {
        end.holds(connection);
    }
    let mut both = connections(net);
    both.sort_unstable();
    assert_eq!(both, [OURS, THEIRS]);

    // What goes wrong most easily: the connection that is to be closed is ahead of the other one. Were it established
    // at one end, that end would close the other connection, and the other end this one.
    there.opens(closed);
    here.passes(closed);
    let is_up = || speaker.peer("tor")["session"] == "established";
    assert!(!within(A_MOMENT, is_up), "a session on the connection that loses");
    for end in [&here, &there] {
        end.passes(kept);
    }
    until("the session is established", || is_up() && peer.is_established());
    there.passes(closed);
    let first = speaker.peer("tor");
    until("one connection stays", || connections(net) == [kept]);
    until("it has seen many keepalives", || {
        let enough = first["received"]["keepalive"].as_u64().expect("a number") + 5;
        speaker.peer("tor")["received"]["keepalive"].as_u64() >= Some(enough)
    });
    let later = speaker.peer("tor");
    assert_eq!((&later["established_count"], &later["since"]), (&1.into(), &first["since"]));
    assert!(peer.is_established() && connections(net) == [kept]);
    let said = speaker.daemon.said();
    assert!(said.contains("connection collision resolution"), "nobody was told why: {said}");
}

fn bird(net: &Net) -> Box<dyn Peer> {
    Box::new(Bird::pair(net, ""))
}

fn frr(net: &Net) -> Box<dyn Peer> {
    Box::new(Frr::pair(net, &[]))
}

#[test]
fn of_two_connections_with_bird_ours_stays_when_we_are_higher() {
    let net = Net::pair();
    collide(&net, || bird(&net), Higher::We);
}

#[test]
fn of_two_connections_with_bird_its_own_stays_when_it_is_higher() {
    let net = Net::pair();
    collide(&net, || bird(&net), Higher::They);
}

#[test]
fn of_two_connections_with_frr_ours_stays_when_we_are_higher() {
    let net = Net::pair();
    collide(&net, || frr(&net), Higher::We);
}

#[test]
fn of_two_connections_with_frr_its_own_stays_when_it_is_higher() {
    let net = Net::pair();
    collide(&net, || frr(&net), Higher::They);
}
