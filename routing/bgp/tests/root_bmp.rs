// SPDX-License-Identifier: Apache-2.0
//! Monitoring stations (RFC 7854) beside a session with BIRD: one that reads with bgpkit-parser, and pmacct's.

mod lab;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use bgpkit_parser::models::BgpMessage;
use bgpkit_parser::parser::bmp::messages::{
    BmpMessage, BmpMessageBody, PeerDownReason, PerPeerFlags, StatType, StatsData,
};
use bgpkit_parser::parser::bmp::parse_bmp_msg;
use lab::{Lab, snapshot, tor, until};
use rhumb_bgp_feed::{Snapshot, Station};

const SESSION: &str = "\
    neighbor 10.99.0.2 as 65002; password \"s3cret\"; graceful restart on;
    ipv4 { import all; export where source = RTS_STATIC; next hop self; };
    ipv6 { import all; export where source = RTS_STATIC; next hop address fd99::1; };";

const ROUTES: &str = "\
    protocol static s4 { ipv4; route 0.0.0.0/0 blackhole; route 10.100.1.0/24 blackhole; }
    protocol static s6 { ipv6; route ::/0 blackhole; route fd00:100:1::/64 blackhole; }";

/// Without default routes, which bgpkit-parser misreads beside others.
const READABLE: &str = "\
    protocol static s4 { ipv4; route 10.100.1.0/24 blackhole; route 10.100.2.0/24 blackhole; }
    protocol static s6 { ipv6; route fd00:100:1::/64 blackhole; route fd00:100:2::/64 blackhole; }";

fn monitored(statistics: u32) -> Snapshot {
    let mut snapshot = snapshot(tor());
    let address = "10.99.0.1:11019".parse().expect("valid");
    snapshot.instances[0].stations =
        vec![Station { address, statistics, pre_policy: true, post_policy: true }];
    snapshot
}

/// Reads all messages of one connection after the other.
struct Reader(Arc<Mutex<Vec<BmpMessage>>>);

impl Reader {
    fn start(listener: TcpListener) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut header = [0; 5];
                while stream.read_exact(&mut header).is_ok() {
                    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
                    let mut rest = vec![0; length as usize - 5];
                    stream.read_exact(&mut rest).expect("a whole message");
                    let mut octets = bytes::Bytes::from([&header[..], &rest].concat());
                    let message = parse_bmp_msg(&mut octets).expect("readable");
                    assert!(octets.is_empty(), "its length is that of the message");
                    all.lock().expect("nobody panics here").push(message);
                }
            }
        });
        Self(heard)
    }

    /// Looks at all that was heard until it has what is wanted.
    fn until<T>(&self, what: &str, look: impl Fn(&[BmpMessage]) -> Option<T>) -> T {
        until(what, || look(&self.0.lock().expect("nobody panics here")))
    }
}

/// Routes that are told, and those taken back: view, prefix.
fn routes(messages: &[BmpMessage]) -> (BTreeSet<String>, BTreeSet<String>, usize) {
    let (mut there, mut gone, mut ends) = (BTreeSet::new(), BTreeSet::new(), 0);
    for message in messages {
        let BmpMessageBody::RouteMonitoring(routes) = &message.message_body else { continue };
        let header = message.per_peer_header.as_ref().expect("of a peer");
        let PerPeerFlags::PeerFlags(flags) = header.peer_flags else { unreachable!("no table of ours") };
        let view = if flags.is_post_policy() { "post" } else { "pre" };
        ends += usize::from(routes.is_end_of_rib());
        let BgpMessage::Update(update) = &routes.bgp_message else { unreachable!("not an UPDATE") };
        let mut reached: Vec<_> = update.announced_prefixes.iter().map(|one| one.prefix).collect();
        let mut withdrawn: Vec<_> = update.withdrawn_prefixes.iter().map(|one| one.prefix).collect();
        if let Some(more) = update.attributes.get_reachable_nlri() {
            reached.extend(more.prefixes.iter().map(|one| one.prefix));
        }
        if let Some(more) = update.attributes.get_unreachable_nlri() {
            withdrawn.extend(more.prefixes.iter().map(|one| one.prefix));
        }
        there.extend(reached.iter().map(|prefix| format!("{view} {prefix}")));
        gone.extend(withdrawn.iter().map(|prefix| format!("{view} {prefix}")));
    }
    (there, gone, ends)
}

