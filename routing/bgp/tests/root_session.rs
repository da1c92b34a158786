// SPDX-License-Identifier: Apache-2.0
//! Sessions with real BIRD on the real kernel.

mod lab;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{Lab, all, route, snapshot, tor, until};
use rhumb_bgp::wire::{
    AsPath, Asn, Attributes, Capabilities, Codec, Message, Negotiated, NextHop as WireNextHop, Nlri, Open,
    RouterId,
};
use rhumb_bgp_feed::{
    Answer, Bfd, BfdState, Changes, GracefulRestart, Peer, Question, RouteView, SessionState, Shutdown,
    Table, Timers, Ttl,
};

/// BIRD's end of the session, with MD5 and both families.
const SESSION: &str = "\
    neighbor 10.99.0.2 as 65002; password \"s3cret\"; graceful restart on; enable extended messages on;
    ipv4 { import all; export filter { if source != RTS_STATIC then reject; bgp_community.add((65001,100));
      bgp_large_community.add((65001,1,2)); accept; }; next hop self; };
    ipv6 { import all; export where source = RTS_STATIC; next hop address fd99::1; };";

/// What BIRD tells: the default route first, as a top-of-rack switch does.
const ROUTES: &str = "\
    protocol static s4 { ipv4; route 0.0.0.0/0 blackhole; route 10.100.1.0/24 blackhole; }
    protocol static s6 { ipv6; route ::/0 blackhole; route fd00:100:1::/64 blackhole; }";

fn routes(speaker: &lab::Speaker, table: Table) -> Vec<RouteView> {
    let answer = speaker.ask(Question::Routes { table, peer: None, family: None, most: 100 });
    let Answer::Routes { routes, more: 0 } = answer else { unreachable!("{answer:?}") };
    routes
}

fn is_up(peer: &rhumb_bgp_feed::PeerState) -> bool {
    peer.session == SessionState::Established && peer.families.iter().all(|family| family.end_of_rib)
}

#[test]
fn bird_and_we_exchange_both_families_with_communities_under_md5() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(tor()));
    // BIRD may tell of its static routes after its first End-of-RIB.
    let peer = speaker.until("a session with all routes", |peer| {
        is_up(peer) && peer.families.iter().all(|family| (family.received, family.accepted) == (2, 2))
    });
    assert_eq!((peer.asn, peer.hold_time), (Some(65001), Some(9)));

    let told = until("our routes at BIRD", || {
        Some(bird.routes()).filter(|told| told.contains("10.200.1.0/24") && told.contains("fd00:200:1::/64"))
    });
    for part in ["BGP.as_path: 65002", "(65002, 5, 6)", "(65002,5)", "BGP.next_hop: fd99::2"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let heard = routes(&speaker, Table::In);
    let prefixes: Vec<String> = heard.iter().map(|route| route.prefix.to_string()).collect();
    assert_eq!(prefixes, ["0.0.0.0/0", "10.100.1.0/24", "::/0", "fd00:100:1::/64"]);
    assert_eq!(heard[1].communities, [65001 << 16 | 100]);
    assert_eq!(heard[1].large_communities, [[65001, 1, 2]]);
    assert_eq!(heard[1].as_path, "65001");
}

