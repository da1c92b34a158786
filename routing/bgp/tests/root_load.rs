// SPDX-License-Identifier: Apache-2.0
//! Keepalives while a full table comes and goes, is told to another peer and written into the kernel: timers of 1 and 3 s
//! hold, as both peers see it.

mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use lab::{Lab, snapshot, tor, within};
use rhumb_bgp::wire::{
    AsPath, Asn, Attributes, Capabilities, Codec, Message, Negotiated, NextHop, Nlri, Open, RouterId,
};
use rhumb_bgp_feed::{FamilyConfig, Peer, PeerAddress, PeerAsn, PeerKey, Timers};
use rhumb_model::{Family, Prefix};

const ROUTES: u32 = 120_000;
const PACK: usize = 200;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;
/// When two keepalives should have come since the last.
const LATE: Duration = Duration::from_secs(2);
/// How often all of them come and go.
const ROUNDS: usize = 3;
/// How long that may take, by a program that was not optimised on a machine that has more to do.
const PATIENCE: Duration = Duration::from_secs(240);

/// A peer that is this test: what it hears, and when.
struct Scripted {
    stream: TcpStream,
    codec: Codec,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    keepalives: Vec<Instant>,
    updates: usize,
}

fn open(asn: u32, address: [u8; 4]) -> Open {
    let capabilities = Capabilities {
        families: BTreeSet::from([Family::V4]),
        asn4: Some(Asn(asn)),
        ..Capabilities::default()
    };
    Open { asn: Asn(asn), hold_time: 3, router_id: RouterId::from(Ipv4Addr::from(address)), capabilities }
}