#[test]
fn a_station_hears_of_sessions_routes_changes_numbers_and_ends() {
    let lab = Lab::new();
    let station = Reader::start(lab.listen("a", "10.99.0.1:11019"));
    let mut bird = lab.bird(SESSION, READABLE);
    let mut speaker = lab.speaker();
    let _feeder = speaker.feed(monitored(1));
    let all: BTreeSet<String> = ["10.100.1.0/24", "10.100.2.0/24", "fd00:100:1::/64", "fd00:100:2::/64"]
        .iter()
        .flat_map(|prefix| ["pre", "post"].map(|view| format!("{view} {prefix}")))
        .collect();
    station.until("all routes in both views", |heard| (routes(heard).0 == all).then_some(()));
    station.until("the ends of both families in both views", |heard| (routes(heard).2 == 4).then_some(()));
    station.until("who we are, and the session with both OPENs", |heard| {
        let mut bodies = heard.iter().map(|message| &message.message_body);
        assert!(matches!(bodies.next(), Some(BmpMessageBody::InitiationMessage(_))));
        let Some(BmpMessageBody::PeerUpNotification(up)) = bodies.next() else { return None };
        let (BgpMessage::Open(sent), BgpMessage::Open(received)) = (&up.sent_open, &up.received_open) else {
            unreachable!("not OPENs")
        };
        assert_eq!((u32::from(sent.asn), u32::from(received.asn)), (65002, 65001));
        assert_eq!((sent.hold_time, received.hold_time), (9, 240));
        assert!([up.local_port, up.remote_port].contains(&179), "{} {}", up.local_port, up.remote_port);
        Some(())
    });
    station.until("numbers", |heard| {
        let stats = heard.iter().filter_map(|message| {
            let BmpMessageBody::StatsReport(report) = &message.message_body else { return None };
            Some(report)
        });
        let mut counters = stats.flat_map(|report| &report.counters);
        let whole = |one: &bgpkit_parser::parser::bmp::messages::StatCounter| {
            (one.stat_type, &one.stat_data) == (StatType::RoutesInAdjRibsIn, &StatsData::Gauge(4))
        };
        counters.any(whole).then_some(())
    });
    bird.say("disable s4");
    station.until("what BIRD takes back", |heard| {
        let gone = routes(heard).1;
        let wanted = ["pre 10.100.1.0/24", "post 10.100.1.0/24", "pre 10.100.2.0/24", "post 10.100.2.0/24"];
        wanted.iter().all(|one| gone.contains(*one)).then_some(())
    });
    bird.child.kill();
    station.until("the end of the session", |heard| {
        heard.iter().find_map(|message| {
            let BmpMessageBody::PeerDownNotification(down) = &message.message_body else { return None };
            assert_eq!(down.reason, PeerDownReason::RemoteSystemsClosedNoData);
            Some(())
        })
    });
    speaker.child.terminate();
    station.until("a last word", |heard| {
        let last = &heard.last()?.message_body;
        matches!(last, BmpMessageBody::TerminationMessage(_)).then_some(())
    });
}

#[test]
fn a_station_that_comes_late_hears_all_there_is() {
    let lab = Lab::new();
    let _bird = lab.bird(SESSION, READABLE);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(monitored(0));
    speaker
        .until("a session with all routes", |peer| peer.families.iter().all(|family| family.received == 2));
    let station = Reader::start(lab.listen("a", "10.99.0.1:11019"));
    station.until("all routes", |heard| (routes(heard).0.len() == 8 && routes(heard).2 == 4).then_some(()));
    assert_eq!(speaker.peer().expect("a peer").established_count, 1);
}

#[test]
fn pmacct_reads_what_a_station_is_told() {
    let lab = Lab::new();
    let (config, log) = (lab.path("pmbmpd.conf"), lab.path("bmp.log"));
    let text = format!(
        "daemonize: false\nbmp_daemon_ip: 10.99.0.1\nbmp_daemon_port: 11019\nbmp_daemon_msglog_file: {}\n\
         bmp_daemon_msglog_output: json\n",
        log.display()
    );
    std::fs::write(&config, text).expect("written");
    let _station = lab.start("a", "pmbmpd", &["-f", &config.display().to_string()]);
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(monitored(1));
    let has = |words: &[&str]| {
        let heard = std::fs::read_to_string(&log).unwrap_or_default();
        heard.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    };
    until("who we are", || has(&["\"init\"", "rhumb-bgp"]));
    until("the session", || has(&["\"peer_up\"", "10.99.0.1", "65001"]));
    for prefix in ["0.0.0.0/0", "10.100.1.0/24", "::/0", "fd00:100:1::/64"] {
        until(prefix, || has(&["route_monitor", "update", &format!("\"{prefix}\""), "65001"]));
    }
    until("numbers", || has(&["\"stats\""]));
    bird.say("disable s6");
    until("what BIRD takes back", || has(&["route_monitor", "withdraw", "\"fd00:100:1::/64\""]));
    bird.say("disable tor");
    until("the end of the session", || has(&["\"peer_down\""]));
}