#[test]
fn a_wrong_key_brings_no_session() {
    let lab = Lab::new();
    let bird = lab.bird(&SESSION.replace("s3cret", "other"), ROUTES);
    let speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    let failed = || {
        let counters = lab.exec("b", "cat /proc/net/netstat");
        let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next()?, lines.next()?);
        let at = names.split(' ').position(|name| name == "TCPMD5Failure")?;
        values.split(' ').nth(at)?.parse::<u64>().ok().filter(|count| *count > 0)
    };
    until("segments with another key", failed);
    assert_ne!(speaker.peer().expect("a peer").session, SessionState::Established);
    // The right key is a change of this peer alone, and brings the session.
    feeder.change(|wanted| {
        wanted.instances[0].peers[0].md5 = Some(rhumb_bgp_feed::Secret::new("other"));
    });
    speaker.until("a session with the right key", is_up);
    drop(bird);
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn bird_keeps_our_routes_while_we_are_killed_and_start_again() {
    let lab = Lab::new();
    let kernel = "protocol kernel k4 { ipv4 { import none; export where source = RTS_BGP; }; }";
    let bird = lab.bird(SESSION, &format!("{ROUTES}\n{kernel}"));
    let mut speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    until("our route in BIRD's kernel", || {
        lab.ip("a", "route show 10.200.1.0/24").contains("via 10.99.0.2").then_some(())
    });

    let learned = || {
        let all = lab.ip("b", "route show table all proto 115");
        all.lines().find(|line| line.starts_with("10.100.1.0/24")).unwrap_or_default().to_owned()
    };
    until("BIRD's route in our kernel", || learned().contains("via 10.99.0.1").then_some(()));

    assert!(!lab.log().contains("routes of the last run"), "there was none");
    let done = AtomicBool::new(false);
    let fresh = std::thread::scope(|scope| {
        // However this ends, the other thread does not go on for ever.
        let _done = Done(&done);
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(
                    lab.ip("a", "route show 10.200.1.0/24").contains("via 10.99.0.2"),
                    "the route is lost"
                );
                looks += 1;
            }
            looks
        });
        drop(feeder);
        speaker.child.kill();
        until("BIRD misses us", || (!bird.say("show protocols tor").contains("Established")).then_some(()));
        assert!(bird.has("10.200.1.0/24"), "BIRD keeps the route");
        // What BIRD took back meanwhile.
        lab.ip("b", "route add 10.77.0.0/16 via 10.99.0.1 table 7268 proto 115 metric 115");
        let again = lab.speaker();
        // Nobody feeds it yet: it goes by its state file, and End-of-RIB waits for the agent.
        again.until("a session without the agent", |peer| peer.session == SessionState::Established);
        bird.until("AF preserved: ipv4 ipv6");
        assert!(lab.ip("b", "route show table 7268").contains("10.77.0.0/16"), "nothing goes before the end");
        let _feeder = again.feed(snapshot(tor()));
        again.until("all routes", is_up);
        until("nothing stale at BIRD", || (!bird.routes().contains("stale")).then_some(()));
        until("what is stale here is swept", || {
            (!lab.ip("b", "route show table 7268").contains("10.77.0.0/16")).then_some(())
        });
        assert!(learned().contains("via 10.99.0.1"), "{}", learned());
        assert!(lab.log().contains("routes of the last run"));
        done.store(true, Ordering::Relaxed);
        assert!(watch.join().expect("never without the route") > 0);
        again
    });
    assert!(bird.has("10.200.1.0/24"));
    drop(fresh);
}

#[test]
fn whoever_is_killed_right_after_a_change_knows_it() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let mut speaker = lab.speaker();
    let wanted = snapshot(tor());
    let feeder = speaker.feed(snapshot(Peer { passive: true, ..tor() }));
    until("the first configuration", || speaker.peer());
    let read = || std::fs::read(lab.path("state/bgp.json")).expect("written with the first one");
    let before = read();
    feeder.change(|current| *current = wanted.clone());
    until("the change is taken", || (read() != before).then_some(()));
    speaker.child.kill();
    drop(feeder);
    let again = lab.speaker();
    again.until("a session", |peer| peer.session == SessionState::Established);
    bird.until("Restart recovery");
}