impl Scripted {
    fn connect(lab: &Lab, asn: u32, address: [u8; 4]) -> Self {
        let mut stream = lab.connect("a", address.into(), [10, 99, 0, 2].into());
        let offer = open(asn, address);
        let mut opening = Codec::opening();
        stream
            .write_all(&opening.encode(&Message::Open(offer.clone())).expect("no errors").concat())
            .expect("sent");
        let mut input = BytesMut::new();
        let theirs = loop {
            match opening.decode(&mut input).expect("good") {
                Some(Message::Open(theirs)) => break theirs,
                Some(other) => unreachable!("{other:?}"),
                None => read(&mut stream, &mut input),
            }
        };
        let codec = Codec::new(&Negotiated::of(&offer, &theirs).expect("both speak IPv4"));
        stream.write_all(&codec.encode(&Message::Keepalive).expect("no errors").concat()).expect("sent");
        let heard = Arc::<Mutex<Heard>>::default();
        let (mut reading, write_down) = (stream.try_clone().expect("a socket"), heard.clone());
        std::thread::spawn(move || {
            loop {
                // Only headers are looked at, so that a slow reader is never why something is late.
                let now = Instant::now();
                while let Some((length, kind)) = header(&input)
                    && input.len() >= length
                {
                    input.advance(length);
                    let mut heard = write_down.lock().expect("nobody panics here");
                    match kind {
                        KEEPALIVE => heard.keepalives.push(now),
                        UPDATE => heard.updates += 1,
                        _ => return,
                    }
                }
                let mut octets = [0; 1 << 16];
                match reading.read(&mut octets) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => input.extend_from_slice(&octets[..length]),
                }
            }
        });
        Self { stream, codec, heard }
    }

    /// The longest time between two keepalives, or since the last.
    fn longest(&self) -> Duration {
        let times = self.heard.lock().expect("nobody panics here").keepalives.clone();
        let now = Instant::now();
        let pairs = times.iter().zip(times.iter().skip(1).chain([&now]));
        pairs.map(|(one, next)| next.duration_since(*one)).max().expect("a keepalive")
    }

    /// A writer that sends keepalives of its own.
    fn keep_alive(&self) {
        let (mut stream, codec) = (self.stream.try_clone().expect("a socket"), self.codec.clone());
        let keepalive = codec.encode(&Message::Keepalive).expect("no errors").concat();
        std::thread::spawn(move || {
            while stream.write_all(&keepalive).is_ok() {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

/// Length and type of the message that begins here (RFC 4271 §4.1).
fn header(input: &[u8]) -> Option<(usize, u8)> {
    let header = input.get(..19)?;
    Some((usize::from(u16::from_be_bytes([header[16], header[17]])), header[18]))
}

fn read(stream: &mut TcpStream, input: &mut BytesMut) {
    let mut octets = [0; 4096];
    let length = stream.read(&mut octets).expect("something");
    assert!(length > 0, "closed");
    input.extend_from_slice(&octets[..length]);
}

fn scripted(number: u8) -> Peer {
    let family = FamilyConfig {
        family: Family::V4,
        max_prefixes: None,
        extended_next_hop: false,
        next_hop_self: false,
        send_paths: 1,
        receive_paths: false,
    };
    Peer {
        key: PeerKey(format!("peer{number}")),
        address: PeerAddress::Ip([10, 99, 0, number].into()),
        asn: PeerAsn::Number(65000 + u32::from(number)),
        md5: None,
        passive: true,
        timers: Timers { hold_time: 3, keepalive: 1, connect_retry: 2 },
        families: vec![family],
        graceful_restart: None,
        ..tor()
    }
}

#[test]
fn keepalives_are_on_time_while_a_full_table_comes_and_goes() {
    let lab = Lab::new();
    lab.ip("a", "addr add 10.99.0.3/24 dev va");
    let speaker = lab.speaker_saying("info");
    let mut wanted = snapshot(scripted(1));
    wanted.instances[0].peers.push(scripted(3));
    wanted.instances[0].routes.clear();
    let _feeder = speaker.feed(wanted);
    let injector = Scripted::connect(&lab, 65001, [10, 99, 0, 1]);
    let sink = Scripted::connect(&lab, 65003, [10, 99, 0, 3]);
    sink.keep_alive();

    let prefixes: Vec<Nlri> = (0..ROUTES)
        .map(|at| Nlri::from(Prefix::containing(Ipv4Addr::from(0x0b00_0000 + at * 256).into(), 24)))
        .collect();
    let next_hop = NextHop::V4([10, 99, 0, 1].into());
    let (mut announce, mut withdraw) = (Vec::new(), Vec::new());
    for (at, chunk) in prefixes.chunks(PACK).enumerate() {
        let path = AsPath::sequence([65001, 64000 + u32::try_from(at % 500).expect("small")].map(Asn));
        let attributes = Arc::new(Attributes { as_path: path, ..Attributes::default() });
        announce.push(injector.codec.encode_update(&attributes, &next_hop, chunk).expect("fits").concat());
        withdraw.push(injector.codec.encode_withdraw(Family::V4, chunk).concat());
    }
    let keepalive = injector.codec.encode(&Message::Keepalive).expect("no errors").concat();
    let mut stream = injector.stream.try_clone().expect("a socket");
    let mut said = Instant::now();
    let mut send = |messages: &[Vec<u8>]| {
        for message in messages.iter().map(Some).chain([None]) {
            if let Some(message) = message {
                stream.write_all(message).expect("the session is up");
            }
            if said.elapsed() > Duration::from_secs(1) {
                stream.write_all(&keepalive).expect("the session is up");
                said = Instant::now();
            }
        }
    };
    let in_kernel = || lab.ip("b", "route show table all proto 115").lines().count();
    for round in 0..ROUNDS {
        send(&announce);
        if round == 0 {
            // Once all is waited for, so that kernel and peer have had all of it.
            within(PATIENCE, "all routes in our kernel", || {
                send(&[]);
                (in_kernel() == ROUTES as usize).then_some(())
            });
        }
        send(&withdraw);
    }
    within(PATIENCE, "all is taken back", || {
        send(&[]);
        (in_kernel() == 0).then_some(())
    });
    let answer = speaker.ask(rhumb_bgp_feed::Question::Peers);
    let rhumb_bgp_feed::Answer::Peers(peers) = answer else { unreachable!("{answer:?}") };
    for peer in peers {
        // A session that dropped came back as another one.
        assert_eq!(peer.established_count, 1, "{peer:?}");
        assert_eq!(peer.session, rhumb_bgp_feed::SessionState::Established);
    }
    let updates = sink.heard.lock().expect("nobody panics here").updates;
    assert!(updates > ROUTES as usize / PACK, "{updates} UPDATEs for all that was told");
    let longest = [injector.longest(), sink.longest()];
    eprintln!("{ROUNDS} rounds of {ROUTES} routes; longest times between keepalives: {longest:?}");
    assert!(longest.iter().all(|longest| *longest < LATE), "{longest:?}");
}