#[test]
fn changes_of_routes_and_policies_are_updates_and_never_end_a_session() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    let before = speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));

    feeder.change(|wanted| wanted.instances[0].routes.insert(1, route("10.200.2.0/24", &[], &[])));
    until("one route more", || bird.has("10.200.2.0/24").then_some(()));
    feeder.change(|wanted| {
        wanted.instances[0].routes.remove(0);
    });
    until("one route less", || (!bird.has("10.200.1.0/24")).then_some(()));
    feeder.change(|wanted| {
        wanted.instances[0].peers[0].export =
            all(Changes { med: Some(77), prepend: 1, ..Changes::default() });
    });
    until("other attributes", || {
        let told = bird.routes();
        (told.contains("BGP.med: 77") && told.contains("BGP.as_path: 65002 65002")).then_some(())
    });
    feeder.change(|wanted| wanted.instances[0].peers[0].export = rhumb_bgp_feed::Policy::default());
    until("nothing without a rule", || (!bird.has("10.200.2.0/24")).then_some(()));
    feeder.change(|wanted| wanted.instances[0].peers[0].import = rhumb_bgp_feed::Policy::default());
    until("nothing taken without a rule", || {
        let peer = speaker.peer()?;
        peer.families.iter().all(|family| (family.received, family.accepted) == (2, 0)).then_some(())
    });

    feeder.change(|wanted| {
        let peer = &mut wanted.instances[0].peers[0];
        (peer.passive, peer.families[0].next_hop_self, peer.families[0].max_prefixes) = (true, true, Some(2));
        peer.import = all(Changes::default());
    });
    until("all taken once more", || {
        let peer = speaker.peer()?;
        peer.families.iter().all(|family| (family.received, family.accepted) == (2, 2)).then_some(())
    });

    let after = speaker.peer().expect("a peer");
    assert_eq!((after.established_count, after.since), (1, before.since));
    assert_eq!(after.received.open, 1);
}

#[test]
fn both_sides_refresh_on_request() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(tor()));
    let before = speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    // BIRD asks for our routes, and tells its own once more between marks.
    bird.say("reload in tor");
    bird.say("reload out tor");
    let after = speaker.until("a request and its answer", |peer| {
        // Two requests, and two marks of each family, in both directions but the requests.
        let (heard, told) = (peer.received.route_refresh, peer.sent.route_refresh);
        let is_whole = peer.families.iter().all(|family| (family.received, family.stale) == (2, 0));
        heard >= 6 && told >= 4 && peer.sent.update > before.sent.update && is_whole
    });
    assert_eq!(after.established_count, 1);
}

#[test]
fn ttl_security_is_spoken_and_kept() {
    let lab = Lab::new();
    let session = SESSION.replace("graceful restart on;", "ttl security on;");
    let bird = lab.bird(&session, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(Peer { ttl: Ttl::Security(1), graceful_restart: None, ..tor() }));
    speaker.until("a session with TTL 255", is_up);
    let sockets = lab.exec("b", "ss -tnie state established");
    assert!(sockets.contains(":179"), "{sockets}");
    // Whoever is farther away is not heard: BIRD now sends with a TTL of 1.
    drop(bird);
    let bird = lab.bird(&session.replace("ttl security on;", "ttl security off;"), ROUTES);
    speaker.until("no session with a low TTL", |peer| peer.session != SessionState::Established);
    let quiet = std::time::Instant::now() + Duration::from_secs(3);
    until("three seconds without a session", || {
        assert_ne!(speaker.peer().expect("a peer").session, SessionState::Established);
        (std::time::Instant::now() > quiet).then_some(())
    });
    drop(bird);
}

#[test]
fn a_passive_peer_waits_and_is_found_by_its_address() {
    let lab = Lab::new();
    let _bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(Peer { passive: true, ..tor() }));
    speaker.until("a session that BIRD began", is_up);
}

#[test]
fn with_too_many_routes_the_session_is_closed_and_left_alone() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let mut peer = tor();
    peer.families[0].max_prefixes = Some(1);
    let feeder = speaker.feed(snapshot(peer));
    bird.until("Maximum number of prefixes reached");
    let peer = speaker.until("no session", |peer| peer.session == SessionState::Idle);
    assert!(peer.last_error.is_some());
    assert_eq!(routes(&speaker, Table::In), []);
    // Another limit is another try; one that comes to be too low ends the session.
    feeder.change(|wanted| wanted.instances[0].peers[0].families[0].max_prefixes = Some(2));
    speaker.until("a session with as many routes as allowed", is_up);
    feeder.change(|wanted| wanted.instances[0].peers[0].families[0].max_prefixes = Some(1));
    speaker.until("no session once more", |peer| peer.session == SessionState::Idle);
}

#[test]
fn a_peer_that_is_shut_says_why_and_comes_back_when_it_is_wanted() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    speaker.until("a session", is_up);
    let reason = "cabling, back at noon";
    feeder.change(|wanted| {
        wanted.instances[0].peers[0].shutdown = Some(Shutdown { reason: reason.to_owned() });
    });
    bird.until(reason);
    assert!(!bird.has("10.200.1.0/24"), "whoever shuts a session takes its routes along");
    feeder.change(|wanted| wanted.instances[0].peers[0].shutdown = None);
    speaker.until("the session again", is_up);
}

#[test]
fn a_drain_shuns_then_withdraws_then_closes() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(tor()));
    speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| speaker.ask(Question::Drain { reason: "maintenance".to_owned() }));
        until("GRACEFUL_SHUTDOWN", || bird.routes().contains("(65535,0)").then_some(()));
        until("withdrawn", || (!bird.has("10.200.1.0/24")).then_some(()));
        assert!(bird.say("show protocols tor").contains("Established"), "withdrawn before it is closed");
        assert_eq!(drain.join().expect("asked"), Answer::Done);
    });
    speaker.until("no session", |peer| peer.session == SessionState::Idle);
    assert_eq!(speaker.ask(Question::Undrain), Answer::Done);
    speaker.until("the session again", is_up);
    until("our route again", || bird.has("10.200.1.0/24").then_some(()));
}

#[test]
fn a_terminated_speaker_says_nothing_where_routes_are_to_be_kept() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let mut speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    drop(feeder);
    speaker.child.terminate();
    until("BIRD misses us", || (!bird.say("show protocols tor").contains("Established")).then_some(()));
    assert!(bird.has("10.200.1.0/24"), "BIRD keeps the route");
}

#[test]
fn sessions_with_timers_of_one_and_three_seconds_hold() {
    let lab = Lab::new();
    let _bird = lab.bird(&format!("{SESSION} hold time 3; keepalive time 1;"), ROUTES);
    let speaker = lab.speaker();
    let timers = Timers { hold_time: 3, keepalive: 1, connect_retry: 1 };
    let _feeder = speaker.feed(snapshot(Peer { timers, ..tor() }));
    let first = speaker.until("a session", is_up);
    let later = speaker.until("many keepalives", |peer| peer.received.keepalive >= 10);
    assert_eq!((later.established_count, later.since), (1, first.since));
}

#[test]
fn a_link_without_numbers_carries_both_families_by_link_local_addresses() {
    let lab = Lab::new();
    for end in ["a", "b"] {
        let number = if end == "a" { 1 } else { 2 };
        lab.ip(end, &format!("addr del 10.99.0.{number}/24 dev v{end}"));
        lab.ip(end, &format!("addr del fd99::{number}/64 dev v{end}"));
        // Routers of both kinds: neither takes the other's advertisements for addresses.
        lab.exec(end, "sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1");
    }
    let session = "\
        interface \"va\"; neighbor range fe80::/10 external; dynamic name \"found\";
        ipv4 { import all; export where source = RTS_STATIC; extended next hop on; };
        ipv6 { import all; export where source = RTS_STATIC; };";
    let rest = "\
        protocol kernel k4 { ipv4 { import none; export where source = RTS_BGP; }; }
        protocol radv { interface \"va\" { min ra interval 3; max ra interval 5; }; }
        protocol static s4 { ipv4; route 10.100.1.0/24 blackhole; }";
    let _bird = lab.bird(session, rest);
    let speaker = lab.speaker();
    let mut peer = tor();
    peer.address = rhumb_bgp_feed::PeerAddress::Interface("vb".parse().expect("valid"));
    peer.asn = rhumb_bgp_feed::PeerAsn::External;
    peer.md5 = None;
    peer.families[0].extended_next_hop = true;
    let _feeder = speaker.feed(snapshot(peer));
    speaker
        .until("a session with the router that was found", |peer| peer.session == SessionState::Established);
    until("our IPv4 route by an IPv6 next hop in BIRD's kernel", || {
        lab.ip("a", "route show 10.200.1.0/24").contains("via inet6 fe80:").then_some(())
    });
    until("BIRD's IPv4 route by an IPv6 next hop in our kernel", || {
        let all = lab.ip("b", "route show table all proto 115");
        all.lines().any(|line| line.starts_with("10.100.1.0/24 via inet6 fe80:")).then_some(())
    });
}

/// BIRD that asks for its routes to be kept, shortly and then for long, and keeps ours.
fn long_lived(stale_time: u32) -> String {
    format!(
        "{SESSION} graceful restart time 2; long lived graceful restart on; long lived stale time {stale_time};"
    )
}

/// Ourselves with the same wish.
fn wishing(restart_time: u16, long_lived_stale_time: u32) -> Peer {
    let graceful_restart = Some(GracefulRestart { restart_time, long_lived_stale_time });
    Peer { graceful_restart, ..tor() }
}

#[test]
fn birds_routes_become_a_last_resort_after_its_restart_time_and_then_go() {
    let lab = Lab::new();
    let mut bird = lab.bird(&long_lived(4), ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(wishing(30, 3600)));
    speaker.until("a session with all routes", |peer| {
        is_up(peer) && peer.families.iter().all(|family| family.received == 2)
    });
    let learned = || lab.ip("b", "route show table all proto 115").contains("10.100.1.0/24 via 10.99.0.1");
    until("BIRD's route in our kernel", || learned().then_some(()));
    bird.child.kill();
    let marked = || {
        let heard = routes(&speaker, Table::In);
        let is_marked = |route: &RouteView| route.communities.contains(&0xffff_0006);
        assert!(heard.iter().all(|route| route.stale || !is_marked(route)));
        (heard.len() == 4 && heard.iter().all(is_marked)).then_some(())
    };
    until("all of its routes are a last resort", marked);
    assert!(learned(), "packets go on");
    until("they go", || (routes(&speaker, Table::In).is_empty() && !learned()).then_some(()));
}

#[test]
fn bird_keeps_our_routes_as_a_last_resort_as_long_as_we_ask() {
    let lab = Lab::new();
    let bird = lab.bird(&long_lived(3600), ROUTES);
    let mut speaker = lab.speaker();
    let _feeder = speaker.feed(snapshot(wishing(1, 3600)));
    speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    bird.until("Long-lived graceful restart");
    speaker.child.kill();
    // BIRD names the community as two numbers.
    until("our route is a last resort", || bird.routes().contains("(65535,6)").then_some(()));
    assert!(bird.has("10.200.1.0/24") && bird.has("fd00:200:1::/64"));
    let again = lab.speaker();
    let _feeder = again.feed(snapshot(wishing(1, 3600)));
    again.until("a session", is_up);
    until("they are as any other", || (!bird.routes().contains("(65535,6)")).then_some(()));
    assert!(bird.has("10.200.1.0/24"));
}

#[test]
fn silence_of_birds_bfd_is_its_restart_or_a_path_that_failed() {
    let lab = Lab::new();
    let session = format!("{SESSION} bfd graceful;");
    let rest = format!(
        "{ROUTES}\nprotocol bfd {{ interface \"va\" {{ min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }}; }}"
    );
    let mut bird = lab.bird(&session, &rest);
    let speaker = lab.speaker();
    let bfd = Bfd { transmit_ms: 50, receive_ms: 50, multiplier: 3, multihop: false, hold: false };
    let _feeder = speaker.feed(snapshot(Peer { bfd: Some(bfd), ..tor() }));
    let whole = |peer: &rhumb_bgp_feed::PeerState| {
        let is_told = |family: &rhumb_bgp_feed::FamilyState| (family.received, family.stale) == (2, 0);
        is_up(peer) && peer.families.iter().all(is_told) && peer.bfd == Some(BfdState::Up)
    };
    speaker.until("a session with all routes, and BFD", whole);
    let learned = || lab.ip("b", "route show table all proto 115").contains("10.100.1.0/24 via 10.99.0.1");
    until("BIRD's route in our kernel", || learned().then_some(()));

    bird.child.kill();
    let away = speaker.until("BFD is silent", |peer| peer.bfd == Some(BfdState::Down));
    assert!(away.restarting, "{away:?}");
    assert!(learned(), "packets go on while BIRD restarts");
    drop(bird);
    let _again = lab.bird(&session, &rest);
    speaker.until("BIRD is back", whole);
    assert!(learned());

    lab.ip("a", "link set va down");
    let failed = speaker.until("BFD is silent once more", |peer| peer.session != SessionState::Established);
    assert!(!failed.restarting && failed.families.is_empty(), "{failed:?}");
    until("no routes are left", || routes(&speaker, Table::In).is_empty().then_some(()));
}

/// A peer of its own that tells one route and then keeps silent, for as long as it is held.
fn teller(lab: &Lab, number: u8, path: &[u32]) -> std::net::TcpStream {
    use std::io::Write;
    let address = [10, 99, 0, number];
    let mut stream = lab.connect("a", address.into(), [10, 99, 0, 2].into());
    let offer = |asn: u32, address: [u8; 4]| Open {
        asn: Asn(asn),
        hold_time: 90,
        router_id: RouterId::from(Ipv4Addr::from(address)),
        capabilities: Capabilities { asn4: Some(Asn(asn)), ..Capabilities::default() },
    };
    let own = offer(65000 + u32::from(number), address);
    let codec = Codec::new(&Negotiated::of(&own, &offer(65002, [10, 99, 0, 2])).expect("both speak IPv4"));
    let as_path = AsPath::sequence(path.iter().copied().map(Asn));
    let attributes = Arc::new(Attributes { as_path, ..Attributes::default() });
    let nlri = Nlri::from("10.77.0.0/24".parse::<rhumb_model::Prefix>().expect("a prefix"));
    let messages = [
        Codec::opening().encode(&Message::Open(own)).expect("no errors"),
        codec.encode(&Message::Keepalive).expect("no errors"),
        codec.encode_update(&attributes, &WireNextHop::V4(address.into()), &[nlri]).expect("fits"),
    ];
    stream.write_all(&messages.concat().concat()).expect("said");
    stream
}

#[test]
fn bird_takes_several_paths_and_follows_each() {
    let lab = Lab::new();
    let mut wanted = snapshot(tor());
    for number in [3, 4] {
        lab.ip("a", &format!("addr add 10.99.0.{number}/24 dev va"));
        let mut peer = Peer {
            key: rhumb_bgp_feed::PeerKey(format!("teller{number}")),
            address: rhumb_bgp_feed::PeerAddress::Ip([10, 99, 0, number].into()),
            asn: rhumb_bgp_feed::PeerAsn::Number(65000 + u32::from(number)),
            passive: true,
            md5: None,
            graceful_restart: None,
            timers: Timers { hold_time: 90, keepalive: 30, connect_retry: 2 },
            ..tor()
        };
        peer.families.truncate(1);
        wanted.instances[0].peers.insert(0, peer);
    }
    wanted.instances[0].peers.sort_by(|one, other| one.key.cmp(&other.key));
    let tor = wanted.instances[0].peers.iter_mut().find(|peer| peer.key.0 == "tor").expect("it is there");
    tor.families[0].send_paths = 0;
    let bird = lab.bird(&SESSION.replace("ipv4 { import all;", "ipv4 { add paths rx; import all;"), ROUTES);
    let speaker = lab.speaker();
    let _feeder = speaker.feed(wanted);
    let paths = || {
        let all = bird.say("show route all for 10.77.0.0/24 protocol tor");
        let mut paths: Vec<String> = all
            .lines()
            .filter_map(|line| line.trim().strip_prefix("BGP.as_path: "))
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths
    };
    let first = teller(&lab, 3, &[65003]);
    until("one path at BIRD", || (paths() == ["65002 65003"]).then_some(()));
    let _second = teller(&lab, 4, &[65004, 7]);
    until("both paths at BIRD", || (paths() == ["65002 65003", "65002 65004 7"]).then_some(()));
    // IPv6, for which several were not agreed on, goes as ever.
    until("our IPv6 route at BIRD", || bird.has("fd00:200:1::/64").then_some(()));
    drop(first);
    until("the other path alone", || (paths() == ["65002 65004 7"]).then_some(()));
}

#[test]
fn a_thousand_services_that_change_at_once_are_one_message_and_no_event() {
    let lab = Lab::new();
    let bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    let before = speaker.until("a session", is_up);
    until("our route at BIRD", || bird.has("10.200.1.0/24").then_some(()));
    let services = |communities: &[u32]| {
        let address = |at: u32| format!("{}/32", Ipv4Addr::from(0x0ac9_0000 + at));
        (0..1000).map(|at| route(&address(at), communities, &[])).collect::<Vec<_>>()
    };
    let mut sent = speaker.peer().expect("a peer").sent.update;
    let mut count = |what: &str, is_there: &dyn Fn() -> bool| {
        until(what, || is_there().then_some(()));
        let now = speaker.peer().expect("a peer").sent.update;
        assert_eq!(now - std::mem::replace(&mut sent, now), 1, "{what}");
    };
    let told = |number: usize| {
        let said = bird.say("show route count protocol tor table master4");
        said.contains(&format!("{number} of "))
    };
    feeder.change(|wanted| {
        wanted.instances[0].routes.extend(services(&[]));
        wanted.instances[0].routes.sort_by_key(|route| route.prefix);
    });
    count("a thousand more", &|| told(1001));
    feeder.change(|wanted| {
        wanted.instances[0].routes.retain(|route| route.prefix.len() != 32);
        wanted.instances[0].routes.extend(services(&[65002 << 16 | 9]));
        wanted.instances[0].routes.sort_by_key(|route| route.prefix);
    });
    count("a thousand with a community", &|| {
        told(1001) && bird.say("show route all for 10.201.3.231/32").contains("(65002,9)")
    });
    feeder.change(|wanted| wanted.instances[0].routes.retain(|route| route.prefix.len() != 32));
    count("a thousand less", &|| told(1));
    let after = speaker.peer().expect("a peer");
    assert_eq!((after.established_count, after.since), (1, before.since));
    assert_eq!((after.sent.open, after.sent.notification, after.sent.route_refresh), (1, 0, 0));
}

#[test]
fn an_instance_that_goes_takes_its_routes_along() {
    let lab = Lab::new();
    let _bird = lab.bird(SESSION, ROUTES);
    let speaker = lab.speaker();
    let feeder = speaker.feed(snapshot(tor()));
    let learned = || lab.ip("b", "route show table all proto 115").contains("10.100.1.0/24");
    until("BIRD's route in our kernel", || learned().then_some(()));
    // Another AS is another instance, too: its session begins anew, and its routes come back with it.
    feeder.change(|wanted| wanted.instances[0].asn = 65003);
    until("no session with an AS that BIRD does not expect", || (!learned()).then_some(()));
    feeder.change(|wanted| wanted.instances[0].asn = 65002);
    until("BIRD's route once more", || learned().then_some(()));
    feeder.change(|wanted| wanted.instances.clear());
    until("no route of an instance that is gone", || (!learned()).then_some(()));
}
